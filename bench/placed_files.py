"""Renders the files that site.yml places on a hypervisor of an inventory of this repository, for benchmarks."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), *(str(ROOT / "tests" / part) for part in ("golden", "roles"))]

from golden_cases import INVENTORIES, plans  # noqa: E402 - after the path is set
from rendered import files_of_plan  # noqa: E402 - after the path is set

PLACES = {
    "tables.conf": "/etc/l3hv/tables.conf",
    "nftables.conf": "/etc/l3hv/nftables.conf",
    "sysctl.conf": "/etc/sysctl.d/zz-l3hv.conf",
    "tables-sync": "/usr/local/lib/l3hv/tables-sync",
    "packet-filter": "/usr/local/lib/l3hv/packet-filter",
}
"""The files that ``Hypervisor`` (hypervisor.py) needs, and their places on a host."""


def plan_of(inventory: str, host: str) -> dict[str, Any]:
    """Return the plan of a host of ``inventories/``."""
    return plans(INVENTORIES / inventory)[host]


def write_files(plan: dict[str, Any], directory: Path) -> Path:
    """Write the plan of a hypervisor and its rendered files to ``directory``, and return it."""
    directory.mkdir()
    (directory / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    files = files_of_plan(plan)
    for name, place in PLACES.items():
        path = directory / name
        path.write_text(files[place], encoding="utf-8")
        path.chmod(0o755 if files[place].startswith("#!") else 0o644)
    return directory


def copy_modules(directory: Path, *names: str) -> None:
    """Copy modules of this folder."""
    for name in names:
        shutil.copy(ROOT / "bench" / name, directory / name)

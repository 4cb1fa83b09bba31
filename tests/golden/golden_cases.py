"""Golden cases: an inventory in `intent/`, and the plan and the files of each host in `expected/<host>/`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import read_fabric

GOLDEN = Path(__file__).parent
INVENTORIES = GOLDEN.parent.parent / "inventories"


def cases() -> list[str]:
    """Return the names of all cases; a new one needs no `expected/` yet."""
    return sorted(
        path.name for path in GOLDEN.iterdir() if (path / "intent").is_dir() or (path / "expected").is_dir()
    )


def intent_directory(case: str) -> Path:
    """Return the inventory of a case; the case `lab` has the shipped inventory `inventories/lab`."""
    own = GOLDEN / case / "intent"
    return own if own.is_dir() else INVENTORIES / case


def expected_directory(case: str, host: str) -> Path:
    """Return the directory of the expected files of a host."""
    return GOLDEN / case / "expected" / host


def plans(inventory: Path) -> dict[str, dict[str, Any]]:
    """Return the plans of an inventory by host, as plain data, read in the same way as by a playbook."""
    opened = open_inventory(inventory)
    with tempfile.TemporaryDirectory() as directory:
        run = read_fabric(opened, opened.kinds()[0], Path(directory))
        return {path.stem: json.loads(path.read_text()) for path in run.plans.glob("*.json")}

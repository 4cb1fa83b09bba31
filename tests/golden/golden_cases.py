"""Golden cases: an inventory under `intent/`, and what is made of it under `expected/<host>/`."""

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
    """Return the inventory of a case; that of `lab` is the one that the project is shipped with."""
    own = GOLDEN / case / "intent"
    return own if own.is_dir() else INVENTORIES / case


def expected_directory(case: str, host: str) -> Path:
    """Return where the files that a host of a case is expected to get are kept."""
    return GOLDEN / case / "expected" / host


def plans(inventory: Path) -> dict[str, dict[str, Any]]:
    """Return, by host, the plans of an inventory as plain data, read as a playbook reads it."""
    opened = open_inventory(inventory)
    with tempfile.TemporaryDirectory() as directory:
        run = read_fabric(opened, opened.kinds()[0], Path(directory))
        return {path.stem: json.loads(path.read_text()) for path in run.plans.glob("*.json")}

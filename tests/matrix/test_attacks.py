"""All attacks of tests/attacks on fabrics of each daemon: the lab, with other daemons on its machines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of
from lab import Lab, booted

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "inventories" / "lab"

BIRD1 = {"l3hv_system": "debian12", "l3hv_daemon": "bird1"}
BIRD2_0 = {"l3hv_system": "debian12", "l3hv_daemon": "bird2"}
BIRD3 = {"l3hv_system": "debian13", "l3hv_daemon": "bird3"}
FABRICS: dict[str, dict[str, dict[str, str]]] = {
    "BIRD 1.6": {"hypervisors": BIRD1, "edge_routers": BIRD1, "route_reflectors": BIRD1},
    "BIRD 1.6 with reflectors of 2.0": {
        "hypervisors": BIRD1,
        "edge_routers": BIRD1,
        "route_reflectors": BIRD2_0,
    },
    "BIRD 2.0": {"hypervisors": BIRD2_0, "edge_routers": BIRD2_0, "route_reflectors": BIRD2_0},
    "BIRD 3": {"hypervisors": BIRD3, "edge_routers": BIRD3, "route_reflectors": BIRD3},
}
"""The daemons of each group of hosts. `make test` attacks the lab, which runs BIRD 2.17 on all hosts."""


def inventory_of(fabric: str, directory: Path) -> Path:
    """Write the lab's inventory with the daemons of this fabric."""
    inventory = copy_of(LAB, directory)
    for group, variables in FABRICS[fabric].items():
        text = "".join(f"{name}: {value}\n" for name, value in variables.items())
        (inventory / "group_vars" / f"{group}.yml").write_text(f"---\n{text}")
    return inventory


@pytest.fixture(params=FABRICS)
def fabric(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Lab, Path]]:
    """Boot and provision a fabric, and yield it with its inventory."""
    inventory = inventory_of(request.param, tmp_path)
    with booted("attacks", inventory) as made:
        made.provision()
        yield made, inventory


def test_all_attacks_fail(fabric: tuple[Lab, Path]) -> None:
    """The output of the inner tests names attacks that succeed."""
    made, inventory = fabric
    environment = os.environ | {"L3HV_TWIN": made.name, "L3HV_INVENTORY": str(inventory)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "attacks", "tests/attacks"]
    assert subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, timeout=1200).returncode == 0

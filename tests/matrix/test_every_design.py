"""Each design keeps the promises of the default: the same tests, on its own inventory.

The inventories have guests of the lab's names on the lab's hypervisors, and addresses of their own
(tests/fabric/addresses.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of, set_variable
from lab import Lab, booted

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
DESIGNS = ("vrf", "dhcp-relay", "ndp-proxy", "link-local-gateway", "mesh", "blocks")

FABRIC = ("reachability", "failures", "guests", "carrier", "owners")
"""The files of tests/fabric for every design: who reaches whom, cuts, killed daemons, hot-plugs, a move."""


def inventory_of(design: str, directory: Path) -> Path:
    """Return the inventory of a design.

    With VRFs, hv1 and hv2 may be emulated machines, which are slow: BFD must wait for longer.  The attacker
    of tests/attacks enters the network of hv3 from this host: hv3 must be a container, without VRFs.
    """
    inventory = copy_of(REPOSITORY / "inventories" / design, directory)
    if design == "vrf":
        set_variable(inventory / "host_vars" / "hv3.yml", "l3hv_data_plane", "rules")
        fabric = inventory / "group_vars" / "all" / "fabric.yml"
        set_variable(fabric, "l3hv_timers", "{bfd_interval_ms: 500, bfd_multiplier: 5}")
    return inventory


@pytest.fixture(scope="module", params=DESIGNS)
def design(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Boot and provision the fabric of a design."""
    inventory = inventory_of(request.param, tmp_path_factory.mktemp("design"))
    with booted("design", inventory) as made:
        made.provision()
        yield made


def assert_passed(made: Lab, *arguments: str) -> None:
    """Run tests of the lab on a design; their output names the failed ones."""
    environment = os.environ | {"L3HV_TWIN": made.name, "L3HV_INVENTORY": str(made.inventory)}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    assert subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, timeout=3000).returncode == 0


def test_the_packets_of_a_verification_arrive(design: Lab) -> None:
    """The playbook fails if a check does."""
    design.playbook("playbooks/verify.yml")


def test_another_run_changes_nothing(design: Lab) -> None:
    assert design.playbook("site.yml", "--check").changed_hosts() == {}
    assert design.provision() == {}


def test_the_fabric_keeps_its_promises(design: Lab) -> None:
    assert_passed(design, "-m", "fabric", *(f"tests/fabric/test_{name}.py" for name in FABRIC))


def test_all_attacks_fail(design: Lab) -> None:
    assert_passed(design, "-m", "attacks", "tests/attacks")

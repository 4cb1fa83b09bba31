"""Blocks of hypervisors with BIRD 1.6, which replaces a route in the kernel by deleting it first.

Such a hypervisor has no blackhole route for the pool, but one for its block: without it, an edge router would
send packets to unused addresses of the block back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from changed_intents import copy_of
from failures import no_loss, traffic_of_cut, traffic_of_kill
from lab import Converged, Flows, Lab, booted, both_families, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

BLOCKS = Path(__file__).resolve().parents[2] / "inventories" / "blocks"
BLOCK = {"hv1": "203.0.113.0/26", "hv2": "203.0.113.64/26", "hv3": "203.0.113.128/26"}
MOVED, OLD, NEW = "vm2", "hv1", "hv3"
REPLACED_MS = 30
"""The outage of a flow that loses two packets, while a route is replaced at the hypervisor of the block."""
CONVERGED = Converged(
    {
        **{
            host: {(4, "public"): [block for owner, block in BLOCK.items() if owner != host] + ["default"]}
            for host in BLOCK
        },
        **{machine: {} for machine in ("rr1", "rr2", "internet")},
    }
)


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_of(BLOCKS, tmp_path_factory.mktemp("bird1"))
    text = "---\nl3hv_system: debian12\nl3hv_daemon: bird1\n"
    (made / "group_vars" / "hypervisors.yml").write_text(text)
    return made


@pytest.fixture(scope="module")
def fabric(inventory: Path) -> Iterator[Lab]:
    with booted("b1", inventory, converged=CONVERGED) as made:
        made.provision()
        made.wait_until_whole()
        yield made


def test_another_run_changes_nothing(fabric: Lab) -> None:
    fabric.playbook("playbooks/verify.yml")
    with no_loss(fabric, *both_families("vm1", "vm3")):
        assert fabric.provision() == {}


@pytest.mark.parametrize("guest", ["vm2", "vm4"])
def test_packets_to_an_unused_address_of_a_block_are_dropped_by_its_hypervisor(
    fabric: Lab, guest: str
) -> None:
    answers = fabric.run_as_guest(guest, "ping -c 3 -W 1 203.0.113.9 || true")
    assert "0 received" in answers
    assert "exceeded" not in answers


def test_a_cut_and_killed_daemons_cost_no_more_than_without_blocks(fabric: Lab) -> None:
    flows = both_families("vm1", "vm3")
    outages = traffic_of_cut(fabric, "hv2", "a", *flows, seconds=4).outages_ms()
    assert max(outages.values()) < 1700  # BIRD 1.6 sleeps for up to a second after BFD (docs/failover.md)
    for daemon in ("bird", "bird6"):
        assert traffic_of_kill(fabric, "hv2", daemon, *flows, seconds=8).lost() == {}


@pytest.fixture
def moved(fabric: Lab, inventory: Path, tmp_path: Path) -> Iterator[Lab]:
    """Move a guest out of the block of its hypervisor, and back afterwards."""
    copy = copy_of(inventory, tmp_path)
    files = {name: copy / "host_vars" / f"{name}.yml" for name in (OLD, NEW)}
    old, new = (yaml.safe_load(files[name].read_text()) for name in (OLD, NEW))
    (entry,) = (guest for guest in old["l3hv_guests"] if guest["name"] == MOVED)
    old["l3hv_guests"].remove(entry)
    new["l3hv_guests"].append(entry)
    for name, variables in ((OLD, old), (NEW, new)):
        files[name].write_text(yaml.safe_dump(variables))
    try:
        fabric.provision("--limit", NEW, "--skip-tags", "verify", inventory=copy)
        fabric.twin("plug", MOVED, "--on", NEW)
        fabric.provision("--limit", OLD, inventory=copy)
        yield fabric
    finally:
        fabric.provision("--skip-tags", "verify")
        fabric.twin("plug", MOVED, "--on", OLD)
    fabric.wait_until_whole()
    fabric.playbook("playbooks/verify.yml")


def test_a_moved_guest_is_preferred_to_the_block(moved: Lab) -> None:
    """Packets from the hypervisor of the block, over the more specific route."""
    wait_for("its /32", lambda: moved.routes(OLD, 4).get("203.0.113.2") == 2, 10)
    wait_for("its lease", lambda: moved.has_addresses(MOVED), 15)
    flows = (Flows("vm1", MOVED, 4), Flows("vm1", MOVED, 6))
    for machine, daemon in ((NEW, "bird"), (NEW, "bird6"), (OLD, "bird"), ("rr1", "bird")):
        killed = traffic_of_kill(moved, machine, daemon, *flows, seconds=8)
        assert max(killed.outages_ms().values()) <= REPLACED_MS + killed.allowance_ms

"""Blocks of addresses in a mesh, with the values of Calico's BGP mode: two nodes with a block each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of
from failures import no_loss, traffic_of_kill
from lab import Converged, Flows, Lab, booted, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INTENT = Path(__file__).resolve().parents[1] / "golden" / "mesh_of_blocks" / "intent"
BLOCKS = {"node1": "10.244.166.128/26", "node2": "10.244.104.0/26"}
GUESTS = {"pod1": "10.244.166.128", "pod2": "10.244.104.0"}
FLOWS = (Flows("pod1", "pod2", 4),)
CONVERGED = Converged(
    {"node1": {(4, "public"): [BLOCKS["node2"]]}, "node2": {(4, "public"): [BLOCKS["node1"]]}}, next_hops=1
)
POD1 = '{name: pod1, interface: tap1, mac: "50:54:33:00:00:01", ipv4: 10.244.166.128}'
POD2 = '{name: pod2, interface: tap2, mac: "50:54:33:00:00:02", ipv4: 10.244.104.0}'
POD9 = '{name: pod9, interface: tap9, mac: "50:54:33:00:00:09", ipv4: 10.244.104.9}'
"""Guests of node2: pod1 after it has moved there, out of its block; its own guest; and a new one."""


def with_guests(directory: Path, **guests: str) -> Path:
    """Return a copy of the inventory in which nodes have other guests."""
    intent = copy_of(INTENT, directory)
    for node, listed in guests.items():
        file = intent / "host_vars" / f"{node}.yml"
        before = file.read_text().partition("l3hv_guests:")[0]
        file.write_text(f"{before}l3hv_guests: [{listed}]\n")
    return intent


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    with booted("nodes", INTENT, converged=CONVERGED) as made:
        made.provision()
        made.wait_until_converged()
        yield made


def pinged(fabric: Lab, guest: str, address: str) -> str:
    return fabric.run_as_guest(guest, f"ping -c 3 -W 1 {address} || true")


def public_routes(fabric: Lab, node: str) -> str:
    return fabric.run(node, "ip route show table public")


def test_guests_reach_each_other_over_two_routers(fabric: Lab) -> None:
    answers = pinged(fabric, "pod1", GUESTS["pod2"])
    assert answers.count("ttl=62") == 3, answers


def test_a_node_has_routes_to_the_other_block_and_its_guest_and_a_blackhole(fabric: Lab) -> None:
    """The table also has the routes of last resort of the pool and of the table itself."""
    routes = public_routes(fabric, "node1")
    assert "10.244.104.0/26 via 10.20.30.31 dev ens192 proto bird" in routes
    assert "10.244.166.128 dev tap1 proto static scope link" in routes
    assert "blackhole 10.244.166.128/26" in routes
    assert "10.244.104.0 " not in routes


def test_each_node_announces_its_block_alone(fabric: Lab) -> None:
    for node, other in (("node1", "node2"), ("node2", "node1")):
        shown = fabric.run(node, f"birdc show route table public4 protocol {other}_lan_public")
        prefixes = {word for word in shown.split() if word.startswith("10.244.")}
        assert prefixes == {BLOCKS[other]}


def test_an_unused_address_of_a_block_has_no_guest_and_no_loop(fabric: Lab) -> None:
    answers = pinged(fabric, "pod1", "10.244.104.7")
    assert "0 received" in answers
    assert "exceeded" not in answers


def test_verification_and_another_run_find_nothing_to_do(fabric: Lab) -> None:
    fabric.playbook("playbooks/verify.yml")
    assert fabric.playbook("site.yml", "--check").changed_hosts() == {}
    with no_loss(fabric, *FLOWS):
        assert fabric.provision() == {}


def test_a_killed_daemon_costs_nothing(fabric: Lab) -> None:
    assert traffic_of_kill(fabric, "node2", "bird", *FLOWS, seconds=8).lost() == {}


def test_a_new_guest_changes_no_announcement(fabric: Lab, tmp_path: Path) -> None:
    """The configuration of the other node does not change."""
    intent = with_guests(tmp_path, node2=f"{POD2}, {POD9}")
    with no_loss(fabric, *FLOWS):
        assert fabric.provision(inventory=intent).keys() == {"node2"}
    assert fabric.provision().keys() == {"node2"}


def test_a_moved_guest_is_preferred_to_the_block(fabric: Lab, tmp_path: Path) -> None:
    """pod1 moves to node2: node1, which has the block, learns the /32."""
    intent = with_guests(tmp_path, node1="", node2=f"{POD1}, {POD2}")
    learned = "10.244.166.128 via 10.20.30.31 dev ens192 proto bird"
    try:
        fabric.provision("--limit", "node2", "--skip-tags", "verify", inventory=intent)
        fabric.twin("plug", "pod1", "--on", "node2")
        wait_for("the /32", lambda: learned in public_routes(fabric, "node1"), 10)
        fabric.provision("--limit", "node1", inventory=intent)
    finally:
        fabric.provision("--skip-tags", "verify")
        fabric.twin("plug", "pod1", "--on", "node1")
    wait_for("its end", lambda: learned not in public_routes(fabric, "node1"), 10)
    fabric.playbook("playbooks/verify.yml")

"""A fabric of leaves and spines: eBGP on each link, without L2 networks and reflectors.

hv1 and hv2 have links to leaf1 and leaf2, hv3 and hv4 to leaf3 and leaf4, and each leaf has links to both
spines.  Leaves and spines run FRR on unnumbered links, and BIRD on numbered ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of, set_variable
from failures import edited_bird, traffic_of_cut, traffic_of_kill
from lab import INTERNET, Converged, Flows, Lab, Traffic, booted, remote_guests, wait_for
from machines import GUESTS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
SWITCHES = ("leaf1", "leaf2", "leaf3", "leaf4", "spine1", "spine2")
OWNERS = {**GUESTS, "vm5": "hv4"}
FLOWS = (Flows("vm1", "vm4", 4), Flows("vm3", "vm1", 6))
"""Flows between leaves over the spines, and flows between two hypervisors with the same leaves."""
MARGIN_MS = 100
DETECTION_MS = 300
PREFIXES = {
    switch: {
        "public": {"ipv4": f"198.51.100.{32 * number}/27", "ipv6": f"2001:db8:c633:64{number:02}::/112"},
        "private": {"ipv4": f"172.22.{16 + number}.0/24"},
    }
    for number, switch in enumerate(SWITCHES)
}
"""Of numbered links: the prefix of each leaf and spine, from which its links are cut."""
FORGED = (
    "/^function announce_public4/a if net = 203.0.113.1/32 then accept; if net = 0.0.0.0/0 then accept;",
    "$a protocol static forged { ipv4 { table public4; }; "
    "route 203.0.113.1/32 blackhole; route 0.0.0.0/0 blackhole; }",
)
"""Edits with which a hypervisor announces the address of vm1, a guest of hv1, and a default route."""


def converged() -> Converged:
    """Return the converged state: hypervisors have two next hops, and of switches only the sessions count."""
    remote = {host: remote_guests(host, OWNERS, "default") for host in OWNERS.values()}
    remote["internet"] = remote_guests("internet", OWNERS)
    return Converged({**remote, **{switch: {} for switch in SWITCHES}})


def traffic_of_crash(fabric: Lab, machine: str, *flows: Flows, seconds: float) -> Traffic:
    """Cut the power of a machine under traffic, boot it again, and return the traffic without it."""
    fabric.wait_until_converged(120)
    try:
        with fabric.traffic(*flows, seconds=seconds) as traffic:
            fabric.twin("crash", machine)
    finally:
        fabric.twin("boot", machine)
    print(f"\ncrash {machine}: {traffic.outages_ms()}, allowance {traffic.allowance_ms:.0f} ms")
    return traffic


@pytest.fixture(scope="module", params=["unnumbered", "numbered"])
def fabric(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    inventory = copy_of(REPOSITORY / "inventories" / "leaf-spine", tmp_path_factory.mktemp("leaf_spine"))
    facts = inventory / "group_vars" / "all" / "fabric.yml"
    set_variable(facts, "l3hv_origin_validation", "strict")
    if request.param == "numbered":
        set_variable(facts, "l3hv_links", "numbered")
        for group in ("leaves", "spines"):
            set_variable(inventory / "group_vars" / group / "daemon.yml", "l3hv_daemon", "bird2")
        set_variable(facts, "l3hv_paths", str(PREFIXES))
    with booted(f"{request.param[:2]}ls", inventory, converged=converged()) as made:
        made.provision()
        made.wait_until_whole(120)
        yield made


def is_within_bound(traffic: Traffic) -> bool:
    return max(traffic.outages_ms().values()) <= 1.2 * DETECTION_MS + MARGIN_MS + traffic.allowance_ms


def test_all_guests_reach_each_other_and_the_internet(fabric: Lab) -> None:
    for guest in GUESTS:
        assert fabric.reached(guest, INTERNET.values()) == set(INTERNET.values())
    fabric.playbook("playbooks/verify.yml")


def test_another_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", "--check").changed_hosts() == {}
    assert fabric.provision() == {}


def test_a_dead_link_costs_the_time_of_its_detection(fabric: Lab) -> None:
    traffic = traffic_of_cut(fabric, "hv1", "leaf1", *FLOWS, seconds=5)
    assert all(traffic.flows_hit().values())
    assert is_within_bound(traffic)


@pytest.mark.parametrize("machine", ["leaf1", "spine1"])
def test_a_dead_switch_costs_the_time_of_its_detection(fabric: Lab, machine: str) -> None:
    assert is_within_bound(traffic_of_crash(fabric, machine, *FLOWS, seconds=5))
    fabric.wait_until_converged(120)


def test_a_killed_bird_costs_no_more_than_a_dead_link(fabric: Lab) -> None:
    """FRR removes the routes when BFD of the new BIRD begins, and gets them again within this time."""
    assert is_within_bound(traffic_of_kill(fabric, "hv1", "bird", *FLOWS, seconds=8))
    fabric.wait_until_converged()


def test_a_killed_daemon_of_a_leaf_costs_no_more_than_a_dead_leaf(fabric: Lab) -> None:
    program = fabric.routing_program("leaf1")
    assert is_within_bound(traffic_of_kill(fabric, "leaf1", program, *FLOWS, seconds=8))
    fabric.wait_until_converged(120)


def test_a_leaf_refuses_the_guest_of_another_hypervisor_and_a_default_route(fabric: Lab) -> None:
    fabric.wait_until_converged()
    had = fabric.run("leaf1", "ip route show table public 203.0.113.1; ip route show table public default")
    with edited_bird(fabric, "hv2", *FORGED):
        sent = "birdc show route export leaf1_public"
        wait_for("the announcement", lambda: "203.0.113.1/32" in fabric.run("hv2", sent), 20)
        wait_for("its arrival", lambda: fabric.run("leaf1", "sleep 3; echo done"), 20)
        now = fabric.run(
            "leaf1", "ip route show table public 203.0.113.1; ip route show table public default"
        )
        assert now == had
        assert fabric.reached("vm4", ["203.0.113.1"]) == {"203.0.113.1"}
    fabric.wait_until_converged()


def test_guests_do_not_reach_bgp_of_a_leaf(fabric: Lab) -> None:
    """A leaf has an address in the fabric, its loopback, and drops BGP that no neighbour sends."""
    leaf = "172.22.2.11"
    assert fabric.run("hv1", f"ping -c 1 -W 2 {leaf}")
    refused = f"busybox nc -w 2 {leaf} 179 </dev/null && echo open || echo closed"
    assert fabric.run_as_guest("vm1", refused).strip() == "closed"

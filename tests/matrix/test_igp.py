"""Sessions between loopbacks over an IGP: a dead path costs no session, and withdraws no route.

The same tests run with each IGP, and with each version of BIRD 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from changed_intents import copy_of, set_variable
from failures import assert_forgery_is_refused, traffic_of_cut, traffic_of_kill
from lab import INTERNET, Lab, booted, both_families, wait_for
from machines import GUESTS, HYPERVISORS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
FLOWS = both_families("vm1", "vm3")
DETECTION_MS = 300
MARGIN_MS = 100
HOSTS = 6
PLACES = {
    "a-public": ("ipv4", "ipv6"),
    "b-public": ("ipv4", "ipv6"),
    "a-private": ("ipv4",),
    "b-private": ("ipv4",),
}
"""The families of each uplink of a hypervisor."""


DEAF = """
table netdev deaf {
  chain received { type filter hook ingress device "a-public" priority -500; drop; }
}
"""
"""nftables rules that drop all packets that arrive on path a."""


class Choice(NamedTuple):
    """An IGP and a BIRD, and the time in ms that a cut may cost after its detection by BFD."""

    igp: str
    daemon: str
    system: str
    after_bfd_ms: float


CHOICES = {
    # RIP leaves a lost neighbour within 100 ms.
    "rip": Choice("rip", "bird2", "debian13", 100),
    # Before 2.14 BIRD finishes work of timers when another timer wakes it: its scan of interfaces, each 1 s.
    "rip-debian12": Choice("rip", "bird2", "debian12", 1100),
    # OSPF computes its routes once a second, after another router has computed its LSA once a second.
    "ospf": Choice("ospf", "bird2", "debian13", 2000),
}


@pytest.fixture(scope="module", params=[*CHOICES.values()], ids=[*CHOICES])
def choice(request: pytest.FixtureRequest) -> Choice:
    found: Choice = request.param
    return found


@pytest.fixture(scope="module")
def fabric(choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Boot and provision a fabric in which reflectors accept from each hypervisor only its own guests."""
    inventory = copy_of(REPOSITORY / "inventories" / "igp", tmp_path_factory.mktemp("igp"))
    variables = inventory / "group_vars" / "all" / "fabric.yml"
    set_variable(variables, "l3hv_origin_validation", "strict")
    set_variable(variables, "l3hv_igp", choice.igp)
    set_variable(variables, "l3hv_daemon", choice.daemon)
    set_variable(variables, "l3hv_system", choice.system)
    with booted("igp", inventory) as made:
        made.provision()
        made.wait_until_whole()
        yield made


def sessions_since(fabric: Lab, machine: str) -> dict[str, str]:
    """Return the established BGP sessions of a machine, each with the moment of its last change."""
    rows = fabric.run(machine, "birdc show protocols").splitlines()
    fields = [row.split() for row in rows if " BGP " in row and "Established" in row]
    return {row[0]: " ".join(row[4:-1]) for row in fields}


def test_all_guests_reach_each_other_and_the_internet(fabric: Lab) -> None:
    """The playbook sends packets between all guests, and fails if a check does."""
    for guest in GUESTS:
        assert fabric.reached(guest, INTERNET.values()) == set(INTERNET.values())
    fabric.playbook("playbooks/verify.yml")


def test_each_host_has_one_session_with_each_reflector(fabric: Lab) -> None:
    for machine in (*HYPERVISORS, "internet"):
        assert sessions_since(fabric, machine).keys() == {"rr1_shared", "rr2_shared"}


def test_the_ends_of_each_session_are_loopbacks(fabric: Lab) -> None:
    shown = fabric.run("hv1", "birdc show protocols all rr1_shared")
    assert "Neighbor address: 192.0.2.254" in shown
    assert re.search("Source address: +192.0.2.129", shown)


@pytest.mark.parametrize(("prefix", "family"), [("203.0.113.3", "-4"), ("2001:db8:cb00:7103::/64", "-6")])
def test_a_remote_guest_has_a_next_hop_on_each_path(fabric: Lab, prefix: str, family: str) -> None:
    route = fabric.run("hv1", f"ip {family} route show table public {prefix}")
    assert re.findall(r"nexthop via \S+ dev (\S+)", route) == ["a-public", "b-public"]


def test_bfd_watches_each_neighbour_on_each_path(fabric: Lab) -> None:
    """The number of BFD sessions of a fabric grows with the square of its hosts."""
    rows = [row.split() for row in fabric.run("hv1", "birdc show bfd sessions").splitlines()]
    found = [row[1] for row in rows if len(row) > 2 and row[2] == "Up"]
    # The edge router is not in the private domain.
    hosts = {interface: HOSTS - ("private" in interface) for interface in PLACES}
    expected = {interface: len(families) * (hosts[interface] - 1) for interface, families in PLACES.items()}
    print(f"\nBFD sessions of hv1: {len(found)}")
    assert {interface: found.count(interface) for interface in PLACES} == expected


def test_another_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", "--check").changed_hosts() == {}
    assert fabric.provision() == {}


@pytest.mark.parametrize("path", ["a", "b"])
def test_a_silent_cut_costs_its_detection_and_no_session(fabric: Lab, choice: Choice, path: str) -> None:
    before = {machine: sessions_since(fabric, machine) for machine in HYPERVISORS}
    traffic = traffic_of_cut(fabric, "hv2", path, *FLOWS, seconds=5)
    allowed = 1.2 * DETECTION_MS + choice.after_bfd_ms + MARGIN_MS + traffic.allowance_ms
    assert all(traffic.flows_hit().values())
    assert max(traffic.outages_ms().values()) <= allowed
    fabric.wait_until_converged()
    assert {machine: sessions_since(fabric, machine) for machine in HYPERVISORS} == before


def test_a_carrier_loss_costs_no_more(fabric: Lab, choice: Choice) -> None:
    fabric.wait_until_converged()
    try:
        with fabric.traffic(*FLOWS, seconds=5) as traffic:
            fabric.twin("carrier", "hv2", "b", "down")
    finally:
        fabric.twin("carrier", "hv2", "b", "up")
    print(f"\ncarrier of hv2 b: {traffic.outages_ms()}")
    allowed = 1.2 * DETECTION_MS + choice.after_bfd_ms + MARGIN_MS + traffic.allowance_ms
    assert max(traffic.outages_ms().values()) <= allowed


def test_a_path_that_fails_in_one_direction_is_left(fabric: Lab) -> None:
    """The hypervisor hv2 drops what it receives on path a, and its neighbours still receive its packets."""
    fabric.wait_until_converged()
    fabric.run("hv2", f"nft -f - <<'EOF'\n{DEAF}\nEOF")
    try:
        wait_for("one next hop", lambda: paths_to_hv2(fabric) == ["b-public"], 10)
        # The updates of hv2 on path a must not bring the path back for good.
        wait_for("the packet filter", lambda: dropped_one_way(fabric) >= 2, 60)
        assert paths_to_hv2(fabric) == ["b-public"]
        with fabric.traffic(*FLOWS, seconds=10) as traffic:
            pass
        assert traffic.lost() == {}
    finally:
        fabric.run("hv2", "nft delete table netdev deaf")
    fabric.wait_until_converged()


def paths_to_hv2(fabric: Lab) -> list[str]:
    """Return the interfaces by which the IGP of hv1 reaches the loopback of hv2."""
    shown = fabric.run("hv1", "birdc show route table igp4 192.0.2.130/32")
    return re.findall(r"via \S+ on (\S+)", shown)


def dropped_one_way(fabric: Lab) -> int:
    """Return the number of packets of RIP that hv1 dropped; OSPF needs no such filter."""
    shown = fabric.run("hv1", "nft list counters table inet l3hv")
    found = re.search(r"counter one_way {\s+packets (\d+)", shown)
    return int(found[1]) if found else 2


def test_a_reflector_that_loses_a_path_keeps_its_sessions(fabric: Lab) -> None:
    before = sessions_since(fabric, "rr1")
    assert traffic_of_cut(fabric, "rr1", "a", *FLOWS, seconds=5).lost() == {}
    fabric.wait_until_converged()
    assert sessions_since(fabric, "rr1") == before


@pytest.mark.parametrize("machine", ["hv2", "hv1", "rr1"])
def test_a_killed_daemon_costs_nothing(fabric: Lab, machine: str) -> None:
    """The kernel of a hypervisor still forwards: others send directly to its loopback meanwhile."""
    assert traffic_of_kill(fabric, machine, "bird", *FLOWS, seconds=8).lost() == {}
    fabric.wait_until_converged()


def test_a_stopped_daemon_is_reached_directly(fabric: Lab) -> None:
    """BIRD resolves the loopback of hv2 by the less preferred route, and the kernel accepts the next hops."""
    fabric.wait_until_converged()
    fabric.run("hv2", "systemctl stop bird")
    try:
        wait_for(
            "next hops that are the loopback of hv2",
            lambda: (
                fabric.run("hv1", "ip route show table public 203.0.113.3").count("via 192.0.2.130 ") == 2
            ),
        )
        wait_for(
            "next hops that are the loopback of hv2 in IPv6",
            lambda: "via 2001:db8:c000:200::2 " in fabric.run("hv1", "ip -6 route show table public"),
        )
        assert fabric.reached("vm1", ["203.0.113.3"]) == {"203.0.113.3"}
    finally:
        fabric.run("hv2", "systemctl start bird")
    fabric.wait_until_converged()


def test_a_hypervisor_cannot_announce_the_guest_of_another(fabric: Lab) -> None:
    assert_forgery_is_refused(fabric, "rr1", "shared4", "hv3_shared")


def test_a_run_repairs_what_verification_names(fabric: Lab) -> None:
    """An uplink that has lost what the IGP needs beside its addresses."""
    fabric.run(
        "hv1",
        "ip route delete 192.0.2.128/25 dev b-public && ip -6 address delete fe80::2:0:1/64 dev b-public",
    )
    failed = fabric.failing_playbook("playbooks/verify.yml")
    assert "route 192.0.2.128/25 in main" in failed.output
    assert "addresses b-public" in failed.output
    assert fabric.provision().keys() == {"hv1"}
    fabric.wait_until_converged()

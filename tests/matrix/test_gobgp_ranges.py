"""Reflectors of GoBGP (two systems) with clients from a range: verified, broken, attacked, extended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from changed_intents import copy_of, replace
from failures import behind_a_router, edited_bird, no_loss, stopped_bird, traffic_of_cut
from lab import Lab, booted, both_families, converged, wait_for
from two_paths import FLOWS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "range_gobgp" / "intent"

BY_RANGE = ("rr1", "rr2")
"""Reflectors with ranges: of Debian 13 and 12."""
OFFSETS = {"rr1": 0, "rr2": 128}
"""The base of the hosts' numbers on the path of each reflector, in IPv4."""
CLIENTS = {"hv1": 4, "hv2": 4, "gw": 2}
"""Sessions of each client on two paths: hypervisors are in two domains, the edge router is in one."""
CONVERGED = converged({"vm1": "hv1", "vm2": "hv2"}, ("gw",))
HOLD_S = 9
"""The cost of a silent cut: the plan's default hold time without BFD."""
STALE_S = 1
"""The minimum time for which routes of a lost neighbour stay fresh."""
GOBGP = "gobgp --target unix:///run/l3hv-gobgp-public/api"


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the fabric's inventory, which tests may change."""
    return copy_of(INVENTORY, tmp_path_factory.mktemp("ranges"))


@pytest.fixture(scope="module")
def fabric(intent: Path) -> Iterator[Lab]:
    """Boot, provision and verify the fabric in a twin of its own."""
    with booted("granges", intent, converged=CONVERGED) as made:
        assert made.playbook("site.yml").warnings == ""
        yield made


def with_range(fabric: Lab, machine: str) -> list[str]:
    """Return the states of a client's sessions with the reflectors that have ranges."""
    return [state for name, state in fabric.protocols(machine).items() if name.startswith(BY_RANGE)]


def test_a_second_run_changes_nothing_and_packets_pass(fabric: Lab) -> None:
    assert fabric.provision() == {}
    fabric.wait_until_converged()
    assert {machine: len(with_range(fabric, machine)) for machine in CLIENTS} == CLIENTS
    assert fabric.playbook("playbooks/verify.yml").changed_hosts() == {}


@pytest.mark.parametrize("killed", [["rr1"], ["rr2"], [*BY_RANGE]], ids="+".join)
def test_a_gobgp_that_is_killed_costs_nothing(fabric: Lab, killed: list[str]) -> None:
    with no_loss(fabric, *FLOWS):
        for _ in range(3):
            fabric.on_each(killed, lambda rr: fabric.run(rr, "systemctl kill --signal=KILL 'l3hv-gobgp-*'"))
            fabric.wait_until_converged()


def test_a_hypervisors_daemon_that_is_killed_costs_nothing(fabric: Lab) -> None:
    with no_loss(fabric, *FLOWS):
        fabric.twin("kill", "hv2", "bird")


def test_a_silent_cut_costs_the_hold_time(fabric: Lab) -> None:
    traffic = traffic_of_cut(fabric, "hv2", "a", *FLOWS, seconds=HOLD_S + STALE_S + 6)
    assert max(traffic.outages_ms().values()) < 1000 * (HOLD_S + STALE_S) + 1500
    fabric.wait_until_converged()


def address_of(reflector: str, number: int) -> str:
    """Return the address of the host with a number on a reflector's path, in the public domain."""
    return f"198.51.100.{number + OFFSETS[reflector]}"


def is_up(fabric: Lab, reflector: str, number: int) -> bool:
    """Return whether a reflector has a session with the host with a number, in the public domain."""
    address = address_of(reflector, number)
    rows = (line.split() for line in fabric.run(reflector, f"{GOBGP} neighbor").splitlines())
    return any(row[0] == address and row[3] == "Establ" for row in rows)


def is_down(fabric: Lab, reflector: str, number: int) -> bool:
    return not is_up(fabric, reflector, number)


def has_stale_route(fabric: Lab, reflector: str) -> bool:
    """Return whether a route of hv2 has the community 65535:6 (RFC 9494), shown as a number."""
    return "4294901766" in fabric.run(reflector, f"{GOBGP} --json global rib -a ipv4 203.0.113.2/32")


def has_next_hops(fabric: Lab, reflector: str, expected: set[str]) -> bool:
    """Return whether hv2 has exactly these next hops to vm1 from a reflector."""
    show = f"birdc show route 203.0.113.1/32 all table public4 protocol {reflector}_public"
    lines = fabric.run("hv2", f"{show} || true").splitlines()
    return {line.split()[-1] for line in lines if "next_hop" in line} == expected


def test_routes_of_a_stopped_daemon_stay_as_a_last_resort(fabric: Lab) -> None:
    """Test reflectors that know the client from a range only."""
    with stopped_bird(fabric, "hv2"):
        for reflector in BY_RANGE:
            wait_for("stale routes", partial(has_stale_route, fabric, reflector), HOLD_S + STALE_S + 5)


def test_hosts_behind_a_router_get_no_session(fabric: Lab) -> None:
    """GoBGP itself refuses the sessions: the test removes the packet filter, which drops such packets."""
    fabric.wait_until_converged()
    try:
        for reflector in BY_RANGE:
            fabric.run(reflector, "nft delete table inet l3hv")
        with behind_a_router(fabric, "hv2"):
            for reflector in BY_RANGE:
                wait_for("the hold time to expire", partial(is_down, fabric, reflector, 2), 2 * HOLD_S)
            time.sleep(8)  # longer than two attempts to connect
            # BIRD may show a session for a moment: its first packet can arrive before GoBGP checks TTLs.
            assert not any(is_up(fabric, reflector, 2) for reflector in BY_RANGE)
    finally:
        for reflector in BY_RANGE:
            fabric.run(reflector, "systemctl restart l3hv-nftables")
        fabric.wait_until_converged()


@pytest.mark.parametrize(
    ("hops", "next_hops"),
    [
        ({1: "198.51.100.120", 129: "198.51.100.248"}, {"rr1": {"198.51.100.1"}, "rr2": {"198.51.100.248"}}),
        ({1: "192.0.2.1", 129: "192.0.2.1"}, {"rr1": set(), "rr2": set()}),
    ],
    ids=["of an edge router", "outside the path"],
)
def test_a_forged_next_hop(fabric: Lab, hops: dict[int, str], next_hops: dict[str, set[str]]) -> None:
    """GoBGP 3.36 sends the traffic to the client itself; both versions refuse next hops outside the path."""
    fabric.wait_until_converged()
    edits = [f"s/next hop address 198.51.100.{own};/next hop address {hop};/" for own, hop in hops.items()]
    with edited_bird(fabric, "hv1", *edits):
        for reflector, expected in next_hops.items():
            arrived = partial(has_next_hops, fabric, reflector, expected)
            wait_for(f"{expected} of {reflector}", arrived, 10)
    fabric.wait_until_converged()


def test_a_reflector_changes_to_explicit_neighbors_and_back(
    fabric: Lab, intent: Path, tmp_path: Path
) -> None:
    """Change from a range to explicit neighbours and back, under traffic."""
    known = copy_of(intent, tmp_path)
    replace(known / "hosts.yml", "      l3hv_neighbors: range\n", "", 1)
    with no_loss(fabric, *FLOWS):
        for source in (known, intent):
            assert fabric.provision(inventory=source).keys() == {"rr1"}
            fabric.wait_until_converged()


def test_another_hypervisor_needs_no_change_at_the_reflectors(fabric: Lab, intent: Path) -> None:
    """Of the reflectors only rr3 changes, which has explicit clients."""
    hosts = yaml.safe_load((intent / "hosts.yml").read_text())
    guest = {"name": "vm3", "mac": "50:54:33:00:00:03", "ipv4": "203.0.113.3"}
    hosts["hypervisors"]["hosts"]["hv3"] = {"l3hv_id": 3, "l3hv_guests": [guest]}
    (intent / "hosts.yml").write_text(yaml.safe_dump(hosts))
    fabric.twin("up", "-i", str(intent), seconds=300)
    with no_loss(fabric, *FLOWS):
        assert fabric.provision().keys() == {"hv3", "rr3"}
        states = with_range(fabric, "hv3")
        assert len(states) == 4
        assert all("Established" in state for state in states)
        for hypervisor in ("hv1", "hv2"):
            assert fabric.routes(hypervisor, 4).get("203.0.113.3") == 2


def test_too_many_prefixes_end_only_their_session(fabric: Lab) -> None:
    """The session stays down until an operator enables it; other sessions stay up; rr3 blocks prefixes."""
    fabric.wait_until_converged()
    routes = " ".join(f"route 2001:db8:cb00:7102::{number:x}/128 blackhole;" for number in range(1, 300))
    many = f"$a protocol static many {{ ipv6 {{ table public6; }}; {routes} }}"
    announced = "/^function announce_public6/a if source = RTS_STATIC then accept;"
    with fabric.traffic(*both_families("vm1", "gw"), seconds=8, each=4) as traffic:
        with edited_bird(fabric, "hv2", many, announced):
            for reflector in BY_RANGE:
                wait_for(
                    f"hv2's session with {reflector} to end",
                    partial(is_down, fabric, reflector, 2),
                    5,
                )
        assert all("Established" in state for state in with_range(fabric, "hv1"))
    assert traffic.lost() == {}
    for reflector in BY_RANGE:
        fabric.run(reflector, f"{GOBGP} neighbor {address_of(reflector, 2)} enable")
    fabric.wait_until_converged()

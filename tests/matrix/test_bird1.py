"""BIRD 1.6 on every kind of host: provisioned, verified, broken, and replaced by BIRD 2.

The machines are bare: the roles install their packages, and remove them when a host changes its daemon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of, set_variable
from failures import no_loss, traffic_of_cut, traffic_of_kill
from lab import Flows, Lab, booted, both_families, converged

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INTENT = REPOSITORY / "tests" / "golden" / "bird1" / "intent"
MACHINES = ("hv1", "hv2", "hv3", "rr1", "rr2", "gw")
GUESTS = {"hv1": "vm1", "hv2": "vm2", "hv3": "vm3"}
CONVERGED = converged({guest: machine for machine, guest in GUESTS.items()}, ("rr1", "rr2", "gw"))
ANYCAST = {4: "203.0.113.99", 6: "2001:db8:cb00:7163::1"}

DETECTION_MS = 300
SLEEP_MS = 2000
"""Delay of BIRD before 2.14 after BFD: 1 s to mark routes as stale, a reflector 1 s more to advertise."""
GAP_MS = 20
"""The gap in which BIRD 1.6 replaces a route in the kernel: it deletes the route and adds it again."""
MOST_LOST_OF_A_FLOW = 2
"""The packets of one flow that such a gap costs at most (docs/failover.md)."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric on machines without a routing daemon."""
    with booted("bird1", INTENT, "--bare", converged=CONVERGED) as made:
        yield made


def version(fabric: Lab, machine: str) -> str:
    found = re.search(r"version (\S+)", fabric.run(machine, "bird --version 2>&1"))
    return found[1] if found else ""


def test_a_run_provisions_all_hosts_and_a_second_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.provision().keys() == set(MACHINES)
    for machine, wanted in {"hv1": "1.6.8", "rr1": "1.6.8", "gw": "1.6.8", "hv2": "2.0.12"}.items():
        assert version(fabric, machine) == wanted
    assert fabric.provision() == {}
    fabric.wait_until_converged()


def test_packets_reach_all_guests(fabric: Lab) -> None:
    fabric.playbook("playbooks/verify.yml")


def test_anycast_routes_come_from_every_hypervisor_with_a_holder(fabric: Lab) -> None:
    """hv2 has two next hops to each of hv1 (BIRD 1.6) and hv3 (BIRD 3), from reflectors of both kinds."""
    for family, address in ANYCAST.items():
        prefix = address if family == 4 else "2001:db8:cb00:7163::/64"
        assert fabric.routes("hv2", family)[prefix] == 4
        assert fabric.routes("hv1", family)[prefix] == 1


def default_paths(fabric: Lab, machine: str) -> dict[int, set[str]]:
    """Return the paths of a machine's default routes, by family."""
    shown = {
        family: fabric.run(machine, f"ip -{family} route show table public default proto bird")
        for family in (4, 6)
    }
    return {family: {path for path in "ab" if f"dev {path}-public" in text} for family, text in shown.items()}


def test_a_stale_default_route_is_replaced(fabric: Lab) -> None:
    """Test BIRD 1.6, 2.0 and 3.1; guests' routes keep both paths with `without_default`."""
    assert fabric.provision(variables={"l3hv_ecmp": "without_default"})
    fabric.wait_until_converged()
    for machine, guest in GUESTS.items():
        assert default_paths(fabric, machine) == {4: {"a"}, 6: {"a"}}
        try:
            with fabric.traffic(Flows(guest, "gw", 4), Flows(guest, "gw", 6), seconds=6) as traffic:
                fabric.twin("cut", machine, "a")
            assert default_paths(fabric, machine) == {4: {"b"}, 6: {"b"}}
        finally:
            fabric.twin("heal", machine, "a")
        costs = traffic.outages_ms()
        print(f"\ncut {machine} a: {costs}")
        assert max(costs.values()) <= 1.2 * DETECTION_MS + 100 + SLEEP_MS
    fabric.wait_until_converged()
    assert fabric.provision(variables={"l3hv_ecmp": "none"})
    for machine in GUESTS:
        assert {hops for family in (4, 6) for hops in fabric.routes(machine, family).values()} == {1}
    assert fabric.provision()


@pytest.mark.parametrize(("machine", "path"), [("hv1", "a"), ("hv1", "b"), ("hv2", "a")])
def test_a_silent_cut_costs_the_detection_time_and_the_delay_of_bird(
    fabric: Lab, machine: str, path: str
) -> None:
    costs = traffic_of_cut(fabric, machine, path, *both_families("vm1", "vm2"), seconds=6).outages_ms()
    assert max(costs.values()) <= 1.2 * DETECTION_MS + 100 + SLEEP_MS


@pytest.mark.parametrize("program", ["bird", "bird6"])
@pytest.mark.parametrize("machine", ["hv1", "rr1", "gw"])
def test_a_killed_daemon_costs_nothing(fabric: Lab, machine: str, program: str) -> None:
    """Flows between guests lose nothing; an edge router of BIRD 1.6 replaces a changed route with a gap."""
    between_guests, to_the_edge = both_families("vm1", "vm2"), both_families("vm1", "gw")
    traffic = traffic_of_kill(fabric, machine, program, *between_guests, *to_the_edge, seconds=6)
    assert [traffic.results[flows]["lost"] for flows in between_guests] == [0, 0]
    assert max(traffic.outages_ms().values()) <= GAP_MS + traffic.allowance_ms
    # The host's lateness stretches a gap and loses no packet.
    assert all(
        result["lost"] <= MOST_LOST_OF_A_FLOW * result["flows_hit"] for result in traffic.results.values()
    )


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """Return a copy of the intent that the test may change."""
    return copy_of(INTENT, tmp_path)


def run_without_loss(fabric: Lab, intent: Path) -> None:
    """Run and verify site.yml under traffic without packet loss, then run it again without changes."""
    with no_loss(fabric, *both_families("vm1", "vm2")):
        assert fabric.provision(inventory=intent)
    assert fabric.provision(inventory=intent) == {}


def assert_has(fabric: Lab, machine: str, daemon: str) -> None:
    """Assert that a machine runs that daemon, without remains of the other one."""
    assert version(fabric, machine) == {"bird1": "1.6.8", "bird2": "2.0.12"}[daemon]
    programs = fabric.run(machine, "ps -C bird,bird6 -o comm= | sort | xargs").strip()
    assert programs == {"bird1": "bird bird6", "bird2": "bird"}[daemon]
    traces = fabric.run(machine, "find /etc/bird /etc/systemd/system -name 'bird6*'")
    assert bool(traces) == (daemon == "bird1"), traces
    assert fabric.run(machine, "systemctl list-units --failed --plain --no-legend 'bird*'") == ""


def test_a_hypervisor_changes_its_daemon_without_losing_a_packet(fabric: Lab, changed: Path) -> None:
    """Change to BIRD 2 in one run, and back in two: BIRD 1.6 does not take over sessions of both families."""
    own = changed / "host_vars/hv1.yml"
    set_variable(own, "l3hv_daemon", "bird2")
    run_without_loss(fabric, changed)
    assert_has(fabric, "hv1", "bird2")

    set_variable(own, "l3hv_daemon", "bird1")
    with pytest.raises(AssertionError, match=r"BIRD\s+carries\s+IPv4\s+and\s+IPv6"):
        fabric.playbook("site.yml", inventory=changed)
    assert_has(fabric, "hv1", "bird2")
    assert fabric.unconverged() == {}

    set_variable(own, "l3hv_session_layout", "per_family")
    set_variable(own, "l3hv_daemon", "bird2")
    assert fabric.provision(inventory=changed)
    set_variable(own, "l3hv_daemon", "bird1")
    run_without_loss(fabric, changed)
    assert_has(fabric, "hv1", "bird1")


def test_a_reflector_changes_its_daemon_without_losing_a_packet(fabric: Lab, changed: Path) -> None:
    """Change to BIRD 2 and back; the clients choose the layout of the sessions."""
    set_variable(changed / "group_vars/all.yml", "l3hv_session_layout", "per_family")
    assert fabric.provision(inventory=changed)
    for daemon in ("bird2", "bird1"):
        set_variable(changed / "host_vars/rr1.yml", "l3hv_daemon", daemon)
        run_without_loss(fabric, changed)
        assert_has(fabric, "rr1", daemon)

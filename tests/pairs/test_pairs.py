"""Every daemon of a hypervisor with every daemon of a reflector, in one fabric: 4 × 8 pairs.

Each path has two reflectors with the same daemon, and each hypervisor has another BIRD. Longer tests (all
failure profiles, session layouts, changes of a daemon) are in tests/matrix.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from changed_intents import copy_of
from failures import traffic_of_cut
from lab import Flows, Lab, booted, both_families, converged, wait_for

pytestmark = [pytest.mark.pairs, pytest.mark.twin]

INVENTORY = Path(__file__).resolve().parents[1] / "golden" / "pairs" / "intent"
VERSIONS = {"hv1": "1.6.8", "hv2": "2.0.12", "hv3": "2.17", "hv4": "3.1"}
GUESTS = {"hv1": "vm1", "hv2": "vm2", "hv3": "vm3", "hv4": "vm4"}
REFLECTORS = {
    "a": ("rr-bird1", "rr-bird20"),
    "b": ("rr-bird217", "rr-bird3"),
    "c": ("rr-frr8", "rr-frr10"),
    "d": ("rr-gobgp310", "rr-gobgp336"),
}
CONVERGED = converged(
    {guest: machine for machine, guest in GUESTS.items()},
    (*(name for several in REFLECTORS.values() for name in several), "gw"),
    "default",
    next_hops=len(REFLECTORS),
)
"""The routes have a next hop on each of the four paths."""
RING = [both_families(f"vm{number}", f"vm{number % 4 + 1}") for number in (1, 2, 3, 4)]
INTERNET = {"192.0.2.8", "2001:db8:8888::8"}

HOLDERS = {"hv1": "any1", "hv2": "any2", "hv3": "any3", "hv4": "any4"}
ANYCAST = {4: "203.0.113.99", 6: "2001:db8:cb00:7163::1"}
TO_ANYCAST = [
    Flows(guest, address, family) for guest in GUESTS.values() for family, address in ANYCAST.items()
]
FLOWS = 600
WHO_ANSWERS = Path(__file__).with_name("anycast_flows.py")
MARK = "0x20000000"

DETECTION_MS = 300


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot, provision and verify the fabric in a twin of its own."""
    with booted("pairs", INVENTORY, converged=CONVERGED) as made:
        made.provision()
        yield made


def test_the_machines_run_the_daemons_of_the_inventory(fabric: Lab) -> None:
    for machine, version in VERSIONS.items():
        assert f"BIRD version {version}" in fabric.run(machine, "bird --version 2>&1")
    for machine, program in {"rr-frr8": "bgpd", "rr-frr10": "bgpd", "rr-gobgp336": "gobgpd"}.items():
        assert fabric.routing_program(machine) == program


def test_a_second_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.provision() == {}
    fabric.wait_until_converged()


def test_bird31_does_not_scan_without_changes(fabric: Lab) -> None:
    fabric.wait_until_converged()
    asked = "journalctl --boot --no-pager -u bird | grep -c 'Reloading protocol kernel_'"
    before = fabric.run("hv4", asked)
    time.sleep(3)
    assert int(before) > 0
    assert fabric.run("hv4", asked) == before


@pytest.mark.parametrize("machine", GUESTS)
def test_no_hold_time_expires(fabric: Lab, machine: str) -> None:
    """GoBGP's hold time, which both ends use, has passed several times during the second run."""
    assert "Hold timer expired" not in fabric.run(machine, "journalctl --boot --no-pager -u bird -u bird6")


@pytest.mark.parametrize("machine", GUESTS)
def test_packets_reach_all_guests_and_the_internet(fabric: Lab, machine: str) -> None:
    others = {
        address
        for guest in GUESTS.values()
        if guest != GUESTS[machine]
        for address in fabric.guest_addresses(guest)
    }
    assert len(others) == 2 * (len(GUESTS) - 1)
    assert fabric.reached(GUESTS[machine], others | INTERNET) == others | INTERNET


@pytest.mark.parametrize("machine", GUESTS)
def test_a_killed_hypervisors_daemon_costs_nothing(fabric: Lab, machine: str) -> None:
    fabric.wait_until_converged()
    to_anycast = [flows for flows in TO_ANYCAST if flows.source == GUESTS[machine]]
    with fabric.traffic(*sum(RING, ()), *to_anycast, seconds=6, interval_ms=20, each=8) as traffic:
        fabric.twin("kill", machine, fabric.routing_program(machine))
    assert traffic.lost() == {}


def test_killed_reflectors_cost_nothing(fabric: Lab) -> None:
    """Kill the daemons of all reflectors at once."""
    fabric.wait_until_converged()
    programs = fabric.on_each(
        [name for several in REFLECTORS.values() for name in several], fabric.routing_program
    )
    with fabric.traffic(*sum(RING, ()), seconds=15, interval_ms=20, each=8) as traffic:
        fabric.on_each(programs, lambda name: fabric.twin("kill", name, programs[name]))
    assert traffic.lost() == {}


def bound_ms(machine: str, path: str) -> float:
    """Return the permitted outage of a silent cut (docs/failover.md, reflectors.md) on a busy machine."""
    sleeps = path == "a" or machine in ("hv1", "hv2")  # BIRD before 2.14 reacts late to BFD
    return 1.2 * DETECTION_MS + (2100 if sleeps else 500 if path == "c" else 100)


@pytest.mark.parametrize(("machine", "path"), [("hv1", "a"), ("hv2", "c"), ("hv3", "b"), ("hv4", "b")])
def test_the_outage_of_a_silent_cut_is_within_the_bound_of_its_daemons(
    fabric: Lab, machine: str, path: str
) -> None:
    flows: list[Flows] = []
    for guest in GUESTS.values():
        if guest != GUESTS[machine]:
            flows += both_families(GUESTS[machine], guest)
    traffic = traffic_of_cut(fabric, machine, path, *flows, seconds=5, each=8)
    costs = traffic.outages_ms()
    assert max(costs.values()) <= bound_ms(machine, path) + traffic.allowance_ms


@pytest.mark.parametrize("path", ["b", "c"])
def test_a_dead_path_leaves_all_tables_of_bird31(fabric: Lab, path: str) -> None:
    """On paths with BFD, BIRD 3.1 removes the routes before its own scan, from tables without import too."""
    fabric.wait_until_converged()
    assert tables_with_path(fabric, "hv4", path) == {"public", "private", "local-out", "public-spread"}
    try:
        fabric.twin("cut", "hv4", path)
        wait_for("no route over the dead path", lambda: not tables_with_path(fabric, "hv4", path), 2)
    finally:
        fabric.twin("heal", "hv4", path)


def tables_with_path(fabric: Lab, machine: str, path: str) -> set[str]:
    """Return the kernel's tables with BIRD's routes over a path, of either family."""
    tables = ("public", "private", "local-out", "public-spread")
    shown = "ip -{} -oneline route show table {} proto bird 2>/dev/null || :"
    return {
        table
        for table in tables
        if any(f" dev {path}-" in fabric.run(machine, shown.format(family, table)) for family in (4, 6))
    }


# Anycast: a guest of each hypervisor holds the address, and each hypervisor spreads flows of its own guests.


@contextmanager
def answering(fabric: Lab, guests: Iterable[str]) -> Iterator[None]:
    """Let guests with the anycast addresses answer requests with their names."""
    program = [sys.executable, str(WHO_ANSWERS), "answer"]
    running = [
        subprocess.Popen(
            fabric.as_guest(guest, *program, guest, *ANYCAST.values()), stdout=subprocess.PIPE, text=True
        )
        for guest in guests
    ]
    try:
        assert [process.stdout and process.stdout.readline() for process in running] == ["ready\n"] * len(
            running
        )
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextmanager
def all_answered(fabric: Lab) -> Iterator[None]:
    """Let a guest of each hypervisor send requests to the anycast address; all must be answered."""
    program = [sys.executable, str(WHO_ANSWERS), "ask"]
    with answering(fabric, HOLDERS.values()):
        asking = [
            subprocess.Popen(
                fabric.as_guest(guest, *program, address, "32", "0"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for guest in GUESTS.values()
            for address in ANYCAST.values()
        ]
        try:
            yield
            for process in asking:
                rounds, flows = json.loads(process.communicate()[0])
                assert rounds > 10
                assert [len(answers) for answers in flows] == [rounds] * 32
        finally:
            for process in asking:
                process.kill()
                process.wait()


def holders_of_flows(fabric: Lab, machine: str, family: int, rounds: int = 3) -> list[str]:
    """Return the holder that answers each flow of a hypervisor's guest: always the same, in one hop."""
    asking = f"{sys.executable} {WHO_ANSWERS} ask {ANYCAST[family]} {FLOWS} {rounds}"
    found = []
    for answers in json.loads(fabric.run_as_guest(GUESTS[machine], asking))[1]:
        assert len(answers) == rounds
        ((name, ttl),) = {tuple(answer) for answer in answers}
        assert ttl == (63 if name == HOLDERS[machine] else 62)
        found.append(name)
    return found


def assert_shares(found: list[str], expected: dict[str, float]) -> None:
    """Assert the number of flows of each holder, within five standard deviations."""
    counts = Counter(found)
    assert counts.keys() == {name for name, share in expected.items() if share}
    for name, share in expected.items():
        assert abs(counts[name] - share * FLOWS) <= 5 * math.sqrt(FLOWS * share * (1 - share)), counts


def dropped_by_reverse_path_check(fabric: Lab, machine: str) -> str:
    return fabric.run(machine, "nstat -asz TcpExtIPReversePathFilter | tail -n 1")


@pytest.mark.parametrize("machine", GUESTS)
def test_flows_to_anycast_spread_over_all_holders(fabric: Lab, machine: str) -> None:
    """Each holder gets a quarter, and the strict reverse-path check of the ports ignores the marks."""
    fabric.wait_until_converged()
    before = dropped_by_reverse_path_check(fabric, machine)
    assert fabric.run(machine, f"cat /proc/sys/net/ipv4/conf/{GUESTS[machine]}/rp_filter") == "1\n"
    with answering(fabric, HOLDERS.values()):
        for family in ANYCAST:
            found = holders_of_flows(fabric, machine, family)
            assert_shares(found, dict.fromkeys(HOLDERS.values(), 1 / 4))
    assert dropped_by_reverse_path_check(fabric, machine) == before


@pytest.mark.parametrize("machine", GUESTS)
def test_flows_keep_their_holder_while_rules_are_loaded(fabric: Lab, machine: str) -> None:
    fabric.wait_until_converged()
    with answering(fabric, HOLDERS.values()), ThreadPoolExecutor() as pool:
        asking = [pool.submit(holders_of_flows, fabric, machine, family, 20) for family in ANYCAST]
        for _ in range(3):
            fabric.run(machine, "systemctl reload l3hv-nftables")
        assert not any(flows.done() for flows in asking)
        for flows in asking:
            assert set(flows.result()) == set(HOLDERS.values())


def test_other_holders_take_over_the_share_of_a_stopped_holder(fabric: Lab) -> None:
    fabric.wait_until_converged()
    rest = [name for machine, name in HOLDERS.items() if machine != "hv3"]
    fabric.twin("unplug", HOLDERS["hv3"])
    try:
        wait_for("no hypervisor to send to hv3", lambda: not uses(fabric, "hv3"))
        with answering(fabric, rest):
            for family in ANYCAST:
                for machine in GUESTS:
                    # A quarter goes to the local holder; without one it spreads over the others.
                    expected = dict.fromkeys(rest, 1 / 3)
                    if machine != "hv3":
                        expected = {**dict.fromkeys(rest, 3 / 8), HOLDERS[machine]: 1 / 4}
                    assert_shares(holders_of_flows(fabric, machine, family), expected)
    finally:
        fabric.twin("plug", HOLDERS["hv3"])
    wait_for("the others send to hv3 again", lambda: len(uses(fabric, "hv3")) == len(rest) * len(ANYCAST))
    wait_for("any3 can answer", lambda: fabric.has_default_routes(HOLDERS["hv3"]))
    with answering(fabric, HOLDERS.values()):
        for machine in GUESTS:
            for family in ANYCAST:
                found = holders_of_flows(fabric, machine, family)
                assert_shares(found, dict.fromkeys(HOLDERS.values(), 1 / 4))


def uses(fabric: Lab, owner: str) -> set[tuple[str, int]]:
    """Return the hypervisors with anycast routes to another one, each with the families of these routes."""
    number = owner.removeprefix("hv")
    hops = {
        4: {f"198.51.100.{int(number) + offset}" for offset in (0, 64, 128, 192)},
        6: {f"2001:db8:c633:640{path}::{number}" for path in range(4)},
    }

    def families(machine: str) -> list[int]:
        def shown(family: int) -> list[str]:
            return fabric.run(machine, f"ip -{family} route show table public-spread").split()

        return [family for family in hops if not hops[family].isdisjoint(shown(family))]

    found = fabric.on_each([machine for machine in GUESTS if machine != owner], families)
    return {(machine, family) for machine, used in found.items() for family in used}


def test_a_hypervisor_that_is_cut_off_keeps_its_flows(fabric: Lab) -> None:
    """Its own holder gets them, and no flows of others, because all routes in both directions are stale."""
    fabric.wait_until_converged()
    try:
        for path in REFLECTORS:
            fabric.twin("cut", "hv3", path)
        wait_for("no hypervisor to send to hv3", lambda: not uses(fabric, "hv3"), 40)
        wait_for("hv3 to send to no other hypervisor", lambda: spread_routes(fabric, "hv3") == "", 40)
        with answering(fabric, HOLDERS.values()):
            for family in ANYCAST:
                assert set(holders_of_flows(fabric, "hv3", family)) == {"any3"}
                expected = {"any1": 1 / 4, "any2": 3 / 8, "any3": 0, "any4": 3 / 8}
                assert_shares(holders_of_flows(fabric, "hv1", family), expected)
    finally:
        for path in REFLECTORS:
            fabric.twin("heal", "hv3", path)
    fabric.wait_until_converged()


def spread_routes(fabric: Lab, machine: str) -> str:
    tables = "for family in -4 -6; do ip $family route show table 1090 2>/dev/null || :; done"
    return fabric.run(machine, tables).strip()


def traces_of_spreading(fabric: Lab, machine: str) -> list[str]:
    """Return the rules, routes and marks on a hypervisor that spread anycast."""
    look = {
        "rules": "ip rule; ip -6 rule",
        "names": "cat /etc/iproute2/rt_tables.d/l3hv.conf",
        "filter": "nft list table inet l3hv",
        "BIRD": "birdc show protocols; ! systemctl --quiet is-active bird6 || birdc6 show protocols",
    }
    traces = [
        what
        for what, command in look.items()
        if any(sign in fabric.run(machine, command) for sign in ("spread", MARK))
    ]
    return traces + ["routes"] * bool(spread_routes(fabric, machine))


@pytest.mark.matrix
def test_spreading_is_removed_and_configured_again_without_loss(fabric: Lab, tmp_path: Path) -> None:
    inventory = copy_of(INVENTORY, tmp_path)
    hosts = inventory / "hosts.yml"
    text = hosts.read_text()
    assert "l3hv_anycast: spread" in text
    everything = ["rules", "names", "filter", "BIRD", "routes"]
    for value, traces in (("local", []), ("spread", everything)):
        hosts.write_text(text.replace("l3hv_anycast: spread", f"l3hv_anycast: {value}"))
        fabric.wait_until_converged()
        run = ("site.yml", "--limit", "hypervisors")
        previewed = fabric.playbook(*run, "--check", "--diff", inventory=inventory).changed_hosts()
        with all_answered(fabric):
            done = fabric.playbook(*run, inventory=inventory).changed_hosts()
        assert previewed.keys() == done.keys() == HOLDERS.keys()
        assert fabric.playbook(*run, inventory=inventory).changed_hosts() == {}
        for machine in HOLDERS:
            assert traces_of_spreading(fabric, machine) == traces, machine

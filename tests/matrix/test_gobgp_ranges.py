"""Reflectors of GoBGP (two systems) with clients from a range: verified, broken, attacked, extended."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from lab import FARTHER, Lab, booted, both_families, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "range_gobgp" / "intent"

BY_RANGE = ("rr1", "rr2")
"""Reflectors with ranges: of Debian 13 and 12."""
OFFSETS = {"rr1": 0, "rr2": 128}
"""The base of the hosts' numbers on the path of each reflector, in IPv4."""
CLIENTS = {"hv1": 4, "hv2": 4, "gw": 2}
"""Sessions of each client on two paths: hypervisors are in two domains, the edge router is in one."""
FLOWS = both_families("vm1", "vm2")
HOLD_S = 9
"""The cost of a silent cut: the plan's default hold time without BFD."""
STALE_S = 1
"""The minimum time for which routes of a lost neighbour stay fresh."""
BIRD = "/etc/bird/bird.conf"
GOBGP = "gobgp --target unix:///run/l3hv-gobgp-public/api"


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the fabric's inventory, which tests may change."""
    return Path(shutil.copytree(INVENTORY, tmp_path_factory.mktemp("ranges") / "intent"))


@pytest.fixture(scope="module")
def fabric(intent: Path) -> Iterator[Lab]:
    """Boot, provision and verify the fabric in a twin of its own."""
    with booted("granges", intent) as made:
        assert made.playbook("site.yml", inventory=intent).warnings == ""
        yield made


def with_range(fabric: Lab, machine: str) -> list[str]:
    """Return the states of a client's sessions with the reflectors that have ranges."""
    return [state for name, state in fabric.protocols(machine).items() if name.startswith(BY_RANGE)]


def is_whole(fabric: Lab) -> bool:
    def looks_whole(machine: str) -> bool:
        states = with_range(fabric, machine)
        other = {"hv1": "203.0.113.2", "hv2": "203.0.113.1"}.get(machine)
        return (
            len(states) == CLIENTS[machine]
            and all("Established" in state for state in states)
            and (other is None or fabric.routes(machine, 4).get(other) == 2)
        )

    return all(fabric.on_each(CLIENTS, looks_whole).values())


def await_whole(fabric: Lab) -> None:
    wait_for("sessions and both paths in all routes", lambda: is_whole(fabric), 60)


def test_a_second_run_changes_nothing_and_packets_pass(fabric: Lab, intent: Path) -> None:
    assert fabric.playbook("site.yml", inventory=intent).changed_hosts() == {}
    await_whole(fabric)
    assert fabric.playbook("playbooks/verify.yml", inventory=intent).changed_hosts() == {}


@pytest.mark.parametrize("killed", [["rr1"], ["rr2"], [*BY_RANGE]], ids="+".join)
def test_a_gobgp_that_is_killed_costs_nothing(fabric: Lab, killed: list[str]) -> None:
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        for _ in range(3):
            fabric.on_each(killed, lambda rr: fabric.run(rr, "systemctl kill --signal=KILL 'l3hv-gobgp-*'"))
            await_whole(fabric)
    assert traffic.lost() == {}


def test_a_hypervisors_daemon_that_is_killed_costs_nothing(fabric: Lab) -> None:
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.twin("kill", "hv2", "bird")
        await_whole(fabric)
    assert traffic.lost() == {}


def test_a_silent_cut_costs_the_hold_time(fabric: Lab) -> None:
    await_whole(fabric)
    try:
        with fabric.traffic(*FLOWS, seconds=HOLD_S + STALE_S + 6) as traffic:
            fabric.twin("cut", "hv2", "a")
    finally:
        fabric.twin("heal", "hv2", "a")
    print(traffic.outages_ms())
    assert max(traffic.outages_ms().values()) < 1000 * (HOLD_S + STALE_S) + 1500
    await_whole(fabric)


def address_of(reflector: str, number: int) -> str:
    """Return the address of the host with a number on a reflector's path, in the public domain."""
    return f"198.51.100.{number + OFFSETS[reflector]}"


def is_up(fabric: Lab, reflector: str, number: int) -> bool:
    """Return whether a reflector has a session with the host with a number, in the public domain."""
    address = address_of(reflector, number)
    rows = (line.split() for line in fabric.run(reflector, f"{GOBGP} neighbor").splitlines())
    return any(row[0] == address and row[3] == "Establ" for row in rows)


@contextmanager
def edited(fabric: Lab, machine: str, *edits: str) -> Iterator[None]:
    """Edit a machine's BIRD configuration as an attacker, and restore it afterwards."""
    fabric.run(machine, f"cp -p {BIRD} {BIRD}.kept")
    try:
        for edit in edits:
            fabric.run(machine, f"sed -i '{edit}' {BIRD}")
        fabric.run(machine, f"! cmp -s {BIRD} {BIRD}.kept && birdc configure")
        yield
    finally:
        fabric.run(machine, f"mv {BIRD}.kept {BIRD} && birdc configure")


def test_routes_of_a_stopped_daemon_stay_as_a_last_resort(fabric: Lab) -> None:
    """Test reflectors that know the client from a range only."""
    await_whole(fabric)
    fabric.run("hv2", "systemctl stop bird")
    try:
        for reflector in BY_RANGE:

            def shown(reflector: str = reflector) -> str:
                return fabric.run(reflector, f"{GOBGP} --json global rib -a ipv4 203.0.113.2/32")

            # 65535:6 (RFC 9494) as a number.
            wait_for("stale routes", lambda s=shown: "4294901766" in s(), HOLD_S + STALE_S + 5)
    finally:
        fabric.run("hv2", "systemctl start bird")
        await_whole(fabric)


def test_hosts_behind_a_router_get_no_session(fabric: Lab) -> None:
    """GoBGP itself refuses it: the packet filter, which drops such packets, is removed for this test."""
    await_whole(fabric)
    for reflector in BY_RANGE:
        fabric.run(reflector, "nft delete table inet l3hv")
    fabric.run("hv2", f"nft -f - <<'EOF'\n{FARTHER}\nEOF")
    try:
        fabric.run("hv2", "birdc restart all")
        for reflector in BY_RANGE:
            wait_for("the hold time", lambda rr=reflector: not is_up(fabric, rr, 2), 2 * HOLD_S)
        time.sleep(8)  # longer than two attempts to connect
        # BIRD may show a session for a moment: its first packet can arrive before GoBGP checks TTLs.
        assert not any(is_up(fabric, reflector, 2) for reflector in BY_RANGE)
    finally:
        fabric.run("hv2", "nft delete table inet farther")
        for reflector in BY_RANGE:
            fabric.run(reflector, "systemctl restart l3hv-nftables")
        await_whole(fabric)


@pytest.mark.parametrize(
    ("hops", "next_hops"),
    [
        ({1: "198.51.100.120", 129: "198.51.100.248"}, {"rr1": {"198.51.100.1"}, "rr2": {"198.51.100.248"}}),
        ({1: "192.0.2.1", 129: "192.0.2.1"}, {"rr1": set(), "rr2": set()}),
    ],
    ids=["of an edge router", "from elsewhere"],
)
def test_a_forged_next_hop(fabric: Lab, hops: dict[int, str], next_hops: dict[str, set[str]]) -> None:
    """GoBGP 3.36 sends the traffic to the client itself; both versions refuse next hops outside the path."""
    await_whole(fabric)
    edits = [f"s/next hop address 198.51.100.{own};/next hop address {hop};/" for own, hop in hops.items()]
    with edited(fabric, "hv1", *edits):
        for reflector, expected in next_hops.items():

            def seen(reflector: str = reflector) -> set[str]:
                show = f"birdc show route 203.0.113.1/32 all table public4 protocol {reflector}_public"
                lines = fabric.run("hv2", f"{show} || true").splitlines()
                return {line.split()[-1] for line in lines if "next_hop" in line}

            wait_for(f"{expected} of {reflector}", lambda s=seen, e=expected: s() == e, 10)
    await_whole(fabric)


def test_a_reflector_changes_to_explicit_neighbours_and_back(
    fabric: Lab, intent: Path, tmp_path: Path
) -> None:
    """Change from a range to explicit neighbours and back, under traffic."""
    await_whole(fabric)
    known = Path(shutil.copytree(intent, tmp_path / "known"))
    hosts = known / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("      l3hv_neighbors: range\n", "", 1))
    with fabric.steady_traffic(*FLOWS) as traffic:
        for source in (known, intent):
            changed = fabric.playbook("site.yml", inventory=source).changed_hosts()
            assert changed.keys() == {"rr1"}
            await_whole(fabric)
    assert traffic.lost() == {}


def test_another_hypervisor_needs_no_change_at_the_reflectors(fabric: Lab, intent: Path) -> None:
    """Of the reflectors only rr3 changes, which has explicit clients."""
    await_whole(fabric)
    hosts = yaml.safe_load((intent / "hosts.yml").read_text())
    guest = {"name": "vm3", "mac": "50:54:33:00:00:03", "ipv4": "203.0.113.3"}
    hosts["hypervisors"]["hosts"]["hv3"] = {"l3hv_id": 3, "l3hv_guests": [guest]}
    (intent / "hosts.yml").write_text(yaml.safe_dump(hosts))
    fabric.twin("up", "-i", str(intent), seconds=300)
    with fabric.steady_traffic(*FLOWS) as traffic:
        changed = fabric.playbook("site.yml", inventory=intent).changed_hosts()
        assert changed.keys() == {"hv3", "rr3"}
        states = with_range(fabric, "hv3")
        assert len(states) == 4
        assert all("Established" in state for state in states)
        for hypervisor in ("hv1", "hv2"):
            assert fabric.routes(hypervisor, 4).get("203.0.113.3") == 2
    assert traffic.lost() == {}


def test_too_many_prefixes_end_the_session_that_has_them(fabric: Lab) -> None:
    """The session stays down until an operator enables it; no other session is affected. rr3 reports it."""
    await_whole(fabric)
    routes = " ".join(f"route 2001:db8:cb00:7102::{number:x}/128 blackhole;" for number in range(1, 300))
    many = f"$a protocol static many {{ ipv6 {{ table public6; }}; {routes} }}"
    announced = "/^function announce_public6/a if source = RTS_STATIC then accept;"
    with fabric.traffic(*both_families("vm1", "gw"), seconds=8, each=4) as traffic:
        with edited(fabric, "hv2", many, announced):
            for reflector in BY_RANGE:
                wait_for(f"the end with {reflector}", lambda rr=reflector: not is_up(fabric, rr, 2), 5)
        assert all("Established" in state for state in with_range(fabric, "hv1"))
    assert traffic.lost() == {}
    for reflector in BY_RANGE:
        fabric.run(reflector, f"{GOBGP} neighbor {address_of(reflector, 2)} enable")
    await_whole(fabric)

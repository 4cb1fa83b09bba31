"""Reflectors with clients from a range: provisioned, verified, broken, and with a new client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import FARTHER, Lab, booted, both_families, wait_for
from two_paths import HYPERVISORS, await_whole

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "range" / "intent"

MACHINES = (*HYPERVISORS, "rr1", "rr2", "rr3", "gw")
DYNAMIC = {"rr1": 5, "rr2": 5, "rr3": 0}
"""Sessions of clients: two hypervisors in two domains, an edge router in one."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric in a twin of its own, without provisioning it."""
    with booted("ranges", INVENTORY) as made:
        yield made


def provision(fabric: Lab, *arguments: str) -> dict[str, int]:
    """Run site.yml, which verifies the fabric; return the changed hosts."""
    return dict(fabric.playbook("site.yml", *arguments, inventory=INVENTORY).changed_hosts())


def dynamic(fabric: Lab, machine: str) -> dict[str, str]:
    """Return a reflector's sessions that come from a range."""
    return {name: state for name, state in fabric.protocols(machine).items() if name.startswith("dynbgp")}


def established(fabric: Lab, machine: str) -> int:
    return sum("Established" in state for state in dynamic(fabric, machine).values())


def test_all_hosts_of_a_path_have_sessions(fabric: Lab) -> None:
    provision(fabric)
    assert provision(fabric) == {}
    await_whole(fabric)
    assert {machine: established(fabric, machine) for machine in DYNAMIC} == DYNAMIC


@pytest.mark.parametrize(("event", "bound"), [("cut", 1.2 * 300 + 100), ("kill", 50)])
def test_failures_cost_what_is_permitted(fabric: Lab, event: str, bound: float) -> None:
    await_whole(fabric)
    try:
        with fabric.traffic(*both_families("vm1", "vm2"), seconds=5, each=8) as traffic:
            fabric.twin(event, "hv2", "bird" if event == "kill" else "a")
    finally:
        fabric.twin("heal", "hv2", "a")
    print(event, traffic.outages_ms())
    await_whole(fabric)
    assert max(traffic.outages_ms().values()) <= bound + traffic.allowance_ms


def test_routes_of_a_stopped_daemon_stay_as_a_last_resort(fabric: Lab) -> None:
    """Test reflectors that know the client from a range only."""
    await_whole(fabric)
    fabric.run("hv2", "systemctl stop bird")
    try:
        wait_for("the sessions to be gone", lambda: established(fabric, "rr1") < DYNAMIC["rr1"], 20)
        for reflector in ("rr1", "rr2", "rr3"):
            shown = fabric.run(reflector, "birdc show route table public4 203.0.113.2/32 all")
            assert "203.0.113.2/32" in shown, reflector
    finally:
        fabric.run("hv2", "systemctl start bird")
        await_whole(fabric)


def test_hosts_behind_a_router_get_no_session(fabric: Lab) -> None:
    await_whole(fabric)
    fabric.run("hv2", f"nft -f - <<'EOF'\n{FARTHER}\nEOF")
    try:
        fabric.run("hv2", "birdc restart all")
        wait_for("the sessions to end", lambda: established(fabric, "rr1") < DYNAMIC["rr1"], 20)
        assert not any("rr1" in name and "Established" in s for name, s in fabric.protocols("hv2").items())
    finally:
        fabric.run("hv2", "nft delete table inet farther")
        await_whole(fabric)

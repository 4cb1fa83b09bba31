"""Reflectors with clients from a range: provisioned, verified, broken, and with a new client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from failures import behind_a_router, stopped_bird, traffic_of_cut, traffic_of_kill
from lab import Lab, booted, wait_for
from two_paths import CONVERGED, FLOWS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "range" / "intent"

DYNAMIC = {"rr1": 5, "rr2": 5, "rr3": 0}
"""Sessions of clients: two hypervisors in two domains, an edge router in one."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric in a twin of its own, without provisioning it."""
    with booted("ranges", INVENTORY, converged=CONVERGED) as made:
        yield made


def dynamic(fabric: Lab, machine: str) -> dict[str, str]:
    """Return a reflector's sessions that come from a range."""
    return {name: state for name, state in fabric.protocols(machine).items() if name.startswith("dynbgp")}


def established(fabric: Lab, machine: str) -> int:
    return sum("Established" in state for state in dynamic(fabric, machine).values())


def test_all_hosts_of_a_path_have_sessions(fabric: Lab) -> None:
    fabric.provision()
    assert fabric.provision() == {}
    fabric.wait_until_converged()
    assert {machine: established(fabric, machine) for machine in DYNAMIC} == DYNAMIC


@pytest.mark.parametrize(("event", "bound"), [("cut", 1.2 * 300 + 100), ("kill", 50)])
def test_the_outage_of_a_failure_is_within_its_bound(fabric: Lab, event: str, bound: float) -> None:
    if event == "kill":
        traffic = traffic_of_kill(fabric, "hv2", "bird", *FLOWS, seconds=5, each=8)
    else:
        traffic = traffic_of_cut(fabric, "hv2", "a", *FLOWS, seconds=5, each=8)
    fabric.wait_until_converged()
    assert max(traffic.outages_ms().values()) <= bound + traffic.allowance_ms


def test_routes_of_a_stopped_daemon_stay_as_a_last_resort(fabric: Lab) -> None:
    """Test reflectors that know the client from a range only."""
    with stopped_bird(fabric, "hv2"):
        wait_for("the sessions of hv2 to end", lambda: established(fabric, "rr1") < DYNAMIC["rr1"], 20)
        for reflector in DYNAMIC:
            shown = fabric.run(reflector, "birdc show route table public4 203.0.113.2/32 all")
            assert "203.0.113.2/32" in shown, reflector


def test_hosts_behind_a_router_get_no_session(fabric: Lab) -> None:
    with behind_a_router(fabric, "hv2"):
        wait_for("the sessions to end", lambda: established(fabric, "rr1") < DYNAMIC["rr1"], 20)
        assert not any("rr1" in name and "Established" in s for name, s in fabric.protocols("hv2").items())

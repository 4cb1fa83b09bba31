"""The loss that failures cause in 32 flows of each family between guests of two hypervisors."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from addresses import advertised_prefix
from lab import EndedEarly, Lab, Traffic, both_families, wait_for
from machines import GUESTS, PATHS, addresses, neighbors, sessions

pytestmark = pytest.mark.fabric

FLOWS = both_families("vm1", "vm3")
SOURCE, TARGET = GUESTS["vm1"], GUESTS["vm3"]
DEAD_SECONDS = 15  # `make bench-failover` keeps reflectors away for a minute.


def bound_ms(lab: Lab, path: str) -> float:
    """Return the permitted outage of the worst flow: 1.2 times the detection time, plus 100 ms."""
    return 1.2 * lab.detection_ms(path) + 100


def worst_outages(lab: Lab, breakage: tuple[str, ...], remedy: tuple[str, ...]) -> str:
    """Break and repair a path under traffic, and return the outages; the repair must lose no packet.

    The machines share their cores with other load: the better of two attempts counts, and the bound is
    wider by the measured lateness of the host.
    """
    bound = bound_ms(lab, breakage[2])
    attempts: list[object] = []
    for _ in range(2):
        traffic = Traffic()
        try:
            with lab.traffic(*FLOWS, seconds=3 + bound / 1000) as traffic:
                lab.twin(*breakage)
        except EndedEarly as error:
            attempts.append(error)
            traffic = Traffic()  # This traffic did not cover the whole event.
        with lab.steady_traffic(*FLOWS) as recovery:
            lab.twin(*remedy)
            lab.wait_until_whole()
        assert recovery.lost() == {}
        if not traffic.results:
            continue
        assert all(traffic.flows_hit().values()), f"the event has cost no packet: {traffic.results}"
        allowed = bound + traffic.allowance_ms
        attempts.append((traffic.outages_ms(), f"{allowed:.0f} ms are allowed"))
        if max(traffic.outages_ms().values()) <= allowed:
            return f"{attempts}"
    raise AssertionError(f"the worst flows were cut for {attempts} ms")


@pytest.fixture
def mended(lab: Lab) -> Iterator[Lab]:
    """Yield the lab, and repair all cables afterwards."""
    yield lab
    for path in PATHS:
        lab.twin("heal", "hv2", path)
        lab.twin("carrier", "hv2", path, "up")


def test_a_path_is_cut_silently(mended: Lab, figures: dict[str, str]) -> None:
    figures["silent cut, ms"] = worst_outages(mended, ("cut", "hv2", "a"), ("heal", "hv2", "a"))


def test_a_path_loses_its_carrier(mended: Lab, figures: dict[str, str]) -> None:
    breakage, remedy = ("carrier", "hv2", "b", "down"), ("carrier", "hv2", "b", "up")
    figures["carrier loss, ms"] = worst_outages(mended, breakage, remedy)


def third_neighbor(path: str) -> str:
    """Return the first machine that both ends have sessions with on a path: a reflector, or a third host."""
    return next(peer for peer in neighbors(SOURCE, path) if peer in neighbors(TARGET, path))


def test_a_neighbors_daemon_is_killed(lab: Lab) -> None:
    neighbor = third_neighbor("a")
    with lab.steady_traffic(*FLOWS) as traffic:
        lab.twin("kill", neighbor, lab.routing_program(neighbor))
        lab.wait_until_whole()
    assert traffic.lost() == {}


def test_neighbors_on_all_paths_lose_power_for_a_while(lab: Lab) -> None:
    """All reflectors lose power, or a third host of a mesh: the flows go on."""
    if not next_hops(lab) <= addresses(TARGET):
        pytest.skip("the flows pass the machines that the hypervisors have sessions with")
    dead = {third_neighbor(path) for path in PATHS}
    with lab.steady_traffic(*FLOWS) as traffic:
        lab.on_each(dead, lambda neighbor: lab.twin("crash", neighbor))
        wait_for("the hypervisors to lose these sessions", lambda: no_session_is_up(lab, dead), 15)
        time.sleep(DEAD_SECONDS)
        lab.on_each(dead, lambda neighbor: lab.twin("boot", neighbor))
        lab.wait_until_whole()
    assert traffic.lost() == {}


def next_hops(lab: Lab) -> set[str]:
    """Return the next hops of the flows at the hypervisor of their source."""
    (route,) = lab.read_json(SOURCE, f"ip -json route show table public {advertised_prefix('vm3', 4)}")
    return {hop["gateway"] for hop in route.get("nexthops", [route])}


def no_session_is_up(lab: Lab, peers: set[str]) -> bool:
    """Return whether both ends have lost their sessions with these machines."""
    return not any(
        "Established" in lab.protocols(end)[session["name"]]
        for end in (SOURCE, TARGET)
        for peer in peers
        for session in sessions(end, peer=peer)
    )


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(("kill", "hv2", "bird"), id="killed"),
        pytest.param(("exec", "hv2", "--", "systemctl", "restart", "bird"), id="restarted"),
    ],
)
def test_a_restart_of_a_hypervisors_daemon_loses_nothing(lab: Lab, event: tuple[str, ...]) -> None:
    before = lab.run("hv2", "pidof bird")
    with lab.steady_traffic(*FLOWS) as traffic:
        lab.twin(*event)
        lab.wait_until_whole()
    assert traffic.lost() == {}
    assert lab.run("hv2", "pidof bird") != before


def test_the_configuration_is_loaded_again(lab: Lab) -> None:
    with lab.steady_traffic(*FLOWS) as traffic:
        lab.run("hv2", "systemctl reload bird && networkctl reload")
    assert traffic.lost() == {}

"""One fabric of every routing daemon under every failure profile: provisioned, verified, broken and measured.

The figures go to `build/failover.md`; docs/failover.md has those of a quiet machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from failure_figures import Figures, collected
from failures import traffic_of_cut, traffic_of_kill
from lab import Flows, Lab, Traffic, booted, both_families, converged

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "mixed" / "intent"
FIGURES = REPOSITORY / "build" / "failover.md"

DAEMONS = {"hv1": "2.17", "hv2": "2.0.12", "hv3": "3.1"}
REFLECTORS = {"a": ("rr1", "3.1"), "b": ("rr2", "2.0.12")}
GUESTS = {"hv1": "vm1", "hv2": "vm2", "hv3": "vm3"}
CONVERGED = converged(
    {guest: machine for machine, guest in GUESTS.items()},
    (*(name for name, _ in REFLECTORS.values()), "gw"),
)
PROFILES = ("bfd_llgr", "bfd", "graceful_restart", "link", "none")
KILL = "kill"
DETECTION_MS = 300
HOLD_S = 3
"""The minimum of BGP: the cost of a silent cut that only the hold time detects."""
WITH_LATE_TIMERS = "2.0.12"
"""The version that may need two seconds more to mark routes as stale and to advertise the change."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the mixed fabric in a twin of its own, without provisioning it."""
    with booted("matrix", INVENTORY, converged=CONVERGED) as made:
        yield made


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """Collect the outages: (profile, machine, event) → the worst flow's outage in ms."""
    with collected(FIGURES, "hypervisor", DAEMONS) as seen:
        yield seen


def provision(fabric: Lab, profile: str) -> Mapping[str, int]:
    """Run site.yml, which verifies the fabric; return the changed hosts."""
    return fabric.provision(variables={"l3hv_failure_profile": profile, "l3hv_timers": {"hold_s": HOLD_S}})


def flows_of(machine: str) -> tuple[Flows, ...]:
    """Return flows of the guest of a hypervisor with the guest of another one."""
    other = next(name for name in ("hv1", "hv3") if name != machine)
    return both_families(GUESTS[machine], GUESTS[other])


def worst_outage_ms(traffic: Traffic) -> float:
    return max(traffic.outages_ms().values())


def bound_ms(profile: str, machine: str, event: str) -> float:
    """Return the permitted outage of the worst flow, on a host with other load."""
    if event == KILL:
        return 0 if profile in ("bfd_llgr", "graceful_restart") else 10_000
    if profile not in ("bfd_llgr", "bfd"):
        return 1000 * HOLD_S + 1500
    sleeps = WITH_LATE_TIMERS in (DAEMONS[machine], REFLECTORS[event[-1]][1])
    return 1.2 * DETECTION_MS + 100 + (2200 if sleeps else 0)


def test_the_machines_run_the_daemons_of_the_inventory(fabric: Lab) -> None:
    for machine, version in DAEMONS.items():
        assert f"BIRD version {version}" in fabric.run(machine, "bird --version 2>&1")


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile(fabric: Lab, figures: Figures, profile: str, request: pytest.FixtureRequest) -> None:
    """Provision all machines, and measure a silent cut of each path and a killed daemon."""
    assert provision(fabric, profile)
    if profile == PROFILES[0]:
        assert provision(fabric, profile) == {}
    finds_cuts = profile in ("bfd_llgr", "bfd")
    seen: Figures = {}
    request.addfinalizer(lambda: figures.update(seen))
    for machine in DAEMONS if finds_cuts else ("hv1",):
        for path in REFLECTORS if finds_cuts else "a":
            traffic = traffic_of_cut(
                fabric, machine, path, *flows_of(machine), seconds=5 if finds_cuts else HOLD_S + 3
            )
            seen[profile, machine, f"cut {path}"] = worst_outage_ms(traffic)
        traffic = traffic_of_kill(fabric, machine, "bird", *flows_of(machine), seconds=6)
        seen[profile, machine, KILL] = worst_outage_ms(traffic)
    fabric.wait_until_converged()
    late = {place: cost for place, cost in seen.items() if cost > bound_ms(profile, *place[1:])}
    assert late == {}

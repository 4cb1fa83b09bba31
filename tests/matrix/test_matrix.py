"""One fabric of every routing daemon under every failure profile: provisioned, verified, broken and measured.

The figures go to `build/failover.md`; docs/failover.md has those of a quiet machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, booted, both_families, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "mixed" / "intent"
FIGURES = REPOSITORY / "build" / "failover.md"

DAEMONS = {"hv1": "2.17", "hv2": "2.0.12", "hv3": "3.1"}
REFLECTORS = {"a": ("rr1", "3.1"), "b": ("rr2", "2.0.12")}
MACHINES = (*DAEMONS, *(name for name, _ in REFLECTORS.values()), "gw")
GUESTS = {"hv1": "vm1", "hv2": "vm2", "hv3": "vm3"}
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
    with booted("matrix", INVENTORY) as made:
        yield made


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[tuple[str, str, str], float]]:
    """Collect the outages: (profile, machine, event) → the worst flow's outage in ms."""
    seen: dict[tuple[str, str, str], float] = {}
    yield seen
    events = sorted({event for _, _, event in seen})
    lines = [f"| profile | hypervisor | {' | '.join(events)} |", "|---|---|" + "---|" * len(events)]
    for profile, machine in dict.fromkeys((profile, machine) for profile, machine, _ in seen):
        cells = [f"{seen.get((profile, machine, event), -1):.0f}".replace("-1", "") for event in events]
        lines.append(f"| `{profile}` | {DAEMONS[machine]} | {' | '.join(cells)} |")
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text("\n".join(lines) + "\n")
    print(f"\n{FIGURES.read_text()}")


def provision(fabric: Lab, profile: str) -> dict[str, int]:
    """Run site.yml, which verifies the fabric; return the changed hosts."""
    variables = {"l3hv_failure_profile": profile, "l3hv_timers": {"hold_s": HOLD_S}}
    run = fabric.playbook("site.yml", "-e", json.dumps(variables), inventory=INVENTORY)
    return dict(run.changed_hosts())


def is_whole(fabric: Lab) -> bool:
    """Return whether all sessions are up and each hypervisor has both paths to the guests of the others."""

    def has_both_paths(machine: str) -> bool:
        if not fabric.established(machine):
            return False
        if machine not in DAEMONS:
            return True
        others = [number for name, number in zip(DAEMONS, (1, 2, 3), strict=True) if name != machine]
        ipv4, ipv6 = fabric.routes(machine, 4), fabric.routes(machine, 6)
        return all(
            ipv4.get(f"203.0.113.{number}") == ipv6.get(f"2001:db8:cb00:710{number}::/64") == 2
            for number in others
        )

    return all(fabric.on_each(MACHINES, has_both_paths).values())


def await_whole(fabric: Lab) -> None:
    wait_for("sessions and both paths in all routes", lambda: is_whole(fabric), 60)


def outage_ms(fabric: Lab, machine: str, *event: str, seconds: float) -> float:
    """Run an event on a hypervisor, and return the outage of the worst of 64 flows with its guest."""
    other = next(name for name in ("hv1", "hv3") if name != machine)
    try:
        with fabric.traffic(*both_families(GUESTS[machine], GUESTS[other]), seconds=seconds) as traffic:
            fabric.twin(*event)
    finally:
        for path in REFLECTORS:
            fabric.twin("heal", machine, path)
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
def test_profile(
    fabric: Lab, figures: dict[tuple[str, str, str], float], profile: str, request: pytest.FixtureRequest
) -> None:
    """Provision all machines, and measure a silent cut of each path and a killed daemon."""
    assert provision(fabric, profile)
    if profile == PROFILES[0]:
        assert provision(fabric, profile) == {}
    finds_cuts = profile in ("bfd_llgr", "bfd")
    seen: dict[tuple[str, str, str], float] = {}
    request.addfinalizer(lambda: figures.update(seen))
    for machine in DAEMONS if finds_cuts else ("hv1",):
        for path in REFLECTORS if finds_cuts else "a":
            await_whole(fabric)
            seconds = 5 if finds_cuts else HOLD_S + 3
            seen[profile, machine, f"cut {path}"] = outage_ms(
                fabric, machine, "cut", machine, path, seconds=seconds
            )
        await_whole(fabric)
        seen[profile, machine, KILL] = outage_ms(fabric, machine, "kill", machine, "bird", seconds=6)
    await_whole(fabric)
    late = {place: cost for place, cost in seen.items() if cost > bound_ms(profile, *place[1:])}
    assert late == {}

"""Reflectors of other daemons beside one of BIRD: provisioned, verified, broken and measured.

Each path of the fabric has a reflector of another kind: the cut of a path shows what its reflector costs.
The figures go to `build/reflectors.md`; docs/reflectors.md has them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, both_families, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "reflectors" / "intent"
FIGURES = REPOSITORY / "build" / "reflectors.md"

REFLECTORS = {"a": ("rr1", "FRR 10.3"), "b": ("rr2", "BIRD 2.17"), "c": ("rr3", "FRR 8.4")}
HYPERVISORS = ("hv1", "hv2")
MACHINES = (*HYPERVISORS, "gw", *(name for name, _ in REFLECTORS.values()))
PROFILES = ("bfd_llgr", "bfd")
FLOWS = both_families("vm1", "vm2")
OTHERS = {
    "hv1": ("203.0.113.2", "2001:db8:cb00:7102::/64"),
    "hv2": ("203.0.113.1", "2001:db8:cb00:7101::/64"),
}
DETECTION_MS = 300
BOUND_MS = 1.2 * DETECTION_MS + 500
"""What the silent cut of a path may cost the worst flow, on a machine that does other things too."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """The fabric in a twin of its own, not provisioned yet."""
    made = Lab(os.environ.get("L3HV_REFLECTORS_TWIN", f"reflectors{os.getpid() % 100000}"))
    made.twin("down")
    made.twin("up", "-i", str(INVENTORY), seconds=600)
    try:
        yield made
    finally:
        made.twin("down")


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[tuple[str, str, str], float]]:
    """What each event cost: (profile, reflector, event) → the worst flow's outage in ms."""
    seen: dict[tuple[str, str, str], float] = {}
    yield seen
    events = sorted({event for _, _, event in seen})
    lines = [f"| profile | reflector | {' | '.join(events)} |", "|---|---|" + "---|" * len(events)]
    for profile, reflector in dict.fromkeys((profile, reflector) for profile, reflector, _ in seen):
        cells = " | ".join(f"{seen[profile, reflector, event]:.0f}" for event in events)
        lines.append(f"| `{profile}` | {reflector} | {cells} |")
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text("\n".join(lines) + "\n")
    print(f"\n{FIGURES.read_text()}")


def provision(fabric: Lab, profile: str) -> dict[str, int]:
    """Run site.yml, which verifies what it made; return the hosts on which it changed anything."""
    variables = json.dumps({"l3hv_failure_profile": profile})
    return dict(fabric.playbook("site.yml", "-e", variables, inventory=INVENTORY).changed_hosts())


def await_whole(fabric: Lab) -> None:
    """Wait until all sessions are up and each hypervisor has all paths to the other's guest."""

    def looks_whole(machine: str) -> bool:
        if not fabric.established(machine):
            return False
        return all(
            fabric.routes(machine, 6 if ":" in prefix else 4).get(prefix) == len(REFLECTORS)
            for prefix in OTHERS.get(machine, ())
        )

    wait_for("all paths", lambda: all(fabric.on_each(MACHINES, looks_whole).values()), 60)


def outage_ms(fabric: Lab, *event: str, seconds: float) -> float:
    """Let something happen; how long the worst of 64 flows was cut."""
    await_whole(fabric)
    with fabric.traffic(*FLOWS, seconds=seconds) as traffic:
        fabric.twin(*event)
    return max(traffic.outages_ms().values())


@pytest.mark.parametrize("profile", PROFILES)
def test_each_reflector(
    fabric: Lab, figures: dict[tuple[str, str, str], float], profile: str, request: pytest.FixtureRequest
) -> None:
    """A path is cut silently, a reflector's daemon is killed, and a hypervisor's BIRD."""
    assert provision(fabric, profile)
    assert provision(fabric, profile) == {}
    seen: dict[tuple[str, str, str], float] = {}
    request.addfinalizer(lambda: figures.update(seen))
    for path, (machine, name) in REFLECTORS.items():
        try:
            seen[profile, name, "path cut"] = outage_ms(fabric, "cut", "hv1", path, seconds=5)
        finally:
            fabric.twin("heal", "hv1", path)
        process = fabric.routing_program(machine)
        seen[profile, name, "reflector killed"] = outage_ms(fabric, "kill", machine, process, seconds=6)
        unit = "frr" if process == "bgpd" else "bird"
        restart = ("exec", machine, "--", "systemctl", "restart", unit)
        seen[profile, name, "reflector restarted"] = outage_ms(fabric, *restart, seconds=6)
    lost = {place: cost for place, cost in seen.items() if cost > (BOUND_MS if place[2] == "path cut" else 0)}
    assert lost == {}


def test_a_hypervisors_daemon_is_killed(fabric: Lab) -> None:
    assert provision(fabric, "bfd_llgr")
    assert outage_ms(fabric, "kill", "hv1", "bird", seconds=6) == 0


def established_since(fabric: Lab, machine: str) -> dict[str, int]:
    """Since when (Unix time) a reflector's public sessions are up, by their names."""
    told = fabric.read_json(machine, "vtysh -c 'show bgp view public neighbors json'")
    return {each["nbrDesc"]: each["bgpTimerUpEstablishedEpoch"] for each in told.values()}


def test_a_client_and_a_filter_change_while_other_sessions_stay_up(fabric: Lab, tmp_path: Path) -> None:
    await_whole(fabric)
    before = {name: established_since(fabric, name) for name, kind in REFLECTORS.values() if "FRR" in kind}
    changed = tmp_path / "intent"
    shutil.copytree(INVENTORY, changed)
    hosts, common = changed / "hosts.yml", changed / "group_vars" / "all.yml"
    hosts.write_text(hosts.read_text().replace("    hv2:\n", ""))
    common.write_text(common.read_text().replace("ipv6]}", "ipv6], accept: [192.0.2.0/24]}"))
    run = fabric.playbook("site.yml", "--limit", ",".join(before), inventory=changed)
    assert run.changed_hosts().keys() == before.keys()
    for name, sessions in before.items():
        assert established_since(fabric, name) == {
            session: since for session, since in sessions.items() if session != "hv2_public"
        }
        assert "192.0.2.0/24" in fabric.run(name, "vtysh -c 'show ip prefix-list accept_public4'")
    fabric.playbook("site.yml", inventory=INVENTORY)
    await_whole(fabric)

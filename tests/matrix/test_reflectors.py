"""Reflectors of FRR and BIRD: provisioned, verified, broken and measured.

Each path of the fabric has a different reflector, so the cut of a path measures its reflector.
The figures go to `build/reflectors.md`; docs/reflectors.md has them.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import liar
import pytest
import three_paths
from lab import Lab, booted, wait_for
from liar import Attacker, Lie
from three_paths import FLOWS, GOLDEN, await_whole, change_daemon_and_back

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INVENTORY = GOLDEN / "reflectors" / "intent"
FIGURES = GOLDEN.parents[1] / "build" / "reflectors.md"

NAMES = {"a": "FRR 10.3", "b": "BIRD 2.17", "c": "FRR 8.4"}
REFLECTORS = {path: (machine, NAMES[path]) for path, machine in three_paths.REFLECTORS.items()}
PROFILES = ("bfd_llgr", "bfd")
BY_FRR = tuple(machine for machine, name in REFLECTORS.values() if "FRR" in name)
SECRET, OTHER = "mauve<>\\'$1'#|!", "another-one-for-tests"
KEYED = {
    "l3hv_bgp_keys": {"fabric": "md5"},
    "l3hv_bgp_key": {"a": "fabric", "c": "fabric"},
    "l3hv_bgp_secrets": {"fabric": SECRET},
}
KEPT = ("/etc/l3hv/frr-keys", "/run/l3hv-frr/frr.conf")
HIDDEN = ("/run/l3hv-frr", "/var/lib/l3hv/previous/frr")
OTHERS = KEYED | {"l3hv_bgp_secrets": {"fabric": OTHER}}
DETECTION_MS = 300
BOUND_MS = 1.2 * DETECTION_MS + 500
"""The permitted outage of the worst flow after a silent cut of a path, on a host with other load."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric without provisioning it."""
    with booted("reflect", INVENTORY, "--bare") as made:
        yield made


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[tuple[str, str, str], float]]:
    """Collect the outages: (profile, reflector, event) → the worst flow's outage in ms."""
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
    """Run site.yml, which verifies the fabric; return the changed hosts."""
    variables = json.dumps({"l3hv_failure_profile": profile})
    return dict(fabric.playbook("site.yml", "-e", variables, inventory=INVENTORY).changed_hosts())


def outage_ms(fabric: Lab, *event: str, seconds: float) -> float:
    """Run an event under traffic, and return the outage of the worst of 64 flows."""
    await_whole(fabric)
    with fabric.traffic(*FLOWS, seconds=seconds) as traffic:
        fabric.twin(*event)
    return max(traffic.outages_ms().values())


@pytest.mark.parametrize("profile", PROFILES)
def test_each_reflector(
    fabric: Lab, figures: dict[tuple[str, str, str], float], profile: str, request: pytest.FixtureRequest
) -> None:
    """Cut a path silently, and kill a reflector's daemon and a hypervisor's BIRD."""
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


def test_a_hypervisors_daemon_is_killed(provisioned: Lab) -> None:
    assert outage_ms(provisioned, "kill", "hv1", "bird", seconds=6) == 0


@pytest.fixture(scope="module")
def provisioned(fabric: Lab) -> Lab:
    """Provision the fabric with its inventory, after any other test."""
    fabric.playbook("site.yml", inventory=INVENTORY)
    return fabric


def established_since(fabric: Lab, machine: str) -> dict[str, int]:
    """Return the times (Unix time) since which a reflector's public sessions are up, by name."""
    neighbours = fabric.read_json(machine, "vtysh -c 'show bgp view public neighbors json'")
    return {each["nbrDesc"]: each["bgpTimerUpEstablishedEpoch"] for each in neighbours.values()}


def test_a_client_and_a_filter_change_while_other_sessions_stay_up(provisioned: Lab, tmp_path: Path) -> None:
    fabric = provisioned
    await_whole(fabric)
    before = {name: established_since(fabric, name) for name, kind in REFLECTORS.values() if "FRR" in kind}
    changed = tmp_path / "intent"
    shutil.copytree(INVENTORY, changed)
    hosts, common = changed / "hosts.yml", changed / "group_vars" / "all.yml"
    hosts.write_text(hosts.read_text().replace("    hv2:\n", ""))
    common.write_text(common.read_text().replace("ipv6]}", "ipv6], accept: [192.0.2.0/24]}"))
    try:
        run = fabric.playbook("site.yml", "--limit", ",".join(before), inventory=changed)
        assert run.changed_hosts().keys() == before.keys()
        for name, sessions in before.items():
            now = established_since(fabric, name)
            assert now.keys() == sessions.keys() - {"hv2_public"}
            # FRR counts back from now to the second.
            assert all(abs(since - sessions[session]) <= 1 for session, since in now.items())
            assert "192.0.2.0/24" in fabric.run(
                name, "vtysh -c 'show ip prefix-list accept_public4_from_edge_routers'"
            )
    finally:
        fabric.playbook("site.yml", inventory=INVENTORY)
    await_whole(fabric)


def test_a_reflector_changes_from_bird_to_frr_and_back(provisioned: Lab, tmp_path: Path) -> None:
    change_daemon_and_back(provisioned, INVENTORY, tmp_path / "intent", "frr", "bgpd")


SPY = """
import glob, os, time

secrets = open("/run/secrets", "rb").read().split()
with open("/run/spied", "w") as found:
    while os.path.exists("/run/secrets"):
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                arguments = open(path, "rb").read()
            except OSError:
                continue
            if any(secret in arguments for secret in secrets):
                print(path, arguments.split(b"\\0")[0].decode(), file=found, flush=True)
        time.sleep(0.01)
"""
"""A program that records processes with a secret in their arguments, until `/run/secrets` is removed."""


def test_a_key_is_added_to_frr_without_losing_a_packet(provisioned: Lab) -> None:
    fabric = provisioned
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.playbook("site.yml", "-e", json.dumps(KEYED), inventory=INVENTORY)
        await_whole(fabric)
    assert traffic.lost() == {}
    assert fabric.playbook("site.yml", "-e", json.dumps(KEYED), inventory=INVENTORY).changed_hosts() == {}


def test_a_killed_daemon_of_frr_restarts_with_its_keys(provisioned: Lab) -> None:
    fabric = provisioned
    fabric.playbook("site.yml", "-e", json.dumps(KEYED), inventory=INVENTORY)
    await_whole(fabric)
    with fabric.traffic(*FLOWS, seconds=8) as traffic:
        for machine in BY_FRR:
            fabric.twin("kill", machine, "bgpd")
    await_whole(fabric)
    assert traffic.lost() == {}


def test_no_output_file_or_process_shows_a_secret_of_frr(provisioned: Lab) -> None:
    """Add, change and remove a key, and search for its secret meanwhile."""
    fabric = provisioned
    fabric.playbook("site.yml", inventory=INVENTORY)
    for machine in BY_FRR:
        fabric.run(machine, f"printf '%s\\n' {shlex.quote(SECRET)} {OTHER} >/run/secrets")
        fabric.run(machine, f"systemd-run --quiet --unit spy python3 -c {shlex.quote(SPY)}")
    limit = ("--limit", ",".join(BY_FRR), "--skip-tags", "verify")
    said = []
    for variables in (KEYED, OTHERS, {}):
        arguments = ("-e", json.dumps(variables), "--diff", "-vvv", *limit)
        said.append(fabric.playbook("site.yml", *arguments, inventory=INVENTORY).output)
        assert "holds secrets and is not shown" in said[-1]
        if variables is OTHERS:
            for machine in BY_FRR:
                assert found_at(fabric, machine) == list(KEPT)
                modes = fabric.run(machine, f"stat -c '%a %U' {' '.join(KEPT)} {' '.join(HIDDEN)}").split()
                assert modes == [*2 * ["600", "root"], *2 * ["700", "root"]]
    assert not any(secret in text for secret in (SECRET, OTHER) for text in said)
    for machine in BY_FRR:
        assert found_at(fabric, machine) == []
        assert fabric.run(machine, "rm /run/secrets; cat /run/spied") == ""


def found_at(fabric: Lab, machine: str) -> list[str]:
    """Return the files and the journal lines that contain a secret."""
    places = "/etc /run /tmp /var/log /var/tmp"
    files = f"grep -rlF -f /run/secrets --exclude=secrets {places}"
    journal = "journalctl --no-pager | grep -F -f /run/secrets"
    return sorted(fabric.run(machine, f"{files}; {journal}; true").splitlines())


@pytest.mark.parametrize("variables", [{}, KEYED], ids=["no key", "a wrong key"])
def test_without_the_key_there_is_no_session(provisioned: Lab, variables: dict[str, object]) -> None:
    """A session needs the same key at both ends, and comes back with it."""
    fabric = provisioned
    fabric.playbook("site.yml", "-e", json.dumps(OTHERS), inventory=INVENTORY)
    await_whole(fabric)
    of_hv2 = ("-e", json.dumps(variables), "--limit", "hv2", "--skip-tags", "verify")
    fabric.playbook("site.yml", *of_hv2, inventory=INVENTORY)
    time.sleep(12)  # longer than two attempts to connect
    wait_for("the other sessions", lambda: up_on_b_alone(fabric.protocols("hv2")), 30)
    fabric.playbook("site.yml", "-e", json.dumps(OTHERS), inventory=INVENTORY)
    await_whole(fabric)


def up_on_b_alone(protocols: dict[str, str]) -> bool:
    """Return whether only the sessions of a hypervisor with rr2 are established."""
    return all(("Established" in state) == name.startswith("rr2") for name, state in protocols.items())


def test_the_playbook_rotates_keys_of_frr_without_losing_a_packet(provisioned: Lab) -> None:
    """Rotate from one name to another, with a path without keys; FRR's key is read from its own file."""
    fabric = provisioned
    names = {"l3hv_bgp_keys": {"fabric": "md5", "next": "md5"}}
    secrets = {"l3hv_bgp_secrets": {"fabric": OTHER, "next": SECRET}}
    before = OTHERS | names | secrets
    fabric.playbook("site.yml", "-e", json.dumps(before), inventory=INVENTORY)
    await_whole(fabric)
    after = ("-e", json.dumps(before | {"l3hv_bgp_key": {"a": "next", "c": "next"}}))
    with fabric.steady_traffic(*FLOWS) as traffic:
        run = fabric.playbook("playbooks/rotate_keys.yml", *after, "-vvv", inventory=INVENTORY)
    print(f"rotated in {run.seconds:.0f} s")
    assert "Keys change on path a, then on path c." in run.output
    assert set(BY_FRR) <= run.changed_hosts().keys()
    assert traffic.lost() == {}
    assert not any(secret in run.output for secret in (SECRET, OTHER))
    assert fabric.playbook("playbooks/rotate_keys.yml", *after, inventory=INVENTORY).changed_hosts() == {}
    for machine in BY_FRR:
        assert "key_fabric" not in fabric.run(machine, "cat /etc/frr/frr.conf")
    await_whole(fabric)


def test_the_last_key_is_removed(provisioned: Lab) -> None:
    fabric = provisioned
    fabric.playbook("site.yml", "-e", json.dumps(OTHERS), inventory=INVENTORY)
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.playbook("site.yml", inventory=INVENTORY)
        await_whole(fabric)
    assert traffic.lost() == {}
    for machine in BY_FRR:
        assert "gone" in fabric.run(machine, "ls /etc/l3hv/frr-keys 2>/dev/null || echo gone")
        assert "password" not in fabric.run(
            machine, "vtysh -c 'show running-config'; cat /run/l3hv-frr/frr.conf"
        )


@pytest.fixture(scope="module")
def attacker(provisioned: Lab) -> Iterator[Attacker]:
    with liar.taken_over(provisioned, has_bfd=True) as found:
        yield found


@pytest.mark.parametrize("lie", liar.LIES, ids=lambda lie: lie.name.replace(" ", "-"))
def test_forged_routes_are_refused(attacker: Attacker, lie: Lie) -> None:
    liar.assert_unbelieved(attacker, lie)


def test_forged_attributes_reach_no_other_host(attacker: Attacker) -> None:
    liar.assert_forgery_is_dropped(attacker)


def test_strict_is_enabled_without_ending_a_session(attacker: Attacker, tmp_path: Path) -> None:
    liar.assert_owners_are_believed(attacker, INVENTORY, tmp_path / "intent")

"""Reflectors of FRR and BIRD: provisioned, verified, broken and measured.

Each path of the fabric has a different reflector, so the cut of a path measures its reflector.
The figures go to `build/reflectors.md`; docs/reflectors.md has them.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import liar
import pytest
import three_paths
from changed_intents import copy_of, replace
from failure_figures import Figures, collected
from failures import no_loss, traffic_of_cut, traffic_of_kill
from lab import Lab, booted, wait_for
from liar import Attacker, ForgedRoutes
from three_paths import CONVERGED, FLOWS, GOLDEN, change_daemon_and_back, up_on_b_alone

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
    with booted("reflect", INVENTORY, "--bare", converged=CONVERGED) as made:
        yield made


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """Collect the outages: (profile, reflector, event) → the worst flow's outage in ms."""
    with collected(FIGURES, "reflector", {name: name for name in NAMES.values()}) as seen:
        yield seen


@pytest.mark.parametrize("profile", PROFILES)
def test_each_reflector(fabric: Lab, figures: Figures, profile: str, request: pytest.FixtureRequest) -> None:
    """Cut a path silently, and kill a reflector's daemon and a hypervisor's BIRD."""
    variables = {"l3hv_failure_profile": profile}
    assert fabric.provision(variables=variables)
    assert fabric.provision(variables=variables) == {}
    seen: Figures = {}
    request.addfinalizer(lambda: figures.update(seen))
    for path, (machine, name) in REFLECTORS.items():
        cut = traffic_of_cut(fabric, "hv1", path, *FLOWS, seconds=5)
        seen[profile, name, "path cut"] = max(cut.outages_ms().values())
        process = fabric.routing_program(machine)
        kill = traffic_of_kill(fabric, machine, process, *FLOWS, seconds=6)
        seen[profile, name, "reflector killed"] = max(kill.outages_ms().values())
        fabric.wait_until_converged()
        with fabric.traffic(*FLOWS, seconds=6) as restart:
            fabric.run(machine, f"systemctl restart {'frr' if process == 'bgpd' else 'bird'}")
        seen[profile, name, "reflector restarted"] = max(restart.outages_ms().values())
    lost = {place: cost for place, cost in seen.items() if cost > (BOUND_MS if place[2] == "path cut" else 0)}
    assert lost == {}


def test_a_hypervisors_daemon_is_killed(provisioned: Lab) -> None:
    traffic = traffic_of_kill(provisioned, "hv1", "bird", *FLOWS, seconds=6)
    assert max(traffic.outages_ms().values()) == 0


@pytest.fixture(scope="module")
def provisioned(fabric: Lab) -> Lab:
    """Provision the fabric with its inventory, after any other test."""
    fabric.provision()
    return fabric


def established_since(fabric: Lab, machine: str) -> dict[str, int]:
    """Return the times (Unix time) since which a reflector's public sessions are up, by name."""
    neighbors = fabric.read_json(machine, "vtysh -c 'show bgp view public neighbors json'")
    return {each["nbrDesc"]: each["bgpTimerUpEstablishedEpoch"] for each in neighbors.values()}


def test_a_client_and_a_filter_change_while_other_sessions_stay_up(provisioned: Lab, tmp_path: Path) -> None:
    fabric = provisioned
    fabric.wait_until_converged()
    before = {name: established_since(fabric, name) for name, kind in REFLECTORS.values() if "FRR" in kind}
    changed = copy_of(INVENTORY, tmp_path)
    replace(changed / "hosts.yml", "    hv2:\n", "")
    replace(changed / "group_vars" / "all.yml", "ipv6]}", "ipv6], accept: [192.0.2.0/24]}")
    try:
        assert fabric.provision("--limit", ",".join(before), inventory=changed).keys() == before.keys()
        for name, sessions in before.items():
            now = established_since(fabric, name)
            assert now.keys() == sessions.keys() - {"hv2_public"}
            # FRR counts back from now to the second.
            assert all(abs(since - sessions[session]) <= 1 for session, since in now.items())
            assert "192.0.2.0/24" in fabric.run(
                name, "vtysh -c 'show ip prefix-list accept_public4_from_edge_routers'"
            )
    finally:
        fabric.provision()
    fabric.wait_until_converged()


def test_a_reflector_changes_from_bird_to_frr_and_back(provisioned: Lab, tmp_path: Path) -> None:
    change_daemon_and_back(provisioned, tmp_path, "frr", "bgpd")


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
    with no_loss(provisioned, *FLOWS):
        provisioned.provision(variables=KEYED)
    assert provisioned.provision(variables=KEYED) == {}


def test_a_killed_daemon_of_frr_restarts_with_its_keys(provisioned: Lab) -> None:
    fabric = provisioned
    fabric.provision(variables=KEYED)
    fabric.wait_until_converged()
    with fabric.traffic(*FLOWS, seconds=8) as traffic:
        for machine in BY_FRR:
            fabric.twin("kill", machine, "bgpd")
    fabric.wait_until_converged()
    assert traffic.lost() == {}


def test_no_output_file_or_process_shows_a_secret_of_frr(provisioned: Lab) -> None:
    """Add, change and remove a key, and search for its secret meanwhile."""
    fabric = provisioned
    fabric.provision()
    for machine in BY_FRR:
        fabric.run(machine, f"printf '%s\\n' {shlex.quote(SECRET)} {OTHER} >/run/secrets")
        fabric.run(machine, f"systemd-run --quiet --unit spy python3 -c {shlex.quote(SPY)}")
    limit = ("--limit", ",".join(BY_FRR), "--skip-tags", "verify")
    outputs = []
    for variables in (KEYED, OTHERS, {}):
        outputs.append(fabric.playbook("site.yml", "--diff", "-vvv", *limit, variables=variables).output)
        assert "holds secrets and is not shown" in outputs[-1]
        if variables is OTHERS:
            for machine in BY_FRR:
                assert found_at(fabric, machine) == list(KEPT)
                modes = fabric.run(machine, f"stat -c '%a %U' {' '.join(KEPT)} {' '.join(HIDDEN)}").split()
                assert modes == [*2 * ["600", "root"], *2 * ["700", "root"]]
    assert not any(secret in text for secret in (SECRET, OTHER) for text in outputs)
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
    fabric.provision(variables=OTHERS)
    fabric.wait_until_converged()
    fabric.playbook("site.yml", "--limit", "hv2", "--skip-tags", "verify", variables=variables)
    time.sleep(12)  # longer than two attempts to connect
    wait_for("the other sessions", lambda: up_on_b_alone(fabric.protocols("hv2")), 30)
    fabric.provision(variables=OTHERS)
    fabric.wait_until_converged()


def test_the_playbook_rotates_keys_of_frr_without_losing_a_packet(provisioned: Lab) -> None:
    """Rotate from one name to another, with a path without keys; FRR's key is read from its own file."""
    fabric = provisioned
    names = {"l3hv_bgp_keys": {"fabric": "md5", "next": "md5"}}
    secrets = {"l3hv_bgp_secrets": {"fabric": OTHER, "next": SECRET}}
    before = OTHERS | names | secrets
    fabric.provision(variables=before)
    fabric.wait_until_converged()
    after = before | {"l3hv_bgp_key": {"a": "next", "c": "next"}}
    with fabric.steady_traffic(*FLOWS) as traffic:
        run = fabric.playbook("playbooks/rotate_keys.yml", "-vvv", variables=after)
    print(f"rotated in {run.seconds:.0f} s")
    assert "Keys change on path a, then on path c." in run.output
    assert set(BY_FRR) <= run.changed_hosts().keys()
    assert traffic.lost() == {}
    assert not any(secret in run.output for secret in (SECRET, OTHER))
    assert fabric.playbook("playbooks/rotate_keys.yml", variables=after).changed_hosts() == {}
    for machine in BY_FRR:
        assert "key_fabric" not in fabric.run(machine, "cat /etc/frr/frr.conf")
    fabric.wait_until_converged()


def test_the_last_key_is_removed(provisioned: Lab) -> None:
    fabric = provisioned
    fabric.provision(variables=OTHERS)
    with no_loss(fabric, *FLOWS):
        fabric.provision()
    for machine in BY_FRR:
        assert "gone" in fabric.run(machine, "ls /etc/l3hv/frr-keys 2>/dev/null || echo gone")
        assert "password" not in fabric.run(
            machine, "vtysh -c 'show running-config'; cat /run/l3hv-frr/frr.conf"
        )


@pytest.fixture(scope="module")
def attacker(provisioned: Lab) -> Iterator[Attacker]:
    with liar.taken_over(provisioned, has_bfd=True) as found:
        yield found


class TestForgedRoutes(ForgedRoutes):
    """The forged routes that all reflectors refuse."""

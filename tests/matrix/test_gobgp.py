"""Reflectors of GoBGP (two distributions) and BIRD: verified with packets, changed, killed and cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import liar
import pytest
from lab import Lab, booted, wait_for
from liar import Attacker, Lie
from three_paths import FLOWS, GOLDEN, await_whole, change_daemon_and_back

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INVENTORY = GOLDEN / "gobgp" / "intent"
BY_GOBGP = ("rr1", "rr3")
GOBGP_PUBLIC = "gobgp --target unix:///run/l3hv-gobgp-public/api"
SECRET, OTHER = "mauve < > \\ '$1' #", "another one for tests"
KEYED = {
    "l3hv_bgp_keys": {"fabric": "md5"},
    "l3hv_bgp_key": {"a": "fabric", "c": "fabric"},
    "l3hv_bgp_secrets": {"fabric": SECRET},
}
OTHERS = {"l3hv_bgp_secrets": {"fabric": OTHER}}
HOLD_S = 9
"""The cost of a silent cut: the plan's default hold time without BFD."""
RESTART_S = 1
"""The minimum time for which routes of a stopped GoBGP stay fresh at its clients."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot, provision and verify the fabric."""
    with booted("gobgp", INVENTORY, "--bare") as made:
        made.playbook("site.yml", inventory=INVENTORY)
        yield made


def test_a_second_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", inventory=INVENTORY).changed_hosts() == {}


def test_packets_pass(fabric: Lab) -> None:
    run = fabric.playbook("playbooks/verify.yml", inventory=INVENTORY)
    assert run.changed_hosts() == {}


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_domains_share_nothing(fabric: Lab, reflector: str) -> None:
    """Both have the default route of their own edge router, and neither has a prefix of the other."""
    own = {"public": "198.51.100.", "private": "172.22.15."}
    for domain, start in own.items():
        ask = f"gobgp --json --target unix:///run/l3hv-gobgp-{domain}/api global rib -a ipv4"
        table = json.loads(fabric.run(reflector, ask))
        hops = [
            attribute["nexthop"]
            for paths in table.values()
            for path in paths
            for attribute in path["attrs"]
            if "nexthop" in attribute
        ]
        assert "0.0.0.0/0" in table
        assert hops
        assert all(hop.startswith(start) for hop in hops)
        # GoBGP keeps every path to an anycast prefix.
        if domain == "public":
            assert len(table["203.0.113.10/32"]) == 2


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_it_does_not_run_as_root_and_only_root_reaches_its_api(fabric: Lab, reflector: str) -> None:
    assert set(fabric.run(reflector, "ps -C gobgpd -o user=").split()) == {"gobgp"}
    listening = fabric.run(reflector, "ss -Hltnp | grep gobgpd | awk '{print $4}'").split()
    assert sorted(address.rpartition(":")[2] for address in listening) == ["179", "179"]
    denied = fabric.run(reflector, "runuser -u nobody -- ls /run/l3hv-gobgp-public 2>&1 || true")
    assert "Permission denied" in denied


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_a_kill_costs_nothing(fabric: Lab, reflector: str) -> None:
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.run(reflector, "systemctl kill --signal=KILL 'l3hv-gobgp-*'")
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
        with fabric.traffic(*FLOWS, seconds=HOLD_S + RESTART_S + 6) as traffic:
            fabric.twin("cut", "hv2", "a")
    finally:
        fabric.twin("heal", "hv2", "a")
    assert max(traffic.outages_ms().values()) < 1000 * (HOLD_S + RESTART_S) + 1500
    await_whole(fabric)


def test_every_neighbour_changed_at_once(fabric: Lab) -> None:
    """A reload of GoBGP changes only one neighbour: the role detects this and restarts it without loss."""
    await_whole(fabric)
    longer = json.dumps({"l3hv_timers": {"hold_s": HOLD_S + 3}})
    with fabric.steady_traffic(*FLOWS) as traffic:
        run = fabric.playbook("site.yml", "-e", longer, "--limit", ",".join(BY_GOBGP), inventory=INVENTORY)
        assert run.changed_hosts().keys() == set(BY_GOBGP)
        await_whole(fabric)
        back = fabric.playbook("site.yml", "--limit", ",".join(BY_GOBGP), inventory=INVENTORY)
        assert back.changed_hosts().keys() == set(BY_GOBGP)
        await_whole(fabric)
    assert traffic.lost() == {}


def test_a_reflector_loses_power(fabric: Lab) -> None:
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.twin("crash", "rr1")
        fabric.twin("boot", "rr1")
        await_whole(fabric)
    assert traffic.lost() == {}


def test_a_reflector_changes_from_bird_to_gobgp_and_back(fabric: Lab, tmp_path: Path) -> None:
    """The run replaces the daemon, and changes the profile of its sessions at both ends."""
    change_daemon_and_back(fabric, INVENTORY, tmp_path / "intent", "gobgp", "gobgpd")


def test_its_sessions_have_keys(fabric: Lab) -> None:
    """Add and remove a key under traffic; no output and no file of other users has it."""
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.playbook("site.yml", "-e", json.dumps(KEYED), inventory=INVENTORY)
        await_whole(fabric)
    assert traffic.lost() == {}
    talkative = ("-e", json.dumps(KEYED | OTHERS), "--check", "--diff", "-vvv", "--limit", ",".join(BY_GOBGP))
    said = fabric.playbook("site.yml", *talkative, inventory=INVENTORY).output
    assert "holds secrets and is not shown" in said
    for machine in BY_GOBGP:
        assert fabric.run(machine, "stat -c '%a %U' /etc/l3hv/gobgp/keys").split() == ["600", "root"]
        files = fabric.run(
            machine, f"grep -rlF '{SECRET[:5]}' /etc /run/l3hv-gobgp-public /var/log || true"
        ).split()
        assert sorted(files) == ["/etc/l3hv/gobgp/keys", "/run/l3hv-gobgp-public/complete.toml"]
    assert [secret for secret in (SECRET, OTHER) if secret in said] == []

    fabric.playbook("site.yml", "--limit", "hv2", "--skip-tags", "verify", inventory=INVENTORY)
    states = wait_for("the other sessions", lambda: up_on_b_alone(fabric.protocols("hv2")), 30)
    assert states
    fabric.playbook("site.yml", inventory=INVENTORY)
    await_whole(fabric)
    for machine in BY_GOBGP:
        assert "gone" in fabric.run(machine, "ls /etc/l3hv/gobgp/keys 2>/dev/null || echo gone")


def up_on_b_alone(protocols: dict[str, str]) -> bool:
    """Return whether only the sessions of a hypervisor with rr2 are established."""
    return all(("Established" in state) == name.startswith("rr2") for name, state in protocols.items())


@pytest.fixture(scope="module")
def attacker(fabric: Lab) -> Iterator[Attacker]:
    with liar.taken_over(fabric, has_bfd=False) as found:
        yield found


@pytest.mark.parametrize("lie", liar.LIES, ids=lambda lie: lie.name.replace(" ", "-"))
def test_forged_routes_are_refused(attacker: Attacker, lie: Lie) -> None:
    liar.assert_unbelieved(attacker, lie)


def test_forged_attributes_reach_no_other_host(attacker: Attacker) -> None:
    liar.assert_forgery_is_dropped(attacker)


def test_strict_is_enabled_without_ending_a_session(attacker: Attacker, tmp_path: Path) -> None:
    liar.assert_owners_are_believed(attacker, INVENTORY, tmp_path / "intent")


def test_too_many_prefixes_end_the_session_that_has_them(attacker: Attacker) -> None:
    """The session stays down until an operator enables it; no other session is affected."""
    lab = attacker.lab
    many = liar.Lie("many", {"public6": [f"2001:db8:cb00:7102::{number:x}/128" for number in range(1, 300)]})
    before, sessions = liar.known(lab), liar.sessions_of_others(lab)
    with lab.traffic(*liar.FLOWS, seconds=8, each=4) as traffic:
        attacker.tell(many)
        for machine in BY_GOBGP:
            wait_for("the end of the session", lambda m=machine: "PfxCt" in neighbours(lab, m), 5)
    attacker.tell(liar.HONESTY)
    for machine, path in liar.LIED_TO.items():
        lab.run(machine, f"{GOBGP_PUBLIC} neighbor {liar.address(path, 'public4', liar.ATTACKER_ID)} enable")
    attacker.await_sessions()
    assert traffic.lost() == {}
    assert liar.sessions_of_others(lab) == sessions
    wait_for("what there was before", lambda: liar.known(lab) == before, 15)


def neighbours(lab: Lab, machine: str) -> str:
    return lab.run(machine, f"{GOBGP_PUBLIC} neighbor")

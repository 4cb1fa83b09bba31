"""Reflectors of GoBGP (two distributions) and BIRD: verified with packets, changed, killed and cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import liar
import pytest
from failures import no_loss, traffic_of_cut
from lab import Lab, booted, wait_for
from liar import Attacker, ForgedRoutes
from three_paths import CONVERGED, FLOWS, GOLDEN, change_daemon_and_back, up_on_b_alone

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
    with booted("gobgp", INVENTORY, "--bare", converged=CONVERGED) as made:
        made.provision()
        yield made


def test_a_second_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.provision() == {}


def test_packets_pass(fabric: Lab) -> None:
    run = fabric.playbook("playbooks/verify.yml")
    assert run.changed_hosts() == {}


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_domains_have_separate_routes(fabric: Lab, reflector: str) -> None:
    """Each domain has the default route of its own edge router, and no prefix of the other domain."""
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
def test_gobgp_does_not_run_as_root_and_only_root_reaches_its_api(fabric: Lab, reflector: str) -> None:
    assert set(fabric.run(reflector, "ps -C gobgpd -o user=").split()) == {"gobgp"}
    listening = fabric.run(reflector, "ss -Hltnp | grep gobgpd | awk '{print $4}'").split()
    assert sorted(address.rpartition(":")[2] for address in listening) == ["179", "179"]
    denied = fabric.run(reflector, "runuser -u nobody -- ls /run/l3hv-gobgp-public 2>&1 || true")
    assert "Permission denied" in denied


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_a_kill_costs_nothing(fabric: Lab, reflector: str) -> None:
    with no_loss(fabric, *FLOWS):
        fabric.run(reflector, "systemctl kill --signal=KILL 'l3hv-gobgp-*'")


def test_a_hypervisors_daemon_that_is_killed_costs_nothing(fabric: Lab) -> None:
    with no_loss(fabric, *FLOWS):
        fabric.twin("kill", "hv2", "bird")


def test_a_silent_cut_costs_the_hold_time(fabric: Lab) -> None:
    traffic = traffic_of_cut(fabric, "hv2", "a", *FLOWS, seconds=HOLD_S + RESTART_S + 6)
    assert max(traffic.outages_ms().values()) < 1000 * (HOLD_S + RESTART_S) + 1500
    fabric.wait_until_converged()


def test_all_neighbors_change_in_one_run(fabric: Lab) -> None:
    """A reload of GoBGP changes only one neighbour: the role detects this and restarts it without loss."""
    limit = ("--limit", ",".join(BY_GOBGP))
    longer = {"l3hv_timers": {"hold_s": HOLD_S + 3}}
    with no_loss(fabric, *FLOWS):
        assert fabric.provision(*limit, variables=longer).keys() == set(BY_GOBGP)
        fabric.wait_until_converged()
        assert fabric.provision(*limit).keys() == set(BY_GOBGP)


def test_a_reflector_loses_power(fabric: Lab) -> None:
    with no_loss(fabric, *FLOWS):
        fabric.twin("crash", "rr1")
        fabric.twin("boot", "rr1")


def test_a_reflector_changes_from_bird_to_gobgp_and_back(fabric: Lab, tmp_path: Path) -> None:
    """The run replaces the daemon, and changes the profile of its sessions at both ends."""
    change_daemon_and_back(fabric, tmp_path, "gobgp", "gobgpd")


def test_keys_of_gobgp_are_added_and_removed(fabric: Lab) -> None:
    """Add and remove a key under traffic; no output and no file of other users has it."""
    with no_loss(fabric, *FLOWS):
        fabric.provision(variables=KEYED)
    verbose = ("--check", "--diff", "-vvv", "--limit", ",".join(BY_GOBGP))
    output = fabric.playbook("site.yml", *verbose, variables=KEYED | OTHERS).output
    assert "holds secrets and is not shown" in output
    for machine in BY_GOBGP:
        assert fabric.run(machine, "stat -c '%a %U' /etc/l3hv/gobgp/keys").split() == ["600", "root"]
        files = fabric.run(
            machine, f"grep -rlF '{SECRET[:5]}' /etc /run/l3hv-gobgp-public /var/log || true"
        ).split()
        assert sorted(files) == ["/etc/l3hv/gobgp/keys", "/run/l3hv-gobgp-public/complete.toml"]
    assert [secret for secret in (SECRET, OTHER) if secret in output] == []

    fabric.playbook("site.yml", "--limit", "hv2", "--skip-tags", "verify")
    states = wait_for("the other sessions", lambda: up_on_b_alone(fabric.protocols("hv2")), 30)
    assert states
    fabric.provision()
    fabric.wait_until_converged()
    for machine in BY_GOBGP:
        assert "gone" in fabric.run(machine, "ls /etc/l3hv/gobgp/keys 2>/dev/null || echo gone")


@pytest.fixture(scope="module")
def attacker(fabric: Lab) -> Iterator[Attacker]:
    with liar.taken_over(fabric, has_bfd=False) as found:
        yield found


class TestForgedRoutes(ForgedRoutes):
    """The forged routes that all reflectors refuse, and the limit that GoBGP applies to prefixes."""

    def test_too_many_prefixes_end_only_their_session(self, attacker: Attacker) -> None:
        """The session stays down until an operator enables it; no other session is affected."""
        lab = attacker.lab
        many = liar.Forgery(
            "many", {"public6": [f"2001:db8:cb00:7102::{number:x}/128" for number in range(1, 300)]}
        )
        before, sessions = liar.routes_of_witnesses(lab), liar.sessions_of_others(lab)
        with lab.traffic(*liar.FLOWS, seconds=8, each=4) as traffic:
            attacker.announce(many)
            for machine in BY_GOBGP:
                wait_for("the end of the session", partial(shows_word, lab, machine, "PfxCt"), 5)
        attacker.announce(liar.NO_FORGERY)
        for machine, path in liar.ATTACKED.items():
            lab.run(
                machine, f"{GOBGP_PUBLIC} neighbor {liar.address(path, 'public4', liar.ATTACKER_ID)} enable"
            )
        attacker.await_sessions()
        assert traffic.lost() == {}
        assert liar.sessions_of_others(lab) == sessions
        wait_for("the routes from before", lambda: liar.routes_of_witnesses(lab) == before, 15)


def shows_word(lab: Lab, machine: str, word: str) -> bool:
    return word in neighbors(lab, machine)


def neighbors(lab: Lab, machine: str) -> str:
    return lab.run(machine, f"{GOBGP_PUBLIC} neighbor")

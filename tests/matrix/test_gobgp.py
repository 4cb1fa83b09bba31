"""GoBGP of two distributions reflects beside BIRD: verified with packets, changed, killed and cut off."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, both_families, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INVENTORY = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gobgp" / "intent"
REFLECTORS = {"a": "rr1", "b": "rr2", "c": "rr3"}
BY_GOBGP = ("rr1", "rr3")
MACHINES = ("hv1", "hv2", "gw", *REFLECTORS.values())
FLOWS = both_families("vm1", "vm2")
HOLD_S = 9
"""What a silent cut costs: the plan's default where there is no BFD."""
RESTART_S = 1
"""How long routes of a GoBGP that is gone stay fresh at its clients, at the least."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """The fabric in a twin of its own, provisioned, which includes that it was verified."""
    made = Lab(os.environ.get("L3HV_MATRIX_TWIN", f"gobgp{os.getpid() % 100000}"))
    made.twin("down")
    made.twin("up", "-i", str(INVENTORY), seconds=600)
    try:
        made.playbook("site.yml", inventory=INVENTORY)
        yield made
    finally:
        if "L3HV_MATRIX_KEEP" not in os.environ:
            made.twin("down")


def is_whole(fabric: Lab) -> bool:
    """Whether all sessions are up, and all three paths lead to the other's guest and to the Internet."""

    def looks_whole(machine: str) -> bool:
        if not fabric.established(machine):
            return False
        other = {"hv1": 2, "hv2": 1}.get(machine)
        if other is None:
            return True
        wanted = {4: (f"203.0.113.{other}", "default"), 6: (f"2001:db8:cb00:710{other}::/64", "default")}
        return all(
            fabric.routes(machine, family).get(prefix) == len(REFLECTORS)
            for family, prefixes in wanted.items()
            for prefix in prefixes
        )

    return all(fabric.on_each(MACHINES, looks_whole).values())


def await_whole(fabric: Lab) -> None:
    wait_for("sessions and all paths in all routes", lambda: is_whole(fabric), 60)


def test_a_second_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", inventory=INVENTORY).changed_hosts() == {}


def test_packets_pass(fabric: Lab) -> None:
    run = fabric.playbook("playbooks/verify.yml", inventory=INVENTORY)
    assert run.changed_hosts() == {}


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_domains_share_nothing(fabric: Lab, reflector: str) -> None:
    """Both have a default route, each by its own edge router, and neither has a prefix of the other."""
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
        # Every path to an anycast prefix is kept.
        if domain == "public":
            assert len(table["203.0.113.10/32"]) == 2


@pytest.mark.parametrize("reflector", BY_GOBGP)
def test_it_is_nobody_and_nobody_but_root_can_ask_it(fabric: Lab, reflector: str) -> None:
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
    """GoBGP changes one of them by a reload: the role notices, restarts it, and nothing is lost."""
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


def test_the_power_of_a_reflector_fails(fabric: Lab) -> None:
    await_whole(fabric)
    with fabric.steady_traffic(*FLOWS) as traffic:
        fabric.twin("crash", "rr1")
        fabric.twin("boot", "rr1")
        await_whole(fabric)
    assert traffic.lost() == {}


def test_a_reflector_changes_from_bird_to_gobgp_and_back(fabric: Lab, tmp_path: Path) -> None:
    """The other daemon gives way, and the profile of its sessions changes at both ends."""
    await_whole(fabric)
    inventory = Path(shutil.copytree(INVENTORY, tmp_path / "intent"))
    with (inventory / "host_vars" / "rr2.yml").open("a") as variables:
        variables.write("l3hv_daemon: gobgp\n")
    with fabric.steady_traffic(*FLOWS) as traffic:
        for source, there, gone in ((inventory, "gobgpd", "bird"), (INVENTORY, "bird", "gobgpd")):
            fabric.playbook("site.yml", inventory=source)
            await_whole(fabric)
            fabric.run("rr2", f"pidof -q {there} && ! pidof -q {gone}")
            assert fabric.playbook("site.yml", inventory=source).changed_hosts() == {}
    assert traffic.lost() == {}

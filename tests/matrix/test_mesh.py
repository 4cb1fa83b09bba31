"""A mesh: hosts without reflectors, which have sessions with each other.

It is provisioned without hv3, which joins it and leaves it under traffic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_intents import copy_of, replace, set_variable
from failures import assert_forgery_is_refused, no_loss, traffic_of_cut, traffic_of_kill
from golden_cases import plans
from lab import INTERNET, Converged, Lab, booted, both_families, remote_guests, wait_for
from machines import GUESTS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
FLOWS = both_families("vm1", "vm3")
DETECTION_MS = 300
MARGIN_MS = 100
MESH = REPOSITORY / "inventories" / "mesh"
PLANS = plans(MESH)
CALLS = "journalctl --quiet --output=cat --unit=bird --since=-5min"


def converged(*hypervisors: str) -> Converged:
    """Return the converged state of a mesh of these hypervisors and the edge router."""
    guests = {guest: host for guest, host in GUESTS.items() if host in hypervisors}
    return Converged({host: remote_guests(host, guests, "default") for host in hypervisors})


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the inventory of the mesh, in which each hypervisor announces only its own guests."""
    made = copy_of(MESH, tmp_path_factory.mktemp("mesh"))
    set_variable(made / "group_vars" / "all" / "fabric.yml", "l3hv_origin_validation", "strict")
    return made


def remove_hv3(inventory: Path) -> None:
    """Remove hv3 from the inventory. Its path stays the same, so that runs remember the earlier ones."""
    replace(inventory / "hosts.yml", "    hv3:\n", "")
    (inventory / "host_vars" / "hv3.yml").unlink()


def add_hv3(inventory: Path) -> None:
    """Restore the entries of hv3 in the inventory."""
    for file in ("hosts.yml", "host_vars/hv3.yml"):
        (inventory / file).write_text((MESH / file).read_text())


@pytest.fixture(scope="module")
def fabric(inventory: Path) -> Iterator[Lab]:
    with booted("mesh", inventory, converged=converged("hv1", "hv2", "hv3")) as made:
        remove_hv3(inventory)
        made.provision()
        yield made


def of_two(fabric: Lab) -> Lab:
    """Return the fabric as it converges without hv3."""
    return dataclasses.replace(fabric, converged=converged("hv1", "hv2"))


def test_a_hypervisor_joins_by_the_runbook_without_loss(fabric: Lab) -> None:
    """Follow docs/runbooks/add-a-hypervisor.md: preview, apply without --limit, check the machine.

    A run with `--limit` would leave out the other ends of its sessions, and names them.
    """
    add_hv3(fabric.inventory)
    everyone = {"hv1", "hv2", "hv3", "internet"}
    limited = fabric.playbook("site.yml", "--check", "--limit", "hv3")
    assert "This run leaves out hv1, hv2, internet, which must change too" in limited.said()
    assert fabric.playbook("site.yml", "--check", "--diff").changed_hosts().keys() == everyone
    with no_loss(of_two(fabric), *FLOWS):
        assert fabric.provision().keys() == everyone
    fabric.wait_until_whole()
    sessions = fabric.protocols("hv3")
    assert sessions.keys() == {session["name"] for session in PLANS["hv3"]["routing"]["sessions"]}
    assert all("Established" in state for state in sessions.values())
    assert fabric.run("hv3", "birdc show bfd sessions").count(" Up ") == len(sessions)


def test_all_guests_reach_each_other_and_the_internet(fabric: Lab) -> None:
    for guest in GUESTS:
        assert fabric.reached(guest, INTERNET.values()) == set(INTERNET.values())
    fabric.playbook("playbooks/verify.yml")


def test_another_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", "--check").changed_hosts() == {}
    with no_loss(fabric, *FLOWS):
        assert fabric.provision() == {}


@pytest.mark.parametrize("path", ["a", "b"])
def test_a_silent_cut_costs_the_time_of_its_detection(fabric: Lab, path: str) -> None:
    traffic = traffic_of_cut(fabric, "hv2", path, *FLOWS, seconds=5)
    allowed = 1.2 * DETECTION_MS + MARGIN_MS + traffic.allowance_ms
    assert all(traffic.flows_hit().values())
    assert max(traffic.outages_ms().values()) <= allowed


def test_a_carrier_loss_costs_no_more(fabric: Lab) -> None:
    fabric.wait_until_converged()
    try:
        with fabric.traffic(*FLOWS, seconds=5) as traffic:
            fabric.twin("carrier", "hv2", "b", "down")
    finally:
        fabric.twin("carrier", "hv2", "b", "up")
    print(f"\ncarrier of hv2 b: {traffic.outages_ms()}")
    assert max(traffic.outages_ms().values()) <= 1.2 * DETECTION_MS + MARGIN_MS + traffic.allowance_ms


def test_a_killed_daemon_costs_nothing(fabric: Lab) -> None:
    assert traffic_of_kill(fabric, "hv2", "bird", *FLOWS, seconds=8).lost() == {}
    fabric.wait_until_converged()


def test_a_killed_daemon_of_another_hypervisor_costs_nothing(fabric: Lab) -> None:
    """hv3 has sessions with both ends of the flows."""
    assert traffic_of_kill(fabric, "hv3", "bird", *FLOWS, seconds=8).lost() == {}
    fabric.wait_until_converged()


def test_a_hypervisor_cannot_announce_the_guest_of_another(fabric: Lab) -> None:
    assert_forgery_is_refused(fabric, "hv2", "public4", "hv3_a_public")


def test_a_hypervisor_leaves_without_loss(fabric: Lab) -> None:
    """The others end their sessions with it; verification finds nothing left but its calls."""
    remove_hv3(fabric.inventory)
    with no_loss(of_two(fabric), *FLOWS):
        assert fabric.provision().keys() >= {"hv1", "hv2", "internet"}
    assert "hv3" not in fabric.run("hv1", "birdc show protocols")
    wait_for("a call of hv3", lambda: "unknown address 198.51.100.3" in fabric.run("hv1", CALLS), 60)
    assert "stranger 198.51.100.3" in fabric.playbook("site.yml").said()

"""A hypervisor with VRFs beside two with rules: what VRFs change, and the change between both.

tests/matrix/test_every_design.py has the tests that every design passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from changed_intents import copy_of, set_variable
from lab import Lab, booted, both_families, wait_for

from l3hv.twin.guest_system import CLIENTS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = "hv1"
CHANGE_S = 180
"""The seconds in which a run changes an emulated hypervisor."""
FOREIGN = "ip link add blue type vrf table 77; ip link set blue up; ip rule add pref 900 iif blue lookup 77"


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Boot and provision a fabric in which only one hypervisor has VRFs."""
    inventory = copy_of(REPOSITORY / "inventories" / "vrf", tmp_path_factory.mktemp("vrf"))
    for name in ("hv2", "hv3"):
        set_variable(inventory / "host_vars" / f"{name}.yml", "l3hv_data_plane", "rules")
    with booted("vrf", inventory) as made:
        made.provision()
        made.wait_until_whole()
        yield made


def rules(fabric: Lab) -> list[str]:
    """Return the selectors of the ip rules of both families."""
    shown = fabric.run(HOST, "ip -4 rule show; ip -6 rule show")
    return [line.partition(":")[2].strip() for line in shown.splitlines()]


def vrfs(fabric: Lab) -> str:
    shown = fabric.read_json(HOST, "ip -json link show type vrf")
    return " ".join(sorted(link["ifname"] for link in shown))


@contextmanager
def change_under_traffic(fabric: Lab, name: str) -> Iterator[None]:
    """Print the outages of guests during a change: figures for docs/runbooks/change-the-data-plane.md."""
    with fabric.traffic(*both_families("vm1", "vm3"), seconds=CHANGE_S) as traffic:
        yield
    print(f"\nchange {name}: outages {traffic.outages_ms()} ms")


def test_the_number_of_rules_is_that_of_the_domains_and_not_of_the_prefixes(fabric: Lab) -> None:
    found = rules(fabric)
    assert [rule for rule in found if "a-p" in rule or "b-p" in rule or "172." in rule] == []
    assert len([rule for rule in found if "l3mdev" in rule]) == 2
    assert len(found) <= 8, found


def test_the_packet_filter_sees_the_port_of_a_guest(fabric: Lab) -> None:
    """Packets of a guest with another's address are counted as such, so the filter knows the port."""

    def dropped() -> int:
        shown = fabric.read_json(HOST, "nft --json list counter inet l3hv source")
        return next(entry["counter"]["packets"] for entry in shown["nftables"] if "counter" in entry)

    before = dropped()
    fabric.run_as_guest("vm2", "ip address add 203.0.113.4/32 dev lo")
    try:
        fabric.run_as_guest("vm2", "ping -c 3 -W 1 -I 203.0.113.4 192.0.2.8 || true")
    finally:
        fabric.run_as_guest("vm2", "ip address delete 203.0.113.4/32 dev lo")
    assert dropped() >= before + 3


@pytest.mark.parametrize("client", CLIENTS)
def test_real_clients_get_and_renew_leases(fabric: Lab, client: str) -> None:
    """DHCP answers although its socket is in no VRF."""
    fabric.twin("unplug", "vm2")
    fabric.twin("plug", "vm2", "--client", client, seconds=300)
    try:
        wait_for(f"a lease and a /64 of {client}", lambda: fabric.has_addresses("vm2"), 60)
        assert fabric.reached("vm2", ["192.0.2.8"]) == {"192.0.2.8"}
    finally:
        fabric.twin("unplug", "vm2")
        fabric.twin("plug", "vm2")


def test_a_vrf_that_is_removed_is_named_and_restored(fabric: Lab) -> None:
    fabric.run(HOST, "ip link delete private")
    run = fabric.failing_playbook("playbooks/verify.yml", "--limit", HOST)
    assert "private" in run.output
    assert HOST in fabric.provision()
    assert vrfs(fabric) == "private public"
    fabric.wait_until_whole()


def test_vrfs_and_rules_of_others_stay(fabric: Lab) -> None:
    fabric.run(HOST, FOREIGN)
    try:
        fabric.provision("--limit", HOST)
        assert vrfs(fabric) == "blue private public"
        assert "iif blue lookup 77" in fabric.run(HOST, "ip rule")
    finally:
        fabric.run(HOST, "ip rule del pref 900; ip link delete blue")


def test_a_hypervisor_changes_to_rules_and_back(fabric: Lab) -> None:
    """Each run ends with its verification; nothing of the other data plane is left."""
    before = rules(fabric)
    with change_under_traffic(fabric, "to rules"):
        assert HOST in fabric.provision("--limit", HOST, variables={"l3hv_data_plane": "rules"})
    assert vrfs(fabric) == ""
    assert "vrf" not in fabric.run(HOST, "ls /etc/systemd/network; cat /etc/systemd/network/*")
    fabric.wait_until_whole()
    assert fabric.provision(variables={"l3hv_data_plane": "rules"}) == {}
    with change_under_traffic(fabric, "to VRFs"):
        assert HOST in fabric.provision("--limit", HOST)
    assert (vrfs(fabric), rules(fabric)) == ("private public", before)
    fabric.wait_until_whole()
    assert fabric.provision() == {}

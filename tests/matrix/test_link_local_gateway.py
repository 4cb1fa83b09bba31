"""Guests behind a link-local gateway: their leases, the first and last addresses of pools, their moves."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from changed_intents import copy_of
from dhcp_client import ACK, DISCOVER, REQUEST, REQUESTED, SERVER, Answer, client
from lab import INTERNET, REPOSITORY, Flows, Lab, booted, converged_with, wait_for

from l3hv.twin.state import Twin

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INVENTORY = REPOSITORY / "inventories" / "link-local-gateway"
MOST_MS = 1000
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAYS = {"vm1": "169.254.1.1", "vm2": "169.254.0.1", "vm3": "169.254.1.1", "vm4": "169.254.0.1"}
"""Two pools, as in Calico and as in CloudStack."""
ADDRESSES = {
    "vm1": ("203.0.113.0", "2001:db8:cb00:7100:5254:33ff:fe00:7"),
    "vm2": ("203.0.113.128", "2001:db8:cb00:7200::128"),
    "vm3": ("203.0.113.127", "2001:db8:cb00:717f:5254:33ff:fe00:f"),
    "vm4": ("203.0.113.255", "2001:db8:cb00:7200:5254:33ff:fe00:15"),
}
"""The first and the last address of each pool."""
TRANSPARENT, ANYCAST = "203.0.113.11", ("203.0.113.10", "2001:db8:cb00:710a::1")
PREFIXES = {
    name: (ipv4, f"{ipv6.partition(':5254:')[0]}::/64" if name in ("vm1", "vm3") else ipv6)
    for name, (ipv4, ipv6) in ADDRESSES.items()
}


CONVERGED = converged_with(lambda guest, family: PREFIXES[guest][family == 6])
MASK, ROUTER, MTU, BROADCAST_ADDRESS, CLASSLESS_ROUTES = 1, 3, 26, 28, 121


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Boot and provision a copy of the inventory, which a test edits: a twin keeps its inventory."""
    inventory = copy_of(INVENTORY, tmp_path_factory.mktemp("link_local"))
    with booted("lladdr", inventory, converged=CONVERGED) as made:
        made.provision()
        made.wait_until_whole(60)
        yield made


def test_first_and_last_addresses_of_pools_reach_each_other_and_the_internet(fabric: Lab) -> None:
    for source, own in ADDRESSES.items():
        assert set(fabric.guest_addresses(source)) == set(own)
        others = {address for guest, both in ADDRESSES.items() for address in both if guest != source}
        others |= {*INTERNET.values(), *ANYCAST}
        # The transparent address of vm4 leads vm4's own packets back to it.
        others |= set() if source == "vm4" else {TRANSPARENT}
        assert fabric.reached(source, others) == others, source


@contextmanager
def lease_of(fabric: Lab, guest: str) -> Iterator[Answer]:
    """Get a lease of a guest from its hypervisor with a client that asks for nothing."""
    with client(Twin(fabric.name, print).guest_namespace(guest)) as opened:
        offer = opened.ask(DISCOVER)
        assert offer is not None
        answer = opened.ask(
            REQUEST,
            (REQUESTED, IPv4Address(offer.offered).packed),
            (SERVER, IPv4Address(offer.server).packed),
        )
        assert answer is not None
        yield answer


@pytest.mark.parametrize("guest", ADDRESSES)
def test_the_lease_has_a_single_address_and_routes(fabric: Lab, guest: str) -> None:
    gateway = IPv4Address(GATEWAYS[guest]).packed
    with lease_of(fabric, guest) as lease:
        assert (lease.kind, lease.offered) == (ACK, ADDRESSES[guest][0])
        assert (lease.source, lease.server) == (GATEWAYS[guest], GATEWAYS[guest])
        assert lease.options[MASK] == b"\xff" * 4
        assert BROADCAST_ADDRESS not in lease.options, "a single address has no broadcast address"
        # RFC 3442: the route to the gateway itself comes first, because the default route needs it.
        assert lease.options[CLASSLESS_ROUTES] == b"\x20" + gateway + bytes(4) + b"\0" + gateway
        assert lease.options[ROUTER] == gateway
        assert struct.unpack("!H", lease.options[MTU]) == (1500,)


@pytest.mark.parametrize("guest", ADDRESSES)
def test_the_gateway_has_the_mac_of_the_fabric(fabric: Lab, guest: str) -> None:
    fabric.reached(guest, INTERNET.values())
    shown = json.loads(fabric.run_as_guest(guest, "ip -json neighbour show dev eth0"))
    macs = {entry["dst"]: entry.get("lladdr") for entry in shown}
    assert macs[GATEWAYS[guest]] == GATEWAY_MAC
    assert macs["fe80::1"] == GATEWAY_MAC


def test_the_first_hop_reports_errors_with_the_address_of_the_gateway(fabric: Lab) -> None:
    """ICMP errors reach the guest although their source is in no table: path MTU discovery needs them."""
    for guest in ("vm1", "vm4"):
        out = fabric.run_as_guest(guest, f"ping -n -c 1 -W 2 -t 1 {INTERNET[4]} || :")
        assert f"From {GATEWAYS[guest]} " in out
        assert "Time to live exceeded" in out


def test_a_flow_to_another_guest_of_the_pool_passes_the_gateway(fabric: Lab) -> None:
    """A guest asks for the MAC of its gateway only: its pool is not on its link."""
    for guest in ADDRESSES:
        shown = json.loads(fabric.run_as_guest(guest, "ip -4 -json neighbour show dev eth0"))
        assert {entry["dst"] for entry in shown} == {GATEWAYS[guest]}, guest
        assert f"{ADDRESSES[guest][0]}/32" in fabric.run_as_guest(guest, "ip -4 address show dev eth0")


def test_a_port_that_is_created_anew_has_a_lease(fabric: Lab) -> None:
    """The new interface has another number, which the DHCP server does not know from its configuration."""
    fabric.twin("unplug", "vm2")
    fabric.twin("plug", "vm2")
    wait_for("the addresses", lambda: set(fabric.guest_addresses("vm2")) == set(ADDRESSES["vm2"]))


NEW_GUESTS = """\
  - name: vm5
    mac: "50:54:33:00:00:17"
    ipv4: 203.0.113.1
  - name: vm6
    mac: "50:54:33:00:00:19"
    ipv4: 192.0.2.128
"""
NEW_POOL = """\
  other:
    domain: public
    ipv4: 192.0.2.128/25
    gateway: link_local
"""


def test_guests_of_one_pool_and_of_one_gateway_on_one_hypervisor(fabric: Lab) -> None:
    """hv1 gets a second guest of vm1's pool, and one of another pool with the same gateway."""
    added = {"host_vars/hv1.yml": NEW_GUESTS, "group_vars/all/fabric.yml": NEW_POOL}
    before = {fabric.inventory / name: (fabric.inventory / name).read_text() for name in added}
    try:
        for (file, text), more in zip(before.items(), added.values(), strict=True):
            file.write_text(text + more)
        with fabric.steady_traffic(Flows("vm1", "vm3", 4), Flows("vm2", "vm4", 6)) as traffic:
            # The DHCP server starts with the new configuration before the ports appear.
            fabric.provision("--skip-tags", "verify")
            fabric.twin("up", "-i", str(fabric.inventory), seconds=300)
        assert traffic.lost() == {}
        wait_for("the addresses of vm5", lambda: fabric.has_addresses("vm5"))
        wait_for("the address of vm6", lambda: fabric.guest_addresses("vm6") == ["192.0.2.128"])
        fabric.playbook("playbooks/verify.yml")
        with lease_of(fabric, "vm6") as lease:
            assert (lease.offered, lease.server) == ("192.0.2.128", "169.254.1.1")
        everyone = {address for both in ADDRESSES.values() for address in both} | {"192.0.2.128"}
        assert reached_by_new_guest(fabric, "vm5", everyone) == everyone
        assert fabric.reached("vm1", ["203.0.113.1", "192.0.2.128"]) == {"203.0.113.1", "192.0.2.128"}
    finally:
        for file, text in before.items():
            file.write_text(text)
        fabric.twin("up", "-i", str(fabric.inventory), seconds=300)
        fabric.provision()


def reached_by_new_guest(fabric: Lab, guest: str, addresses: set[str]) -> set[str]:
    pings = (f"(busybox ping -c 1 -W 2 {address} >&2 && echo {address}) &" for address in addresses)
    return set(fabric.run_as_guest(guest, f"{' '.join(pings)} wait").split())


def test_a_guest_keeps_its_address_when_it_moves(fabric: Lab, tmp_path: Path) -> None:
    """vm2, which has the first address of its pool, moves to the hypervisor of vm4 and back under traffic."""
    changed = copy_of(INVENTORY, tmp_path)
    old, new = (changed / "host_vars" / f"{name}.yml" for name in ("hv1", "hv3"))
    before, entry, _ = old.read_text().partition("  - name: vm2\n")
    entry += old.read_text().partition("  - name: vm2\n")[2]
    old.write_text(before)
    new.write_text(new.read_text() + entry)
    try:
        fabric.provision("--limit", "hv3", "--skip-tags", "verify", inventory=changed)
        flows = (Flows("vm3", "vm2", 4), Flows("vm3", "vm2", 6))
        with fabric.traffic(*flows, seconds=6, each=8) as traffic:
            fabric.twin("plug", "vm2", "--on", "hv3")
        print(f"\nmove of vm2: {traffic.outages_ms()}")
        assert max(traffic.outages_ms().values()) <= MOST_MS + traffic.allowance_ms
        fabric.provision("--limit", "hv1", inventory=changed)
        # The two first and last addresses of a pool are now on one hypervisor.
        everyone = {address for guest in ("vm1", "vm3", "vm4") for address in ADDRESSES[guest]}
        assert fabric.reached("vm2", everyone) == everyone
        assert set(fabric.guest_addresses("vm2")) == set(ADDRESSES["vm2"])
    finally:
        fabric.provision("--limit", "hv1", "--skip-tags", "verify")
        fabric.twin("plug", "vm2", "--on", "hv1")
        fabric.provision("--limit", "hv3")
        fabric.wait_until_whole(60)

"""The services that a host runs for its guests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from intents import COMMON, common_of, intents

from l3hv.model.intent import HostIntent
from l3hv.model.plan import DhcpRelay, GuestLease, GuestPlan, GuestPrefix, PortAddress, RelayedGuest
from l3hv.plan.guest_ports import guest_services

PORT = GuestPlan(
    name="vm1",
    interface="vm1",
    mac="50:54:33:00:00:07",
    domain="public",
    mtu=1500,
    gateway_mac="02:6c:33:68:76:01",
    addresses=(),
    gateways=(),
    link_local=None,
    lease=None,
    prefix=None,
    shared_prefix=None,
    routes=(),
    transparent=(),
    withdraw_without_carrier=False,
    vrf=None,
)
WITH_LEASE = replace(
    PORT,
    addresses=(PortAddress("ipv4", "203.0.113.254", 32, is_link_local=False),),
    lease=GuestLease("customers", "203.0.113.1"),
)
WITH_PREFIX = replace(PORT, prefix=GuestPrefix("2001:db8:cb00:7101::/64", True, False, ()))
SHARED = "2001:db8:cb00:7100::/64"
WITH_ADDRESS = replace(PORT, prefix=GuestPrefix(SHARED, False, True, ()), shared_prefix=SHARED)
LINK_LOCAL = replace(
    PORT,
    interface="vm2",
    mac="50:54:33:00:00:09",
    addresses=(PortAddress("ipv4", "169.254.1.1", 32, is_link_local=True),),
    lease=GuestLease("single", "203.0.113.129"),
)
SOURCE = "172.22.0.1"
SINGLE = {"domain": "public", "ipv4": "203.0.113.128/25", "gateway": "link_local"}
FABRIC = common_of(COMMON | {"l3hv_pools": COMMON["l3hv_pools"] | {"single": SINGLE}})


def host(**variables: Any) -> HostIntent:
    own = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1"}, **variables}
    return intents({"hv1": ("hypervisor", own)}, common_of(COMMON))["hv1"]


@pytest.mark.parametrize(
    ("ports", "dhcp", "advertisements", "ndp_proxy"),
    [
        ((), False, False, False),
        ((PORT,), False, False, False),
        ((PORT, WITH_LEASE), True, False, False),
        ((WITH_PREFIX,), False, True, False),
        ((WITH_LEASE, WITH_PREFIX), True, True, False),
        ((WITH_LEASE, WITH_ADDRESS), True, True, True),
    ],
)
def test_a_service_runs_if_a_guest_needs_it(
    ports: tuple[GuestPlan, ...], dhcp: bool, advertisements: bool, ndp_proxy: bool
) -> None:
    found = guest_services(FABRIC, host(), ports, SOURCE)
    assert (found.dhcp, found.advertisements, found.ndp_proxy) == (dhcp, advertisements, ndp_proxy)
    assert found.dhcp_relay is None


RELAY = {"l3hv_dhcp": "relay", "l3hv_dhcp_servers": ["172.31.0.53", "172.31.0.54"]}


def test_a_relay_replaces_the_server() -> None:
    found = guest_services(FABRIC, host(**RELAY), (WITH_LEASE, LINK_LOCAL, WITH_PREFIX), SOURCE)
    assert not found.dhcp
    assert found.dhcp_relay == DhcpRelay(
        name="hv1",
        address=SOURCE,
        servers=("172.31.0.53", "172.31.0.54"),
        guests=(
            RelayedGuest(
                "vm1", "hv1/vm1", "50:54:33:00:00:07", "203.0.113.1", "203.0.113.254", "203.0.113.254"
            ),
            # The server finds the pool by an address of it, and the link-local gateway is in none.
            RelayedGuest(
                "vm2", "hv1/vm2", "50:54:33:00:00:09", "203.0.113.129", "169.254.1.1", "203.0.113.129"
            ),
        ),
    )


def test_no_relay_runs_without_a_guest_with_a_lease() -> None:
    assert guest_services(FABRIC, host(**RELAY), (WITH_PREFIX,), SOURCE).dhcp_relay is None


def test_without_dhcp_neither_a_server_nor_a_relay_runs() -> None:
    found = guest_services(FABRIC, host(l3hv_dhcp="none"), (WITH_LEASE, WITH_PREFIX), SOURCE)
    assert (found.dhcp, found.dhcp_relay, found.advertisements) == (False, None, True)

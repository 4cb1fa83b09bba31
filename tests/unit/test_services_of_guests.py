"""The services that a host runs for its guests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l3hv.model.plan import GuestLease, GuestPlan, GuestPrefix
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
    routes=(),
    transparent=(),
    withdraw_without_carrier=False,
)
WITH_LEASE = replace(PORT, lease=GuestLease("customers", "203.0.113.1"))
WITH_PREFIX = replace(PORT, prefix=GuestPrefix("2001:db8:cb00:7101::/64", False, ()))


@pytest.mark.parametrize(
    ("ports", "dhcp", "advertisements"),
    [
        ((), False, False),
        ((PORT,), False, False),
        ((PORT, WITH_LEASE), True, False),
        ((WITH_PREFIX,), False, True),
        ((WITH_LEASE, WITH_PREFIX), True, True),
    ],
)
def test_a_service_runs_if_a_guest_needs_it(
    ports: tuple[GuestPlan, ...], dhcp: bool, advertisements: bool
) -> None:
    found = guest_services(ports)
    assert (found.dhcp, found.advertisements) == (dhcp, advertisements)

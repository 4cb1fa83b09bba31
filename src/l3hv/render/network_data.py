"""A guest's network configuration in the format of cloud-init, for guests without DHCP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

from l3hv.model.addressing import DEFAULT_ROUTE, HOST_LENGTH, LINK_LOCAL_GATEWAY
from l3hv.model.plain import from_plain
from l3hv.model.plan import DhcpPool, GuestPlan, HostPlan

OWN_ADDRESSES = frozenset({"main", "address", "anycast"})
"""The kinds of routes whose destination is an address of the guest's interface, if it is a single address.
The guest does not have its transparent addresses, and chooses addresses of its subnets itself."""


def network_data(plan: Mapping[str, Any], guest: str) -> dict[str, Any]:
    """Return the network configuration of a guest (cloud-init's network-config, version 2).

    ``plan`` is the plan of the guest's hypervisor as plain data.  Raises ``KeyError`` for an unknown guest.
    """
    host = from_plain(HostPlan, plan)
    found = {each.name: each for each in host.guests}[guest]
    pools = {pool.name: pool for pool in host.dhcp_pools}
    pool = pools[found.lease.pool] if found.lease is not None else None
    servers = [*(pool.dns if pool else ()), *(found.prefix.dns if found.prefix else ())]
    names = {"addresses": servers, "search": list(pool.search if pool else ())}
    interface = {
        "match": {"macaddress": found.mac},
        "mtu": found.mtu,
        "addresses": list(_addresses(found, pool)),
        "routes": list(_routes(found, pool)),
        **({"nameservers": names} if any(names.values()) else {}),
        # The guest makes the addresses of its /64 itself (SLAAC).
        "accept-ra": found.prefix is not None and found.prefix.autonomous,
    }
    return {"version": 2, "ethernets": {"guest": interface}}


def _addresses(guest: GuestPlan, pool: DhcpPool | None) -> Iterator[str]:
    for route in guest.routes:
        address, _, length = route.prefix.partition("/")
        if route.kind in OWN_ADDRESSES and int(length) == HOST_LENGTH[route.family]:
            is_main = guest.lease is not None and address == guest.lease.address
            if is_main and pool is not None and pool.guest_netmask is None:
                length = str(IPv4Network((pool.subnet, pool.netmask)).prefixlen)
            yield f"{address}/{length}"


def _routes(guest: GuestPlan, pool: DhcpPool | None) -> Iterator[dict[str, Any]]:
    if pool is not None:
        # Outside of the guest's subnet, the gateway is reached directly on the guest's link.
        on_link = {} if pool.guest_netmask is None else {"on-link": True}
        pairs = [pair for pair in pool.routes if pair[1] != "0.0.0.0"]
        for destination, gateway in pairs or [(DEFAULT_ROUTE["ipv4"], pool.gateway)]:
            yield {"to": destination, "via": gateway, **on_link}
    if guest.prefix is not None and not guest.prefix.autonomous:
        yield {"to": DEFAULT_ROUTE["ipv6"], "via": LINK_LOCAL_GATEWAY, "on-link": True}

"""A guest's network configuration in the format of cloud-init, for guests without DHCP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

from l3hv.model.addressing import DEFAULT_ROUTE, HOST_LENGTH, LINK_LOCAL_GATEWAY, family_of_text
from l3hv.model.plain import from_plain
from l3hv.model.plan import DhcpPool, GuestPlan, HostPlan

OWN_ADDRESSES = frozenset({"main", "address", "anycast"})
"""The guest configures destinations of these kinds if they are single addresses.

Transparent addresses are translated, and a guest chooses addresses of its subnets itself."""


def network_data(plan: Mapping[str, Any], guest: str) -> dict[str, Any]:
    """Return the network configuration of a guest (cloud-init's network-config, version 2).

    ``plan`` is the plan of the guest's hypervisor as plain data.  Raises ``KeyError`` for an unknown guest.
    """
    host = from_plain(HostPlan, plan)
    own = {each.name: each for each in host.guests}[guest]
    pools = {pool.name: pool for pool in host.dhcp_pools}
    pool = pools[own.lease.pool] if own.lease is not None else None
    servers = [*(pool.dns if pool else ()), *(own.prefix.dns if own.prefix else ())]
    names = {"addresses": servers, "search": list(pool.search if pool else ())}
    addresses = tuple(_addresses(own, pool))
    # A guest with a /64 makes its addresses itself (SLAAC). One that shares a /64 has a single address, and
    # SLAAC would make others with privacy extensions (RFC 7217, RFC 8981).
    has_own_prefix = own.prefix is not None and own.shared_prefix is None
    interface = {
        "match": {"macaddress": own.mac},
        "mtu": own.mtu,
        "addresses": list(addresses),
        "routes": [*_routes4(pool), *_routes6(addresses, accepts_router=has_own_prefix)],
        **({"nameservers": names} if any(names.values()) else {}),
        "accept-ra": has_own_prefix,
    }
    return {"version": 2, "ethernets": {"guest": interface}}


def _addresses(guest: GuestPlan, pool: DhcpPool | None) -> Iterator[str]:
    for route in guest.routes:
        address, _, length = route.prefix.partition("/")
        if route.kind in OWN_ADDRESSES and int(length) == HOST_LENGTH[route.family]:
            is_main = guest.lease is not None and address == guest.lease.address
            if is_main and pool is not None and not pool.has_link_local_gateway:
                length = str(IPv4Network((pool.subnet, pool.netmask)).prefixlen)
            yield f"{address}/{length}"


def _routes4(pool: DhcpPool | None) -> Iterator[dict[str, Any]]:
    if pool is not None:
        # Outside of the guest's subnet, the gateway is reached directly on the guest's link.
        on_link = {"on-link": True} if pool.has_link_local_gateway else {}
        # The route to the gateway itself has the gateway 0.0.0.0 (RFC 3442): "on-link" stands for it.
        over_gateways = [(prefix, gateway) for prefix, gateway in pool.routes if gateway != "0.0.0.0"]
        for destination, gateway in over_gateways or [(DEFAULT_ROUTE["ipv4"], pool.gateway)]:
            yield {"to": destination, "via": gateway, **on_link}


def _routes6(addresses: Iterable[str], *, accepts_router: bool) -> Iterator[dict[str, Any]]:
    if not accepts_router and any(family_of_text(address) == "ipv6" for address in addresses):
        yield {"to": DEFAULT_ROUTE["ipv6"], "via": LINK_LOCAL_GATEWAY, "on-link": True}

"""Guest ports: their settings and services on the hypervisor, and the routes towards each guest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv6Network

from l3hv.model.addressing import (
    GUEST_PREFIX_LENGTH,
    HOST_LENGTH,
    LINK_LOCAL_GATEWAY,
    family_of_text,
    slaac_address,
)
from l3hv.model.choices import Family
from l3hv.model.intent import Common, GuestIntent, HostIntent, Pool
from l3hv.model.names import LOCAL_OUT
from l3hv.model.plan import (
    DhcpPool,
    DhcpRelay,
    GuestLease,
    GuestPlan,
    GuestPrefix,
    GuestRoute,
    GuestServices,
    PortAddress,
    RelayedGuest,
)

LINK_LOCAL_LENGTH = 64

GUEST_METRIC = 10
"""Kernel metric of guest routes, below the 32 of BIRD's routes: a local guest is reached on its port."""


def guest_plans(common: Common, host: HostIntent, prefsrc: str | None) -> tuple[GuestPlan, ...]:
    """Return the plans of a hypervisor's guests and their ports.

    ``prefsrc`` is the source address of the hypervisor's own traffic to the guests.
    """
    pools = {pool.name: pool for pool in common.pools}
    plans = []
    next_metrics: dict[str, int] = {}
    for guest in host.guests:
        plan = _guest_plan(common, guest, pools[guest.pool], prefsrc, vrf=host.vrf_of(guest.domain))
        if guest.anycast:
            plan = replace(plan, routes=tuple(_with_own_metric(route, next_metrics) for route in plan.routes))
        plans.append(plan)
    return tuple(plans)


def _with_own_metric(route: GuestRoute, next_metrics: dict[str, int]) -> GuestRoute:
    """Return an anycast route with a metric that no other route to its prefix has; other routes unchanged.

    A table has one route per prefix and metric: the second guest's route is used once the first one is gone.
    ``next_metrics`` has the next free metric of each prefix.
    """
    if route.kind != "anycast":
        return route
    metric = next_metrics.get(route.prefix, GUEST_METRIC)
    next_metrics[route.prefix] = metric + 1
    return replace(route, metric=metric)


def _guest_plan(
    common: Common, guest: GuestIntent, pool: Pool, prefsrc: str | None, *, vrf: str | None
) -> GuestPlan:
    lease = None
    if guest.ipv4 is not None:
        lease = GuestLease(pool.name, guest.ipv4)
    prefix = shared = None
    if guest.ipv6 is not None:
        dns = tuple(server for server in pool.dns if family_of_text(server) == "ipv6")
        prefix = GuestPrefix(guest.ipv6, True, guest.ipv6_on_link, dns)
        if guest.ipv6.endswith(f"/{HOST_LENGTH['ipv6']}"):
            # A single address: the guest shares the /64 around it, which may be that of another pool.
            own = IPv6Network(guest.ipv6)
            around = own.supernet(new_prefix=GUEST_PREFIX_LENGTH)
            shared = str(around)
            prefix = GuestPrefix(shared, own[0] == slaac_address(around, guest.mac), True, dns)
    addresses = []
    if lease is not None:
        gateway, is_link_local = str(pool.gateway), pool.has_link_local_gateway
        addresses.append(PortAddress("ipv4", gateway, HOST_LENGTH["ipv4"], is_link_local))
    if guest.link_local is not None:
        addresses.append(PortAddress("ipv6", LINK_LOCAL_GATEWAY, LINK_LOCAL_LENGTH, is_link_local=True))
    return GuestPlan(
        name=guest.name,
        interface=guest.interface,
        mac=guest.mac,
        domain=guest.domain,
        mtu=guest.mtu,
        gateway_mac=common.gateway_mac,
        addresses=tuple(addresses),
        gateways=tuple(f"{own.address}/{own.length}" for own in addresses),
        link_local=guest.link_local,
        lease=lease,
        prefix=prefix,
        shared_prefix=shared,
        routes=tuple(_routes(guest, prefsrc, shares_prefix=shared is not None)),
        transparent=tuple((address, guest.ipv4 or "") for address in guest.transparent),
        withdraw_without_carrier=guest.withdraw_without_carrier,
        vrf=vrf,
    )


def _routes(guest: GuestIntent, prefsrc: str | None, *, shares_prefix: bool) -> Iterator[GuestRoute]:
    ipv4_tables, ipv6_tables = (guest.domain, LOCAL_OUT), (guest.domain,)
    if guest.ipv4 is not None:
        main = f"{guest.ipv4}/32"
        yield GuestRoute("ipv4", main, None, ipv4_tables, GUEST_METRIC, "main", prefsrc)
    if guest.ipv6 is not None:
        # A guest of a shared /64 has one address, and its permanent neighbour needs no neighbour discovery.
        via = None if guest.ipv6_on_link and not shares_prefix else guest.link_local
        yield GuestRoute("ipv6", guest.ipv6, via, ipv6_tables, GUEST_METRIC, "main")
    for kind, prefixes in (
        ("address", guest.addresses),
        ("subnet", guest.subnets),
        ("anycast", guest.anycast),
    ):
        for prefix in prefixes:
            # For mypy: guests.py has checked that a guest with prefixes of a family has an address of it.
            family: Family = family_of_text(prefix)
            if family == "ipv4":
                yield GuestRoute("ipv4", prefix, guest.ipv4, ipv4_tables, GUEST_METRIC, kind, prefsrc)  # type: ignore[arg-type] # see above
            else:
                yield GuestRoute("ipv6", prefix, guest.link_local, ipv6_tables, GUEST_METRIC, kind)  # type: ignore[arg-type] # see above
    for address in guest.transparent:
        yield GuestRoute("ipv4", f"{address}/32", None, ipv4_tables, GUEST_METRIC, "transparent", prefsrc)


def guest_services(
    common: Common, host: HostIntent, guests: tuple[GuestPlan, ...], source: str | None
) -> GuestServices:
    """Return the services that the guests of this host need; ``source`` is the address of its own traffic."""
    has_leases, settings = any(guest.lease is not None for guest in guests), host.settings
    relay = None
    if has_leases and settings.dhcp == "relay" and source is not None:
        relayed = tuple(_relayed(common, host.name, guests))
        relay = DhcpRelay(host.name, source, settings.dhcp_servers, relayed)
    return GuestServices(
        dhcp=has_leases and settings.dhcp == "server",
        dhcp_relay=relay,
        advertisements=any(guest.prefix is not None for guest in guests),
        ndp_proxy=any(guest.shared_prefix is not None for guest in guests),
    )


def circuit_prefix(hypervisor: str) -> str:
    """Return the characters with which the circuit ids of a hypervisor's guests begin.

    >>> circuit_prefix("hv1") + "vm1"
    'hv1/vm1'
    """
    return f"{hypervisor}/"


def _relayed(common: Common, hypervisor: str, guests: Iterable[GuestPlan]) -> Iterator[RelayedGuest]:
    in_no_pool = {pool.name for pool in common.pools if pool.has_link_local_gateway}
    for guest in guests:
        if guest.lease is not None:
            gateway = next(own.address for own in guest.addresses if own.family == "ipv4")
            link = guest.lease.address if guest.lease.pool in in_no_pool else gateway
            circuit = circuit_prefix(hypervisor) + guest.interface
            yield RelayedGuest(guest.interface, circuit, guest.mac, guest.lease.address, gateway, link)


def dhcp_pools(common: Common, guests: tuple[GuestPlan, ...]) -> tuple[DhcpPool, ...]:
    """Return the pools from which DHCP offers addresses on this host."""
    mtus = {guest.lease.pool: guest.mtu for guest in guests if guest.lease is not None}
    return tuple(_dhcp_pool(pool, mtus[pool.name]) for pool in common.pools if pool.name in mtus)


def _dhcp_pool(pool: Pool, mtu: int) -> DhcpPool:
    assert pool.ipv4 is not None, "a pool that DHCP offers addresses of has IPv4"
    return DhcpPool(
        name=pool.name,
        subnet=str(pool.ipv4.network_address),
        netmask=str(pool.ipv4.netmask),
        guest_netmask="255.255.255.255" if pool.has_link_local_gateway else None,
        gateway=str(pool.gateway),
        mtu=mtu,
        dns=tuple(server for server in pool.dns if ":" not in server),
        search=pool.search,
        routes=pool.option_routes,
    )

"""The routing tables of a host in BIRD and in the kernel, and the routes of last resort that end them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from l3hv.model.addressing import DEFAULT_ROUTE, LINK_LOCAL4, family_of_text, is_covered
from l3hv.model.choices import Family
from l3hv.model.daemons import DAEMONS, REPLACING_BY_DELETION
from l3hv.model.intent import Common, Domain, HostIntent
from l3hv.model.names import LOCAL_OUT, bird_table, shared_table, spread_name, spread_table
from l3hv.model.plan import (
    GuestPlan,
    GuestRoute,
    LastResort,
    LoopbackAddress,
    PrefixMatch,
    RoutingTable,
    SharedPart,
    SharedTable,
    TableName,
)
from l3hv.plan.anycast import DomainAnycast
from l3hv.plan.prefix_matches import edge_matches, fabric_matches, match_of_prefix
from l3hv.plan.uplinks import preferred_source


def routing_tables(
    common: Common,
    host: HostIntent,
    loopbacks: tuple[LoopbackAddress, ...],
    guests: tuple[GuestPlan, ...],
    anycast: tuple[DomainAnycast, ...],
) -> tuple[RoutingTable, ...]:
    """Return the tables of each domain and family, then ``local_out4``, then the tables of spread anycast."""
    tables = [
        _domain_table(common, host, domain, family, loopbacks=loopbacks, guests=guests)
        for domain in common.domains
        if domain.name in host.domains
        for family in domain.families
    ]
    if host.kind == "hypervisor":
        tables += _local_out_tables(common, host, loopbacks)
    tables += (_anycast_table(host, one) for one in anycast)
    return tuple(tables)


def shared_tables(host: HostIntent, tables: Iterable[RoutingTable]) -> tuple[SharedTable, ...]:
    """Return the tables between the shared sessions and the tables of domains among ``tables``."""
    of_domains = [table for table in tables if table.domain in host.domains]
    return tuple(
        SharedTable(
            shared_table(family),
            family,
            tuple(SharedPart(table.domain, table.name) for table in of_domains if table.family == family),
        )
        for family in dict.fromkeys(table.family for table in of_domains)
    )


def _domain_table(
    common: Common,
    host: HostIntent,
    domain: Domain,
    family: Family,
    *,
    loopbacks: tuple[LoopbackAddress, ...],
    guests: tuple[GuestPlan, ...],
) -> RoutingTable:
    of_fabric = fabric_matches(common, domain, family)
    originates: tuple[str, ...] = ()
    accepts: tuple[PrefixMatch, ...] = (*of_fabric, *edge_matches(domain, family))
    if has_one_table(host) and domain.kind != "public":
        accepts = of_fabric
    announces = accepts
    if host.is_switch:
        own = [lo for lo in loopbacks if lo.announced and (lo.domain, lo.family) == (domain.name, family)]
        originates = tuple(f"{loopback.address}/{loopback.length}" for loopback in own)
    if host.kind == "hypervisor":
        own = [
            lo
            for lo in loopbacks
            if lo.announced and (lo.domain, lo.family) == (domain.name, family) and not common.has_igp
        ]
        loopback_prefixes = [f"{loopback.address}/{loopback.length}" for loopback in own]
        blocks = blocks_in(common, host, domain, family)
        originates = (*loopback_prefixes, *blocks)
        announces = (
            *(match_of_prefix(prefix, "loopback") for prefix in loopback_prefixes),
            *(match_of_prefix(prefix, "block of this hypervisor") for prefix in blocks),
            *_guest_matches(guests, domain, family, blocks),
        )
    if host.kind == "edge_router":
        is_served = domain.name in host.edge_domains
        defaults = (DEFAULT_ROUTE[family],) if is_served else ()
        address_of_server = dhcp_server_routes(host, domain) if is_served and family == "ipv4" else ()
        originates = (*defaults, *address_of_server)
        announces = (
            *(match_of_prefix(prefix, "default route of this edge router") for prefix in defaults),
            *(match_of_prefix(prefix, "DHCP server") for prefix in address_of_server),
        )
        accepts = of_fabric
    # Kea leaves the source of its answers to the kernel, and relays accept only its address. Only hypervisors
    # ask, from their loopbacks in the private domain.
    serves_here = domain.kind == "private" and family == "ipv4"
    return RoutingTable(
        name=bird_table(domain.name, family),
        domain=domain.name,
        family=family,
        kernel_table=None if host.kind == "route_reflector" else domain.table,
        learn=host.kind == "hypervisor",
        fed_by=None,
        prefsrc=host.settings.serves_dhcp_at if serves_here else None,
        persists=True,
        ecmp=host.ecmp_of(domain.name),
        ecmp_limit=_ecmp_limit(host, domain.name),
        originates=originates,
        accepts=accepts,
        announces=announces,
    )


def has_one_table(host: HostIntent) -> bool:
    """Tell whether the daemon of a leaf or spine has the routes of all domains in one table.

    Their prefixes differ, except the default route, which only the public domain can have.
    """
    return host.is_switch and host.settings.daemon == "frr"


def blocks_in(common: Common, host: HostIntent, domain: Domain, family: Family) -> tuple[str, ...]:
    """Return the blocks of a hypervisor in one domain and family."""
    return tuple(
        block
        for block in host.blocks
        if family_of_text(block) == family and common.domain_of(block) == domain.name
    )


def is_advertised(route: GuestRoute, blocks: tuple[str, ...]) -> bool:
    """Tell whether a hypervisor with ``blocks`` advertises a guest's route by itself.

    An anycast prefix is also advertised inside a block, because other hosts hold it.
    """
    return route.kind == "anycast" or not is_covered(route.prefix, blocks)


def dhcp_server_routes(host: HostIntent, domain: Domain) -> tuple[str, ...]:
    """Return the prefix of a DHCP server's address, if the domain accepts it from edge routers.

    The default route leads to any edge router of the domain, and only one of them has the address.
    """
    if (address := host.settings.serves_dhcp_at) is None:
        return ()
    prefix = IPv4Network(address)
    return (str(prefix),) if prefix in domain.accept else ()


def _local_out_tables(
    common: Common, host: HostIntent, loopbacks: Iterable[LoopbackAddress]
) -> Iterator[RoutingTable]:
    """Yield the table of the hypervisor's own traffic, a copy of the BGP routes of the private domain.

    The daemon does not add the guests' routes to the kernel's table: they must not vanish with the daemon,
    because without them the reverse-path check drops the guests' ARP for their gateway.
    """
    private = common.private
    if private is None or private.name not in host.domains or "ipv4" not in private.families:
        return
    yield RoutingTable(
        name=bird_table(LOCAL_OUT, "ipv4"),
        domain=LOCAL_OUT,
        family="ipv4",
        kernel_table=common.local_out_table,
        learn=False,
        fed_by=bird_table(private.name, "ipv4"),
        prefsrc=preferred_source(common, loopbacks),
        persists=True,
        ecmp=host.ecmp_of(private.name),
        ecmp_limit=_ecmp_limit(host, private.name),
        originates=(),
        accepts=(),
        announces=(),
    )


def _anycast_table(host: HostIntent, one: DomainAnycast) -> RoutingTable:
    """Return the table of the BGP routes for anycast prefixes that guests of this host hold as well.

    The domain's own table has these routes too, but there the route to the local guest is preferred.
    """
    return RoutingTable(
        name=spread_table(one.domain.name, one.family),
        domain=spread_name(one.domain.name),
        family=one.family,
        kernel_table=one.domain.spread_table,
        learn=False,
        fed_by=bird_table(one.domain.name, one.family),
        prefsrc=None,
        persists=False,
        ecmp=host.ecmp_of(one.domain.name),
        ecmp_limit=_ecmp_limit(host, one.domain.name),
        originates=(),
        accepts=one.spread_matches,
        announces=(),
    )


def _ecmp_limit(host: HostIntent, domain: str) -> int:
    """Return the maximum number of next hops of a domain's routes in the kernel."""
    return 1 if host.ecmp_of(domain) == "none" else host.settings.ecmp_limit


def _guest_matches(
    guests: Iterable[GuestPlan], domain: Domain, family: Family, blocks: tuple[str, ...]
) -> tuple[PrefixMatch, ...]:
    """Return the prefixes of the guests outside of the host's blocks, each once.

    Guests of one host may share an anycast prefix.
    """
    reasons: dict[str, str] = {}
    for guest in guests:
        if guest.domain == domain.name:
            for route in guest.routes:
                if route.family == family and is_advertised(route, blocks):
                    reasons.setdefault(route.prefix, f"{guest.name}, {route.kind}")
    return tuple(match_of_prefix(prefix, why) for prefix, why in reasons.items())


def host_domains(common: Common, host: HostIntent) -> list[Domain]:
    return [domain for domain in common.domains if domain.name in host.domains]


def table_names(common: Common, host: HostIntent, anycast: Iterable[DomainAnycast]) -> tuple[TableName, ...]:
    """Return the names that the host needs in ``rt_tables``; a reflector has no routes in the kernel."""
    if host.kind == "route_reflector":
        return ()
    names = [TableName(domain.table, domain.name, True) for domain in host_domains(common, host)]
    if host.kind == "hypervisor":
        names.append(TableName(common.local_out_table, LOCAL_OUT, True))
    names += [TableName(one.domain.spread_table, spread_name(one.domain.name), False) for one in anycast]
    return tuple(dict.fromkeys(names))


def last_resorts(common: Common, host: HostIntent) -> tuple[LastResort, ...]:
    """Return the routes that end each table.  Tables of spread anycast have none: the domain's table is next.

    Guests' packets without a route are dropped, because an answer to each would help an attacker.  The
    hypervisor's own programs get an error at once.  A hypervisor drops packets to addresses of a pool that no
    guest has: an edge router would send them back.  Its gateway answers no ARP for these addresses.

    A hypervisor has no such route for a pool if its daemon deletes a route before it adds the new one.
    Packets that arrive in between must follow the default route to an edge router, which knows the guest.
    """
    if host.kind == "route_reflector":
        return ()
    domains = host_domains(common, host)
    routes = [
        LastResort(family, domain.name, "blackhole") for domain in domains for family in domain.families
    ]
    if host.kind == "hypervisor":
        daemon = DAEMONS[host.settings.daemon, host.settings.system]
        keeps_routes = daemon.version not in REPLACING_BY_DELETION
        for domain in domains:
            for family in domain.families:
                prefixes = [*map(str, common.pool_prefixes(domain.name, family))] if keeps_routes else []
                # Without the pool's own route, an edge router would send packets to unused addresses back.
                prefixes += [b for b in blocks_in(common, host, domain, family) if b not in prefixes]
                if family == "ipv4":
                    prefixes.append(str(LINK_LOCAL4))
                routes += [LastResort(family, domain.name, "blackhole", prefix=prefix) for prefix in prefixes]
        if any("ipv4" in domain.families for domain in domains):
            routes.append(LastResort("ipv4", LOCAL_OUT, "unreachable"))
    return tuple(routes)

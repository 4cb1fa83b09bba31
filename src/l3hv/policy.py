"""BIRD's tables: what a host puts into each, takes from its neighbours, and may tell them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from l3hv.addressing import GUEST_PREFIX_LENGTH, HOST_LENGTH, family_of, is_inside, longer_than
from l3hv.errors import natural_key
from l3hv.fabric import LOCAL_OUT
from l3hv.facts import Common, Domain, HostIntent, HostSlice
from l3hv.model import (
    Announcer,
    Family,
    Guest,
    ImportPolicy,
    LoopbackAddress,
    NextHop,
    Owner,
    PrefixMatch,
    Refusal,
    RoutingTable,
    Session,
    SharedPart,
    SharedTable,
)
from l3hv.sessions import (
    bird_table,
    has_own_policies,
    own_policy_name,
    policy_name,
    shared_table,
    spread_table,
)
from l3hv.spread import Spread, spread_name

DEFAULT_ROUTE: dict[Family, str] = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}

REFUSALS = tuple(
    Refusal(number, name, why)
    for number, (name, why) in enumerate(
        (
            ("path", "it has an AS path, but nothing here comes from beyond this AS"),
            ("reflected", "it says that somebody reflected it, but only reflectors do"),
            ("loopback", "it is the loopback of somebody else"),
            ("prefix", "no neighbour of this kind announces this prefix"),
            ("owner", "the inventory gives it to somebody else, or to nobody"),
            ("next_hop", "its next hop is not an address of who announces it"),
            ("domain", "it is in none of the domains of its session, or in several"),
            (
                "reserved",
                "it has the gateway, network or broadcast address of a pool, which no guest can have",
            ),
        ),
        start=1,
    )
)
"""Why an announcement is refused."""


def routing_tables(
    common: Common,
    host: HostIntent,
    loopbacks: tuple[LoopbackAddress, ...],
    guests: tuple[Guest, ...],
    spread: tuple[Spread, ...],
) -> tuple[RoutingTable, ...]:
    """Return the tables of each domain and family, then the host's own (``local_out4``), then of anycast."""
    tables = [
        _domain_table(common, host, domain, family, loopbacks=loopbacks, guests=guests)
        for domain in common.domains
        if domain.name in host.domains
        for family in domain.families
    ]
    if host.kind == "hypervisor":
        tables += _local_out_tables(common, host, loopbacks)
    tables += (_spread_table(host, one) for one in spread)
    return tuple(tables)


def shared_tables(host: HostIntent, tables: Iterable[RoutingTable]) -> tuple[SharedTable, ...]:
    """Return the tables that shared sessions have in common with the tables of domains among ``tables``."""
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
    guests: tuple[Guest, ...],
) -> RoutingTable:
    homes = (*_pool_matches(common, domain, family), *_loopback_matches(domain, family))
    default = _exact(DEFAULT_ROUTE[family], "default route, if an edge router has one")
    beyond = (default, *_extra_matches(domain, family))
    originates: tuple[str, ...] = ()
    accepts: tuple[PrefixMatch, ...] = (*homes, *beyond)
    announces = accepts
    if host.kind == "hypervisor":
        own = [lo for lo in loopbacks if lo.announced and (lo.domain, lo.family) == (domain.name, family)]
        originates = tuple(f"{loopback.address}/{loopback.length}" for loopback in own)
        announces = (
            *(_exact(prefix, "loopback") for prefix in originates),
            *_guest_matches(guests, domain, family),
        )
    if host.kind == "edge_router":
        is_served = domain.name in host.edge_domains
        originates = (DEFAULT_ROUTE[family],) if is_served else ()
        announces = tuple(_exact(prefix, "default route of this edge router") for prefix in originates)
        accepts = homes
    return RoutingTable(
        name=bird_table(domain.name, family),
        domain=domain.name,
        family=family,
        kernel_table=None if host.kind == "route_reflector" else domain.table,
        learn=host.kind == "hypervisor",
        fed_by=None,
        prefsrc=None,
        persists=True,
        ecmp=host.ecmp_of(domain.name),
        originates=originates,
        accepts=accepts,
        announces=announces,
    )


def import_policies(part: HostSlice, sessions: Iterable[Session]) -> tuple[ImportPolicy, ...]:
    """Return what is taken from each kind of neighbours that the host has, table by table.

    Where each hypervisor has a policy of its own, the owners say what is in it.
    """
    own: dict[str, Owner | None] = {}
    if has_own_policies(part.host):
        by_name = {owner.host: owner for owner in part.owners}
        own = {peer.name: by_name.get(peer.name) for peer in part.peers if peer.kind == "hypervisor"}
    channels = (channel for session in sessions for channel in session.channels)
    used = {carried.policy for channel in channels for carried in channel.carries}
    return tuple(
        policy
        for domain in part.common.domains
        for family in domain.families
        for policy in _policies(part, domain, family, own)
        if policy.name in used
    )


def refusals(policies: Iterable[ImportPolicy], *, is_shared: bool) -> tuple[Refusal, ...]:
    """Return the reasons to refuse an announcement that ``policies`` have, and sessions that are shared."""
    names = {"domain"} if is_shared else set()
    for policy in policies:
        names |= {"prefix", "next_hop"}
        names |= {"path", "reflected"} if policy.is_original else set()
        names |= {"loopback"} if policy.loopbacks is not None else set()
        names |= {"owner"} if policy.is_owned else set()
        names |= {"reserved"} if policy.reserved else set()
    return tuple(refusal for refusal in REFUSALS if refusal.name in names)


def _policies(
    part: HostSlice, domain: Domain, family: Family, own: Mapping[str, Owner | None]
) -> Iterator[ImportPolicy]:
    """Yield the policies of one table; ``own`` has the hypervisors that have one each.

    A reflector is trusted with all that anybody announces.  Hypervisors may have been taken over: what they
    say is reduced to prefixes.  Edge routers may know the whole Internet, with attributes that mean something
    to whoever runs them.  The clients of a range may be either.
    """
    common, host = part.common, part.host
    pools = tuple(_pool_matches(common, domain, family))
    reserved = tuple(_reserved_matches(common, domain, family))
    homes = (*pools, *_loopback_matches(domain, family))
    beyond = (
        _exact(DEFAULT_ROUTE[family], "default route of the edge routers"),
        *_extra_matches(domain, family),
    )
    loopbacks = domain.loopback(family)
    table = bird_table(domain.name, family)
    default = tuple(default_next_hops(part, domain, family))

    def policy(
        neighbors: Announcer,
        accepts: tuple[PrefixMatch, ...],
        *,
        is_judged: bool = False,
        name: str | None = None,
    ) -> ImportPolicy:
        return ImportPolicy(
            name=name or policy_name(table, neighbors),
            table=table,
            family=family,
            neighbors=neighbors,
            accepts=accepts,
            reserved=reserved if neighbors in ("hypervisors", "clients") and name is None else (),
            loopbacks=str(loopbacks) if is_judged and loopbacks is not None else None,
            is_owned=is_judged and name is None and host.settings.origin_validation == "strict",
            is_original=is_judged,
            is_silent=neighbors == "edge_routers",
            default_next_hops=default if neighbors == "reflectors" else (),
        )

    yield policy("hypervisors", pools, is_judged=True)
    for hypervisor, owner in own.items():
        guests = tuple(_owned_matches(common, domain, family, owner)) if owner is not None else ()
        yield policy("hypervisors", guests, is_judged=True, name=own_policy_name(table, hypervisor))
    yield policy("edge_routers", beyond)
    yield policy("reflectors", homes if host.kind == "edge_router" else (*homes, *beyond))
    yield policy("clients", (*homes, *beyond))


def default_next_hops(part: HostSlice, domain: Domain, family: Family) -> Iterator[NextHop]:
    """Yield the next hops of the default route in the order of preference, where it may have only one.

    Those on the first path come first, and there the edge router with the lowest number.
    """
    if part.host.kind != "hypervisor" or part.host.ecmp_of(domain.name) != "without_default":
        return
    for edge in sorted(part.edges, key=lambda edge: (natural_key(edge.path), edge.id)):
        network = part.common.network(edge.path, domain.name, family)
        if network is not None and domain.name in edge.domains:
            yield NextHop(edge.address_in(network), f"{edge.name}, path {edge.path}")


def _local_out_tables(
    common: Common, host: HostIntent, loopbacks: Iterable[LoopbackAddress]
) -> Iterator[RoutingTable]:
    """Yield the table of the hypervisor's own traffic, a copy of what BGP says of the private domain.

    The guests' routes in the kernel's table are not made here: they must not vanish with the daemon,
    or the reverse-path check drops the guests' ARP for their gateway.
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
        originates=(),
        accepts=(),
        announces=(),
    )


def _spread_table(host: HostIntent, spread: Spread) -> RoutingTable:
    """Return the table of what BGP says of the anycast prefixes that guests here hold as well.

    In the domain's own table such routes are there too, but the one to the guest is preferred to them.
    """
    return RoutingTable(
        name=spread_table(spread.domain.name, spread.family),
        domain=spread_name(spread.domain.name),
        family=spread.family,
        kernel_table=spread.domain.spread_table,
        learn=False,
        fed_by=bird_table(spread.domain.name, spread.family),
        prefsrc=None,
        persists=False,
        ecmp=host.ecmp_of(spread.domain.name),
        originates=(),
        accepts=spread.others,
        announces=(),
    )


def preferred_source(common: Common, loopbacks: Iterable[LoopbackAddress]) -> str | None:
    """Return the IPv4 source of the hypervisor's own traffic: its loopback, the private one first."""
    own = {loopback.domain: loopback.address for loopback in loopbacks if loopback.family == "ipv4"}
    if common.private is not None and common.private.name in own:
        return own[common.private.name]
    return own.get(common.public.name)


def _exact(prefix: str, why: str) -> PrefixMatch:
    length = int(prefix.partition("/")[2])
    return PrefixMatch(prefix, length, length, why)


def _pool_matches(common: Common, domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    """Yield what guests have of the pools, never all of one: in IPv6 up to /64, and single addresses."""
    for pool in common.pools:
        if pool.domain != domain.name:
            continue
        if family == "ipv4" and pool.ipv4 is not None:
            low = longer_than(pool.ipv4)
            yield PrefixMatch(str(pool.ipv4), low, HOST_LENGTH["ipv4"], f"pool {pool.name}")
        if family == "ipv6" and pool.ipv6 is not None:
            prefix, host = str(pool.ipv6), HOST_LENGTH["ipv6"]
            yield PrefixMatch(prefix, longer_than(pool.ipv6), GUEST_PREFIX_LENGTH, f"pool {pool.name}")
            yield PrefixMatch(prefix, host, host, f"pool {pool.name}, single addresses")


def _reserved_matches(common: Common, domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    """Yield the parts of pools that no guest can have, as :func:`l3hv.guests` refuses them in an intent.

    A guest that was routed one of these would get what others send to their gateway or to all of them.
    """
    if family != "ipv4":
        return
    for pool in common.pools:
        if pool.domain != domain.name or pool.ipv4 is None or pool.gateway is None:
            continue
        reasons: dict[str, str] = {}
        for address, role in (
            (pool.gateway, "gateway"),
            (pool.ipv4.network_address, "network address"),
            (pool.ipv4.broadcast_address, "broadcast address"),
        ):
            for length in range(HOST_LENGTH[family], longer_than(pool.ipv4) - 1, -1):
                prefix = str(ip_network(f"{address}/{length}", strict=False))
                reasons.setdefault(prefix, f"{role} of the pool {pool.name}")
        yield from (_exact(prefix, why) for prefix, why in reasons.items())


def _owned_matches(common: Common, domain: Domain, family: Family, owner: Owner) -> Iterator[PrefixMatch]:
    """Yield what a hypervisor's guests have in one domain: an owner's prefixes are those of all domains."""
    pools = [prefix for pool in common.pools if pool.domain == domain.name for prefix in pool.prefixes]
    for prefix in getattr(owner, family):
        if any(is_inside(ip_network(prefix), pool) for pool in pools):
            yield _exact(prefix, f"guests of {owner.host}")


def _loopback_matches(domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    prefix = domain.loopback(family)
    if prefix is not None:
        length = HOST_LENGTH[family]
        yield PrefixMatch(str(prefix), length, length, "loopbacks of the hypervisors")


def _extra_matches(domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    for prefix in domain.accept:
        if family_of(prefix) == family:
            yield _exact(str(prefix), "prefix of the edge routers")


def _guest_matches(guests: Iterable[Guest], domain: Domain, family: Family) -> tuple[PrefixMatch, ...]:
    """Return the prefixes of the guests, each once: guests of one host may share an anycast prefix."""
    reasons: dict[str, str] = {}
    for guest in guests:
        if guest.domain == domain.name:
            for route in guest.routes:
                if route.family == family:
                    reasons.setdefault(route.prefix, f"{guest.name}, {route.kind}")
    return tuple(_exact(prefix, why) for prefix, why in reasons.items())

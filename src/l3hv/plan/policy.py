"""Import policies: the announcements that a host accepts from its neighbours, table by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from l3hv.model.addressing import DEFAULT_ROUTE, HOST_LENGTH, is_inside, longer_than
from l3hv.model.choices import Announcer, Family
from l3hv.model.intent import Common, Domain, HostSlice
from l3hv.model.names import bird_table, own_policy_name, policy_name
from l3hv.model.plan import (
    DefaultRanking,
    ImportPolicy,
    NextHop,
    Owner,
    PrefixMatch,
    RankedNextHop,
    Refusal,
    Session,
)
from l3hv.model.text import natural_key
from l3hv.plan.prefix_matches import edge_matches, fabric_matches, match_of_prefix, pool_matches
from l3hv.plan.sessions import has_own_policies
from l3hv.plan.tables import has_one_table

WITH_DEFAULT_ROUTE: frozenset[Announcer] = frozenset({"reflectors", "edge_routers", "switches"})
"""The neighbours that a hypervisor accepts a default route from."""

REFUSALS = tuple(
    Refusal(number, name, why)
    for number, (name, why) in enumerate(
        (
            ("path", "its AS path is not empty: the neighbour may advertise only its own routes"),
            ("reflected", "it has an originator id or a cluster list, which only reflectors set"),
            ("loopback", "it is a loopback, but not the neighbour's"),
            ("prefix", "neighbours of this kind may not advertise this prefix"),
            ("owner", "the inventory does not assign it to this neighbour"),
            ("next_hop", "the neighbour may not use this next hop"),
            ("domain", "it has the community of no domain of its session, or of several"),
            (
                "reserved",
                "it contains the gateway, network or broadcast address of a pool, which no guest can have",
            ),
        ),
        start=1,
    )
)
"""The reasons to refuse an announcement."""


def import_policies(host_slice: HostSlice, sessions: Iterable[Session]) -> tuple[ImportPolicy, ...]:
    """Return the import policies for each kind of neighbours that the host has, table by table.

    If each hypervisor has a policy of its own, this policy accepts only the prefixes of its guests.
    """
    own: dict[str, Owner | None] = {}
    if has_own_policies(host_slice.host):
        by_name = {owner.host: owner for owner in host_slice.owners}
        own = {peer.name: by_name.get(peer.name) for peer in host_slice.peers if peer.kind == "hypervisor"}
    channels = (channel for session in sessions for channel in session.channels)
    used = {carried.policy for channel in channels for carried in channel.carries}
    return tuple(
        policy
        for domain in host_slice.common.domains
        for family in domain.families
        for policy in _policies(host_slice, domain, family, own)
        if policy.name in used
    )


def refusals(policies: Iterable[ImportPolicy], *, is_shared: bool) -> tuple[Refusal, ...]:
    """Return the refusals that ``policies`` use, and with ``is_shared`` those of shared sessions."""
    names = {"domain"} if is_shared else set()
    for policy in policies:
        names |= {"prefix", "next_hop"}
        names |= {"path", "reflected"} if policy.only_original else set()
        names |= {"loopback"} if policy.loopbacks is not None else set()
        names |= {"owner"} if policy.checks_owner else set()
        names |= {"reserved"} if policy.reserved else set()
    return tuple(refusal for refusal in REFUSALS if refusal.name in names)


def _policies(
    host_slice: HostSlice, domain: Domain, family: Family, own: Mapping[str, Owner | None]
) -> Iterator[ImportPolicy]:
    """Yield the policies of one table; ``own`` has the hypervisors with a policy of their own.

    A reflector is trusted with the prefixes of all kinds of hosts.  An attacker may control a hypervisor, so
    only the prefixes of its announcements are used, not their attributes.  An edge router may know the routes
    of the whole Internet, with attributes that its operator needs.  A client of a range is a hypervisor or an
    edge router.
    """
    common, host = host_slice.common, host_slice.host
    pools = tuple(pool_matches(common, domain, family))
    reserved = tuple(_reserved_matches(common, domain, family))
    of_fabric = fabric_matches(common, domain, family)
    of_edges = edge_matches(domain, family)
    if has_one_table(host) and domain.kind != "public":
        of_edges = of_edges[1:]  # without the default route: FRR has one table for all domains
    loopbacks = None if common.has_igp else domain.loopback(family)
    table = bird_table(domain.name, family)
    default = tuple(default_next_hops(host_slice, domain, family))

    def policy(
        neighbors: Announcer,
        accepts: tuple[PrefixMatch, ...],
        *,
        is_untrusted: bool = False,
        name: str | None = None,
    ) -> ImportPolicy:
        return ImportPolicy(
            name=name or policy_name(table, neighbors),
            table=table,
            family=family,
            neighbors=neighbors,
            accepts=accepts,
            reserved=reserved if neighbors in ("hypervisors", "clients") and name is None else (),
            loopbacks=str(loopbacks) if is_untrusted and loopbacks is not None else None,
            checks_owner=is_untrusted and name is None and host.settings.origin_validation == "strict",
            only_original=is_untrusted,
            silent=neighbors == "edge_routers",
            default_next_hops=default if neighbors in WITH_DEFAULT_ROUTE else (),
            default_ranking=default_ranking(family, default) if neighbors in WITH_DEFAULT_ROUTE else None,
        )

    yield policy("hypervisors", pools, is_untrusted=True)
    for hypervisor, owner in own.items():
        guests = tuple(_owned_matches(common, domain, family, owner)) if owner is not None else ()
        yield policy("hypervisors", guests, is_untrusted=True, name=own_policy_name(table, hypervisor))
    yield policy("edge_routers", of_edges)
    yield policy("reflectors", of_fabric if host.kind == "edge_router" else (*of_fabric, *of_edges))
    yield policy("switches", of_fabric if host.kind == "edge_router" else (*of_fabric, *of_edges))
    yield policy("clients", (*of_fabric, *of_edges))


def default_next_hops(host_slice: HostSlice, domain: Domain, family: Family) -> Iterator[NextHop]:
    """Yield the next hops of the default route in the order of preference, if it may have only one.

    Next hops on the first path come first, and on one path the edge router with the lowest id.
    """
    if host_slice.host.kind != "hypervisor" or host_slice.host.ecmp_of(domain.name) != "without_default":
        return
    for edge in sorted(host_slice.edges, key=lambda edge: (natural_key(edge.path), edge.id)):
        network = host_slice.common.network(edge.path, domain.name, family)
        if network is not None and domain.name in edge.domains:
            yield NextHop(edge.address_in(network), f"{edge.name}, path {edge.path}")


def default_ranking(family: Family, next_hops: tuple[NextHop, ...]) -> DefaultRanking | None:
    """Return the numbers that make a daemon prefer the first of ``next_hops``; None for fewer than two.

    >>> ranking = default_ranking("ipv4", (NextHop("198.51.100.120", "e1"), NextHop("198.51.100.121", "e2")))
    >>> ranking.factor, ranking.next_hops
    (2, (RankedNextHop(address='198.51.100.120', added=1, why='e1'),))
    """
    count = len(next_hops)
    if count < 2:
        return None
    ranked = (RankedNextHop(hop.address, count - 1 - i, hop.why) for i, hop in enumerate(next_hops[:-1]))
    return DefaultRanking(DEFAULT_ROUTE[family], count, tuple(ranked))


def _reserved_matches(common: Common, domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    """Yield the parts of pools that no guest can have: :mod:`l3hv.intent.guests` refuses them.

    A guest with such a route would receive the packets of other guests to their gateway or to all guests.
    """
    if family != "ipv4":
        return
    for pool in common.pools:
        if pool.domain != domain.name or pool.subnet is None or pool.gateway is None:
            continue
        reasons: dict[str, str] = {}
        for address, role in (
            (pool.gateway, "gateway"),
            (pool.subnet.network_address, "network address"),
            (pool.subnet.broadcast_address, "broadcast address"),
        ):
            for length in range(HOST_LENGTH[family], longer_than(pool.subnet) - 1, -1):
                if common.announce == "blocks" and length == pool.block_lengths.get(family):
                    continue  # a block may contain them: its hypervisor drops packets to them
                prefix = str(ip_network(f"{address}/{length}", strict=False))
                reasons.setdefault(prefix, f"{role} of the pool {pool.name}")
        yield from (match_of_prefix(prefix, why) for prefix, why in reasons.items())


def _owned_matches(common: Common, domain: Domain, family: Family, owner: Owner) -> Iterator[PrefixMatch]:
    """Yield the prefixes of a hypervisor's guests in one domain; ``owner`` has those of all domains."""
    pools = [prefix for pool in common.pools if pool.domain == domain.name for prefix in pool.prefixes]
    for prefix in getattr(owner, family):
        if any(is_inside(ip_network(prefix), pool) for pool in pools):
            yield match_of_prefix(prefix, f"guests of {owner.host}")

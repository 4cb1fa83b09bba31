"""The IGP between hosts (``l3hv_underlay: igp``): it carries their loopbacks, and no routes of guests.

Each domain and family has an instance of its own, on the uplinks of all paths.  All instances of one family
share a BIRD table, because a shared session resolves the next hops of all its domains in one table.

No host passes on the loopbacks of others, so no host forwards packets between others.  The sessions between
loopbacks therefore keep the protection of a TTL of 255.

If a host's daemon ends, its neighbours lose all its routes of the IGP, although its kernel still forwards.  A
less preferred route to all loopbacks (:func:`fallbacks`) then leads directly to the loopback, on each path:
the host answers ARP and neighbour solicitations for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.addressing import FAMILIES, HOST_LENGTH, LINK_LOCAL6, numbered
from l3hv.model.choices import Family
from l3hv.model.intent import Common, Domain, HostIntent, Peer, UplinkIntent, path_address
from l3hv.model.names import bird_table, igp_name, igp_table
from l3hv.model.plan import IgpInstance, IgpTable, OnLinkRoute, PathNeighbor

MAIN_TABLE = 254
"""The kernel's table ``main``."""

FALLBACK_METRIC = 4096
"""The metric of the kernel's routes from an uplink to loopbacks, plus the number of the path.

Routes to one prefix need different metrics.  No packet is looked up in ``main`` before the table of its
domain, so the metric decides only between paths, for the host's own traffic.
"""


def domains_of(common: Common, host: HostIntent) -> Iterator[tuple[Domain, Family]]:
    """Yield each domain and family of a host in an IGP; nothing without an IGP."""
    for domain in common.domains if common.has_igp else ():
        if domain.name in host.domains:
            for family in domain.families:
                yield domain, family


def own_loopback(domain: Domain, family: Family, number: int) -> str:
    """Return the loopback of the host with the id ``number`` in a domain."""
    prefix = domain.loopback(family)
    assert prefix is not None, "the intent requires loopbacks"
    return str(numbered(prefix, number))


def igp_instances(common: Common, host: HostIntent) -> tuple[IgpInstance, ...]:
    """Return the instances of the IGP on a host, one for each domain and family."""
    return tuple(
        IgpInstance(
            name=igp_name(domain.name, family),
            protocol=common.igp,
            domain=domain.name,
            family=family,
            table=igp_table(family),
            interfaces=tuple(uplink.interface for uplink in _uplinks(common, host, domain, family)),
            loopback=f"{own_loopback(domain, family, host.id)}/{HOST_LENGTH[family]}",
            loopbacks=str(domain.loopback(family)),
            length=HOST_LENGTH[family],
            ecmp_limit=1 if host.ecmp_of(domain.name) == "none" else host.settings.ecmp_limit,
            kernel=None if host.kind == "route_reflector" else bird_table(domain.name, family),
        )
        for domain, family in domains_of(common, host)
    )


def igp_tables(common: Common, host: HostIntent) -> tuple[IgpTable, ...]:
    """Return the BIRD tables of the loopbacks, one for each family.

    A reflector has no tables of domains in the kernel: there the routes are in ``main``.
    """
    families = {family for _, family in domains_of(common, host)}
    kernel_table = MAIN_TABLE if host.kind == "route_reflector" else None
    return tuple(
        IgpTable(igp_table(family), family, kernel_table) for family in FAMILIES if family in families
    )


def path_neighbors(common: Common, host: HostIntent, peers: Iterable[Peer]) -> tuple[PathNeighbor, ...]:
    """Return the addresses on the paths of the hosts with which a host has sessions over the IGP."""
    return tuple(
        neighbor
        for peer in (peers if common.has_igp else ())
        for uplink in host.uplinks
        for link in peer.links
        if link.path == uplink.path and uplink.domain in link.domains
        for neighbor in _neighbors(common, host, uplink, peer)
    )


def _neighbors(common: Common, host: HostIntent, uplink: UplinkIntent, peer: Peer) -> Iterator[PathNeighbor]:
    declared = next(link.addresses for link in peer.links if link.path == uplink.path)
    for family in FAMILIES:
        network = common.network(uplink.path, uplink.domain, family)
        if network is None:
            continue
        if family == "ipv6":
            own, theirs = (link_local(common, uplink.path, number) for number in (host.id, peer.id))
        else:
            own, theirs = host.address_in(network), path_address(network, peer.id, declared)
        yield PathNeighbor(
            peer.name, uplink.path, uplink.domain, family, uplink.interface, local=own, neighbor=theirs
        )


def link_local(common: Common, path: str, number: int) -> str:
    """Return the link-local address of the host with the id ``number`` on a path.

    An IGP of IPv6 has link-local next hops (RFC 2080, RFC 5340).  They contain the number of the path, so
    that the next hops of one host differ, and the id, so that verification knows them.
    """
    return str(LINK_LOCAL6.network_address + ((common.paths.index(path) + 1) << 32) + number)


def fallbacks(common: Common, host: HostIntent, uplink: UplinkIntent) -> tuple[OnLinkRoute, ...]:
    """Return the routes from an uplink to all loopbacks of its domain; a reflector forwards and has none."""
    if not common.has_igp or host.kind == "route_reflector":
        return ()
    metric = FALLBACK_METRIC + common.paths.index(uplink.path)
    return tuple(
        OnLinkRoute(family, str(domain.loopback(family)), metric)
        for domain, family in domains_of(common, host)
        if domain.name == uplink.domain and common.network(uplink.path, domain.name, family) is not None
    )


def _uplinks(common: Common, host: HostIntent, domain: Domain, family: Family) -> Iterator[UplinkIntent]:
    for uplink in host.uplinks:
        if uplink.domain == domain.name and common.network(uplink.path, domain.name, family) is not None:
            yield uplink

"""The intent of a fabric, from variables to the slice of it that one host's plan is made of.

Variables are read by :func:`parse_common` and :func:`parse_host`; what hosts need of each other is kept
small (:func:`member`), so that neither a host's slice nor the work for it grows with the fabric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from l3hv.errors import natural_key
from l3hv.fabric import COMMON_KEYS, parse_common
from l3hv.facts import Common, HostIntent, HostSlice, Largest, Link, Member, Peer
from l3hv.hosts import HOST_KEYS, KINDS, host_kind, parse_host
from l3hv.model import Owner, as_plain

__all__ = [
    "COMMON_KEYS",
    "HOST_KEYS",
    "KINDS",
    "Common",
    "HostIntent",
    "Member",
    "Peer",
    "Roster",
    "edges",
    "host_kind",
    "host_slice",
    "member",
    "neighbors",
    "parse_common",
    "parse_host",
    "peers",
]


def member(host: HostIntent) -> Member:
    """Return the part of a host that its neighbours in BGP need to know."""
    domains: dict[str, list[str]] = {}
    for uplink in host.uplinks:
        domains.setdefault(uplink.path, []).append(uplink.domain)
    links = tuple(
        Link(
            path,
            tuple(names),
            host.bgp_key(path),
            tuple(own for own in host.path_addresses if own.path == path),
        )
        for path, names in domains.items()
    )
    settings = host.settings
    return Member(
        name=host.name,
        kind=host.kind,
        id=host.id,
        daemon=settings.daemon,
        failure_profile=settings.failure_profile,
        session_layout=settings.session_layout,
        neighbors=settings.neighbors,
        links=links,
        managed=settings.managed,
        ttl_security=settings.ttl_security,
        prefix_limit=settings.prefix_limit,
    )


class Roster:
    """The members of a fabric, by the path that they are on."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._reflectors: dict[str, list[Peer]] = {}
        self._clients: dict[str, list[Peer]] = {}
        self._edges: dict[str, list[Peer]] = {}
        for host in sorted(members, key=lambda host: natural_key(host.name)):
            side = self._reflectors if host.kind == "route_reflector" else self._clients
            for link in host.links:
                side.setdefault(link.path, []).append(_peer(host, link))
                if host.kind == "edge_router":
                    self._edges.setdefault(link.path, []).append(_peer(host, link))

    def reflectors(self, path: str) -> list[Peer]:
        return self._reflectors.get(path, [])

    def clients(self, path: str) -> list[Peer]:
        """Return the hypervisors and edge routers on ``path``."""
        return self._clients.get(path, [])

    def edges(self, path: str) -> list[Peer]:
        return self._edges.get(path, [])


def _peer(host: Member, link: Link) -> Peer:
    return Peer(
        name=host.name,
        kind=host.kind,
        id=host.id,
        daemon=host.daemon,
        failure_profile=host.failure_profile,
        session_layout=host.session_layout,
        bgp_key=link.bgp_key,
        path=link.path,
        domains=link.domains,
        addresses=link.addresses,
        managed=host.managed,
        ttl_security=host.ttl_security,
        prefix_limit=host.prefix_limit,
    )


def peers(host: HostIntent, roster: Roster) -> tuple[Peer, ...]:
    """Return the neighbours of a host, sorted by path and name, reflectors first.

    Hypervisors and edge routers have sessions with the reflectors on their paths only, and a reflector
    that takes its clients from a range knows none of them.
    """
    found: list[Peer] = []
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        found += (peer for peer in roster.reflectors(path) if peer.name != host.name)
        if host.kind == "route_reflector" and host.settings.neighbors == "explicit":
            found += roster.clients(path)
    return tuple(found)


def neighbors(host: HostIntent, roster: Roster) -> list[str]:
    """Return the names of all hosts that have sessions with ``host``, also where it knows them by a range."""
    found: dict[str, None] = {}
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        clients = roster.clients(path) if host.kind == "route_reflector" else []
        found.update(
            (peer.name, None) for peer in [*roster.reflectors(path), *clients] if peer.name != host.name
        )
    return list(found)


def edges(host: HostIntent, roster: Roster) -> tuple[Peer, ...]:
    """Return the edge routers on the paths of a hypervisor that prefers one default route to the others."""
    if host.kind != "hypervisor" or "without_default" not in dict(host.ecmp).values():
        return ()
    paths = dict.fromkeys(uplink.path for uplink in host.uplinks)
    return tuple(peer for path in paths for peer in roster.edges(path))


def host_slice(
    common: Common,
    host: HostIntent,
    neighbours: Iterable[Peer],
    largest: Largest = Largest(),  # noqa: B008 - frozen
    owners: Callable[[], tuple[Owner, ...]] = tuple,
    *,
    edges: Iterable[Peer] = (),
    holders: Callable[[], Mapping[str, int]] = dict,
) -> dict[str, Any]:
    """Return, as plain data, everything that :func:`l3hv.plan.host_plan` makes a host's plan of.

    What other hypervisors have (:func:`l3hv.claims.largest`, :func:`l3hv.claims.owners`) is for reflectors,
    the latter only where they validate strictly: no other slice changes with somebody else's guests.
    ``edges`` are those that :func:`edges` returns.  ``holders`` (:func:`l3hv.claims.holders`) is for
    hypervisors that spread what their own guests hold: their slices change with the number of others that do.
    """
    is_reflector = host.kind == "route_reflector"
    is_strict = is_reflector and host.settings.origin_validation == "strict"
    counts = holders() if host.settings.anycast == "spread" and host.anycast else {}
    part = HostSlice(
        common=common,
        host=host,
        peers=tuple(neighbours),
        largest=largest if is_reflector else Largest(),
        owners=owners() if is_strict else (),
        edges=tuple(edges),
        holders=tuple((prefix, counts[prefix]) for prefix in host.anycast if counts.get(prefix, 1) > 1),
    )
    plain: dict[str, Any] = as_plain(part)
    return plain

"""The BGP neighbours of each host, computed from the few facts that neighbours need about each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from l3hv.model.choices import Reflection, Underlay
from l3hv.model.intent import HostIntent, Link, Member, Peer
from l3hv.model.text import natural_key


def member(host: HostIntent) -> Member:
    """Return the facts about a host that its BGP neighbours need."""
    domains: dict[str, list[str]] = {}
    for uplink in host.uplinks:
        domains.setdefault(uplink.path, []).append(uplink.domain)
    links = tuple(
        Link(
            path,
            tuple(names),
            host.bgp_key(path),
            tuple(declared for declared in host.path_addresses if declared.path == path),
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
        mtu=settings.mtu,
        managed=settings.managed,
        ttl_security=settings.ttl_security,
        prefix_limit=settings.prefix_limit,
        turn=host.turn,
        bgp_keys=host.bgp_keys,
    )


class Roster:
    """The reflectors, clients and edge routers of a fabric, by path."""

    def __init__(self, members: Iterable[Member], reflection: Reflection, underlay: Underlay = "l2") -> None:
        self._is_mesh = reflection == "mesh"
        self.has_igp = underlay == "igp"
        self._by_role: dict[bool, list[Member]] = {True: [], False: []}
        self._reflectors: dict[str, list[Peer]] = {}
        self._clients: dict[str, list[Peer]] = {}
        self._edges: dict[str, list[Peer]] = {}
        for host in sorted(members, key=lambda host: natural_key(host.name)):
            self._by_role[host.kind == "route_reflector"].append(host)
            by_path = self._reflectors if host.kind == "route_reflector" else self._clients
            for link in host.links:
                by_path.setdefault(link.path, []).append(_peer(host, link))
                if host.kind == "edge_router":
                    self._edges.setdefault(link.path, []).append(_peer(host, link))

    def reflectors(self, path: str) -> list[Peer]:
        return self._reflectors.get(path, [])

    def clients(self, path: str) -> list[Peer]:
        """Return the hypervisors and edge routers on ``path``."""
        return self._clients.get(path, [])

    def mesh(self, path: str, host: HostIntent) -> list[Peer]:
        """Return the neighbours of a host in a mesh: edge routers have no sessions with each other."""
        return [
            peer
            for peer in (self.clients(path) if self._is_mesh else ())
            if peer.name != host.name and "hypervisor" in (peer.kind, host.kind)
        ]

    def over_igp(self, host: HostIntent) -> list[Peer]:
        """Return the neighbours of a host that has sessions over an IGP, each once.

        They are the reflectors that share an L2 network with it, and of a reflector its clients.
        """
        places = {(uplink.path, uplink.domain) for uplink in host.uplinks}
        is_reflector = host.kind == "route_reflector"
        found = []
        for other in self._by_role[not is_reflector]:
            shared = {d for link in other.links for d in link.domains if (link.path, d) in places}
            if shared:
                turn = host.turn if is_reflector else other.turn
                link = Link(
                    turn, tuple(d for d in host.domains if d in shared), dict(other.bgp_keys).get(turn)
                )
                found.append(replace(_peer(other, link), links=other.links))
        return found

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
        mtu=host.mtu,
        addresses=link.addresses,
        managed=host.managed,
        ttl_security=host.ttl_security,
        prefix_limit=host.prefix_limit,
    )


def peers(host: HostIntent, roster: Roster) -> tuple[Peer, ...]:
    """Return the neighbours of a host, sorted by path and name, reflectors first.

    Hypervisors and edge routers have sessions only with the reflectors on their paths, or in a mesh with each
    other.  With an IGP a reflector is on all paths.  The clients of a reflector that accepts them from a
    range are not listed.
    """
    if roster.has_igp:
        return tuple(roster.over_igp(host))
    neighbors: list[Peer] = []
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        neighbors += (peer for peer in roster.reflectors(path) if peer.name != host.name)
        neighbors += roster.mesh(path, host)
        if host.kind == "route_reflector" and host.settings.neighbors == "explicit":
            neighbors += roster.clients(path)
    return tuple(neighbors)


def neighbor_names(host: HostIntent, roster: Roster) -> list[str]:
    """Return the names of all hosts that have sessions with ``host``, including the clients of a range."""
    if roster.has_igp:
        return [peer.name for peer in roster.over_igp(host)]
    names: dict[str, None] = {}
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        clients = roster.clients(path) if host.kind == "route_reflector" else roster.mesh(path, host)
        names.update(
            (peer.name, None) for peer in [*roster.reflectors(path), *clients] if peer.name != host.name
        )
    return list(names)


def edges(host: HostIntent, roster: Roster) -> tuple[Peer, ...]:
    """Return the edge routers on the paths of a hypervisor that prefers one default route; else none."""
    if host.kind != "hypervisor" or "without_default" not in dict(host.ecmp).values():
        return ()
    paths = dict.fromkeys(uplink.path for uplink in host.uplinks)
    return tuple(peer for path in paths for peer in roster.edges(path))

"""The BGP neighbours of each host, computed from the few facts that neighbours need about each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from l3hv.intent.links import link_addresses
from l3hv.model.intent import Common, HostIntent, Link, Member, PathAddress, PathNetwork, Peer
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
        asn=host.asn,
        down=tuple(dict.fromkeys(uplink.path for uplink in host.uplinks if uplink.link == "down")),
        edge_domains=host.edge_domains,
        turn=host.turn,
        bgp_keys=host.bgp_keys,
    )


class Roster:
    """The reflectors, clients and edge routers of a fabric, by path."""

    def __init__(self, members: Iterable[Member], common: Common) -> None:
        self._common = common
        self._is_mesh = common.is_mesh
        self._by_role: dict[bool, list[Member]] = {True: [], False: []}
        if common.has_links:
            members = list(members)
            self._by_name = {host.name: host for host in members}
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

    @property
    def has_links(self) -> bool:
        return self._common.has_links

    @property
    def has_igp(self) -> bool:
        return self._common.has_igp

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

    def linked(self, host: HostIntent) -> Iterator[Peer]:
        """Yield the hosts at the other ends of a host's links, in the order of the links."""
        own = self._by_name[host.name]
        for link in own.links:
            other = self._by_name.get(link.path)
            there = next((one for one in other.links if one.path == host.name), None) if other else None
            if other is None or there is None:
                continue  # l3hv.intent.links refuses a link with one end
            theirs = tuple(
                PathAddress(other.name, domain, address)
                for domain, _, _, address in link_addresses(self._common, own, link, other)
            )
            yield _peer(other, replace(there, path=other.name, domains=link.domains, addresses=theirs))

    def with_links(self, common: Common, host: HostIntent) -> tuple[Common, HostIntent]:
        """Return the fabric with the networks of a host's links, and the host with its addresses there."""
        if not common.has_links:
            return common, host
        own = self._by_name[host.name]
        networks, addresses = [], []
        for link in own.links:
            if (other := self._by_name.get(link.path)) is None:
                continue
            for domain, prefix, address, _ in link_addresses(common, own, link, other):
                networks.append(PathNetwork(link.path, domain, prefix))
                addresses.append(PathAddress(link.path, domain, address))
        return replace(common, networks=tuple(networks)), replace(host, path_addresses=tuple(addresses))

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
        asn=host.asn,
    )


def peers(host: HostIntent, roster: Roster) -> tuple[Peer, ...]:
    """Return the neighbours of a host, sorted by path and name, reflectors first.

    Hypervisors and edge routers have sessions only with the reflectors on their paths, or in a mesh with each
    other.  With an IGP a reflector is on all paths.  The clients of a reflector that accepts them from a
    range are not listed.
    """
    if roster.has_links:
        return tuple(roster.linked(host))
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
    if roster.has_links:
        return [peer.name for peer in roster.linked(host)]
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

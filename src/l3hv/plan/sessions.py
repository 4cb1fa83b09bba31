"""The BGP sessions of a host with each neighbour on a path: one session, one per domain, or one per family.

The neighbours are the reflectors of the path, or in a mesh all other hypervisors and edge routers there.
Each path has reflectors of its own: a reflector on several paths would advertise only its best path, and hide
the others from clients that cannot use the best one.  With an IGP each host has one session with each
reflector, from loopback to loopback, and the next hop of a route has all paths.  One end of each session is
passive: if both ends opened the session after a restart, the collision would drop the routes that graceful
restart keeps.

:func:`_carried` decides which next hops are accepted from a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from l3hv.model.addressing import FAMILIES, Network, family_of_text, numbered
from l3hv.model.choices import Announcer, FailureProfile, Family, Kind, Relation, SessionLayout
from l3hv.model.daemons import DAEMONS, WITH_ROA_TABLES, WITHOUT_PEER_ADDRESS
from l3hv.model.intent import Common, Domain, HostIntent, Largest, PathNetwork, Peer, UplinkIntent
from l3hv.model.names import (
    CLIENTS,
    SHARED,
    bird_symbol,
    bird_table,
    igp_table,
    next_hop_table,
    own_policy_name,
    policy_name,
    shared_table,
)
from l3hv.model.plan import CarriedDomain, Channel, Daemon, PrefixLimit, Session, Timers
from l3hv.model.profiles import (
    BFD_PROFILES,
    FAILURE_PROFILES,
    KEEPING_PROFILES,
    SESSION_LAYOUTS,
    layout_between,
    profile_between,
)
from l3hv.model.text import natural_key
from l3hv.plan.tunnels import sets_onlink, untunnelled

ANNOUNCERS: dict[Kind, Announcer] = {
    "hypervisor": "hypervisors",
    "edge_router": "edge_routers",
    "route_reflector": "reflectors",
    "leaf": "switches",
    "spine": "switches",
}

Setting = TypeVar("Setting")

LOOPBACK = "lo"
"""The interface of sessions between loopbacks."""

LEAST_PREFIX_LIMIT = 128
"""The minimum prefix limit of a hypervisor, which applies in small fabrics."""


def has_own_policies(host: HostIntent) -> bool:
    """Tell whether this host has a separate list of allowed prefixes for each hypervisor."""
    settings = host.settings
    return settings.origin_validation == "strict" and settings.daemon not in WITH_ROA_TABLES


def sessions(
    common: Common, host: HostIntent, peers: tuple[Peer, ...], largest: Largest
) -> tuple[Session, ...]:
    """Return the sessions of a host in the order of its uplinks and their neighbours."""
    return tuple(
        session
        for uplink in (_on_loopback(host, peers) if common.has_igp else host.uplinks)
        for peer in peers
        if peer.path == uplink.path and uplink.domain in peer.domains
        for session in _sessions(common, host, uplink, peer, largest)
    )


def _on_loopback(host: HostIntent, peers: Iterable[Peer]) -> Iterator[UplinkIntent]:
    """Yield the loopback as the uplink of sessions over an IGP, once for each path and domain of peers."""
    for path in sorted({peer.path for peer in peers}, key=natural_key):
        for domain in host.domains:
            yield UplinkIntent(path, domain, LOOPBACK, None)


def ranges(common: Common, host: HostIntent, largest: Largest) -> tuple[Session, ...]:
    """Return the sessions of a reflector with a range: any host of the path can be their other end.

    The neighbour of such a session is a prefix: the path's prefix in the domain that the session runs in.
    """
    found = []
    for session in sessions(common, host, any_client(host), largest):
        network = common.network(session.path, session.domain, family_of_text(session.local))
        assert network is not None
        found.append(replace(session, peer="", neighbor=str(network.prefix)))
    return tuple(found)


def any_client(host: HostIntent) -> tuple[Peer, ...]:
    """Return a peer for all clients of a reflector with a range, with the reflector's settings."""
    if host.settings.neighbors != "range":
        return ()
    return (
        Peer(
            name=CLIENTS,
            kind="hypervisor",
            id=host.id,
            daemon=host.settings.daemon,
            failure_profile=host.settings.failure_profile,
            session_layout=host.settings.session_layout,
            bgp_key=None,
            path=host.uplinks[0].path,
            domains=host.domains,
            mtu=host.settings.mtu,
            addresses=host.path_addresses,
            asn=host.asn,
        ),
    )


def _sessions(
    common: Common, host: HostIntent, uplink: UplinkIntent, peer: Peer, largest: Largest
) -> Iterator[Session]:
    """Yield the sessions with one neighbour that run in one domain's network, IPv4 first."""
    networks = _networks(common, uplink.path, uplink.domain)
    if common.has_links:
        families = common.domain(uplink.domain).families
        networks = [_of_family(networks, family) for family in families]
    layout = session_layout(host, peer)
    symbol, domain = bird_symbol(peer.name), bird_symbol(uplink.domain)
    if _relation(host, peer) == "mesh":
        symbol = f"{symbol}_{uplink.path}"  # a reflector is on one path, a host of a mesh on several
    carried_by: dict[str, list[PathNetwork]] = {}
    match layout:
        case "per_family":
            for network in networks:
                carried_by[bird_table(uplink.domain, network.family)] = [network]
        case "multiprotocol":
            carried_by[domain] = networks
        case "shared":
            common_domains = [
                u.domain for u in host.uplinks if u.path == peer.path and u.domain in peer.domains
            ]
            if common.has_igp:
                common_domains = list(peer.domains)
            # The session runs in the network of the first domain and carries the others.
            if uplink.domain == common_domains[0]:
                carried_by[SHARED] = [
                    network for name in common_domains for network in _networks(common, uplink.path, name)
                ]
    for name, carried in carried_by.items():
        channels = tuple(_channels(common, host, peer, carried, layout=layout, largest=largest))
        yield _session(
            host,
            uplink,
            peer,
            name=f"{symbol}_{name}",
            layout=layout,
            network=carried[0],
            channels=channels,
        )


def _of_family(networks: list[PathNetwork], family: Family) -> PathNetwork:
    """Return the network of a link whose addresses are the next hops of a family.

    An unnumbered link has only link-local addresses, which are next hops of IPv4, too (RFC 8950).
    """
    return next((network for network in networks if network.family == family), networks[0])


def _networks(common: Common, path: str, domain: str) -> list[PathNetwork]:
    if common.has_igp:
        found = [common.loopback_network(domain, family) for family in FAMILIES]
    else:
        found = [common.network(path, domain, family) for family in FAMILIES]
    return [network for network in found if network is not None]


def _session(
    host: HostIntent,
    uplink: UplinkIntent,
    peer: Peer,
    *,
    name: str,
    layout: SessionLayout,
    network: PathNetwork,
    channels: tuple[Channel, ...],
) -> Session:
    """Return the session with ``channels`` that runs in ``network``."""
    profile = failure_profile(host, peer)
    return Session(
        name=name,
        peer=peer.name,
        path=uplink.path,
        domain=uplink.domain,
        vrf=host.vrf_of(uplink.domain),
        domains=tuple(dict.fromkeys(part.domain for channel in channels for part in channel.carries)),
        layout=layout,
        interface=uplink.interface,
        local=host.address_in(network),
        neighbor=peer.address_in(network),
        asn=peer.asn,
        relation=_relation(host, peer),
        passive=_is_passive(host, peer),
        failure_profile=profile,
        bfd=profile in BFD_PROFILES and uplink.interface != LOOPBACK,
        key=session_key(host, peer),
        ttl_security=host.settings.ttl_security and peer.ttl_security,
        unnumbered=network.family == "ipv6" and network.prefix.is_link_local,
        channels=channels,
    )


def _channels(
    common: Common,
    host: HostIntent,
    peer: Peer,
    networks: list[PathNetwork],
    *,
    layout: SessionLayout,
    largest: Largest,
) -> Iterator[Channel]:
    """Yield the channels of a session that carries the routes of ``networks`` over the first of them."""
    for family in FAMILIES:
        carries = tuple(
            _carried(common, host, peer, network, family, is_direct=network == networks[0])
            for network in networks
            if _carries(common, network, family)
        )[: None if layout == "shared" else 1]
        if carries:
            table = shared_table(family) if layout == "shared" else carries[0].table
            limit = prefix_limit(host, peer, getattr(largest, family))
            yield Channel(family, table, carries, limit, _next_hop_table(common, host, family))


def _next_hop_table(common: Common, host: HostIntent, family: Family) -> str | None:
    """Return the BIRD table in which a host looks up next hops that are not on its links."""
    if common.has_igp:
        return igp_table(family)
    return next_hop_table(family) if common.has_tunnels(host) else None


def _carries(common: Common, network: PathNetwork, family: Family) -> bool:
    """Tell whether the addresses of a network are next hops of a family.

    The addresses of unnumbered links are next hops of all families of the domain (RFC 8950).
    """
    if common.is_unnumbered:
        return family in common.domain(network.domain).families
    return network.family == family


def _carried(
    common: Common, host: HostIntent, peer: Peer, network: PathNetwork, family: Family, *, is_direct: bool
) -> CarriedDomain:
    """Return one domain of a channel: its import policy, next hops and loopback of the peer.

    The next hop of a named client must be its own address; a reflector may use any address of the path.  With
    ``is_direct`` the session runs in ``network`` itself: the next hop of a client of a range can then be
    compared with the address of the session's other end.
    """
    neighbors = _announcer(peer)
    table = bird_table(network.domain, family)
    single = network.prefix.max_prefixlen
    policy, owner, loopback = policy_name(table, neighbors), None, None
    if neighbors == "hypervisors":
        loopbacks = common.domain(network.domain).loopback(family)
        if loopbacks is not None and not common.has_igp:  # an IGP carries the loopbacks
            loopback = _own_loopback(loopbacks, peer)
        if has_own_policies(host):
            policy = own_policy_name(table, peer.name)
        elif host.settings.origin_validation == "strict":
            owner = peer.id
    is_named_client = neighbors in ("hypervisors", "edge_routers", "switches")
    # BIRD shows a link-local next hop as ::, because the link has no other address.
    next_hop = "::" if common.is_unnumbered else peer.address_in(network)
    return CarriedDomain(
        domain=network.domain,
        table=table,
        own_next_hop=None if host.kind == "route_reflector" else host.address_in(network),
        policy=policy,
        accepted_next_hops=f"{next_hop}/{single}" if is_named_client else str(network.prefix),
        accepted_next_hop_length=None if is_named_client or network.prefix.prefixlen == single else single,
        direct_next_hop=neighbors == "clients" and is_direct and _version(host) not in WITHOUT_PEER_ADDRESS,
        loopback=loopback,
        owner=owner,
        sets_onlink=sets_onlink(common, host, network.family),
        untunnelled=untunnelled(common, host, network),
    )


def _version(host: HostIntent) -> str:
    return DAEMONS[host.settings.daemon, host.settings.system].version


def _announcer(peer: Peer) -> Announcer:
    if peer.name == CLIENTS:
        return "clients"
    return ANNOUNCERS[peer.kind]


def _own_loopback(prefix: Network, peer: Peer) -> str:
    """Return a neighbour's own address among the loopbacks, as a prefix."""
    return f"{numbered(prefix, peer.id)}/{prefix.max_prefixlen}"


def prefix_limit(host: HostIntent, peer: Peer, most: int) -> PrefixLimit | None:
    """Return the prefix limit of a reflector for a client in one family.

    The client's ``l3hv_prefix_limit`` takes precedence over the reflector's.  Without both, the limit follows
    from the inventory, where no hypervisor has more than ``most`` prefixes.  An edge router has only its own
    limit.
    """
    settings, relation = host.settings, _relation(host, peer)
    if relation not in ("client", "mesh", "attached"):
        return None
    accepted = peer.prefix_limit
    if accepted is None and peer.kind == "hypervisor":
        own = settings.prefix_limit if relation != "mesh" else None  # in a mesh it limits this host itself
        accepted = own or _limit(most, settings.prefix_limit_margin)
    return None if accepted is None else PrefixLimit(accepted, 2 * accepted, settings.prefix_limit_action)


def _limit(most: int, margin: int) -> int:
    """Return the prefix limit of a hypervisor in a fabric where each has at most ``most`` prefixes.

    It allows a hypervisor to take over all guests of another one, and one loopback, plus a margin in percent.
    It grows in powers of two, so that a new guest rarely changes the configuration of a reflector.

    >>> _limit(3, 50), _limit(100, 50)
    (128, 512)
    """
    needed = (2 * most + 1) * (100 + margin) // 100
    return max(LEAST_PREFIX_LIMIT, 1 << needed.bit_length())


def failure_profile(host: HostIntent, peer: Peer) -> FailureProfile:
    """Return the failure profile of both ends of a session: a reflector uses the profile of its client.

    Two reflectors of one path, and two hosts of a mesh, use the one that comes later in
    :data:`FAILURE_PROFILES`, which demands less.  BFD is left out if one of the ends has none.
    """
    return profile_between(_agreed_profile(host, peer), {host.settings.daemon, peer.daemon})


def _agreed_profile(host: HostIntent, peer: Peer) -> FailureProfile:
    own, theirs = host.settings.failure_profile, peer.failure_profile
    return _decided(host, peer, own, theirs, max(own, theirs, key=FAILURE_PROFILES.index))


def session_layout(host: HostIntent, peer: Peer) -> SessionLayout:
    """Return the layout of the sessions of two hosts: a reflector uses the layout of its client.

    Two reflectors of one path, and two hosts of a mesh, use the one that comes first in
    :data:`SESSION_LAYOUTS`, which carries less.
    If either end is a daemon with a process per family, each session carries one family.  If either end is a
    daemon with an instance per domain, no session carries several domains.
    """
    return layout_between(_agreed_layout(host, peer), {host.settings.daemon, peer.daemon})


def _agreed_layout(host: HostIntent, peer: Peer) -> SessionLayout:
    own, theirs = host.settings.session_layout, peer.session_layout
    return _decided(host, peer, own, theirs, min(own, theirs, key=SESSION_LAYOUTS.index))


def session_key(host: HostIntent, peer: Peer) -> str | None:
    """Return the name of the key of the sessions of two hosts: a reflector uses the key of its client.

    Two reflectors of one path, and two hosts of a mesh, use the key of the first by name that has one.
    """
    own, theirs = host.bgp_key(peer.path), peer.bgp_key
    keys = {host.name: own, peer.name: theirs}
    first = next((keys[name] for name in sorted(keys, key=natural_key) if keys[name] is not None), None)
    return _decided(host, peer, own, theirs, first)


def _decided(host: HostIntent, peer: Peer, own: Setting, theirs: Setting, between: Setting) -> Setting:
    """Return the value of a setting that both ends share: a client decides, other hosts use ``between``."""
    match _relation(host, peer):
        case "reflector" | "switch":
            return own
        case "client" | "attached":
            return theirs
    return between


def _relation(host: HostIntent, peer: Peer) -> Relation:
    """Return what the neighbour is to the host: on a link a switch above it, or a host attached to it."""
    if peer.kind == "spine" or (peer.kind == "leaf" and host.kind != "spine"):
        return "switch"
    if host.is_switch:
        return "attached"
    if host.kind == "route_reflector":
        return "reflector_of_path" if peer.kind == "route_reflector" else "client"
    return "reflector" if peer.kind == "route_reflector" else "mesh"


def _is_passive(host: HostIntent, peer: Peer) -> bool:
    """Tell whether the host waits until the neighbour opens the session."""
    relation = _relation(host, peer)
    if relation in ("reflector", "switch"):
        return False
    if relation == "attached":
        # FRR 10 does not call a neighbour while BFD is down, and starts BFD of an end that waits only with
        # the session: two of them, one of which waits, never find each other again.
        return not host.settings.daemon == peer.daemon == "frr"
    return relation == "client" or host.id < peer.id


def router_id(common: Common, host: HostIntent) -> str:
    """Return the host's BGP identifier: one of its IPv4 addresses, or a value made of its id.

    The loopback in the private domain is preferred, because it does not depend on an uplink.  Without IPv4
    the value of a reflector begins with the number of its path: reflectors on different paths may have the
    same id.
    """
    return next(_router_ids(common, host))


def _router_ids(common: Common, host: HostIntent) -> Iterator[str]:
    for domain in _private_first(common):
        loopback = domain.loopback("ipv4")
        if common.has_loopbacks(host) and loopback is not None and domain.name in host.domains:
            yield str(numbered(loopback, host.id))
    for domain in common.domains:
        for uplink in host.uplinks:
            network = common.network(uplink.path, uplink.domain, "ipv4")
            if uplink.domain == domain.name and network is not None:
                yield host.address_in(network)
    path = common.paths.index(host.uplinks[0].path) + 1 if host.kind == "route_reflector" else 0
    yield ".".join(map(str, (path, *host.id.to_bytes(3, "big"))))


def _private_first(common: Common) -> tuple[Domain, ...]:
    return tuple(sorted(common.domains, key=lambda domain: domain.kind != "private"))


def session_digests(
    sessions_of_host: Iterable[Session], timers: Timers, daemon: Daemon, hops: int | None = None
) -> tuple[str, ...]:
    """Return a digest of the sessions of each path, `a=0a1b2c3d`: the sessions restart when it changes.

    The result is empty for a host whose daemon must not stop to restart its sessions: its neighbours would
    drop its routes, or it is a reflector.
    """
    on_path: dict[str, list[str]] = {}
    for session in sessions_of_host:
        if session.failure_profile not in KEEPING_PROFILES or session.relation not in ("reflector", "switch"):
            return ()
        ends = (session.name, session.local, session.neighbor, session.passive, session.ttl_security)
        agreed = (session.layout, session.failure_profile)  # without the key: keys change path by path
        channels = [(channel.family, channel.table) for channel in session.channels]
        settings = f"{ends} {agreed} {channels} {daemon.bounds_restart}"
        if hops is not None:
            settings += f" {hops} {[channel.next_hop_table for channel in session.channels]}"
        on_path.setdefault(session.path, []).append(settings)
    negotiated = replace(timers, bfd_interval_ms=0, bfd_multiplier=0)  # BFD's timers can change at run time
    return tuple(
        f"{path}={sha256(f'{sorted(texts)} {negotiated}'.encode()).hexdigest()[:8]}"
        for path, texts in sorted(on_path.items())
    )

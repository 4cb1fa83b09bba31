"""The BGP sessions of a host: one per path, domain and neighbour, with a channel per family.

A path has reflectors of its own: a reflector that saw several paths would pass on the one it prefers, and
hide the others from clients that cannot use that one.  Where both ends could open a session the passive
one waits: a collision after a restart would drop the routes that graceful restart keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from l3hv.addressing import FAMILIES, Network, numbered
from l3hv.facts import Common, Domain, HostIntent, Largest, PathNetwork, Peer, UplinkIntent
from l3hv.model import Announcer, Channel, FailureProfile, Family, PrefixLimit, Session

Relation = Literal["reflector", "client", "peer"]

FAILURE_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "bfd", "graceful_restart", "link", "none")
"""What is done about a dead path, neighbour or daemon, the more demanding first."""

BFD_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "bfd")

LEAST_PREFIX_LIMIT = 128
"""What is taken from each hypervisor of a small fabric."""

_NOT_IN_SYMBOLS = re.compile(r"[^A-Za-z0-9_]")


def bird_symbol(name: str) -> str:
    """Return a host's or domain's name in the characters that BIRD allows in a symbol.

    >>> bird_symbol("hv-1.example.net"), bird_symbol("10hv")
    ('hv_1_example_net', '_10hv')
    """
    symbol = _NOT_IN_SYMBOLS.sub("_", name)
    return f"_{symbol}" if symbol[0].isdigit() else symbol


def bird_table(domain: str, family: Family) -> str:
    """Return the name of the BIRD table of a domain in one family.

    >>> bird_table("public", "ipv6"), bird_table("local-out", "ipv4")
    ('public6', 'local_out4')
    """
    return f"{bird_symbol(domain)}{4 if family == 'ipv4' else 6}"


def policy_name(table: str, neighbors: Announcer) -> str:
    """Return the name of the import policy of a table for neighbours of one kind."""
    return f"accept_{table}_from_{neighbors}"


def sessions(
    common: Common, host: HostIntent, peers: tuple[Peer, ...], largest: Largest
) -> tuple[Session, ...]:
    """Return the sessions of a host in the order of its uplinks and their neighbours."""
    return tuple(
        _session(common, host, uplink, peer, largest)
        for uplink in host.uplinks
        for peer in peers
        if peer.path == uplink.path and uplink.domain in peer.domains
    )


def _session(common: Common, host: HostIntent, uplink: UplinkIntent, peer: Peer, largest: Largest) -> Session:
    networks = [
        network
        for family in FAMILIES
        if (network := common.network(uplink.path, uplink.domain, family)) is not None
    ]
    transport = networks[0].prefix
    is_reflector = host.kind == "route_reflector"
    profile = failure_profile(host, peer)
    return Session(
        name=f"{bird_symbol(peer.name)}_{bird_symbol(uplink.domain)}",
        peer=peer.name,
        path=uplink.path,
        domain=uplink.domain,
        interface=uplink.interface,
        local=str(numbered(transport, host.id)),
        neighbor=str(numbered(transport, peer.id)),
        relation=_relation(host, peer),
        passive=is_reflector and (peer.kind != "route_reflector" or host.id < peer.id),
        failure_profile=profile,
        bfd=profile in BFD_PROFILES,
        channels=tuple(_channel(common, host, peer, network, largest) for network in networks),
    )


def _channel(common: Common, host: HostIntent, peer: Peer, network: PathNetwork, largest: Largest) -> Channel:
    """Return one family of a session: a reflector's clients are judged one by one, reflectors are trusted."""
    family, table = network.family, bird_table(network.domain, network.family)
    next_hop = None if host.kind == "route_reflector" else str(numbered(network.prefix, host.id))
    if peer.kind == "route_reflector":
        policy, next_hops = policy_name(table, "reflectors"), str(network.prefix)
        return Channel(family, table, next_hop, policy, next_hops, loopback=None, owner=None, limit=None)
    next_hops = _own(network.prefix, peer)
    if peer.kind == "edge_router":
        policy = policy_name(table, "edge_routers")
        return Channel(family, table, next_hop, policy, next_hops, loopback=None, owner=None, limit=None)
    loopbacks = common.domain(network.domain).loopback(family)
    accepted = _limit(getattr(largest, family), host.settings.prefix_limit_margin)
    return Channel(
        family,
        table,
        next_hop,
        policy_name(table, "hypervisors"),
        next_hops,
        loopback=None if loopbacks is None else _own(loopbacks, peer),
        owner=peer.id if host.settings.origin_validation == "strict" else None,
        limit=PrefixLimit(accepted, 2 * accepted, host.settings.prefix_limit_action),
    )


def _own(prefix: Network, peer: Peer) -> str:
    """Return a neighbour's own address of a prefix of the fabric, as a prefix."""
    return f"{numbered(prefix, peer.id)}/{prefix.max_prefixlen}"


def _limit(most: int, margin: int) -> int:
    """Return how many prefixes are taken from a hypervisor where no other has more than ``most``.

    Any hypervisor can take in the guests of any other, with a margin in percent, and a loopback.  In steps
    of a power of two, so that a guest more rarely changes a reflector.

    >>> _limit(3, 50), _limit(100, 50)
    (128, 512)
    """
    needed = (2 * most + 1) * (100 + margin) // 100
    return max(LEAST_PREFIX_LIMIT, 1 << needed.bit_length())


def failure_profile(host: HostIntent, peer: Peer) -> FailureProfile:
    """Return what both ends of a session do about failures: a reflector does what its client does.

    Two reflectors of one path agree on what comes later in :data:`FAILURE_PROFILES`, which asks for less.
    """
    if host.kind != "route_reflector":
        return host.settings.failure_profile
    if peer.kind != "route_reflector":
        return peer.failure_profile
    return max(host.settings.failure_profile, peer.failure_profile, key=FAILURE_PROFILES.index)


def _relation(host: HostIntent, peer: Peer) -> Relation:
    if host.kind != "route_reflector":
        return "reflector"
    return "peer" if peer.kind == "route_reflector" else "client"


def router_id(common: Common, host: HostIntent) -> str:
    """Return the host's BGP identifier: an IPv4 address of its own, or one made of its id.

    Preferred is the loopback in the private domain, which no uplink can take away.  In a fabric without
    IPv4 reflectors, which may share an id on different paths, put the number of their path first.
    """
    return next(_router_ids(common, host))


def _router_ids(common: Common, host: HostIntent) -> Iterator[str]:
    for domain in _private_first(common):
        loopback = domain.loopback("ipv4")
        if host.kind == "hypervisor" and loopback is not None and domain.name in host.domains:
            yield str(numbered(loopback, host.id))
    for domain in common.domains:
        for uplink in host.uplinks:
            network = common.network(uplink.path, uplink.domain, "ipv4")
            if uplink.domain == domain.name and network is not None:
                yield str(numbered(network.prefix, host.id))
    path = common.paths.index(host.uplinks[0].path) + 1 if host.kind == "route_reflector" else 0
    yield ".".join(map(str, (path, *host.id.to_bytes(3, "big"))))


def _private_first(common: Common) -> tuple[Domain, ...]:
    return tuple(sorted(common.domains, key=lambda domain: domain.kind != "private"))

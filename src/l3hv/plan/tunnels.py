"""The tunnels to hosts in other subnets of a path: their devices, and the tables of next hops behind them.

The devices have no far end of their own: the next hop of a route is the destination of the outer packet.  So
a host needs one device for each of its addresses on paths, and none for each other host.
"""

from __future__ import annotations

from collections.abc import Iterator

from l3hv.model.addressing import FAMILIES, HOST_LENGTH, OUTER_HEADER, family_of
from l3hv.model.choices import DaemonName, Family, TunnelKind
from l3hv.model.intent import Common, HostIntent, PathNetwork, UplinkIntent
from l3hv.model.names import FALLBACK_DEVICES, next_hop_table
from l3hv.model.plan import NextHopRoute, NextHopTable, Tunnel

KINDS: dict[Family, TunnelKind] = {"ipv4": "ipip", "ipv6": "ip6tnl"}

WITHOUT_ONLINK_OF_TABLES: frozenset[DaemonName] = frozenset({"bird2"})
"""Daemons that do not take the mark ``onlink`` of a next hop from the table in which they look it up."""

ONLINK_FAMILIES: frozenset[Family] = frozenset({"ipv4"})
"""The families in which the kernel accepts ``onlink`` for a next hop that another interface leads to.

Linux refuses it in IPv6 ("Nexthop has invalid gateway or device mismatch"), and looks for a route to the next
hop on the device itself instead.
"""


def _networks(common: Common, host: HostIntent) -> Iterator[tuple[UplinkIntent, PathNetwork]]:
    if not common.has_tunnels(host):
        return
    for uplink in host.uplinks:
        for family in FAMILIES:
            network = common.network(uplink.path, uplink.domain, family)
            if network is not None:
                yield uplink, network


def tunnels(common: Common, host: HostIntent) -> tuple[Tunnel, ...]:
    """Return the tunnel devices of a host, in the order of its uplinks."""
    return tuple(
        Tunnel(
            interface=host.tunnel_in(network),
            kind=KINDS[network.family],
            family=network.family,
            path=network.path,
            domain=network.domain,
            uplink=uplink.interface,
            local=host.address_in(network),
            length=HOST_LENGTH[network.family],
            prefix=str(network.prefix),
            mtu=host.settings.mtu - OUTER_HEADER[network.family],
            is_fallback=host.tunnel_in(network) == FALLBACK_DEVICES[network.family],
        )
        for uplink, network in _networks(common, host)
    )


def untunnelled(common: Common, host: HostIntent, network: PathNetwork) -> str | None:
    """Return the prefix of the hosts that a host reaches without a tunnel; ``None`` if there are none."""
    if common.encapsulation is None or not common.encapsulation.only_other_subnets:
        return None
    subnet = host.subnet_in(network)
    return str(subnet) if subnet.prefixlen < subnet.max_prefixlen else None


def sets_onlink(common: Common, host: HostIntent, family: Family) -> bool:
    """Tell whether the import of routes must set ``onlink``."""
    return (
        common.has_tunnels(host)
        and family in ONLINK_FAMILIES
        and host.settings.daemon in WITHOUT_ONLINK_OF_TABLES
    )


def next_hop_tables(common: Common, host: HostIntent) -> tuple[NextHopTable, ...]:
    """Return the tables of next hops: a tunnel for each path's prefix, and the uplink for the own subnet."""
    routes: dict[Family, list[NextHopRoute]] = {family: [] for family in FAMILIES}
    for uplink, network in _networks(common, host):
        here = routes[family_of(network.prefix)]
        is_onlink = network.family in ONLINK_FAMILIES
        here.append(NextHopRoute(str(network.prefix), host.tunnel_in(network), is_onlink))
        subnet = untunnelled(common, host, network)
        if subnet is not None:
            here.append(NextHopRoute(subnet, uplink.interface, onlink=False))
    return tuple(
        NextHopTable(next_hop_table(family), family, tuple(found))
        for family, found in routes.items()
        if found
    )

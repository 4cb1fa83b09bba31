"""The packet filter: the sources and destinations of guests' packets, and the sources of routing packets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network

from l3hv.model.addressing import GUEST_PREFIX_LENGTH, LINK_LOCAL6, Network, family_of_text, outermost
from l3hv.model.choices import Family
from l3hv.model.intent import Common, HostIntent
from l3hv.model.plan import DropReason, FilteredDomain, GuestPlan, PacketFilter, Session
from l3hv.plan.anycast import DomainAnycast, anycast_domains
from l3hv.plan.tunnels import tunnels

Pairs = tuple[tuple[str, str], ...]

ROUTING = DropReason("routing", "BGP or BFD from outside the path (TTL, source)", logged=True)
OUTER = DropReason("outer", "a tunnelled packet that is not from a host of the path", logged=True)
ONE_WAY = DropReason(
    "one_way", "RIP of a neighbour that sends no BFD: it does not hear this host on the path", logged=True
)
TO_HOST = DropReason("to_host", "to a service of this host, which offers none on this interface", logged=True)
MULTICAST = DropReason(
    "multicast", "broadcasts and multicasts that no service of this host receives", logged=False
)
OTHER_DOMAIN = DropReason("other_domain", "forwarded out of its domain", logged=True)
OWN_ICMP = DropReason(
    "own_icmp", "ICMP from this host to destinations outside the fabric, except errors", logged=False
)

FROM_GUESTS = (
    DropReason("mac", "the source MAC is not the guest's", logged=True),
    DropReason("source", "the source address is not the guest's", logged=True),
    DropReason("rogue_dhcp", "a guest acts as a DHCP server", logged=True),
    DropReason("rogue_ra", "a guest sends router advertisements", logged=True),
    DropReason("icmp_redirect", "a guest sends redirects (ICMP, ICMPv6)", logged=True),
    DropReason("fragment", "an IPv6 fragment without the headers that the filter checks", logged=True),
    DropReason("nd_rate", "more neighbour discovery than a guest needs", logged=False),
    DropReason("dhcp_rate", "more DHCP than a guest needs", logged=False),
    DropReason("ping_rate", "more pings of the gateway than a guest needs", logged=False),
    DropReason("fabric", "from a guest to a machine of the fabric", logged=True),
    DropReason("link_local", "to a link-local address on another link", logged=False),
    DropReason("isolation", "between guests of this host, one of which has port_isolation", logged=False),
    DropReason("not_allowed", "to a guest with allowed_sources, from another source", logged=False),
    DropReason("new_neighbours", "too many new addresses behind a port (a scan of its /64)", logged=False),
)
ARP_REASONS = (
    DropReason("arp_mac", "ARP with a sender MAC that is not the guest's", logged=False),
    DropReason("arp_sender", "ARP with a sender address that is not the guest's", logged=False),
    DropReason("arp_target", "ARP for an address that the guest cannot reach, or has itself", logged=False),
    DropReason("arp_rate", "more ARP than a guest needs", logged=False),
)


def packet_filter(
    common: Common,
    host: HostIntent,
    guests: tuple[GuestPlan, ...],
    anycast: tuple[DomainAnycast, ...],
    sessions: tuple[Session, ...] = (),
) -> PacketFilter:
    """Return the packet filter of ``host``, whose guest ports are ``guests``.

    ``sessions`` are its BGP sessions: the filter checks the TTL of their packets if they have TTL security.
    An edge router forwards traffic of the whole Internet: its filter protects only routing.
    """
    public_uplinks = tuple(
        uplink.interface
        for uplink in host.uplinks
        if uplink.domain == common.public.name and host.kind != "edge_router"
    )
    own = _sources(guests)
    transparent = tuple(pair for guest in guests for pair in guest.transparent)
    allowed = {guest.interface: guest.allowed_sources for guest in host.guests if guest.allowed_sources}
    isolated = tuple(guest.interface for guest in host.guests if guest.port_isolation)
    filtered = {*isolated, *allowed}
    on_link6 = tuple(
        guest.interface
        for guest in guests
        if any(route.family == "ipv6" and route.via is None for route in guest.routes)
    )
    macs = {guest.interface: guest.mac for guest in guests}
    devices = tunnels(common, host)
    if host.kind != "edge_router":
        public_uplinks += tuple(one.interface for one in devices if one.domain == common.public.name)
    return PacketFilter(
        uplinks=tuple(uplink.interface for uplink in host.uplinks) + tuple(one.interface for one in devices),
        igp=common.igp if common.has_igp else None,
        has_vrfs=host.uses_vrfs,
        closed_uplinks=public_uplinks,
        neighbours4=tuple(_neighbors(common, host, "ipv4")),
        neighbours6=tuple(_neighbors(common, host, "ipv6")),
        any_ttl4=tuple(_any_ttl(sessions, "ipv4")),
        any_ttl6=tuple(_any_ttl(sessions, "ipv6")),
        fabric4=_machine_prefixes(common, "ipv4"),
        fabric6=_machine_prefixes(common, "ipv6"),
        management4=_of_family(host.management_sources, "ipv4"),
        management6=_of_family(host.management_sources, "ipv6"),
        domains=tuple(_domains(common, host, guests, not_open={*filtered, *on_link6})),
        guests=tuple(guest.interface for guest in guests),
        macs=tuple(macs.items()),
        sources4=tuple(own.addresses4),
        source_prefixes4=tuple(own.prefixes4),
        sources6=tuple(own.addresses6),
        senders4=tuple((port, macs[port], address) for port, address in own.addresses4),
        sender_networks6=tuple((port, macs[port], network) for port, network in own.networks6),
        source_prefixes6=tuple(own.prefixes6),
        gateways4=tuple(
            dict.fromkeys(
                (guest.interface, gateway.address)
                for guest in guests
                for gateway in guest.addresses
                if gateway.family == "ipv4"
            )
        ),
        probers4=tuple((guest.interface, guest.lease.address) for guest in guests if guest.lease is not None),
        on_link6=on_link6,
        isolated=isolated,
        restricted=tuple(allowed),
        allowed4=tuple((port, prefix) for port in allowed for prefix in _of_family(allowed[port], "ipv4")),
        allowed6=tuple((port, prefix) for port in allowed for prefix in _of_family(allowed[port], "ipv6")),
        transparent=transparent,
        tracked4=tuple(dict.fromkeys(address for pair in transparent for address in pair)),
        anycast=anycast_domains(host, anycast),
        reasons=_reasons(common, host, has_tunnels=len(devices) > 0),
        arp_reasons=ARP_REASONS if host.kind == "hypervisor" else (),
        least_ttl=255 if common.encapsulation is None else 256 - common.encapsulation.hops,
        outer4=tuple((one.uplink, one.local, one.prefix) for one in devices if one.family == "ipv4"),
        outer6=tuple((one.uplink, one.local, one.prefix) for one in devices if one.family == "ipv6"),
    )


def _reasons(common: Common, host: HostIntent, *, has_tunnels: bool) -> tuple[DropReason, ...]:
    one_way = (ONE_WAY,) if common.has_igp and common.igp == "rip" else ()
    from_paths = (ROUTING, *one_way, *((OUTER,) if has_tunnels else ()))
    if host.kind == "edge_router":
        return from_paths
    if host.kind == "route_reflector":
        return (ROUTING, *one_way, TO_HOST, MULTICAST)
    if host.is_switch:
        return (ROUTING, TO_HOST, MULTICAST, OTHER_DOMAIN)
    return (*from_paths, TO_HOST, MULTICAST, OTHER_DOMAIN, OWN_ICMP, *FROM_GUESTS)


def _neighbors(common: Common, host: HostIntent, family: Family) -> Iterator[tuple[str, str]]:
    """Yield each uplink with the sources of BGP and BFD there: the path's prefix, and those of an IGP."""
    for uplink in host.uplinks:
        network = common.network(uplink.path, uplink.domain, family)
        if network is not None:
            yield uplink.interface, str(network.prefix)
            if common.has_igp:
                yield uplink.interface, str(common.domain(uplink.domain).loopback(family))
                if family == "ipv6":
                    yield uplink.interface, str(LINK_LOCAL6)


def _any_ttl(sessions: Iterable[Session], family: Family) -> Iterator[tuple[str, str]]:
    """Yield the neighbours, each with its uplink, whose packets of BGP may have any TTL."""
    for session in sessions:
        if not session.ttl_security and family_of_text(session.neighbor) == family:
            yield session.interface, session.neighbor


def _machine_prefixes(common: Common, family: Family) -> tuple[str, ...]:
    """Return the prefixes of the fabric's own machines: those of the paths and of the loopbacks."""
    own = () if common.has_links else common.networks
    paths = (str(network.prefix) for network in own + common.link_prefixes)
    loopbacks = (str(prefix) for domain in common.domains for prefix in domain.loopbacks)
    return _of_family((*paths, *loopbacks), family)


def _domains(
    common: Common, host: HostIntent, guests: Iterable[GuestPlan], *, not_open: set[str]
) -> Iterator[FilteredDomain]:
    """Yield the domains of a hypervisor.

    ``not_open`` are the guest ports with further checks: the filtered ones (isolation, allowed sources), and
    those with a check of the number of IPv6 neighbours.
    """
    if host.kind != "hypervisor" and not host.is_switch:
        return
    ports = [(uplink.domain, uplink.interface) for uplink in host.uplinks]
    guest_ports = [(guest.domain, guest.interface) for guest in guests]
    ports += [(tunnel.domain, tunnel.interface) for tunnel in tunnels(common, host)]
    ports += guest_ports
    open_ports = [port for port in ports if port[1] not in not_open]
    for domain in common.domains:
        if domain.name in host.domains:
            # Guests also ask for a gateway that is not in their pool.
            outside = {
                f"{pool.gateway}/32"
                for pool in common.pools
                if pool.domain == domain.name and pool.has_link_local_gateway
            }
            own = tuple(port for name, port in ports if name == domain.name)
            own_open = tuple(port for name, port in open_ports if name == domain.name)
            yield FilteredDomain(
                domain.name,
                own,
                own_open,
                own == own_open,
                tuple(port for name, port in guest_ports if name == domain.name and port not in not_open),
                _of_family((*map(str, common.pool_prefixes(domain.name, "ipv4")), *outside), "ipv4"),
            )


@dataclass
class _Sources:
    """The source addresses of guests, by the kind of lookup: a whole address, a whole /64, or an interval."""

    addresses4: list[tuple[str, str]] = field(default_factory=list)
    prefixes4: list[tuple[str, str]] = field(default_factory=list)
    addresses6: list[tuple[str, str]] = field(default_factory=list)
    networks6: list[tuple[str, str]] = field(default_factory=list)
    prefixes6: list[tuple[str, str]] = field(default_factory=list)


def _sources(guests: Iterable[GuestPlan]) -> _Sources:
    """Return the allowed sources of guests, sorted by the kind of lookup.

    The cost of a lookup among intervals grows with their number; the cost among whole values does not.
    """
    found = _Sources()
    for guest in guests:
        port = guest.interface
        # A guest may send only from addresses that are routed to it.
        prefixes = dict.fromkeys(route.prefix for route in guest.routes)
        for prefix in _disjoint(prefixes, "ipv4"):
            if prefix.prefixlen == prefix.max_prefixlen:
                found.addresses4.append((port, str(prefix.network_address)))
            else:
                found.prefixes4.append((port, str(prefix)))
        for prefix in _disjoint(prefixes, "ipv6"):
            if prefix.prefixlen == prefix.max_prefixlen:
                found.addresses6.append((port, str(prefix.network_address)))
            elif prefix.prefixlen == GUEST_PREFIX_LENGTH:
                found.networks6.append((port, str(prefix.network_address)))
            else:
                found.prefixes6.append((port, str(prefix)))
    return found


def _of_family(prefixes: Iterable[str], family: Family) -> tuple[str, ...]:
    """Return the prefixes of one family that lie inside no other: intervals must not overlap."""
    return tuple(map(str, _disjoint(prefixes, family)))


def _disjoint(prefixes: Iterable[str], family: Family) -> list[Network]:
    networks = [ip_network(prefix) for prefix in prefixes if family_of_text(prefix) == family]
    # Most guests have one prefix of a family: outermost() would cost much more than this test.
    return networks if len(networks) < 2 else outermost(networks)

"""The expected state of a host: values that follow from its plan and from the fabric's announcements.

An expectation maps the identity of a check (a kind and its subject) to the expected value;
:mod:`l3hv.verify.find` maps the same keys to the values that were found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.addressing import FAMILIES, HOST_LENGTH, family_of_text
from l3hv.model.choices import LINK_RELATIONS, SWITCHES, DaemonName, Family, Igp, Relation
from l3hv.model.daemons import ADVERTISING_BACK, UNITS
from l3hv.model.names import LOCAL_OUT
from l3hv.model.plan import GuestPlan, HostPlan, PathNeighbor, RoutingTable, Session, Uplink
from l3hv.plan.units import settings_of
from l3hv.verify import subjects
from l3hv.verify.check import Key, Kind
from l3hv.verify.fabric import EVERY_PATH, Fabric
from l3hv.verify.sets import AS_PLANNED, planned_sets
from l3hv.verify.values import (
    ESTABLISHED,
    VRF_TABLE,
    Addresses,
    Advertisement,
    AtLeast,
    BfdState,
    Configuration,
    FilterState,
    Hop,
    KernelRoute,
    Learned,
    Lease,
    LeasedAddress,
    Link,
    PolicyRule,
    Prefixes,
    Presence,
    SeenMac,
    SessionState,
    UnitSettings,
    UnitState,
    Value,
    in_order,
)

LEARNED_METRIC = 32
"""The kernel metric of BIRD's routes; routes to local guests have a lower one."""
METRICS_OF: dict[DaemonName, int] = {"frr": 20}
"""The kernel metric of the routes of other daemons."""

IPV6_METRIC = 1024
"""The kernel's metric of an IPv6 route that is added without one."""
TUNNEL_METRIC = 2048
"""The kernel metric of the routes of tunnel devices to the hosts of their path."""

BY_NETWORKD, BY_TABLES_UNIT, BY_KERNEL = 4, 107, 2
RESCANS = "l3hv-bird-rescan.service"
WATCH = "l3hv-bird-watch.timer"
RANGE_STATE = "Passive"
"""The state of a range, which waits for clients: each session with a client has a protocol of its own."""
PORT_SETTINGS: dict[Family, tuple[str, ...]] = {"ipv4": ("forwarding", "proxy_arp"), "ipv6": ("forwarding",)}
"""The settings of a guest's port that must be 1, besides the plan's sysctls."""
DIGITS = 16
"""Number of digits of a digest that are compared."""

MEASURED: frozenset[Relation] = frozenset({"reflector", "mesh", "switch"})
"""The neighbours to which a host measures the packet size: a reflector leaves it to its clients."""

HOST = subjects.Host()
Item = tuple[Key, Value]
BGP, DHCP, BFD = "tcp 179", "udp 67", ("udp 3784", "udp 4784")
IGP_SOCKETS: dict[tuple[Igp, Family], str | None] = {
    ("rip", "ipv4"): "udp 520",
    ("rip", "ipv6"): "udp 521",
    ("ospf", "ipv4"): None,
    ("ospf", "ipv6"): "raw ipv6 89",
}
"""The sockets of an IGP. Raw sockets of IPv4 are not read."""


def expectation(plan: HostPlan, fabric: Fabric, absent: frozenset[str]) -> dict[Key, Value]:
    """Return the expected values of the host of ``plan``; ``absent`` are its guests without a port."""
    guests = [guest for guest in plan.guests if guest.name not in absent]
    return dict(
        [
            *((Key(Kind.UNIT, unit_of(unit)), UnitState("active", "enabled")) for unit in units(plan)),
            *_unit_settings(plan),
            *_listeners(plan),
            *_services(plan),
            *_links(plan),
            *_networkd(plan, guests),
            *_rules(plan),
            *_packet_filter(plan),
            *_sysctls(plan, absent),
            *_own_routes(plan, guests),
            *_ports(plan, guests),
            *_routing(plan, fabric),
            *_offers(plan, guests),
            *_sizes(plan, fabric),
        ]
    )


def unit_of(name: str) -> subjects.Unit:
    """Return the subject of a unit's checks.

    >>> unit_of("bird.service"), unit_of("l3hv-bird-watch.timer")
    (Unit(name='bird'), Unit(name='l3hv-bird-watch.timer'))
    """
    return subjects.Unit(name.removesuffix(".service"))


def routing_units(plan: HostPlan) -> list[str]:
    """Return the systemd services of the host's routing daemon."""
    if plan.routing.programs:
        return [f"{program.name}.service" for program in plan.routing.programs]
    domains = (table.domain for table in plan.routing.tables)
    return list(dict.fromkeys(UNITS[plan.routing.daemon.name].format(domain=domain) for domain in domains))


def units(plan: HostPlan) -> list[str]:
    """Return the systemd services that the host needs."""
    units = ["systemd-networkd.service", *routing_units(plan), "l3hv-nftables.service"]
    if plan.routing.programs:
        units.append(WATCH)
    if plan.routing.rescans:
        units.append(RESCANS)
    if plan.rules or plan.last_resorts:
        units.append("l3hv-tables.service")
    services = plan.guest_services
    if services.dhcp or services.dhcp_relay is not None:
        server = "l3hv-dhcp" if services.dhcp else "l3hv-dhcp-relay"
        units += [f"{server}.service", "l3hv-dhcp-checksums.service"]
    if plan.dhcp_server is not None:
        units.append("l3hv-dhcp-server.service")
    if services.advertisements:
        units.append("radvd.service")
    if services.ndp_proxy:
        units.append("l3hv-ndp-proxy.service")
    return units


def _unit_settings(plan: HostPlan) -> Iterator[Item]:
    for unit in units(plan):
        if required := settings_of(unit):
            yield Key(Kind.UNIT_SETTINGS, unit_of(unit)), UnitSettings.of(required)


def _listeners(plan: HostPlan) -> Iterator[Item]:
    """Yield the sockets on which the daemons of the fabric listen; they must listen on no others."""
    routing = plan.routing
    watched = {
        channel.family
        for session in (*routing.sessions, *routing.ranges)
        if session.bfd
        for channel in session.channels
    }
    watched |= {igp.family for igp in routing.igp}
    of_igp = {IGP_SOCKETS[igp.protocol, igp.family] for igp in routing.igp} - {None}
    for program in routing.programs:
        # BIRD opens the port of multihop BFD (RFC 5883) together with that of the paths (RFC 5881).
        bfd = BFD if watched & {*program.families} else ()
        advertisements = ("raw ipv6 58",) if routing.advertises_on else ()
        sockets = (*advertisements, BGP, *bfd, *filter(None, of_igp))
        yield Key(Kind.LISTENERS, unit_of(program.name)), tuple(sorted(sockets))
    if routing.daemon.name == "gobgp":
        for unit in routing_units(plan):
            yield Key(Kind.LISTENERS, unit_of(unit)), (BGP,)
    if RESCANS in units(plan):
        yield Key(Kind.LISTENERS, unit_of(RESCANS)), ("udp 3179",)
    for unit in ("l3hv-dhcp", "l3hv-dhcp-relay", "l3hv-dhcp-server"):
        if f"{unit}.service" in units(plan):
            yield Key(Kind.LISTENERS, unit_of(unit)), (DHCP,)
    if "radvd.service" in units(plan):
        yield Key(Kind.LISTENERS, unit_of("radvd")), ("raw ipv6 58",)


def _services(plan: HostPlan) -> Iterator[Item]:
    """Yield the services of which the running configuration is compared with the file.

    The expected difference is an empty text.
    """
    for unit in ("l3hv-dhcp-relay.service", "l3hv-dhcp-server.service", "l3hv-ndp-proxy.service"):
        if unit in units(plan):
            yield Key(Kind.SERVICE_CONFIGURATION, unit_of(unit)), ""


def _networkd(plan: HostPlan, guests: Iterable[GuestPlan]) -> Iterator[Item]:
    for name in configured_interfaces(plan, guests):
        yield Key(Kind.NETWORKD, subjects.Interface(name)), "configured"


def configured_interfaces(plan: HostPlan, guests: Iterable[GuestPlan]) -> list[str]:
    """Return the interfaces that systemd-networkd configures; ``guests`` have their ports."""
    uplinks = [nic.interface for nic in plan.nics] + [uplink.interface for uplink in plan.uplinks]
    uplinks += [tunnel.interface for tunnel in plan.tunnels]
    return uplinks + [guest.interface for guest in guests]


def _sizes(plan: HostPlan, fabric: Fabric) -> Iterator[Item]:
    """Yield the packet size that each path must carry to its neighbours: the smaller MTU of the two ends."""
    mtus = {uplink.interface: uplink.mtu for uplink in plan.uplinks}
    for session in measured(plan):
        theirs = fabric.mtu(session.peer, session.path, session.domain)
        most = min(mtus[session.interface], theirs or mtus[session.interface])
        yield Key(Kind.SIZE, path_to_peer(session)), AtLeast(most)


def measured(plan: HostPlan) -> list[Session | PathNeighbor]:
    """Return the neighbours to which a host measures the packet size, on each path."""
    if plan.routing.igp:
        return [] if plan.kind == "route_reflector" else list(plan.routing.path_neighbors)
    return [session for session in plan.routing.sessions if session.relation in MEASURED]


def path_to_peer(session: Session | PathNeighbor) -> subjects.PathToPeer:
    """Return the subject of the check of a path to a neighbour."""
    return subjects.PathToPeer(session.path, session.peer, session.domain, family_of_text(session.neighbor))


def _links(plan: HostPlan) -> Iterator[Item]:
    for nic in plan.nics:
        yield Key(Kind.LINK, subjects.Interface(nic.interface)), Link("up", nic.mtu)
    routes = _path_routes(plan)
    for uplink in plan.uplinks:
        vlan, parent = (uplink.vlan.id, uplink.vlan.parent) if uplink.vlan else (None, None)
        interface = subjects.Interface(uplink.interface)
        yield Key(Kind.LINK, interface), Link("up", uplink.mtu, vlan, parent, uplink.vrf)
        yield (
            Key(Kind.ADDRESSES, interface),
            Addresses.of(addresses_of(uplink)),
        )
        for address in uplink.addresses:
            for prefix in (address.prefix, address.beyond):
                subject = subjects.Route(prefix or "", uplink.vrf or "main")
                if subject in routes:
                    yield Key(Kind.ROUTE, subject), in_order(routes[subject])
    for tunnel in plan.tunnels:
        interface = subjects.Interface(tunnel.interface)
        yield Key(Kind.LINK, interface), Link("up", tunnel.mtu)
        yield Key(Kind.ADDRESSES, interface), Addresses.of([f"{tunnel.local}/{tunnel.length}"])
    on_link: dict[str, list[KernelRoute]] = {}
    for uplink in plan.uplinks:
        for route in uplink.on_link:
            hops = (Hop(None, uplink.interface),)
            planned = KernelRoute("unicast", hops, BY_NETWORKD, route.metric, None)
            on_link.setdefault(route.prefix, []).append(planned)
    for prefix, several in on_link.items():
        yield Key(Kind.ROUTE, subjects.Route(prefix, "main")), in_order(several)
    for loopback in plan.loopbacks:
        yield Key(Kind.LOOPBACK, subjects.Address(f"{loopback.address}/{loopback.length}")), True


def _path_routes(plan: HostPlan) -> dict[subjects.Route, list[KernelRoute]]:
    """Return the routes to the hosts of the paths: by the link, by a router, and by tunnels."""
    routes: dict[subjects.Route, list[KernelRoute]] = {}

    def add(prefix: str, table: str, route: KernelRoute) -> None:
        routes.setdefault(subjects.Route(prefix, table), []).append(route)

    for uplink in plan.uplinks:
        table = uplink.vrf or "main"
        for address in uplink.addresses:
            if address.prefix.startswith("fe80:"):
                continue  # each interface has a route to the link-local prefix
            is_ipv4 = address.family == "ipv4"
            # For an IPv4 subnet of one address the kernel has no route.
            if not is_ipv4 or address.length < HOST_LENGTH["ipv4"]:
                metric, source = (0, address.address) if is_ipv4 else (256, None)
                hop = Hop(None, uplink.interface)
                add(address.prefix, table, KernelRoute("unicast", (hop,), BY_KERNEL, metric, source))
            if address.beyond is not None:
                hop = Hop(address.router, uplink.interface)
                metric = 0 if is_ipv4 else IPV6_METRIC
                add(address.beyond, table, KernelRoute("unicast", (hop,), BY_NETWORKD, metric, None))
    for tunnel in plan.tunnels:
        hop = Hop(None, tunnel.interface)
        add(tunnel.prefix, "main", KernelRoute("unicast", (hop,), BY_NETWORKD, TUNNEL_METRIC, None))
    return routes


def addresses_of(uplink: Uplink) -> list[str]:
    """Return the planned addresses of an uplink with their lengths."""
    link_local = [] if uplink.link_local is None else [f"{uplink.link_local}/64"]
    return [*(f"{address.address}/{address.length}" for address in uplink.addresses), *link_local]


def _rules(plan: HostPlan) -> Iterator[Item]:
    """Yield the rules of each family in which the plan has rules; other families keep the kernel's own."""
    for family in FAMILIES:
        rules = [rule for rule in plan.rules if rule.family == family]
        if rules:
            planned = [
                PolicyRule(
                    rule.priority,
                    "lookup",
                    rule.table or VRF_TABLE,
                    iif=rule.iif,
                    source=rule.source,
                    destination=rule.destination,
                    mark=(int(rule.mark, 16), int(rule.mark, 16)) if rule.mark else None,
                    suppress_prefixlength=rule.suppress_prefixlength,
                    ip_protocol=rule.ip_protocol,
                    source_port=None if rule.source_port is None else str(rule.source_port),
                )
                for rule in rules
            ]
            yield Key(Kind.RULES, subjects.InFamily(family)), (PolicyRule(0, "lookup", "local"), *planned)


def _packet_filter(plan: HostPlan) -> Iterator[Item]:
    """Yield the filter, the elements of its sets, and its counters, of which any value is ok."""
    yield Key(Kind.PACKET_FILTER, HOST), FilterState()
    for name, elements in planned_sets(plan.packet_filter).items():
        if elements:
            yield Key(Kind.SET, subjects.FilterSet(name)), AS_PLANNED
    for reason in (*plan.packet_filter.reasons, *plan.packet_filter.arp_reasons):
        yield Key(Kind.DROPS, subjects.Counter(reason.name)), AtLeast(0)


def _sysctls(plan: HostPlan, absent: frozenset[str]) -> Iterator[Item]:
    """Yield the settings, except for ports that do not exist."""
    missing = {guest.interface for guest in plan.guests if guest.name in absent}
    for sysctl in plan.sysctls:
        if interface_of(sysctl.key) not in missing:
            yield Key(Kind.SYSCTL, subjects.Sysctl(sysctl.key)), sysctl.value


def interface_of(key: str) -> str | None:
    """Return the interface that a sysctl.d key names, or None.

    >>> interface_of("net.ipv4.conf.eno1/90.rp_filter"), interface_of("net.ipv6.route.max_size")
    ('eno1.90', None)
    """
    parts = key.split(".")
    return parts[3].replace("/", ".") if len(parts) == 5 else None


def _own_routes(plan: HostPlan, guests: list[GuestPlan]) -> Iterator[Item]:
    if not plan.main_default_route:
        for family in sorted({rule.family for rule in plan.rules}):
            yield Key(Kind.DEFAULT_ROUTE, subjects.InFamily(family)), ()
    for last in plan.last_resorts:
        yield (
            Key(Kind.LAST_RESORT, subjects.LastResort(last.table, last.family, last.prefix)),
            (KernelRoute(last.type, (), BY_TABLES_UNIT, last.metric, None),),
        )
    routes: dict[subjects.Route, list[KernelRoute]] = {}
    for guest in guests:
        for route in guest.routes:
            hop = Hop(route.via, guest.interface)
            for table in route.tables:
                source = route.prefsrc if table == LOCAL_OUT else None
                planned = KernelRoute("unicast", (hop,), BY_NETWORKD, route.metric, source)
                routes.setdefault(subjects.Route(route.prefix, table), []).append(planned)
    for subject, several in routes.items():
        yield Key(Kind.ROUTE, subject), in_order(several)


def _ports(plan: HostPlan, guests: list[GuestPlan]) -> Iterator[Item]:
    here = {guest.name for guest in guests}
    for guest in plan.guests:
        subject = subjects.Guest(guest.name)
        yield Key(Kind.GUEST, subject), Presence.PRESENT
        # The filter translates the address also while the guest does not run.
        for address, main in guest.transparent:
            yield Key(Kind.TRANSLATION, subjects.Address(address)), main
        if guest.name not in here:
            continue
        yield Key(Kind.PORT_LINK, subject), Link("up", guest.mtu, master=guest.vrf)
        yield Key(Kind.PORT_MAC, subject), guest.gateway_mac
        yield Key(Kind.PORT_ADDRESSES, subject), Addresses.of(guest.gateways)
        for family in families(guest):
            for setting in PORT_SETTINGS[family]:
                yield Key(Kind.PORT_SETTING, subjects.PortSetting(guest.name, family, setting)), "1"
        yield Key(Kind.MAC, subject), (SeenMac(guest.mac),)


def families(guest: GuestPlan) -> list[Family]:
    """Return the address families in which a guest's port has a gateway, IPv4 first."""
    return sorted({family_of_text(gateway) for gateway in guest.gateways})


def _routing(plan: HostPlan, fabric: Fabric) -> Iterator[Item]:
    routing = plan.routing
    yield Key(Kind.CONFIGURATION, HOST), Configuration.INTENDED
    yield Key(Kind.ROUTER_ID, HOST), routing.router_id
    tables = {table.name: table for table in routing.tables}
    alone = _paths_of_one_neighbor(plan)
    for session in routing.ranges:
        yield Key(Kind.SESSION, subjects.Session(session.name)), SessionState(RANGE_STATE)
    for session in routing.sessions:
        established = SessionState(ESTABLISHED, session.local, session.neighbor)
        yield Key(Kind.SESSION, subjects.Session(session.name)), established
        if session.bfd:
            interval, multiplier = fabric.bfd(plan, session.peer)
            yield Key(Kind.BFD, bfd_of(session)), BfdState("Up", interval, multiplier)
        is_alone = session.relation not in LINK_RELATIONS and all(
            (session.path, domain) in alone for domain in session.domains
        )
        is_echoed = routing.daemon.name in ADVERTISING_BACK
        for channel in session.channels:
            subject = subjects.SessionFamily(session.name, channel.family)
            counts = [_counts(plan, fabric, session, tables[name]) for name in channel.own_next_hops]
            received, sent = map(sum, zip(*counts, strict=True))
            yield Key(Kind.RECEIVED, subject), Prefixes(received) if is_alone else AtLeast(received)
            yield Key(Kind.SENT, subject), Prefixes(sent) if is_alone and not is_echoed else AtLeast(sent)
    for neighbor in routing.path_neighbors:
        interval, multiplier = fabric.bfd(plan, neighbor.peer)
        yield Key(Kind.BFD, bfd_of_neighbor(neighbor)), BfdState("Up", interval, multiplier)
    for link in igp_links(plan).values():
        yield Key(Kind.IGP_NEIGHBORS, link), fabric.hosts_on(link.path, link.domain) - 1
    if plan.kind != "route_reflector" and not routing.igp:
        for path, domain in sorted({(uplink.path, uplink.domain) for uplink in plan.uplinks}):
            yield Key(Kind.PATH, subjects.Path(path, domain)), True
    for table in routing.tables:
        if table.kernel_table is not None:
            yield learned_key(table), _learned(plan, fabric, table)


def bfd_of(session: Session) -> subjects.Bfd:
    """Return the subject of the BFD session that watches the neighbour of a BGP session."""
    family = family_of_text(session.neighbor) if session.layout == "per_family" else None
    return subjects.Bfd(session.peer, session.path, session.domain, family)


def bfd_of_neighbor(neighbor: PathNeighbor) -> subjects.Bfd:
    """Return the subject of the BFD session with a neighbour on a path, with an IGP."""
    return subjects.Bfd(neighbor.peer, neighbor.path, neighbor.domain, neighbor.family)


def igp_links(plan: HostPlan) -> dict[tuple[str, Family], subjects.IgpLink]:
    """Return the links of the IGP by interface and family."""
    paths = {uplink.interface: uplink.path for uplink in plan.uplinks}
    return {
        (interface, igp.family): subjects.IgpLink(paths[interface], igp.domain, igp.family)
        for igp in plan.routing.igp
        for interface in igp.interfaces
    }


def learned_key(table: RoutingTable) -> Key:
    """Return the identity of the check of all learned routes of a table."""
    return Key(Kind.LEARNED, subjects.Table(table.domain, table.family))


def _paths_of_one_neighbor(plan: HostPlan) -> set[tuple[str, str]]:
    """Return the (path, domain) pairs on which each prefix arrives only once.

    Reflectors that share a path also advertise the routes that they receive from each other.
    """
    reflectors: dict[tuple[str, str], set[str]] = {}
    for session in plan.routing.sessions:
        for domain in session.domains:
            others = reflectors.setdefault((session.path, domain), set())
            if session.relation in ("reflector", "reflector_of_path"):
                others.add(session.peer)
    most = 0 if plan.kind == "route_reflector" else 1
    return {key for key, names in reflectors.items() if len(names) <= most}


def _counts(plan: HostPlan, fabric: Fabric, session: Session, table: RoutingTable) -> tuple[int, int]:
    """Return the numbers of prefixes that a host receives and sends on a session."""
    path = EVERY_PATH if plan.routing.igp else session.path
    if session.relation == "reflector":
        return fabric.received(plan, table, path), len(fabric.announced_by(plan.host, table.name))
    if session.relation == "switch":
        # A spine does not send the routes that it learned from this leaf alone.
        others = 0 if plan.kind in SWITCHES else fabric.others(plan.host, table)
        return others, fabric.accepted(plan.host, table)
    if session.relation == "attached":
        return fabric.accepted(session.peer, table), 0
    theirs = fabric.sent(session.peer, table, path)
    everything = fabric.received(plan, table, path)
    if session.relation == "client":
        return theirs, everything - theirs
    if session.relation == "mesh":
        return theirs, len(fabric.announced_by(plan.host, table.name))
    return 0, 0


def _learned(plan: HostPlan, fabric: Fabric, table: RoutingTable) -> Learned:
    total = fabric.total(plan, table)
    attributes = (
        ((attributes_of(table.prefsrc, METRICS_OF.get(plan.routing.daemon.name)), None),)
        if total.count
        else ()
    )
    return Learned(total.count, total.text[:DIGITS], attributes)


def attributes_of(prefsrc: str | None, metric: int | None = None) -> str:
    """Return the attributes that all learned routes of a table share, in the form of an observation."""
    return f"metric {metric or LEARNED_METRIC}" + (f" src {prefsrc}" if prefsrc else "")


def _offers(plan: HostPlan, guests: list[GuestPlan]) -> Iterator[Item]:
    pools = {pool.name: pool for pool in plan.dhcp_pools}
    for guest in guests:
        subject = subjects.Guest(guest.name)
        if guest.lease is not None:
            pool = pools[guest.lease.pool]
            mask = pool.guest_netmask or pool.netmask
            lease = Lease(guest.lease.address, mask, pool.gateway, pool.mtu, pool.dns, pool.routes)
            if plan.guest_services.dhcp:
                yield Key(Kind.LEASE, subject), lease
            elif plan.guest_services.dhcp_relay is not None:
                yield Key(Kind.LEASE, subject), LeasedAddress(guest.lease.address)
        if guest.prefix is not None:
            # A prefix of which guests make no addresses is not compared.
            prefixes = ((guest.prefix.prefix, guest.prefix.on_link),) if guest.prefix.autonomous else ()
            offered = Advertisement(prefixes, guest.gateway_mac, guest.mtu, guest.prefix.dns)
            yield Key(Kind.ADVERTISEMENT, subject), offered

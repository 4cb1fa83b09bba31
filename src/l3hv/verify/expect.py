"""What a host should look like: its plan and the fabric's announcements, in words.

An expectation is a mapping from a stable name (``rules ipv4``, ``session rr1_public``) to how it should read;
:mod:`l3hv.verify.find` puts what was observed under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.addressing import family_of_text
from l3hv.model.choices import Family
from l3hv.model.daemons import ECHOING, UNITS
from l3hv.model.names import LOCAL_OUT
from l3hv.model.plan import Guest, HostPlan, RoutingTable, Session
from l3hv.model.text import counted
from l3hv.plan.units import settings_of, settings_words
from l3hv.verify.fabric import Fabric
from l3hv.verify.sets import AS_PLANNED, planned_sets, set_name
from l3hv.verify.words import hop_words, in_order, route_words, rule_words

LEARNED_METRIC = 32
"""The kernel metric of BIRD's routes; guests that are here have a lower one."""

BY_NETWORKD, BY_TABLES_UNIT, BY_KERNEL = 4, 107, 2
RESCANS = "l3hv-bird-rescan.service"
WATCH = "l3hv-bird-watch.timer"
AT_LEAST = "at least "
LISTENING = "Passive"
"""The state of a range: sessions with its clients have protocols of their own."""
PORT_SETTINGS = {"ipv4": ("forwarding", "proxy_arp"), "ipv6": ("forwarding",)}
"""What must be on at a guest's port in each family; the rest is among the plan's sysctls."""

Item = tuple[str, str]


def expectation(plan: HostPlan, fabric: Fabric, absent: frozenset[str]) -> dict[str, str]:
    """Return what is expected of the host of ``plan``; ``absent`` are its guests whose port is not there."""
    guests = [guest for guest in plan.guests if guest.name not in absent]
    return dict(
        [
            *((f"unit {unit.removesuffix('.service')}", "active, enabled") for unit in units(plan)),
            *_unit_settings(plan),
            *_listeners(plan),
            *_links(plan),
            *((f"networkd {name}", "configured") for name in configured_interfaces(plan, guests)),
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
    if any(guest.lease for guest in plan.guests):
        units += ["l3hv-dhcp.service", "l3hv-dhcp-checksums.service"]
    if any(guest.prefix for guest in plan.guests):
        units.append("radvd.service")
    return units


def _unit_settings(plan: HostPlan) -> Iterator[Item]:
    for unit in units(plan):
        if promises := settings_of(unit):
            yield f"unit {unit.removesuffix('.service')} settings", settings_words(promises)


def _listeners(plan: HostPlan) -> Iterator[Item]:
    """Yield where the daemons of the fabric listen: nowhere else."""
    routing = plan.routing
    watched = {
        channel.family
        for session in (*routing.sessions, *routing.ranges)
        if session.bfd
        for channel in session.channels
    }
    for program in routing.programs:
        # BIRD opens the port of multihop BFD (RFC 5883) together with that of the paths (RFC 5881).
        bfd = ", udp 3784, udp 4784" if watched & {*program.families} else ""
        yield f"listeners {program.name}", f"tcp 179{bfd}"
    if routing.daemon.name == "gobgp":
        for unit in routing_units(plan):
            yield f"listeners {unit.removesuffix('.service')}", "tcp 179"
    if RESCANS in units(plan):
        yield f"listeners {RESCANS.removesuffix('.service')}", "udp 3179"
    if "l3hv-dhcp.service" in units(plan):
        yield "listeners l3hv-dhcp", "udp 67"
    if "radvd.service" in units(plan):
        yield "listeners radvd", "raw ipv6 58"


def configured_interfaces(plan: HostPlan, guests: Iterable[Guest]) -> list[str]:
    """Return the interfaces that systemd-networkd looks after; ``guests`` are those that are there."""
    uplinks = [nic.interface for nic in plan.nics] + [uplink.interface for uplink in plan.uplinks]
    return uplinks + [guest.interface for guest in guests]


def _sizes(plan: HostPlan, fabric: Fabric) -> Iterator[Item]:
    """Yield the size of packets that each path carries to its reflectors: the smaller MTU of its two ends."""
    mtus = {uplink.interface: uplink.mtu for uplink in plan.uplinks}
    for session in plan.routing.sessions:
        if session.relation == "reflector":
            theirs = fabric.mtu(session.peer, session.path, session.domain)
            most = min(mtus[session.interface], theirs or mtus[session.interface])
            yield size_name(session), f"{AT_LEAST}{most} bytes"


def size_name(session: Session) -> str:
    """Return what the largest packet on the way to a neighbour is called."""
    return f"size {session.path} to {session.peer} {session.domain} {family_of_text(session.neighbor)}"


def _links(plan: HostPlan) -> Iterator[Item]:
    for nic in plan.nics:
        yield f"link {nic.interface}", f"up, mtu {nic.mtu}"
    for uplink in plan.uplinks:
        vlan = f", vlan {uplink.vlan.id} on {uplink.vlan.parent}" if uplink.vlan else ""
        yield f"link {uplink.interface}", f"up, mtu {uplink.mtu}{vlan}"
        yield (
            f"addresses {uplink.interface}",
            in_order(f"{address.address}/{address.length}" for address in uplink.addresses),
        )
        for address in uplink.addresses:
            metric = 0 if address.family == "ipv4" else 256
            source = address.address if address.family == "ipv4" else None
            yield (
                f"route {address.prefix} in main",
                route_words(hop_words(None, uplink.interface), BY_KERNEL, metric, source),
            )
    for loopback in plan.loopbacks:
        yield f"loopback {loopback.address}/{loopback.length}", "on lo"


def _rules(plan: HostPlan) -> Iterator[Item]:
    """Yield all rules of the families that the plan has any for; in the others the kernel's own stay."""
    for family in ("ipv4", "ipv6"):
        rules = [rule for rule in plan.rules if rule.family == family]
        if rules:
            words = [rule_words(0, "lookup local")]
            words += [
                rule_words(
                    rule.priority,
                    f"lookup {rule.table}",
                    iif=rule.iif,
                    source=rule.source,
                    destination=rule.destination,
                    mark=f"{rule.mark}/{rule.mark}" if rule.mark else None,
                    suppress_prefixlength=rule.suppress_prefixlength,
                    ip_protocol=rule.ip_protocol,
                    source_port=None if rule.source_port is None else str(rule.source_port),
                )
                for rule in rules
            ]
            yield f"rules {family}", "\n".join(words)


def _packet_filter(plan: HostPlan) -> Iterator[Item]:
    """Yield the filter and what is in its sets; how many packets it drops is shown, whatever it is."""
    yield "packet filter", "the intended one"
    for name, elements in planned_sets(plan.packet_filter).items():
        if elements:
            yield set_name(name), AS_PLANNED
    for reason in (*plan.packet_filter.reasons, *plan.packet_filter.arp_reasons):
        yield f"drops {reason.name}", f"{AT_LEAST}{counted(0, 'packet')}"


def _sysctls(plan: HostPlan, absent: frozenset[str]) -> Iterator[Item]:
    """Yield the settings, but for those of ports that are not there."""
    missing = {guest.interface for guest in plan.guests if guest.name in absent}
    for sysctl in plan.sysctls:
        if interface_of(sysctl.key) not in missing:
            yield f"sysctl {sysctl.key}", sysctl.value


def interface_of(key: str) -> str | None:
    """Return the interface that a sysctl.d key is about.

    >>> interface_of("net.ipv4.conf.eno1/90.rp_filter"), interface_of("net.ipv6.route.max_size")
    ('eno1.90', None)
    """
    parts = key.split(".")
    return parts[3].replace("/", ".") if len(parts) == 5 else None


def _own_routes(plan: HostPlan, guests: list[Guest]) -> Iterator[Item]:
    if not plan.main_default_route:
        for family in sorted({rule.family for rule in plan.rules}):
            yield f"default route in main {family}", "none"
    for last in plan.last_resorts:
        yield (
            last_resort_name(last.table, last.family, last.prefix),
            route_words(last.type, BY_TABLES_UNIT, last.metric, None),
        )
    routes: dict[str, list[str]] = {}
    for guest in guests:
        for route in guest.routes:
            leads = hop_words(route.via, guest.interface)
            for table in route.tables:
                source = route.prefsrc if table == LOCAL_OUT else None
                words = route_words(leads, BY_NETWORKD, route.metric, source)
                routes.setdefault(f"route {route.prefix} in {table}", []).append(words)
    for what, several in routes.items():
        yield what, "\n".join(sorted(several))


def last_resort_name(table: str, family: str, prefix: str) -> str:
    """Return the name of the route that ends a table, or a part of it.

    >>> last_resort_name("public", "ipv4", "203.0.113.0/24")
    'last resort of public ipv4 for 203.0.113.0/24'
    """
    return f"last resort of {table} {family}" + ("" if prefix == "default" else f" for {prefix}")


def _ports(plan: HostPlan, guests: list[Guest]) -> Iterator[Item]:
    here = {guest.name for guest in guests}
    for guest in plan.guests:
        yield f"guest {guest.name}", "present"
        # The map stands whether its guests run or not.
        for address, main in guest.transparent:
            yield f"translation {address}", f"to {main}"
        if guest.name not in here:
            continue
        port = f"port {guest.name}"
        yield f"{port} link", f"up, mtu {guest.mtu}"
        yield f"{port} mac", guest.gateway_mac
        yield f"{port} addresses", in_order(guest.gateways)
        for family in families(guest):
            for setting in PORT_SETTINGS[family]:
                yield f"{port} {family} {setting}", "1"
        yield f"mac {guest.name}", guest.mac


def families(guest: Guest) -> list[Family]:
    """Return the address families that a guest's port has a gateway in, IPv4 first."""
    return sorted({family_of_text(gateway) for gateway in guest.gateways})


def _routing(plan: HostPlan, fabric: Fabric) -> Iterator[Item]:
    routing = plan.routing
    yield "running configuration", "the intended one"
    yield "router id", routing.router_id
    tables = {table.name: table for table in routing.tables}
    alone = _paths_of_one_neighbor(plan)
    for session in routing.ranges:
        yield f"session {session.name}", LISTENING
    for session in routing.sessions:
        yield f"session {session.name}", f"Established, {session.local} to {session.neighbor}"
        if session.bfd:
            interval, multiplier = fabric.bfd(plan, session.peer)
            yield bfd_name(session), f"Up, every {interval} ms, lost after {multiplier}"
        for channel in session.channels:
            counts = [_counts(plan, fabric, session, tables[name]) for name in channel.next_hops]
            received, sent = map(sum, zip(*counts, strict=True))
            atleast = "" if all((session.path, domain) in alone for domain in session.domains) else AT_LEAST
            yield f"received {session.name} {channel.family}", f"{atleast}{counted(received, 'prefix')}"
            atleast = AT_LEAST if routing.daemon.name in ECHOING else atleast
            yield f"sent {session.name} {channel.family}", f"{atleast}{counted(sent, 'prefix')}"
    if plan.kind != "route_reflector":
        for path, domain in sorted({(uplink.path, uplink.domain) for uplink in plan.uplinks}):
            yield f"path {path} has a reflector for {domain}", "yes"
    for table in routing.tables:
        if table.kernel_table is not None:
            yield learned_name(table), _learned(plan, fabric, table)


def bfd_name(session: Session) -> str:
    """Return what the BFD session of a BGP session is called."""
    family = f" {family_of_text(session.neighbor)}" if session.layout == "per_family" else ""
    return f"bfd {session.peer} {session.path} {session.domain}{family}"


def learned_name(table: RoutingTable) -> str:
    """Return what the learned routes of a table are called."""
    return f"learned routes in {table.domain} {table.family}"


def _paths_of_one_neighbor(plan: HostPlan) -> set[tuple[str, str]]:
    """Return the (path, domain) pairs on which prefixes arrive once.

    Reflectors that share a path pass on what they hear from each other too.
    """
    reflectors: dict[tuple[str, str], set[str]] = {}
    for session in plan.routing.sessions:
        for domain in session.domains:
            others = reflectors.setdefault((session.path, domain), set())
            if session.relation != "client":
                others.add(session.peer)
    most = 0 if plan.kind == "route_reflector" else 1
    return {key for key, names in reflectors.items() if len(names) <= most}


def _counts(plan: HostPlan, fabric: Fabric, session: Session, table: RoutingTable) -> tuple[int, int]:
    """Return how many prefixes arrive on a session and leave by it."""
    if session.relation == "reflector":
        return fabric.received(plan, table, session.path), len(fabric.announced_by(plan.host, table.name))
    theirs = fabric.sent(session.peer, table, session.path)
    everything = fabric.received(plan, table, session.path)
    if session.relation == "client":
        return theirs, everything - theirs
    return 0, 0


def _learned(plan: HostPlan, fabric: Fabric, table: RoutingTable) -> str:
    total = fabric.total(plan, table)
    return learned_words(total.count, total.text, [attributes_words(table.prefsrc)] if total.count else [])


def learned_words(count: int, digest: str, attributes: list[str]) -> str:
    """Return the routes of others in one table, all of them together."""
    return ", ".join([counted(count, "route"), f"digest {digest[:16]}", *attributes])


def attributes_words(prefsrc: str | None) -> str:
    """Return what all learned routes of a table have in common."""
    return f"metric {LEARNED_METRIC}" + (f" src {prefsrc}" if prefsrc else "")


def _offers(plan: HostPlan, guests: list[Guest]) -> Iterator[Item]:
    pools = {pool.name: pool for pool in plan.dhcp_pools}
    for guest in guests:
        if guest.lease is not None:
            pool = pools[guest.lease.pool]
            yield (
                f"lease {guest.name}",
                lease_words(
                    guest.lease.address,
                    netmask=pool.netmask,
                    gateway=pool.gateway,
                    mtu=pool.mtu,
                    dns=list(pool.dns),
                    routes=list(pool.routes),
                ),
            )
        if guest.prefix is not None:
            yield (
                f"ra {guest.name}",
                advertisement_words(
                    guest.gateway_mac,
                    guest.mtu,
                    [prefix_words(guest.prefix.prefix, on_link=guest.prefix.on_link)],
                    list(guest.prefix.dns),
                ),
            )


def lease_words(
    address: str,
    *,
    netmask: str | None,
    gateway: str | None,
    mtu: int | None,
    dns: list[str],
    routes: list[tuple[str, str]],
) -> str:
    """Return what DHCP offers."""
    words = [f"{address} mask {netmask} gateway {gateway} mtu {mtu}"]
    words += ["dns " + " ".join(dns)] if dns else []
    words += [f"route {prefix} via {via}" for prefix, via in routes]
    return ", ".join(words)


def prefix_words(prefix: str, *, on_link: bool) -> str:
    """Return one prefix of a router advertisement that guests make their address of."""
    return f"{prefix} {'on' if on_link else 'off'} link"


def advertisement_words(mac: str | None, mtu: int | None, prefixes: list[str], dns: list[str]) -> str:
    """Return what a router advertisement offers."""
    words = [*prefixes, f"router {mac} mtu {mtu}"]
    words += ["dns " + " ".join(dns)] if dns else []
    return ", ".join(words)

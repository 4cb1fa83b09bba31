"""A host's plan as text for an operator's terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from l3hv.model.daemons import SYSTEM_NAMES, TITLES
from l3hv.model.plain import from_plain
from l3hv.model.plan import (
    AnycastDomain,
    DhcpRelay,
    DhcpServer,
    GuestPlan,
    GuestRoute,
    HostPlan,
    IgpInstance,
    LoopbackAddress,
    PrefixMatch,
    Routing,
    RoutingTable,
    Rule,
    Session,
    Uplink,
)
from l3hv.model.profiles import LLGR_PROFILES
from l3hv.model.text import counted

Row = tuple[str, ...]


def plan_summary(plan: Mapping[str, Any]) -> str:
    """Return the text of a plan, which is plain data (:func:`~l3hv.model.plain.as_plain`)."""
    return "\n".join(_lines(from_plain(HostPlan, plan))) + "\n"


def _lines(plan: HostPlan) -> Iterator[str]:
    routing = plan.routing
    owner = "" if plan.managed else ", not configured by l3hv"
    yield f"{plan.host}: {plan.kind.replace('_', ' ')} {plan.id} of {plan.fabric}{owner}"
    yield f"AS {routing.asn}, router id {routing.router_id}, failure profile {routing.failure_profile}"
    daemon = routing.daemon
    title = TITLES[daemon.name]
    origin = f" ({daemon.package} of {SYSTEM_NAMES[daemon.system]})" if daemon.package else ""
    yield f"{title} {daemon.version}{origin}"
    timers = routing.timers
    bfd = f"BFD {timers.bfd_interval_ms} ms x {timers.bfd_multiplier}" if _has_bfd(plan) else "no BFD"
    stale = f", stale routes kept for {timers.stale_s} s" if _keeps_stale_routes(routing) else ""
    yield f"{bfd}, hold time {timers.hold_s} s{stale}"
    yield from _section("Warnings", ((warning,) for warning in plan.warnings))
    yield from _section("VRFs", ((vrf.name, f"table {vrf.table}") for vrf in plan.vrfs))
    yield from _section("Uplinks", map(_uplink, plan.uplinks))
    yield from _section("Addresses on lo", (_loopback(lo) for lo in plan.loopbacks))
    yield from _section(f"Sessions: {len(routing.sessions)}", map(_session, routing.sessions))
    yield from _section("Ranges of clients", map(_session, routing.ranges))
    yield from _section("One next hop", (row for table in routing.tables for row in _single(routing, table)))
    yield from _section(
        "Spread anycast", (row for domain in plan.packet_filter.anycast for row in _shares(domain))
    )
    yield from _section("Rules", map(_rule, plan.rules))
    yield from _section("IGP: loopbacks of all hosts", map(_igp, routing.igp))
    yield from _section(
        "Last resorts", ((route.family, route.table, route.type, route.prefix) for route in plan.last_resorts)
    )
    yield from _section("DHCP server", _dhcp_server(plan.dhcp_server))
    yield from _section("Guests", (row for guest in plan.guests for row in _guest(guest)))
    yield from _section("DHCP relay", _relay(plan.guest_services.dhcp_relay))
    shared = ((guest.interface, guest.shared_prefix) for guest in plan.guests if guest.shared_prefix)
    yield from _section("Shared /64s, answered by the NDP proxy", shared)
    yield from _section("Accepted", (row for table in routing.tables for row in _accepts(table)))
    yield from _section("Announced", (row for table in routing.tables for row in _announces(table)))


def _has_bfd(plan: HostPlan) -> bool:
    sessions = (*plan.routing.sessions, *plan.routing.ranges)
    return bool(plan.routing.igp) or any(session.bfd for session in sessions)


def _keeps_stale_routes(routing: Routing) -> bool:
    return not set(LLGR_PROFILES).isdisjoint(routing.failure_profiles)


def _section(title: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and rows in aligned columns; nothing without rows."""
    table = list(rows)
    if not table:
        return
    yield ""
    yield title
    width = max(map(len, table))
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(width)]
    for row in table:
        yield "  " + "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()


def _uplink(uplink: Uplink) -> Row:
    vlan = "" if uplink.vlan is None else f"VLAN {uplink.vlan.id} of {uplink.vlan.parent}"
    addresses = " ".join(f"{address.address}/{address.length}" for address in uplink.addresses)
    addresses += "" if uplink.link_local is None else f" {uplink.link_local}"
    return (uplink.interface, f"path {uplink.path}", uplink.domain, f"MTU {uplink.mtu}", addresses, vlan)


def _loopback(loopback: LoopbackAddress) -> Row:
    return (
        f"{loopback.address}/{loopback.length}",
        loopback.domain,
        "announced" if loopback.announced else "",
    )


def _igp(igp: IgpInstance) -> Row:
    return (igp.name, igp.protocol, igp.loopback, f"of {igp.loopbacks}", f"on {', '.join(igp.interfaces)}")


def _session(session: Session) -> Row:
    families = "+".join(channel.family for channel in session.channels)
    passive = "passive" if session.passive else ""
    key = f"key {session.key}" if session.key is not None else ""
    relation = session.relation.replace("_", " ")
    return (session.name, relation, f"{session.local} → {session.neighbor}", families, passive, key)


def _single(routing: Routing, table: RoutingTable) -> Iterator[Row]:
    """Yield the routes that use one of several next hops (``l3hv_ecmp``), and the order of preference."""
    if table.ecmp == "none":
        yield (table.name, "all routes")
    for policy in routing.policies:
        if policy.table == table.name and policy.default_next_hops:
            hops = (f"{hop.address} ({hop.why})" for hop in policy.default_next_hops)
            yield (table.name, "the default route: " + ", then ".join(hops))


def _shares(domain: AnycastDomain) -> Iterator[Row]:
    """Yield each anycast prefix whose flows are spread (``l3hv_anycast``), and the share that stays here."""
    for share in domain.shares:
        for prefixes in share.lengths:
            for address in prefixes.addresses:
                prefix = f"{address}/{prefixes.length}"
                yield (domain.name, prefix, f"1/{share.holders} of the flows of guests stays here")


def _rule(rule: Rule) -> Row:
    words: Sequence[tuple[str, object]] = (
        ("iif", rule.iif),
        ("from", rule.source),
        ("to", rule.destination),
        ("fwmark", rule.mark),
        ("ipproto", rule.ip_protocol),
        ("sport", rule.source_port),
        ("lookup", rule.table or "the table of the VRF"),
        ("suppress_prefixlength", rule.suppress_prefixlength),
    )
    text = " ".join(f"{word} {value}" for word, value in words if value is not None)
    return (rule.family, str(rule.priority), text, f"# {rule.why}")


def _dhcp_server(server: DhcpServer | None) -> Iterator[Row]:
    if server is None:
        return
    yield (server.address, f"for {counted(len(server.relays), 'hypervisor')}")
    for pool in server.pools:
        yield (pool.name, pool.prefix, counted(len(pool.guests), "guest"))


def _guest(guest: GuestPlan) -> Iterator[Row]:
    yield (guest.name, guest.interface, guest.mac, guest.domain, f"MTU {guest.mtu}")
    for route in guest.routes:
        yield ("", route.kind, route.prefix, _next_hop(route), ", ".join(route.tables))


def _relay(relay: DhcpRelay | None) -> Iterator[Row]:
    if relay is not None:
        yield (f"from {relay.address}", f"to {', '.join(relay.servers)}")
        for guest in relay.guests:
            yield (guest.interface, guest.address, f"gateway {guest.gateway}", f"link {guest.link}")


def _next_hop(route: GuestRoute) -> str:
    return "" if route.via is None else f"via {route.via}"


def _accepts(table: RoutingTable) -> Iterator[Row]:
    return (_match(table, match) for match in table.accepts)


def _announces(table: RoutingTable) -> Iterator[Row]:
    return (_match(table, match) for match in table.announces)


def _match(table: RoutingTable, match: PrefixMatch) -> Row:
    length = int(match.prefix.partition("/")[2])
    lengths = "" if (match.low, match.high) == (length, length) else f"{{{match.low},{match.high}}}"
    return (table.name, f"{match.prefix}{lengths}", f"# {match.why}")

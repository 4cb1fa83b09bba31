"""The state that was found on a host: an observation as values, under the keys of an expectation.

An observation is the result of the module ``l3hv_observe``.  Findings are limited to things of the fabric.
They include things that no plan has, for which there is no expectation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any, Literal

from l3hv.model.addressing import DEFAULT_ROUTE, FAMILIES, family_of_text
from l3hv.model.choices import Family
from l3hv.model.daemons import UNITS
from l3hv.model.plan import GuestPlan, HostPlan
from l3hv.plan.units import effective, settings_of
from l3hv.verify import subjects
from l3hv.verify.check import Key, Kind
from l3hv.verify.expect import (
    BY_KERNEL,
    BY_TABLES_UNIT,
    DIGITS,
    HOST,
    Item,
    addresses_of,
    bfd_of,
    bfd_of_neighbor,
    families,
    igp_links,
    interface_of,
    learned_key,
    measured,
    path_to_peer,
    unit_of,
    units,
)
from l3hv.verify.fabric import is_matched
from l3hv.verify.foreign import blocked
from l3hv.verify.rewriting import flows_of, rewritten
from l3hv.verify.sets import AS_PLANNED, difference, planned_sets
from l3hv.verify.values import (
    ESTABLISHED,
    VRF_TABLE,
    Addresses,
    Advertisement,
    BfdState,
    ChangedFile,
    Configuration,
    Destination,
    Drops,
    FilterState,
    Hop,
    KernelRoute,
    Learned,
    Lease,
    LeasedAddress,
    Limit,
    Link,
    NoAnswer,
    OtherRunning,
    PolicyRule,
    Prefixes,
    Presence,
    Refused,
    Rewrites,
    SeenMac,
    SessionState,
    StrayPort,
    UnitSettings,
    UnitState,
    Unread,
    Value,
    in_order,
)

BUILTIN_TABLES = {253: "default", 254: "main", 255: "local"}
KERNEL_RULE_PRIORITIES = (32766, 32767)
"""Priorities of the kernel's rules of main and default, which a host with rules of l3hv must not have."""
OUR_DROP_INS = ("/zz-l3hv.conf", "/zz-l3hv-hardening.conf")

Observation = Mapping[str, Any]


def findings(plan: HostPlan, seen: Observation) -> dict[Key, Value]:
    """Return the values that were found on the host of ``plan``."""
    return dict(
        [
            *_units(plan, seen),
            *_unit_settings(plan, seen),
            *_listeners(seen),
            *_services(seen),
            *_links(plan, seen),
            *_networkd(plan, seen),
            *_rules(plan, seen),
            *_packet_filter(plan, seen),
            *_chains_of_others(plan, seen),
            *_unknown_callers(plan, seen),
            *_sysctls(plan, seen),
            *_routes(plan, seen),
            *_ports(plan, seen),
            *_routing(plan, seen),
            *_offers(plan, seen),
            *_sizes(plan, seen),
        ]
    )


def absent_guests(plan: HostPlan, seen: Observation) -> frozenset[str]:
    """Return the guests that are not started: they have no port, or their port has no carrier."""
    return frozenset(guest.name for guest in plan.guests if _presence(guest, seen) is not Presence.PRESENT)


def _presence(guest: GuestPlan, seen: Observation) -> Presence:
    link = seen["links"].get(guest.interface)
    if link is None:
        return Presence.ABSENT
    is_withdrawn = guest.withdraw_without_carrier and link["up"] and not link["carrier"]
    return Presence.WITHOUT_CARRIER if is_withdrawn else Presence.PRESENT


def _units(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the units that the host needs, and units of l3hv that run although it does not need them."""
    needed = units(plan)
    for name, unit in seen["units"].items():
        active, at_boot = unit["ActiveState"], unit["UnitFileState"] or None
        if name in needed or active not in {"inactive", "failed"} or at_boot == "enabled":
            yield Key(Kind.UNIT, unit_of(name)), UnitState(str(active), at_boot, seen["silent"].get(name))


def _unit_settings(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the effective settings of units; if they differ, also the drop-ins that are not from l3hv."""
    for name in units(plan):
        unit = seen["units"].get(name, {})
        if not settings_of(name) or unit.get("LoadState") in {"not-found", "masked"}:
            continue
        settings = UnitSettings.of(effective(name, unit))
        if settings != UnitSettings.of(settings_of(name)):
            foreign = [
                path for path in unit.get("DropInPaths", "").split() if not path.endswith(OUR_DROP_INS)
            ]
            settings = UnitSettings(settings.settings, tuple(foreign))
        yield Key(Kind.UNIT_SETTINGS, unit_of(name)), settings


def _networkd(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    absent = _absent_interfaces(plan, seen)
    for name, state in seen["networkd"].items():
        if state and name not in absent:
            yield Key(Kind.NETWORKD, subjects.Interface(name)), state


def _absent_interfaces(plan: HostPlan, seen: Observation) -> set[str]:
    absent = absent_guests(plan, seen)
    return {guest.interface for guest in plan.guests if guest.name in absent}


def _listeners(seen: Observation) -> Iterator[Item]:
    """Yield the sockets on which units of the fabric listen, and together the sockets of all other units.

    FRR counts as another unit: it also listens for kinds of BFD that are not configured, by its version.
    """
    others = []
    for name, sockets in seen["listeners"].items():
        if name in seen["units"] and name != UNITS["frr"]:
            yield Key(Kind.LISTENERS, unit_of(name)), tuple(sockets)
        else:
            others.append((name, tuple(sockets)))
    if others:
        yield Key(Kind.OTHER_LISTENERS, HOST), tuple(others)


def _services(seen: Observation) -> Iterator[Item]:
    for unit, text in seen["services"].items():
        yield Key(Kind.SERVICE_CONFIGURATION, unit_of(unit)), str(text)


def _links(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    carrying = {uplink.interface for uplink in plan.uplinks}
    for interface in [*(nic.interface for nic in plan.nics), *(uplink.interface for uplink in plan.uplinks)]:
        if (link := seen["links"].get(interface)) is not None:
            # A NIC may be part of a bond, or of a bridge besides its VLANs. The interface of a path may not.
            state = _port_link(link) if interface in carrying else _link(link)
            yield Key(Kind.LINK, subjects.Interface(interface)), state
    for uplink in plan.uplinks:
        if uplink.interface in seen["links"]:
            planned = {*addresses_of(uplink)}
            here = _addresses(seen, uplink.interface, planned)
            yield Key(Kind.ADDRESSES, subjects.Interface(uplink.interface)), here
    planned = {f"{loopback.address}/{loopback.length}" for loopback in plan.loopbacks}
    # A match of length 0 is the default route, which matches every address.
    of_fabric = tuple(match for table in plan.routing.tables for match in table.accepts if match.high)
    for address in seen["addresses"].get("lo", ()):
        one = f"{ip_interface(address['address']).ip}/{ip_interface(address['address']).max_prefixlen}"
        if address["address"] in planned or is_matched(one, of_fabric):
            yield Key(Kind.LOOPBACK, subjects.Address(address["address"])), True


def _link(link: Mapping[str, Any]) -> Link:
    vlan, parent = (link["vlan"], link["parent"]) if link["vlan"] is not None else (None, None)
    state: Literal["up", "no carrier", "down"] = "down"
    if link["up"]:
        state = "up" if link["carrier"] else "no carrier"
    return Link(state, link["mtu"], vlan, parent)


def _port_link(link: Mapping[str, Any]) -> Link:
    """Return the link of a guest or path, with its bridge: a port of a bridge neither routes nor filters."""
    return replace(_link(link), master=link["master"] or None)


def _addresses(seen: Observation, interface: str, planned: set[str]) -> Addresses:
    """Return the addresses of an interface, without the link-local address that the kernel itself makes."""
    here = seen["addresses"].get(interface, [])
    shown = [a for a in here if a["address"] in planned or not a["address"].startswith("fe80:")]
    trouble = ((a["address"], a["trouble"]) for a in shown if a["trouble"])
    return Addresses.of((a["address"] for a in shown), trouble)


def _tables(plan: HostPlan) -> dict[int, str]:
    return BUILTIN_TABLES | {table.id: table.name for table in plan.table_names}


def _rules(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    tables = _tables(plan)
    for family, every_rule in seen["rules"].items():
        # The kernel adds the rule of VRFs with the first VRF of any program, and keeps it when the last one
        # is gone.  It selects packets of VRFs only.
        rules = [rule for rule in every_rule if plan.vrfs or rule["table"] != VRF_TABLE]
        has_ours = any(rule["protocol"] == BY_TABLES_UNIT for rule in rules)
        if has_ours or any(rule.family == family for rule in plan.rules):
            harmless = [rule for rule in rules if _is_harmless(plan, family, rule)]
            others = [rule for rule in rules if rule not in harmless]
            subject = subjects.InFamily(family)
            yield Key(Kind.RULES, subject), tuple(_rule(rule, tables) for rule in others)
            if harmless:
                yield Key(Kind.FOREIGN_RULES, subject), tuple(_rule(rule, tables) for rule in harmless)


def _is_harmless(plan: HostPlan, family: str, rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule that is not from l3hv affects no packets of the fabric.

    That is so after the last rule of the plan, which matches all remaining packets, and if the rule selects
    an interface or a mark that is not the fabric's.  The kernel's rules of main and default are never
    harmless.
    """
    last = max((own.priority for own in plan.rules if own.family == family), default=None)
    is_of_kernel = rule["protocol"] == BY_KERNEL or rule["priority"] in KERNEL_RULE_PRIORITIES
    if last is None or is_of_kernel or rule["protocol"] == BY_TABLES_UNIT:
        return False
    if rule["priority"] > last or rule["action"] == "nop":
        return True
    interface = rule["iif"] or rule["oif"]
    is_elsewhere = interface is not None and interface not in {"lo", *_interfaces(plan)}
    marks = {int(own.mark, 16) for own in plan.rules if own.mark is not None}
    is_marked = bool(rule["mark"]) and not any(mark & rule["mask"] == rule["mark"] for mark in marks)
    return not rule["inverted"] and (is_elsewhere or is_marked)


def _interfaces(plan: HostPlan) -> set[str]:
    """Return the interfaces of the fabric."""
    uplinks = {uplink.interface for uplink in plan.uplinks} | {nic.interface for nic in plan.nics}
    return uplinks | {guest.interface for guest in plan.guests} | {vrf.name for vrf in plan.vrfs}


def _rule(rule: Mapping[str, Any], tables: Mapping[int, str]) -> PolicyRule:
    is_lookup = rule["action"] == "lookup"
    return PolicyRule(
        rule["priority"],
        rule["action"],
        tables.get(rule["table"], str(rule["table"])) if is_lookup else None,
        iif=rule["iif"],
        source=rule["source"],
        destination=rule["destination"],
        mark=(rule["mark"], rule["mask"]) if rule["mark"] else None,
        suppress_prefixlength=rule["suppress_prefixlength"],
        ip_protocol=rule["ip_protocol"],
        source_port=rule["source_port"],
        oif=rule["oif"] or None,
        inverted=bool(rule["inverted"]),
    )


def _packet_filter(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the filter and the elements of its sets; without a loaded filter no set counts as different."""
    found = seen["packet_filter"]
    expected = planned_sets(plan.packet_filter)
    if not found["loaded"]:
        yield Key(Kind.PACKET_FILTER, HOST), FilterState(loaded=False, unread=found["unread"] or None)
        for name, elements in expected.items():
            if elements:
                yield Key(Kind.SET, subjects.FilterSet(name)), AS_PLANNED
    else:
        yield Key(Kind.PACKET_FILTER, HOST), FilterState(differences=tuple(found["differences"]))
        for name in dict.fromkeys([*expected, *found["sets"]]):
            planned, there = expected.get(name, frozenset()), found["sets"].get(name, ())
            if planned or there:
                yield Key(Kind.SET, subjects.FilterSet(name)), difference(planned, there)
    for reason, packets in found["drops"].items():
        yield Key(Kind.DROPS, subjects.Counter(reason)), packets


def _chains_of_others(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the chains of other programs that drop or rewrite packets of the fabric.

    A chain that only may do so has the kind ``FOREIGN_CHAIN``.  Edge routers may translate guests' addresses
    on purpose.  Reflectors forward nothing: there only chains that rewrite packets of their sessions count.
    A table that was not read, as a whole or in part, has the kind ``FOREIGN_TABLE``.
    """
    flows = flows_of(plan)
    found: dict[Key, list[Drops | Rewrites]] = {}
    unread: dict[Key, str] = {}
    for table in seen["chains"]:
        family, name = table["family"], table["table"]
        if table["unread"]:
            key = Key(Kind.FOREIGN_TABLE, subjects.FilterTable(family, name))
            found[key], unread[key] = [], table["unread"]
        effects: list[tuple[str, Drops | Rewrites, bool]] = []
        if plan.kind != "route_reflector":
            effects += blocked(table, _interfaces(plan))
        effects += [
            (chain, rewrites, is_sure and plan.kind != "edge_router")
            for chain, rewrites, is_sure in rewritten(table, flows)
        ]
        for chain, effect, is_sure in effects:
            kind = Kind.CHAIN if is_sure else Kind.FOREIGN_CHAIN
            found.setdefault(Key(kind, subjects.Chain(family, name, chain)), []).append(effect)
    yield from ((key, unread.get(key, tuple(each))) for key, each in found.items())


def _unknown_callers(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the addresses that connect to a daemon and have no session in the plan.

    An address that now has a session may have been refused before it returned to the inventory.
    """
    expected = {session.neighbor for session in plan.routing.sessions}
    for address, count in seen["unknown_callers"].items():
        if address not in expected:
            yield Key(Kind.UNKNOWN_CALLER, subjects.Address(address)), count


def _sysctls(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the values of settings; settings of the whole machine are not visible in a container."""
    absent = _absent_interfaces(plan, seen)
    for sysctl in plan.sysctls:
        if interface_of(sysctl.key) in absent:
            continue
        value = seen["sysctls"].get(sysctl.key)
        if value is None:
            value = Unread.OF_THE_MACHINE if seen["is_container"] else Unread.NOT_IN_KERNEL
        yield Key(Kind.SYSCTL, subjects.Sysctl(sysctl.key)), value


def _routes(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the routes that BIRD did not make; routes to one prefix in one table are one value."""
    last_resorts = {(last.table, last.family, last.prefix): last.metric for last in plan.last_resorts}
    vrfs = {vrf.name for vrf in plan.vrfs}
    on_link = {(route.prefix, route.metric) for uplink in plan.uplinks for route in uplink.on_link}
    found: dict[Key, list[KernelRoute]] = {}
    for name, routes in seen["routes"].items():
        table, family = _table_and_family(name)
        has_rules = any(rule.family == family for rule in plan.rules)
        if table == "main" and has_rules and not plan.main_default_route:
            defaults = tuple(
                Destination(str(route["type"]), _hops(route))
                for route in routes
                if route["prefix"] in DEFAULT_ROUTE.values()
            )
            yield Key(Kind.DEFAULT_ROUTE, subjects.InFamily(family)), defaults
        for route in routes:
            prefix = "default" if route["prefix"] in DEFAULT_ROUTE.values() else route["prefix"]
            key = Key(Kind.ROUTE, subjects.Route(route["prefix"], table))
            if table in vrfs and route["protocol"] == BY_KERNEL and not _is_connected(route):
                continue
            if table == "main":
                is_planned = (route["prefix"], route["metric"]) in on_link
                is_of_kernel = route["protocol"] == BY_KERNEL
                if not (is_planned or is_of_kernel) or route["prefix"].startswith(("fe80:", "ff00:")):
                    continue
            elif route["metric"] == last_resorts.get((table, family, prefix)):
                key = Key(Kind.LAST_RESORT, subjects.LastResort(table, family, prefix))
            found.setdefault(key, []).append(_route(route))
    yield from ((key, in_order(several)) for key, several in found.items())


def _is_connected(route: Mapping[str, Any]) -> bool:
    """Tell whether a route of the kernel leads to a path's prefix; a VRF also has the local addresses."""
    return route["type"] == "unicast" and not route["prefix"].startswith(("fe80:", "ff00:"))


def _table_and_family(name: str) -> tuple[str, Family]:
    """Return the table and the family of routes from their name in an observation.

    >>> _table_and_family("local-out ipv6")
    ('local-out', 'ipv6')
    """
    family = next(family for family in FAMILIES if name.endswith(f" {family}"))
    return name.removesuffix(f" {family}"), family


def _route(route: Mapping[str, Any]) -> KernelRoute:
    return KernelRoute(str(route["type"]), _hops(route), route["protocol"], route["metric"], route["prefsrc"])


def _hops(route: Mapping[str, Any]) -> tuple[Hop, ...]:
    """Return the next hops of a route; only routes of type unicast have next hops."""
    if route["type"] != "unicast":
        return ()
    return in_order(Hop(hop["via"] or None, hop["dev"] or None) for hop in route["next_hops"])


def _ports(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    links = seen["links"]
    for guest in plan.guests:
        presence = _presence(guest, seen)
        subject = subjects.Guest(guest.name)
        yield Key(Kind.GUEST, subject), presence
        if presence is not Presence.PRESENT:
            continue
        link = links[guest.interface]
        yield Key(Kind.PORT_LINK, subject), _port_link(link)
        yield Key(Kind.PORT_MAC, subject), link["mac"]
        yield Key(Kind.PORT_ADDRESSES, subject), _addresses(seen, guest.interface, set(guest.gateways))
        for name, value in seen["settings"].get(guest.interface, {}).items():
            for family in families(guest):
                if name.startswith(f"{family} "):
                    setting = subjects.PortSetting(guest.name, family, name.removeprefix(f"{family} "))
                    yield Key(Kind.PORT_SETTING, setting), value
        yield Key(Kind.MAC, subject), _macs(seen, guest)
    for entry in seen["neighbors"]:
        yield Key(Kind.NEIGHBOR, subjects.Neighbor(entry["guest"], entry["address"])), entry["mac"]
    planned = {guest.interface for guest in plan.guests}
    watched = {"lo"} | {nic.interface for nic in plan.nics} | {uplink.interface for uplink in plan.uplinks}
    for interface in sorted(set(links) - planned - watched):
        stray = StrayPort(links[interface]["mac"], _addresses(seen, interface, set()))
        yield Key(Kind.STRAY_PORT, subjects.Interface(interface)), stray
    for address, main in seen["translations"].items():
        yield Key(Kind.TRANSLATION, subjects.Address(address)), main


def _macs(seen: Observation, guest: GuestPlan) -> tuple[SeenMac, ...]:
    """Return the MACs behind a port whose frames the filter drops; without any, the guest's MAC."""
    dropped = seen["packet_filter"]["foreign_macs"].get(guest.interface, ())
    macs = tuple(SeenMac(mac, own_dropped=mac == guest.mac) for mac in dropped)
    return macs or (SeenMac(guest.mac),)


def _routing(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    daemon = seen["routing"]
    if "error" in daemon:
        yield Key(Kind.CONFIGURATION, HOST), NoAnswer(plan.routing.daemon.name, daemon["error"])
    else:
        yield Key(Kind.CONFIGURATION, HOST), _configuration(daemon["configuration"])
        yield Key(Kind.ROUTER_ID, HOST), daemon["router_id"]
    sessions = daemon.get("sessions", {})
    yield from _sessions(plan, sessions)
    yield from _bfd(plan, daemon.get("bfd", ()), sessions)
    if plan.kind != "route_reflector" and not plan.routing.igp:
        for path, domain in sorted({(uplink.path, uplink.domain) for uplink in plan.uplinks}):
            up = any(
                sessions.get(session.name, {}).get("state") == ESTABLISHED
                for session in plan.routing.sessions
                if session.path == path and domain in session.domains
            )
            yield Key(Kind.PATH, subjects.Path(path, domain)), up
    for table in plan.routing.tables:
        if (learned := seen["learned"].get(table.name)) is not None:
            yield learned_key(table), _learned(learned)


def _sessions(plan: HostPlan, sessions: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the states of sessions, their numbers of prefixes, reached limits, and refused routes."""
    reasons = {refusal.number: refusal.why for refusal in plan.routing.refusals}
    announcers = {session.name: (session.peer, session.domain) for session in plan.routing.sessions}
    actions = {
        (session.name, channel.family): channel.limit.action
        for session in plan.routing.sessions
        for channel in session.channels
        if channel.limit is not None
    }
    for name, session in sessions.items():
        yield Key(Kind.SESSION, subjects.Session(name)), _session(session)
        announcer, domain = announcers.get(name, (name, None))
        for family, channel in session["channels"].items():
            subject = subjects.SessionFamily(name, family)
            routes = channel["routes"]
            if session["state"] == ESTABLISHED and channel["state"] == "UP":
                received = Prefixes(routes.get("imported", 0), routes.get("filtered") or 0)
                yield Key(Kind.RECEIVED, subject), received
                yield Key(Kind.SENT, subject), Prefixes(routes.get("exported", 0))
            for limit in channel.get("limits", ()):
                yield Key(Kind.LIMIT, subject), Limit(limit, actions.get((name, family)))
            for route in channel.get("refused", ()):
                refused = Refused(reasons.get(route["reason"]))
                announcement = subjects.Announcement(announcer, domain, route["prefix"])
                yield Key(Kind.ANNOUNCEMENT, announcement), refused


def _session(session: Mapping[str, Any]) -> SessionState:
    if session["state"] == ESTABLISHED:
        return SessionState(ESTABLISHED, session["local"], session["neighbor"])
    why = session["error"] or session["info"].removeprefix(session["state"]).strip()
    return SessionState(str(session["state"]), why=why or None)


def _bfd(plan: HostPlan, found: Iterable[Mapping[str, Any]], sessions: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the BFD sessions; a neighbour that is not in the plan is identified by its address."""
    if plan.routing.igp:
        yield from _bfd_of_igp(plan, [*found])
        return
    known = {session.neighbor: bfd_of(session) for session in plan.routing.sessions}
    established = {s["neighbor"] for s in sessions.values() if s["state"] == ESTABLISHED}
    for session in found:
        address = session["address"]
        subject = known.get(address, subjects.Address(address))
        yield Key(Kind.BFD, subject), _bfd_state(session, is_bgp_up=address in established)


def _bfd_of_igp(plan: HostPlan, found: Iterable[Mapping[str, Any]]) -> Iterator[Item]:
    """Yield the BFD sessions of neighbours in the plan, and the number of all neighbours on each link.

    BIRD has no BFD session with a neighbour that BFD has lost.
    """
    places = {(near.interface, near.neighbor): near for near in plan.routing.path_neighbors}
    links = igp_links(plan)
    counts = dict.fromkeys(links.values(), 0)
    for session in found:
        near = places.get((session["interface"], session["address"]))
        if near is not None:
            yield Key(Kind.BFD, bfd_of_neighbor(near)), _bfd_state(session, is_bgp_up=False)
        link = links.get((session["interface"], family_of_text(session["address"])))
        if link is not None and session.get("state") == "Up":
            counts[link] += 1
    yield from ((Key(Kind.IGP_NEIGHBORS, link), count) for link, count in counts.items())


def _bfd_state(session: Mapping[str, Any], *, is_bgp_up: bool) -> BfdState:
    if session.get("state") != "Up":
        return BfdState(str(session.get("state", "?")), bgp_up=is_bgp_up)
    interval, timeout = (round(float(session[key]) * 1000) for key in ("interval", "timeout"))
    return BfdState("Up", interval, round(timeout / interval) if interval else None)


def _learned(learned: Mapping[str, Any]) -> Learned:
    attributes = tuple(
        (attribute, None if count == learned["count"] else count)
        for attribute, count in sorted(learned["attributes"].items())
    )
    digest = learned["digest"][:DIGITS]
    return Learned(learned["count"], digest, attributes, tuple(learned["misdirected"]))


def _configuration(
    configuration: Mapping[str, str | None],
) -> Configuration | ChangedFile | OtherRunning:
    """Return whether the file is unchanged since it was placed, and whether the daemon runs it.

    ``running`` is the digest of the configuration that the daemon runs, or a text if it runs another one.
    ``placed`` is the digest that the file contains, ``file`` the digest of its present content.
    """
    running, placed, file = (configuration[key] for key in ("running", "placed", "file"))
    if placed is None:
        return Configuration.WITHOUT_DIGEST if file else Configuration.NO_FILE
    if file != placed:
        return ChangedFile(running)
    return Configuration.INTENDED if running == placed else OtherRunning(running, placed)


def _offers(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    for guest in plan.guests:
        offer = seen["offers"].get(guest.name)
        if offer is None or _presence(guest, seen) is not Presence.PRESENT:
            continue
        subject = subjects.Guest(guest.name)
        lease, router = offer["lease"], offer["router"]
        services = plan.guest_services
        if guest.lease is not None and (services.dhcp or services.dhcp_relay is not None):
            read = _lease if services.dhcp else _leased_address
            yield Key(Kind.LEASE, subject), Unread.NO_REPLY if lease is None else read(lease)
        if guest.prefix is not None:
            advertised = Unread.NO_REPLY if router is None else _advertisement(router)
            yield Key(Kind.ADVERTISEMENT, subject), advertised


def _leased_address(lease: Mapping[str, Any]) -> LeasedAddress:
    return LeasedAddress(lease["address"])


def _lease(lease: Mapping[str, Any]) -> Lease:
    return Lease(
        lease["address"],
        lease["netmask"],
        lease["gateway"],
        lease["mtu"],
        tuple(lease["dns"]),
        tuple((prefix, via) for prefix, via in lease["routes"]),
    )


def _advertisement(router: Mapping[str, Any]) -> Advertisement:
    prefixes = tuple(
        (prefix["prefix"], bool(prefix["on_link"]))
        for prefix in router["prefixes"]
        if prefix["autonomous"] and prefix["preferred"]
    )
    is_router = bool(router["lifetime"])
    return Advertisement(prefixes, router["mac"], router["mtu"], tuple(router["dns"]), is_router)


def _sizes(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the size of the largest packet that each reflector answered, or ``NO_PING``.

    If the MTU of the interface itself is too small, only the check of the link fails.
    """
    mtus = {uplink.interface: uplink.mtu for uplink in plan.uplinks}
    for session in measured(plan):
        passes = seen["sizes"].get(f"{session.interface} {session.neighbor}", 0)
        link = seen["links"].get(session.interface, {"mtu": 0})
        if passes == link["mtu"]:
            passes = max(passes, mtus[session.interface])
        yield Key(Kind.SIZE, path_to_peer(session)), passes or Unread.NO_PING

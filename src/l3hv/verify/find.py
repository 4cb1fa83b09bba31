"""What a host does look like: an observation, under the names and in the words of an expectation.

An observation is what the module ``l3hv_observe`` returns.  Findings are about what belongs to the fabric:
what is there although no plan speaks of it is found too, and has no expectation beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface
from typing import Any

from l3hv.model.choices import LimitAction
from l3hv.model.daemons import TITLES, UNITS
from l3hv.model.plan import Guest, HostPlan
from l3hv.model.text import counted
from l3hv.plan.units import effective, settings_of, settings_words
from l3hv.verify.check import NOTHING
from l3hv.verify.expect import (
    BY_KERNEL,
    BY_TABLES_UNIT,
    Item,
    advertisement_words,
    bfd_name,
    families,
    interface_of,
    last_resort_name,
    learned_name,
    learned_words,
    lease_words,
    prefix_words,
    size_name,
    units,
)
from l3hv.verify.fabric import is_matched
from l3hv.verify.foreign import blocked
from l3hv.verify.rewriting import flows_of, rewritten
from l3hv.verify.sets import AS_PLANNED, difference, planned_sets, set_name
from l3hv.verify.words import hop_words, in_order, route_words, rule_words

BUILTIN_TABLES = {253: "default", 254: "main", 255: "local"}
NOT_IN_KERNEL = "not in this kernel"
KERNEL_RULES = (32766, 32767)
"""Priorities of the kernel's rules of main and default, which a host with rules of ours must not have."""
OUR_DROP_IN = "/zz-l3hv.conf"
OTHER_LISTENERS = "listeners of others"
"""They are shown, and judged by nobody here."""
OF_THE_MACHINE = "not in a container"
NO_PING = "no ping was answered"
"""The far end of a path may not answer pings, or none was sent."""
PRESENT, ABSENT, WITHOUT_CARRIER = "present", "absent", "without carrier"
DEFAULTS = frozenset({"0.0.0.0/0", "::/0"})

WITHOUT_BFD = "but the BGP session is up: the neighbour has no BFD, a dead path is left after the hold time"

Observation = Mapping[str, Any]


def findings(plan: HostPlan, seen: Observation) -> dict[str, str]:
    """Return what was found on the host of ``plan``."""
    return dict(
        [
            *_units(plan, seen),
            *_unit_settings(plan, seen),
            *_listeners(seen),
            *_links(plan, seen),
            *_networkd(plan, seen),
            *_rules(plan, seen),
            *_packet_filter(plan, seen),
            *_chains_of_others(plan, seen),
            *_strangers(plan, seen),
            *_sysctls(plan, seen),
            *_routes(plan, seen),
            *_ports(plan, seen),
            *_routing(plan, seen),
            *_offers(plan, seen),
            *_sizes(plan, seen),
        ]
    )


def absent_guests(plan: HostPlan, seen: Observation) -> frozenset[str]:
    """Return the guests that are not started: without interface, or withdrawn because it has no carrier."""
    return frozenset(guest.name for guest in plan.guests if _presence(guest, seen) != PRESENT)


def _presence(guest: Guest, seen: Observation) -> str:
    link = seen["links"].get(guest.interface)
    if link is None:
        return ABSENT
    is_withdrawn = guest.withdraw_without_carrier and link["up"] and not link["carrier"]
    return WITHOUT_CARRIER if is_withdrawn else PRESENT


def _units(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the units that are needed, and those of ours that run without being needed."""
    needed = units(plan)
    for name, unit in seen["units"].items():
        active, file = unit["ActiveState"], unit["UnitFileState"] or "not installed"
        if name in needed or active not in {"inactive", "failed"} or file == "enabled":
            silence = f", {seen['silent'][name]}" if name in seen["silent"] else ""
            yield f"unit {name.removesuffix('.service')}", f"{active}, {file}{silence}"


def _unit_settings(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the effective settings of units, and the drop-ins of others where they are not as promised."""
    for name in units(plan):
        unit = seen["units"].get(name, {})
        if not settings_of(name) or unit.get("LoadState") in {"not-found", "masked"}:
            continue
        words = settings_words(effective(name, unit))
        if words != settings_words(settings_of(name)):
            foreign = [path for path in unit.get("DropInPaths", "").split() if not path.endswith(OUR_DROP_IN)]
            words += f" ({', '.join(foreign)})" if foreign else ""
        yield f"unit {name.removesuffix('.service')} settings", words


def _networkd(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    absent = _absent_interfaces(plan, seen)
    for name, state in seen["networkd"].items():
        if state and name not in absent:
            yield f"networkd {name}", state


def _absent_interfaces(plan: HostPlan, seen: Observation) -> set[str]:
    absent = absent_guests(plan, seen)
    return {guest.interface for guest in plan.guests if guest.name in absent}


def _listeners(seen: Observation) -> Iterator[Item]:
    """Yield where the units of the fabric listen, and what others do.

    FRR is one of these: it listens for kinds of BFD that nobody has asked for, which depend on its version.
    """
    others = []
    for name, sockets in seen["listeners"].items():
        if name in seen["units"] and name != UNITS["frr"]:
            yield f"listeners {name.removesuffix('.service')}", ", ".join(sockets)
        else:
            others += [f"{name}: {', '.join(sockets)}"]
    if others:
        yield OTHER_LISTENERS, "\n".join(others)


def _links(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    carrying = {uplink.interface for uplink in plan.uplinks}
    for interface in [*(nic.interface for nic in plan.nics), *(uplink.interface for uplink in plan.uplinks)]:
        if (link := seen["links"].get(interface)) is not None:
            # A NIC may be in a bond, or in a bridge beside its VLANs; what carries a path may not.
            yield f"link {interface}", (_port_words if interface in carrying else _link_words)(link)
    for uplink in plan.uplinks:
        if uplink.interface in seen["links"]:
            planned = {f"{address.address}/{address.length}" for address in uplink.addresses}
            yield f"addresses {uplink.interface}", _addresses(seen, uplink.interface, planned)
    planned = {f"{loopback.address}/{loopback.length}" for loopback in plan.loopbacks}
    ours = tuple(pattern for table in plan.routing.tables for pattern in table.accepts if pattern.high)
    for address in seen["addresses"].get("lo", ()):
        one = f"{ip_interface(address['address']).ip}/{ip_interface(address['address']).max_prefixlen}"
        if address["address"] in planned or is_matched(one, ours):
            yield f"loopback {address['address']}", "on lo"


def _link_words(link: Mapping[str, Any]) -> str:
    state = "up" if link["up"] and link["carrier"] else "no carrier" if link["up"] else "down"
    vlan = f", vlan {link['vlan']} on {link['parent']}" if link["vlan"] is not None else ""
    return f"{state}, mtu {link['mtu']}{vlan}"


def _port_words(link: Mapping[str, Any]) -> str:
    """Return a link that carries one guest or path, with its bridge: there it neither routes nor filters."""
    master = f", in {link['master']}" if link["master"] else ""
    return f"{_link_words(link)}{master}"


def _addresses(seen: Observation, interface: str, planned: set[str]) -> str:
    """Return the addresses of an interface, but for the link-local one that the kernel makes by itself."""
    here = seen["addresses"].get(interface, [])
    shown = [a for a in here if a["address"] in planned or not a["address"].startswith("fe80:")]
    trouble = {f"{a['address']} is {a['trouble']}" for a in shown if a["trouble"]}
    words = in_order(a["address"] for a in shown) or NOTHING
    return "; ".join([words, *sorted(trouble)])


def _tables(plan: HostPlan) -> dict[int, str]:
    return BUILTIN_TABLES | {table.id: table.name for table in plan.table_names}


def _rules(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    tables = _tables(plan)
    for family, rules in seen["rules"].items():
        has_ours = any(rule["protocol"] == BY_TABLES_UNIT for rule in rules)
        if has_ours or any(rule.family == family for rule in plan.rules):
            harmless = [rule for rule in rules if _is_harmless(plan, family, rule)]
            others = [rule for rule in rules if rule not in harmless]
            yield f"rules {family}", "\n".join(_rule_words(rule, tables) for rule in others)
            if harmless:
                yield f"foreign rules {family}", "\n".join(_rule_words(rule, tables) for rule in harmless)


def _is_harmless(plan: HostPlan, family: str, rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule of somebody else leaves alone what the plan's rules are for.

    It does after the last of them, which takes all that is left, and where it is for packets of an interface
    or with a mark that is not the fabric's.  The kernel's own have to go.
    """
    last = max((own.priority for own in plan.rules if own.family == family), default=None)
    is_of_kernel = rule["protocol"] == BY_KERNEL or rule["priority"] in KERNEL_RULES
    if last is None or is_of_kernel or rule["protocol"] == BY_TABLES_UNIT:
        return False
    if rule["priority"] > last or rule["action"] == "nop":
        return True
    interface = rule["iif"] or rule["oif"]
    is_elsewhere = interface is not None and interface not in {"lo", *_interfaces(plan)}
    ours = {int(own.mark, 16) for own in plan.rules if own.mark is not None}
    is_marked = bool(rule["mark"]) and not any(mark & rule["mask"] == rule["mark"] for mark in ours)
    return not rule["is_inverted"] and (is_elsewhere or is_marked)


def _interfaces(plan: HostPlan) -> set[str]:
    """Return the interfaces of the fabric."""
    uplinks = {uplink.interface for uplink in plan.uplinks} | {nic.interface for nic in plan.nics}
    return uplinks | {guest.interface for guest in plan.guests}


def _rule_words(rule: Mapping[str, Any], tables: Mapping[int, str]) -> str:
    action = rule["action"]
    words = rule_words(
        rule["priority"],
        f"lookup {tables.get(rule['table'], rule['table'])}" if action == "lookup" else action,
        iif=rule["iif"],
        source=rule["source"],
        destination=rule["destination"],
        mark=f"{rule['mark']:#x}/{rule['mask']:#x}" if rule["mark"] else None,
        suppress_prefixlength=rule["suppress_prefixlength"],
        ip_protocol=rule["ip_protocol"],
        source_port=rule["source_port"],
    )
    extra = [f"oif {rule['oif']}"] if rule["oif"] else []
    extra += ["not"] if rule["is_inverted"] else []
    return " ".join([words, *extra])


def _packet_filter(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the filter and what is in its sets; where there is none its sets are not missed besides."""
    found = seen["packet_filter"]
    expected = planned_sets(plan.packet_filter)
    if not found["is_loaded"]:
        yield "packet filter", found["unread"] or "none"
        yield from ((set_name(name), AS_PLANNED) for name, elements in expected.items() if elements)
    else:
        yield "packet filter", "\n".join(found["differences"]) or "the intended one"
        for name in dict.fromkeys([*expected, *found["sets"]]):
            planned, elements = expected.get(name, frozenset()), found["sets"].get(name, ())
            if planned or elements:
                yield set_name(name), difference(planned, elements)
    for reason, packets in found["drops"].items():
        yield f"drops {reason}", counted(packets, "packet")


def _chains_of_others(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the chains of others that drop or rewrite packets of the fabric.

    Those that perhaps do are ``foreign chain``.  Edge routers may translate guests' addresses on purpose.
    Reflectors forward nothing, and are asked for what rewrites their sessions.  ``foreign nftables`` are
    those that were not read, as a whole or in part.
    """
    flows = flows_of(plan)
    found: dict[str, list[str]] = {}
    for table in seen["chains"]:
        if table["unread"]:
            found[f"foreign nftables {table['family']} {table['table']}"] = [table["unread"]]
        effects = [] if plan.kind == "route_reflector" else [*blocked(table, _interfaces(plan))]
        effects += [
            (name, words, is_sure and plan.kind != "edge_router")
            for name, words, is_sure in rewritten(table, flows)
        ]
        for name, words, is_sure in effects:
            kind = "chain" if is_sure else "foreign chain"
            found.setdefault(f"{kind} {table['family']} {table['table']} {name}", []).append(words)
    yield from ((what, "\n".join(lines)) for what, lines in found.items())


def _strangers(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the addresses that call a reflector's daemon, and that no session of the plan is for.

    A host that came back into the inventory called in vain before: that is over.
    """
    expected = {session.neighbor for session in plan.routing.sessions}
    for address, count in seen["strangers"].items():
        if address not in expected:
            yield f"stranger {address}", f"calls, and is refused ({counted(count, 'time')} within 5 minutes)"


def _sysctls(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the settings that there are; some belong to the machine and are not seen in a container."""
    absent = _absent_interfaces(plan, seen)
    for sysctl in plan.sysctls:
        if interface_of(sysctl.key) in absent:
            continue
        value = seen["sysctls"].get(sysctl.key)
        if value is None:
            value = OF_THE_MACHINE if seen["is_container"] else NOT_IN_KERNEL
        yield f"sysctl {sysctl.key}", value


def _routes(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the routes that BIRD did not make, those of one prefix and table together."""
    last_resorts = {(last.table, last.family, last.prefix): last.metric for last in plan.last_resorts}
    found: dict[str, list[str]] = {}
    for name, routes in seen["routes"].items():
        table, family = name.rsplit(" ", 1)
        has_rules = any(rule.family == family for rule in plan.rules)
        if table == "main" and has_rules and not plan.main_default_route:
            defaults = [_leads(route) for route in routes if route["prefix"] in DEFAULTS]
            yield f"default route in main {family}", "; ".join(defaults) or "none"
        for route in routes:
            words = route_words(_leads(route), route["protocol"], route["metric"], route["prefsrc"])
            prefix = "default" if route["prefix"] in DEFAULTS else route["prefix"]
            if table == "main":
                if route["protocol"] == 2 and not route["prefix"].startswith(("fe80:", "ff00:")):
                    found.setdefault(f"route {route['prefix']} in main", []).append(words)
            elif route["metric"] == last_resorts.get((table, family, prefix)):
                found.setdefault(last_resort_name(table, family, prefix), []).append(words)
            else:
                found.setdefault(f"route {route['prefix']} in {table}", []).append(words)
    for what, several in found.items():
        yield what, "\n".join(sorted(several))


def _leads(route: Mapping[str, Any]) -> str:
    if route["type"] != "unicast":
        return str(route["type"])
    return " and ".join(sorted(hop_words(hop["via"], hop["dev"]) for hop in route["next_hops"]))


def _ports(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    links = seen["links"]
    for guest in plan.guests:
        presence = _presence(guest, seen)
        yield f"guest {guest.name}", presence
        if presence != PRESENT:
            continue
        link = links[guest.interface]
        port = f"port {guest.name}"
        yield f"{port} link", _port_words(link)
        yield f"{port} mac", link["mac"]
        yield f"{port} addresses", _addresses(seen, guest.interface, set(guest.gateways))
        for setting, value in seen["settings"].get(guest.interface, {}).items():
            if setting.split()[0] in families(guest):
                yield f"{port} {setting}", value
        yield f"mac {guest.name}", _mac_words(seen, guest)
    for entry in seen["neighbors"]:
        yield f"neighbor {entry['guest']} {entry['address']}", f"{entry['mac']}, permanently"
    planned = {guest.interface for guest in plan.guests}
    watched = {"lo"} | {nic.interface for nic in plan.nics} | {uplink.interface for uplink in plan.uplinks}
    for interface in sorted(set(links) - planned - watched):
        yield f"port {interface}", f"{links[interface]['mac']}, {_addresses(seen, interface, set())}"
    for address, main in seen["translations"].items():
        yield f"translation {address}", f"to {main}"


def _mac_words(seen: Observation, guest: Guest) -> str:
    """Return the MACs that the filter drops behind a port (the guest's own too), or else the guest's."""
    dropped = seen["packet_filter"]["strangers"].get(guest.interface, ())
    words = (f"{mac}, its own, which the filter drops" if mac == guest.mac else mac for mac in dropped)
    return " and ".join(words) or guest.mac


def _routing(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    daemon = seen["routing"]
    if "error" in daemon:
        title = TITLES[plan.routing.daemon.name]
        yield "running configuration", f"no answer from {title} ({daemon['error']})"
    else:
        yield "running configuration", _configuration_words(daemon["configuration"])
        yield "router id", daemon["router_id"]
    sessions = daemon.get("sessions", {})
    reasons = {refusal.number: refusal.why for refusal in plan.routing.refusals}
    announcers = {session.name: f"{session.peer} {session.domain}" for session in plan.routing.sessions}
    actions = {
        (session.name, channel.family): channel.limit.action
        for session in plan.routing.sessions
        for channel in session.channels
        if channel.limit is not None
    }
    for name, session in sessions.items():
        yield f"session {name}", _session_words(session)
        for family, channel in session["channels"].items():
            routes = channel["routes"]
            if session["state"] == "Established" and channel["state"] == "UP":
                refused = f", {routes['filtered']} refused" if routes.get("filtered") else ""
                yield f"received {name} {family}", counted(routes.get("imported", 0), "prefix") + refused
                yield f"sent {name} {family}", counted(routes.get("exported", 0), "prefix")
            for limit in channel.get("limits", ()):
                yield f"limit {name} {family}", _limit_words(limit, actions.get((name, family)))
            for route in channel.get("refused", ()):
                why = reasons.get(route["reason"], "a filter says so")
                yield f"announcement {announcers.get(name, name)} {route['prefix']}", f"refused: {why}"
    names = {session.neighbor: bfd_name(session) for session in plan.routing.sessions}
    established = {s["neighbor"] for s in sessions.values() if s["state"] == "Established"}
    for session in daemon.get("bfd", ()):
        words = _bfd_words(session)
        if session.get("state") != "Up" and session["address"] in established:
            words += f", {WITHOUT_BFD}"
        yield names.get(session["address"], f"bfd {session['address']}"), words
    if plan.kind != "route_reflector":
        for path, domain in sorted({(uplink.path, uplink.domain) for uplink in plan.uplinks}):
            up = any(
                sessions.get(session.name, {}).get("state") == "Established"
                for session in plan.routing.sessions
                if (session.path, session.relation) == (path, "reflector") and domain in session.domains
            )
            yield f"path {path} has a reflector for {domain}", "yes" if up else "no"
    for table in plan.routing.tables:
        if (learned := seen["learned"].get(table.name)) is not None:
            attributes = [
                words if count == learned["count"] else f"{words} ({counted(count, 'route')})"
                for words, count in sorted(learned["attributes"].items())
            ]
            attributes += [f"{route}, which is not there" for route in learned["misdirected"]]
            yield learned_name(table), learned_words(learned["count"], learned["digest"], attributes)


LIMIT_ACTIONS: dict[LimitAction, str] = {
    "warn": "all of them are taken",
    "block": "further prefixes are refused until there are fewer again",
    "restart": "the session ends, and is tried again",
    "disable": "the session has ended for good",
}


def _limit_words(limit: str, action: LimitAction | None) -> str:
    """Return that a limit is reached, and what the daemon does about it."""
    return f"the {limit} is reached: {LIMIT_ACTIONS[action]}" if action else f"the {limit} is reached"


def _configuration_words(configuration: Mapping[str, str | None]) -> str:
    """Return whether the daemon runs the file that was placed, and whether that is still what was placed.

    ``running`` is the digest of what it runs, or what it runs instead; ``placed`` is the digest that the file
    carries, ``file`` the one that it has.
    """
    running, placed, file = (configuration[key] for key in ("running", "placed", "file"))
    if placed is None:
        return "the file carries no digest" if file else "there is no file"
    if file != placed:
        return f"the file was changed after it was placed (it runs {running})"
    return "the intended one" if running == placed else f"{running} (the file has {placed})"


def _session_words(session: Mapping[str, Any]) -> str:
    if session["state"] == "Established":
        return f"Established, {session['local']} to {session['neighbor']}"
    why = session["error"] or session["info"].removeprefix(session["state"]).strip()
    return f"{session['state']} ({why})" if why else str(session["state"])


def _bfd_words(session: Mapping[str, str]) -> str:
    if session.get("state") != "Up":
        return str(session.get("state", "?"))
    interval, timeout = (round(float(session[key]) * 1000) for key in ("interval", "timeout"))
    return f"Up, every {interval} ms, lost after {round(timeout / interval) if interval else '?'}"


def _offers(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    for guest in plan.guests:
        offer = seen["offers"].get(guest.name)
        if offer is None or _presence(guest, seen) != PRESENT:
            continue
        lease, router = offer["lease"], offer["router"]
        if guest.lease is not None:
            yield f"lease {guest.name}", "no offer" if lease is None else _lease(lease)
        if guest.prefix is not None:
            yield f"ra {guest.name}", "no answer" if router is None else _advertisement(router)


def _sizes(plan: HostPlan, seen: Observation) -> Iterator[Item]:
    """Yield the largest packet that each reflector answered, or that nothing is known of it.

    An interface with another MTU than planned is a difference of its own.
    """
    mtus = {uplink.interface: uplink.mtu for uplink in plan.uplinks}
    for session in plan.routing.sessions:
        if session.relation == "reflector":
            passes = seen["sizes"].get(f"{session.interface} {session.neighbor}", 0)
            link = seen["links"].get(session.interface, {"mtu": 0})
            if passes == link["mtu"]:
                passes = max(passes, mtus[session.interface])
            yield size_name(session), f"{passes} bytes" if passes else NO_PING


def _lease(lease: Mapping[str, Any]) -> str:
    words = {key: lease[key] for key in ("netmask", "gateway", "mtu", "dns", "routes")}
    return lease_words(lease["address"], **words)


def _advertisement(router: Mapping[str, Any]) -> str:
    prefixes = [
        prefix_words(prefix["prefix"], on_link=prefix["on_link"])
        for prefix in router["prefixes"]
        if prefix["autonomous"] and prefix["preferred"]
    ]
    if not router["lifetime"]:
        prefixes.append("no router")
    return advertisement_words(router["mac"], router["mtu"], prefixes, router["dns"])

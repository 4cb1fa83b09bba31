"""Words for values: the text of what was expected and of what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable

from l3hv.model.choices import LimitAction
from l3hv.model.daemons import TITLES
from l3hv.model.text import counted
from l3hv.verify.foreign import UNREAD
from l3hv.verify.values import (
    ESTABLISHED,
    Addresses,
    Advertisement,
    AtLeast,
    BfdState,
    ChangedFile,
    Configuration,
    Destination,
    Drops,
    Effects,
    FilterState,
    FlowName,
    Hop,
    KernelRoute,
    KernelRoutes,
    Learned,
    LearnedHops,
    Lease,
    LeasedAddress,
    Limit,
    Link,
    Listeners,
    ListenersOfUnits,
    NoAnswer,
    OtherRule,
    OtherRunning,
    PolicyRule,
    Prefixes,
    Presence,
    Refused,
    Rewrite,
    Rewrites,
    SeenMac,
    SessionState,
    SetDifference,
    StrayPort,
    UnitSettings,
    UnitState,
    Unread,
)

NOTHING = "nothing"
"""The text for an expected thing that is missing, and for the expectation of an unexpected one."""
INTENDED = "the intended one"

PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 12: "bird", 16: "dhcp", 107: "l3hv"}
"""The maker of a route or rule (rt_protos); 107 is l3hv."""

ELEMENTS_NAMED = 10
REWRITES_NAMED = 3

UNREAD_SETTINGS = {Unread.NOT_IN_KERNEL: "not in this kernel", Unread.OF_THE_MACHINE: "not in a container"}

PRESENCES = {
    Presence.PRESENT: "present",
    Presence.ABSENT: "absent",
    Presence.WITHOUT_CARRIER: "without carrier",
}

CONFIGURATIONS = {
    Configuration.INTENDED: INTENDED,
    Configuration.WITHOUT_DIGEST: "the file carries no digest",
    Configuration.NO_FILE: "there is no file",
}

FLOWS = {
    FlowName.FROM_GUESTS: "what guests send",
    FlowName.TO_GUESTS: "what guests receive",
    FlowName.RECEIVED_BGP: "received BGP",
    FlowName.SENT_BGP: "sent BGP",
}

LIMIT_ACTIONS: dict[LimitAction, str] = {
    "warn": "all of them are taken",
    "block": "further prefixes are refused until there are fewer again",
    "restart": "the session ends, and is tried again",
    "disable": "the session has ended for good",
}

WITHOUT_BFD = "but the BGP session is up: the neighbour has no BFD, a dead path is left after the hold time"


def plain_text(value: str) -> str:
    """Return a value that is already text."""
    return value


# Units.


def unit_state(unit: UnitState) -> str:
    """Return the state of a unit.

    >>> unit_state(UnitState("active", None))
    'active, not installed'
    """
    words = [unit.active, unit.at_boot or "not installed"]
    return ", ".join([*words, *([unit.silence] if unit.silence is not None else [])])


def unit_settings(unit: UnitSettings) -> str:
    """Return settings of a unit, and the drop-ins of other programs that change some of them.

    >>> unit_settings(UnitSettings((("User", ("bird",)),), ("/etc/other.conf",)))
    'User=bird (/etc/other.conf)'
    """
    settings = ", ".join(f"{key}={' '.join(value)}" for key, value in unit.settings)
    return settings + (f" ({', '.join(unit.drop_ins)})" if unit.drop_ins else "")


def listeners(sockets: Listeners) -> str:
    """Return the ports that a unit listens on."""
    return ", ".join(sockets)


def listeners_of_units(units: ListenersOfUnits) -> str:
    """Return the ports of several units, one unit in each line."""
    return "\n".join(f"{unit}: {', '.join(sockets)}" for unit, sockets in units)


# Links and ports.


def link(state: Link) -> str:
    """Return the state of an interface.

    >>> link(Link("up", 1500, 90, "eno1")), link(Link("down", 1400, master="br0"))
    ('up, mtu 1500, vlan 90 on eno1', 'down, mtu 1400, in br0')
    """
    vlan = f", vlan {state.vlan} on {state.parent}" if state.vlan is not None else ""
    master = f", in {state.master}" if state.master else ""
    return f"{state.state}, mtu {state.mtu}{vlan}{master}"


def addresses(here: Addresses) -> str:
    """Return the addresses of an interface, and the faults of some.

    >>> addresses(Addresses(("203.0.113.254/32",), (("203.0.113.254/32", "tentative"),)))
    '203.0.113.254/32; 203.0.113.254/32 is tentative'
    """
    trouble = sorted(f"{address} is {what}" for address, what in here.trouble)
    return "; ".join([" ".join(here.addresses) or NOTHING, *trouble])


def stray_port(port: StrayPort) -> str:
    """Return an interface that no guest in the plan has."""
    return f"{port.mac}, {addresses(port.addresses)}"


def on_loopback(_: bool) -> str:
    """Return the place of a loopback's address."""
    return "on lo"


def presence(guest: Presence) -> str:
    """Return the presence of a guest."""
    return PRESENCES[guest]


def macs(seen: tuple[SeenMac, ...]) -> str:
    """Return the MACs behind a guest's port."""
    own = ", its own, which the filter drops"
    return " and ".join(f"{each.mac}{own if each.own_dropped else ''}" for each in seen)


def permanent_neighbor(mac: str) -> str:
    """Return the MAC of a permanent neighbour."""
    return f"{mac}, permanently"


def translation(main: str) -> str:
    """Return the address that another one is translated to."""
    return f"to {main}"


def size(passes: AtLeast | int | Unread) -> str:
    """Return the size of the largest packet that passes."""
    match passes:
        case Unread():
            return "no ping was answered"
        case AtLeast(count):
            return f"at least {count} bytes"
        case int(count):
            return f"{count} bytes"


# Rules and routes of the kernel.


def rules(several: Iterable[PolicyRule]) -> str:
    """Return rules, one in each line."""
    return "\n".join(map(rule, several))


def rule(one: PolicyRule) -> str:
    """Return a rule as ``ip rule`` shows it.

    >>> rule(PolicyRule(1000, "lookup", "main", iif="lo"))
    '1000: from all iif lo lookup main'
    """
    words = [f"{one.priority}:", "from", one.source or "all"]
    if one.destination is not None:
        words += ["to", one.destination]
    if one.mark is not None:
        value, mask = one.mark
        words += ["fwmark", f"{value:#x}/{mask:#x}"]
    if one.iif is not None:
        words += ["iif", one.iif]
    if one.ip_protocol is not None:
        words += ["ipproto", str(one.ip_protocol)]
    if one.source_port is not None:
        words += ["sport", one.source_port]
    words += [one.action, *([one.table] if one.table is not None else [])]
    if one.suppress_prefixlength is not None:
        words += ["suppress_prefixlength", str(one.suppress_prefixlength)]
    words += ["oif", one.oif] if one.oif is not None else []
    return " ".join([*words, *(["not"] if one.inverted else [])])


def hop(one: Hop) -> str:
    """Return one next hop as ``ip route`` shows it.

    >>> hop(Hop("198.51.100.2", "a-public")), hop(Hop(None, "vm1"))
    ('via 198.51.100.2 dev a-public', 'dev vm1')
    """
    return " ".join([*(["via", one.via] if one.via else []), *(["dev", one.device] if one.device else [])])


def destination(one: Destination | KernelRoute) -> str:
    """Return the destination of a route: its next hops, or its type."""
    return " and ".join(sorted(map(hop, one.hops))) if one.type == "unicast" else one.type


def kernel_route(one: KernelRoute) -> str:
    """Return a route without its prefix, as ``ip route`` shows it.

    >>> kernel_route(KernelRoute("unicast", (Hop(None, "vm1"),), 4, 10, "172.22.2.1"))
    'dev vm1 proto static metric 10 src 172.22.2.1'
    """
    words = [destination(one), "proto", PROTOCOLS.get(one.maker, str(one.maker)), "metric", str(one.metric)]
    return " ".join([*words, *(["src", one.prefsrc] if one.prefsrc is not None else [])])


def routes(several: KernelRoutes | LearnedHops) -> str:
    """Return the routes to one prefix, one in each line, or the next hops of a learned one.

    >>> routes(LearnedHops(("198.51.100.1", "198.51.100.2"), most=1))
    'via 1 of 198.51.100.1 and 198.51.100.2'
    """
    if isinstance(several, LearnedHops):
        choice = f"{several.most} of " if several.most is not None else ""
        return f"via {choice}{' and '.join(several.hops)}"
    return "\n".join(sorted(map(kernel_route, several)))


def default_routes(several: tuple[Destination, ...]) -> str:
    """Return the destinations of default routes."""
    return "; ".join(map(destination, several)) or "none"


def learned(several: Learned) -> str:
    """Return the summary of the learned routes of one table."""
    attributes = [
        attribute if count is None else f"{attribute} ({counted(count, 'route')})"
        for attribute, count in several.attributes
    ]
    attributes += [f"{route}, which is not there" for route in several.misdirected]
    return ", ".join([counted(several.count, "route"), f"digest {several.digest}", *attributes])


def more_routes(count: int) -> str:
    """Return the number of further learned routes that differ."""
    return f"{counted(count, 'more route')} differ" if count else "as announced"


# The packet filter.


def filter_state(state: FilterState) -> str:
    """Return the state of the packet filter."""
    if not state.loaded:
        return state.unread or "none"
    return "\n".join(state.differences) or INTENDED


def set_difference(difference: SetDifference) -> str:
    """Return the differences of a set's elements from the plan, one in each line.

    >>> print(set_difference(SetDifference(("vm2 . 203.0.113.2",), ("vm2 . 192.0.2.66",))))
    lacks vm2 . 203.0.113.2
    has vm2 . 192.0.2.66 too much
    """
    lines = [f"lacks {element}" for element in difference.lacks]
    lines += [f"has {element} too much" for element in difference.too_much]
    more = len(lines) - ELEMENTS_NAMED
    rest = [f"and {counted(more, 'more difference')}"] if more > 0 else []
    return "\n".join([*lines[:ELEMENTS_NAMED], *rest]) or "as planned"


def dropped(packets: AtLeast | int) -> str:
    """Return a number of packets."""
    if isinstance(packets, AtLeast):
        return f"at least {counted(packets.count, 'packet')}"
    return counted(packets, "packet")


def effects(several: Effects) -> str:
    """Return the effects of another program's chain on packets of the fabric."""
    return "\n".join(_drops(each) if isinstance(each, Drops) else _rewrites(each) for each in several)


def _drops(drops: Drops) -> str:
    match drops.extent:
        case "unaccepted":
            return f"drops in {drops.hook} what it does not accept (policy drop)"
        case "everything":
            return f"drops everything in {drops.hook} ({drops.verdict})"
        case "ports":
            return f"drops in {drops.hook} what comes from or leaves by ports of the fabric"
        case "some":
            return f"drops some packets in {drops.hook}"
        case "unread":
            return f"may drop packets in {drops.hook} (a rule was not understood)"


def _rewrites(rewrites: Rewrites) -> str:
    more = len(rewrites.rules) - REWRITES_NAMED
    lines = [*map(_rewrite, rewrites.rules[:REWRITES_NAMED]), *([f"and {more} more"] if more > 0 else [])]
    return "\n".join(lines)


def _rewrite(rewrite: Rewrite) -> str:
    effect = "may rewrite" if rewrite.rule.verdict == UNREAD else "rewrites"
    inside = "" if rewrite.chain is None else f"in {rewrite.chain}: "
    return f"{effect} {FLOWS[rewrite.flow]} in {rewrite.hook} ({inside}{other_rule(rewrite.rule)})"


def other_rule(one: OtherRule) -> str:
    """Return a rule of another program, nearly as nft lists it.

    >>> containers = (("nfproto", "==", ("ipv4",)), ("saddr", "==", ("172.17.0.0/16",)))
    >>> other_rule(OtherRule((("oif", "!=", ("docker0",)),), containers, True, "masquerade"))
    'oifname != docker0 ip saddr 172.17.0.0/16 … masquerade'
    """
    words = []
    for key, operator, values in one.interfaces:
        words += [f"{key}name", *(["!="] if operator == "!=" else []), ", ".join(values)]
    for key, operator, values in one.selects:
        words += [key, *(["!="] if operator == "!=" else []), ", ".join(values)]
    text = " ".join([*words, *(["…"] if one.asks_unknown else []), one.verdict])
    for version, family in (("ipv4", "ip"), ("ipv6", "ip6")):
        text = re.sub(rf"nfproto {version} (?=[sd]addr )", f"{family} ", text)
    return text


# Settings of the kernel.


def setting(value: str | Unread) -> str:
    """Return a setting of the kernel."""
    return UNREAD_SETTINGS[value] if isinstance(value, Unread) else value


# Sessions and what they carry.


def configuration(state: Configuration | ChangedFile | OtherRunning | NoAnswer) -> str:
    """Return the state of a routing daemon's configuration."""
    match state:
        case Configuration():
            return CONFIGURATIONS[state]
        case ChangedFile(running):
            return f"the file was changed after it was placed (it runs {running})"
        case OtherRunning(running, placed):
            return f"{running} (the file has {placed})"
        case NoAnswer(daemon, error):
            return f"no answer from {TITLES[daemon]} ({error})"


def difference(text: str) -> str:
    """Return the difference of a service from its configuration file."""
    return text or INTENDED


def session(state: SessionState) -> str:
    """Return the state of a BGP session."""
    if state.state == ESTABLISHED:
        return f"{state.state}, {state.local} to {state.neighbor}"
    return f"{state.state} ({state.why})" if state.why is not None else state.state


def bfd(state: BfdState) -> str:
    """Return the state of a BFD session.

    >>> bfd(BfdState("Up", 100, 3))
    'Up, every 100 ms, lost after 3'
    """
    if state.interval_ms is None:
        return f"{state.state}, {WITHOUT_BFD}" if state.bgp_up else state.state
    return f"{state.state}, every {state.interval_ms} ms, lost after {state.multiplier or '?'}"


def igp_neighbors(number: int) -> str:
    """Return the number of neighbours of an IGP that BFD watches."""
    return f"{counted(number, 'neighbour')} with BFD up"


def prefixes(number: AtLeast | Prefixes) -> str:
    """Return a number of prefixes, and the number of refused ones."""
    if isinstance(number, AtLeast):
        return f"at least {counted(number.count, 'prefix')}"
    return counted(number.count, "prefix") + (f", {number.refused} refused" if number.refused else "")


def limit(reached: Limit) -> str:
    """Return a reached limit, and the daemon's reaction."""
    action = f": {LIMIT_ACTIONS[reached.action]}" if reached.action else ""
    return f"the {reached.text} is reached{action}"


def refused(announcement: Refused) -> str:
    """Return the reason why an announcement is refused."""
    return f"refused: {announcement.why or 'a filter refuses it'}"


def calls(times: int) -> str:
    """Return the number of connections of an unknown router."""
    return f"calls, and is refused ({counted(times, 'time')} within 5 minutes)"


def yes_or_no(value: bool) -> str:
    """Return a boolean as yes or no."""
    return "yes" if value else "no"


# Offers and packets.


def lease(offer: Lease | LeasedAddress | Unread) -> str:
    """Return the offer of DHCP."""
    if isinstance(offer, Unread):
        return "no offer"
    if isinstance(offer, LeasedAddress):
        return offer.address
    words = [f"{offer.address} mask {offer.netmask} gateway {offer.gateway} mtu {offer.mtu}"]
    words += ["dns " + " ".join(offer.dns)] if offer.dns else []
    return ", ".join([*words, *(f"route {prefix} via {via}" for prefix, via in offer.routes)])


def advertisement(offer: Advertisement | Unread) -> str:
    """Return the offer of a router advertisement."""
    if isinstance(offer, Unread):
        return "no answer"
    words = [f"{prefix} {'on' if on_link else 'off'} link" for prefix, on_link in offer.prefixes]
    words += [] if offer.router else ["no router"]
    words += [f"router {offer.mac} mtu {offer.mtu}"]
    return ", ".join([*words, *(["dns " + " ".join(offer.dns)] if offer.dns else [])])


def held(several: tuple[str, ...]) -> str:
    """Return the addresses that a guest has."""
    return " ".join(several) or "none"


def answer(is_answered: bool) -> str:
    """Return whether a ping was answered."""
    return "an answer" if is_answered else "no answer"

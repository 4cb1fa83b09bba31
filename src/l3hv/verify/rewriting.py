"""Chains of other programs that rewrite the addresses or ports of packets of guests, or of BGP.

Other programs need such rules for their own containers and virtual machines (``ip saddr 172.17.0.0/16 oifname
!= "docker0" masquerade``).  A rule affects guests if it selects no address at all, an address of a guest, or
a guest's port.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from l3hv.model.plan import HostPlan
from l3hv.verify.foreign import DEVICES_OF, MOST_JUMPS, UNREAD, is_named_by, of_devices
from l3hv.verify.values import FlowName, OtherRule, Rewrite, Rewrites

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Rule = Mapping[str, Any]

REWRITES = frozenset(
    {"dnat", "snat", "masquerade", "redirect", "netmap", "tproxy", "snpt", "dnpt", "rewrite"}
)
"""The verdicts that rewrite packets; ``rewrite`` assigns to a field of a packet, without a connection."""
FINAL_VERDICTS = frozenset({"accept", "drop", "reject", "queue"})
VERSIONS: dict[str, set[int]] = {
    "arp": set(),
    "ip": {4},
    "ip6": {6},
    "iptables-legacy": {4},
    "ip6tables-legacy": {6},
}
"""The IP versions of packets in the tables of a family; other families have both versions."""
BGP = 179


@dataclass(frozen=True)
class Flow:
    """Packets that no other program may rewrite at ``hooks``.

    ``iif`` and ``oif`` are ``None`` if every interface is possible, ``sources`` and ``destinations`` if every
    address is.  ``port`` is the TCP port of the destination, ``None`` for packets of every protocol.
    ``local`` is true for packets to the host itself.
    """

    name: FlowName
    hooks: frozenset[str]
    iif: frozenset[str] | None
    oif: frozenset[str] | None
    sources: tuple[Network, ...] | None
    destinations: tuple[Network, ...] | None
    port: int | None = None
    local: bool = False

    @property
    def networks(self) -> tuple[Network, ...]:
        """The addresses of the fabric at both ends."""
        return (*(self.sources or ()), *(self.destinations or ()))

    def in_versions(self, versions: set[int]) -> Flow:
        """Return the packets of these IP versions."""

        def part(networks: tuple[Network, ...] | None) -> tuple[Network, ...] | None:
            return networks and tuple(network for network in networks if network.version in versions)

        return replace(self, sources=part(self.sources), destinations=part(self.destinations))

    def on_devices(self, chain: Mapping[str, Any]) -> Flow | None:
        """Return the packets that pass a base chain; ``None`` if the chain has only devices without them."""
        key = DEVICES_OF.get(chain["hook"])
        if key is None or chain["devices"] is None:
            return self
        interfaces = self.iif if key == "iif" else self.oif
        # If every interface is possible, the chain's own patterns stand for the interfaces.
        left = frozenset(chain["devices"]) if interfaces is None else of_devices(interfaces, chain)
        if not left:
            return None
        return replace(self, iif=left) if key == "iif" else replace(self, oif=left)


@dataclass(frozen=True)
class Match:
    """The part of a flow that a rule matches: perhaps some packets (``may``), certainly all (``every``).

    ``known`` is false if the rule has conditions that cannot be evaluated here.
    """

    may: bool
    every: bool
    known: bool = True


NEVER, SOME, ALL = Match(may=False, every=False), Match(may=True, every=False), Match(may=True, every=True)
UNKNOWN = Match(may=True, every=False, known=False)


@dataclass
class _Walk:
    """The walk of a flow through a base chain, which finds the rules that rewrite its packets.

    ``some_left`` is true once packets of the flow have left the chain, ``unknown_left`` if it is not known
    which packets these are.
    """

    flow: Flow
    chains: Mapping[str, Any]
    found: list[tuple[str, Rule, bool]] = field(default_factory=list)
    some_left: bool = False
    unknown_left: bool = False

    def enter(self, name: str, above: tuple[Rule, ...] = ()) -> bool:
        """Walk through the rules of a chain; return True if no packet goes on after it.

        ``above`` are the jumps that lead to the chain, whose conditions the packets meet as well.
        """
        for rule in self.chains.get(name, {"rules": ()})["rules"]:
            conditions = (*above, rule)
            match = _matches(conditions, self.flow)
            verdict = rule["verdict"]
            if not match.may:
                continue
            if verdict in REWRITES:
                # Masquerade sets the address of the outgoing interface, which BGP sessions have anyway.
                if not (self.flow.port == BGP and verdict == "masquerade"):
                    self._note(name, rule, match)
                if match.every:
                    return True
            elif verdict == UNREAD:
                unknown = replace(match, every=False, known=False)
                self._note(name, rule, unknown)
                self._note_exit(unknown)
            elif verdict in {"jump", "goto"}:
                is_over = len(conditions) <= MOST_JUMPS and self.enter(rule["target"], conditions)
                if match.every and (is_over or verdict == "goto"):
                    return is_over
                if verdict == "goto":
                    self._note_exit(match)
            elif match.every:
                return verdict in FINAL_VERDICTS
            elif not self._narrow(conditions):
                self._note_exit(match)
        return False

    def _narrow(self, conditions: tuple[Rule, ...]) -> bool:
        """Remove from the flow the interfaces whose packets a rule of the base chain ends.

        Together such rules may end the packets of all interfaces.  Return False for a rule with further
        conditions, which ends only some packets of an interface.
        """
        first, *more = conditions
        # The interfaces of an edge router are not all known.
        is_plain = not (more or first["selects"] or first["asks_unknown"]) and len(first["interfaces"]) == 1
        if not is_plain or None in {self.flow.iif, self.flow.oif}:
            return False
        key, operator, pattern = first["interfaces"][0]
        interfaces = self.flow.iif if key == "iif" else self.flow.oif
        left = frozenset(
            one for one in interfaces or () if not _is_interface(frozenset({one}), operator, pattern).may
        )
        self.flow = replace(self.flow, iif=left) if key == "iif" else replace(self.flow, oif=left)
        return True

    def _note(self, name: str, rule: Rule, match: Match) -> None:
        is_reached = not self.unknown_left and (match.every or not self.some_left)
        self.found.append((name, rule, match.known and is_reached))

    def _note_exit(self, match: Match) -> None:
        self.some_left = True
        self.unknown_left = self.unknown_left or not match.known


def rewritten(table: Mapping[str, Any], flows: Iterable[Flow]) -> Iterator[tuple[str, Rewrites, bool]]:
    """Yield the base chains of a table that rewrite packets of ``flows``: name, effect, whether it is sure.

    It is not sure if the rule, or a rule before it, has conditions that are not known here (marks,
    connections).
    """
    versions = VERSIONS.get(table["family"], {4, 6})
    possible = [flow.in_versions(versions) for flow in flows]
    for name, chain in table["chains"].items():
        found: dict[Rewrite, bool] = {}
        for flow in (flow for flow in possible if chain["hook"] in flow.hooks and flow.networks):
            passing = flow.on_devices(chain)
            if passing is None:
                continue
            walk = _Walk(passing, table["chains"])
            walk.enter(name)
            for where, rule, is_sure in walk.found:
                inside = None if where == name else where
                rewrite = Rewrite(flow.name, chain["hook"], inside, _understood(rule))
                found[rewrite] = found.get(rewrite, False) or is_sure
        if found:
            in_order = sorted(found, key=lambda rewrite: not found[rewrite])
            yield name, Rewrites(tuple(in_order)), any(found.values())


def flows_of(plan: HostPlan) -> list[Flow]:
    """Return the packets of a host that no other program may rewrite: packets of guests, and BGP."""
    uplinks = frozenset(uplink.interface for uplink in plan.uplinks)
    flows = []
    passing = frozenset({"ingress", "egress", "prerouting", "forward", "postrouting"})
    guests = _guests(plan)
    if plan.kind == "hypervisor":
        ports = frozenset(guest.interface for guest in plan.guests)
        to_guests = Flow(FlowName.TO_GUESTS, passing, uplinks | ports, ports, None, guests)
        flows = [Flow(FlowName.FROM_GUESTS, passing, ports, uplinks | ports, guests, None), to_guests]
    elif plan.kind == "edge_router":
        flows = [
            Flow(FlowName.FROM_GUESTS, passing, uplinks, None, guests, None),
            Flow(FlowName.TO_GUESTS, passing, None, uplinks, None, guests),
        ]
    sessions = plan.routing.sessions
    near = tuple(dict.fromkeys(ipaddress.ip_network(session.local) for session in sessions))
    far = tuple(dict.fromkeys(ipaddress.ip_network(session.neighbor) for session in sessions))
    received = frozenset({"ingress", "prerouting", "input"})
    sent = frozenset({"output", "postrouting", "egress"})
    flows.append(Flow(FlowName.RECEIVED_BGP, received, uplinks, frozenset(), far, near, BGP, local=True))
    flows.append(Flow(FlowName.SENT_BGP, sent, frozenset(), uplinks, near, far, BGP))
    return flows


def _guests(plan: HostPlan) -> tuple[Network, ...]:
    """Return the addresses of a hypervisor's guests; on an edge router the prefixes that it accepts."""
    if plan.kind == "hypervisor":
        planned = plan.packet_filter
        texts = [
            *(pair[1] for pair in (*planned.sources4, *planned.source_prefixes4)),
            *(pair[1] for pair in (*planned.sources6, *planned.source_prefixes6)),
            *(f"{triple[2]}/64" for triple in planned.sender_networks6),
        ]
    else:
        texts = [match.prefix for table in plan.routing.tables for match in table.accepts]
    networks = (ipaddress.ip_network(text) for text in texts)
    return tuple(dict.fromkeys(network for network in networks if network.prefixlen))


def _matches(conditions: Sequence[Rule], flow: Flow) -> Match:
    """Return the part of a flow that meets the conditions of a rule and of the jumps that lead to it."""
    all_versions = flow
    flow = flow.in_versions(_versions(conditions))
    if not flow.networks:
        return NEVER
    names_sender = any(
        key == "iif" and operator == "==" and _is_interface(flow.iif, operator, pattern).may
        for rule in conditions
        for key, operator, pattern in rule["interfaces"]
        if flow.sources is not None and flow.iif
    )
    each = [
        _is_interface(flow.iif if key == "iif" else flow.oif, operator, pattern)
        for rule in conditions
        for key, operator, pattern in rule["interfaces"]
    ]
    each.append(ALL if flow.networks == all_versions.networks else SOME)
    each += [
        _is_selected(flow, key, operator, tuple(values), names_sender=names_sender)
        for rule in conditions
        for key, operator, values in rule["selects"]
        if key != "nfproto"
    ]
    is_known = not any(rule["asks_unknown"] for rule in conditions) and all(match.known for match in each)
    may = all(match.may for match in each)
    return Match(may, may and is_known and all(match.every for match in each), is_known)


def _versions(conditions: Sequence[Rule]) -> set[int]:
    """Return the IP versions of packets that meet the conditions on the network protocol."""
    asked = [
        (operator, values)
        for rule in conditions
        for key, operator, values in rule["selects"]
        if key == "nfproto"
    ]
    return {
        version
        for version in (4, 6)
        if all((f"ipv{version}" in values) == (operator == "==") for operator, values in asked)
    }


def _is_interface(interfaces: frozenset[str] | None, operator: str, pattern: str | Sequence[str]) -> Match:
    if interfaces is None:
        return SOME
    matched = [is_named_by(interface, pattern) for interface in interfaces]
    if operator == "==":
        return Match(any(matched), bool(matched) and all(matched))
    return Match(not matched or not all(matched), not any(matched))


def _is_selected(
    flow: Flow, key: str, operator: str, values: tuple[str, ...], *, names_sender: bool
) -> Match:
    """Return the part of a flow that meets one condition of a rule.

    ``names_sender`` is true if the rule also names the interface on which packets of a guest arrive.
    """
    if key in {"saddr", "daddr"}:
        networks = flow.sources if key == "saddr" else flow.destinations
        if not all(_is_range(value) for value in values):
            return UNKNOWN
        if networks is None:
            return _is_any_address(flow, operator, values, is_for_all=names_sender and key == "daddr")
        return _is_address(networks, operator, values)
    if key == "type":
        is_met = flow.local == (operator == "==")
        return ALL if is_met else NEVER
    if flow.port is None or key == "sport":
        return SOME
    is_in = "tcp" in values if key == "protocol" else any(_holds_port(value, flow.port) for value in values)
    return ALL if is_in == (operator == "==") else NEVER


def _holds_port(ports: str, port: int) -> bool:
    first, _, last = ports.partition("-")
    last = last or first
    return first.isdecimal() and last.isdecimal() and int(first) <= port <= int(last)


def _is_any_address(flow: Flow, operator: str, values: tuple[str, ...], *, is_for_all: bool) -> Match:
    """Return the match for an end of a flow that can have any address.

    A rule for certain addresses belongs to another program and does not concern the flow, unless the
    addresses are the fabric's, or the rule names a guest's port (``is_for_all``).
    """
    ranges = [_range(value) for value in values]
    if any(first.is_unspecified and int(last) == 2**last.max_prefixlen - 1 for first, last in ranges):
        return ALL if operator == "==" else NEVER
    if operator == "!=":
        return SOME
    is_of_fabric = any(_overlaps(network, pair) for network in flow.networks for pair in ranges)
    return SOME if is_of_fabric or is_for_all else NEVER


def _is_address(networks: tuple[Network, ...], operator: str, values: tuple[str, ...]) -> Match:
    ranges = [_range(value) for value in values]
    touched = [any(_overlaps(network, pair) for pair in ranges) for network in networks]
    inside = [any(_holds(network, pair) for pair in ranges) for network in networks]
    if operator == "==":
        return Match(any(touched), all(inside))
    return Match(not all(inside), not any(touched))


Range = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ipaddress.IPv4Address | ipaddress.IPv6Address]


@functools.lru_cache(maxsize=4096)
def _range(text: str) -> Range:
    """Return the first and last address of a prefix or of ``FIRST-LAST``."""
    first, _, last = text.partition("-")
    if last:
        return ipaddress.ip_address(first), ipaddress.ip_address(last)
    network = ipaddress.ip_network(text, strict=False)
    return network[0], network[-1]


def _is_range(text: str) -> bool:
    """Tell whether a text is a prefix or a range of addresses; masks of iptables can be neither."""
    try:
        first, last = _range(text)
    except ValueError:
        return False
    return first.version == last.version


def _overlaps(network: Network, pair: Range) -> bool:
    first, last = map(int, pair)
    is_same = network.version == pair[0].version
    return is_same and int(network[0]) <= last and first <= int(network[-1])


def _holds(network: Network, pair: Range) -> bool:
    first, last = map(int, pair)
    is_same = network.version == pair[0].version
    return is_same and first <= int(network[0]) and int(network[-1]) <= last


def _understood(rule: Rule) -> OtherRule:
    """Return the parts of a rule that are understood."""
    return OtherRule(
        tuple(
            (key, operator, (pattern,) if isinstance(pattern, str) else tuple(pattern))
            for key, operator, pattern in rule["interfaces"]
        ),
        tuple((key, operator, tuple(values)) for key, operator, values in rule["selects"]),
        bool(rule["asks_unknown"]),
        rule["verdict"],
    )

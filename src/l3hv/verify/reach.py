"""The pings that must be answered, and the pings that must not; their number grows with that of guests.

The expectation follows from the intent: a ping that the packet filter drops must get no answer.  A ping whose
answer does not follow from the intent is not sent, for example if it depends on the edge router of a flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l3hv.model.addressing import DEFAULT_ROUTE, family_of_text
from l3hv.model.choices import Family
from l3hv.model.names import LOCAL_OUT, bird_table
from l3hv.model.plan import HostPlan
from l3hv.verify import subjects
from l3hv.verify.check import Key, Kind
from l3hv.verify.passage import Passage


@dataclass(frozen=True)
class RunningGuest:
    """A guest that runs, on the hypervisor ``host``.

    It has ``addresses`` on its interface, and ``besides`` these further addresses on its loopback (anycast,
    additional ones).  ``transparent`` are the addresses that the hypervisor translates to its own.
    """

    name: str
    host: str
    domain: str
    addresses: tuple[str, ...]
    besides: tuple[str, ...] = ()
    transparent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ping:
    """An echo request from ``source`` to ``address``: from a guest, or from the hypervisor ``host`` itself.

    ``target`` is the name of the address in reports. ``answered`` is the expectation.
    """

    host: str
    source: str
    target: str
    address: str
    answered: bool = True

    @property
    def key(self) -> Key:
        """The identity of its check."""
        kind = Kind.PING if self.answered else Kind.SILENCE
        return Key(kind, subjects.EchoRequest(self.source, self.target, family_of_text(self.address)))


def pings(
    plans: Iterable[HostPlan], announced: Mapping[str, Mapping[str, Any]], guests: Sequence[RunningGuest]
) -> list[Ping]:
    """Return the pings between the hosts of ``plans``, and from and to the guests on them.

    ``announced`` are the announcements of all hosts of the fabric, with their loopbacks and default routes.
    """
    plans = list(plans)
    hypervisors = [plan for plan in plans if plan.kind == "hypervisor"]
    here = {plan.host for plan in hypervisors}
    loopbacks = {
        host: own_addresses(part) for host, part in announced.items() if part["kind"] == "hypervisor"
    }
    passage = Passage(hypervisors, announced)
    outside = _outside_by_table(plans, announced)
    found = [
        *_between_guests(guests, announced, passage),
        *_to_internet(guests, outside, passage),
        *_to_shared_addresses(guests, passage),
        *(ping for plan in hypervisors for ping in _from_hypervisor(plan, guests, outside)),
        *_between_hypervisors(hypervisors, loopbacks),
        *_across_domains(hypervisors, guests),
    ]
    return [ping for ping in dict.fromkeys(found) if ping.host in here]


def own_addresses(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the loopbacks that a host advertises by BGP or an IGP, each after its BIRD table."""
    of_igp = [(table, one["prefix"].partition("/")[0]) for table, one in part.get("loopbacks", {}).items()]
    return of_igp + [
        (table, prefix.partition("/")[0])
        for table, announced in part["tables"].items()
        for prefix, names in announced["prefixes"].items()
        if not names and prefix not in DEFAULT_ROUTE.values()
    ]


@dataclass(frozen=True)
class _Outside:
    """The destinations beyond the default routes of a BIRD table.

    ``reachable`` is true if an edge router originates a default route into the table.  ``addresses`` are
    pairs of an edge router and an address that it answers for.  ``common`` are the addresses that all edge
    routers with a default route have: they answer, whichever edge router a packet takes.
    """

    reachable: bool
    addresses: tuple[tuple[str, str], ...]
    common: frozenset[str]


def _outside_by_table(
    plans: Sequence[HostPlan], announced: Mapping[str, Mapping[str, Any]]
) -> Mapping[tuple[str, str], _Outside]:
    """Return the destinations outside the fabric, by the domain and family of a table."""
    edges = {plan.host: plan for plan in plans if plan.kind == "edge_router"}
    answered_by = {
        host: frozenset(loopback.address for loopback in plan.loopbacks if not loopback.announced)
        for host, plan in edges.items()
    }
    families = {(t.domain, t.family): t.name for plan in plans for t in plan.routing.tables}
    exits = {
        table: [
            host
            for host, part in announced.items()
            if not part["tables"].get(table, {}).get("prefixes", {}).keys().isdisjoint(DEFAULT_ROUTE.values())
        ]
        for table in set(families.values())
    }
    return {
        key: _Outside(
            reachable=bool(exits[table]),
            addresses=tuple(
                (host, loopback.address)
                for host, plan in edges.items()
                for loopback in plan.loopbacks
                if loopback.family == key[1] and not loopback.announced
            ),
            # The addresses of edge routers that were not observed, or that are not managed, are unknown.
            common=frozenset.intersection(*(answered_by.get(host, frozenset()) for host in exits[table]))
            if exits[table]
            else frozenset(),
        )
        for key, table in families.items()
    }


def _own(guest: RunningGuest, family: Family) -> str | None:
    """Return the source address of a guest in a family."""
    return next((own for own in guest.addresses if family_of_text(own) == family), None)


def _from_guest(
    guest: RunningGuest, target: RunningGuest, address: str, name: str, passage: Passage
) -> Iterator[Ping]:
    """Yield the ping from a guest to an address of another guest; ``name`` is the target's name in reports.

    There is no ping if the guest lacks the family, or if the filter at the target's port is not known.
    """
    own = _own(guest, family_of_text(address))
    if own is not None and passage.is_known(target.host, target.name):
        is_open = passage.is_open((guest.host, guest.name), own, (target.host, target.name), address)
        yield Ping(guest.host, guest.name, name, address, answered=is_open)


def _between_guests(
    guests: Sequence[RunningGuest], announced: Mapping[str, Mapping[str, Any]], passage: Passage
) -> Iterator[Ping]:
    """Yield pings around a ring of a domain's guests, and from one guest to a guest on each hypervisor."""
    places = {(guest.domain, family_of_text(address)) for guest in guests for address in guest.addresses}
    for domain, family in sorted(places):
        ring = [guest for guest in guests if guest.domain == domain and _own(guest, family) is not None]
        pairs = list(zip(ring, [*ring[1:], ring[0]], strict=True))
        firsts = {guest.host: guest for guest in reversed(ring)}
        pairs += [(ring[0], firsts[host]) for host in sorted(firsts)]
        paths = {host: _paths(announced.get(host), domain, family) for host in firsts}
        for guest, following in dict.fromkeys(pairs):
            if guest is following or not _is_on_a_path(guest.host, following.host, paths):
                continue
            for address in following.addresses:
                if family_of_text(address) == family:
                    yield from _from_guest(guest, following, address, following.name, passage)


def _paths(part: Mapping[str, Any] | None, domain: str, family: Family) -> frozenset[str] | None:
    """Return the paths on which a host advertises routes of a domain; ``None`` if they are not known."""
    if part is None:
        return None
    announced = part["tables"].get(bird_table(domain, family), {"next_hops": {}})
    return frozenset(announced["next_hops"])


def _is_on_a_path(one: str, other: str, paths: Mapping[str, frozenset[str] | None]) -> bool:
    """Tell whether two hosts are the same or share a path.

    Without a common path only an edge router may connect them, which does not follow from the intent.
    """
    here, there = paths[one], paths[other]
    return one == other or here is None or there is None or not here.isdisjoint(there)


def _to_internet(
    guests: Sequence[RunningGuest], outside: Mapping[tuple[str, str], _Outside], passage: Passage
) -> Iterator[Ping]:
    """Yield pings from each guest to addresses of edge routers, if its domain has a default route."""
    for guest in guests:
        for family in sorted({family_of_text(address) for address in guest.addresses}):
            there = outside.get((guest.domain, family))
            if there is None or not there.reachable:
                continue
            for edge, address in there.addresses:
                if address in there.common:
                    is_open = passage.port_filter(guest.host, guest.name).takes(address)
                    yield Ping(guest.host, guest.name, edge, address, answered=is_open)


def _to_shared_addresses(guests: Sequence[RunningGuest], passage: Passage) -> Iterator[Ping]:
    """Yield pings to each anycast and additional address, from one guest of each host that does not hold it.

    If the filters of only some holders accept the guest's packets, the expectation depends on the holder that
    the packets reach, and there is no ping.
    """
    holders: dict[tuple[str, str], list[RunningGuest]] = {}
    for guest in guests:
        for address in (*guest.besides, *guest.transparent):
            holders.setdefault((guest.domain, address), []).append(guest)
    for (domain, address), having in holders.items():
        names = {guest.name for guest in having}
        others = [g for g in guests if g.domain == domain and g.name not in names]
        family = family_of_text(address)
        for guest in {g.host: g for g in reversed(others) if _own(g, family) is not None}.values():
            found = {
                ping.answered
                for holder in having
                for ping in _from_guest(guest, holder, _answering(guest, holder, address), address, passage)
            }
            if len(found) == 1:
                yield Ping(guest.host, guest.name, address, address, answered=found.pop())


def _answering(guest: RunningGuest, holder: RunningGuest, address: str) -> str:
    """Return the source address of an answer at the guest's port.

    The source of an answer from a transparent address is translated after the filter if both guests are on
    one host.
    """
    if address in holder.transparent and guest.host == holder.host:
        return _own(holder, family_of_text(address)) or address
    return address


def _from_hypervisor(
    plan: HostPlan, guests: Sequence[RunningGuest], outside: Mapping[tuple[str, str], _Outside]
) -> Iterator[Ping]:
    """Yield pings from a hypervisor to its guests, and to addresses of edge routers.

    The edge routers must answer exactly if the domain of its own traffic has a default route.
    """
    for guest in guests:
        if guest.host == plan.host:
            for address in guest.addresses:
                yield Ping(plan.host, plan.host, guest.name, address)
    if plan.main_default_route or not any(rule.table == LOCAL_OUT for rule in plan.rules):
        return
    own_tables = _tables_of_own_traffic(plan)
    own_outside = [
        outside[table.domain, table.family]
        for table in plan.routing.tables
        if table.name in own_tables and table.family == "ipv4"
    ]
    is_reachable = any(there.reachable for there in own_outside)
    edge_addresses = dict.fromkeys(
        pair for (_, family), there in outside.items() if family == "ipv4" for pair in there.addresses
    )
    for edge, address in edge_addresses:
        if not is_reachable or any(address in there.common for there in own_outside):
            yield Ping(plan.host, plan.host, edge, address, answered=is_reachable)


def _between_hypervisors(
    hypervisors: Sequence[HostPlan], loopbacks: Mapping[str, Sequence[tuple[str, str]]]
) -> Iterator[Ping]:
    """Yield pings around a ring of all hypervisors' loopbacks, in the domain of their own traffic."""
    names = list(loopbacks)
    following = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    for plan in hypervisors:
        other = following.get(plan.host, plan.host)
        own_tables = _tables_of_own_traffic(plan)
        if other != plan.host and loopbacks.get(plan.host):
            for table, address in loopbacks[other]:
                if table in own_tables:
                    yield Ping(plan.host, plan.host, other, address)


def _tables_of_own_traffic(plan: HostPlan) -> set[str | None]:
    """Return the BIRD tables whose routes a hypervisor's own traffic uses."""
    return {table.fed_by for table in plan.routing.tables if table.domain == LOCAL_OUT}


def _across_domains(hypervisors: Sequence[HostPlan], guests: Sequence[RunningGuest]) -> Iterator[Ping]:
    """Yield pings that must get no answer: from a guest into a domain other than its own.

    A guest's own hypervisor is left out, because it answers for all its addresses on every interface.
    """
    for guest in guests:
        others = [plan for plan in hypervisors if plan.host != guest.host]
        for plan in others[:1]:
            for loopback in plan.loopbacks:
                if loopback.domain != guest.domain:
                    yield Ping(
                        guest.host, guest.name, f"{plan.host}'s loopback", loopback.address, answered=False
                    )
        foreign = [other for other in guests if other.domain != guest.domain and other.host != guest.host]
        for other in foreign[:1]:
            for address in other.addresses:
                yield Ping(guest.host, guest.name, other.name, address, answered=False)

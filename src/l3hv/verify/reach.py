"""The pings that must be answered and those that must not: their number is that of guests, not of pairs.

What is expected follows from the intent: what the packet filter forbids must stay without an answer, and what
the intent does not decide (which of several edge routers a flow takes) is not tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l3hv.model.addressing import family_of_text
from l3hv.model.choices import Family
from l3hv.model.names import LOCAL_OUT, bird_table
from l3hv.model.plan import HostPlan
from l3hv.verify import subjects
from l3hv.verify.check import Key, Kind
from l3hv.verify.passage import Passage

DEFAULTS = frozenset({"0.0.0.0/0", "::/0"})


@dataclass(frozen=True)
class RunningGuest:
    """A guest that runs, on the hypervisor ``host``.

    ``addresses`` are those that it has on its interface, ``besides`` those that it holds for others to reach
    (anycast among them), ``transparent`` those that are translated to its own.
    """

    name: str
    host: str
    domain: str
    addresses: tuple[str, ...]
    besides: tuple[str, ...] = ()
    transparent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ping:
    """An echo request from ``source`` (a guest, or a machine if it is ``host``) to ``address``.

    ``target`` is how the address is called. ``answered`` tells what is expected.
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
        return Key(kind, subjects.Flight(self.source, self.target, family_of_text(self.address)))


def pings(
    plans: Iterable[HostPlan], announced: Mapping[str, Mapping[str, Any]], guests: Sequence[RunningGuest]
) -> list[Ping]:
    """Return the pings between the hosts of ``plans``, and from and to the guests that are on them.

    ``announced`` says what all hosts of the fabric announce: their loopbacks, and who has a way out.
    """
    plans = list(plans)
    hypervisors = [plan for plan in plans if plan.kind == "hypervisor"]
    here = {plan.host for plan in hypervisors}
    loopbacks = {
        host: own_addresses(part) for host, part in announced.items() if part["kind"] == "hypervisor"
    }
    passage = Passage(hypervisors, announced)
    outside = _ways_out(plans, announced)
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
    """Return the addresses that a host announces for itself, its loopbacks, each after its BIRD table."""
    return [
        (table, prefix.partition("/")[0])
        for table, announced in part["tables"].items()
        for prefix, names in announced["prefixes"].items()
        if not names and prefix not in DEFAULTS
    ]


@dataclass(frozen=True)
class _Outside:
    """The far side of the default routes of a BIRD table; ``addresses`` are those that edge routers have.

    ``known`` are the ones that a packet reaches whichever edge router it takes: all of them have it.
    """

    led_out: bool
    addresses: tuple[tuple[str, str], ...]
    known: frozenset[str]


def _ways_out(
    plans: Sequence[HostPlan], announced: Mapping[str, Mapping[str, Any]]
) -> Mapping[tuple[str, str], _Outside]:
    """Return what is outside by the domain and family of a table; addresses are (edge router, address)."""
    edges = {plan.host: plan for plan in plans if plan.kind == "edge_router"}
    answered_by = {
        host: frozenset(loopback.address for loopback in plan.loopbacks) for host, plan in edges.items()
    }
    families = {(t.domain, t.family): t.name for plan in plans for t in plan.routing.tables}
    exits = {
        table: [
            host
            for host, part in announced.items()
            if DEFAULTS & part["tables"].get(table, {}).get("prefixes", {}).keys()
        ]
        for table in set(families.values())
    }
    return {
        key: _Outside(
            led_out=bool(exits[table]),
            addresses=tuple(
                (host, loopback.address)
                for host, plan in edges.items()
                for loopback in plan.loopbacks
                if loopback.family == key[1]
            ),
            # An edge router that was not looked at, or that is not ours, may have any addresses.
            known=frozenset.intersection(*(answered_by.get(host, frozenset()) for host in exits[table]))
            if exits[table]
            else frozenset(),
        )
        for key, table in families.items()
    }


def _own(guest: RunningGuest, family: Family) -> str | None:
    """Return the address that a guest sends from."""
    return next((own for own in guest.addresses if family_of_text(own) == family), None)


def _from_guest(
    guest: RunningGuest, target: RunningGuest, address: str, name: str, passage: Passage
) -> Iterator[Ping]:
    """Yield the ping of one guest to an address of another one, which is called ``name``.

    There is none where the guest lacks the family, or where the filter of the target's port is not known.
    """
    own = _own(guest, family_of_text(address))
    if own is not None and passage.is_known(target.host, target.name):
        is_open = passage.is_open((guest.host, guest.name), own, (target.host, target.name), address)
        yield Ping(guest.host, guest.name, name, address, answered=is_open)


def _between_guests(
    guests: Sequence[RunningGuest], announced: Mapping[str, Mapping[str, Any]], passage: Passage
) -> Iterator[Ping]:
    """Yield a ring through all guests of a domain in a family, and from its first one to each hypervisor."""
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
    """Return the paths on which a host announces a domain; ``None`` where nothing is known of it."""
    if part is None:
        return None
    announced = part["tables"].get(bird_table(domain, family), {"next_hops": {}})
    return frozenset(announced["next_hops"])


def _is_on_a_path(one: str, other: str, paths: Mapping[str, frozenset[str] | None]) -> bool:
    """Tell whether two hosts are the same or share a path; without one an edge router may lead, or none."""
    here, there = paths[one], paths[other]
    return one == other or here is None or there is None or not here.isdisjoint(there)


def _to_internet(
    guests: Sequence[RunningGuest], outside: Mapping[tuple[str, str], _Outside], passage: Passage
) -> Iterator[Ping]:
    """Yield pings from each guest to what edge routers answer for, where that leads out of its domain."""
    for guest in guests:
        for family in sorted({family_of_text(address) for address in guest.addresses}):
            beyond = outside.get((guest.domain, family))
            for edge, address in beyond.addresses if beyond is not None and beyond.led_out else ():
                if beyond is not None and address in beyond.known:
                    is_open = passage.port(guest.host, guest.name).takes(address)
                    yield Ping(guest.host, guest.name, edge, address, answered=is_open)


def _to_shared_addresses(guests: Sequence[RunningGuest], passage: Passage) -> Iterator[Ping]:
    """Yield pings to each anycast and additional address from the first guest of every host that lacks it.

    Where only some of its holders let the guest through, the holder that answers is not known before.
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
    """Return the address that an answer comes from at the guest's port.

    That of a transparent address is translated back after the filter where both guests are on one host.
    """
    if address in holder.transparent and guest.host == holder.host:
        return _own(holder, family_of_text(address)) or address
    return address


def _from_hypervisor(
    plan: HostPlan, guests: Sequence[RunningGuest], outside: Mapping[tuple[str, str], _Outside]
) -> Iterator[Ping]:
    """Yield pings from a hypervisor to its guests, and to the outside.

    That it reaches where an edge router leads out of the domain of its own traffic, and otherwise must not.
    """
    for guest in guests:
        if guest.host == plan.host:
            for address in guest.addresses:
                yield Ping(plan.host, plan.host, guest.name, address)
    if plan.main_default_route or not any(rule.table == LOCAL_OUT for rule in plan.rules):
        return
    own_ways = _own_ways(plan)
    ways = [
        outside[table.domain, table.family]
        for table in plan.routing.tables
        if table.name in own_ways and table.family == "ipv4"
    ]
    led_out = any(way.led_out for way in ways)
    for edge, address in dict.fromkeys(
        pair for (_, f), o in outside.items() if f == "ipv4" for pair in o.addresses
    ):
        if not led_out or any(address in way.known for way in ways):
            yield Ping(plan.host, plan.host, edge, address, answered=led_out)


def _between_hypervisors(
    hypervisors: Sequence[HostPlan], loopbacks: Mapping[str, Sequence[tuple[str, str]]]
) -> Iterator[Ping]:
    """Yield a ring through the loopbacks of all hypervisors, in the domain that their own traffic takes."""
    names = list(loopbacks)
    following = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    for plan in hypervisors:
        other = following.get(plan.host, plan.host)
        own_ways = _own_ways(plan)
        if other != plan.host and loopbacks.get(plan.host):
            for table, address in loopbacks[other]:
                if table in own_ways:
                    yield Ping(plan.host, plan.host, other, address)


def _own_ways(plan: HostPlan) -> set[str | None]:
    """Return the BIRD tables that a hypervisor's own traffic takes its routes of."""
    return {table.fed_by for table in plan.routing.tables if table.domain == LOCAL_OUT}


def _across_domains(hypervisors: Sequence[HostPlan], guests: Sequence[RunningGuest]) -> Iterator[Ping]:
    """Yield pings that must stay silent: from a guest into another domain than its own.

    A guest's own hypervisor is left out: it answers for all of its addresses on every interface.
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

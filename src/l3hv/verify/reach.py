"""Who must reach whom, and who must not: as many pings as there are guests, not as there are pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from l3hv.addressing import family_of_text
from l3hv.fabric import LOCAL_OUT
from l3hv.model import HostPlan

DEFAULTS = frozenset({"0.0.0.0/0", "::/0"})


@dataclass(frozen=True)
class LiveGuest:
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

    ``target`` is how the address is called. ``is_answered`` tells what is expected.
    """

    host: str
    source: str
    target: str
    address: str
    is_answered: bool = True

    @property
    def what(self) -> str:
        """The name of the check."""
        kind = "ping" if self.is_answered else "silence"
        return f"{kind} {self.source} → {self.target} {family_of_text(self.address)}"


def pings(
    plans: Iterable[HostPlan], announced: Mapping[str, Mapping[str, Any]], guests: Sequence[LiveGuest]
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
    ways_out = {
        table.name
        for plan in plans
        for table in plan.routing.tables
        if DEFAULTS.intersection(table.originates)
    }
    found = [
        *_between_guests(guests),
        *(
            ping
            for plan in plans
            if plan.kind == "edge_router"
            for ping in _to_internet(plan, announced, guests)
        ),
        *_to_shared_addresses(guests),
        *(ping for plan in hypervisors for ping in _from_hypervisor(plan, plans, guests, ways_out)),
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


def _to(host: str, source: str, guest: LiveGuest, family: str | None = None) -> Iterator[Ping]:
    for address in guest.addresses:
        if family in (None, family_of_text(address)):
            yield Ping(host, source, guest.name, address)


def _between_guests(guests: Sequence[LiveGuest]) -> Iterator[Ping]:
    """Yield a ring through all guests of a domain in a family, and from its first one to each hypervisor."""
    places = {(guest.domain, family_of_text(address)) for guest in guests for address in guest.addresses}
    for domain, family in sorted(places):
        ring = [
            guest
            for guest in guests
            if guest.domain == domain and any(family_of_text(own) == family for own in guest.addresses)
        ]
        for guest, following in zip(ring, [*ring[1:], ring[0]], strict=True):
            if guest is not following:
                yield from _to(guest.host, guest.name, following, family)
        firsts = {guest.host: guest for guest in reversed(ring)}
        for host in sorted(firsts):
            if firsts[host] is not ring[0]:
                yield from _to(ring[0].host, ring[0].name, firsts[host], family)


def _to_internet(
    edge: HostPlan, announced: Mapping[str, Mapping[str, Any]], guests: Sequence[LiveGuest]
) -> Iterator[Ping]:
    """Yield pings from each guest to what an edge router answers for, where that leads out of its domain."""
    ways_out = {
        (table.domain, table.family)
        for table in edge.routing.tables
        if DEFAULTS
        & announced.get(edge.host, {}).get("tables", {}).get(table.name, {}).get("prefixes", {}).keys()
    }
    for guest in guests:
        families = {family_of_text(address) for address in guest.addresses}
        for loopback in edge.loopbacks:
            if loopback.family in families and (guest.domain, loopback.family) in ways_out:
                yield Ping(guest.host, guest.name, edge.host, loopback.address)


def _to_shared_addresses(guests: Sequence[LiveGuest]) -> Iterator[Ping]:
    """Yield pings to each anycast and additional address from the first guest of every host that lacks it."""
    holders: dict[tuple[str, str], set[str]] = {}
    for guest in guests:
        for address in (*guest.besides, *guest.transparent):
            holders.setdefault((guest.domain, address), set()).add(guest.name)
    for (domain, address), names in holders.items():
        others = [g for g in guests if g.domain == domain and g.name not in names]
        for guest in {guest.host: guest for guest in reversed(others)}.values():
            if any(family_of_text(own) == family_of_text(address) for own in guest.addresses):
                yield Ping(guest.host, guest.name, address, address)


def _from_hypervisor(
    plan: HostPlan, plans: Sequence[HostPlan], guests: Sequence[LiveGuest], ways_out: Set[str]
) -> Iterator[Ping]:
    """Yield pings from a hypervisor to its guests, and to the outside.

    That it reaches where an edge router leads out of the domain of its own traffic, and otherwise must not:
    ``ways_out`` are the BIRD tables with a default route.
    """
    for guest in guests:
        if guest.host == plan.host:
            yield from _to(plan.host, plan.host, guest)
    if plan.main_default_route or not any(rule.table == LOCAL_OUT for rule in plan.rules):
        return
    is_led_out = not _own_ways(plan).isdisjoint(ways_out)
    for edge in plans:
        for loopback in edge.loopbacks if edge.kind == "edge_router" else ():
            if loopback.family == "ipv4":
                yield Ping(plan.host, plan.host, edge.host, loopback.address, is_answered=is_led_out)


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


def _across_domains(hypervisors: Sequence[HostPlan], guests: Sequence[LiveGuest]) -> Iterator[Ping]:
    """Yield pings that must stay silent: from a guest into another domain than its own.

    A guest's own hypervisor is left out: it answers for all of its addresses on every interface.
    """
    for guest in guests:
        others = [plan for plan in hypervisors if plan.host != guest.host]
        for plan in others[:1]:
            for loopback in plan.loopbacks:
                if loopback.domain != guest.domain:
                    yield Ping(
                        guest.host, guest.name, f"{plan.host}'s loopback", loopback.address, is_answered=False
                    )
        foreign = [other for other in guests if other.domain != guest.domain and other.host != guest.host]
        for other in foreign[:1]:
            for address in other.addresses:
                yield Ping(guest.host, guest.name, other.name, address, is_answered=False)

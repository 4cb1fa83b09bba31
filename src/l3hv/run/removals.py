"""What a run would take out of service: hosts and guests of the last run that the intent lacks now."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from l3hv.model.text import first_of, natural_key
from l3hv.run.files import write_json

REFUSED_ABOVE = Fraction(1, 5)
"""A run that removes a larger share of all hosts, or of all guests, is refused unless it is confirmed."""

REFUSED_FROM = 2
"""Fewer removals are never refused: one host or guest of a small fabric is work of every day."""

_MOST_NAMED = 8


@dataclass(frozen=True)
class Applied:
    """What the last run left on a host: its ``guests``, and its ``neighbors`` in BGP, by name."""

    guests: tuple[str, ...]
    neighbors: tuple[str, ...]


@dataclass(frozen=True)
class Removals:
    """What a run removes, and of how many.

    ``hosts`` are those that left the inventory, each with the hosts of the run that end their sessions with
    it; ``guests`` are those that no host has any more, each with the host that had it.
    """

    hosts: tuple[tuple[str, tuple[str, ...]], ...]
    guests: tuple[tuple[str, str], ...]
    all_hosts: int
    all_guests: int

    @property
    def count(self) -> int:
        return len(self.hosts) + len(self.guests)

    @property
    def needs_consent(self) -> bool:
        """Whether the run removes more than a fifth of all hosts, or of all guests."""
        return bool(self.exceeding())

    def exceeding(self) -> list[str]:
        """Return which of the two the run removes too many of: "hosts", "guests", both or none."""
        numbers = {
            "hosts": (len(self.hosts), self.all_hosts),
            "guests": (len(self.guests), self.all_guests),
        }
        return [
            kind
            for kind, (removed, total) in numbers.items()
            if removed >= REFUSED_FROM and removed > REFUSED_ABOVE * total
        ]

    def sentences(self) -> list[str]:
        """Return what is cut, host by host: first the hosts that left, then guests of hosts that stay."""
        guests: dict[str, list[str]] = {}
        for guest, host in self.guests:
            guests.setdefault(host, []).append(guest)
        found = []
        for host, others in self.hosts:
            own = guests.pop(host, [])
            cut = f"and cuts off {'its guest' if len(own) == 1 else 'its guests'} {_named(own)}"
            ends = f"This run ends its {'session' if len(others) == 1 else 'sessions'} with {_named(others)}"
            found.append(f"{host} has left the inventory. {ends}{f', {cut}' if own else ''}.")
        found += [
            f"This run removes"
            f" {f'the guest {names[0]}' if len(names) == 1 else f'{len(names)} guests ({_named(names)})'}"
            f" from {host}."
            for host, names in guests.items()
        ]
        if len(found) > _MOST_NAMED:
            found = [*found[:_MOST_NAMED], f"{len(found) - _MOST_NAMED} more hosts lose guests or sessions."]
        return found

    def totals(self) -> str:
        """Return the numbers as the words that complete "removes …"."""
        return (
            f"{len(self.hosts)} of {self.all_hosts} hosts and {len(self.guests)} of {self.all_guests} guests"
        )


def removals(
    before: Mapping[str, Applied], touched: Iterable[str], hosts: Collection[str], guests: Collection[str]
) -> Removals:
    """Compare what the last run left with the ``hosts`` and ``guests`` that the intent has now.

    Only what the hosts in ``touched`` do counts: they remove guests of their own, and end sessions with hosts
    that have left.  A guest that another host has now has moved, and is not removed.
    """
    ended: dict[str, list[str]] = {}
    removed: dict[str, str] = {}
    present = set(guests)
    for host in sorted(set(touched) & before.keys(), key=natural_key):
        removed.update((guest, host) for guest in before[host].guests if guest not in present)
        for other in before[host].neighbors:
            if other not in hosts:
                ended.setdefault(other, []).append(host)
    for host in ended:
        if host in before:
            removed.update((guest, host) for guest in before[host].guests if guest not in present)
    # The total counts a host that left, also one that is not provisioned.
    return Removals(
        hosts=tuple((host, tuple(ended[host])) for host in sorted(ended, key=natural_key)),
        guests=tuple(sorted(removed.items(), key=lambda item: (natural_key(item[1]), natural_key(item[0])))),
        all_hosts=len(before.keys() | ended.keys()),
        all_guests=sum(len(applied.guests) for applied in before.values()),
    )


def load_applied(directory: Path) -> dict[str, Applied]:
    """Return what the last run left on each host, as far as ``directory`` tells."""
    found = {}
    for path in directory.glob("*.json"):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = Applied(tuple(entry["guests"]), tuple(entry["neighbors"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Another run may just have removed it; a broken one cannot tell anything.
    return found


def record_applied(directory: Path, run: Path, done: Iterable[str], hosts: Collection[str]) -> None:
    """Remember that a run has been applied to the hosts in ``done``; ``run`` holds what it left on each.

    A host that left the inventory is forgotten when none of the others has a session with it any more.
    """
    planned = json.loads(run.read_text(encoding="utf-8"))
    known = load_applied(directory)
    for host in done:
        if host in planned:
            applied = Applied(tuple(planned[host]["guests"]), tuple(planned[host]["neighbors"]))
            if known.get(host) != applied:
                write_json(directory / f"{host}.json", planned[host], is_durable=True)
                known[host] = applied
    needed = {other for host, applied in known.items() if host in hosts for other in applied.neighbors}
    for host in known.keys() - set(hosts) - needed:
        (directory / f"{host}.json").unlink(missing_ok=True)


def _named(names: Collection[str]) -> str:
    return first_of(names, _MOST_NAMED)

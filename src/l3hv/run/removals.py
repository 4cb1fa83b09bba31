"""The hosts and guests that a run takes out of service: the last run left them, and the intent lacks them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from l3hv.model.text import first_of, natural_key
from l3hv.run.files import write_json

REFUSED_ABOVE = Fraction(1, 5)
"""A run that removes a larger share of all hosts, or of all guests, is refused unless it is confirmed."""

REFUSED_FROM = 2
"""Fewer removals are never refused: to remove one host or guest of a small fabric is routine work."""

_MOST_NAMED = 8


@dataclass(frozen=True)
class Applied:
    """The names of the ``guests`` and BGP ``neighbors`` that the last run left on a host.

    ``peers`` has :func:`l3hv.run.outside.peer_digests` of a reflector, a leaf or a host of a mesh; else it is
    empty.
    """

    guests: tuple[str, ...]
    neighbors: tuple[str, ...]
    peers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Applied:
        """Return the record in the form of its file; files of earlier versions have no ``peers``."""
        return cls(tuple(entry["guests"]), tuple(entry["neighbors"]), dict(entry.get("peers", {})))


@dataclass(frozen=True)
class Removals:
    """The hosts and guests that a run removes, and the numbers of all hosts and guests.

    ``hosts`` are the hosts that left the inventory, each with the hosts of the run that end their sessions
    with it.  ``guests`` are the guests that no host has any more, each with the host that had it.
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
        """Return the kinds of which the run removes too many: "hosts", "guests", both or none."""
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
        """Return a sentence for each host: first for hosts that left, then for hosts that lose guests."""
        guests: dict[str, list[str]] = {}
        for guest, host in self.guests:
            guests.setdefault(host, []).append(guest)
        sentences = [_sentence_of_host(host, others, guests.pop(host, [])) for host, others in self.hosts]
        sentences += [_sentence_of_guests(names, host) for host, names in guests.items()]
        more = len(sentences) - _MOST_NAMED
        if more > 0:
            sentences = [*sentences[:_MOST_NAMED], f"{more} more hosts lose guests or sessions."]
        return sentences

    def totals(self) -> str:
        """Return the numbers of removed and of all hosts and guests, as the object of "removes"."""
        return (
            f"{len(self.hosts)} of {self.all_hosts} hosts and {len(self.guests)} of {self.all_guests} guests"
        )


def removals(
    before: Mapping[str, Applied], touched: Iterable[str], hosts: Collection[str], guests: Collection[str]
) -> Removals:
    """Compare the state that the last run left with the ``hosts`` and ``guests`` of the intent.

    Only the hosts in ``touched`` count: they remove their own guests and end their sessions with hosts that
    have left.  A guest that another host has now was moved, and is not removed.
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
    # The total includes the hosts that left, also hosts that l3hv does not provision.
    return Removals(
        hosts=tuple((host, tuple(ended[host])) for host in sorted(ended, key=natural_key)),
        guests=tuple(sorted(removed.items(), key=lambda item: (natural_key(item[1]), natural_key(item[0])))),
        all_hosts=len(before.keys() | ended.keys()),
        all_guests=sum(len(applied.guests) for applied in before.values()),
    )


def load_applied(directory: Path) -> dict[str, Applied]:
    """Return the state that the last run left on each host, from the files in ``directory``."""
    left = {}
    for path in directory.glob("*.json"):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            left[path.stem] = Applied.of(entry)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Another run has just removed the file, or its content is not valid.
    return left


def record_applied(directory: Path, run: Path, done: Iterable[str], hosts: Collection[str]) -> None:
    """Record in ``directory`` the state that a run left on the hosts in ``done``; its file is ``run``.

    The record of a host that left the inventory is removed once no other host has a session with it.
    """
    planned = json.loads(run.read_text(encoding="utf-8"))
    known = load_applied(directory)
    for host in done:
        if host in planned:
            applied = Applied.of(planned[host])
            if known.get(host) != applied:
                write_json(directory / f"{host}.json", planned[host], is_durable=True)
                known[host] = applied
    needed = {other for host, applied in known.items() if host in hosts for other in applied.neighbors}
    for host in known.keys() - set(hosts) - needed:
        (directory / f"{host}.json").unlink(missing_ok=True)


def _sentence_of_host(host: str, others: Collection[str], guests: Collection[str]) -> str:
    """Return the sentence for a host that left the inventory, with its sessions and its guests."""
    sessions = "session" if len(others) == 1 else "sessions"
    sentence = f"{host} has left the inventory. This run ends its {sessions} with {_listed(others)}"
    if guests:
        sentence += f", and cuts off its {'guest' if len(guests) == 1 else 'guests'} {_listed(guests)}"
    return f"{sentence}."


def _sentence_of_guests(guests: list[str], host: str) -> str:
    """Return the sentence for guests that a run removes from a host."""
    if len(guests) == 1:
        return f"This run removes the guest {guests[0]} from {host}."
    return f"This run removes {len(guests)} guests ({_listed(guests)}) from {host}."


def _listed(names: Collection[str]) -> str:
    return first_of(names, _MOST_NAMED)

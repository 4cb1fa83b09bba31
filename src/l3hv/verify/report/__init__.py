"""A verification as people and programs read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from l3hv.model.text import natural_key
from l3hv.verify.causes import Group
from l3hv.verify.check import Check, State


@dataclass(frozen=True)
class Report:
    """The checks of one verification; ``time`` is when it ended (ISO 8601), ``seconds`` how long it took.

    ``groups`` are the failed ones, each of them once, by what they follow from.
    """

    inventory: str
    time: str
    seconds: float
    checks: tuple[Check, ...]
    groups: tuple[Group, ...] = ()

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @cached_property
    def hosts(self) -> list[str]:
        return sorted({check.host for check in self.checks}, key=natural_key)

    def of(self, host: str) -> list[Check]:
        """Return the checks of one host."""
        return self._by_host[host]

    @cached_property
    def _by_host(self) -> dict[str, list[Check]]:
        by_host: dict[str, list[Check]] = {host: [] for host in self.hosts}
        for check in self.checks:
            by_host[check.host].append(check)
        return by_host

    def counts(self, checks: Iterable[Check] | None = None) -> dict[State, int]:
        """Return how many checks there are of each state."""
        counted = Counter(check.state for check in (self.checks if checks is None else checks))
        return {"ok": counted["ok"], "warning": counted["warning"], "failed": counted["failed"]}

    def as_plain(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        return {
            "ok": self.ok,
            "inventory": self.inventory,
            "time": self.time,
            "seconds": self.seconds,
            "counts": self.counts(),
            "checks": [check.as_plain() for check in self.checks],
        }


def topic(check: Check) -> str:
    """Return the heading under which a check is counted.

    >>> topic(Check("hv1", "session rr1_public", "", "", "ok"))
    'sessions'
    """
    return TOPICS.get(check.what.split()[0], "other")


TOPICS = {
    "session": "sessions",
    "path": "sessions",
    "stranger": "sessions",
    "bfd": "bfd",
    "received": "prefixes",
    "sent": "prefixes",
    "announcement": "prefixes",
    "limit": "prefixes",
    "learned": "routes",
    "route": "routes",
    "more": "routes",
    "last": "routes",
    "default": "routes",
    "rules": "rules",
    "foreign": "rules",
    "packet": "filter",
    "chain": "filter",
    "set": "filter",
    "drops": "filter",
    "sysctl": "sysctls",
    "unit": "units",
    "listeners": "units",
    "running": "configuration",
    "router": "configuration",
    "link": "links",
    "size": "links",
    "networkd": "links",
    "addresses": "links",
    "loopback": "links",
    "guest": "ports",
    "port": "ports",
    "mac": "ports",
    "neighbor": "ports",
    "translation": "ports",
    "lease": "offers",
    "ra": "offers",
    "ping": "packets",
    "silence": "packets",
    "address": "packets",
    "observation": "observation",
}
"""Topics by the first word of a check's name, in the order in which they are shown."""

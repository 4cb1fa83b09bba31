"""The report of a verification, for operators and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from l3hv.model.text import natural_key
from l3hv.verify.causes import Group
from l3hv.verify.check import Check, State
from l3hv.verify.report.entry import Entry, entry_of


@dataclass(frozen=True)
class Report:
    """The checks of one verification, which ended at ``time`` (ISO 8601) and took ``seconds``.

    ``groups`` have each failed check once, together with its cause.
    """

    inventory: str
    time: str
    seconds: float
    checks: tuple[Check, ...]
    groups: tuple[Group, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether no check failed."""
        return all(check.passes for check in self.checks)

    @cached_property
    def hosts(self) -> list[str]:
        return sorted({check.host for check in self.checks}, key=natural_key)

    @cached_property
    def entries(self) -> list[Entry]:
        """All checks in words."""
        return [entry_of(check) for check in self.checks]

    def of(self, host: str) -> list[Entry]:
        """Return the checks of one host in words."""
        return self._by_host[host]

    @cached_property
    def _by_host(self) -> dict[str, list[Entry]]:
        by_host: dict[str, list[Entry]] = {host: [] for host in self.hosts}
        for entry in self.entries:
            by_host[entry.host].append(entry)
        return by_host

    def counts(self, checks: Iterable[Check | Entry] | None = None) -> dict[State, int]:
        """Return the number of checks in each state."""
        counted = Counter(check.state for check in (self.checks if checks is None else checks))
        return {"ok": counted["ok"], "warning": counted["warning"], "failed": counted["failed"]}

    def as_plain(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        return {
            "ok": self.passes,
            "inventory": self.inventory,
            "time": self.time,
            "seconds": self.seconds,
            "counts": self.counts(),
            "checks": [entry.as_plain() for entry in self.entries],
        }

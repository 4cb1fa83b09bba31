"""One check in the words of reports, under a stable name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l3hv.verify.check import Check, State
from l3hv.verify.report.kinds import WORDING, name_of, value_in_words
from l3hv.verify.report.remedies import remedy
from l3hv.verify.report.words import NOTHING


@dataclass(frozen=True)
class Entry:
    """A check in words. ``what`` is a stable, readable name that is unique on the host.

    ``topic`` is the heading under which it is counted, ``remedy`` a command or an advice.
    """

    host: str
    topic: str
    what: str
    expected: str
    found: str
    state: State
    remedy: str = ""

    @property
    def passes(self) -> bool:
        """Whether the verification succeeds with this result: a warning passes, too."""
        return self.state != "failed"

    @property
    def sentence(self) -> str:
        """The difference in one line; of lists only their missing and surplus items.

        >>> expected, found = "0: local\\n10: main", "0: local\\n9: main"
        >>> Entry("hv1", "rules", "rules ipv4", expected, found, "failed").sentence
        'hv1: rules ipv4: 10: main is missing, 9: main is too much'
        """
        expected, found = self.expected.splitlines(), self.found.splitlines()
        if len(expected) > 1 and found != [NOTHING]:
            words = [f"{line} is missing" for line in expected if line not in found]
            words += [f"{line} is too much" for line in found if line not in expected]
            if words:
                return f"{self.host}: {self.what}: {', '.join(words)}"
        return (
            f"{self.host}: {self.what}: expected {first_line(self.expected)}, found {first_line(self.found)}"
        )

    def as_plain(self) -> dict[str, Any]:
        """Return the check in the form of ``report.json``."""
        return {
            "host": self.host,
            "what": self.what,
            "expected": self.expected,
            "found": self.found,
            "state": self.state,
            "remedy": self.remedy,
            "ok": self.passes,
        }


def entry_of(check: Check) -> Entry:
    """Return a check in words."""
    expected, found = (
        "" if value is None and check.state == "ok" else value_in_words(check.kind, value)
        for value in (check.expected, check.found)
    )
    return Entry(
        check.host,
        WORDING[check.kind].topic,
        name_of(check.kind, check.subject),
        expected,
        found,
        check.state,
        remedy(check),
    )


def first_line(text: str) -> str:
    """Return the first line of ``text``, marked if there are more.

    >>> first_line("one\\ntwo")
    'one …'
    """
    first, more, _ = text.partition("\n")
    return f"{first} …" if more else first

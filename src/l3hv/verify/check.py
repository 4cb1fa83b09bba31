"""One thing that was expected of a host, and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "failed"]
NOTHING = "nothing"
"""How it reads where a thing that was expected is not there, or one that is there was not expected."""


@dataclass(frozen=True)
class Check:
    """One comparison. ``what`` is a stable, readable name that is unique on the host.

    A ``warning`` is a difference that is no error: a guest that is not started has no routes.
    ``remedy`` says what to look at or to do.
    """

    host: str
    what: str
    expected: str
    found: str
    state: State
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return self.state != "failed"

    @property
    def sentence(self) -> str:
        """The difference in one line; of lists only what is missing from them, or too much in them.

        >>> Check("hv1", "rules ipv4", "0: local\\n10: main", "0: local\\n9: main", "failed").sentence
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
        """Return the check as the report has it."""
        return {**vars(self), "ok": self.ok}


def first_line(text: str) -> str:
    """Return the first line of ``text``, marked if there are more.

    >>> first_line("one\\ntwo")
    'one …'
    """
    first, more, _ = text.partition("\n")
    return f"{first} …" if more else first


def failures(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that make a verification fail."""
    return [check for check in checks if not check.ok]

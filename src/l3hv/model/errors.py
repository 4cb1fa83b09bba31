"""Problems of an intent, in sentences that an operator can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as of_dataclass

from l3hv.model.text import first_of, natural_key, printable

FABRIC = "all"
"""The name under which problems of the fabric-wide variables are reported (``group_vars/all``)."""

_MOST_HOSTS_LISTED = 3


@dataclass(frozen=True)
class Problem:
    """One problem of an intent: its host and field, the refused value, the message and the remedy.

    ``value`` is the refused value as text; ``message`` and ``remedy`` are whole sentences.  ``unfit_text``
    is true if the value is text, and another type or text of another form is expected.

    >>> print(Problem("hv3", "l3hv_id", "300", "300 does not fit in 198.51.100.0/25.", "Choose 1 to 126."))
    hv3: l3hv_id: 300 does not fit in 198.51.100.0/25. Choose 1 to 126.
    """

    host: str
    field: str
    value: str
    message: str
    remedy: str
    unfit_text: bool = of_dataclass(default=False, compare=False)

    def __str__(self) -> str:
        return f"{printable(self.host)}: {self.sentence}"

    @property
    def sentence(self) -> str:
        """The problem without its host."""
        return f"{self.field}: {self.message} {self.remedy}"

    @property
    def order(self) -> tuple[object, ...]:
        """The key by which problems are listed: the fabric first, then hosts and fields by name."""
        return (self.host != FABRIC, natural_key(self.host), natural_key(self.field), self.message)


class IntentError(ValueError):
    """The intent cannot be planned; ``problems`` holds every reason, sorted.

    A problem that several hosts share, because they inherit a variable from a group, is shown once.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda problem: problem.order))
        super().__init__(describe(self.problems))


def describe(problems: Iterable[Problem]) -> str:
    """Return ``problems`` as a list for an operator, headed by their number."""
    hosts_by_sentence: dict[str, list[str]] = {}
    for problem in problems:
        hosts_by_sentence.setdefault(problem.sentence, []).append(problem.host)
    count = len(hosts_by_sentence)
    head = "The intent has one problem:" if count == 1 else f"The intent has {count} problems:"
    lines = [
        f"  {first_of([*map(printable, hosts)], _MOST_HOSTS_LISTED)}: {sentence}"
        for sentence, hosts in hosts_by_sentence.items()
    ]
    return "\n".join([head, *lines])

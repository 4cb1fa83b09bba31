"""Text for people: names in their natural order, numbers of things, and lists that stay short."""

from __future__ import annotations

import re
from collections.abc import Collection

_DIGITS = re.compile(r"([0-9]+)")
_LONGEST_NUMBER = 100


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key under which numbers count as numbers.

    >>> sorted(["hv10", "hv9", "hv1"], key=natural_key)
    ['hv1', 'hv9', 'hv10']
    """
    pieces = _DIGITS.split(text)
    # int() refuses thousands of digits. No real name has so many: they sort as text.
    keys = tuple(
        (int(piece), "") if index % 2 and len(piece) < _LONGEST_NUMBER else (-1, piece)
        for index, piece in enumerate(pieces)
    )
    return (*keys, (-1, text))


def printable(text: str) -> str:
    """Return ``text`` on one line: characters that are not printable ASCII are escaped.

    >>> printable("hv1\\nhv2")
    'hv1\\\\nhv2'
    """
    return ascii(str(text))[1:-1]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    >>> counted(1, "route"), counted(7, "prefix")
    ('1 route', '7 prefixes')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("x") else f"{count} {noun}s"


def first_of(names: Collection[str], most: int) -> str:
    """Return the first ``most`` names, and the number of the others.

    >>> first_of(["hv1", "hv2", "hv3"], 2)
    'hv1, hv2 and 1 more'
    """
    listed = ", ".join(list(names)[:most])
    more = len(names) - most
    return f"{listed} and {more} more" if more > 0 else listed

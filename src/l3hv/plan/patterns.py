"""Prefix patterns, which select routes by prefix and length, in the form of the daemons' configurations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from l3hv.model.addressing import Network
from l3hv.model.plan import ImportPolicy, PrefixMatch, RoutingTable

LINE_STEP = 5
"""The lines of a prefix list of FRR have the numbers 5, 10, 15 ..., as if it had numbered them itself."""


def pattern(prefix: Network, low: int, high: int, why: str) -> PrefixMatch:
    """Return the pattern of the prefixes inside ``prefix`` (itself included) of length ``low`` to ``high``.

    >>> from ipaddress import ip_network
    >>> some = pattern(ip_network("203.0.113.0/24"), 25, 32, "pool")
    >>> some.longer_from, some.longer_to
    (25, 32)
    """
    own = prefix.prefixlen
    return PrefixMatch(
        prefix=str(prefix),
        low=low,
        high=high,
        why=why,
        longer_from=low if low > own else None,
        longer_to=high if high > own else None,
    )


def exact(prefix: str, why: str) -> PrefixMatch:
    """Return the pattern of ``prefix`` alone.

    >>> exact("0.0.0.0/0", "default route").longer_to is None
    True
    """
    length = int(prefix.partition("/")[2])
    return PrefixMatch(prefix, length, length, why)


def policy_with_line_numbers(policy: ImportPolicy) -> ImportPolicy:
    """Return a policy whose patterns have their numbers in a prefix list.

    The list denies the reserved prefixes before it permits the accepted ones.
    """
    accepts = _numbered(policy.accepts, after=len(policy.reserved))
    return replace(policy, reserved=_numbered(policy.reserved), accepts=accepts)


def table_with_line_numbers(table: RoutingTable) -> RoutingTable:
    """Return a table whose ``announces`` have their numbers in a prefix list."""
    return replace(table, announces=_numbered(table.announces))


def _numbered(patterns: Iterable[PrefixMatch], *, after: int = 0) -> tuple[PrefixMatch, ...]:
    return tuple(replace(one, number=LINE_STEP * line) for line, one in enumerate(patterns, start=after + 1))

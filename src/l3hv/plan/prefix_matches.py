"""Matches of prefixes, which select routes by prefix and length, as the daemons' configurations have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from l3hv.model.addressing import (
    DEFAULT_ROUTE,
    GUEST_PREFIX_LENGTH,
    HOST_LENGTH,
    Network,
    family_of,
    longer_than,
)
from l3hv.model.choices import Family
from l3hv.model.intent import Common, Domain, Pool
from l3hv.model.plan import ImportPolicy, PrefixMatch, RoutingTable

LINE_STEP = 5
"""The lines of a prefix list of FRR have the numbers 5, 10, 15 ..., as if it had numbered them itself."""


def match_of_lengths(prefix: Network, low: int, high: int, why: str) -> PrefixMatch:
    """Return the match of the prefixes inside ``prefix`` (itself included) of length ``low`` to ``high``.

    >>> from ipaddress import ip_network
    >>> some = match_of_lengths(ip_network("203.0.113.0/24"), 25, 32, "pool")
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


def match_of_prefix(prefix: str, why: str) -> PrefixMatch:
    """Return the match of ``prefix`` alone.

    >>> match_of_prefix("0.0.0.0/0", "default route").longer_to is None
    True
    """
    length = int(prefix.partition("/")[2])
    return PrefixMatch(prefix, length, length, why)


def pool_matches(common: Common, domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    """Yield the parts of pools that guests can have: in IPv6 up to /64, and /128.

    A whole pool is accepted only if it is one block.
    """
    for pool in common.pools:
        if pool.domain != domain.name:
            continue
        if family == "ipv4" and pool.ipv4 is not None:
            low = _shortest(common, pool, pool.ipv4)
            yield match_of_lengths(pool.ipv4, low, HOST_LENGTH["ipv4"], f"pool {pool.name}")
        if family == "ipv6" and pool.ipv6 is not None:
            prefix, host = pool.ipv6, HOST_LENGTH["ipv6"]
            if not pool.shared_ipv6:
                low = _shortest(common, pool, prefix)
                yield match_of_lengths(prefix, low, GUEST_PREFIX_LENGTH, f"pool {pool.name}")
            elif common.announce == "blocks" and (length := pool.block_lengths.get("ipv6")) is not None:
                yield match_of_lengths(prefix, length, length, f"pool {pool.name}, blocks")
            yield match_of_lengths(prefix, host, host, f"pool {pool.name}, single addresses")


def _shortest(common: Common, pool: Pool, prefix: Network) -> int:
    """Return the length of the largest part of a pool's prefix that a hypervisor may advertise."""
    length = pool.block_lengths.get(family_of(prefix)) if common.announce == "blocks" else None
    return prefix.prefixlen if length == prefix.prefixlen else longer_than(prefix)


def _loopback_matches(domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    prefix = domain.loopback(family)
    if prefix is not None:
        length = HOST_LENGTH[family]
        yield match_of_lengths(prefix, length, length, "loopbacks of the hypervisors")


def fabric_matches(common: Common, domain: Domain, family: Family) -> tuple[PrefixMatch, ...]:
    """Return the prefixes that hypervisors advertise by BGP: of guests, and loopbacks if there is no IGP."""
    loopbacks = () if common.has_igp else _loopback_matches(domain, family)
    return (*pool_matches(common, domain, family), *loopbacks)


def edge_matches(domain: Domain, family: Family) -> tuple[PrefixMatch, ...]:
    """Return the prefixes that edge routers may advertise: the default route, and the domain's ``accept``."""
    default = match_of_prefix(DEFAULT_ROUTE[family], "default route of the edge routers")
    return (default, *_extra_matches(domain, family))


def _extra_matches(domain: Domain, family: Family) -> Iterator[PrefixMatch]:
    for prefix in domain.accept:
        if family_of(prefix) == family:
            yield match_of_prefix(str(prefix), "prefix of the edge routers")


def policy_with_line_numbers(policy: ImportPolicy) -> ImportPolicy:
    """Return a policy whose matches have the numbers of their lines in a prefix list.

    The list denies the reserved prefixes before it permits the accepted ones.
    """
    accepts = _numbered(policy.accepts, after=len(policy.reserved))
    return replace(policy, reserved=_numbered(policy.reserved), accepts=accepts)


def table_with_line_numbers(table: RoutingTable) -> RoutingTable:
    """Return a table whose ``announces`` have the numbers of their lines in a prefix list."""
    return replace(table, announces=_numbered(table.announces))


def _numbered(matches: Iterable[PrefixMatch], *, after: int = 0) -> tuple[PrefixMatch, ...]:
    return tuple(replace(one, number=LINE_STEP * line) for line, one in enumerate(matches, start=after + 1))

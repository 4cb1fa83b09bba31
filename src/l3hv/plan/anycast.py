"""Anycast prefixes that guests of several hypervisors hold, and whose flows are spread (``l3hv_anycast``).

Only the hypervisor of the sending guest spreads a flow.  With *N* holders one flow in *N* stays on it.  The
packets of the other flows are marked, and the mark selects the table of routes to other holders first.
Packets that arrive on a path, and the hypervisor's own packets, are never marked: they go to the local guest.
Therefore two hypervisors cannot pass a packet back and forth, even if their numbers of holders are outdated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network, summarize_address_range
from typing import Any

from l3hv.model.addressing import HOST_LENGTH, Network, by_address, family_of, is_inside, outermost
from l3hv.model.choices import DomainKind, Family
from l3hv.model.intent import Common, Domain, HostIntent
from l3hv.model.plan import AnycastDomain, AnycastShare, PrefixesOfLength, PrefixMatch
from l3hv.plan.prefix_matches import match_of_lengths

MARKS: dict[DomainKind, str] = {"public": "0x20000000", "private": "0x40000000"}
"""The bit of a packet's mark that selects routes to other holders; other programs may use the other bits."""

FLOW_HASHES = 1 << 16
"""The number of values of a flow's hash."""


@dataclass(frozen=True)
class DomainAnycast:
    """The anycast prefixes of a host in one domain and family, some of which are spread.

    ``held`` maps each prefix that the host's guests hold to the number of hypervisors that hold it.
    """

    domain: Domain
    family: Family
    held: Mapping[Network, int]

    @property
    def spread_matches(self) -> tuple[PrefixMatch, ...]:
        """The outermost prefixes that other hypervisors hold too, with all prefixes inside them."""
        shared = (prefix for prefix, holders in self.held.items() if holders > 1)
        length = HOST_LENGTH[self.family]
        return tuple(
            match_of_lengths(prefix, prefix.prefixlen, length, "anycast prefix of local guests")
            for prefix in outermost(shared)
        )


def spread_anycast(common: Common, host: HostIntent, holders: Mapping[str, int]) -> tuple[DomainAnycast, ...]:
    """Return the anycast that a host spreads; ``holders`` has the number of holders of shared prefixes."""
    if host.settings.anycast != "spread":
        return ()
    held: dict[tuple[str, Family], dict[Network, int]] = {}
    for guest in host.guests:
        for text in guest.anycast:
            prefix = ip_network(text)
            place = (guest.domain, family_of(prefix))
            held.setdefault(place, {})[prefix] = holders.get(text, 1)
    places = ((domain, family) for domain in common.domains for family in domain.families)
    found = (DomainAnycast(domain, family, held.get((domain.name, family), {})) for domain, family in places)
    return tuple(one for one in found if one.spread_matches)


def anycast_domains(host: HostIntent, found: Iterable[DomainAnycast]) -> tuple[AnycastDomain, ...]:
    """Return, for each domain, the guests whose flows are spread, and the shares of the prefixes."""
    domains: dict[str, list[DomainAnycast]] = {}
    for one in found:
        domains.setdefault(one.domain.name, []).append(one)
    return tuple(
        AnycastDomain(
            name=name,
            mark=MARKS[several[0].domain.kind],
            guests=tuple(guest.interface for guest in host.guests if guest.domain == name),
            shares=tuple(
                _share(one.family, holders, prefixes)
                for one in several
                for holders, prefixes in shares(one.held).items()
            ),
        )
        for name, several in domains.items()
    )


def _share(family: Family, holders: int, prefixes: list[Network]) -> AnycastShare:
    by_length: dict[int, list[Network]] = {}
    for prefix in prefixes:
        by_length.setdefault(prefix.prefixlen, []).append(prefix)
    return AnycastShare(
        family=family,
        holders=holders,
        local=-(-FLOW_HASHES // holders),  # rounded up
        lengths=tuple(
            PrefixesOfLength(
                length, str(several[0].netmask), tuple(str(prefix.network_address) for prefix in several)
            )
            for length, several in sorted(by_length.items())
        ),
    )


def shares(held: Mapping[Network, int]) -> dict[int, list[Network]]:
    """Return, for each number of holders, the addresses with that many holders, as disjoint prefixes.

    ``held`` are prefixes of one family.  An address belongs to the longest of these prefixes that contains
    it.  Addresses with a single holder are left out.

    >>> shares({ip_network("203.0.113.8/30"): 2, ip_network("203.0.113.9/32"): 3})
    {2: [IPv4Network('203.0.113.8/32'), IPv4Network('203.0.113.10/31')], 3: [IPv4Network('203.0.113.9/32')]}
    """
    found: dict[int, list[Any]] = {}
    for prefix, inner in _with_inner(held):
        found.setdefault(held[prefix], []).extend(_without(prefix, inner))
    return {holders: outermost(found[holders]) for holders in sorted(found) if holders > 1}


def _without(prefix: Network, inner: Iterable[Network]) -> Iterator[Any]:
    """Yield the rest of ``prefix`` as prefixes, without those in ``inner``, which are sorted and disjoint."""
    address, end = type(prefix.network_address), int(prefix.broadcast_address)
    at = int(prefix.network_address)
    for one in inner:
        begin = int(one.network_address)
        if at < begin:
            yield from summarize_address_range(address(at), address(begin - 1))
        at = int(one.broadcast_address) + 1
    if at <= end:
        yield from summarize_address_range(address(at), address(end))


def _with_inner(prefixes: Iterable[Network]) -> Iterator[tuple[Network, list[Network]]]:
    """Yield each prefix with the prefixes directly inside it, not those nested deeper."""
    inner: dict[Network, list[Network]] = {}
    chain: list[Network] = []
    for prefix in sorted(prefixes, key=by_address):
        while chain and not is_inside(prefix, chain[-1]):
            chain.pop()
        if chain:
            inner[chain[-1]].append(prefix)
        inner[prefix] = []
        chain.append(prefix)
    yield from inner.items()

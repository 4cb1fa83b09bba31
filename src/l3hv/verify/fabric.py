"""The routes that each host should learn from the others, computed for a whole fabric in linear time.

Comparing every host with every other host would cost the square of their number.  Hosts that are on the same
paths and accept the same prefixes (a *class*) learn the same routes, except for their own.  A host's
expectation is therefore the total of its class minus the routes that it advertises itself.  A total is a
count and a digest that does not depend on order (the sum of a hash per route), so routes can be subtracted
from it.
"""

from __future__ import annotations

import functools
import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from l3hv.model.addressing import DEFAULT_ROUTE
from l3hv.model.plan import HostPlan, PrefixMatch, RoutingTable
from l3hv.verify.links import Links

DIGESTS = 2**128
EVERY_PATH = ""
"""The path of routes that arrive over an IGP, from each host."""


@dataclass(frozen=True)
class Total:
    """A number of routes, and the sum of their digests modulo 2^128."""

    count: int = 0
    digest: int = 0

    def __add__(self, other: Total) -> Total:
        return Total(self.count + other.count, (self.digest + other.digest) % DIGESTS)

    def __sub__(self, other: Total) -> Total:
        return Total(self.count - other.count, (self.digest - other.digest) % DIGESTS)

    @property
    def text(self) -> str:
        """The digest in the form of an observation."""
        return f"{self.digest:032x}"


def route_total(prefix: str, next_hops: Iterable[str]) -> Total:
    """Return the total of one route.

    >>> route_total("203.0.113.3/32", ["198.51.100.2", "198.51.100.130"]).text
    'ae6fd14a90b3d2605b0c030c7f84bae9'
    """
    text = f"{prefix}|{','.join(sorted(set(next_hops)))}"
    return Total(1, int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


class Fabric:
    """The announcements of all hosts of a fabric, and the routes that each should have learned.

    ``announced`` maps hosts to their :func:`l3hv.plan.announcements.announcements`.  ``absent`` maps hosts to
    their guests without a port, which they do not advertise.  ``unseen`` hosts were not observed: only their
    intent is known.
    """

    def __init__(
        self,
        announced: Mapping[str, Mapping[str, Any]],
        absent: Mapping[str, frozenset[str]] | None = None,
        unseen: frozenset[str] = frozenset(),
    ) -> None:
        self._announced = announced
        self._absent = absent or {}
        self._unseen = unseen
        self._links = Links(announced)
        self._owners: dict[str, dict[str, list[str]]] = {}
        for host in announced:
            for table in announced[host]["tables"]:
                owners = self._owners.setdefault(table, {})
                for prefix in self.announced_by(host, table):
                    owners.setdefault(prefix, []).append(host)
        self._class_total = functools.cache(self._sum_of_class)

    def without_guests_of(self, hosts: Iterable[str]) -> Fabric:
        """Return the same fabric with no guest of ``hosts`` started."""
        guests = {
            host: frozenset(
                guest
                for table in self._announced.get(host, {}).get("tables", {}).values()
                for names in table["prefixes"].values()
                for guest in names
            )
            for host in hosts
        }
        return Fabric(self._announced, {**self._absent, **guests}, frozenset(guests))

    def next_hops_of_unseen(self, table: str) -> set[str]:
        """Return the addresses on the paths of the hosts that were not observed."""
        return {
            address
            for host in self._unseen
            for address in self._announced.get(host, {})
            .get("tables", {})
            .get(table, {})
            .get("next_hops", {})
            .values()
        }

    def announced_by(self, host: str, table: str) -> list[str]:
        """Return the prefixes that ``host`` advertises from the BIRD table ``table`` at present."""
        absent = self._absent.get(host, frozenset())
        part = self._announced.get(host, {}).get("tables", {}).get(table, {})
        return [
            prefix
            for prefix, guests in part.get("prefixes", {}).items()
            if not guests or not absent.issuperset(guests)
        ]

    def owners(self, table: str, prefix: str) -> list[str]:
        """Return the hosts that advertise ``prefix``, or would do so if its guests were started."""
        return [
            host
            for host, part in self._announced.items()
            if prefix in part["tables"].get(table, {}).get("prefixes", {})
            or prefix == part.get("loopbacks", {}).get(table, {}).get("prefix")
        ]

    def next_hops(
        self, table: str, prefix: str, paths: frozenset[str], *, excluded: str | None = None
    ) -> list[str]:
        """Return the next hops of ``prefix`` for hosts on ``paths``, without those of ``excluded``."""
        return sorted(
            {
                address
                for owner in self._owners.get(table, {}).get(prefix, ())
                if owner != excluded
                for path, address in self._announced[owner]["tables"][table]["next_hops"].items()
                if path in paths
            }
        )

    def total(self, plan: HostPlan, table: RoutingTable) -> Total:
        """Return the total of the routes that the host of ``plan`` should have learned into ``table``."""
        is_single = table.ecmp == "none"
        if is_spread(table) or self._links:
            routes = self.routes(plan, table)
            return sum(
                (_route_in_kernel(prefix, hops, is_single) for prefix, hops in routes.items()), Total()
            )
        is_copy = table.fed_by is not None
        table = source_of(plan, table)
        paths = paths_of(plan, table.name)
        total = self._class_total(table.name, paths, table.accepts, is_single)
        for prefix in self.announced_by(plan.host, table.name):
            total -= self._prefix_total(table.name, prefix, paths, table.accepts, is_single)
            if is_copy:
                # The domain's table prefers the local guest. A pipe also copies the routes to other holders.
                total += self._prefix_total(
                    table.name, prefix, paths, table.accepts, is_single, excluded=plan.host
                )
        total += self._total_of_loopbacks(table.name, paths, is_single)
        total -= self._total_of_loopback(plan.host, table.name, paths, is_single)
        return total + self._preferred_default_change(plan, table, paths)

    def routes(self, plan: HostPlan, table: RoutingTable) -> dict[str, list[str]]:
        """Return the routes of :meth:`total`: prefix → next hops.

        A route that may have only one next hop (``l3hv_ecmp``) is returned with all that BIRD chooses from.
        """
        if is_spread(table):
            return self._routes_to_others(plan, table)
        is_copy = table.fed_by is not None
        table = source_of(plan, table)
        paths = paths_of(plan, table.name)
        own = set(self.announced_by(plan.host, table.name))
        loopbacks = {
            prefix: hops
            for host in self._announced
            if host != plan.host
            for prefix, hops in self._loopback(host, table.name, paths)
        }
        return loopbacks | {
            prefix: hops
            for prefix in self._owners.get(table.name, {})
            if (is_copy or prefix not in own) and is_matched(prefix, table.accepts)
            if (hops := self._hops(plan, table.name, prefix, paths))
        }

    def _hops(self, plan: HostPlan, table: str, prefix: str, paths: frozenset[str]) -> list[str]:
        """Return the next hops of a host to the other owners of ``prefix``."""
        if self._links:
            return self._links.next_hops(plan.host, table, self._owners.get(table, {}).get(prefix, ()))
        return self.next_hops(table, prefix, paths, excluded=plan.host)

    def _loopback(self, host: str, table: str, paths: frozenset[str]) -> list[tuple[str, list[str]]]:
        """Return the loopback of ``host`` in the IGP, if any, with its next hops on ``paths``."""
        part = self._announced.get(host, {}).get("loopbacks", {}).get(table)
        hops = sorted(hop for path, hop in part["next_hops"].items() if path in paths) if part else []
        return [(part["prefix"], hops)] if part and hops else []

    def _total_of_loopback(self, host: str, table: str, paths: frozenset[str], is_single: bool) -> Total:
        one = self._loopback(host, table, paths)
        return sum((_route_in_kernel(prefix, hops, is_single) for prefix, hops in one), Total())

    def _total_of_loopbacks(self, table: str, paths: frozenset[str], is_single: bool) -> Total:
        """Return the total of the loopbacks of all hosts."""
        key = (table, paths, is_single)
        if key not in self._loopback_totals:
            each = (self._total_of_loopback(host, table, paths, is_single) for host in self._announced)
            self._loopback_totals[key] = sum(each, Total())
        return self._loopback_totals[key]

    @functools.cached_property
    def _loopback_totals(self) -> dict[tuple[str, frozenset[str], bool], Total]:
        return {}

    def hosts_on(self, path: str, domain: str) -> int:
        """Return the number of hosts on a path in a domain."""
        place = f"{path} {domain}"
        if place not in self._hosts_on:
            self._hosts_on[place] = sum(place in part.get("mtus", {}) for part in self._announced.values())
        return self._hosts_on[place]

    @functools.cached_property
    def _hosts_on(self) -> dict[str, int]:
        return {}

    def _routes_to_others(self, plan: HostPlan, table: RoutingTable) -> dict[str, list[str]]:
        """Return the routes inside the anycast prefixes of a host, except those to the host itself."""
        source = source_of(plan, table)
        paths = paths_of(plan, source.name)
        return {
            prefix: hops
            for _, first, last, *_ in _bounds(table.accepts)
            for prefix in self._between(source.name, first, last)
            if is_matched(prefix, table.accepts) and is_matched(prefix, source.accepts)
            if (hops := self._hops(plan, source.name, prefix, paths))
        }

    def _between(self, table: str, first: int, last: int) -> list[str]:
        """Return the prefixes of a table whose first address lies between ``first`` and ``last``."""
        if table not in self._in_order:
            prefixes = ((int(ip_network(p).network_address), p) for p in self._owners.get(table, {}))
            self._in_order[table] = sorted(prefixes)
        here = self._in_order[table]
        return [p for _, p in here[bisect_left(here, (first, "")) : bisect_left(here, (last + 1, ""))]]

    @functools.cached_property
    def _in_order(self) -> dict[str, list[tuple[int, str]]]:
        return {}

    def _preferred_default_change(self, plan: HostPlan, table: RoutingTable, paths: frozenset[str]) -> Total:
        """Return the change of the total by a preferred default route (``l3hv_ecmp``); zero without one."""
        default = DEFAULT_ROUTE[table.family]
        hops = self.next_hops(table.name, default, paths)
        for policy in plan.routing.policies:
            if policy.table == table.name:
                for preferred in policy.default_next_hops:
                    if preferred.address in hops:
                        return route_total(default, [preferred.address]) - route_total(default, hops)
        return Total()

    def received(self, plan: HostPlan, table: RoutingTable, path: str) -> int:
        """Return the number of prefixes that ``plan``'s host receives on ``path``, once for each owner."""
        everything = self._announcements_on(table.name, path, table.accepts)
        return everything - self.sent(plan.host, table, path)

    def others(self, host: str, table: RoutingTable) -> int:
        """Return the number of prefixes that only other hosts than ``host`` advertise into ``table``."""
        own = set(self.announced_by(host, table.name))
        prefixes = self._owners.get(table.name, {})
        return sum(prefix not in own and is_matched(prefix, table.accepts) for prefix in prefixes)

    def accepted(self, host: str, table: RoutingTable) -> int:
        """Return the number of prefixes of ``host`` that its neighbours accept into ``table``."""
        return sum(is_matched(prefix, table.accepts) for prefix in self.announced_by(host, table.name))

    def sent(self, host: str, table: RoutingTable, path: str) -> int:
        """Return the number of prefixes from ``host`` that neighbours on ``path`` accept into ``table``."""
        part = self._announced.get(host, {}).get("tables", {}).get(table.name)
        if part is None or path not in (*part["next_hops"], EVERY_PATH):
            return 0
        return sum(is_matched(prefix, table.accepts) for prefix in self.announced_by(host, table.name))

    def bfd(self, plan: HostPlan, peer: str) -> tuple[int, int]:
        """Return the BFD interval (ms) of a host and ``peer``, and the number of intervals until detection.

        Each end uses the multiplier of the other end (RFC 5880, 6.8.4).
        """
        own = plan.routing.timers
        theirs = self._announced.get(peer, {}).get("bfd", {})
        interval = max(own.bfd_interval_ms, theirs.get("interval_ms", 0))
        return interval, theirs.get("multiplier", own.bfd_multiplier)

    def mtu(self, host: str, path: str, domain: str) -> int | None:
        """Return the MTU that ``host`` has on a path in a domain; ``None`` if it is not known."""
        found: int | None = self._announced.get(host, {}).get("mtus", {}).get(f"{path} {domain}")
        return found

    def callers(self, address: str) -> list[tuple[str, str]]:
        """Return the hosts with sessions to the reflector's ``address``, each with its own address."""
        return self._callers.get(address, [])

    @functools.cached_property
    def _callers(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for host, part in self._announced.items():
            for own, address in part["calls"]:
                found.setdefault(address, []).append((host, own))
        return found

    @functools.cached_property
    def _on_path(self) -> dict[tuple[str, str], list[str]]:
        """The hosts that advertise routes from a table on a path."""
        hosts: dict[tuple[str, str], list[str]] = {}
        for host, part in self._announced.items():
            for table, announced in part["tables"].items():
                for path in (*announced["next_hops"], EVERY_PATH):
                    hosts.setdefault((table, path), []).append(host)
        return hosts

    def _announcements_on(self, table: str, path: str, accepts: tuple[PrefixMatch, ...]) -> int:
        key = (table, path, accepts)
        if key not in self._counts:
            self._counts[key] = sum(
                is_matched(prefix, accepts)
                for host in self._on_path.get((table, path), ())
                for prefix in self.announced_by(host, table)
            )
        return self._counts[key]

    @functools.cached_property
    def _counts(self) -> dict[tuple[str, str, tuple[PrefixMatch, ...]], int]:
        return {}

    def _sum_of_class(
        self, table: str, paths: frozenset[str], accepts: tuple[PrefixMatch, ...], is_single: bool
    ) -> Total:
        prefixes = self._owners.get(table, {})
        return sum(
            (self._prefix_total(table, prefix, paths, accepts, is_single) for prefix in prefixes), Total()
        )

    def _prefix_total(
        self,
        table: str,
        prefix: str,
        paths: frozenset[str],
        accepts: tuple[PrefixMatch, ...],
        is_single: bool,
        *,
        excluded: str | None = None,
    ) -> Total:
        """Return the share of ``prefix`` in the total of a class, without next hops of ``excluded``."""
        hops = self.next_hops(table, prefix, paths, excluded=excluded)
        if not hops or not is_matched(prefix, accepts):
            return Total()
        return _route_in_kernel(prefix, hops, is_single)


def _route_in_kernel(prefix: str, hops: list[str], is_single: bool) -> Total:
    """Return the total of one route; with ``is_single`` BIRD keeps the next hop with the lowest address."""
    return route_total(prefix, [min(hops, key=ip_address)] if is_single else hops)


def is_spread(table: RoutingTable) -> bool:
    """Tell whether a table has the routes to other holders of this host's anycast prefixes."""
    return table.fed_by is not None and bool(table.accepts)


def source_of(plan: HostPlan, table: RoutingTable) -> RoutingTable:
    """Return the table whose routes are copied into ``table``; without copies, ``table`` itself."""
    if table.fed_by is None:
        return table
    return next(source for source in plan.routing.tables if source.name == table.fed_by)


def paths_of(plan: HostPlan, table: str) -> frozenset[str]:
    """Return the paths on which a host exchanges routes of a BIRD table; with an IGP those of its domain."""
    if plan.routing.igp:
        domains = {one.domain for one in plan.routing.tables if one.name == table}
        return frozenset(uplink.path for uplink in plan.uplinks if uplink.domain in domains)
    return frozenset(
        session.path
        for session in plan.routing.sessions
        if any(table in channel.own_next_hops for channel in session.channels)
    )


@functools.cache
def _bounds(matches: tuple[PrefixMatch, ...]) -> tuple[tuple[int, int, int, int, int], ...]:
    found = []
    for match in matches:
        network = ip_network(match.prefix)
        first, last = int(network.network_address), int(network.broadcast_address)
        found.append((network.version, first, last, match.low, match.high))
    return tuple(found)


@functools.lru_cache(maxsize=2**20)
def is_matched(prefix: str, matches: tuple[PrefixMatch, ...]) -> bool:
    """Tell whether ``prefix`` matches one of ``matches``.

    >>> is_matched("203.0.113.1/32", (PrefixMatch("203.0.113.0/24", 32, 32, "guests"),))
    True
    >>> is_matched("203.0.113.0/24", (PrefixMatch("203.0.113.0/24", 32, 32, "guests"),))
    False
    """
    network = ip_network(prefix)
    address = int(network.network_address)
    return any(
        version == network.version and first <= address <= last and low <= network.prefixlen <= high
        for version, first, last, low, high in _bounds(matches)
    )

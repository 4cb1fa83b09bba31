"""The comparison of the expected state of a host with the state that was found."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from l3hv.model.addressing import DEFAULT_ROUTE
from l3hv.model.plan import HostPlan, RoutingTable
from l3hv.model.text import natural_key
from l3hv.verify import subjects
from l3hv.verify.check import AnnouncedBy, Check, Key, Kind, OfUnseenGuests, State, Unanswered
from l3hv.verify.expect import HOST, expectation, learned_key, routing_units, unit_of
from l3hv.verify.fabric import Fabric, source_of
from l3hv.verify.find import Observation, absent_guests, findings
from l3hv.verify.values import (
    ESTABLISHED,
    AtLeast,
    Learned,
    LearnedHops,
    Prefixes,
    Presence,
    SessionState,
    Unread,
    Value,
)

ROUTES_NAMED = 10
NOT_COMPARABLE = (Unread.OF_THE_MACHINE, Unread.NO_PING)
"""Findings without a value to compare: such a check is ok."""
HARMLESS = (Unread.NOT_IN_KERNEL, Presence.ABSENT, Presence.WITHOUT_CARRIER)
"""Findings that are a warning and no failure."""
ALWAYS_OK = frozenset({Kind.OTHER_LISTENERS})
"""Kinds of checks that only inform."""
ONLY_WARNINGS = frozenset({Kind.FOREIGN_RULES, Kind.FOREIGN_CHAIN, Kind.FOREIGN_TABLE, Kind.UNKNOWN_CALLER})
"""Kinds of checks whose differences are warnings."""
OF_THE_DAEMON = frozenset(
    {Kind.ROUTER_ID, Kind.SESSION, Kind.BFD, Kind.IGP_NEIGHBORS, Kind.RECEIVED, Kind.SENT}
)
OF_A_SESSION = frozenset({Kind.RECEIVED, Kind.SENT})


def compare(plan: HostPlan, seen: Observation, fabric: Fabric, least: Fabric | None = None) -> list[Check]:
    """Return the checks of the host of ``plan``.

    ``least`` is the fabric without the guests of hosts that were not observed.  A difference that these
    guests explain is a warning, because they may not be started.
    """
    absent = absent_guests(plan, seen)
    expected = expectation(plan, fabric, absent)
    found = findings(plan, seen)
    at_least = functools.cache(lambda: expectation(plan, least or fabric, absent))
    routes: list[Check] = []
    for table, listed in _listed_tables(plan, seen):
        different = _different_routes(plan, table, listed, fabric, least or fabric)
        if all(check.passes for check in different):
            # A choice of next hops, or guests that are not started, explain another number and digest.
            key = learned_key(table)
            found[key] = _with_total_of(found[key], expected[key])
        routes += _limited(plan, table, different)
    silent = _silent_units(plan, seen)
    checks = []
    for key in [*expected, *(extra for extra in found if extra not in expected)]:
        if _is_redundant(key, found):
            continue
        check = _check(plan, key, expected.get(key), found.get(key))
        if key in silent:
            check = replace(check, context=Unanswered(silent[key]))
        if not check.passes and _is_count_between(
            key, at_least().get(key), found.get(key), expected.get(key)
        ):
            check = replace(check, state="warning", context=OfUnseenGuests())
        checks.append(check)
    return checks + routes


def _listed_tables(plan: HostPlan, seen: Observation) -> Iterator[tuple[RoutingTable, list[dict[str, Any]]]]:
    """Yield the tables of which the observation lists the learned routes: their digest is not as expected."""
    for table in plan.routing.tables:
        listed = seen["learned"].get(table.name, {}).get("routes")
        if listed is not None:
            yield table, listed


def _silent_units(plan: HostPlan, seen: Observation) -> dict[Key, str]:
    """Return the units that do not answer, by the check that fails because of it."""
    silent = {Key(Kind.UNIT, unit_of(unit)): unit for unit in seen["silent"]}
    if "error" in seen["routing"]:
        silent[Key(Kind.CONFIGURATION, HOST)] = routing_units(plan)[0]
    return silent


def _with_total_of(found: Value, expected: Value) -> Value:
    """Return the learned routes that were found, with the expected number and digest.

    If no route was found, the expected attributes are taken: there are none to compare.
    """
    assert isinstance(found, Learned)
    assert isinstance(expected, Learned)
    attributes = found.attributes if found.count else expected.attributes
    return replace(found, count=expected.count, digest=expected.digest, attributes=attributes)


def wait_conditions(plan: HostPlan, fabric: Fabric) -> dict[str, Any]:
    """Return the conditions that a second observation waits for, as parameters of ``l3hv_observe``."""
    expected = expectation(plan, fabric, frozenset())
    received: dict[str, dict[str, int]] = {}
    for session in plan.routing.sessions:
        for channel in session.channels:
            count = expected[Key(Kind.RECEIVED, subjects.SessionFamily(session.name, channel.family))]
            if isinstance(count, Prefixes):
                received.setdefault(session.name, {})[channel.family] = count.count
    learned = {
        table.name: fabric.total(plan, table).text
        for table in plan.routing.tables
        if table.kernel_table is not None
    }
    return {"learned": learned, "received": received}


def _is_count_between(key: Key, least: Value | None, found: Value | None, most: Value | None) -> bool:
    """Tell whether the guests of hosts that were not observed can explain a number of prefixes."""
    if key.kind not in OF_A_SESSION or least is None or found is None or most is None:
        return False
    return least != most and _number(least) <= _number(found) <= _number(most)


def _number(value: Value) -> int:
    match value:
        case AtLeast(count) | Prefixes(count) | int(count):
            return count
    raise TypeError(value)


def _check(plan: HostPlan, key: Key, expected: Value | None, found: Value | None) -> Check:
    state: State = "failed"
    if key.kind in ALWAYS_OK or _agrees(expected, found):
        state = "ok"
    elif _is_warning(key.kind, found):
        state = "warning"
    return Check(plan.host, *key, expected, found, state, plan.routing.daemon.name)


def _agrees(expected: Value | None, found: Value | None) -> bool:
    if found in NOT_COMPARABLE:
        return True
    if isinstance(expected, AtLeast) and found is not None:
        return _number(found) >= expected.count
    return expected == found


def _is_warning(kind: Kind, found: Value | None) -> bool:
    """Tell whether a difference is a warning and no failure."""
    return kind in ONLY_WARNINGS or found in HARMLESS


def _is_redundant(key: Key, found: Mapping[Key, Value]) -> bool:
    """Tell whether a check only repeats that the daemon does not answer, or that a session is not up."""
    if key.kind in OF_THE_DAEMON and Key(Kind.ROUTER_ID, HOST) not in found:
        return True
    match key:
        case Key(Kind.RECEIVED | Kind.SENT, subjects.SessionFamily(session)):
            state = found.get(Key(Kind.SESSION, subjects.Session(session)))
            return not (isinstance(state, SessionState) and state.state == ESTABLISHED)
    return False


def _different_routes(
    plan: HostPlan, table: RoutingTable, listed: list[dict[str, Any]], fabric: Fabric, least: Fabric
) -> list[Check]:
    """Return a check for each learned route that differs from the advertisements of the fabric."""
    source = source_of(plan, table)
    expected, sure = fabric.routes(plan, table), least.routes(plan, table)
    found = {route["prefix"]: sorted(route["next_hops"]) for route in listed}
    elsewhere = least.next_hops_of_unseen(source.name)
    checks = []
    for prefix in sorted(expected.keys() | found.keys(), key=natural_key):
        wanted, seen = expected.get(prefix), found.get(prefix)
        most = _most_next_hops(plan, source, prefix)
        if _is_as_expected(wanted, seen, most):
            continue
        owners = tuple(fabric.owners(source.name, prefix))
        # A guest may move between hosts that were not observed: its old host still advertises it.
        is_guests = bool(owners) and prefix not in sure
        possible = {*(wanted or ()), *(elsewhere if is_guests else ())}
        is_explained = wanted != seen and set(sure.get(prefix, ())) <= set(seen or ()) <= possible
        checks.append(
            Check(
                plan.host,
                Kind.ROUTE,
                subjects.Route(prefix, table.domain),
                _hops(wanted, most),
                _hops(seen),
                "warning" if is_explained else "failed",
                plan.routing.daemon.name,
                AnnouncedBy(owners, is_explained),
            )
        )
    return checks


def _limited(plan: HostPlan, table: RoutingTable, different: list[Check]) -> list[Check]:
    """Return the first of ``different``, failures before warnings, and one check that counts the others."""
    in_order = sorted(different, key=lambda check: check.passes)
    more = in_order[ROUTES_NAMED:]
    if not more:
        return in_order
    state: State = "warning" if all(check.passes for check in more) else "failed"
    subject = subjects.Table(table.domain, table.family)
    counted = Check(plan.host, Kind.MORE_ROUTES, subject, 0, len(more), state, plan.routing.daemon.name)
    return [*in_order[:ROUTES_NAMED], counted]


def _most_next_hops(plan: HostPlan, table: RoutingTable, prefix: str) -> int:
    """Return the maximum number of next hops of a route of the table."""
    is_single = table.ecmp == "none" or (
        table.ecmp == "without_default" and prefix == DEFAULT_ROUTE[table.family]
    )
    return 1 if is_single else plan.routing.ecmp_limit


def _is_as_expected(wanted: list[str] | None, seen: list[str] | None, limit: int) -> bool:
    """Tell whether a route has the expected next hops, or ``limit`` of them if more are expected."""
    if wanted is None or seen is None or len(wanted) <= limit:
        return wanted == seen
    return len(seen) == limit and set(seen) < set(wanted)


def _hops(hops: list[str] | None, most: int | None = None) -> LearnedHops | None:
    """Return the next hops of a route; with ``most``, if the route has only so many of them."""
    if hops is None:
        return None
    return LearnedHops(tuple(hops), most if most is not None and most < len(hops) else None)

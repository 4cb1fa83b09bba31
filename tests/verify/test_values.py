"""Expectations and findings are values with the same keys; only reports have texts."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import as_planned
import pytest
from breaks import DIFFERENCES, FABRIC, LAB, SEEN, seen_with, with_value

from l3hv.verify import subjects
from l3hv.verify.check import AnnouncedBy, Check, Key, Kind, OfUnseenGuests, Unanswered
from l3hv.verify.compare import compare
from l3hv.verify.expect import expectation
from l3hv.verify.find import findings
from l3hv.verify.report.entry import entry_of
from l3hv.verify.values import (
    AtLeast,
    BfdState,
    Hop,
    KernelRoute,
    LearnedHops,
    Link,
    NoAnswer,
    Prefixes,
    SeenMac,
    SessionState,
    UnitState,
    Unread,
)

VERIFY = Path(__file__).parents[2] / "src" / "l3hv" / "verify"
MODULES = sorted(VERIFY.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_comparison_modules_import_no_report(path: Path) -> None:
    found = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("l3hv.verify.report")
    ]
    assert found == []


@pytest.mark.parametrize("host", LAB)
def test_found_values_of_a_host_as_planned_are_the_expected_ones(host: str) -> None:
    expected = expectation(LAB[host], FABRIC, frozenset())
    found = findings(LAB[host], SEEN[host])
    assert found.keys() - expected.keys() == {Key(Kind.OTHER_LISTENERS, subjects.Host())}
    assert expected.keys() - found.keys() == set()
    assert {key for key, value in expected.items() if found[key] != value} == {
        key for key, value in expected.items() if isinstance(value, AtLeast)
    }


def differing(host: str, change: Callable[[dict[str, Any]], Any]) -> list[Check]:
    return [check for check in compare(LAB[host], seen_with(host, change), FABRIC) if check.state != "ok"]


def test_every_difference_has_a_unique_key() -> None:
    for change, expected in DIFFERENCES.values():
        failed = [check for check in differing("hv1", change) if not check.passes]
        assert len({check.key for check in failed}) == len(failed) == len(expected)
        assert {entry_of(check).what for check in failed} == expected


SESSIONS = ("routing", "sessions", "rr2_public")

VALUES: dict[str, tuple[Callable[[dict[str, Any]], Any], Kind, subjects.Subject, Any, Any]] = {
    "a link": (
        with_value(1400, "links", "a-private", "mtu"),
        Kind.LINK,
        subjects.Interface("a-private"),
        Link("up", 1500),
        Link("up", 1400),
    ),
    "a unit": (
        with_value("failed", "units", "radvd.service", "ActiveState"),
        Kind.UNIT,
        subjects.Unit("radvd"),
        UnitState("active", "enabled"),
        UnitState("failed", "enabled"),
    ),
    "a session": (
        with_value("Active", *SESSIONS, "state"),
        Kind.SESSION,
        subjects.Session("rr2_public"),
        SessionState("Established", "198.51.100.129", "198.51.100.254"),
        SessionState("Active", why="Established"),
    ),
    "prefixes": (
        with_value(1, *SESSIONS, "channels", "ipv4", "routes", "filtered"),
        Kind.RECEIVED,
        subjects.SessionFamily("rr2_public", "ipv4"),
        Prefixes(5),
        Prefixes(5, refused=1),
    ),
    "BFD": (
        with_value("Down", "routing", "bfd", 0, "state"),
        Kind.BFD,
        subjects.Bfd("rr1", "a", "public", None),
        BfdState("Up", 100, 3),
        BfdState("Down", bgp_up=True),
    ),
    "a size": (
        with_value(1400, "sizes", "a-public 198.51.100.126"),
        Kind.SIZE,
        subjects.PathToPeer("a", "rr1", "public", "ipv4"),
        AtLeast(1500),
        1400,
    ),
    "a lease": (
        with_value(None, "offers", "vm1", "lease"),
        Kind.LEASE,
        subjects.Guest("vm1"),
        expectation(LAB["hv1"], FABRIC, frozenset())[Key(Kind.LEASE, subjects.Guest("vm1"))],
        Unread.NO_REPLY,
    ),
    "a guest's route": (
        lambda seen: seen["routes"]["public ipv4"].append(as_planned.route("203.0.113.77/32", "vm1")),
        Kind.ROUTE,
        subjects.Route("203.0.113.77/32", "public"),
        None,
        (KernelRoute("unicast", (Hop(None, "vm1"),), 4, 0, None),),
    ),
    "a MAC": (
        with_value(["50:54:33:00:00:07"], "packet_filter", "foreign_macs", "vm1"),
        Kind.MAC,
        subjects.Guest("vm1"),
        (SeenMac("50:54:33:00:00:07"),),
        (SeenMac("50:54:33:00:00:07", own_dropped=True),),
    ),
}


@pytest.mark.parametrize(("change", "kind", "subject", "expected", "found"), VALUES.values(), ids=VALUES)
def test_a_difference_has_the_expected_and_found_values(
    change: Callable[[dict[str, Any]], Any], kind: Kind, subject: subjects.Subject, expected: Any, found: Any
) -> None:
    check = next(check for check in differing("hv1", change) if check.key == (kind, subject))
    assert (check.expected, check.found, check.state) == (expected, found, "failed")


def test_a_daemon_that_does_not_answer_is_reported_with_its_unit() -> None:
    checks = differing("rr1", lambda seen: seen.update(routing={"error": "refused"}))
    assert [(check.key, check.found, check.context) for check in checks] == [
        (Key(Kind.CONFIGURATION, subjects.Host()), NoAnswer("bird2", "refused"), Unanswered("bird.service"))
    ]


def test_guests_of_unobserved_hosts_explain_counts_and_routes() -> None:
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table)
    hops = tuple(routes.pop("203.0.113.4/32"))
    seen = as_planned.observation(LAB["hv1"], FABRIC)
    seen["learned"]["public4"] = as_planned.listed(routes)
    seen["routing"]["sessions"]["rr1_public"]["channels"]["ipv4"]["routes"]["imported"] -= 1
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    warned = [check for check in compare(LAB["hv1"], seen, FABRIC, least) if check.state != "ok"]
    assert [(check.key, check.expected, check.found, check.context) for check in warned] == [
        (
            Key(Kind.RECEIVED, subjects.SessionFamily("rr1_public", "ipv4")),
            Prefixes(5),
            Prefixes(4),
            OfUnseenGuests(),
        ),
        (
            Key(Kind.ROUTE, subjects.Route("203.0.113.4/32", "public")),
            LearnedHops(hops),
            None,
            AnnouncedBy(("hv3",), unseen=True),
        ),
    ]

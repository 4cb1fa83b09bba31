"""Each difference between a host and its plan is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import as_planned
import pytest
from fabrics import lab

from l3hv.plan.announcements import announcements
from l3hv.verify.check import Check
from l3hv.verify.compare import REMEDIES, compare, patience, remedy
from l3hv.verify.fabric import Fabric
from l3hv.verify.find import absent_guests
from l3hv.verify.report import TOPICS

LAB = lab()
ANNOUNCED = {host: announcements(plan) for host, plan in LAB.items()}
FABRIC = Fabric(ANNOUNCED)
SEEN = {host: as_planned.observation(plan, FABRIC) for host, plan in LAB.items()}


def seen_with(host: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return what is seen on a host as planned after one change."""
    seen = as_planned.observation(LAB[host], FABRIC)
    change(seen)
    return seen


def different(checks: list[Check]) -> dict[str, str]:
    """Return what was found where a check fails."""
    return {check.what: check.found for check in checks if check.state == "failed"}


@pytest.mark.parametrize("host", LAB)
def test_a_host_as_planned_has_no_difference(host: str) -> None:
    checks = compare(LAB[host], SEEN[host], FABRIC)
    assert [check.sentence for check in checks if check.state != "ok"] == []
    assert len({check.what for check in checks}) == len(checks)
    assert all(check.what.split()[0] in REMEDIES.keys() & TOPICS.keys() for check in checks)


def without(key: str, *path: str | int) -> Callable[[dict[str, Any]], Any]:
    """Return the change that takes something away."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path[:-1]:
            part = part[step]
        del part[path[-1]]

    return change


def with_value(value: object, key: str, *path: str | int) -> Callable[[dict[str, Any]], Any]:
    """Return the change that sets something."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value

    return change


def added(value: object, key: str, *path: str) -> Callable[[dict[str, Any]], Any]:
    """Return the change that adds an element to a list."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path:
            part = part[step]
        part.append(value)

    return change


FOREIGN = as_planned.rule(33000, 200, protocol=3)
HARMLESS = {
    "after ours": FOREIGN,
    "for an interface that is not the fabric's": FOREIGN | {"priority": 100, "iif": "docker0"},
    "for marked packets": FOREIGN | {"priority": 100, "mark": 7},
    "that does nothing": FOREIGN | {"priority": 100, "action": "nop"},
}


@pytest.mark.parametrize("rule", HARMLESS.values(), ids=HARMLESS)
def test_a_rule_of_somebody_else_that_takes_nothing_of_ours_is_a_warning(rule: dict[str, Any]) -> None:
    checks = compare(LAB["hv1"], seen_with("hv1", added(rule, "rules", "ipv4")), FABRIC)
    assert [(check.what, check.state) for check in checks if check.state != "ok"] == [
        ("foreign rules ipv4", "warning")
    ]
    assert "foreign" in REMEDIES.keys() & TOPICS.keys()


SPREADING = lab(hv1={"l3hv_anycast": "spread"})["hv1"]
MARK = 0x20000000
LEARNED_TO_OTHERS = "learned routes in public-spread ipv4"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("rules", "ipv4", 3), {"rules ipv4"}),
        (with_value(0x10000000, "rules", "ipv6", 2, "mark"), {"rules ipv6"}),
        (with_value(0xFFFFFFFF, "rules", "ipv6", 2, "mask"), {"rules ipv6"}),
        (added(FOREIGN | {"priority": 500, "mark": MARK, "mask": MARK}, "rules", "ipv4"), {"rules ipv4"}),
        (
            added(FOREIGN | {"priority": 500, "mark": MARK, "mask": 0xF0000000}, "rules", "ipv4"),
            {"rules ipv4"},
        ),
        (with_value(as_planned.learned_routes({}), "learned", "public4_spread"), {LEARNED_TO_OTHERS}),
    ],
)
def test_what_spreads_anycast_is_looked_at(
    change: Callable[[dict[str, Any]], Any], expected: set[str]
) -> None:
    seen = as_planned.observation(SPREADING, FABRIC)
    assert different(compare(SPREADING, seen, FABRIC)) == {}
    change(seen)
    assert different(compare(SPREADING, seen, FABRIC)).keys() == expected


DIFFERENCES = {
    "a missing rule": (without("rules", "ipv4", 5), {"rules ipv4"}),
    "the kernel's rule of main": (added(as_planned.rule(32766, 254), "rules", "ipv4"), {"rules ipv4"}),
    "somebody's rule before ours": (added(FOREIGN | {"priority": 500}, "rules", "ipv4"), {"rules ipv4"}),
    "somebody's rule for an uplink": (
        added(FOREIGN | {"priority": 500, "iif": "a-public"}, "rules", "ipv4"),
        {"rules ipv4"},
    ),
    "somebody's rule for all but a mark": (
        added(FOREIGN | {"priority": 500, "mark": 7, "is_inverted": True}, "rules", "ipv4"),
        {"rules ipv4"},
    ),
    "a daemon that listens elsewhere": (
        added("tcp 53", "listeners", "l3hv-dhcp.service"),
        {"listeners l3hv-dhcp"},
    ),
    "a daemon that does not listen": (without("listeners", "bird.service"), {"listeners bird"}),
    "a unit of ours that should not listen": (
        with_value(["tcp 80"], "listeners", "l3hv-tables.service"),
        {"listeners l3hv-tables"},
    ),
    "a rule for another table": (with_value(100, "rules", "ipv4", 2, "table"), {"rules ipv4"}),
    "a rule with a mark": (with_value(7, "rules", "ipv6", 1, "mark"), {"rules ipv6"}),
    "an interface that is down": (with_value(False, "links", "a-public", "up"), {"link a-public"}),
    "no carrier": (with_value(False, "links", "b-private", "carrier"), {"link b-private"}),
    "another MTU": (with_value(1400, "links", "a-private", "mtu"), {"link a-private"}),
    "a missing interface": (without("links", "a-private"), {"link a-private", "addresses a-private"}),
    "an address too many": (
        added(as_planned.address("198.51.100.77/25"), "addresses", "a-public"),
        {"addresses a-public"},
    ),
    "a duplicate address": (
        with_value("duplicate", "addresses", "a-public", 1, "trouble"),
        {"addresses a-public"},
    ),
    "an interface that networkd gave up": (
        with_value("failed", "networkd", "b-public"),
        {"networkd b-public"},
    ),
    "a missing loopback": (without("addresses", "lo", 0), {"loopback 172.22.2.1/32"}),
    "another's loopback": (
        added(as_planned.address("172.22.2.9/32"), "addresses", "lo"),
        {"loopback 172.22.2.9/32"},
    ),
    "a missing guest route": (without("routes", "public ipv4", 3), {"route 203.0.113.1/32 in public"}),
    "a missing last resort of a pool": (
        without("routes", "public ipv4", 1),
        {"last resort of public ipv4 for 203.0.113.0/24"},
    ),
    "a guest route with another source": (
        with_value("172.22.2.9", "routes", "local-out ipv4", 1, "prefsrc"),
        {"route 203.0.113.1/32 in local-out"},
    ),
    "a route of a guest that is gone": (
        added(as_planned.route("203.0.113.77/32", "vm1"), "routes", "public ipv4"),
        {"route 203.0.113.77/32 in public"},
    ),
    "a missing last resort": (without("routes", "private ipv4", 0), {"last resort of private ipv4"}),
    "a default route in main": (
        added(as_planned.route("0.0.0.0/0", "eth9", protocol=3), "routes", "main ipv4"),
        {"default route in main ipv4"},
    ),
    "a setting": (
        with_value("0", "sysctls", "net.ipv4.fib_multipath_hash_policy"),
        {"sysctl net.ipv4.fib_multipath_hash_policy"},
    ),
    "a port without proxy ARP": (
        with_value("0", "settings", "vm1", "ipv4 proxy_arp"),
        {"port vm1 ipv4 proxy_arp"},
    ),
    "a port with its own MAC": (with_value("fe:54:33:00:00:07", "links", "vm1", "mac"), {"port vm1 mac"}),
    "a port without its gateway": (without("addresses", "vm1", 1), {"port vm1 addresses"}),
    "a guest with another MAC": (
        with_value(["52:54:00:00:00:99"], "packet_filter", "strangers", "vm1"),
        {"mac vm1"},
    ),
    "a guest whose own MAC is dropped": (
        with_value(["50:54:33:00:00:07"], "packet_filter", "strangers", "vm1"),
        {"mac vm1"},
    ),
    "rules that were changed": (
        added("inet chain forwarded: has too much: accept", "packet_filter", "differences"),
        {"packet filter"},
    ),
    "a set that lacks an element": (
        without("packet_filter", "sets", "inet macs", 1),
        {"set macs"},
    ),
    "a set with an element too much": (
        added("vm2 . 192.0.2.66", "packet_filter", "sets", "inet senders4"),
        {"set senders4"},
    ),
    "a set that is missing": (without("packet_filter", "sets", "arp macs"), {"set arp macs"}),
    "a set that nobody planned": (
        with_value(["vm2 . 192.0.2.66"], "packet_filter", "sets", "inet friends"),
        {"set friends"},
    ),
    "no packet filter": (
        lambda seen: seen["packet_filter"].update(is_loaded=False, sets={}),
        {"packet filter"},
    ),
    "a port that has no guest": (
        with_value(as_planned.link(1500, "02:6c:33:68:76:01"), "links", "left"),
        {"port left"},
    ),
    "a port in a bridge": (with_value("br0", "links", "vm1", "master"), {"port vm1 link"}),
    "an uplink in a bridge": (with_value("br0", "links", "a-public", "master"), {"link a-public"}),
    "a permanent neighbour that is not the guest": (
        added({"guest": "vm1", "address": "203.0.113.1", "mac": "02:00:00:00:00:99"}, "neighbors"),
        {"neighbor vm1 203.0.113.1"},
    ),
    "a path that carries no full-size packets": (
        with_value(1400, "sizes", "a-public 198.51.100.126"),
        {"size a to rr1 public ipv4"},
    ),
    "a unit with another signal": (
        with_value("15", "units", "bird.service", "KillSignal"),
        {"unit bird settings"},
    ),
    "a unit that may do more": (
        with_value("cap_net_raw cap_sys_admin", "units", "radvd.service", "CapabilityBoundingSet"),
        {"unit radvd settings"},
    ),
    "a unit that failed": (
        with_value("failed", "units", "radvd.service", "ActiveState"),
        {"unit radvd"},
    ),
    "a unit that does not start at boot": (
        with_value("disabled", "units", "bird.service", "UnitFileState"),
        {"unit bird"},
    ),
    "a translation that nobody wants": (
        with_value("203.0.113.1", "translations", "203.0.113.66"),
        {"translation 203.0.113.66"},
    ),
    "a file that was changed": (
        with_value("d2", "routing", "configuration", "file"),
        {"running configuration"},
    ),
    "a configuration that was refused": (
        with_value("d0", "routing", "configuration", "running"),
        {"running configuration"},
    ),
    "another router id": (with_value("192.0.2.1", "routing", "router_id"), {"router id"}),
    "a session that is down": (
        with_value("Active", "routing", "sessions", "rr1_public", "state"),
        {"session rr1_public", "path a has a reflector for public"},
    ),
    "a session too many": (
        with_value(
            {"state": "Idle", "info": "", "error": "", "channels": {}}, "routing", "sessions", "other"
        ),
        {"session other"},
    ),
    "a prefix too few": (
        with_value(4, "routing", "sessions", "rr2_public", "channels", "ipv4", "routes", "imported"),
        {"received rr2_public ipv4"},
    ),
    "a prefix that was refused": (
        with_value(1, "routing", "sessions", "rr2_public", "channels", "ipv4", "routes", "filtered"),
        {"received rr2_public ipv4"},
    ),
    "a prefix that somebody else has": (
        with_value(
            [{"prefix": "203.0.113.9/32", "reason": 5}],
            *("routing", "sessions", "rr2_public", "channels", "ipv4", "refused"),
        ),
        {"announcement rr2 public 203.0.113.9/32"},
    ),
    "a limit": (
        with_value(
            ["import limit of 128 (131 now)"],
            "routing",
            "sessions",
            "rr2_public",
            "channels",
            "ipv4",
            "limits",
        ),
        {"limit rr2_public ipv4"},
    ),
    "a prefix too many": (
        with_value(9, "routing", "sessions", "rr2_public", "channels", "ipv6", "routes", "exported"),
        {"sent rr2_public ipv6"},
    ),
    "a channel that is down": (
        with_value("DOWN", "routing", "sessions", "rr2_public", "channels", "ipv6", "state"),
        {"received rr2_public ipv6", "sent rr2_public ipv6"},
    ),
    "BFD that is down": (with_value("Down", "routing", "bfd", 0, "state"), {"bfd rr1 a public"}),
    "BFD that is slower": (with_value("0.300", "routing", "bfd", 0, "interval"), {"bfd rr1 a public"}),
    "no lease": (with_value(None, "offers", "vm1", "lease"), {"lease vm1"}),
    "another lease": (with_value("203.0.113.9", "offers", "vm1", "lease", "address"), {"lease vm1"}),
    "no router": (with_value(None, "offers", "vm2", "router"), {"ra vm2"}),
    "a router that is none": (with_value(0, "offers", "vm2", "router", "lifetime"), {"ra vm2"}),
    "a route over an interface that does not lead there": (
        with_value(["203.0.113.3/32 via 198.51.100.2 dev b-public"], "learned", "public4", "misdirected"),
        {"learned routes in public ipv4"},
    ),
    "learned routes without the preferred source": (
        with_value({"metric 32": 2}, "learned", "local_out4", "attributes"),
        {"learned routes in local-out ipv4"},
    ),
}


@pytest.mark.parametrize(("change", "expected"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_each_difference_is_named(change: Callable[[dict[str, Any]], Any], expected: set[str]) -> None:
    found = different(compare(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found.keys() == expected


def test_a_set_that_differs_is_named_with_the_elements() -> None:
    def change(seen: dict[str, Any]) -> None:
        sets = seen["packet_filter"]["sets"]
        sets["inet macs"].remove("vm2 . 50:54:33:00:00:09")
        sets["inet senders4"] += [f"vm2 . 192.0.2.{number}" for number in range(1, 13)]
        seen["packet_filter"]["strangers"] = {"vm2": ["50:54:33:00:00:09"]}

    found = different(compare(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found.pop("set senders4").splitlines() == [
        *(f"has vm2 . 192.0.2.{number} too much" for number in range(1, 11)),
        "and 2 more differences",
    ]
    assert found == {
        "set macs": "lacks vm2 . 50:54:33:00:00:09",
        "mac vm2": "50:54:33:00:00:09, its own, which the filter drops",
    }


def test_a_refused_announcement_is_told_with_the_reason() -> None:
    path = ("routing", "sessions", "hv3_public", "channels", "ipv4", "refused")
    routes = [{"prefix": "0.0.0.0/0", "reason": 4}, {"prefix": "203.0.113.8/32", "reason": None}]
    checks = compare(LAB["rr1"], seen_with("rr1", with_value(routes, *path)), FABRIC)
    assert [check.sentence for check in checks if not check.ok] == [
        "rr1: announcement hv3 public 0.0.0.0/0: expected nothing, found refused: "
        "no neighbour of this kind announces this prefix",
        "rr1: announcement hv3 public 203.0.113.8/32: expected nothing, found refused: a filter says so",
    ]


def test_a_bird_that_does_not_answer_is_said_once() -> None:
    seen = seen_with("hv1", lambda seen: seen.update(routing={"error": "bird.ctl: Connection refused"}))
    found = different(compare(LAB["hv1"], seen, FABRIC))
    paths = {f"path {path} has a reflector for {domain}" for path in "ab" for domain in ("public", "private")}
    assert found.keys() == {"running configuration", *paths}
    assert "Connection refused" in found["running configuration"]


def test_learned_routes_that_differ_are_named_one_by_one() -> None:
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table)
    del routes["203.0.113.3/32"]
    routes["203.0.113.4/32"] = ["198.51.100.3"]
    routes["203.0.113.99/32"] = ["198.51.100.2"]
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compare(LAB["hv1"], seen, FABRIC))
    assert found.pop("learned routes in public ipv4").startswith("4 routes")
    assert found == {
        "route 203.0.113.3/32 in public": "nothing",
        "route 203.0.113.4/32 in public": "via 198.51.100.3",
        "route 203.0.113.99/32 in public": "via 198.51.100.2",
    }


def test_of_many_different_routes_the_first_are_named_and_the_others_counted() -> None:
    extra = {f"203.0.113.{number}/32": ["198.51.100.2"] for number in range(100, 125)}
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table) | extra
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compare(LAB["hv1"], seen, FABRIC))
    assert sum(what.startswith("route ") for what in found) == 10
    assert found["more routes in public ipv4"] == "15 more routes differ"


def test_a_guest_that_is_not_started_is_a_warning_and_expected_nowhere() -> None:
    fabric = Fabric(ANNOUNCED, {"hv1": frozenset({"vm1"})})
    seen = {
        host: as_planned.observation(plan, fabric, frozenset({"vm1"}) if host == "hv1" else frozenset())
        for host, plan in LAB.items()
    }
    assert absent_guests(LAB["hv1"], seen["hv1"]) == {"vm1"}
    for host, plan in LAB.items():
        checks = compare(plan, seen[host], fabric)
        assert different(checks) == {}
        warned = [check.what for check in checks if check.state == "warning"]
        assert warned == (["guest vm1"] if host == "hv1" else [])


def test_routes_of_a_guest_that_is_not_started_must_not_be_there() -> None:
    fabric = Fabric(ANNOUNCED, {"hv1": frozenset({"vm2"})})
    seen = as_planned.observation(LAB["hv1"], fabric, frozenset({"vm2"}))
    seen["routes"]["public ipv4"].append(as_planned.route("203.0.113.2/32", "eth0", metric=10))
    assert different(compare(LAB["hv1"], seen, fabric)).keys() == {"route 203.0.113.2/32 in public"}


def test_guests_of_a_host_that_nobody_looked_at_may_be_missing() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    without_vm4 = Fabric(ANNOUNCED, {"hv3": frozenset({"vm4"})})
    seen = as_planned.observation(LAB["hv1"], without_vm4)
    for name in ("public4", "public6"):
        table = next(t for t in LAB["hv1"].routing.tables if t.name == name)
        seen["learned"][name] = as_planned.listed(without_vm4.routes(LAB["hv1"], table))
    checks = compare(LAB["hv1"], seen, FABRIC, least)
    assert different(checks) == {}
    warned = {check.what for check in checks if check.state == "warning"}
    assert {"route 203.0.113.4/32 in public", "received rr1_public ipv4"} <= warned


def test_missing_guests_explain_neither_sources_nor_interfaces() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    without_vm4 = Fabric(ANNOUNCED, {"hv3": frozenset({"vm4"})})
    seen = as_planned.observation(LAB["hv1"], without_vm4)
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = as_planned.listed(without_vm4.routes(LAB["hv1"], table))
    seen["learned"]["public4"] = {**routes, "attributes": {"metric 20": len(routes["routes"])}}
    found = different(compare(LAB["hv1"], seen, FABRIC, least))
    assert not any(what.startswith("route ") for what in found)
    assert found["learned routes in public ipv4"].endswith(", metric 20")


def test_a_guest_may_be_on_its_way_between_hosts_that_were_not_looked_at() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv3"})
    table = next(t for t in LAB["hv3"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv3"], table)
    routes["203.0.113.1/32"] = routes["203.0.113.3/32"]
    seen = seen_with("hv3", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    checks = compare(LAB["hv3"], seen, FABRIC, least)
    assert different(checks) == {}
    assert "route 203.0.113.1/32 in public" in {c.what for c in checks if c.state == "warning"}
    assert "route 203.0.113.1/32 in public" in different(compare(LAB["hv3"], seen, FABRIC))


def test_a_prefix_of_nobody_is_not_on_its_way() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv3"})
    table = next(t for t in LAB["hv3"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv3"], table)
    routes["203.0.113.99/32"] = routes["203.0.113.3/32"]
    routes["0.0.0.0/0"] = sorted([*routes["0.0.0.0/0"], routes["203.0.113.3/32"][0]])
    seen = seen_with("hv3", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compare(LAB["hv3"], seen, FABRIC, least))
    assert {"route 203.0.113.99/32 in public", "route 0.0.0.0/0 in public"} <= found.keys()


def test_the_default_route_is_never_explained_by_a_guest() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table)
    del routes["0.0.0.0/0"]
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compare(LAB["hv1"], seen, FABRIC, least))
    assert found.keys() == {"learned routes in public ipv4", "route 0.0.0.0/0 in public"}


def test_more_next_hops_than_a_route_may_have_are_a_choice() -> None:
    plan = LAB["hv3"]
    limited = lab(hv3={"l3hv_ecmp_limit": 2})["hv3"]
    table = next(t for t in plan.routing.tables if t.name == "public4")
    routes = FABRIC.routes(plan, table)
    routes["203.0.113.10/32"] = ["198.51.100.1", "198.51.100.2"]
    seen = as_planned.observation(limited, FABRIC)
    seen["learned"]["public4"] = as_planned.listed(routes)
    assert different(compare(limited, seen, FABRIC)) == {}
    routes["203.0.113.10/32"] = ["198.51.100.1", "198.51.100.99"]
    seen["learned"]["public4"] = as_planned.listed(routes)
    assert "route 203.0.113.10/32 in public" in different(compare(limited, seen, FABRIC))


@pytest.mark.parametrize("choice", ["without_default", "none"])
def test_one_next_hop_of_those_that_there_are(choice: str) -> None:
    """Which one may be the edge routers' own choice, or that of the routing daemon."""
    plan = lab(hv3={"l3hv_ecmp": {"public": choice}})["hv3"]
    table = next(t for t in plan.routing.tables if t.name == "public4")
    routes = FABRIC.routes(plan, table)
    guests = {prefix for prefix in routes if prefix != "0.0.0.0/0"}

    def judged(changes: dict[str, list[str]]) -> set[str]:
        """Return the routes that differ when one next hop is there where that is the choice, with changes."""
        single = {
            prefix: hops[:1] if choice == "none" or prefix not in guests else hops
            for prefix, hops in routes.items()
        }
        seen = as_planned.observation(plan, FABRIC)
        seen["learned"]["public4"] = as_planned.listed(single | changes)
        return {what for what in different(compare(plan, seen, FABRIC)) if what.startswith("route ")}

    default = routes["0.0.0.0/0"]
    assert len(default) == 2
    assert judged({}) == judged({"0.0.0.0/0": default[1:]}) == set()
    for wrong in (default, ["198.51.100.99"]):
        assert judged({"0.0.0.0/0": wrong}) == {"route 0.0.0.0/0 in public"}
    several = judged({"203.0.113.2/32": routes["203.0.113.2/32"]})
    assert several == ({"route 203.0.113.2/32 in public"} if choice == "none" else set())


def test_the_preferred_default_route_needs_no_second_look() -> None:
    """The total is that of the next hops that are chosen as a rule: those of the first path."""
    for choice, first in (
        ("without_default", {"0.0.0.0/0": ["198.51.100.120"]}),
        (
            "none",
            {
                "0.0.0.0/0": ["198.51.100.120"],
                "203.0.113.1/32": ["198.51.100.1"],
                "203.0.113.2/32": ["198.51.100.1"],
                "203.0.113.3/32": ["198.51.100.2"],
                "203.0.113.10/32": ["198.51.100.1"],
            },
        ),
    ):
        plan = lab(hv3={"l3hv_ecmp": choice})["hv3"]
        table = next(t for t in plan.routing.tables if t.name == "public4")
        merged = FABRIC.routes(plan, table)
        wanted = patience(plan, FABRIC)["learned"]["public4"]
        assert as_planned.learned_routes(merged | first)["digest"] == wanted
        assert as_planned.learned_routes(merged)["digest"] != wanted


def test_settings_of_the_machine_are_not_asked_of_a_container() -> None:
    key = "net.ipv4.neigh.default.gc_thresh1"
    seen = seen_with(
        "hv1", lambda seen: (seen["sysctls"].update({key: None}), seen.update(is_container=True))
    )
    assert all(check.state == "ok" for check in compare(LAB["hv1"], seen, FABRIC))
    seen["is_container"] = False
    warned = [check.what for check in compare(LAB["hv1"], seen, FABRIC) if check.state == "warning"]
    assert warned == [f"sysctl {key}"]


def test_a_second_look_waits_for_what_is_expected() -> None:
    wait = patience(LAB["hv1"], FABRIC)
    assert wait["received"]["rr1_public"] == {"ipv4": 5, "ipv6": 4}
    assert (
        wait["learned"]["private4"]
        == wait["learned"]["local_out4"]
        == SEEN["hv1"]["learned"]["private4"]["digest"]
    )
    assert patience(LAB["rr1"], FABRIC)["learned"] == {}


def test_bfd_at_one_end_only_is_said_where_the_session_is_up_without_it() -> None:
    seen = seen_with("hv1", with_value("Down", "routing", "bfd", 0, "state"))
    found = different(compare(LAB["hv1"], seen, FABRIC))
    assert found == {
        "bfd rr1 a public": "Down, but the BGP session is up: the neighbour has no BFD, "
        "a dead path is left after the hold time"
    }


def test_a_caller_that_no_session_is_for_is_a_warning_with_its_address() -> None:
    seen = seen_with("rr1", with_value(3, "strangers", "198.51.100.9"))
    checks = [check for check in compare(LAB["rr1"], seen, FABRIC) if check.state != "ok"]
    assert [(check.what, check.state) for check in checks] == [("stranger 198.51.100.9", "warning")]
    assert "3 times" in checks[0].found


def test_a_caller_that_a_session_is_for_by_now_is_none() -> None:
    seen = seen_with("rr1", with_value(3, "strangers", LAB["rr1"].routing.sessions[0].neighbor))
    assert [check.what for check in compare(LAB["rr1"], seen, FABRIC) if check.state != "ok"] == []


def chain(policy: str = "accept", *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"hook": "forward", "type": "filter", "policy": policy, "devices": None}
    return {**base, "rules": list(rules), **more}


def does(verdict: str, *interfaces: list[str], asks_more: bool = False, target: str | None = None) -> Any:
    asks = {"selects": [], "asks_more": asks_more, "asks_unknown": asks_more}
    return {"interfaces": list(interfaces), **asks, "verdict": verdict, "target": target}


OTHERS: dict[str, tuple[dict[str, Any], str | None]] = {
    "Docker's policy": ({"FORWARD": chain("drop", does("accept", asks_more=True))}, "failed"),
    "Docker's policy with an exception for guests": (
        {"FORWARD": chain("drop", does("accept", ["iif", "==", "vm*"]))},
        "warning",
    ),
    "everything dropped": ({"FORWARD": chain("accept", does("drop"))}, "failed"),
    "everything dropped in a chain that is jumped to": (
        {
            "FORWARD": chain("accept", does("jump", target="NONE")),
            "NONE": chain("accept", does("reject"), hook=None),
        },
        "failed",
    ),
    "one guest dropped": ({"FORWARD": chain("accept", does("drop", ["iif", "==", "vm1"]))}, "failed"),
    "others' interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "==", "docker0"]))},
        None,
    ),
    "all but the others' interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "!=", "docker0"]))},
        "failed",
    ),
    "some addresses dropped": ({"FORWARD": chain("accept", does("drop", asks_more=True))}, "warning"),
    "everything of a device that is not ours": (
        {"in": chain("drop", hook="ingress", devices=["eth9"])},
        None,
    ),
    "everything of devices that are not ours": (
        {"in": chain("drop", hook="ingress", devices=["eth9", "docker*"])},
        None,
    ),
    "everything of an uplink": ({"in": chain("drop", hook="ingress", devices=["a-public"])}, "failed"),
    "everything of an uplink and another device": (
        {"in": chain("drop", hook="ingress", devices=["eth9", "a-public"])},
        "failed",
    ),
    "what the host itself receives": ({"INPUT": chain("drop", hook="input")}, None),
    "a chain that only counts": ({"FORWARD": chain()}, None),
    "a set of guests dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "==", ["vm1", "vm2"]]))},
        "failed",
    ),
    "all but a set of the fabric's interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "!=", ["vm*", "a-*", "b-*"]]))},
        None,
    ),
    "Docker's policy with a rule that is not understood": (
        {"FORWARD": chain("drop", does("unread", asks_more=True))},
        "warning",
    ),
    "a rule that is not understood": (
        {"FORWARD": chain("accept", does("unread", asks_more=True))},
        "warning",
    ),
    "one for others' interfaces that is not understood": (
        {"FORWARD": chain("accept", does("unread", ["iif", "==", "docker0"], asks_more=True))},
        None,
    ),
}


@pytest.mark.parametrize(("chains", "state"), OTHERS.values(), ids=OTHERS)
def test_a_chain_of_somebody_else_that_drops_is_named(chains: dict[str, Any], state: str | None) -> None:
    table = {"family": "ip", "table": "filter", "chains": chains, "unread": None}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compare(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [check.state for check in checks] == ([] if state is None else [state])
    assert all(f"ip filter {next(iter(chains))}" in check.what for check in checks)


def nat(hook: str, *rules: dict[str, Any], **chains: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a table of chains that translate: a base chain, and others that it jumps to."""
    more = {name: chain("accept", *theirs, hook=None, type=None) for name, theirs in chains.items()}
    return {"NAT": chain("accept", *rules, hook=hook, type="nat"), **more}


def asks(rule: dict[str, Any], *selects: list[Any]) -> dict[str, Any]:
    return {**rule, "selects": list(selects), "asks_more": True}


CONTAINERS = ["saddr", "==", ["172.17.0.0/16"]]
LOCAL = ["type", "==", ["local"]]
BGP = (["protocol", "==", ["tcp"]], ["dport", "==", ["179"]])
WEB = (["protocol", "==", ["tcp"]], ["dport", "==", ["80", "443-445"]])
UDP = (["protocol", "==", ["udp"]],)
IPV4, IPV6 = ["nfproto", "==", ["ipv4"]], ["nfproto", "==", ["ipv6"]]
BEYOND = ["oif", "!=", "docker0"]
FILTER = LAB["hv1"].packet_filter
GUESTS4 = [source[1] for source in (*FILTER.sources4, *FILTER.source_prefixes4)]
BUT_GUESTS = (["saddr", "!=", GUESTS4], ["daddr", "!=", GUESTS4])


def on_devices(hook: str, *devices: str) -> dict[str, Any]:
    """Return a chain that rewrites all that passes some devices."""
    return {"SET": chain("accept", does("rewrite"), hook=hook, devices=list(devices))}


TRANSLATING: dict[str, tuple[dict[str, Any], str | None]] = {
    "everything masqueraded": (nat("postrouting", does("masquerade")), "failed"),
    "what leaves by an uplink": (
        nat("postrouting", does("masquerade", ["oif", "==", "a-public"])),
        "failed",
    ),
    "one guest's address": (
        nat("postrouting", asks(does("snat"), ["saddr", "==", ["203.0.113.1"]])),
        "failed",
    ),
    "a prefix around a guest's address": (
        nat("prerouting", asks(does("dnat"), ["daddr", "==", ["203.0.113.0-203.0.113.7"]])),
        "failed",
    ),
    "a guest's web": (nat("prerouting", asks(does("redirect", ["iif", "==", "vm1"]), *WEB)), "failed"),
    "everybody's web": (nat("prerouting", asks(does("redirect"), *WEB)), "failed"),
    "a guest's questions to one address": (
        nat("prerouting", asks(does("dnat", ["iif", "==", "vm1"]), ["daddr", "==", ["192.0.2.53"]])),
        "failed",
    ),
    "received BGP": (nat("prerouting", asks(does("redirect"), LOCAL, *BGP)), "failed"),
    "sent BGP": (nat("output", asks(does("dnat"), *BGP)), "failed"),
    "in a chain that is jumped to": (
        nat("postrouting", does("jump", target="MORE"), MORE=[does("masquerade")]),
        "failed",
    ),
    "marked packets": (nat("postrouting", does("masquerade", asks_more=True)), "warning"),
    "what comes after an unknown exception": (
        nat("postrouting", does("return", asks_more=True), does("masquerade")),
        "warning",
    ),
    "what comes after an exception for a guest": (
        nat("postrouting", does("accept", ["iif", "==", "vm1"]), does("masquerade")),
        "failed",
    ),
    "a field of a packet in a chain of another type": (
        {"SET": chain("accept", does("rewrite", ["iif", "==", "vm1"]), hook="prerouting")},
        "failed",
    ),
    "a port of BGP where it is sent": (
        {"SET": chain("accept", asks(does("rewrite"), *BGP), hook="output", type="route")},
        "failed",
    ),
    "a port of BGP where it is received": (
        {"SET": chain("accept", asks(does("rewrite"), *BGP), hook="input")},
        "failed",
    ),
    "what comes in by an uplink": (on_devices("ingress", "eth9", "a-public"), "failed"),
    "what comes in by a guest's port": (on_devices("ingress", "vm*"), "failed"),
    "what goes out by an uplink": (on_devices("egress", "a-public"), "failed"),
    "what comes in by a device of others": (on_devices("ingress", "docker0"), None),
    "what goes out by a device of others": (on_devices("egress", "docker0", "eth9"), None),
    "IPv4 but what guests have": (
        nat("postrouting", asks(does("masquerade"), IPV4, *BUT_GUESTS, *UDP)),
        None,
    ),
    "IPv6 but what guests do not have": (
        nat("postrouting", asks(does("masquerade"), IPV6, ["saddr", "!=", ["fd00::/8"]], *UDP)),
        "failed",
    ),
    "the web of a set of guests": (
        nat("prerouting", asks(does("redirect", ["iif", "==", ["vm1", "docker0"]]), *WEB)),
        "failed",
    ),
    "all after a set of the fabric's interfaces was accepted": (
        nat("postrouting", does("accept", ["iif", "==", ["vm*", "a-*", "b-*"]]), does("masquerade")),
        None,
    ),
    "an IPv6 prefix": (
        {"M": chain("accept", asks(does("snpt"), IPV6), hook="postrouting")},
        "failed",
    ),
    "a rule that is not understood": (
        nat("prerouting", does("unread", ["iif", "==", "vm1"], asks_more=True)),
        "warning",
    ),
    "what comes after a rule that is not understood": (
        nat("postrouting", does("unread", asks_more=True), does("masquerade")),
        "warning",
    ),
    "a mask that is no prefix": (
        nat("prerouting", asks(does("redirect"), ["saddr", "==", ["10.0.0.1/255.0.0.255"]])),
        "warning",
    ),
    "IPv4 and IPv6 together": (nat("postrouting", asks(does("masquerade"), IPV4, IPV6)), None),
    # What Docker, podman, libvirt and Kubernetes do.
    "containers' addresses": (nat("postrouting", asks(does("masquerade", BEYOND), CONTAINERS)), None),
    "containers' addresses by an uplink": (
        nat("postrouting", asks(does("masquerade", ["oif", "==", "a-public"]), CONTAINERS)),
        None,
    ),
    "containers' addresses in a chain that is jumped to": (
        nat(
            "postrouting",
            asks(does("jump", target="NETAVARK"), CONTAINERS),
            NETAVARK=[asks(does("masquerade"), ["daddr", "!=", ["224.0.0.0/4"]])],
        ),
        None,
    ),
    "a port of the host for a container": (
        nat(
            "prerouting",
            asks(does("jump", target="DOCKER"), LOCAL),
            DOCKER=[
                does("return", ["iif", "==", "docker0"]),
                asks(does("dnat", ["iif", "!=", "docker0"]), *WEB),
            ],
        ),
        None,
    ),
    "a service's address": (
        nat("prerouting", asks(does("dnat"), ["daddr", "==", ["192.168.96.1"]], *WEB)),
        None,
    ),
    "others' interfaces": (nat("prerouting", does("dnat", ["iif", "==", "docker0"])), None),
    "all after the fabric's interfaces were accepted": (
        nat(
            "postrouting",
            *(does("accept", ["iif", "==", name]) for name in ("vm*", "a-*", "b-*")),
            does("masquerade"),
        ),
        None,
    ),
}


@pytest.mark.parametrize(("chains", "state"), TRANSLATING.values(), ids=TRANSLATING)
def test_a_chain_of_somebody_else_that_rewrites_is_named(chains: dict[str, Any], state: str | None) -> None:
    table = {"family": "inet", "table": "other", "chains": chains, "unread": None}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compare(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [check.state for check in checks] == ([] if state is None else [state])
    assert all(f"inet other {next(iter(chains))}" in check.what for check in checks)
    assert all("rewrite" in check.found for check in checks)


def test_the_rule_that_rewrites_is_named() -> None:
    chains = nat("postrouting", does("jump", target="MORE"), MORE=[asks(does("masquerade", BEYOND), *WEB)])
    table = {"family": "ip", "table": "nat", "chains": chains, "unread": None}
    found = different(compare(LAB["hv1"], seen_with("hv1", added(table, "chains")), FABRIC))
    rule = "in MORE: oifname != docker0 protocol tcp dport 80, 443-445 masquerade"
    assert found == {
        "chain ip nat NAT": f"rewrites what guests send in postrouting ({rule})\n"
        f"rewrites what guests receive in postrouting ({rule})"
    }


@pytest.mark.parametrize(("host", "state"), [("internet", "warning"), ("rr1", None)])
def test_translation_elsewhere_than_on_hypervisors(host: str, state: str | None) -> None:
    """An edge router may translate on purpose; a reflector has nothing to translate but BGP."""
    table = {"family": "ip", "table": "nat", "chains": nat("postrouting", does("masquerade")), "unread": None}
    seen = seen_with(host, added(table, "chains"))
    states = [check.state for check in compare(LAB[host], seen, FABRIC) if check.state != "ok"]
    assert states == ([] if state is None else [state])


def test_a_reflector_whose_bgp_is_rewritten_is_named() -> None:
    chains = nat("prerouting", asks(does("redirect"), *BGP))
    table = {"family": "ip", "table": "nat", "chains": chains, "unread": None}
    found = different(compare(LAB["rr1"], seen_with("rr1", added(table, "chains")), FABRIC))
    assert found == {
        "chain ip nat NAT": "rewrites received BGP in prerouting (protocol tcp dport 179 redirect)"
    }


def test_a_reflector_whose_bgp_is_rewritten_on_its_device_is_named() -> None:
    uplink = LAB["rr1"].uplinks[0].interface
    table = {"family": "netdev", "table": "t", "chains": on_devices("ingress", uplink), "unread": None}
    found = different(compare(LAB["rr1"], seen_with("rr1", added(table, "chains")), FABRIC))
    assert found == {"chain netdev t SET": "rewrites received BGP in ingress (rewrite)"}


@pytest.mark.parametrize(
    ("what", "listing"),
    [
        ("chain ip filter FORWARD", "nft list chain ip filter FORWARD;"),
        ("chain iptables-legacy nat POSTROUTING", "iptables-legacy -t nat -S POSTROUTING;"),
        ("foreign chain inet nat POST", "nft list chain inet nat POST;"),
        ("foreign chain ip6tables-legacy nat POSTROUTING", "ip6tables-legacy -t nat -S POSTROUTING;"),
        ("foreign nftables ip nat", "nft list table ip nat;"),
        ("foreign nftables iptables-legacy nat", "iptables-legacy -t nat -S;"),
        ("foreign nftables nft ruleset", "nft list ruleset;"),
    ],
)
def test_a_chain_of_somebody_else_is_listed_by_the_command_of_its_family(what: str, listing: str) -> None:
    assert remedy(what).startswith(f"{listing} ")
    assert "a rule before it" in remedy(what, found="rewrites what guests send in postrouting (masquerade)")


def test_rules_of_somebody_else_that_were_not_read_are_a_warning() -> None:
    table = {"family": "ip", "table": "nat", "chains": {}, "unread": "not all rules were read"}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compare(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [(check.what, check.state, check.found) for check in checks] == [
        ("foreign nftables ip nat", "warning", "not all rules were read")
    ]


def test_a_networkd_that_hangs_is_named_with_what_restarts_it() -> None:
    seen = seen_with("hv1", with_value("no answer within 10 s", "silent", "systemd-networkd.service"))
    (check,) = (check for check in compare(LAB["hv1"], seen, FABRIC) if check.state != "ok")
    assert (check.what, check.found) == ("unit systemd-networkd", "active, enabled, no answer within 10 s")
    assert "systemctl restart systemd-networkd" in check.remedy


def test_a_packet_filter_that_cannot_be_read_is_told_from_none() -> None:
    def change(seen: dict[str, Any]) -> None:
        seen["packet_filter"].update(is_loaded=False, sets={}, unread=words)

    words = "`nft --json` got no answer within 10 s"
    found = different(compare(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found == {"packet filter": words}


def test_a_reflector_that_answers_no_ping_is_no_difference() -> None:
    seen = seen_with("hv1", with_value(0, "sizes", "a-public 198.51.100.126"))
    assert [check.sentence for check in compare(LAB["hv1"], seen, FABRIC) if check.state != "ok"] == []


def test_a_path_carries_what_the_smaller_end_of_it_does() -> None:
    """A hypervisor with an MTU of 9,000 bytes and a reflector with 1,500."""
    large = lab(hv1={"l3hv_mtu": 9000})["hv1"]
    for passes, is_enough in ((9000, True), (1500, True), (1400, False)):
        seen = as_planned.observation(large, FABRIC)
        seen["sizes"] = dict.fromkeys(seen["sizes"], passes)
        assert (different(compare(large, seen, FABRIC)) == {}) is is_enough


def test_a_drop_in_that_changes_a_setting_is_named() -> None:
    path = "/etc/systemd/system/bird.service.d/override.conf"

    def change(seen: dict[str, Any]) -> None:
        seen["units"]["bird.service"] |= {
            "KillSignal": "15",
            "DropInPaths": f"/etc/systemd/system/bird.service.d/zz-l3hv.conf {path}",
        }

    found = different(compare(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found["unit bird settings"].endswith(f"StartLimitIntervalSec=0, User=bird ({path})")
    assert "KillSignal=SIGTERM" in found["unit bird settings"]


def test_a_guest_without_carrier_is_a_warning_and_its_routes_are_not_expected() -> None:
    def change(seen: dict[str, Any]) -> None:
        seen["links"]["vm1"]["carrier"] = False
        seen["addresses"]["vm1"] = []
        seen["networkd"]["vm1"] = "configuring"
        seen["offers"]["vm1"] = {"lease": None, "router": None}
        for routes in seen["routes"].values():
            routes[:] = [
                route for route in routes if not route["next_hops"] or route["next_hops"][0]["dev"] != "vm1"
            ]

    seen = seen_with("hv1", change)
    assert absent_guests(LAB["hv1"], seen) == {"vm1"}
    checks = {check.what: check for check in compare(LAB["hv1"], seen, FABRIC)}
    assert (checks["guest vm1"].state, checks["guest vm1"].found) == ("warning", "without carrier")
    assert not [what for what in checks if what.startswith(("port vm1", "lease vm1", "networkd vm1"))]
    assert "route 203.0.113.1/32 in public" not in checks

"""The expected totals of learned routes: equal to a comparison of all pairs of hosts, in linear time."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from fabrics import fabric, lab
from hypothesis import given, settings
from hypothesis import strategies as st

from l3hv.model.plan import HostPlan, PrefixMatch, RoutingTable
from l3hv.plan.announcements import announcements
from l3hv.verify.fabric import Fabric, Total, is_matched, paths_of, route_total

LAB = lab()
PART = "2001:db8:cb00:710a::1"
ANNOUNCED = {host: announcements(plan) for host, plan in LAB.items()}


def brute_force(
    plan: HostPlan, table: RoutingTable, announced: dict[str, Any], absent: dict[str, frozenset[str]]
) -> dict[str, list[str]]:
    """Compare a host with each other host, prefix by prefix."""
    paths = paths_of(plan, table.name)

    def is_announced(host: str, names: list[str]) -> bool:
        return not names or bool(set(names) - absent.get(host, frozenset()))

    own = announced[plan.host]["tables"].get(table.name, {"prefixes": {}})["prefixes"]
    mine = {prefix for prefix, names in own.items() if is_announced(plan.host, names)}
    routes: dict[str, set[str]] = {}
    for other, part in announced.items():
        there = part["tables"].get(table.name, {"prefixes": {}, "next_hops": {}})
        for prefix, names in there["prefixes"].items():
            if other == plan.host or prefix in mine or not is_announced(other, names):
                continue
            for path, address in there["next_hops"].items():
                if path in paths and is_matched(prefix, table.accepts):
                    routes.setdefault(prefix, set()).add(address)
    return {prefix: sorted(hops) for prefix, hops in routes.items()}


def total(routes: dict[str, list[str]]) -> Total:
    return sum((route_total(prefix, hops) for prefix, hops in routes.items()), Total())


@settings(max_examples=60, deadline=None)
@given(st.frozensets(st.sampled_from(["vm1", "vm2", "vm3", "vm4"])), st.randoms(use_true_random=False))
def test_totals_are_those_of_the_brute_force(gone: frozenset[str], shuffle: random.Random) -> None:
    absent = dict.fromkeys(LAB, gone)
    hosts = list(ANNOUNCED.items())
    shuffle.shuffle(hosts)
    seen = Fabric(dict(hosts), absent)
    for plan in LAB.values():
        for table in plan.routing.tables:
            if table.fed_by is None:
                expected = brute_force(plan, table, ANNOUNCED, absent)
                assert seen.routes(plan, table) == expected
                assert seen.total(plan, table) == total(expected)


def test_an_anycast_route_has_all_owners_and_on_an_owner_only_itself() -> None:
    seen = Fabric(ANNOUNCED)
    tables = {host: next(t for t in plan.routing.tables if t.name == "public4") for host, plan in LAB.items()}
    everywhere = ["198.51.100.1", "198.51.100.129", "198.51.100.130", "198.51.100.2"]
    assert seen.routes(LAB["hv3"], tables["hv3"])["203.0.113.10/32"] == everywhere
    assert "203.0.113.10/32" not in seen.routes(LAB["hv1"], tables["hv1"])


@settings(max_examples=30, deadline=None)
@given(st.frozensets(st.sampled_from(["vm1", "vm2", "vm3", "vm4"])))
def test_a_spread_route_has_the_other_holders_for_any_stopped_guests(gone: frozenset[str]) -> None:
    """The totals equal a comparison of all pairs; in IPv6, hv3 holds a part of a prefix of the others."""
    spread = {"l3hv_anycast": "spread"}
    guests = [{"name": "vm4", "mac": "50:54:33:00:00:17", "ipv4": "203.0.113.4", "anycast": [PART]}]
    plans = lab(hv1=spread, hv2=spread, hv3={**spread, "l3hv_guests": guests})
    announced = {host: announcements(plan) for host, plan in plans.items()}
    seen = Fabric(announced, dict.fromkeys(plans, gone))
    looked_at = 0
    for host in ("hv1", "hv2"):
        tables = {table.name: table for table in plans[host].routing.tables}
        for name in ("public4", "public6"):
            spread_table, source = tables[f"{name}_spread"], tables[name]
            elsewhere = {other: part for other, part in announced.items() if other != host}
            nowhere = {**elsewhere, host: {"tables": {}}}
            everything = brute_force(plans[host], source, nowhere, dict.fromkeys(plans, gone))
            expected = {
                prefix: hops
                for prefix, hops in everything.items()
                if is_matched(prefix, spread_table.accepts)
            }
            assert seen.routes(plans[host], spread_table) == expected
            assert seen.total(plans[host], spread_table) == total(expected)
            looked_at += len(expected)
    # The prefixes of the other holder, and the part in one of them that hv3 holds.
    assert looked_at == 2 * (2 * 1 + ("vm4" not in gone)) - 2 * len(gone & {"vm1", "vm3"})
    assert not any(table.accepts and table.fed_by for table in plans["hv3"].routing.tables)


PRIVATE = {"services": {"domain": "private", "ipv4": "10.15.0.0/24", "gateway": "10.15.0.254"}}


def holder(name: str, number: int) -> dict[str, Any]:
    """Return the variables of a hypervisor with one guest that holds a private anycast address."""
    mac = f"50:54:33:00:01:{number:02x}"
    guest = {"name": name, "mac": mac, "ipv4": f"10.15.0.{number}", "domain": "private"}
    return {"l3hv_guests": [{**guest, "anycast": ["10.15.0.53"]}]}


@pytest.mark.parametrize("gone", [frozenset[str](), frozenset({"db1"}), frozenset({"db2"})])
def test_local_out_of_a_holder_has_routes_to_the_other_holders(
    gone: frozenset[str],
) -> None:
    """BIRD prefers its own guest in the domain's table; in local-out the kernel's metric does."""
    plans = lab(pools=PRIVATE, hv1=holder("db1", 1), hv2=holder("db2", 2))
    announced = {host: announcements(plan) for host, plan in plans.items()}
    seen = Fabric(announced, dict.fromkeys(plans, gone))
    tables = {table.name: table for table in plans["hv1"].routing.tables}
    hops = ["172.22.15.130", "172.22.15.2"] if "db2" not in gone else None
    assert seen.routes(plans["hv1"], tables["local_out4"]).get("10.15.0.53/32") == hops
    at_home = hops if "db1" in gone else None
    assert seen.routes(plans["hv1"], tables["private4"]).get("10.15.0.53/32") == at_home
    for plan in plans.values():
        for table in plan.routing.tables:
            assert seen.total(plan, table) == total(seen.routes(plan, table))


def test_a_holder_whose_guest_is_stopped_has_routes_to_the_other_holders() -> None:
    seen = Fabric(ANNOUNCED, {"hv1": frozenset({"vm1"})})
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    assert seen.routes(LAB["hv1"], table)["203.0.113.10/32"] == ["198.51.100.130", "198.51.100.2"]


def test_only_hosts_that_accept_the_default_route_expect_it() -> None:
    seen = Fabric(ANNOUNCED)
    for host, expected in (("hv1", True), ("internet", False)):
        table = next(t for t in LAB[host].routing.tables if t.name == "public4")
        assert ("0.0.0.0/0" in seen.routes(LAB[host], table)) is expected


def test_received_prefixes_count_once_for_each_owner() -> None:
    seen = Fabric(ANNOUNCED)
    table = next(t for t in LAB["hv3"].routing.tables if t.name == "public4")
    # The prefixes of vm1, vm2 and vm3, the anycast prefix twice, and the default route.
    assert seen.received(LAB["hv3"], table, "a") == 6
    assert len(seen.announced_by("hv3", "public4")) == 2


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("203.0.113.1/32", True), ("203.0.113.0/25", False), ("203.0.112.1/32", False), ("::/0", False)],
)
def test_a_prefix_pattern_has_bounds(prefix: str, expected: bool) -> None:
    assert is_matched(prefix, (PrefixMatch("203.0.113.0/24", 26, 32, ""),)) is expected


def test_the_announcements_of_a_host() -> None:
    part = ANNOUNCED["hv2"]
    assert part["kind"] == "hypervisor"
    assert part["tables"]["private4"] == {
        "next_hops": {"a": "172.22.15.2", "b": "172.22.15.130"},
        "prefixes": {"172.22.2.2/32": []},
    }
    assert part["tables"]["public4"]["prefixes"] == {"203.0.113.3/32": ["vm3"], "203.0.113.10/32": ["vm3"]}
    assert ANNOUNCED["rr1"]["tables"] == {}


def test_a_fabric_ten_times_as_large_takes_ten_times_as_long() -> None:
    def seconds(hypervisors: int) -> float:
        many = fabric(hypervisors, 20)
        begin = time.process_time()
        seen = Fabric({host: announcements(plan) for host, plan in many.items()})
        for plan in many.values():
            for table in plan.routing.tables:
                seen.total(plan, table)
                for path in "ab":
                    seen.received(plan, table, path)
        return time.process_time() - begin

    seconds(2)
    few, many = seconds(12), seconds(120)
    assert many < 25 * few

"""Anycast that is spread over all its holders (l3hv_anycast): shares, tables, rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from golden_cases import cases, intent_directory
from golden_cases import plans as golden_plans
from hypothesis import given, settings
from hypothesis import strategies as st
from intents import COMMON, EDGE, REFLECTORS, common_of, hypervisor, slices

from l3hv.model.addressing import is_inside
from l3hv.model.plain import as_plain, from_plain
from l3hv.model.plan import AnycastShare, HostPlan, PrefixesOfLength
from l3hv.plan.anycast import FLOW_HASHES, MARKS, shares
from l3hv.plan.host import host_plan
from l3hv.render.summary import plan_summary

FOUR, SIX = "10.9.0.1/32", "2001:db8:8000:9900::/64"
HALF = "ffff:ffff:ffff:ffff::"


def fabric(holders: dict[str, list[str]], **variables: Any) -> dict[str, Any]:
    """Return hypervisors with ``variables``, whose first guests hold these anycast prefixes."""
    hosts: dict[str, Any] = {}
    for number, (name, prefixes) in enumerate(holders.items(), start=1):
        own = hypervisor(number, guests=2) | variables
        own["l3hv_guests"][0]["anycast"] = prefixes
        hosts[name] = ("hypervisor", own)
    return hosts | REFLECTORS | EDGE


def plans(holders: dict[str, list[str]], **variables: Any) -> dict[str, HostPlan]:
    host_variables = {"l3hv_anycast": "spread"} | variables
    return {name: host_plan(part) for name, part in slices(fabric(holders, **host_variables)).items()}


def spread_tables(plan: HostPlan) -> dict[str, list[str]]:
    return {
        table.name: [match.prefix for match in table.accepts]
        for table in plan.routing.tables
        if table.fed_by is not None and table.accepts
    }


EVERYWHERE = {"hv1": [FOUR, SIX], "hv2": [FOUR], "hv3": [FOUR, SIX], "hv4": []}


def test_each_holder_has_its_share_of_the_flows() -> None:
    made = plans(EVERYWHERE)
    (public,) = made["hv1"].packet_filter.anycast
    assert public.name == "public"
    assert public.guests == ("vm2", "vm3")
    assert public.shares == (
        AnycastShare("ipv4", 3, 21846, (PrefixesOfLength(32, "255.255.255.255", ("10.9.0.1",)),)),
        AnycastShare("ipv6", 2, 32768, (PrefixesOfLength(64, HALF, ("2001:db8:8000:9900::",)),)),
    )
    assert [share.family for share in made["hv2"].packet_filter.anycast[0].shares] == ["ipv4"]
    assert made["hv4"].packet_filter.anycast == ()


def test_a_holder_has_a_table_with_the_routes_of_other_holders() -> None:
    made = plans(EVERYWHERE)
    assert spread_tables(made["hv1"]) == {"public4_spread": [FOUR], "public6_spread": [SIX]}
    assert spread_tables(made["hv2"]) == {"public4_spread": [FOUR]}
    names = {table.name: table.id for table in made["hv1"].table_names}
    assert names == {"public": 90, "private": 20, "local-out": 100, "public-spread": 1090}
    assert [table.name for table in made["hv1"].table_names if not table.used_by_networkd] == [
        "public-spread"
    ]
    table = next(table for table in made["hv1"].routing.tables if table.name == "public6_spread")
    assert (table.kernel_table, table.fed_by, table.learn, table.persists) == (1090, "public6", False, False)


@pytest.mark.parametrize(
    ("holders", "variables"),
    [
        ({"hv1": [FOUR, SIX], "hv2": []}, {}),
        ({"hv1": [], "hv2": [FOUR]}, {}),
        (EVERYWHERE, {"l3hv_anycast": "local"}),
        (EVERYWHERE, {"l3hv_anycast": None}),
    ],
)
def test_a_fabric_without_spread_anycast_has_no_tables_for_it(
    holders: dict[str, list[str]], variables: dict[str, Any]
) -> None:
    """Test prefixes with one holder, and hypervisors without l3hv_anycast; slices have no shares either."""
    for plan in plans(holders, **variables).values():
        assert not plan.packet_filter.anycast
        assert not spread_tables(plan)
        assert not any(rule.mark for rule in plan.rules)
        assert all("spread" not in table.name for table in plan.table_names)
    parts = slices(fabric(holders, **({"l3hv_anycast": "spread"} | variables)))
    assert {part.holders for part in parts.values()} == {()}


def test_an_additional_holder_changes_shares_and_no_routing() -> None:
    before, after = plans(EVERYWHERE)["hv1"], plans(EVERYWHERE | {"hv4": [FOUR]})["hv1"]
    assert after.routing == before.routing
    assert after.rules == before.rules
    assert [share.holders for share in after.packet_filter.anycast[0].shares] == [4, 2]


def test_several_holders_on_a_hypervisor_count_once() -> None:
    hosts = fabric({"hv1": [FOUR], "hv2": [FOUR]}, l3hv_anycast="spread")
    hosts["hv2"][1]["l3hv_guests"][1]["anycast"] = [FOUR]
    for name in ("hv1", "hv2"):
        (public,) = host_plan(slices(hosts)[name]).packet_filter.anycast
        assert [share.holders for share in public.shares] == [2]


def test_each_domain_has_a_mark_and_a_table_of_its_own() -> None:
    hosts = fabric({"hv1": [FOUR], "hv2": [FOUR]}, l3hv_anycast="spread")
    for number, name in enumerate(("hv1", "hv2"), start=2):
        service = {"name": f"s{number}", "mac": f"52:54:00:ff:00:0{number}", "ipv4": f"10.64.0.{number}"}
        hosts[name][1]["l3hv_guests"].append({**service, "domain": "private", "anycast": ["10.64.9.9"]})
    domains = COMMON["l3hv_domains"]
    domains = domains | {"private": domains["private"] | {"spread_table": 21}}
    plan = host_plan(slices(hosts, common_of(COMMON | {"l3hv_domains": domains}))["hv1"])
    assert [(domain.name, domain.mark) for domain in plan.packet_filter.anycast] == [
        ("public", MARKS["public"]),
        ("private", MARKS["private"]),
    ]
    assert {rule.table: rule.mark for rule in plan.rules if rule.mark} == {
        "public-spread": MARKS["public"],
        "private-spread": MARKS["private"],
    }
    assert spread_tables(plan) == {"public4_spread": [FOUR], "private4_spread": ["10.64.9.9/32"]}
    assert {table.name: table.id for table in plan.table_names}["private-spread"] == 21
    text = plan_summary(as_plain(plan))
    assert "  private  10.64.9.9/32  1/2 of the flows of guests stays here\n" in text
    assert "fwmark 0x40000000 lookup private-spread" in text


@st.composite
def nested_prefixes(draw: st.DrawFn) -> dict[IPv4Network, int]:
    lengths = st.integers(26, 32)
    addresses = st.integers(0, 63).map(lambda number: IPv4Address("203.0.113.0") + number)
    prefixes = st.builds(lambda a, length: IPv4Network((a, length), strict=False), addresses, lengths)
    return draw(st.dictionaries(prefixes, st.integers(1, 4), max_size=12))


@settings(deadline=None)
@given(nested_prefixes())
def test_every_address_has_the_share_of_its_longest_prefix(held: dict[IPv4Network, int]) -> None:
    found = shares(held)  # type: ignore[arg-type] # one family
    parts = [(part, holders) for holders, several in found.items() for part in several]
    for number in range(64):
        address = IPv4Address("203.0.113.0") + number
        around = [prefix for prefix in held if address in prefix]
        wanted = held[max(around, key=lambda prefix: prefix.prefixlen)] if around else 1
        assert [holders for part, holders in parts if is_inside(address, part)] == [wanted] * (wanted > 1)


@pytest.mark.parametrize(
    ("public", "private", "local_out", "chosen"),
    [
        (90, 20, 100, (1090, 1020)),
        (90, 1090, 100, (1091, 2090)),
        (1020, 20, 2020, (2021, 1021)),
        (2**31 - 1, 20, 1, (2, 1020)),
    ],
)
def test_default_spread_tables_are_unused_tables(
    public: int, private: int, local_out: int, chosen: tuple[int, int]
) -> None:
    domains = {
        name: COMMON["l3hv_domains"][name] | {"table": number}
        for name, number in (("public", public), ("private", private))
    }
    common = common_of(COMMON | {"l3hv_domains": domains, "l3hv_local_out": {"table": local_out}})
    assert tuple(domain.spread_table for domain in common.domains) == chosen


def test_prefixes_are_looked_up_by_their_length() -> None:
    held = ["10.9.0.4/30", "10.9.0.9", "2001:db8:8000:9900::/60", "2001:db8:8000:9910::/64"]
    four, six = plans({"hv1": held, "hv2": held})["hv1"].packet_filter.anycast[0].shares
    assert [(one.length, one.addresses) for one in four.lengths] == [(30, ("10.9.0.4",)), (32, ("10.9.0.9",))]
    assert [(one.length, one.addresses) for one in six.lengths] == [
        (60, ("2001:db8:8000:9900::",)),
        (64, ("2001:db8:8000:9910::",)),
    ]
    assert (four.lengths[0].mask, six.lengths[1].mask) == ("255.255.255.252", HALF)


def test_a_spread_table_accepts_longer_prefixes_of_other_holders() -> None:
    """Another holder has a longer prefix, which is in the domain's table and in the spread table."""
    whole, part = "10.9.0.0/28", "10.9.0.3/32"
    made = plans({"hv1": [whole], "hv2": [whole], "hv3": [part]})
    (match,) = next(t for t in made["hv1"].routing.tables if t.name == "public4_spread").accepts
    assert (match.prefix, match.low, match.high) == (whole, 28, 32)
    assert spread_tables(made["hv3"]) == {}


@pytest.mark.parametrize("holders", [2, 3, 5, 100])
def test_the_local_share_is_fair_and_shrinks_with_each_holder(holders: int) -> None:
    """An additional holder moves no flow from another holder back to this hypervisor."""

    def local(count: int) -> int:
        made = plans({f"hv{number}": [FOUR] for number in range(1, count + 1)})
        return made["hv1"].packet_filter.anycast[0].shares[0].local

    assert 0 <= local(holders) - FLOW_HASHES / holders < 1
    assert local(holders + 1) <= local(holders)


@pytest.mark.parametrize("case", cases())
def test_only_packets_of_guests_are_spread(case: str) -> None:
    """Packets from a path are never marked, and only marked packets use the spread tables."""
    for plain in golden_plans(intent_directory(case)).values():
        plan = from_plain(HostPlan, plain)
        uplinks = {uplink.interface for uplink in plan.uplinks}
        marked = {port for domain in plan.packet_filter.anycast for port in domain.guests}
        assert marked.isdisjoint(uplinks)
        assert marked <= {guest.interface for guest in plan.guests}
        tables = {table.domain for table in plan.routing.tables if table.fed_by and table.accepts}
        assert {rule.table for rule in plan.rules if rule.mark} == tables
        assert not any(rule.table in tables for rule in plan.rules if not rule.mark)
        # The spread tables contain only spread prefixes.
        held = {route.prefix for guest in plan.guests for route in guest.routes if route.kind == "anycast"}
        for several in spread_tables(plan).values():
            assert held.issuperset(several)

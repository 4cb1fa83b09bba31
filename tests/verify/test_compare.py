"""Differences between a host and its plan: each is named, and no other check fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import as_planned
import pytest
from breaks import (
    ANNOUNCED,
    BEYOND,
    BGP,
    DIFFERENCES,
    FABRIC,
    FOREIGN,
    HARMLESS,
    LAB,
    OTHERS,
    SEEN,
    TRANSLATING,
    WEB,
    added,
    asks,
    does,
    nat,
    on_devices,
    seen_with,
    with_value,
    without,
)
from fabrics import lab
from in_words import compared

from l3hv.verify import subjects
from l3hv.verify.check import Check, Kind
from l3hv.verify.compare import compare, wait_conditions
from l3hv.verify.fabric import Fabric
from l3hv.verify.find import absent_guests
from l3hv.verify.report.entry import Entry
from l3hv.verify.report.kinds import WORDING
from l3hv.verify.report.remedies import REMEDIES, remedy
from l3hv.verify.values import Drops, FlowName, OtherRule, Rewrite, Rewrites


def different(checks: list[Entry]) -> dict[str, str]:
    """Return the findings of failed checks."""
    return {check.what: check.found for check in checks if check.state == "failed"}


@pytest.mark.parametrize("host", LAB)
def test_a_host_as_planned_has_no_difference(host: str) -> None:
    checks = compared(LAB[host], SEEN[host], FABRIC)
    assert [check.sentence for check in checks if check.state != "ok"] == []
    assert len({check.what for check in checks}) == len(checks)
    assert {check.kind for check in compare(LAB[host], SEEN[host], FABRIC)} <= REMEDIES.keys()


WITHOUT_REMEDY = {
    Kind.MORE_ROUTES,
    Kind.PING,
    Kind.SILENCE,
    Kind.GUEST_ADDRESS,
    Kind.OBSERVATION,
}
"""Kinds whose remedy is in their context or in the previous check."""


def test_every_kind_has_a_text_and_a_remedy() -> None:
    assert WORDING.keys() == set(Kind)
    assert REMEDIES.keys() | WITHOUT_REMEDY == set(Kind)


@pytest.mark.parametrize("rule", HARMLESS.values(), ids=HARMLESS)
def test_a_harmless_rule_of_another_program_is_a_warning(rule: dict[str, Any]) -> None:
    checks = compared(LAB["hv1"], seen_with("hv1", added(rule, "rules", "ipv4")), FABRIC)
    assert [(check.what, check.state) for check in checks if check.state != "ok"] == [
        ("foreign rules ipv4", "warning")
    ]


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
def test_rules_and_routes_that_spread_anycast_are_checked(
    change: Callable[[dict[str, Any]], Any], expected: set[str]
) -> None:
    seen = as_planned.observation(SPREADING, FABRIC)
    assert different(compared(SPREADING, seen, FABRIC)) == {}
    change(seen)
    assert different(compared(SPREADING, seen, FABRIC)).keys() == expected


@pytest.mark.parametrize(("change", "expected"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_each_difference_is_named(change: Callable[[dict[str, Any]], Any], expected: set[str]) -> None:
    found = different(compared(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found.keys() == expected


def test_a_set_that_differs_is_named_with_the_elements() -> None:
    def change(seen: dict[str, Any]) -> None:
        sets = seen["packet_filter"]["sets"]
        sets["inet macs"].remove("vm2 . 50:54:33:00:00:09")
        sets["inet senders4"] += [f"vm2 . 192.0.2.{number}" for number in range(1, 13)]
        seen["packet_filter"]["foreign_macs"] = {"vm2": ["50:54:33:00:00:09"]}

    found = different(compared(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found.pop("set senders4").splitlines() == [
        *(f"has vm2 . 192.0.2.{number} too much" for number in range(1, 11)),
        "and 2 more differences",
    ]
    assert found == {
        "set macs": "lacks vm2 . 50:54:33:00:00:09",
        "mac vm2": "50:54:33:00:00:09, its own, which the filter drops",
    }


def test_a_refused_announcement_is_reported_with_the_reason() -> None:
    path = ("routing", "sessions", "hv3_public", "channels", "ipv4", "refused")
    routes = [{"prefix": "0.0.0.0/0", "reason": 4}, {"prefix": "203.0.113.8/32", "reason": None}]
    checks = compared(LAB["rr1"], seen_with("rr1", with_value(routes, *path)), FABRIC)
    assert [check.sentence for check in checks if not check.passes] == [
        "rr1: announcement hv3 public 0.0.0.0/0: expected nothing, found refused: "
        "neighbours of this kind may not advertise this prefix",
        "rr1: announcement hv3 public 203.0.113.8/32: expected nothing, found refused: a filter refuses it",
    ]


def test_a_bird_that_does_not_answer_is_reported_once() -> None:
    seen = seen_with("hv1", lambda seen: seen.update(routing={"error": "bird.ctl: Connection refused"}))
    found = different(compared(LAB["hv1"], seen, FABRIC))
    paths = {f"path {path} has a session for {domain}" for path in "ab" for domain in ("public", "private")}
    assert found.keys() == {"running configuration", *paths}
    assert "Connection refused" in found["running configuration"]


def test_learned_routes_that_differ_are_named_one_by_one() -> None:
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table)
    del routes["203.0.113.3/32"]
    routes["203.0.113.4/32"] = ["198.51.100.3"]
    routes["203.0.113.99/32"] = ["198.51.100.2"]
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compared(LAB["hv1"], seen, FABRIC))
    assert found.pop("learned routes in public ipv4").startswith("4 routes")
    assert found == {
        "route 203.0.113.3/32 in public": "nothing",
        "route 203.0.113.4/32 in public": "via 198.51.100.3",
        "route 203.0.113.99/32 in public": "via 198.51.100.2",
    }


def test_the_first_of_many_different_routes_are_named_and_the_others_counted() -> None:
    extra = {f"203.0.113.{number}/32": ["198.51.100.2"] for number in range(100, 125)}
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table) | extra
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compared(LAB["hv1"], seen, FABRIC))
    assert sum(what.startswith("route ") for what in found) == 10
    assert found["more routes in public ipv4"] == "15 more routes differ"


def test_a_stopped_guest_is_a_warning_and_expected_nowhere() -> None:
    fabric = Fabric(ANNOUNCED, {"hv1": frozenset({"vm1"})})
    seen = {
        host: as_planned.observation(plan, fabric, frozenset({"vm1"}) if host == "hv1" else frozenset())
        for host, plan in LAB.items()
    }
    assert absent_guests(LAB["hv1"], seen["hv1"]) == {"vm1"}
    for host, plan in LAB.items():
        checks = compared(plan, seen[host], fabric)
        assert different(checks) == {}
        warned = [check.what for check in checks if check.state == "warning"]
        assert warned == (["guest vm1"] if host == "hv1" else [])


def test_routes_of_a_stopped_guest_are_a_difference() -> None:
    fabric = Fabric(ANNOUNCED, {"hv1": frozenset({"vm2"})})
    seen = as_planned.observation(LAB["hv1"], fabric, frozenset({"vm2"}))
    seen["routes"]["public ipv4"].append(as_planned.route("203.0.113.2/32", "eth0", metric=10))
    assert different(compared(LAB["hv1"], seen, fabric)).keys() == {"route 203.0.113.2/32 in public"}


def test_guests_of_unobserved_hosts_may_be_missing() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    without_vm4 = Fabric(ANNOUNCED, {"hv3": frozenset({"vm4"})})
    seen = as_planned.observation(LAB["hv1"], without_vm4)
    for name in ("public4", "public6"):
        table = next(t for t in LAB["hv1"].routing.tables if t.name == name)
        seen["learned"][name] = as_planned.listed(without_vm4.routes(LAB["hv1"], table))
    checks = compared(LAB["hv1"], seen, FABRIC, least)
    assert different(checks) == {}
    warned = {check.what for check in checks if check.state == "warning"}
    assert {"route 203.0.113.4/32 in public", "received rr1_public ipv4"} <= warned


def test_a_table_without_routes_is_no_failure_where_all_guests_may_be_missing() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"internet"})
    empty = FABRIC.without_guests_of(LAB.keys())
    seen = as_planned.observation(LAB["internet"], empty)
    for table in LAB["internet"].routing.tables:
        if table.kernel_table is not None:
            seen["learned"][table.name] = as_planned.listed(empty.routes(LAB["internet"], table))
    assert different(compared(LAB["internet"], seen, FABRIC, least)) == {}


def test_missing_guests_explain_neither_sources_nor_interfaces() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    without_vm4 = Fabric(ANNOUNCED, {"hv3": frozenset({"vm4"})})
    seen = as_planned.observation(LAB["hv1"], without_vm4)
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = as_planned.listed(without_vm4.routes(LAB["hv1"], table))
    seen["learned"]["public4"] = {**routes, "attributes": {"metric 20": len(routes["routes"])}}
    found = different(compared(LAB["hv1"], seen, FABRIC, least))
    assert not any(what.startswith("route ") for what in found)
    assert found["learned routes in public ipv4"].endswith(", metric 20")


def test_a_guest_may_move_between_unobserved_hosts() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv3"})
    table = next(t for t in LAB["hv3"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv3"], table)
    routes["203.0.113.1/32"] = routes["203.0.113.3/32"]
    seen = seen_with("hv3", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    checks = compared(LAB["hv3"], seen, FABRIC, least)
    assert different(checks) == {}
    assert "route 203.0.113.1/32 in public" in {c.what for c in checks if c.state == "warning"}
    assert "route 203.0.113.1/32 in public" in different(compared(LAB["hv3"], seen, FABRIC))


def test_a_prefix_of_no_guest_is_a_difference() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv3"})
    table = next(t for t in LAB["hv3"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv3"], table)
    routes["203.0.113.99/32"] = routes["203.0.113.3/32"]
    routes["0.0.0.0/0"] = sorted([*routes["0.0.0.0/0"], routes["203.0.113.3/32"][0]])
    seen = seen_with("hv3", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compared(LAB["hv3"], seen, FABRIC, least))
    assert {"route 203.0.113.99/32 in public", "route 0.0.0.0/0 in public"} <= found.keys()


def test_the_default_route_is_never_explained_by_a_guest() -> None:
    least = FABRIC.without_guests_of(LAB.keys() - {"hv1"})
    table = next(t for t in LAB["hv1"].routing.tables if t.name == "public4")
    routes = FABRIC.routes(LAB["hv1"], table)
    del routes["0.0.0.0/0"]
    seen = seen_with("hv1", lambda seen: seen["learned"].update(public4=as_planned.listed(routes)))
    found = different(compared(LAB["hv1"], seen, FABRIC, least))
    assert found.keys() == {"learned routes in public ipv4", "route 0.0.0.0/0 in public"}


def test_a_route_may_have_any_permitted_number_of_the_next_hops() -> None:
    plan = LAB["hv3"]
    limited = lab(hv3={"l3hv_ecmp_limit": 2})["hv3"]
    table = next(t for t in plan.routing.tables if t.name == "public4")
    routes = FABRIC.routes(plan, table)
    routes["203.0.113.10/32"] = ["198.51.100.1", "198.51.100.2"]
    seen = as_planned.observation(limited, FABRIC)
    seen["learned"]["public4"] = as_planned.listed(routes)
    assert different(compared(limited, seen, FABRIC)) == {}
    routes["203.0.113.10/32"] = ["198.51.100.1", "198.51.100.99"]
    seen["learned"]["public4"] = as_planned.listed(routes)
    assert "route 203.0.113.10/32 in public" in different(compared(limited, seen, FABRIC))


@pytest.mark.parametrize("choice", ["without_default", "none"])
def test_a_route_with_one_next_hop_may_have_any_of_them(choice: str) -> None:
    """The edge routers or the routing daemon choose the next hop."""
    plan = lab(hv3={"l3hv_ecmp": {"public": choice}})["hv3"]
    table = next(t for t in plan.routing.tables if t.name == "public4")
    routes = FABRIC.routes(plan, table)
    guests = {prefix for prefix in routes if prefix != "0.0.0.0/0"}

    def judged(changes: dict[str, list[str]]) -> set[str]:
        """Return the different routes if routes have one next hop as chosen, except for ``changes``."""
        single = {
            prefix: hops[:1] if choice == "none" or prefix not in guests else hops
            for prefix, hops in routes.items()
        }
        seen = as_planned.observation(plan, FABRIC)
        seen["learned"]["public4"] = as_planned.listed(single | changes)
        return {what for what in different(compared(plan, seen, FABRIC)) if what.startswith("route ")}

    default = routes["0.0.0.0/0"]
    assert len(default) == 2
    assert judged({}) == judged({"0.0.0.0/0": default[1:]}) == set()
    for wrong in (default, ["198.51.100.99"]):
        assert judged({"0.0.0.0/0": wrong}) == {"route 0.0.0.0/0 in public"}
    several = judged({"203.0.113.2/32": routes["203.0.113.2/32"]})
    assert several == ({"route 203.0.113.2/32 in public"} if choice == "none" else set())


def test_the_digest_expects_next_hops_of_the_first_path() -> None:
    """The digest is that of the next hops that are usually chosen: those of the first path."""
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
        wanted = wait_conditions(plan, FABRIC)["learned"]["public4"]
        assert as_planned.learned_routes(merged | first)["digest"] == wanted
        assert as_planned.learned_routes(merged)["digest"] != wanted


def test_settings_that_a_container_lacks_are_not_expected() -> None:
    key = "net.ipv4.neigh.default.gc_thresh1"
    seen = seen_with(
        "hv1", lambda seen: (seen["sysctls"].update({key: None}), seen.update(is_container=True))
    )
    assert all(check.state == "ok" for check in compared(LAB["hv1"], seen, FABRIC))
    seen["is_container"] = False
    warned = [check.what for check in compared(LAB["hv1"], seen, FABRIC) if check.state == "warning"]
    assert warned == [f"sysctl {key}"]


def test_the_second_observation_waits_for_the_expected_routes() -> None:
    wait = wait_conditions(LAB["hv1"], FABRIC)
    assert wait["received"]["rr1_public"] == {"ipv4": 5, "ipv6": 4}
    assert (
        wait["learned"]["private4"]
        == wait["learned"]["local_out4"]
        == SEEN["hv1"]["learned"]["private4"]["digest"]
    )
    assert wait_conditions(LAB["rr1"], FABRIC)["learned"] == {}


def test_bfd_at_one_end_is_reported_for_a_session_that_is_up() -> None:
    seen = seen_with("hv1", with_value("Down", "routing", "bfd", 0, "state"))
    found = different(compared(LAB["hv1"], seen, FABRIC))
    assert found == {
        "bfd rr1 a public": "Down, but the BGP session is up: the neighbour has no BFD, "
        "a dead path is left after the hold time"
    }


def test_a_caller_without_a_session_is_a_warning_with_its_address() -> None:
    seen = seen_with("rr1", with_value(3, "unknown_callers", "198.51.100.9"))
    checks = [check for check in compared(LAB["rr1"], seen, FABRIC) if check.state != "ok"]
    assert [(check.what, check.state) for check in checks] == [("stranger 198.51.100.9", "warning")]
    assert "3 times" in checks[0].found


def test_a_caller_with_a_configured_session_is_no_warning() -> None:
    seen = seen_with("rr1", with_value(3, "unknown_callers", LAB["rr1"].routing.sessions[0].neighbor))
    assert [check.what for check in compared(LAB["rr1"], seen, FABRIC) if check.state != "ok"] == []


@pytest.mark.parametrize(("chains", "state"), OTHERS.values(), ids=OTHERS)
def test_a_chain_of_another_program_that_drops_is_named(chains: dict[str, Any], state: str | None) -> None:
    table = {"family": "ip", "table": "filter", "chains": chains, "unread": None}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compared(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [check.state for check in checks] == ([] if state is None else [state])
    assert all(f"ip filter {next(iter(chains))}" in check.what for check in checks)


@pytest.mark.parametrize(("chains", "state"), TRANSLATING.values(), ids=TRANSLATING)
def test_a_chain_of_another_program_that_rewrites_is_named(chains: dict[str, Any], state: str | None) -> None:
    table = {"family": "inet", "table": "other", "chains": chains, "unread": None}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compared(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [check.state for check in checks] == ([] if state is None else [state])
    assert all(f"inet other {next(iter(chains))}" in check.what for check in checks)
    assert all("rewrite" in check.found for check in checks)


def test_the_rule_that_rewrites_is_named() -> None:
    chains = nat("postrouting", does("jump", target="MORE"), MORE=[asks(does("masquerade", BEYOND), *WEB)])
    table = {"family": "ip", "table": "nat", "chains": chains, "unread": None}
    found = different(compared(LAB["hv1"], seen_with("hv1", added(table, "chains")), FABRIC))
    rule = "in MORE: oifname != docker0 protocol tcp dport 80, 443-445 masquerade"
    assert found == {
        "chain ip nat NAT": f"rewrites what guests send in postrouting ({rule})\n"
        f"rewrites what guests receive in postrouting ({rule})"
    }


@pytest.mark.parametrize(("host", "state"), [("internet", "warning"), ("rr1", None)])
def test_address_translation_on_edge_routers_and_reflectors(host: str, state: str | None) -> None:
    """An edge router may translate on purpose; a reflector forwards no packets."""
    table = {"family": "ip", "table": "nat", "chains": nat("postrouting", does("masquerade")), "unread": None}
    seen = seen_with(host, added(table, "chains"))
    states = [check.state for check in compared(LAB[host], seen, FABRIC) if check.state != "ok"]
    assert states == ([] if state is None else [state])


def test_a_reflector_whose_bgp_is_rewritten_is_named() -> None:
    chains = nat("prerouting", asks(does("redirect"), *BGP))
    table = {"family": "ip", "table": "nat", "chains": chains, "unread": None}
    found = different(compared(LAB["rr1"], seen_with("rr1", added(table, "chains")), FABRIC))
    assert found == {
        "chain ip nat NAT": "rewrites received BGP in prerouting (protocol tcp dport 179 redirect)"
    }


def test_a_reflector_whose_bgp_is_rewritten_on_its_device_is_named() -> None:
    uplink = LAB["rr1"].uplinks[0].interface
    table = {"family": "netdev", "table": "t", "chains": on_devices("ingress", uplink), "unread": None}
    found = different(compared(LAB["rr1"], seen_with("rr1", added(table, "chains")), FABRIC))
    assert found == {"chain netdev t SET": "rewrites received BGP in ingress (rewrite)"}


REWRITING = Rewrites(
    (Rewrite(FlowName.FROM_GUESTS, "postrouting", None, OtherRule((), (), False, "masquerade")),)
)


@pytest.mark.parametrize(
    ("kind", "subject", "listing"),
    [
        (Kind.CHAIN, subjects.Chain("ip", "filter", "FORWARD"), "nft list chain ip filter FORWARD;"),
        (
            Kind.CHAIN,
            subjects.Chain("iptables-legacy", "nat", "POSTROUTING"),
            "iptables-legacy -t nat -S POSTROUTING;",
        ),
        (Kind.FOREIGN_CHAIN, subjects.Chain("inet", "nat", "POST"), "nft list chain inet nat POST;"),
        (
            Kind.FOREIGN_CHAIN,
            subjects.Chain("ip6tables-legacy", "nat", "POSTROUTING"),
            "ip6tables-legacy -t nat -S POSTROUTING;",
        ),
        (Kind.FOREIGN_TABLE, subjects.FilterTable("ip", "nat"), "nft list table ip nat;"),
        (Kind.FOREIGN_TABLE, subjects.FilterTable("iptables-legacy", "nat"), "iptables-legacy -t nat -S;"),
        (Kind.FOREIGN_TABLE, subjects.FilterTable("nft", "ruleset"), "nft list ruleset;"),
    ],
)
def test_a_chain_of_another_program_is_listed_by_the_command_of_its_family(
    kind: Kind, subject: subjects.Subject, listing: str
) -> None:
    drops = (Drops("forward", "everything", "drop"),)
    assert remedy(Check("hv1", kind, subject, None, drops, "failed")).startswith(f"{listing} ")
    rewrites = remedy(Check("hv1", kind, subject, None, (REWRITING, *drops), "failed"))
    assert rewrites.startswith(f"{listing} ")
    assert "a rule before it" in rewrites
    assert "a rule before it" not in remedy(Check("hv1", kind, subject, None, drops, "failed"))


def test_unread_rules_of_another_program_are_a_warning() -> None:
    table = {"family": "ip", "table": "nat", "chains": {}, "unread": "not all rules were read"}
    seen = seen_with("hv1", added(table, "chains"))
    checks = [check for check in compared(LAB["hv1"], seen, FABRIC) if check.state != "ok"]
    assert [(check.what, check.state, check.found) for check in checks] == [
        ("foreign nftables ip nat", "warning", "not all rules were read")
    ]


def test_a_hanging_networkd_is_named_with_the_command_that_restarts_it() -> None:
    seen = seen_with("hv1", with_value("no answer within 10 s", "silent", "systemd-networkd.service"))
    (check,) = (check for check in compared(LAB["hv1"], seen, FABRIC) if check.state != "ok")
    assert (check.what, check.found) == ("unit systemd-networkd", "active, enabled, no answer within 10 s")
    assert "systemctl restart systemd-networkd" in check.remedy


def test_an_unreadable_packet_filter_is_not_reported_as_missing() -> None:
    def change(seen: dict[str, Any]) -> None:
        seen["packet_filter"].update(loaded=False, sets={}, unread=words)

    words = "`nft --json` got no answer within 10 s"
    found = different(compared(LAB["hv1"], seen_with("hv1", change), FABRIC))
    assert found == {"packet filter": words}


def test_a_reflector_that_answers_no_ping_is_no_difference() -> None:
    seen = seen_with("hv1", with_value(0, "sizes", "a-public 198.51.100.126"))
    assert [check.sentence for check in compared(LAB["hv1"], seen, FABRIC) if check.state != "ok"] == []


def test_the_expected_packet_size_is_the_smaller_mtu_of_both_ends() -> None:
    """Test a hypervisor with an MTU of 9,000 bytes and a reflector with 1,500 bytes."""
    large = lab(hv1={"l3hv_mtu": 9000})["hv1"]
    for passes, is_enough in ((9000, True), (1500, True), (1400, False)):
        seen = as_planned.observation(large, FABRIC)
        seen["sizes"] = dict.fromkeys(seen["sizes"], passes)
        assert (different(compared(large, seen, FABRIC)) == {}) is is_enough


BIRDS_DROP_INS = "/etc/systemd/system/bird.service.d"


def test_a_drop_in_that_changes_a_setting_is_named() -> None:
    path = f"{BIRDS_DROP_INS}/override.conf"

    def change(seen: dict[str, Any]) -> None:
        seen["units"]["bird.service"] |= {
            "KillSignal": "15",
            "DropInPaths": " ".join(
                [f"{BIRDS_DROP_INS}/zz-l3hv-hardening.conf", f"{BIRDS_DROP_INS}/zz-l3hv.conf", path]
            ),
        }

    found = different(compared(LAB["hv1"], seen_with("hv1", change), FABRIC))
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
    checks = {check.what: check for check in compared(LAB["hv1"], seen, FABRIC)}
    assert (checks["guest vm1"].state, checks["guest vm1"].found) == ("warning", "without carrier")
    assert not [what for what in checks if what.startswith(("port vm1", "lease vm1", "networkd vm1"))]
    assert "route 203.0.113.1/32 in public" not in checks

"""The policy rules of each kind of host, in the notation of ip-rule(8)."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from intents import COMMON, common_of, intents

from l3hv.model.choices import Kind
from l3hv.model.plan import Rule
from l3hv.plan.anycast import DomainAnycast
from l3hv.plan.rules import MAIN_PRIORITY, policy_rules


def written(rule: Rule) -> str:
    words = (
        ("iif", rule.iif),
        ("from", rule.source),
        ("to", rule.destination),
        ("fwmark", rule.mark),
        ("ipproto", rule.ip_protocol),
        ("sport", rule.source_port),
        ("lookup", rule.table or "[l3mdev-table]"),
        ("suppress_prefixlength", rule.suppress_prefixlength),
    )
    return " ".join(f"{word} {value}" for word, value in words if value is not None)


def rules(kind: Kind, family: str, common: dict[str, Any] | None = None, **variables: Any) -> list[str]:
    parsed = common_of(COMMON | (common or {}))
    own: dict[str, Any] = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}} | variables
    if kind == "route_reflector":
        own["l3hv_uplinks"] = {"a": "eno1"}
    host = intents({"x": (kind, own)}, parsed)["x"]
    return [written(rule) for rule in policy_rules(parsed, host) if rule.family == family]


PRIVATE = {"table": 20, "vlan": 20, "loopbacks": {"ipv4": "172.22.0.0/16", "ipv6": "2001:db8:22::/64"}}
SERVICES = {
    "domain": "private",
    "ipv4": "10.64.0.0/16",
    "gateway": "10.64.0.1",
    "ipv6": "2001:db8:64::/48",
}
SIX = {
    "l3hv_domains": COMMON["l3hv_domains"] | {"private": PRIVATE},
    "l3hv_paths": {
        "a": COMMON["l3hv_paths"]["a"] | {"private": {"ipv4": "172.16.0.0/18", "ipv6": "2001:db8:16::/64"}},
        "b": COMMON["l3hv_paths"]["b"],
    },
    "l3hv_pools": COMMON["l3hv_pools"] | {"services": SERVICES},
}


ERRORS = (
    "iif lo from 10.0.0.0/12 ipproto 1 lookup public",
    "iif lo from 198.18.0.0/18 ipproto 1 lookup public",
    "iif lo from 198.18.64.0/18 ipproto 1 lookup public",
)
"""The rules for ICMP errors about public packets, from gateways of pools and from addresses on paths."""


def test_hypervisor_ipv4():
    assert rules("hypervisor", "ipv4") == [
        "iif lo lookup main",
        "iif lo to 10.0.0.0/12 ipproto 17 sport 67 lookup public",
        "iif lo to 10.64.0.0/16 ipproto 17 sport 67 lookup private",
        *ERRORS,
        "iif lo lookup local-out",
        "iif eno1.20 lookup private",
        "iif eno2.20 lookup private",
        "from 10.64.0.0/16 lookup private",
        "lookup public",
    ]


def test_hypervisor_ipv4_with_a_default_route_in_main():
    assert rules("hypervisor", "ipv4", l3hv_main_default_route=True) == [
        "iif lo lookup main suppress_prefixlength 0",
        "iif lo to 10.0.0.0/12 ipproto 17 sport 67 lookup public",
        "iif lo to 10.64.0.0/16 ipproto 17 sport 67 lookup private",
        *ERRORS,
        "iif lo to 10.0.0.0/12 lookup local-out",
        "iif lo to 10.64.0.0/16 lookup local-out",
        "iif lo to 172.22.0.0/16 lookup local-out",
        "iif lo lookup main",
        "iif lo lookup local-out",
        "iif eno1.20 lookup private",
        "iif eno2.20 lookup private",
        "from 10.64.0.0/16 lookup private",
        "lookup public",
    ]


def test_hypervisor_ipv6():
    assert rules("hypervisor", "ipv6") == ["lookup main", "lookup public"]


def test_hypervisor_ipv6_with_private():
    assert rules("hypervisor", "ipv6", SIX) == [
        "lookup main",
        "iif lo to 2001:db8:64::/48 lookup private",
        "iif lo to 2001:db8:22::/64 lookup private",
        "iif eno1.20 lookup private",
        "iif eno2.20 lookup private",
        "from 2001:db8:64::/48 lookup private",
        "lookup public",
    ]


def test_hypervisor_ipv6_with_private_and_a_default_route_in_main():
    assert rules("hypervisor", "ipv6", SIX, l3hv_main_default_route=True) == [
        "lookup main suppress_prefixlength 0",
        "iif lo to 2001:db8:8000::/33 lookup public",
        "iif lo to 2001:db8:64::/48 lookup private",
        "iif lo to 2001:db8:22::/64 lookup private",
        "iif lo lookup main",
        "iif eno1.20 lookup private",
        "iif eno2.20 lookup private",
        "from 2001:db8:64::/48 lookup private",
        "lookup public",
    ]


@pytest.mark.parametrize("kind", ["hypervisor", "edge_router"])
@pytest.mark.parametrize("default", [False, True])
def test_rules_with_protocol_or_port_match_only_packets_of_the_host(kind: Kind, default: bool):
    """A rule for a protocol or port without `iif lo` makes the kernel dissect all forwarded packets."""
    common = common_of(COMMON)
    uplinks = {"a": "eno1", "b": "eno2"}
    variables = {"l3hv_id": 1, "l3hv_uplinks": uplinks, "l3hv_main_default_route": default}
    for rule in policy_rules(common, intents({"x": (kind, variables)}, common)["x"]):
        is_plain = rule.ip_protocol is None and rule.source_port is None
        assert is_plain or rule.iif == "lo"


def test_edge_router_with_public_only():
    assert rules("edge_router", "ipv4") == ["iif lo lookup main", "lookup public"]
    assert rules("edge_router", "ipv6") == ["lookup main", "lookup public"]


def test_edge_router_with_public_and_private():
    assert rules("edge_router", "ipv4", l3hv_edge_domains=["public", "private"]) == [
        "iif lo lookup main",
        "iif lo to 10.64.0.0/16 lookup private",
        "iif lo to 172.22.0.0/16 lookup private",
        "iif eno1.20 lookup private",
        "iif eno2.20 lookup private",
        "lookup public",
    ]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_reflectors_have_no_policy_rules(family):
    assert rules("route_reflector", family) == []


def test_without_a_private_domain_no_rule_uses_a_private_table():
    common = {
        "l3hv_domains": {"public": COMMON["l3hv_domains"]["public"]},
        "l3hv_paths": {"a": {"public": {"ipv4": "198.51.100.0/24", "ipv6": "2001:db8:a::/64"}}},
        "l3hv_pools": {},
    }
    assert rules("hypervisor", "ipv4", common, l3hv_uplinks={"a": "eno1"}) == [
        "iif lo lookup main",
        "iif lo from 198.51.100.0/24 ipproto 1 lookup public",
        "iif lo lookup local-out",
        "lookup public",
    ]


def test_a_hypervisor_with_private_uplinks_only_has_no_rule_of_the_public_table():
    uplinks = {"a": {"private": "eno1"}, "b": {"private": "eno2"}}
    assert not [rule for rule in rules("hypervisor", "ipv4", l3hv_uplinks=uplinks) if "public" in rule]


def test_priorities_are_consecutive_and_below_the_kernels_own():
    common = common_of(COMMON | {"l3hv_rule_priority": 32660})
    variables = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}}
    found = policy_rules(common, intents({"x": ("hypervisor", variables)}, common)["x"])
    assert [rule.priority for rule in found if rule.family == "ipv4"] == [
        32660,
        32670,
        32680,
        32690,
        32700,
        32710,
        32720,
        32730,
        32740,
        32750,
        32760,
    ]
    assert all(rule.priority < MAIN_PRIORITY and rule.why for rule in found)


def vrf_rules(family: str, common: dict[str, Any] | None = None, **variables: Any) -> list[str]:
    return rules("hypervisor", family, common, l3hv_data_plane="vrf", **variables)


def test_hypervisor_with_vrfs():
    assert vrf_rules("ipv4") == ["lookup [l3mdev-table]", "iif lo lookup main", "iif lo lookup local-out"]
    assert vrf_rules("ipv6") == ["lookup [l3mdev-table]", "lookup main", "iif lo lookup public"]


def test_the_number_of_rules_with_vrfs_depends_neither_on_paths_nor_on_prefixes():
    more_paths = {
        name: {
            "public": {"ipv4": f"198.19.{number}.0/24", "ipv6": f"2001:db8:{number}::/112"},
            "private": {"ipv4": f"172.17.{number}.0/24"},
        }
        for number, name in enumerate("abcd")
    }
    more_pools = {
        f"pool{number}": {
            "domain": ("public", "private")[number % 2],
            "ipv4": f"10.{number}.0.0/16",
            "gateway": f"10.{number}.0.1",
        }
        for number in range(20)
    }
    more = {"l3hv_paths": more_paths, "l3hv_pools": more_pools}
    uplinks = {name: f"eno{number}" for number, name in enumerate("abcd")}
    for family in ("ipv4", "ipv6"):
        assert vrf_rules(family, more, l3hv_uplinks=uplinks) == vrf_rules(family)
        assert len(rules("hypervisor", family, more, l3hv_uplinks=uplinks)) >= len(
            rules("hypervisor", family)
        )
    # The data plane of policy rules needs one for each, so the comparison above can fail.
    assert len(rules("hypervisor", "ipv4", more, l3hv_uplinks=uplinks)) > 40


def test_priorities_with_vrfs_are_around_the_kernels_rule():
    common = common_of(COMMON)
    variables = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}, "l3hv_data_plane": "vrf"}
    host = intents({"x": ("hypervisor", variables)}, common)["x"]
    marked = DomainAnycast(common.public, "ipv4", {IPv4Network("192.0.2.1/32"): 2})
    found = [rule for rule in policy_rules(common, host, (marked,)) if rule.family == "ipv4"]
    assert [(rule.priority, rule.table) for rule in found] == [
        (990, "public-spread"),
        (1000, None),
        (1010, "main"),
        (1020, "local-out"),
    ]


def test_only_hypervisors_have_vrfs():
    for kind in ("edge_router", "route_reflector"):
        assert rules(kind, "ipv4", l3hv_data_plane="vrf") == rules(kind, "ipv4")


def test_a_link_local_gateway_is_no_source_of_public_errors():
    pools = {"customers": {"ipv4": "10.0.0.0/12", "gateway": "link_local"}}
    found = rules("hypervisor", "ipv4", {"l3hv_pools": pools})
    assert [rule for rule in found if "ipproto 1 " in rule] == list(ERRORS[1:])
    assert "iif lo to 10.0.0.0/12 ipproto 17 sport 67 lookup public" in found


@pytest.mark.parametrize("plane", ["rules", "vrf"])
def test_a_relay_reaches_its_servers_in_the_private_domain(plane: str):
    """With a default route in `main`, the messages would leave by the management network."""
    relay: dict[str, Any] = {
        "l3hv_dhcp": "relay",
        "l3hv_dhcp_servers": ["172.31.0.53"],
        "l3hv_data_plane": plane,
    }
    found = rules("hypervisor", "ipv4", l3hv_main_default_route=True, **relay)
    servers = found.index("iif lo to 172.31.0.53/32 lookup local-out")
    assert servers < found.index("iif lo lookup main")
    assert not [rule for rule in rules("hypervisor", "ipv4", **relay) if "172.31.0.53" in rule]

"""Differences of each design of docs/designs.md: each is named, and no other check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import as_planned
import pytest
from breaks import added, with_value, without
from fabrics import design
from in_words import compared

from l3hv.plan.announcements import announcements
from l3hv.verify.fabric import Fabric
from l3hv.verify.report.entry import Entry

DESIGNS = {
    name: design(name)
    for name in ("vrf", "dhcp-relay", "ndp-proxy", "link-local-gateway", "mesh", "blocks", "igp")
}
DESIGNS["none"] = design("lab", hv1={"l3hv_dhcp": "none"})
HOSTS = [(name, host) for name, plans in DESIGNS.items() for host in plans]


def looked_at(name: str, host: str, *changes: Callable[[dict[str, Any]], Any]) -> list[Entry]:
    """Return the checks of a host of a design that is as planned but for some changes."""
    plans = DESIGNS[name]
    fabric = Fabric({each: announcements(plan) for each, plan in plans.items()})
    seen = as_planned.observation(plans[host], fabric)
    for change in changes:
        change(seen)
    return compared(plans[host], seen, fabric)


def failed(checks: list[Entry]) -> dict[str, str]:
    """Return the findings of failed checks."""
    return {check.what: check.found for check in checks if check.state == "failed"}


@pytest.mark.parametrize(("name", "host"), HOSTS)
def test_a_host_as_planned_has_no_difference(name: str, host: str) -> None:
    assert [check.sentence for check in looked_at(name, host) if check.state != "ok"] == []


def stopped(unit: str) -> Callable[[dict[str, Any]], Any]:
    """Return the change that stops a unit."""
    return with_value("inactive", "units", f"{unit}.service", "ActiveState")


L3MDEV = "[l3mdev-table]"
OF_HV2 = ("routing", "sessions", "hv2_a_public", "channels", "ipv4")
LEFT = as_planned.rule(990, 90, iif="public", protocol=99)
DIFFERENCES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], set[str]]] = {
    # VRFs.
    "an uplink outside of its VRF": (
        "vrf",
        with_value(None, "links", "a-public", "master"),
        {"link a-public"},
    ),
    "an uplink in another VRF": (
        "vrf",
        with_value("private", "links", "a-public", "master"),
        {"link a-public"},
    ),
    "a port outside of its VRF": ("vrf", with_value(None, "links", "vm1", "master"), {"port vm1 link"}),
    "a missing rule of VRFs": ("vrf", without("rules", "ipv4", 1), {"rules ipv4"}),
    "a rule of VRFs for another table": ("vrf", with_value(90, "rules", "ipv6", 1, "table"), {"rules ipv6"}),
    "a rule of another program for a VRF": ("vrf", added(LEFT, "rules", "ipv4"), {"rules ipv4"}),
    "a connected prefix that is not in its VRF": (
        "vrf",
        without("routes", "public ipv4", 0),
        {"route 198.51.100.0/25 in public"},
    ),
    "a connected prefix in main": (
        "vrf",
        added(
            as_planned.route("198.51.100.0/25", "a-public", protocol=as_planned.KERNEL), "routes", "main ipv4"
        ),
        {"route 198.51.100.0/25 in main"},
    ),
    "a setting for sockets outside of VRFs": (
        "vrf",
        with_value("0", "sysctls", "net.ipv4.udp_l3mdev_accept"),
        {"sysctl net.ipv4.udp_l3mdev_accept"},
    ),
    # The DHCP relay.
    "a relay that does not run": ("dhcp-relay", stopped("l3hv-dhcp-relay"), {"unit l3hv-dhcp-relay"}),
    "a relay with other rights": (
        "dhcp-relay",
        with_value("cap_net_raw", "units", "l3hv-dhcp-relay.service", "CapabilityBoundingSet"),
        {"unit l3hv-dhcp-relay settings"},
    ),
    "a relay that listens elsewhere": (
        "dhcp-relay",
        added("tcp 53", "listeners", "l3hv-dhcp-relay.service"),
        {"listeners l3hv-dhcp-relay"},
    ),
    "another address by the relay": (
        "dhcp-relay",
        with_value("203.0.113.77", "offers", "vm1", "lease", "address"),
        {"lease vm1"},
    ),
    "no answer by the relay": ("dhcp-relay", with_value(None, "offers", "vm1", "lease"), {"lease vm1"}),
    # Shared /64s.
    "an NDP proxy that does not run": ("ndp-proxy", stopped("l3hv-ndp-proxy"), {"unit l3hv-ndp-proxy"}),
    "an NDP proxy that runs an older file": (
        "ndp-proxy",
        with_value("ndp-proxy runs an older file", "services", "l3hv-ndp-proxy.service"),
        {"configuration of l3hv-ndp-proxy"},
    ),
    "an NDP proxy with other rights": (
        "ndp-proxy",
        with_value("cap_net_admin", "units", "l3hv-ndp-proxy.service", "CapabilityBoundingSet"),
        {"unit l3hv-ndp-proxy settings"},
    ),
    "a shared prefix that is not on-link": (
        "ndp-proxy",
        with_value(False, "offers", "vm1", "router", "prefixes", 0, "on_link"),
        {"ra vm1"},
    ),
    "a route to an address in a shared prefix": (
        "ndp-proxy",
        lambda seen: seen["routes"]["public ipv6"].remove(
            next(route for route in seen["routes"]["public ipv6"] if route["prefix"].endswith("fe00:7/128"))
        ),
        {"route 2001:db8:cb00:7100:5254:33ff:fe00:7/128 in public"},
    ),
    # Link-local gateways.
    "a lease with the mask of the pool": (
        "link-local-gateway",
        with_value("255.255.255.128", "offers", "vm1", "lease", "netmask"),
        {"lease vm1"},
    ),
    "a lease without the route to the gateway": (
        "link-local-gateway",
        without("offers", "vm1", "lease", "routes", 0),
        {"lease vm1"},
    ),
    "a port without the link-local gateway": (
        "link-local-gateway",
        without("addresses", "vm1", 0),
        {"port vm1 addresses"},
    ),
    # A mesh.
    "a host of the mesh that has lost its session": (
        "mesh",
        with_value("Active", "routing", "sessions", "hv2_a_public", "state"),
        {"session hv2_a_public"},
    ),
    "a host of the mesh that announces too little": (
        "mesh",
        with_value(0, *OF_HV2, "routes", "imported"),
        {"received hv2_a_public ipv4"},
    ),
    "a path of the mesh that carries too small packets": (
        "mesh",
        with_value(1400, "sizes", "a-public 198.51.100.2"),
        {"size a to hv2 public ipv4"},
    ),
    # An IGP.
    "a session between loopbacks that is lost": (
        "igp",
        with_value("Active", "routing", "sessions", "rr1_shared", "state"),
        {"session rr1_shared"},
    ),
    "a lost neighbour of the IGP that is a reflector": (
        "igp",
        lambda seen: seen["routing"]["bfd"].remove(
            next(each for each in seen["routing"]["bfd"] if each["address"] == "198.51.100.126")
        ),
        {"bfd rr1 a public ipv4", "igp a public ipv4"},
    ),
    "a lost neighbour of the IGP": (
        "igp",
        lambda seen: seen["routing"]["bfd"].remove(
            next(each for each in seen["routing"]["bfd"] if each["address"] == "fe80::9")
        ),
        {"igp a public ipv6"},
    ),
    "a daemon that does not listen for the IGP": (
        "igp",
        lambda seen: seen["listeners"]["bird.service"].remove("udp 521"),
        {"listeners bird"},
    ),
    "an uplink without its link-local address": (
        "igp",
        lambda seen: seen["addresses"]["a-public"].remove(as_planned.address("fe80::1:0:1/64")),
        {"addresses a-public"},
    ),
    "a missing route to loopbacks that the IGP lost": (
        "igp",
        lambda seen: seen["routes"]["main ipv4"].remove(
            next(each for each in seen["routes"]["main ipv4"] if each["metric"] == 4097)
        ),
        {"route 192.0.2.128/25 in main"},
    ),
    "a path of the IGP that carries too small packets": (
        "igp",
        with_value(1400, "sizes", "b-private 172.22.15.253"),
        {"size b to rr2 private ipv4"},
    ),
    # Blocks.
    "a block whose unused addresses are not dropped": (
        "blocks",
        lambda seen: seen["routes"]["public ipv4"].remove(
            next(route for route in seen["routes"]["public ipv4"] if route["prefix"] == "203.0.113.0/26")
        ),
        {"last resort of public ipv4 for 203.0.113.0/26"},
    ),
    "a block that is not advertised": (
        "blocks",
        with_value(1, "routing", "sessions", "rr1_public", "channels", "ipv4", "routes", "exported"),
        {"sent rr1_public ipv4"},
    ),
    "blocks of others that are not received": (
        "blocks",
        with_value(3, "routing", "sessions", "rr1_public", "channels", "ipv4", "routes", "imported"),
        {"received rr1_public ipv4"},
    ),
    "a guest that is advertised besides its block": (
        "blocks",
        with_value(3, "routing", "sessions", "rr1_public", "channels", "ipv4", "routes", "exported"),
        {"sent rr1_public ipv4"},
    ),
}


def test_a_loopback_without_a_path_is_named() -> None:
    """The kernel's routes are listed if their digest differs: one loopback has lost a next hop."""
    plans = DESIGNS["igp"]
    fabric = Fabric({each: announcements(plan) for each, plan in plans.items()})
    table = next(table for table in plans["hv1"].routing.tables if table.name == "public4")
    routes = fabric.routes(plans["hv1"], table) | {"192.0.2.130/32": ["198.51.100.130"]}
    checks = looked_at("igp", "hv1", with_value(as_planned.listed(routes), "learned", "public4"))
    assert failed(checks)["route 192.0.2.130/32 in public"] == "via 198.51.100.130"


def test_a_stranger_that_calls_a_host_of_a_mesh_is_a_warning() -> None:
    change = with_value(2, "unknown_callers", "198.51.100.9")
    warned = [check for check in looked_at("mesh", "hv1", change) if check.state == "warning"]
    assert [check.what for check in warned] == ["stranger 198.51.100.9"]


@pytest.mark.parametrize(("name", "change", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_each_difference_is_named(
    name: str, change: Callable[[dict[str, Any]], Any], expected: set[str]
) -> None:
    assert failed(looked_at(name, "hv1", change)).keys() == expected


def test_a_guest_with_a_fixed_address_may_get_no_prefix_of_which_it_makes_addresses() -> None:
    """Such an address would be dropped: the guest has one address in the /64."""
    assert failed(looked_at("ndp-proxy", "hv3")) == {}
    change = with_value(True, "offers", "vm4", "router", "prefixes", 0, "autonomous")
    assert failed(looked_at("ndp-proxy", "hv3", change)).keys() == {"ra vm4"}


def test_other_options_of_a_server_elsewhere_are_not_compared() -> None:
    """The plan has no options of the servers that a relay asks."""
    change = with_value(["192.0.2.99"], "offers", "vm1", "lease", "dns")
    assert failed(looked_at("dhcp-relay", "hv1", change)) == {}


def test_the_remedy_of_a_relayed_lease_names_the_relay_and_the_servers() -> None:
    change = with_value("203.0.113.77", "offers", "vm1", "lease", "address")
    (check,) = [each for each in looked_at("dhcp-relay", "hv1", change) if each.state == "failed"]
    assert (check.expected, check.found) == ("203.0.113.1", "203.0.113.77")
    assert check.remedy == "journalctl -u l3hv-dhcp-relay; look at the log and the guests of the DHCP servers"


def test_without_dhcp_no_lease_is_expected() -> None:
    change = with_value(None, "offers", "vm1", "lease")
    assert failed(looked_at("none", "hv1", change)) == {}
    names = {check.what for check in looked_at("none", "hv1")}
    assert "unit radvd" in names
    assert not [
        what for what in names if what.startswith(("lease ", "unit l3hv-dhcp", "listeners l3hv-dhcp"))
    ]

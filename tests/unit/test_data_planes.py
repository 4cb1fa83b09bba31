"""The parts of a hypervisor's plan that VRFs, shared /64s and link-local gateways change."""

from __future__ import annotations

from typing import Any

import pytest
from intents import COMMON, common_of, fabric, intents, slices

from l3hv.model.plain import as_plain
from l3hv.model.plan import GuestPlan, HostPlan
from l3hv.plan.host import host_plan
from l3hv.plan.machines import topology
from l3hv.render.summary import plan_summary

POOLS: dict[str, Any] = {
    **COMMON["l3hv_pools"],
    "shared": {
        "ipv4": "203.0.113.0/25",
        "gateway": "link_local",
        "ipv6": "2001:db8:7200::/64",
        "ipv6_mode": "address",
        "dns": ["2001:db8:53::53"],
    },
}
MAC = "52:54:00:00:00:07"
FROM_MAC = "2001:db8:7200:0:5054:ff:fe00:7"


def plan_of(guests: list[dict[str, Any]] | None = None, **variables: Any) -> HostPlan:
    """Return the plan of a hypervisor with two paths and two domains."""
    own = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}, "l3hv_guests": guests or [], **variables}
    hosts = fabric(0) | {"hv1": ("hypervisor", own)}
    return host_plan(slices(hosts, common_of(COMMON | {"l3hv_pools": POOLS}))["hv1"])


def guest_of(**guest: Any) -> GuestPlan:
    """Return the plan of a guest."""
    return plan_of([{"name": "vm1", "mac": MAC, **guest}]).guests[0]


GUESTS = [
    {"name": "vm1", "mac": "52:54:00:00:00:01", "ipv4": "10.0.0.2"},
    {"name": "vm2", "mac": "52:54:00:00:00:02", "domain": "private", "ipv4": "10.64.0.2"},
]


def test_each_domain_is_a_vrf_with_the_domains_table():
    plan = plan_of(GUESTS, l3hv_data_plane="vrf")
    assert [(vrf.name, vrf.table) for vrf in plan.vrfs] == [("public", 90), ("private", 20)]
    assert all(uplink.vrf == uplink.domain for uplink in plan.uplinks)
    assert all(session.vrf == session.domain for session in plan.routing.sessions)
    assert {guest.name: guest.vrf for guest in plan.guests} == {"vm1": "public", "vm2": "private"}


def test_a_hypervisor_has_no_vrf_of_a_domain_without_uplinks():
    uplinks = {"a": {"public": "eno1"}, "b": {"public": "eno2"}}
    assert [vrf.name for vrf in plan_of(l3hv_data_plane="vrf", l3hv_uplinks=uplinks).vrfs] == ["public"]


def test_without_vrfs_nothing_belongs_to_one():
    plan = plan_of(GUESTS)
    named = [
        *(uplink.vrf for uplink in plan.uplinks),
        *(guest.vrf for guest in plan.guests),
        *(session.vrf for session in plan.routing.sessions),
    ]
    assert (plan.vrfs, set(named)) == ((), {None})


@pytest.mark.parametrize("isolated", [False, True])
def test_a_domain_with_a_filtered_port_does_not_open_all_interfaces(isolated: bool):
    filtered = plan_of([GUESTS[0] | {"port_isolation": isolated}, *GUESTS[1:]]).packet_filter
    opens = {domain.name: domain.opens_all_interfaces for domain in filtered.domains}
    assert opens == {"public": not isolated, "private": True}


def test_the_rest_of_the_packet_filter_is_the_same_with_vrfs():
    rules, vrfs = (plan_of(GUESTS, l3hv_data_plane=plane).packet_filter for plane in ("rules", "vrf"))
    assert [key for key in vars(rules) if getattr(rules, key) != getattr(vrfs, key)] == ["has_vrfs"]


def test_daemons_of_a_host_with_vrfs_get_the_packets_of_vrfs():
    rules, vrfs = (
        {sysctl.key: sysctl.value for sysctl in plan_of(l3hv_data_plane=plane).sysctls}
        for plane in ("rules", "vrf")
    )
    added = {"net.ipv4.tcp_l3mdev_accept": "1", "net.ipv4.udp_l3mdev_accept": "1"}
    assert vrfs == rules | added
    assert not rules.keys() & added


def test_a_machine_with_vrfs_needs_a_kernel_with_vrfs():
    own = {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1"}}
    hosts = intents(
        {
            "hv1": ("hypervisor", {**own, "l3hv_data_plane": "vrf"}),
            "hv2": ("hypervisor", {**own, "l3hv_id": 2}),
        }
    )
    assert {machine.name: machine.needs for machine in topology(hosts.values()).machines} == {
        "hv1": ("vrf",),
        "hv2": (),
    }


# Shared /64s.


def routes6(guest: GuestPlan) -> list[tuple[str, str | None]]:
    return [(route.prefix, route.via) for route in guest.routes if route.family == "ipv6"]


def test_the_address_in_a_shared_prefix_follows_from_the_mac():
    guest = guest_of(ipv4="203.0.113.7")
    assert guest.prefix is not None
    assert (guest.prefix.prefix, guest.prefix.autonomous, guest.prefix.on_link) == (
        guest.shared_prefix,
        True,
        True,
    )
    assert routes6(guest) == [(f"{FROM_MAC}/128", "fe80::5054:ff:fe00:7")]


def test_a_guest_with_an_address_of_its_intent_makes_none_itself():
    guest = guest_of(ipv4="203.0.113.7", ipv6="2001:db8:7200::7")
    assert guest.prefix is not None
    assert (guest.shared_prefix, guest.prefix.autonomous) == ("2001:db8:7200::/64", False)
    assert routes6(guest) == [("2001:db8:7200::7/128", "fe80::5054:ff:fe00:7")]


def test_a_guest_whose_address_is_that_of_its_mac_makes_it_itself():
    guest = guest_of(ipv4="203.0.113.7", ipv6=FROM_MAC)
    assert guest == guest_of(ipv4="203.0.113.7")


def test_a_guest_without_ipv6_shares_no_prefix():
    guest = guest_of(ipv4="203.0.113.7", ipv6=False)
    assert (guest.shared_prefix, guest.prefix, routes6(guest)) == (None, None, [])


@pytest.mark.parametrize(
    ("ipv6", "shared", "advertised"),
    [
        ("2001:db8:7200::7", "2001:db8:7200::/64", "2001:db8:7200::/64"),
        ("2001:db8:8000:7::/64", None, "2001:db8:8000:7::/64"),
    ],
)
def test_the_ipv6_of_a_guest_may_be_in_another_pool_than_its_ipv4(
    ipv6: str, shared: str | None, advertised: str
):
    private = {"domain": "public", "ipv4": "198.51.100.0/24", "gateway": "198.51.100.1"}
    own = {
        "l3hv_id": 1,
        "l3hv_uplinks": {"a": "eno1"},
        "l3hv_guests": [{"name": "vm1", "mac": MAC, "ipv4": "198.51.100.7", "ipv6": ipv6}],
    }
    common = common_of(COMMON | {"l3hv_pools": POOLS | {"only4": private}})
    guest = host_plan(slices({"hv1": ("hypervisor", own)}, common)["hv1"]).guests[0]
    assert guest.prefix is not None
    assert (guest.shared_prefix, guest.prefix.prefix) == (shared, advertised)


def test_reflectors_accept_only_single_addresses_of_a_shared_prefix():
    plan = plan_of()
    table = next(table for table in plan.routing.tables if table.name == "public6")
    accepted = [match for match in table.accepts if match.prefix == "2001:db8:7200::/64"]
    assert [(match.low, match.high) for match in accepted] == [(128, 128)]


def test_a_guest_of_a_shared_prefix_may_send_from_its_address_only():
    found = plan_of([{"name": "vm1", "mac": MAC, "ipv4": "203.0.113.7"}]).packet_filter
    assert found.sources6 == (("vm1", FROM_MAC),)
    assert (found.sender_networks6, found.source_prefixes6, found.on_link6) == ((), (), ())


# Link-local gateways.


def test_a_link_local_gateway_is_on_the_port_and_the_lease_names_the_pool():
    plan = plan_of([{"name": "vm1", "mac": MAC, "ipv4": "203.0.113.0"}])
    guest, (pool,) = plan.guests[0], plan.dhcp_pools
    assert guest.lease is not None
    assert [(own.address, own.length) for own in guest.addresses if own.family == "ipv4"] == [
        ("169.254.1.1", 32)
    ]
    assert guest.lease.pool == pool.name
    assert pool.has_link_local_gateway
    assert (pool.netmask, pool.guest_netmask) == ("255.255.255.128", "255.255.255.255")
    assert pool.routes == (("169.254.1.1/32", "0.0.0.0"), ("0.0.0.0/0", "169.254.1.1"))


def test_guests_may_ask_for_a_link_local_gateway_by_arp():
    filtered = {domain.name: domain.pools4 for domain in plan_of().packet_filter.domains}
    assert "169.254.1.1/32" in filtered["public"]
    assert "169.254.1.1/32" not in filtered["private"]


def test_no_address_of_a_pool_with_a_link_local_gateway_is_reserved():
    """Reflectors refuse the gateway, network and broadcast address of a subnet only."""
    hosts = fabric(1)
    common = common_of(COMMON | {"l3hv_pools": POOLS})
    reserved = {
        match.prefix
        for source in host_plan(slices(hosts, common)["rr1"]).routing.policies
        for match in source.reserved
    }
    assert "10.0.0.0/32" in reserved
    assert not {prefix for prefix in reserved if prefix.startswith("203.0.113.")}


@pytest.mark.parametrize(
    ("pool", "address"), [("198.51.100.5/32", "198.51.100.5"), ("198.51.100.4/31", "198.51.100.5")]
)
def test_a_pool_with_a_link_local_gateway_may_be_of_any_size(pool: str, address: str):
    own = {
        "l3hv_id": 1,
        "l3hv_uplinks": {"a": "eno1"},
        "l3hv_guests": [{"name": "vm1", "mac": MAC, "ipv4": address}],
    }
    common = common_of(COMMON | {"l3hv_pools": {"small": {"ipv4": pool, "gateway": "link_local"}}})
    (guest,) = host_plan(slices({"hv1": ("hypervisor", own)}, common)["hv1"]).guests
    assert guest.lease is not None
    assert (guest.lease.address, guest.lease.pool) == (address, "small")


# The summary for operators.


def test_the_summary_shows_vrfs_relays_and_shared_prefixes():
    guests = [{"name": "vm1", "mac": MAC, "ipv4": "203.0.113.7"}]
    relay = {"l3hv_dhcp": "relay", "l3hv_dhcp_servers": ["172.31.0.53"]}
    lines = plan_summary(as_plain(plan_of(guests, l3hv_data_plane="vrf", **relay))).splitlines()
    vrfs = lines.index("VRFs")
    assert lines[vrfs + 1 : vrfs + 3] == ["  public   table 90", "  private  table 20"]
    assert "ipv4 1000 lookup the table of the VRF # packets of a VRF" in {
        " ".join(line.split()) for line in lines
    }
    start = lines.index("DHCP relay")
    assert [line.split() for line in lines[start + 1 : start + 3]] == [
        ["from", "172.22.0.1", "to", "172.31.0.53"],
        ["vm1", "203.0.113.7", "gateway", "169.254.1.1", "link", "203.0.113.7"],
    ]
    shared = lines.index("Shared /64s, answered by the NDP proxy")
    assert lines[shared + 1].split() == ["vm1", "2001:db8:7200::/64"]


def test_the_summary_of_a_host_without_them_has_no_empty_headings():
    text = plan_summary(as_plain(plan_of(GUESTS)))
    assert not [heading for heading in ("VRFs", "DHCP relay", "Shared /64s") if heading in text]

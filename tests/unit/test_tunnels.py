"""Tunnels between hosts that share no L2 network (docs/fabric-designs.md)."""

from __future__ import annotations

from typing import Any

import pytest
from intents import COMMON, common_of, fabric, hypervisor, intents, slices

from l3hv.model.plan import HostPlan, Routing
from l3hv.plan.host import host_plan
from l3hv.plan.machines import topology

ROUTERS = {
    "a": {"public": {"ipv4": "198.18.0.1/26", "ipv6": "2001:db8:a::1/122"}},
    "b": {"private": {"ipv4": "172.16.64.30/32"}},
}


def hosts(count: int, **variables: Any) -> dict[str, Any]:
    """Return a fabric in which the first hypervisor has routers and ``variables``."""
    made = fabric(count)
    kind, own = made["hv1"]
    return made | {"hv1": (kind, own | {"l3hv_id": 7, "l3hv_routers": ROUTERS} | variables)}


def plans(encapsulation: Any = "ipip", count: int = 2, **variables: Any) -> dict[str, HostPlan]:
    common = common_of(COMMON | {"l3hv_encapsulation": encapsulation})
    found = slices(hosts(count, **variables), common)
    return {name: host_plan(host_slice) for name, host_slice in found.items()}


def tables(routing: Routing) -> dict[str, list[tuple[str, str, bool]]]:
    return {
        table.family: [(route.prefix, route.interface, route.onlink) for route in table.routes]
        for table in routing.next_hop_tables
    }


def test_without_encapsulation_there_are_no_tunnels():
    found = slices(fabric(1), common_of(COMMON))
    for host_slice in found.values():
        plan = host_plan(host_slice)
        assert (plan.tunnels, plan.routing.hops, plan.routing.next_hop_tables) == ((), None, ())
        assert plan.packet_filter.least_ttl == 255
        assert "outer" not in [reason.name for reason in plan.packet_filter.reasons]


def test_a_reflector_has_sessions_over_several_hops_and_no_tunnels():
    plan = plans()["rr1"]
    assert plan.tunnels == ()
    assert plan.routing.hops == 2
    assert all(channel.next_hop_table is None for s in plan.routing.sessions for channel in s.channels)


def test_each_path_domain_and_family_has_a_device_with_the_hosts_own_address():
    plan = plans()["hv1"]
    assert [(t.interface, t.kind, t.local, t.mtu) for t in plan.tunnels] == [
        ("ipip-a-public", "ipip", "198.18.0.7", 1480),
        ("ip6-a-public", "ip6tnl", "2001:db8:a::7", 1460),
        ("ipip-a-private", "ipip", "172.16.0.7", 1480),
        ("ipip-b-public", "ipip", "198.18.64.7", 1480),
        ("ip6-b-public", "ip6tnl", "2001:db8:b::7", 1460),
        ("ipip-b-private", "ipip", "172.16.64.7", 1480),
    ]
    assert {guest.mtu for guest in plan.guests} == {1460}


def test_packets_from_private_tunnels_use_the_private_table():
    plan = plans()["hv1"]
    assert {rule.iif for rule in plan.rules if rule.table == "private" and rule.iif not in (None, "lo")} == {
        "eno1.20",
        "eno2.20",
        "ipip-a-private",
        "ipip-b-private",
    }


@pytest.mark.parametrize(("encapsulation", "untunnelled"), [(False, False), (True, True)])
def test_hosts_of_the_same_subnet_are_reached_by_the_uplink_if_this_is_set(
    encapsulation: bool, untunnelled: bool
):
    plan = plans({"kind": "ipip", "only_other_subnets": encapsulation})["hv1"]
    routes = tables(plan.routing)["ipv4"]
    assert ("198.18.0.0/18", "ipip-a-public", True) in routes
    assert (("198.18.0.0/26", "eno1.90", False) in routes) == untunnelled
    # A host that is alone in its subnet reaches all others in tunnels.
    assert [interface for prefix, interface, _ in routes if prefix.startswith("172.16.64.")] == [
        "ipip-b-private"
    ]


def test_ipv6_next_hops_are_not_onlink():
    """Linux refuses it: "Nexthop has invalid gateway or device mismatch"."""
    routes = tables(plans()["hv1"].routing)["ipv6"]
    assert [onlink for _, _, onlink in routes] == [False, False]


def test_the_import_of_bird_2_sets_onlink_in_ipv4_only():
    for daemon, wanted in (("bird2", True), ("bird3", False)):
        plan = plans(l3hv_daemon=daemon)["hv1"]
        carried = [
            (channel.family, part.sets_onlink)
            for session in plan.routing.sessions
            for channel in session.channels
            for part in channel.carries
        ]
        assert set(carried) == {("ipv4", wanted), ("ipv6", False)}


def test_outer_packets_are_accepted_on_their_own_uplink_only():
    accepted = plans()["hv1"].packet_filter
    assert accepted.outer4[0] == ("eno1.90", "198.18.0.7", "198.18.0.0/18")
    assert len(accepted.outer4) == 4
    assert len(accepted.outer6) == 2


@pytest.mark.parametrize(("hops", "ttl"), [(1, 255), (2, 254), (5, 251)])
def test_the_least_ttl_follows_from_the_hops(hops: int, ttl: int):
    plan = plans({"kind": "ipip", "hops": hops})["hv1"]
    assert (plan.routing.hops, plan.packet_filter.least_ttl) == (hops, ttl)


def test_a_new_hypervisor_changes_no_other_with_reflectors():
    assert plans(count=2)["hv1"] == plans(count=3)["hv1"]


def test_a_subnet_of_one_address_is_that_of_the_uplink():
    uplinks = {uplink.interface: uplink for uplink in plans()["hv1"].uplinks}
    (alone,) = uplinks["eno2.20"].addresses
    assert (alone.prefix, alone.length) == ("172.16.64.7/32", 32)
    assert (alone.router, alone.beyond) == ("172.16.64.30", "172.16.64.0/18")
    (shared,) = uplinks["eno1.20"].addresses
    assert (shared.prefix, shared.router, shared.beyond) == ("172.16.0.0/18", None, None)


def test_the_twin_has_a_router_between_the_subnets():
    common = common_of(COMMON | {"l3hv_encapsulation": "ipip"})
    second = hypervisor(2) | {"l3hv_id": 70}
    second["l3hv_routers"] = {"a": {"public": {"ipv4": "198.18.0.65/26", "ipv6": "2001:db8:a::41/122"}}}
    made = hosts(2) | {"hv2": ("hypervisor", second)}
    found = topology(intents(made, common).values(), common)
    (public,) = [router for router in found.routers if router.name == "a-public"]
    assert [port.segment for port in public.ports] == ["a-public-198.18.0.0/26", "a-public-198.18.0.64/26"]
    assert public.ports[0].addresses == ("198.18.0.1/26", "2001:db8:a::1/122")
    (private,) = [router for router in found.routers if router.name == "b-private"]
    (port,) = private.ports
    assert (port.addresses, port.hosts) == (("172.16.64.30/32",), ("172.16.64.7/32",))
    assert {port.segment for port in public.ports} <= set(found.segments)
    assert {machine.name: machine.needs for machine in found.machines}["hv1"] == ("ipip", "ip6tnl")
    assert {machine.name: machine.needs for machine in found.machines}["rr1"] == ()

"""Declarations of hosts that the inventory does not manage, and their effect on neighbours."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from intents import COMMON, common_of, fabric, intents, slices

from l3hv.intent.claims import claims, clashes
from l3hv.model.plan import HostPlan, Session
from l3hv.plan.host import host_plan
from l3hv.plan.policy import REFUSALS

OTHERS: dict[str, Any] = {"l3hv_managed": False}


def plans(changes: dict[str, dict[str, Any]]) -> dict[str, HostPlan]:
    hosts = fabric(2)
    for name, variables in changes.items():
        kind, before = hosts[name]
        hosts[name] = (kind, before | variables)
    return {name: host_plan(part) for name, part in slices(hosts).items()}


def sessions_with(plan: HostPlan, peer: str) -> list[Session]:
    return [session for session in plan.routing.sessions if session.peer == peer]


def test_both_ends_of_a_session_use_a_declared_address() -> None:
    own = {"b": {"public": {"ipv4": "198.18.64.201", "ipv6": "2001:db8:b::c9"}}}
    planned = plans({"hv1": {"l3hv_path_addresses": own}})
    (client,) = (s for s in sessions_with(planned["hv1"], "rr2") if s.domain == "public")
    (reflector,) = (s for s in sessions_with(planned["rr2"], "hv1") if s.domain == "public")
    assert client.local == reflector.neighbor == "198.18.64.201"
    assert [channel.carries[0].own_next_hop for channel in client.channels] == [
        "198.18.64.201",
        "2001:db8:b::c9",
    ]
    assert [c.carries[0].accepted_next_hops for c in reflector.channels] == [
        "198.18.64.201/32",
        "2001:db8:b::c9/128",
    ]
    (uplink,) = (u for u in planned["hv1"].uplinks if (u.path, u.domain) == ("b", "public"))
    assert [address.address for address in uplink.addresses] == ["198.18.64.201", "2001:db8:b::c9"]
    assert [loopback.address for loopback in planned["hv1"].loopbacks] == ["172.22.0.1"]
    assert planned["hv1"].routing.router_id == "172.22.0.1"
    (on_a,) = (s for s in sessions_with(planned["hv1"], "rr1") if s.domain == "public")
    assert on_a.local == "198.18.0.1"


def test_a_declared_address_that_another_host_derives_from_its_id_is_refused() -> None:
    hosts = fabric(2)
    hosts["hv1"][1]["l3hv_path_addresses"] = {"b": {"public": {"ipv4": "198.18.64.2"}}}
    problems = clashes({name: claims(host) for name, host in intents(hosts).items()}, common_of())
    assert [str(problem) for problem in problems] == [
        "hv1: l3hv_path_addresses.b.public.ipv4: 198.18.64.2 has the host number 2 in 198.18.64.0/18, the id "
        "of hv2 (path b). Choose an address that no other host has, or another l3hv_id for hv2."
    ]


def test_the_ttl_check_is_off_only_for_the_neighbor_that_cannot_send_255() -> None:
    planned = plans({"edge": OTHERS | {"l3hv_ttl_security": False}})
    rr1 = planned["rr1"]
    assert {s.peer for s in rr1.routing.sessions if not s.ttl_security} == {"edge"}
    assert rr1.packet_filter.any_ttl4 == tuple((s.interface, s.neighbor) for s in sessions_with(rr1, "edge"))
    assert planned["hv1"].packet_filter.any_ttl4 == planned["hv1"].packet_filter.any_ttl6 == ()


@pytest.mark.parametrize(
    ("of_client", "of_reflector", "limits"),
    [
        ({}, {}, {"hv1": 128, "hv2": 128, "edge": None}),
        ({}, {"l3hv_prefix_limit": 500}, {"hv1": 500, "hv2": 500, "edge": None}),
        ({"l3hv_prefix_limit": 10000}, {"l3hv_prefix_limit": 500}, {"hv1": 10000, "hv2": 500, "edge": None}),
        ({"l3hv_prefix_limit": 3}, {}, {"hv1": 3, "hv2": 128, "edge": None}),
    ],
)
def test_the_prefix_limit_of_a_client_overrides_that_of_the_reflector(
    of_client: dict[str, Any], of_reflector: dict[str, Any], limits: dict[str, int | None]
) -> None:
    planned = plans({"hv1": of_client, "rr1": of_reflector})
    found = {
        session.peer: channel.limit and channel.limit.accepted
        for session in planned["rr1"].routing.sessions
        for channel in session.channels
    }
    assert found == limits


def test_an_edge_router_with_a_prefix_limit_is_limited() -> None:
    planned = plans({"edge": {"l3hv_prefix_limit": 10}})
    assert {
        c.limit.accepted for s in sessions_with(planned["rr1"], "edge") for c in s.channels if c.limit
    } == {10}


def test_reflectors_refuse_addresses_that_no_guest_can_have() -> None:
    """Test the gateway, network and broadcast addresses of a pool, and prefixes that contain one of them."""
    pool = ip_network(COMMON["l3hv_pools"]["customers"]["ipv4"])
    (policy,) = (
        policy
        for policy in plans({})["rr1"].routing.policies
        if (policy.table, policy.neighbors) == ("public4", "hypervisors")
    )
    reserved = {ip_network(match.prefix) for match in policy.reserved}
    assert all(match.low == match.high == ip_network(match.prefix).prefixlen for match in policy.reserved)
    unusable = [pool[0], pool[1], pool[-1]]
    assert reserved == {
        ip_network(f"{address}/{length}", strict=False)
        for address in unusable
        for length in range(pool.prefixlen + 1, 33)
    }
    assert "reserved" in {refusal.name for refusal in plans({})["rr1"].routing.refusals}
    assert [refusal.number for refusal in REFUSALS] == list(range(1, len(REFUSALS) + 1))


def test_reflectors_have_sessions_with_an_unmanaged_hypervisor() -> None:
    planned = plans({"hv1": OTHERS | {"l3hv_daemon": "frr"}, "rr1": {"l3hv_origin_validation": "strict"}})
    assert not planned["hv1"].managed
    (owner,) = (owner for owner in planned["rr1"].routing.owners if owner.host == "hv1")
    assert owner.ipv4 == (("10.0.0.2/32", 32),)
    assert len(sessions_with(planned["rr1"], "hv1")) == 2


@pytest.mark.parametrize(("profile", "is_warned"), [("bfd_llgr", True), ("llgr", True), ("bfd", False)])
def test_a_reflector_that_cannot_bound_the_restart_time_warns(profile: str, is_warned: bool) -> None:
    old = {"l3hv_system": "debian12"}
    planned = plans({"edge": OTHERS | {"l3hv_failure_profile": profile}, "rr1": old})
    warned = [text for text in planned["rr1"].warnings if "restart time" in text]
    assert bool(warned) == is_warned
    assert all("set l3hv_failure_profile: bfd for edge" in text for text in warned)
    assert [text for text in planned["rr2"].warnings if "restart time" in text] == []

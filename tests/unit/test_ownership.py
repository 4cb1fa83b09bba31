"""Prefixes that reflectors accept from hypervisors, and the parts of plans that change with guests."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from typing import Any

import pytest
from intents import fabric, slices

from l3hv.model.daemons import VALIDATING, WITH_ROA_TABLES
from l3hv.model.plan import HostPlan
from l3hv.plan.host import host_plan
from l3hv.plan.sessions import LEAST_PREFIX_LIMIT
from l3hv.verify.fabric import is_matched

STRICT: dict[str, Any] = {"l3hv_origin_validation": "strict"}


def plans(hypervisors: int, guests: int = 1, **reflector: Any) -> dict[str, HostPlan]:
    hosts = fabric(hypervisors, guests)
    for name in ("rr1", "rr2"):
        kind, variables = hosts[name]
        hosts[name] = (kind, variables | reflector)
    return {name: host_plan(part) for name, part in slices(hosts).items()}


def is_accepted(plan: HostPlan, peer: str, domain: str, prefix: str, next_hop: str) -> bool:
    """Return whether the policy of a session accepts an announcement without attributes."""
    family = "ipv6" if ":" in prefix else "ipv4"
    session = next(s for s in plan.routing.sessions if (s.peer, s.domain) == (peer, domain))
    (part,) = next(channel.carries for channel in session.channels if channel.family == family)
    policy = next(policy for policy in plan.routing.policies if policy.name == part.policy)
    if not ip_network(next_hop).subnet_of(ip_network(part.accepted_next_hops)):  # type: ignore[arg-type] # one family
        return False
    if prefix == part.loopback:
        return True
    owners = {(p, owner.id) for owner in plan.routing.owners for p, _ in owner.ipv4 + owner.ipv6}
    return is_matched(prefix, policy.accepts) and (not policy.checks_owner or (prefix, part.owner) in owners)


@pytest.mark.parametrize("validation", ["pool", "strict"])
@pytest.mark.parametrize("daemon", ["bird2", "frr", "gobgp", "junos"])
def test_reflectors_accept_all_announcements_of_the_plans(validation, daemon):
    made = plans(3, guests=2, l3hv_origin_validation=validation, l3hv_daemon=daemon)
    taken = 0
    for name, plan in made.items():
        for session in plan.routing.sessions if plan.kind != "route_reflector" else ():
            for channel in session.channels:
                table = next(table for table in plan.routing.tables if table.name == channel.table)
                next_hop = channel.own_next_hops[table.name]
                assert next_hop is not None
                for match in table.announces:
                    assert is_accepted(made[session.peer], name, session.domain, match.prefix, next_hop)
                    taken += 1
    assert taken > 20


@pytest.mark.parametrize(
    ("prefix", "domain", "next_hop", "in_pool", "in_strict"),
    [
        ("10.0.0.2/32", "public", "198.18.0.1", True, True),
        ("10.0.0.3/32", "public", "198.18.0.1", True, False),  # the address of a guest of hv2
        ("10.0.0.2/32", "public", "198.18.0.2", False, False),  # with the next hop of hv2
        ("10.0.0.2/31", "public", "198.18.0.1", True, False),
        ("10.0.0.0/12", "public", "198.18.0.1", False, False),  # the whole pool
        ("10.0.0.0/11", "public", "198.18.0.1", False, False),
        ("0.0.0.0/0", "public", "198.18.0.1", False, False),
        ("198.18.0.0/18", "public", "198.18.0.1", False, False),  # the path
        ("172.22.0.1/32", "public", "198.18.0.1", False, False),  # its loopback is private
        ("172.22.0.1/32", "private", "172.16.0.1", True, True),
        ("172.22.0.2/32", "private", "172.16.0.1", False, False),  # the loopback of hv2
        ("172.22.0.0/16", "private", "172.16.0.1", False, False),
        ("10.0.0.2/32", "private", "172.16.0.1", False, False),  # its guest is public
        ("2001:db8:8000:2::/64", "public", "2001:db8:a::1", True, True),
        ("2001:db8:8000:3::/64", "public", "2001:db8:a::1", True, False),
        ("2001:db8:8000:3::1/128", "public", "2001:db8:a::1", True, False),
        ("2001:db8:8000:3::/65", "public", "2001:db8:a::1", False, False),
        ("2001:db8:8000::/33", "public", "2001:db8:a::1", False, False),
    ],
)
def test_the_accepted_announcements_of_hv1(prefix, domain, next_hop, in_pool, in_strict):
    assert is_accepted(plans(2)["rr1"], "hv1", domain, prefix, next_hop) == in_pool
    for daemon in sorted(VALIDATING):
        made = plans(2, l3hv_daemon=daemon, **STRICT)
        assert is_accepted(made["rr1"], "hv1", domain, prefix, next_hop) == in_strict, daemon


def test_edge_routers_may_announce_default_routes_and_no_prefix_of_the_fabric():
    reflector = plans(1)["rr1"]
    assert is_accepted(reflector, "edge", "public", "0.0.0.0/0", "198.18.58.152")
    assert not is_accepted(reflector, "edge", "public", "0.0.0.0/0", "198.18.0.1")
    assert not is_accepted(reflector, "edge", "public", "10.0.0.2/32", "198.18.58.152")


def test_an_additional_guest_does_not_change_a_reflector_with_pool_validation():
    few, more = plans(2, guests=3), plans(2, guests=5)
    assert few["rr1"] == more["rr1"]
    assert few["rr1"].routing.owners == ()


def test_an_additional_guest_changes_one_table_of_a_strict_reflector():
    few, more = plans(2, guests=3, **STRICT)["rr1"], plans(2, guests=5, **STRICT)["rr1"]
    assert few.routing.owners != more.routing.owners
    routing = dataclasses.replace(more.routing, owners=few.routing.owners)
    assert dataclasses.replace(more, routing=routing) == few


@pytest.mark.parametrize("daemon", sorted(VALIDATING - WITH_ROA_TABLES))
def test_an_additional_guest_changes_one_prefix_list_of_a_strict_reflector_without_tables(daemon):
    few = plans(2, guests=3, l3hv_daemon=daemon, **STRICT)["rr1"].routing
    more = plans(2, guests=5, l3hv_daemon=daemon, **STRICT)["rr1"].routing
    assert few.owners == more.owners == ()
    assert (few.sessions, few.tables) == (more.sessions, more.tables)
    changed = {old.name for old, new in zip(few.policies, more.policies, strict=True) if old != new}
    assert changed == {f"accept_public{family}_of_hv{number}" for family in (4, 6) for number in (1, 2)}


def test_prefix_limits_have_room_for_twice_the_prefixes_and_grow_in_steps():
    def limits(guests: int, **reflector: object) -> set[tuple[int, int, str]]:
        made = plans(2, guests, **reflector)["rr1"]
        return {
            (channel.limit.accepted, channel.limit.remembered, channel.limit.action)
            for session in made.routing.sessions
            for channel in session.channels
            if channel.limit is not None
        }

    assert limits(1) == limits(40) == {(LEAST_PREFIX_LIMIT, 2 * LEAST_PREFIX_LIMIT, "block")}
    assert limits(100) == limits(120) == {(512, 1024, "block")}
    assert limits(100, l3hv_prefix_limit_margin=0, l3hv_prefix_limit_action="restart") == {
        (256, 512, "restart")
    }


def test_edge_routers_and_reflectors_have_no_prefix_limit():
    made = plans(1)
    for plan in made.values():
        for session in plan.routing.sessions:
            is_judged = made[session.peer].kind == "hypervisor"
            assert all((channel.limit is not None) == is_judged for channel in session.channels)

"""The parts of plans that a mesh and blocks of addresses change (docs/fabric-designs.md)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from intents import COMMON, common_of, fabric, slices

from l3hv.model.plan import HostPlan, Session
from l3hv.plan.host import host_plan
from l3hv.plan.warnings import LARGE_MESH


def plans_of(hosts: dict[str, Any], **variables: Any) -> dict[str, HostPlan]:
    """Return the plans of a fabric with other fabric-wide variables."""
    found = slices(hosts, common_of(COMMON | variables))
    return {name: host_plan(host_slice) for name, host_slice in found.items()}


def mesh(hypervisors: int) -> dict[str, HostPlan]:
    hosts = {name: host for name, host in fabric(hypervisors).items() if host[0] != "route_reflector"}
    return plans_of(hosts, l3hv_reflection="mesh")


def other_end(plans: dict[str, HostPlan], host: str, session: Session) -> Session:
    """Return the session of the neighbour that a session of ``host`` connects to."""
    (found,) = (
        other
        for other in plans[session.peer].routing.sessions
        if (other.peer, other.local, other.neighbor) == (host, session.neighbor, session.local)
    )
    return found


def test_in_a_mesh_each_session_has_two_ends_of_which_one_is_passive():
    plans = mesh(4)
    for host, plan in plans.items():
        assert plan.routing.cluster_id is None
        for session in plan.routing.sessions:
            other = other_end(plans, host, session)
            assert session.relation == other.relation == "mesh"
            assert session.passive != other.passive
            assert session.bfd == other.bfd


def test_in_a_mesh_all_hosts_have_sessions_except_edge_routers_with_each_other():
    plans = mesh(3)
    for one, two in combinations(plans, 2):
        has_session = any(session.peer == two for session in plans[one].routing.sessions)
        assert has_session == ("hypervisor" in (plans[one].kind, plans[two].kind))


def test_names_of_sessions_in_a_mesh_are_unique():
    for plan in mesh(3).values():
        names = [session.name for session in plan.routing.sessions]
        assert len(names) == len(set(names))


def test_a_large_mesh_is_a_warning_of_one_hypervisor():
    assert [w for plan in mesh(LARGE_MESH).values() for w in plan.warnings if "mesh" in w] == []
    (sentence,) = [w for plan in mesh(LARGE_MESH + 1).values() for w in plan.warnings if "mesh" in w]
    assert f"the mesh has {LARGE_MESH + 1} hypervisors" in sentence


def test_different_mtus_in_a_mesh_are_a_warning_of_one_hypervisor_for_each_path():
    hosts = {name: host for name, host in fabric(3).items() if host[0] != "route_reflector"}
    last = max(name for name, (kind, _) in hosts.items() if kind == "hypervisor")
    kind, variables = hosts[last]
    assert not [w for plan in plans_of(hosts, l3hv_reflection="mesh").values() for w in plan.warnings]
    hosts[last] = kind, {**variables, "l3hv_mtu": 9000}
    plans = plans_of(hosts, l3hv_reflection="mesh")
    warned = {host: plan.warnings for host, plan in plans.items() if plan.warnings}
    ((host, sentences),) = warned.items()
    assert plans[host].id == min(plan.id for plan in plans.values() if plan.kind == "hypervisor")
    paths = {uplink.path for uplink in plans[host].uplinks}
    assert len(sentences) == len(paths)
    assert all(any(f"the hosts on path {path} have" in each for each in sentences) for path in paths)
    assert all(f"9000: {last})" in each for each in sentences)


def test_a_limit_of_a_hypervisor_is_no_limit_of_its_neighbours_in_a_mesh():
    hosts = {name: host for name, host in fabric(3).items() if host[0] != "route_reflector"}
    first = min(name for name, (kind, _) in hosts.items() if kind == "hypervisor")
    kind, variables = hosts[first]
    hosts[first] = kind, {**variables, "l3hv_prefix_limit": 7}
    plans = plans_of(hosts, l3hv_reflection="mesh")
    of_first = {c.limit.accepted for s in plans[first].routing.sessions for c in s.channels if c.limit}
    of_others = {
        channel.limit.accepted
        for plan in plans.values()
        for session in plan.routing.sessions
        if session.peer == first
        for channel in session.channels
        if channel.limit is not None
    }
    assert 7 not in of_first
    assert of_others == {7}


POOL = {"ipv4": "203.0.113.0/24", "gateway": "203.0.113.254", "ipv6": "2001:db8:7100::/56"}
UPLINKS = {"a": "eno1", "b": "eno2"}


def blocks_of(number: int, *guests: str, pool: dict[str, Any] = POOL, **variables: Any) -> HostPlan:
    """Return the plan of a hypervisor that advertises blocks of one pool; ``guests`` are IPv4 addresses."""
    own = {
        "l3hv_id": number,
        "l3hv_uplinks": UPLINKS,
        "l3hv_guests": [
            {"name": f"vm{at}", "mac": f"52:54:00:00:00:0{at}", "ipv4": address}
            for at, address in enumerate(guests)
        ],
        **variables,
    }
    others = {name: host for name, host in fabric(0).items() if host[0] != "hypervisor"}
    hosts = others | {"hv": ("hypervisor", own)}
    return plans_of(hosts, l3hv_announce="blocks", l3hv_pools={"customers": pool})["hv"]


def announced(plan: HostPlan) -> list[str]:
    tables = (table for table in plan.routing.tables if table.domain == "public")
    return [match.prefix for table in tables for match in table.announces]


@pytest.mark.parametrize(
    ("number", "blocks"),
    [
        (1, ["203.0.113.0/26", "2001:db8:7100::/58"]),
        (4, ["203.0.113.192/26", "2001:db8:7100:c0::/58"]),
        (5, []),
    ],
)
def test_a_hypervisor_has_the_block_with_its_id(number: int, blocks: list[str]):
    plan = blocks_of(number)
    assert announced(plan) == blocks
    drops = [last.prefix for last in plan.last_resorts if last.table == "public"]
    assert [prefix for prefix in drops if prefix in blocks] == blocks


def test_listed_blocks_replace_the_one_with_the_id():
    assert announced(blocks_of(1, l3hv_blocks=["203.0.113.64/26"])) == ["203.0.113.64/26"]
    assert announced(blocks_of(1, l3hv_blocks=[])) == []


def test_only_guests_outside_of_the_blocks_are_advertised():
    assert announced(blocks_of(1, "203.0.113.2", "203.0.113.70")) == [
        "203.0.113.0/26",
        "203.0.113.70/32",
        "2001:db8:7100::/58",
        "2001:db8:7100:46::/64",
    ]


def test_the_ipv6_blocks_have_the_guests_of_the_ipv4_blocks():
    pool = POOL | {"block": {"ipv4": 28}}
    assert announced(blocks_of(2, "203.0.113.17", pool=pool)) == ["203.0.113.16/28", "2001:db8:7100:10::/60"]


def test_a_pool_may_be_one_block():
    pool = {"ipv4": "203.0.113.64/26", "gateway": "203.0.113.126"}
    plan = blocks_of(1, pool=pool)
    assert announced(plan) == ["203.0.113.64/26"]
    (table,) = (table for table in plan.routing.tables if table.name == "public4")
    assert [match.low for match in table.accepts if match.prefix == "203.0.113.64/26"] == [26]
    prefixes = [last.prefix for last in plan.last_resorts]
    assert len(prefixes) == len({(last.family, last.table, last.prefix) for last in plan.last_resorts})


def test_a_pool_that_is_too_small_is_not_cut():
    pool = {"ipv4": "203.0.113.64/28", "gateway": "203.0.113.78"}
    plan = blocks_of(1, "203.0.113.66", pool=pool)
    assert announced(plan) == ["203.0.113.66/32"]
    assert any("no block of the pool customers" in warning for warning in plan.warnings)


def test_blocks_of_a_shared_prefix_are_accepted():
    pool = POOL | {"ipv6": "2001:db8:7200::/64", "ipv6_mode": "address"}
    plan = blocks_of(2, pool=pool)
    assert announced(plan) == ["203.0.113.64/26", "2001:db8:7200::40/122"]
    (table,) = (table for table in plan.routing.tables if table.name == "public6")
    assert (122, 122) in [(match.low, match.high) for match in table.accepts]

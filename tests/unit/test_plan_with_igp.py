"""The parts of plans that an IGP between hosts changes (docs/fabric-designs.md)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from intents import COMMON, common_of, fabric, slices

from l3hv.model.plan import HostPlan
from l3hv.plan.host import host_plan
from l3hv.plan.sessions import LOOPBACK

DOMAINS = {
    "public": {
        **COMMON["l3hv_domains"]["public"],
        "loopbacks": {"ipv4": "198.18.128.0/18", "ipv6": "2001:db8:c::/112"},
    },
    "private": COMMON["l3hv_domains"]["private"],
}
VARIABLES = COMMON | {"l3hv_underlay": "igp", "l3hv_domains": DOMAINS}


def plans(hypervisors: int, layout: str = "shared", **variables: Any) -> dict[str, HostPlan]:
    """Return the plans of a fabric with two reflectors that are on both paths."""
    hosts = {name: (kind, dict(own)) for name, (kind, own) in fabric(hypervisors).items()}
    for number, (name, path) in enumerate((("rr1", "a"), ("rr2", "b"))):
        hosts[name][1].update(l3hv_id=16000 - number, l3hv_path=path, l3hv_uplinks={"a": "eno1", "b": "eno2"})
    for _, own in hosts.values():
        own["l3hv_session_layout"] = layout
    found = slices(hosts, common_of(VARIABLES | variables))
    return {name: host_plan(host_slice) for name, host_slice in found.items()}


@pytest.mark.parametrize(("layout", "each"), [("shared", 1), ("multiprotocol", 2), ("per_family", 3)])
def test_a_hypervisor_has_one_session_for_each_reflector_and_part(layout: str, each: int) -> None:
    sessions = plans(2, layout)["hv1"].routing.sessions
    assert len(sessions) == 2 * each
    assert {session.peer for session in sessions} == {"rr1", "rr2"}
    assert len({session.name for session in sessions}) == len(sessions)


def test_sessions_run_between_loopbacks_without_bfd() -> None:
    every = plans(3)
    loopbacks = {name: {lo.address for lo in plan.loopbacks} for name, plan in every.items()}
    for name, plan in every.items():
        for session in plan.routing.sessions:
            assert session.local in loopbacks[name]
            assert session.neighbor in loopbacks[session.peer]
            assert (session.interface, session.bfd) == (LOOPBACK, False)


def test_each_session_has_two_ends_of_which_the_reflector_waits() -> None:
    every = plans(3)
    for name, plan in every.items():
        for session in plan.routing.sessions:
            (other,) = (one for one in every[session.peer].routing.sessions if one.peer == name)
            assert (other.local, other.neighbor) == (session.neighbor, session.local)
            assert session.passive == (plan.kind == "route_reflector") != other.passive
            assert session.path == other.path


def test_reflectors_accept_a_host_only_with_its_own_loopback_as_next_hop() -> None:
    every = plans(2)
    for session in every["rr1"].routing.sessions:
        own = {f"{lo.address}/{lo.length}" for lo in every[session.peer].loopbacks if lo.announced}
        hops = {part.accepted_next_hops for channel in session.channels for part in channel.carries}
        assert hops <= own


def test_bgp_carries_no_loopbacks() -> None:
    plan = plans(2)["hv1"]
    assert not any(table.originates for table in plan.routing.tables)
    assert not any(policy.loopbacks for policy in plans(2)["rr1"].routing.policies)


def test_link_local_addresses_are_unique_on_a_path_and_differ_between_paths() -> None:
    every = plans(3)
    for path in ("a", "b"):
        found = [
            uplink.link_local
            for plan in every.values()
            for uplink in plan.uplinks
            if uplink.path == path and uplink.domain == "public"
        ]
        assert len(found) == len(set(found)) == len(every)
    for plan in every.values():
        one, other = (u.link_local for u in plan.uplinks if u.domain == "public")
        assert one != other


def test_another_hypervisor_changes_no_other_hypervisor() -> None:
    """The IGP finds its neighbours itself."""
    before, after = plans(2), plans(3)
    assert all(before[name] == after[name] for name in ("hv1", "hv2", "edge"))


def test_names_of_instances_differ_from_those_of_tables() -> None:
    for plan in plans(1).values():
        names = [igp.name for igp in plan.routing.igp] + [table.name for table in plan.routing.igp_tables]
        assert not {*names} & {table.name for table in plan.routing.tables}
        assert all(one != other for one, other in combinations(names, 2))


def test_only_reflectors_have_the_loopbacks_in_main() -> None:
    for plan in plans(1).values():
        in_main = {table.kernel_table for table in plan.routing.igp_tables}
        assert in_main == ({254} if plan.kind == "route_reflector" else {None})
        assert bool(plan.uplinks[0].on_link) == (plan.kind != "route_reflector")


def test_no_route_to_loopbacks_has_the_metric_of_another() -> None:
    for plan in plans(1).values():
        metrics = [(route.prefix, route.metric) for uplink in plan.uplinks for route in uplink.on_link]
        assert len(metrics) == len(set(metrics))


def test_one_reflector_is_changed_before_its_clients_and_one_after_them() -> None:
    every = plans(1)
    assert (every["rr1"].after_clients, every["rr2"].after_clients) == (False, True)

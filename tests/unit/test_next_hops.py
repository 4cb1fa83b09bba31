"""Routes with one or several next hops (l3hv_ecmp)."""

from __future__ import annotations

from typing import Any

import pytest
from intents import EDGE, REFLECTORS, hypervisor, slices

from l3hv.model.plain import as_plain
from l3hv.model.plan import HostPlan
from l3hv.plan.host import host_plan
from l3hv.render.summary import plan_summary

EDGES = EDGE | {
    "edge2": ("edge_router", {"l3hv_id": 14000, "l3hv_uplinks": {"b": "eno2", "a": "eno1"}}),
    "edge3": ("edge_router", {"l3hv_id": 13000, "l3hv_uplinks": {"b": "eno2"}}),
}


def planned(ecmp: Any, kind: str = "hypervisor") -> HostPlan:
    """Return the plan of a hypervisor or an edge router in a fabric where all hosts have this l3hv_ecmp."""
    hosts = {"hv1": ("hypervisor", hypervisor(1)), **REFLECTORS, **EDGES}
    chosen = {name: (of, {**variables, "l3hv_ecmp": ecmp}) for name, (of, variables) in hosts.items()}
    return host_plan(slices(chosen)["hv1" if kind == "hypervisor" else "edge"])


def choices(plan: HostPlan) -> dict[str, str]:
    return {table.name: table.ecmp for table in plan.routing.tables}


def default_next_hops(plan: HostPlan) -> dict[str, list[str]]:
    policies = plan.routing.policies
    return {policy.table: [hop.why for hop in policy.default_next_hops] for policy in policies}


@pytest.mark.parametrize(
    ("ecmp", "public", "private"),
    [
        (None, "all", "all"),
        ("none", "none", "none"),
        ({"private": "none"}, "all", "none"),
        ({"public": "without_default"}, "without_default", "all"),
        ({}, "all", "all"),
    ],
)
def test_ecmp_is_set_for_all_domains_or_for_one(ecmp: Any, public: str, private: str) -> None:
    wanted = {"public4": public, "public6": public, "private4": private, "local_out4": private}
    assert choices(planned(ecmp)) == wanted


def test_default_routes_are_preferred_by_path_and_then_by_edge_router() -> None:
    """The preference applies in the domains in which edge routers have a default route."""
    on_paths = {"a": ("edge2", "edge"), "b": ("edge3", "edge2", "edge")}
    in_order = [f"{edge}, path {path}" for path, edges in on_paths.items() for edge in edges]
    found = default_next_hops(planned("without_default"))
    assert found["public4"] == found["public6"] == in_order


@pytest.mark.parametrize("ecmp", ["all", "none", {"private": "without_default"}])
def test_no_default_route_is_preferred_without_l3hv_ecmp(ecmp: Any) -> None:
    assert default_next_hops(planned(ecmp))["public4"] == []


def test_an_edge_router_accepts_no_default_route() -> None:
    plan = planned("without_default", "edge_router")
    assert set(choices(plan).values()) == {"without_default"}
    assert not any(default_next_hops(plan).values())


def test_slices_have_edge_routers_only_if_a_default_route_is_preferred() -> None:
    """A hypervisor's slice changes with an edge router only if it prefers one."""
    plain = {"hv1": ("hypervisor", hypervisor(1)), **REFLECTORS, **EDGES}
    assert slices(plain)["hv1"].edges == ()
    assert all(part.edges == () for part in slices(plain).values())


def test_the_plan_summary_shows_routes_with_one_next_hop() -> None:
    text = plan_summary(as_plain(planned({"public": "without_default", "private": "none"})))
    assert "One next hop\n" in text
    assert "  private4    all routes\n" in text
    assert "  public4     the default route: 198.18.54.176 (edge2, path a), then 198.18.58.152 (edge" in text
    assert "One next hop" not in plan_summary(as_plain(planned(None)))

"""Verification of sessions of every layout, and of sessions of a range by the names of its clients."""

from __future__ import annotations

from typing import Any

import as_planned
import pytest
from fabrics import lab
from in_words import compared

from l3hv.model.plan import HostPlan
from l3hv.model.profiles import SESSION_LAYOUTS
from l3hv.plan.announcements import announcements
from l3hv.verify.check import Kind
from l3hv.verify.expect import expectation
from l3hv.verify.fabric import Fabric
from l3hv.verify.ranges import with_clients, with_names
from l3hv.verify.subjects import SessionFamily
from l3hv.verify.values import AtLeast

CLIENTS = ("hv1", "hv2", "hv3", "internet")
RANGE = {"rr1": {"l3hv_neighbors": "range"}}


def fabric_of(plans: dict[str, HostPlan]) -> Fabric:
    return Fabric({host: announcements(plan) for host, plan in plans.items()})


def with_layout(layout: str) -> dict[str, HostPlan]:
    return lab(**{host: {"l3hv_session_layout": layout} for host in CLIENTS})


def different(plan: HostPlan, seen: Any, fabric: Fabric) -> dict[str, str]:
    """Return the findings of failed checks."""
    return {check.what: check.found for check in compared(plan, seen, fabric) if not check.passes}


@pytest.mark.parametrize("layout", SESSION_LAYOUTS)
def test_a_host_as_planned_has_no_difference(layout: str) -> None:
    plans = with_layout(layout)
    fabric = fabric_of(plans)
    for plan in plans.values():
        assert different(plan, as_planned.observation(plan, fabric), fabric) == {}
    checks = {
        check.what for check in compared(plans["hv1"], as_planned.observation(plans["hv1"], fabric), fabric)
    }
    assert sum(check.startswith("session ") for check in checks) == len(plans["hv1"].routing.sessions)
    assert "path a has a session for private" in checks


def test_a_shared_session_that_is_down_fails_in_all_its_domains() -> None:
    plans = with_layout("shared")
    fabric = fabric_of(plans)
    seen = as_planned.observation(plans["hv1"], fabric)
    seen["routing"]["sessions"]["rr1_shared"]["state"] = "Active"
    assert {
        "session rr1_shared",
        "path a has a session for public",
        "path a has a session for private",
    } <= different(plans["hv1"], seen, fabric).keys()


def test_reflectors_on_a_path_exchange_all_domains_of_a_shared_session() -> None:
    """GoBGP has a session for each domain: it receives BIRD's private routes a second time."""
    uplinks = {"b": {"public": "b-public", "private": "b-private"}}
    rr3 = {"l3hv_id": 100, "l3hv_daemon": "gobgp", "l3hv_uplinks": uplinks}
    plans = lab({"rr3": ("route_reflector", rr3)}, hv1={"l3hv_session_layout": "shared"})
    expected = expectation(plans["hv1"], fabric_of(plans), frozenset())
    received = {key.subject: count for key, count in expected.items() if key.kind is Kind.RECEIVED}
    assert {subject: isinstance(count, AtLeast) for subject, count in received.items()} == {
        SessionFamily("rr1_shared", "ipv4"): False,
        SessionFamily("rr1_shared", "ipv6"): False,
        SessionFamily("rr2_shared", "ipv4"): True,
        SessionFamily("rr2_shared", "ipv6"): True,
        SessionFamily("rr3_public", "ipv4"): True,
        SessionFamily("rr3_public", "ipv6"): True,
        SessionFamily("rr3_private", "ipv4"): True,
    }


def test_bfd_of_per_family_sessions_is_named_by_family() -> None:
    plans = with_layout("per_family")
    fabric = fabric_of(plans)
    seen = as_planned.observation(plans["hv1"], fabric)
    seen["routing"]["bfd"][1]["state"] = "Down"
    found = different(plans["hv1"], seen, fabric)
    assert found.keys() == {"bfd rr1 a public ipv6"}
    assert found["bfd rr1 a public ipv6"].startswith("Down, but the BGP session is up")


def seen_by_a_range(plan: HostPlan, fabric: Fabric) -> dict[str, Any]:
    """Return the observation of a reflector to whose clients BIRD has given names."""
    seen = as_planned.observation(with_clients(plan, fabric), fabric)
    sessions = seen["routing"]["sessions"].values()
    dynamic = {f"dynbgp{number}": session for number, session in enumerate(sessions, 1)}
    listening = {
        "state": "Passive",
        "info": "Passive",
        "neighbor": "",
        "local": "",
        "error": "",
        "channels": {},
    }
    return {
        **seen,
        "routing": {
            **seen["routing"],
            "sessions": {**{own.name: listening for own in plan.routing.ranges}, **dynamic},
        },
    }


def test_clients_of_a_range_are_identified_by_their_addresses() -> None:
    plans = lab(**RANGE)
    fabric = fabric_of(plans)
    plan = with_clients(plans["rr1"], fabric)
    explicit = {session.name: session.neighbor for session in lab()["rr1"].routing.sessions}
    assert {session.name: session.neighbor for session in plan.routing.sessions} == explicit
    seen = seen_by_a_range(plans["rr1"], fabric)
    assert different(plan, with_names(plan, seen), fabric) == {}
    del seen["routing"]["sessions"]["dynbgp2"]
    (missing,) = different(plan, with_names(plan, seen), fabric)
    assert missing.removeprefix("session ") in explicit


def test_a_client_of_a_range_without_a_plan_is_named() -> None:
    plans = lab(**RANGE)
    fabric = fabric_of(plans)
    plan = with_clients(plans["rr1"], fabric)
    seen = seen_by_a_range(plans["rr1"], fabric)
    stranger = {**seen["routing"]["sessions"]["dynbgp1"], "neighbor": "198.51.100.77", "channels": {}}
    seen["routing"]["sessions"]["dynbgp9"] = stranger
    found = different(plan, with_names(plan, seen), fabric)
    assert found == {"session dynbgp9": f"Established, {stranger['local']} to 198.51.100.77"}


def test_reflectors_without_ranges_are_not_renamed() -> None:
    plans = lab(**RANGE)
    fabric = fabric_of(plans)
    assert with_clients(plans["rr2"], fabric) == plans["rr2"]
    seen = as_planned.observation(plans["rr2"], fabric)
    assert with_names(plans["rr2"], seen) is seen

"""The sessions of a reflector with a range: the clients follow from the fabric, not from its own plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from l3hv.model.names import CLIENTS, bird_symbol
from l3hv.model.plan import HostPlan, Session
from l3hv.verify.fabric import Fabric


def with_clients(plan: HostPlan, fabric: Fabric) -> HostPlan:
    """Return the plan with a session for each client of its ranges."""
    found = [
        _session(own, client, address)
        for own in plan.routing.ranges
        for client, address in fabric.callers(own.local)
    ]
    routing = replace(plan.routing, sessions=(*plan.routing.sessions, *found))
    return replace(plan, routing=routing) if found else plan


def _session(own: Session, client: str, address: str) -> Session:
    suffix = own.name.removeprefix(CLIENTS)
    return replace(own, name=f"{bird_symbol(client)}{suffix}", peer=client, neighbor=address)


def with_names(plan: HostPlan, seen: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the observation with each session of a range under the name that it has in ``plan``."""
    names = {session.neighbor: session.name for session in plan.routing.sessions}
    daemon = seen["routing"]
    if not plan.routing.ranges or "sessions" not in daemon:
        return seen
    sessions = {names.get(session["neighbor"], name): session for name, session in daemon["sessions"].items()}
    return {**seen, "routing": {**daemon, "sessions": sessions}}

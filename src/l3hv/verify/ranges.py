"""The sessions of a reflector that takes clients from a range: its plan has none of them, the fabric has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from l3hv.model.names import CLIENTS, bird_symbol
from l3hv.model.plan import HostPlan, Session
from l3hv.verify.fabric import Fabric


def with_clients(plan: HostPlan, fabric: Fabric) -> HostPlan:
    """Return the plan with a session for each client that is in one of its ranges."""
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
    """Return the observation with the sessions of ranges under the names that ``plan`` has for neighbours."""
    names = {session.neighbor: session.name for session in plan.routing.sessions}
    daemon = seen["routing"]
    if not plan.routing.ranges or "sessions" not in daemon:
        return seen
    sessions = {names.get(session["neighbor"], name): session for name, session in daemon["sessions"].items()}
    return {**seen, "routing": {**daemon, "sessions": sessions}}

"""The machines and guests of the inventory under test, from its plans.

The tests of the fabric and the attacks run on the lab and on other designs, whose machines differ: a mesh has
no reflectors.  The hypervisors hv1 to hv3 and the guests vm1 to vm4 are the same in all of them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from golden_cases import INVENTORIES, plans

from l3hv.model.choices import KINDS
from l3hv.model.text import natural_key

INVENTORY = Path(os.environ.get("L3HV_INVENTORY", INVENTORIES / "lab"))
"""The inventory of the twin: the lab, another design, or a copy in which hosts run another daemon."""


@cache
def host_plans() -> dict[str, dict[str, Any]]:
    """Return the plan of each host: hypervisors, reflectors, edge routers."""
    found = plans(INVENTORY)
    kinds = list(KINDS.values())
    names = sorted(found, key=lambda name: (kinds.index(found[name]["kind"]), natural_key(name)))
    return {name: found[name] for name in names}


def _of_kind(kind: str) -> tuple[str, ...]:
    return tuple(name for name, plan in host_plans().items() if plan["kind"] == kind)


HYPERVISORS = _of_kind("hypervisor")
REFLECTORS = _of_kind("route_reflector")
"""The reflectors; none in a mesh."""
MACHINES = tuple(host_plans())
GUESTS: dict[str, str] = {
    guest["name"]: host for host in HYPERVISORS for guest in host_plans()[host]["guests"]
}
"""The hypervisor of each guest."""
PATHS = tuple(dict.fromkeys(uplink["path"] for uplink in host_plans()["hv2"]["uplinks"]))
LOOPBACKS: dict[str, str] = {
    host: loopback["address"]
    for host in HYPERVISORS
    for loopback in host_plans()[host]["loopbacks"]
    if (loopback["family"], loopback["domain"]) == ("ipv4", "private")
}
VALIDATORS = tuple(
    host
    for host, plan in host_plans().items()
    if any(policy["neighbors"] == "hypervisors" for policy in plan["routing"]["policies"])
)
"""The hosts that check the announcements of hypervisors: reflectors, or in a mesh all hosts."""


def sessions(machine: str, *, path: str | None = None, peer: str | None = None) -> list[dict[str, Any]]:
    """Return the sessions in the plan of a machine: all, those on a path, those with a neighbour."""
    return [
        session
        for session in host_plans()[machine]["routing"]["sessions"]
        if path in (None, session["path"]) and peer in (None, session["peer"])
    ]


def neighbors(machine: str, path: str, *without: str) -> list[str]:
    """Return the machines that a machine has sessions with on a path, without some of them."""
    peers = dict.fromkeys(session["peer"] for session in sessions(machine, path=path))
    return [peer for peer in peers if peer not in without]


def addresses(machine: str) -> set[str]:
    """Return the addresses of a machine's uplinks."""
    uplinks = host_plans()[machine]["uplinks"]
    return {address["address"] for uplink in uplinks for address in uplink["addresses"]}

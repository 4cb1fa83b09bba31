"""Checks with the names and texts that reports have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from l3hv.model.plan import HostPlan
from l3hv.verify.check import Check
from l3hv.verify.compare import compare
from l3hv.verify.fabric import Fabric
from l3hv.verify.reach import Ping
from l3hv.verify.report.entry import Entry, entry_of
from l3hv.verify.report.kinds import name_of


def compared(plan: HostPlan, seen: Any, fabric: Fabric, least: Fabric | None = None) -> list[Entry]:
    """Return the checks of the host of ``plan`` with their texts."""
    return [entry_of(check) for check in compare(plan, seen, fabric, least)]


def names(checks: Iterable[Check]) -> list[tuple[str, str]]:
    """Return the hosts and names of checks."""
    return [(entry.host, entry.what) for entry in map(entry_of, checks)]


def ping_name(ping: Ping) -> str:
    """Return the name of the check of a ping."""
    return name_of(*ping.key)

"""The hosts that a run reads from the inventory, and the facts that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from l3hv.intent.fabric import COMMON_KEYS, parse_common
from l3hv.intent.hosts import parse_host
from l3hv.intent.neighbors import member
from l3hv.inventory.ansible import Inventory
from l3hv.inventory.index import digest
from l3hv.model.choices import Kind
from l3hv.model.errors import Problem
from l3hv.model.intent import Common, HostIntent
from l3hv.model.plain import as_plain


@dataclass
class Reading:
    """The hosts that were read in this run, and the facts that they share."""

    common: Common | None = None
    hosts: dict[str, HostIntent] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    templated: set[str] = field(default_factory=set)
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def basis(self) -> str:
        """A digest of what every host's announcements depend on: the common facts and the reflectors."""
        reflectors = [
            as_plain(member(host)) for host in self.hosts.values() if host.kind == "route_reflector"
        ]
        return digest([self.shared, reflectors])


def read_hosts(
    inventory: Inventory,
    kinds: Mapping[str, Kind],
    wanted: Iterable[str],
    override: Mapping[str, Any] | None = None,
) -> Reading:
    """Read the hosts in ``wanted``. The first one's common facts count; who has others is told."""
    reading = Reading()
    first = ""
    for host in wanted:
        variables, templated, unresolved = inventory.variables(host)
        reading.seen.add(host)
        if unresolved:
            reading.problems += unresolved
            continue
        variables.update(override or {})
        shared = {key: variables[key] for key in sorted(COMMON_KEYS) if key in variables}
        if not first:
            first, reading.shared = host, shared
            reading.common, problems = parse_common(variables)
            reading.problems += problems
        reading.problems += [
            Problem(
                host,
                key,
                str(shared.get(key)),
                f"This is not what {first} has, but it must be the same on every host.",
                "Set it once, in group_vars/all.",
            )
            for key in sorted(shared.keys() | reading.shared.keys())
            if shared.get(key) != reading.shared.get(key)
        ]
        intent, problems = parse_host(host, kinds[host], variables, reading.common)
        reading.problems += problems
        if templated:
            reading.templated.add(host)
        if intent is not None:
            reading.hosts[host] = intent
    return reading


def with_remedies(problems: Iterable[Problem], inventory: Inventory) -> list[Problem]:
    """Return the problems, those of text from the command line with what makes it text.

    ``-e NAME=VALUE`` makes text of a whole variable, and never of a part of one.
    """
    found = []
    for problem in problems:
        name = problem.field
        if name in inventory.extra and problem.is_unfit_text:
            value = problem.value if problem.value.isdigit() else problem.value.lower()
            is_plain = value.isdigit() or value in ("true", "false")
            example = f'{{"{name}": {value.lstrip("0") if value.isdigit() else value if is_plain else "…"}}}'
            remedy = f"-e {name}=… is always text: write -e '{example}'."
            found.append(replace(problem, remedy=remedy))
        else:
            found.append(problem)
    return found

"""The hosts that a run reads from the inventory, and their common facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
    """The hosts that this run has read, and their common facts.

    ``seen`` are all hosts that were read, also hosts with problems.  ``templated`` are the hosts whose
    variables contain templates.
    """

    common: Common | None = None
    hosts: dict[str, HostIntent] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    templated: set[str] = field(default_factory=set)
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def basis(self) -> str:
        """A digest of the facts that every host's announcements depend on: common facts and reflectors."""
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
    """Read the hosts in ``wanted``; note each host whose common facts differ from those of most hosts.

    ``override`` replaces variables of every host.
    """
    reading = Reading()
    compared: list[str] = []
    different: dict[str, dict[str, str]] = {}
    for host in wanted:
        variables, templated, unresolved = inventory.variables(host)
        reading.seen.add(host)
        if unresolved:
            reading.problems += unresolved
            continue
        variables.update(override or {})
        shared = {key: variables[key] for key in sorted(COMMON_KEYS) if key in variables}
        if not compared:
            reading.shared = shared
            reading.common, problems = parse_common(variables)
            reading.problems += problems
        compared.append(host)
        for key in sorted(shared.keys() | reading.shared.keys()):
            if shared.get(key) != reading.shared.get(key):
                different.setdefault(key, {})[host] = str(shared.get(key))
        intent, problems = parse_host(host, kinds[host], variables, reading.common)
        reading.problems += problems
        if templated:
            reading.templated.add(host)
        if intent is not None:
            reading.hosts[host] = intent
    for key, others in different.items():
        usual = str(reading.shared.get(key))
        reading.problems += _different(key, {host: others.get(host, usual) for host in compared})
    return reading


def _different(key: str, values: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each host whose value of a common variable is not that of most hosts.

    ``values`` has the value of each host; of equally frequent values the first is taken.
    """
    usual, _ = Counter(values.values()).most_common(1)[0]
    example = next(host for host, value in values.items() if value == usual)
    for host, value in values.items():
        if value != usual:
            yield Problem(
                host,
                key,
                value,
                f"The value differs from the one of {example}, but it must be the same on every host.",
                "Set it once, in group_vars/all.",
            )


def with_remedies(problems: Iterable[Problem], inventory: Inventory) -> list[Problem]:
    """Return the problems; where the command line turned a value into text, the remedy explains it.

    ``-e NAME=VALUE`` turns a whole variable into text, never a part of one.
    """
    explained = []
    for problem in problems:
        name = problem.field
        if name in inventory.extra and problem.unfit_text:
            example = f'{{"{name}": {_as_json(problem.value)}}}'
            remedy = f"-e {name}=… is always text: write -e '{example}'."
            explained.append(replace(problem, remedy=remedy))
        else:
            explained.append(problem)
    return explained


def _as_json(text: str) -> str:
    """Return a number or a boolean, which is given as text, in the syntax of JSON; else "…"."""
    if text.isdigit():
        return text.lstrip("0")
    return text.lower() if text.lower() in ("true", "false") else "…"

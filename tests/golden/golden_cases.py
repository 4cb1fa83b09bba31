"""Golden cases: an inventory under `intent/`, and what is made of it under `expected/<host>/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from l3hv.claims import claims, clashes
from l3hv.errors import IntentError
from l3hv.facts import HostIntent
from l3hv.intent import KINDS, Roster, host_slice, member, parse_common, parse_host, peers

GOLDEN = Path(__file__).parent
INVENTORIES = GOLDEN.parent.parent / "inventories"


def intent_directory(case: str) -> Path:
    """Return the inventory of a golden case; `lab` is the one that the project is shipped with."""
    own = GOLDEN / case / "intent"
    return own if own.is_dir() else INVENTORIES / case


def cases() -> list[str]:
    """Return the names of all cases; a new one needs no `expected/` yet."""
    return sorted(
        path.name for path in GOLDEN.iterdir() if (path / "intent").is_dir() or (path / "expected").is_dir()
    )


def expected_directory(case: str, host: str) -> Path:
    """Return where the files that a host of a case is expected to get are kept."""
    return GOLDEN / case / "expected" / host


def read_variables(inventory: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return, by host, its group and its variables merged as Ansible does: all, group, host."""
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    return {
        host: (
            group,
            _load(
                inventory / "group_vars" / "all",
                inventory / "group_vars" / group,
                inventory / "host_vars" / host,
            ),
        )
        for group in KINDS
        for host in hosts.get(group, {}).get("hosts", {})
    }


def _load(*places: Path) -> dict[str, Any]:
    """Return the variables of some directories or files, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for place in places:
        files = sorted(place.glob("*.yml")) if place.is_dir() else [place.parent / f"{place.name}.yml"]
        for file in filter(Path.exists, files):
            merged.update(yaml.safe_load(file.read_text()) or {})
    return merged


def slices(inventory: Path) -> tuple[dict[str, dict[str, Any]], dict[str, HostIntent]]:
    """Return, by host, the slice of every host of an inventory and its intent."""
    variables = read_variables(inventory)
    common, problems = parse_common(next(iter(variables.values()))[1])
    hosts = {}
    for name, (group, values) in variables.items():
        hosts[name], more = parse_host(name, KINDS[group], values, common)
        problems += more
    if common is None or problems:
        raise IntentError(problems)
    problems = clashes({name: claims(host) for name, host in hosts.items()}, common)
    if problems:
        raise IntentError(problems)
    roster = Roster(map(member, hosts.values()))
    return {name: host_slice(common, host, peers(host, roster)) for name, host in hosts.items()}, hosts

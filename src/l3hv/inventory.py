"""Reads the intent out of an Ansible inventory: the one place that knows how Ansible resolves variables.

Ansible resolves a host's variables in about 10 ms when its file has a hundred guests, so a thousand hosts
take some ten seconds: right for a run that touches them all, far too long for the dozen runs a day that
touch one.  What a run needs to know of the hosts that it does *not* touch is small (the claims that must be
unique, and who peers with whom), so it is kept in an index beside the plans, host by host, and is good for
as long as no inventory file that the host depends on has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l3hv.claims import Claim, clashes, claims
from l3hv.errors import IntentError, Problem
from l3hv.intent import (
    COMMON_KEYS,
    Common,
    HostIntent,
    Peer,
    host_slice,
    parse_common,
    parse_host,
    peer,
    peers_of,
)
from l3hv.model import Kind, as_plain
from l3hv.plan import host_plan, topology
from l3hv.topology import Topology
from l3hv.verify.announcements import announcements

GROUPS: dict[str, Kind] = {
    "hypervisors": "hypervisor",
    "route_reflectors": "route_reflector",
    "edge_routers": "edge_router",
}
PREFIX = "l3hv_"
# Variables with the prefix that are not intent: facts of a run, and what the twin says of itself.
INTERNAL = frozenset({"l3hv_plan", "l3hv_run", "l3hv_twin", "l3hv_observed"})
INDEX_VERSION = 1


def plain(value: Any) -> Any:
    """Return ``value`` without Ansible's tags (ansible-core 2.19 hands out tagged subclasses).

    >>> plain({"a": (1, "b", None)})
    {'a': [1, 'b', None]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def has_template(value: Any) -> bool:
    """Tell whether ``value`` holds a Jinja expression anywhere."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(has_template(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(has_template(item) for item in value)


@dataclass(frozen=True)
class Inventory:
    """An inventory as Ansible sees it.

    ``groups`` maps group names to host names; ``raw`` returns a host's variables before templating;
    ``template`` resolves one value of such variables; ``sources`` are the inventory's files and directories.
    """

    groups: Mapping[str, Sequence[str]]
    raw: Callable[[str], Mapping[str, Any]]
    template: Callable[[Mapping[str, Any], Any], Any]
    sources: tuple[Path, ...]

    def kinds(self) -> tuple[dict[str, Kind], list[Problem]]:
        """Return what each host is, by its group, and a problem for each host in two of the groups."""
        kinds: dict[str, Kind] = {}
        problems = []
        for group, kind in GROUPS.items():
            for host in map(str, self.groups.get(group, ())):
                if host in kinds:
                    problems.append(
                        Problem(host, "groups", group, f"is in two of the groups {', '.join(GROUPS)}", "Leave it in one of them.")
                    )
                kinds[host] = kind
        return dict(sorted(kinds.items())), problems

    def variables(self, host: str) -> tuple[dict[str, Any], bool]:
        """Return the intent of ``host`` as plain values, and whether any of it was templated."""
        raw = self.raw(host)
        wanted = {key: raw[key] for key in raw if key.startswith(PREFIX) and key not in INTERNAL}
        templated = {key for key, value in wanted.items() if has_template(value)}
        return (
            {str(key): plain(self.template(raw, value) if key in templated else value) for key, value in wanted.items()},
            bool(templated),
        )


def open_inventory(source: Path) -> Inventory:
    """Load the inventory at ``source`` (a file or a directory) outside any playbook run.

    Raises IntentError when Ansible finds no host of ours in it.
    """
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar
    from ansible.vars.manager import VariableManager

    if not source.exists():
        raise IntentError([Problem("inventory", "path", str(source), "does not exist", "Name an inventory file or directory.")])
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(source)])
    variables = VariableManager(loader=loader, inventory=manager)
    return Inventory(
        groups=manager.get_groups_dict(),
        raw=lambda host: variables.get_vars(host=manager.get_host(host), include_hostvars=False),
        template=lambda raw, value: Templar(loader=loader, variables=dict(raw)).template(value),
        sources=(source,),
    )


@dataclass
class Stamp:
    """What the inventory's files looked like: path → (mtime in ns, size), those of each host apart."""

    shared: dict[str, list[int]] = field(default_factory=dict)
    hosts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    static: bool = True


def stamp(sources: Sequence[Path], extra: Sequence[Path] = ()) -> Stamp:
    """Look at every file that variables can come from.

    ``extra`` are directories whose group_vars and host_vars count too (beside the playbook).  An inventory
    that is a program or a plugin's configuration is not ``static``: nothing is remembered about it.
    """
    found = Stamp()

    def note(path: Path, host: str | None) -> None:
        status = path.stat()
        entry = [status.st_mtime_ns, status.st_size]
        if host is None:
            found.shared[str(path)] = entry
        else:
            found.hosts.setdefault(host, {})[str(path)] = entry

    def walk(directory: Path, host: str | None) -> None:
        for path in sorted(directory.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                walk(path, host)
            else:
                note(path, host)

    def walk_host_vars(directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            if path.is_dir():
                walk(path, path.name)
            else:
                note(path, path.stem if path.suffix in {".yml", ".yaml", ".json"} else path.name)

    def is_static(path: Path) -> bool:
        if os.access(path, os.X_OK):
            return False
        with path.open(encoding="utf-8", errors="replace") as text:
            return not any(line.startswith("plugin:") for line in text)

    def walk_inventory(directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            if path.name.startswith("."):
                continue
            if path.name == "host_vars" and path.is_dir():
                walk_host_vars(path)
            elif path.is_dir():
                walk(path, None)
            else:
                found.static = found.static and is_static(path)
                note(path, None)

    for source in sources:
        if source.is_dir():
            walk_inventory(source)
        elif source.is_file():
            found.static = found.static and is_static(source)
            note(source, None)
            extra = [*extra, source.parent]
        else:
            found.static = False
    for directory in dict.fromkeys(extra):
        if (directory / "group_vars").is_dir():
            walk(directory / "group_vars", None)
        if (directory / "host_vars").is_dir():
            walk_host_vars(directory / "host_vars")
    return found

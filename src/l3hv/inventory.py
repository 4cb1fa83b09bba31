"""Reads the intent out of an Ansible inventory: the one place that knows how Ansible resolves variables.

Ansible resolves a host's variables in about 10 ms when its file has a hundred guests, so a thousand hosts
take some ten seconds: right for a run that touches them all, far too long for the dozen runs a day that
touch one.  What a run needs to know of the hosts that it does *not* touch is small (the claims that must be
unique, and who peers with whom), so it is kept in an index beside the plans, host by host, and is good for
as long as no inventory file that the host depends on has changed.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import gc
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l3hv.claims import Claim, claims, clashes, holders, largest, owners
from l3hv.errors import IntentError, Problem, natural_key
from l3hv.files import write_json
from l3hv.intent import (
    COMMON_KEYS,
    KINDS,
    Common,
    HostIntent,
    Member,
    Roster,
    edges,
    host_kind,
    host_slice,
    member,
    neighbors,
    parse_common,
    parse_host,
    peers,
)
from l3hv.keys import key_problems
from l3hv.model import Kind, as_plain, from_plain
from l3hv.plan import host_plan, topology
from l3hv.ranges import range_problems
from l3hv.removals import Removals, load_applied, removals
from l3hv.shape import found, shown
from l3hv.topology import Topology
from l3hv.verify.announcements import announcements

if TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader

PREFIX = "l3hv_"
KEEP_RUNS_S = 24 * 3600
VARIABLE_FILES = frozenset({".yml", ".yaml", ".json"})
"""What a file of host_vars can end with, if it ends with anything but its host's name."""
MOST_STRAYS = 3
"""How many files without a host or group are named."""
MARKS = ("l3hv_id", "l3hv_uplinks")
"""Variables that only a host of the fabric has."""
_LONGEST_REASON = 160
_LEADING_ZERO = re.compile(r"0[0-7]+(?![0-9A-Za-z_.:])")
OPTIONS = frozenset({"l3hv_break_lock", "l3hv_build", "l3hv_removals"})
"""Variables that tell one run what to do, and nothing about the fabric."""
INTERNAL = OPTIONS | {"l3hv_bgp_secrets", "l3hv_observed", "l3hv_plan", "l3hv_run", "l3hv_twin"}
"""Variables with the prefix that are no intent: options and facts of a run, secrets, which only their files
get, and what the twin says of itself."""


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


def needs_ansible(value: Any) -> bool:
    """Tell whether only Ansible can say what ``value`` is: a Jinja expression or a vaulted text is in it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(needs_ansible(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(needs_ansible(item) for item in value)
    return not (value is None or isinstance(value, (bool, int, float)))


@dataclass(frozen=True)
class Inventory:
    """An inventory as Ansible sees it.

    ``groups`` maps group names to host names; ``raw`` returns a host's variables before templating;
    ``template`` resolves one value of such variables; ``sources`` are the inventory's files and directories;
    ``extra`` names the variables of the command line.
    """

    groups: Mapping[str, Sequence[str]]
    raw: Callable[[str], Mapping[str, Any]]
    template: Callable[[Mapping[str, Any], Any], Any]
    sources: tuple[Path, ...]
    extra: frozenset[str] = frozenset()

    def kinds(self) -> tuple[dict[str, Kind], list[Problem]]:
        """Return what each host of the fabric's groups is, and a problem for each that is in two of them."""
        groups_of: dict[str, list[str]] = {}
        for group in KINDS:
            for host in self.groups.get(group, ()):
                groups_of.setdefault(str(host), []).append(group)
        kinds: dict[str, Kind] = {}
        problems: list[Problem] = []
        for host, groups in sorted(groups_of.items()):
            kind, found = host_kind(host, groups)
            problems += found
            if kind is not None:
                kinds[host] = kind
        return kinds, problems

    def foreigners(
        self,
        kinds: Collection[str],
        files: Mapping[str, dict[str, list[int]]],
        known: Mapping[str, dict[str, list[int]]],
    ) -> tuple[dict[str, dict[str, list[int]]], list[Problem]]:
        """Return the hosts that are not the fabric's, with their files; a problem for each that should be.

        ``known`` are those of an earlier run: one with the same files is not looked at again.
        """
        hosts = [str(host) for host in self.groups["all"] if host not in kinds]
        found: dict[str, dict[str, list[int]]] = {}
        problems: list[Problem] = []
        groups_of: dict[str, list[str]] = {}
        for host in hosts:
            own = files.get(host, {})
            if known.get(host) != own:
                raw = self.raw(host)
                marks = [name for name in MARKS if raw.get(name) is not None]
                if marks:
                    if not groups_of:
                        for group, members in sorted(self.groups.items()):
                            for each in members:
                                groups_of.setdefault(str(each), []).append(str(group))
                    problems.append(_misplaced(host, marks, groups_of.get(host, ())))
                    continue
            found[host] = own
        return found, problems

    def variables(self, host: str) -> tuple[dict[str, Any], bool, list[Problem]]:
        """Return the intent of ``host`` as plain values, whether any was templated, and what has no value."""
        from ansible.errors import AnsibleError

        raw = self.raw(host)
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        is_templated = False
        for key in raw:
            if not isinstance(key, str) or not key.startswith(PREFIX) or key in INTERNAL:
                continue
            try:
                if needs_ansible(raw[key]):
                    is_templated = True
                    values[str(key)] = plain(self.template(raw, raw[key]))
                else:
                    values[str(key)] = plain(raw[key])
                    if _has_octal(raw[key]):
                        problems += _octals(host, str(key), raw[key])
            except RecursionError:
                message = "Lists and mappings lie too deep in each other."
                problems.append(
                    Problem(host, _on_one_line(str(key)), "", message, "Look for one that contains itself.")
                )
            except AnsibleError:
                problems += self._unresolved(host, raw, str(key), raw[key])
        return values, is_templated, problems

    def _unresolved(self, host: str, raw: Mapping[str, Any], field: str, value: Any) -> Iterator[Problem]:
        """Yield a problem for each part of ``value`` that Ansible finds no value for."""
        from ansible.errors import AnsibleError

        if isinstance(value, (Mapping, list, tuple)):
            parts = (
                {f"{field}.{shown(key)}": value[key] for key in value}
                if isinstance(value, Mapping)
                else {f"{field}[{index}]": item for index, item in enumerate(value)}
            )
            for place, part in parts.items():
                yield from self._unresolved(host, raw, place, part)
            return
        try:
            self.template(raw, value)
        except AnsibleError as error:
            reason = shown(error.message.partition("\n")[0].rstrip("."), longest=_LONGEST_REASON)
            expression = f" for {found(value)}" if isinstance(value, str) else ""
            yield Problem(
                host,
                _on_one_line(field),
                shown(value),
                f"Ansible finds no value{expression}: {reason}.",
                "Define what it refers to, or correct the expression.",
            )


def _has_octal(value: Any) -> bool:
    if isinstance(value, str) or value is None:
        return False
    if isinstance(value, Mapping):
        return any(map(_has_octal, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_octal, value))
    return isinstance(value, int) and not isinstance(value, bool) and _octal_of(value) is not None


def _octals(host: str, field: str, value: Any) -> Iterator[Problem]:
    """Yield a problem for each number with leading zeros: YAML 1.1 reads it as octal, without a word."""
    if isinstance(value, Mapping):
        for key in value:
            yield from _octals(host, f"{field}.{shown(key)}", value[key])
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _octals(host, f"{field}[{index}]", item)
    elif _has_octal(value):
        written = _octal_of(value) or ""
        message = f"YAML reads {written} as an octal number, which is {int(value)}."
        remedy = f"Write it without leading zeros: {written.lstrip('0')}, or {int(value)}."
        yield Problem(host, _on_one_line(field), written, message, remedy)


def _octal_of(value: int) -> str | None:
    """Return how a number is written in its file, if that has leading zeros and another decimal value."""
    place = _place_of(value)
    if place is None:
        return None
    path, number, column = place
    lines = _lines(path)
    line = lines[number - 1] if number <= len(lines) else ""
    written = _LEADING_ZERO.match(line, column - 1)
    return written[0] if written and int(written[0]) != int(value) else None


def _place_of(value: int) -> tuple[str, int, int] | None:
    """Return the file, line and column that Ansible has read a value from, if it knows them.

    Ansible has no public interface for that.  Where its internal one has changed, the check of leading zeros
    is left out, and a warning says so.
    """
    tag = _origin_tag()
    try:
        origin = tag.get_tag(value) if tag else None
        if origin is None or origin.path is None or origin.line_num is None or origin.col_num is None:
            return None
        return str(origin.path), int(origin.line_num), int(origin.col_num)
    except (AttributeError, TypeError, ValueError):
        _warn_of_octals()
        return None


@functools.cache
def _origin_tag() -> Any:
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        _warn_of_octals()
        return None
    return Origin


@functools.cache
def _warn_of_octals() -> None:
    from ansible.utils.display import Display

    Display().warning(
        "This ansible-core does not say where it has read a value. Numbers with leading zeros, which YAML"
        " reads as octal, are not refused in this run."
    )


@functools.lru_cache(maxsize=4)
def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _misplaced(host: str, marks: Sequence[str], groups: Iterable[str]) -> Problem:
    """Return the problem of a host with variables of the fabric that is in none of its groups."""
    others = [group for group in groups if group not in ("all", "ungrouped")]
    verb = "belong" if len(marks) > 1 else "belongs"
    message = (
        f"The host is in none of {', '.join(KINDS)}, and {' and '.join(marks)} {verb} to hosts of these."
    )
    for group in others:
        close = difflib.get_close_matches(group, KINDS, n=1)
        if close:
            remedy = f"It is in {group}: did you mean {close[0]}?"
            return Problem(host, "groups", ", ".join(others), message, remedy)
    remedy = "Put it into one of them, or remove the variables."
    return Problem(host, "groups", ", ".join(others), message, remedy)


@dataclass(frozen=True)
class Options:
    """What ansible-playbook is told of an inventory besides where it is: its options of the same names."""

    extra_vars: tuple[str, ...] = ()
    vault_ids: tuple[str, ...] = ()
    vault_password_files: tuple[str, ...] = ()
    ask_vault_password: bool = False


def open_inventory(*sources: Path, options: Options | None = None) -> Inventory:
    """Load an inventory of files, directories and lists of hosts (``hv1,``) outside any playbook run.

    Passwords of the vault are also read from where ansible.cfg and the environment say.  They and the extra
    variables of the first call hold for the process.  Raises IntentError when there is nothing at one of the
    ``sources``, or nothing that Ansible can read.
    """
    from ansible import context
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar
    from ansible.utils.collection_loader import AnsibleCollectionConfig
    from ansible.utils.context_objects import CLIArgs
    from ansible.vars.hostvars import HostVars
    from ansible.vars.manager import VariableManager

    options = options or Options()
    if missing := [str(source) for source in sources if "," not in str(source) and not source.exists()]:
        message = "There is no such file or directory."
        raise IntentError([Problem("inventory", source, "", message, "Check -i.") for source in missing])
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()  # Without it no plugin has its full name.
    if options.extra_vars:
        context.CLIARGS = CLIArgs({**context.CLIARGS, "extra_vars": options.extra_vars})
    loader = DataLoader()
    # group_vars and host_vars beside the inventory count, not those of wherever one happens to be.
    loader.set_basedir(str(sources[0] if sources[0].is_dir() else sources[0].parent))
    _set_vault_secrets(loader, options)
    try:
        manager = InventoryManager(loader=loader, sources=[str(source) for source in sources])
    except AnsibleError as error:  # it has told why, plugin by plugin
        named = " ".join(f"-i {source}" for source in sources)
        message = "Ansible cannot read all of it."
        remedy = f"Run ansible-inventory --list {named}."
        raise IntentError([Problem("inventory", " ".join(map(str, sources)), "", message, remedy)]) from error
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(manager, variables, loader)
    return Inventory(
        groups=manager.get_groups_dict(),
        raw=hostvars.raw_get,
        template=lambda raw, value: Templar(loader=loader, variables={**raw, "hostvars": hostvars}).template(
            value
        ),
        sources=sources,
    )


def _set_vault_secrets(loader: DataLoader, options: Options) -> None:
    """Give a loader the passwords of the vault.  There is one set of them for a process."""
    from ansible.cli import CLI
    from ansible.constants import config
    from ansible.parsing.vault import VaultSecretsContext

    if (known := VaultSecretsContext.current(optional=True)) is not None:
        loader.set_vault_secrets(known.secrets)
        return
    secrets = CLI.setup_vault_secrets(
        loader,
        vault_ids=[*config.get_config_value("DEFAULT_VAULT_IDENTITY_LIST"), *options.vault_ids],
        vault_password_files=list(options.vault_password_files),
        ask_vault_pass=options.ask_vault_password or config.get_config_value("DEFAULT_ASK_VAULT_PASS"),
        auto_prompt=False,
    )
    loader.set_vault_secrets(secrets)


@dataclass
class Stamp:
    """What the inventory's files looked like, those of each host apart: path → how it was last changed.

    The time of modification and the size alone are not enough: ``cp -p`` and ``rsync -t`` set the former, and
    an edit may keep the latter.  No program can set the time of change, and a renamed file has another inode.
    """

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
        try:
            status = path.stat()
        except FileNotFoundError:
            return  # an editor's lock is a link to nowhere
        entry = [status.st_mtime_ns, status.st_size, status.st_ctime_ns, status.st_ino]
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
            if path.name.startswith("."):
                continue
            if path.is_dir():
                walk(path, path.name)
            else:
                note(path, path.stem if path.suffix in VARIABLE_FILES else path.name)

    def is_static(path: Path) -> bool:
        if not path.exists():
            return True
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


def strays(
    seen: Stamp, sources: Sequence[Path], hosts: Collection[str], groups: Collection[str] = ()
) -> list[tuple[Path, str]]:
    """Return the files and directories of host_vars and group_vars that nothing reads, each with a remedy.

    Those beside a playbook, or beside one of several inventories, may be of hosts that are elsewhere.
    Without ``groups`` nothing is told of group_vars.
    """
    places = [source if source.is_dir() else source.parent for source in sources if _is_alone(source)]
    found: dict[Path, str] = {}
    for place in places:
        for folder, names, kind in (("host_vars", hosts, "host"), ("group_vars", groups, "group")):
            if not names or not (place / folder).is_dir():
                continue
            owners = {path: _owner(path) for path in sorted((place / folder).iterdir())}
            for path, name in owners.items():
                if name and not name.startswith(".") and name not in names:
                    # One that has a file of its own was not meant.
                    close = difflib.get_close_matches(name, {*names} - {*owners.values()}, n=1)
                    remedy = f"Did you mean {close[0]}?" if close else f"Add the {kind}, or remove the file."
                    found[path] = remedy
    return [(path, found[path]) for path in sorted(found) if path.is_file() or any(path.iterdir())]


def place_of_error(error: BaseException | None) -> str:
    """Return the file, line and column that an error of Ansible or its cause is about, or nothing."""
    while error is not None:
        origin = getattr(error, "obj", None)
        if getattr(origin, "path", None) is not None:
            return str(origin)
        error = error.__cause__ or error.__context__
    return ""


def unreadable_files(sources: Sequence[Path], loader: DataLoader) -> list[str]:
    """Return what is wrong in each file of variables that ``loader`` cannot read, with its line and column.

    Ansible names no file where it reads the variables of a host for a task (ansible-core 2.19).
    """
    from ansible.errors import AnsibleError

    seen = stamp(sources)
    sentences = []
    for path in sorted({*seen.shared, *itertools.chain.from_iterable(seen.hosts.values())}):
        if Path(path).suffix in VARIABLE_FILES:
            try:
                loader.load_from_file(path, cache="none")
            except AnsibleError as error:
                if place := place_of_error(error):
                    sentences.append(f"{place}: {error}")
    return sentences


def _owner(path: Path) -> str:
    """Return whose variables a file or directory holds: nobody's, if it is a file with another ending."""
    if path.is_dir():
        return path.name
    return path.stem if path.suffix in VARIABLE_FILES else ""


def _stray_sentences(found: Sequence[tuple[Path, str]]) -> list[str]:
    sentences = [
        f"{path} is not read: the inventory has no such {path.parent.name.removesuffix('_vars')}. {remedy}"
        for path, remedy in found[:MOST_STRAYS]
    ]
    more = len(found) - MOST_STRAYS
    return [*sentences, f"There are {more} more like these."] if more > 0 else sentences


def _stray_problems(found: Sequence[tuple[Path, str]]) -> list[Problem]:
    """Return a problem for each such file: where something is missing, it is what was meant to be there."""
    return [
        Problem(
            "inventory",
            f"{path.parent.name}/{path.name}",
            "",
            f"The inventory has no such {path.parent.name.removesuffix('_vars')}, and this is not read.",
            remedy,
        )
        for path, remedy in found[:MOST_STRAYS]
    ]


def _is_alone(source: Path) -> bool:
    """Tell whether what is beside an inventory is of that alone."""
    if source.is_file():
        return [entry for entry in source.parent.iterdir() if entry.is_file()] == [source]
    return source.is_dir()


@dataclass
class Known:
    """What is remembered of one host: its files when it was read, what it claims, who it is to others.

    ``announcements`` is what :func:`l3hv.verify.announcements.announcements` says of its plan.
    """

    files: dict[str, list[int]]
    kind: Kind
    guests: int
    member: Member
    claims: tuple[Claim, ...]
    announcements: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What :func:`read_fabric` left on disk, how large the fabric is, and what is worth a warning.

    ``applied`` is what :func:`l3hv.removals.record_applied` keeps in ``memory`` when the run has been
    applied; ``removals`` is what the run takes out of service.
    """

    slices: Path
    announcements: Path
    applied: Path
    memory: Path
    fabric: str
    hosts: int
    guests: int
    warnings: tuple[str, ...]
    removals: Removals


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for cyclic garbage: among the millions of objects of a large fabric each look takes longer.

    One host of 1,000 with 100 guests each took 2.6 s, and takes 1.2 s without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage()
def read_fabric(
    inventory: Inventory,
    touched: Collection[str],
    directory: Path,
    beside: Sequence[Path] = (),
    *,
    variant: str = "",
) -> Run:
    """Read and check the intent of the whole fabric, and write the slices of the hosts in ``touched``.

    ``directory`` keeps what belongs to each inventory, and to each ``variant`` of it (a twin, other extra
    variables), in a folder of its own; ``beside`` are the directories of playbooks, whose group_vars count
    too.  Raises IntentError with all problems before it writes anything.
    """
    kinds, problems = inventory.kinds()
    seen = stamp(inventory.sources, beside)
    place = directory / _digest(
        [*(str(source) for source in inventory.sources), *([variant] * bool(variant))]
    )
    unread = strays(seen, inventory.sources, inventory.groups["all"], inventory.groups)
    remembered, foreign = _load(place, seen) if seen.static else ({}, {})
    if not any(host in touched for host in kinds):
        problems.append(_nothing_to_do(inventory, kinds, touched))
    foreign, misplaced = inventory.foreigners(kinds, seen.hosts, foreign)
    if misplaced or not any(host in touched for host in kinds):
        raise IntentError([*problems, *misplaced, *_stray_problems(unread)])
    # Reflectors are few, and what the others announce depends on them: they are always read.
    wanted = [
        host
        for host, kind in kinds.items()
        if host in touched
        or kind == "route_reflector"
        or not _is_fresh(remembered.get(host), kind, seen.hosts.get(host))
    ]
    reading = _parse(inventory, kinds, wanted)
    rest = [host for host in kinds if host not in reading.seen]
    if rest and reading.basis != _basis_of(place):
        reading = _parse(inventory, kinds, [*wanted, *rest])
    problems += _explained(reading.problems, inventory)
    common, hosts = reading.common, reading.hosts
    if common is None or problems:
        raise IntentError([*problems, *_stray_problems(unread)])

    known = {host: remembered[host] for host in kinds if host in remembered and host not in hosts}
    members = {host: known[host].member if host in known else member(hosts[host]) for host in kinds}
    roster = Roster(members.values())
    claimed = {host: known[host].claims if host in known else claims(hosts[host]) for host in kinds}
    problems += [
        *clashes(claimed, common),
        *range_problems(members.values()),
        *key_problems(members.values()),
    ]
    before = load_applied(place / "applied")
    guests = {claim.value for several in claimed.values() for claim in several if claim.kind == "guest"}
    removed = removals(before, touched, kinds, guests)
    if problems or (unread and _lacks_something(kinds, before)):
        raise IntentError([*problems, *_stray_problems(unread)])

    slices: dict[str, dict[str, Any]] = {}
    applied: dict[str, dict[str, Any]] = {}
    most = largest(claimed)
    all_owners = functools.cache(lambda: owners(claimed, {host: members[host].id for host in kinds}))
    all_holders = functools.cache(lambda: holders(claimed))
    for host, intent in hosts.items():
        part = host_slice(
            common,
            intent,
            peers(intent, roster),
            most,
            all_owners if host in touched else tuple,
            edges=edges(intent, roster),
            holders=all_holders,
        )
        if host in touched:
            slices[host] = part
            applied[host] = {
                "guests": [guest.name for guest in intent.guests],
                "neighbors": neighbors(intent, roster),
            }
        known[host] = Known(
            files=seen.hosts.get(host, {}),
            kind=intent.kind,
            guests=len(intent.guests),
            member=members[host],
            claims=claimed[host],
            announcements=announcements(host_plan(part)),
        )
    _remember(place, reading=reading, seen=seen, known=known, remembered=remembered, foreign=foreign)
    run = _run_directory(place)
    for host, part in slices.items():
        write_json(run / "slices" / f"{host}.json", part)
    write_json(run / "applied.json", applied)
    os.link(place / "announcements.json", run / "announcements.json")
    return Run(
        slices=run / "slices",
        announcements=run / "announcements.json",
        applied=run / "applied.json",
        memory=place / "applied",
        fabric=common.fabric,
        hosts=len(known),
        guests=sum(host.guests for host in known.values()),
        warnings=tuple(_stray_sentences(unread)),
        removals=removed,
    )


def _nothing_to_do(inventory: Inventory, kinds: Collection[str], touched: Collection[str]) -> Problem:
    """Return why a run would do nothing: the inventory has no fabric, or --limit leaves nothing of it."""
    if kinds:
        hosts = sorted(set(touched) & set(inventory.groups["all"]), key=natural_key)
        return Problem(
            "inventory",
            "--limit",
            "",
            f"{', '.join(hosts[:MOST_STRAYS]) or 'None of the hosts'} is not in {', '.join(KINDS)}.",
            "Limit the run to hosts of the fabric.",
        )
    close = [
        f"{group} for {near[0]}"
        for group in sorted(set(inventory.groups) - {"all", "ungrouped"})
        if (near := difflib.get_close_matches(group, KINDS, n=1))
    ]
    named = f" The inventory has {', '.join(close)}." if close else ""
    sources = ", ".join(map(str, inventory.sources)) or "no inventory"
    return Problem(
        "inventory",
        "groups",
        "",
        f"No host of {sources} is in a group of the fabric.{named}",
        f"Put hosts into {', '.join(KINDS)}, or name another inventory with -i.",
    )


def _lacks_something(kinds: Mapping[str, Kind], before: Collection[str]) -> bool:
    """Tell whether the fabric has no hypervisor or reflector, or lost a host since the last run."""
    return any(host not in kinds for host in before) or not {"hypervisor", "route_reflector"} <= set(
        kinds.values()
    )


def _explained(problems: Iterable[Problem], inventory: Inventory) -> list[Problem]:
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


@dataclass
class _Reading:
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
        return _digest([self.shared, reflectors])


def _parse(
    inventory: Inventory,
    kinds: Mapping[str, Kind],
    wanted: Iterable[str],
    override: Mapping[str, Any] | None = None,
) -> _Reading:
    """Read the hosts in ``wanted``. The first one's common facts count; who has others is told."""
    reading = _Reading()
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


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def _code_stamp() -> list[list[Any]]:
    """Tell this version of the package from others: what they remembered may mean something else."""
    package = Path(__file__).parent
    return [[path.name, path.stat().st_mtime_ns] for path in sorted(package.rglob("*.py"))]


def _is_fresh(known: Known | None, kind: Kind, files: dict[str, list[int]] | None) -> bool:
    return known is not None and known.kind == kind and known.files == (files or {})


_Files = dict[str, dict[str, list[int]]]


def _load(place: Path, seen: Stamp) -> tuple[dict[str, Known], _Files]:
    """Return what is remembered of hosts, and the hosts that are not the fabric's, with their files.

    When a file that all hosts share has changed, nothing is remembered.
    """
    try:
        basis = json.loads((place / "basis.json").read_text(encoding="utf-8"))
        if basis["shared"] != seen.shared or basis["code"] != _code_stamp():
            return {}, {}
        foreign = dict(basis["foreign"])
        said = json.loads((place / "announcements.json").read_text(encoding="utf-8"))
        known = {}
        for path in (place / "known").glob("*.json"):
            entry = json.loads(path.read_text(encoding="utf-8"))
            known[path.stem] = Known(
                files=entry["files"],
                kind=entry["kind"],
                guests=entry["guests"],
                member=from_plain(Member, entry["member"]),
                claims=tuple(Claim(*claim) for claim in entry["claims"]),
                announcements=said[path.stem],
            )
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}  # Written by another version, or half removed: it is only a memory.
    return known, foreign


def _basis_of(place: Path) -> str:
    return str(json.loads((place / "basis.json").read_text(encoding="utf-8"))["basis"])


def _run_directory(place: Path) -> Path:
    """Return a directory of this run's own: another one, with other extra variables, may be under way.

    Those of runs that ended long ago are removed.
    """
    runs = place / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > KEEP_RUNS_S:
                shutil.rmtree(old, ignore_errors=True)  # another run may remove it as well
    return Path(tempfile.mkdtemp(dir=runs))


def _remember(
    place: Path,
    *,
    reading: _Reading,
    seen: Stamp,
    known: Mapping[str, Known],
    remembered: Mapping[str, Known],
    foreign: _Files,
) -> None:
    """Keep of each host what has changed since it was remembered."""
    if known != remembered or not (place / "announcements.json").exists():
        write_json(place / "announcements.json", {host: entry.announcements for host, entry in known.items()})
    # What came out of a template depends on more than files, and a program's inventory on anything.
    kept = {host: entry for host, entry in known.items() if seen.static and host not in reading.templated}
    for path in (place / "known").glob("*.json"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    for host, entry in kept.items():
        if entry != remembered.get(host):
            write_json(
                place / "known" / f"{host}.json",
                {
                    "files": entry.files,
                    "kind": entry.kind,
                    "guests": entry.guests,
                    "member": as_plain(entry.member),
                    "claims": [
                        [claim.kind, claim.value, claim.field, claim.shared] for claim in entry.claims
                    ],
                },
            )
    write_json(
        place / "basis.json",
        {"code": _code_stamp(), "shared": seen.shared, "basis": reading.basis, "foreign": foreign},
    )


def read_topology(
    *sources: Path, options: Options | None = None, override: Mapping[str, Any] | None = None
) -> Topology:
    """Read an inventory whole and return the machines and guests to cable.

    ``override`` are variables of the intent that all hosts have whatever the inventory says.  Raises
    IntentError with every problem of the intent.
    """
    inventory = open_inventory(*sources, options=options)
    kinds, problems = inventory.kinds()
    if not kinds:
        problems.append(_nothing_to_do(inventory, kinds, ()))
    problems += inventory.foreigners(kinds, {}, {})[1]
    reading = _parse(inventory, kinds, kinds, override)
    problems += reading.problems
    if reading.common is not None and not problems:
        claimed = {host: claims(intent) for host, intent in reading.hosts.items()}
        problems += clashes(claimed, reading.common)
    if problems:
        raise IntentError(problems)
    return topology(reading.hosts.values())


def _on_one_line(field: str) -> str:
    return field if field.isprintable() else shown(field)

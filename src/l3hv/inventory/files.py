"""The files of an inventory: when each was changed, which of them nothing reads, which are broken."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from l3hv.model.errors import Problem

if TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader

VARIABLE_FILES = frozenset({".yml", ".yaml", ".json"})
"""What a file of host_vars can end with, if it ends with anything but its host's name."""
MOST_STRAYS = 3
"""How many files without a host or group are named."""


Files = dict[str, list[int]]
"""The files of one host or of all, by path: the times, size and inode of each (:class:`Stamp`)."""


@dataclass
class Stamp:
    """What the inventory's files looked like, those of each host apart: path → how it was last changed.

    The time of modification and the size alone are not enough: ``cp -p`` and ``rsync -t`` set the former, and
    an edit may keep the latter.  No program can set the time of change, and a renamed file has another inode.
    """

    shared: Files = field(default_factory=dict)
    hosts: dict[str, Files] = field(default_factory=dict)
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


def stray_sentences(found: Sequence[tuple[Path, str]]) -> list[str]:
    sentences = [
        f"{path} is not read: the inventory has no such {path.parent.name.removesuffix('_vars')}. {remedy}"
        for path, remedy in found[:MOST_STRAYS]
    ]
    more = len(found) - MOST_STRAYS
    return [*sentences, f"There are {more} more like these."] if more > 0 else sentences


def stray_problems(found: Sequence[tuple[Path, str]]) -> list[Problem]:
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

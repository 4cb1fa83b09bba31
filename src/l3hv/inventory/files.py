"""The files of an inventory: their state on disk, files that Ansible does not read, and invalid files."""

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
"""The extensions that a file in host_vars or group_vars can have; it may also have none."""
MOST_STRAYS = 3
"""Maximum number of names in a list of files or hosts."""

Files = dict[str, list[int]]
"""The files of one host or of all, by path: the times, size and inode of each (:class:`Stamp`)."""


@dataclass
class Stamp:
    """The state of the inventory's files by path: times, size and inode.

    ``shared`` are the files that affect all hosts, ``hosts`` the files of single hosts, by host.
    Modification time and size are not enough: ``cp -p`` and ``rsync -t`` set the time, and an edit may keep
    the size.  No program can set the time of change (ctime), and a renamed file has another inode.
    """

    shared: Files = field(default_factory=dict)
    hosts: dict[str, Files] = field(default_factory=dict)
    static: bool = True

    def add(self, path: Path, host: str | None) -> None:
        """Add the state of a file of one host, or of all hosts (``None``)."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return  # the lock file of an editor can be a dangling link
        files = self.shared if host is None else self.hosts.setdefault(host, {})
        files[str(path)] = [status.st_mtime_ns, status.st_size, status.st_ctime_ns, status.st_ino]

    def add_directory(self, directory: Path, host: str | None) -> None:
        """Add all files below a directory."""
        for path in _visible(directory):
            if path.is_dir():
                self.add_directory(path, host)
            else:
                self.add(path, host)

    def add_host_vars(self, directory: Path) -> None:
        """Add the files of a directory host_vars, which has a file or a directory for each host."""
        for path in _visible(directory):
            if path.is_dir():
                self.add_directory(path, path.name)
            else:
                self.add(path, path.stem if path.suffix in VARIABLE_FILES else path.name)

    def add_source(self, path: Path) -> None:
        """Add a file of the inventory itself."""
        self.static = self.static and _is_static(path)
        self.add(path, None)

    def add_source_directory(self, directory: Path) -> None:
        """Add an inventory that is a directory."""
        for path in _visible(directory):
            if path.name == "host_vars" and path.is_dir():
                self.add_host_vars(path)
            elif path.is_dir():
                self.add_directory(path, None)
            else:
                self.add_source(path)


def stamp(sources: Sequence[Path], extra: Sequence[Path] = ()) -> Stamp:
    """Return the state of every file that variables can come from.

    ``extra`` are further directories with group_vars and host_vars (beside the playbook).  An inventory that
    is a program or a plugin's configuration is not ``static``: the index stores nothing about it.
    """
    state = Stamp()
    beside = [*extra]
    for source in sources:
        if source.is_dir():
            state.add_source_directory(source)
        elif source.is_file():
            state.add_source(source)
            beside.append(source.parent)
        else:
            state.static = False
    for directory in dict.fromkeys(beside):
        if (directory / "group_vars").is_dir():
            state.add_directory(directory / "group_vars", None)
        if (directory / "host_vars").is_dir():
            state.add_host_vars(directory / "host_vars")
    return state


def _visible(directory: Path) -> list[Path]:
    """Return the entries of a directory that Ansible reads, sorted."""
    return [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]


def _is_static(path: Path) -> bool:
    """Tell whether a file of an inventory is neither a program nor the configuration of a plugin."""
    if not path.exists():
        return True
    if os.access(path, os.X_OK):
        return False
    with path.open(encoding="utf-8", errors="replace") as text:
        return not any(line.startswith("plugin:") for line in text)


def strays(
    seen: Stamp, sources: Sequence[Path], hosts: Collection[str], groups: Collection[str] = ()
) -> list[tuple[Path, str]]:
    """Return the files and directories of host_vars and group_vars that are not read, each with a remedy.

    Files beside a playbook, or beside one of several inventories, are not checked: they may belong to hosts
    of another inventory.  Without ``groups`` the files of group_vars are not checked.
    """
    places = [source if source.is_dir() else source.parent for source in sources if _is_alone(source)]
    remedies: dict[Path, str] = {}
    for place in places:
        for folder, names, kind in (("host_vars", hosts, "host"), ("group_vars", groups, "group")):
            if not names or not (place / folder).is_dir():
                continue
            owners = {path: _owner(path) for path in sorted((place / folder).iterdir())}
            for path, name in owners.items():
                if name and not name.startswith(".") and name not in names:
                    # Suggest only names that have no file yet.
                    close = difflib.get_close_matches(name, {*names} - {*owners.values()}, n=1)
                    remedy = f"Did you mean {close[0]}?" if close else f"Add the {kind}, or remove the file."
                    remedies[path] = remedy
    return [(path, remedies[path]) for path in sorted(remedies) if path.is_file() or any(path.iterdir())]


def place_of_error(error: BaseException | None) -> str:
    """Return the file, line and column that an error of Ansible, or its cause, refers to; "" without them."""
    while error is not None:
        origin = getattr(error, "obj", None)
        if getattr(origin, "path", None) is not None:
            return str(origin)
        error = error.__cause__ or error.__context__
    return ""


def unreadable_files(sources: Sequence[Path], loader: DataLoader) -> list[str]:
    """Return an error with line and column for each file of variables that ``loader`` cannot read.

    Ansible's own error names no file if it reads the variables of a host for a task (ansible-core 2.19).
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
    """Return the host or group that a file or directory belongs to; "" for a file with another extension."""
    if path.is_dir():
        return path.name
    return path.stem if path.suffix in VARIABLE_FILES else ""


def stray_sentences(unread: Sequence[tuple[Path, str]]) -> list[str]:
    """Return a warning for each file that is not read (:func:`strays`)."""
    sentences = [
        f"{path} is not read: the inventory has no such {path.parent.name.removesuffix('_vars')}. {remedy}"
        for path, remedy in unread[:MOST_STRAYS]
    ]
    more = len(unread) - MOST_STRAYS
    if more > 0:
        sentences.append(f"The same applies to {more} more {'files' if more > 1 else 'file'}.")
    return sentences


def stray_problems(unread: Sequence[tuple[Path, str]]) -> list[Problem]:
    """Return a problem for each file that is not read: its wrong name may be the cause of other problems."""
    return [
        Problem(
            "inventory",
            f"{path.parent.name}/{path.name}",
            "",
            f"The inventory has no such {path.parent.name.removesuffix('_vars')}: this file is not read.",
            remedy,
        )
        for path, remedy in unread[:MOST_STRAYS]
    ]


def _is_alone(source: Path) -> bool:
    """Tell whether the files beside an inventory can only belong to this inventory."""
    if source.is_file():
        return [entry for entry in source.parent.iterdir() if entry.is_file()] == [source]
    return source.is_dir()

"""Wanted files and found files, and the replacement of a file by a rename."""

from __future__ import annotations

import contextlib
import functools
import glob
import grp
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.l3hv.config_files.refused import Refused
from ansible.module_utils.l3hv.write_errors import unwritable

STAGED = ".config_files"
"""The end of the temporary name of a file until it replaces the old one."""

MOST_OF_NAME = 200
"""Maximum number of characters of a file's name in its temporary name, which is limited to 255 bytes."""

LEFT_OVER_S = 3600


class File:
    """One wanted file."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.dest: str = given["dest"]
        self.sensitive: bool = given["content"] is None
        self.content: bytes = given["secret_content" if self.sensitive else "content"].encode("utf-8")
        self.validate: str | None = given["validate"]
        self.mode = int(given["mode"], 8)
        self.owner, self.group = given["owner"], given["group"]
        self.uid: int | None
        self.gid: int | None
        try:
            self.uid, self.gid = pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError:
            # In check mode on a bare machine the package that brings the user is not installed.
            self.uid = self.gid = None


class Found:
    """One file as it is on the host; the fields are ``None`` if it does not exist."""

    def __init__(self, path: str) -> None:
        self.content: bytes | None
        self.mode: int | None
        self.uid: int | None
        self.gid: int | None
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.content = self.mode = self.uid = self.gid = None
            return
        self.mode, self.uid, self.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                self.content = stream.read()
        else:  # a link, for example to /dev/null: it is replaced by a file and never followed
            self.content = b""
            self.mode = None

    @property
    def exists(self) -> bool:
        return self.content is not None

    def attributes(self) -> str:
        return f"{'-' if self.mode is None else format(self.mode, '04o')} {self.uid}:{self.gid}"

    def equals(self, wanted: File) -> bool:
        return (
            self.content == wanted.content
            and self.mode == wanted.mode
            and wanted.uid in (None, self.uid)
            and wanted.gid in (None, self.gid)
        )


@contextlib.contextmanager
def reporting_write_errors(path: str, done: str = "written") -> Iterator[None]:
    """Raise Refused if ``path`` cannot be ``done`` (written or removed)."""
    try:
        yield
    except OSError as error:
        raise Refused(unwritable(path, error, done)) from error


def write_file(path: str, content: bytes, mode: int, uid: int | None, gid: int | None) -> None:
    """Replace ``path`` by a rename, so that a reader sees either the old or the new content."""
    directory, name = os.path.split(path)
    with reporting_write_errors(path):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        remove_left_over(directory)
        # systemd, sysctl.d, rt_tables.d and dnsmasq ignore files with hidden names. Each process has its own
        # name: with a common name, a process could put the unfinished file of another one in place.
        descriptor, staged = tempfile.mkstemp(dir=directory, prefix=f".{name[:MOST_OF_NAME]}.", suffix=STAGED)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchown(stream.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.rename(staged, path)
        except BaseException:
            if os.path.lexists(staged):
                os.unlink(staged)
            raise


@functools.cache
def remove_left_over(directory: str) -> None:
    """Remove unfinished files of processes that were killed, once for each directory."""
    for staged in glob.glob(os.path.join(glob.escape(directory), f".*{STAGED}")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(staged).st_mtime > LEFT_OVER_S:
                os.unlink(staged)

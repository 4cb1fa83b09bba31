"""Processes that outlive the verb that starts them: supervisors of machines, the mirror.

A daemon locks the ``pid`` file of its directory while it runs, so a PID in a locked file always
belongs to that daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from l3hv.twin import TwinError


def start(directory: Path, work: Callable[[], None]) -> None:
    """Run ``work`` in a daemon that owns a directory, and return at once.

    The daemon writes its output to ``console.log`` there, and the error that ended it to ``failure``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "failure").unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    _run(directory, work)


def pid(directory: Path) -> int | None:
    """Return the PID of the daemon that owns a directory, or None if none runs."""
    try:
        with (directory / "pid").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        return None
    return None


def end(directory: Path) -> None:
    """Send SIGKILL to the daemon that owns a directory, if one runs."""
    if found := pid(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found, signal.SIGKILL)


def _run(directory: Path, work: Callable[[], None]) -> NoReturn:
    try:
        os.chdir("/")
        log = os.open(directory / "console.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 1 << 16)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with (directory / "pid").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            work()
    except BaseException as error:  # noqa: BLE001 - a fork must never return into the verb
        if not isinstance(error, TwinError):
            traceback.print_exc()
        (directory / "failure").write_text(f"{error}\n")
        os._exit(1)
    os._exit(0)

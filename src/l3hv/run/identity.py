"""The identity of a playbook run, which the locks on its hosts store."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of programs on hosts: the account's own PATH may lack sbin."""

LEAST_LEASE_S = 30 * 60
REFLECTOR_S = 5 * 60
"""Maximum time for one reflector. Reflectors change one after the other; each waits for the ones before."""
CLIENTS_S = 10 * 60
"""Maximum time for one batch of clients (as many as Ansible's forks), with packages to install."""


def describe_run(command: str, pid: int, lease: int = LEAST_LEASE_S) -> dict[str, Any]:
    """Return the identity of the run of process ``pid``; :func:`has_ended` finds the process by it.

    ``command`` is the text by which an operator recognises the run.  It has no extra variables, because they
    may be secrets.  ``lease`` is the result of :func:`lease_seconds`.
    """
    return {
        "id": secrets.token_hex(8),
        "owner": os.environ.get("SUDO_USER") or _user(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": command,
        "process": [_machine(), pid, _start_time(pid)],
        "lease": lease,
    }


def lease_seconds(reflectors: int, clients: int, forks: int) -> int:
    """Return the time in seconds after which the lock of a run lapses if nothing renews it.

    A host's lock is renewed only while the run works on that host.  In between the run may work on all other
    hosts: the last reflector waits for all clients and for all other reflectors.

    >>> lease_seconds(reflectors=2, clients=4, forks=5) // 60
    50
    """
    batches = -(-clients // max(1, forks))
    return LEAST_LEASE_S + reflectors * REFLECTOR_S + batches * CLIENTS_S


def environment(fabric: str, run: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a run's modules, which compare its fabric and run with the host's lock."""
    return {"PATH": PATH, "L3HV_FABRIC": fabric, "L3HV_RUN": str(run["id"])}


def has_ended(run: Mapping[str, Any]) -> bool:
    """Tell whether the process of ``run`` has certainly ended; False for a process of another machine.

    Containers have process numbers of their own: another PID namespace counts as another machine.  A process
    that is not visible in /proc may still run: hidepid (proc(5)) hides the processes of other users.
    """
    try:
        machine, number, started = run["process"]
        pid = int(number)
    except (KeyError, TypeError, ValueError):
        return False
    if machine != _machine() or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # The process belongs to another user, or the number is too large for a process.
    actual = _start_time(pid)
    return actual is not None and actual != started


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # In a container the user may have no name.


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_time(pid: int) -> str | None:
    """Return the start time of a process, in ticks since the machine booted.

    The text is empty for a process that has ended and that its parent has not reaped yet.  The result is
    ``None`` if /proc cannot be read.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return None
    # The program's name is in parentheses and may contain parentheses. proc(5): the start time is field 22.
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]

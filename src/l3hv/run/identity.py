"""A run of a playbook, as the hosts that it locks know it."""

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
"""Where programs on hosts are found: an account's own PATH may lack sbin."""

LEAST_LEASE_S = 30 * 60
REFLECTOR_S = 5 * 60
"""How long a reflector may take. They are changed one after the other, and each waits for those before it."""
CLIENTS_S = 10 * 60
"""How long as many clients may take as Ansible changes at a time (forks), with packages to install."""


def describe_run(command: str, pid: int, lease: int = LEAST_LEASE_S) -> dict[str, Any]:
    """Return what names the run of the process ``pid``, and lets others on this machine see whether it lives.

    ``command`` is what an operator recognises it by.  It holds no extra variables: they may be secrets.
    ``lease`` is :func:`lease_seconds`.
    """
    return {
        "id": secrets.token_hex(8),
        "owner": os.environ.get("SUDO_USER") or _user(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": command,
        "process": [_machine(), pid, _started(pid)],
        "lease": lease,
    }


def lease_seconds(reflectors: int, clients: int, forks: int) -> int:
    """Return how long a lock of a run of so many hosts holds without being renewed.

    A host renews its lock only while the run works on that host.  Meanwhile the run may work on all others:
    the last reflector waits for all clients and for all other reflectors.

    >>> lease_seconds(reflectors=2, clients=4, forks=5) // 60
    50
    """
    batches = -(-clients // max(1, forks))
    return LEAST_LEASE_S + reflectors * REFLECTOR_S + batches * CLIENTS_S


def environment(fabric: str, run: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a run's modules: they compare fabric and run with the lock of the host."""
    return {"PATH": PATH, "L3HV_FABRIC": fabric, "L3HV_RUN": str(run["id"])}


def has_ended(run: Mapping[str, Any]) -> bool:
    """Tell whether the process of ``run`` is known to be gone; of another machine's nothing is known.

    Containers have process numbers of their own: those of another PID namespace are another machine's.
    A process that cannot be seen in /proc may live: with hidepid (proc(5)) those of other users are hidden.
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
        pass  # It is another user's, or no number of a process.
    found = _started(pid)
    return found is not None and found != started


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # In containers a user need not have a name.


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine booted.

    The text is empty where the process has ended and its parent has not asked for it yet; None where it
    cannot be read.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return None
    # The name of the program is in parentheses, and may hold some. proc(5): the start time is field 22.
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]

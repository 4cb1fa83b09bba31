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


def describe_run(command: str, pid: int) -> dict[str, Any]:
    """Return what names the run of the process ``pid``, and lets others on this machine see whether it lives.

    ``command`` is what an operator recognises it by.  It holds no extra variables: they may be secrets.
    """
    return {
        "id": secrets.token_hex(8),
        "owner": os.environ.get("SUDO_USER") or _user(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": command,
        "process": [_machine(), pid, _started(pid)],
    }


def has_ended(run: Mapping[str, Any]) -> bool:
    """Tell whether the process of ``run`` is gone; of another machine's processes nothing is known.

    Containers have process numbers of their own: those of another PID namespace are another machine's.
    """
    machine, pid, started = run["process"]
    return bool(machine == _machine() and _started(int(pid)) != started)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # In containers a user need not have a name.


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the machine booted; nothing where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name of the program is in parentheses, and may hold some. proc(5): the start time is field 22.
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]

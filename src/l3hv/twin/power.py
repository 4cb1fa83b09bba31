"""The power state of machines, and commands in running machines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from l3hv.twin import TwinError, access, enter, network
from l3hv.twin.state import Twin, read_json, write_json

CONNECTION_SECONDS = 60
"""The seconds after its last use for which an SSH connection to an emulated machine stays open."""


@dataclass(frozen=True)
class Running:
    """A running machine: the PID of its init, its start (Unix time), and whether it has booted.

    The ``leader`` of an emulated machine is QEMU.
    """

    leader: int
    since: float
    ready: bool
    emulated: bool = False


def running(twin: Twin, machine: str) -> Running | None:
    """Return the state of a running machine, or None if it is off."""
    stored = read_json(_record(twin, machine))
    if stored is None or not network.is_in(stored["leader"], twin.machine_namespace(machine)):
        return None
    return Running(**stored)


def leader(twin: Twin, machine: str) -> int:
    """Return the PID of a running machine's init; raise an error if the machine is off."""
    found = running(twin, machine)
    if found is None:
        raise TwinError(f"{machine} is off: './twin boot {machine}' starts it")
    return found.leader


def last_leader(twin: Twin, machine: str) -> int | None:
    """Return the last PID of a machine's init: while a machine shuts down, the process may still exist."""
    stored = read_json(_record(twin, machine))
    return int(stored["leader"]) if stored else None


def record_running(twin: Twin, machine: str, found: Running) -> None:
    """Record the state of a running machine."""
    write_json(_record(twin, machine), vars(found))


def forget_running(twin: Twin, machine: str) -> None:
    """Remove the recorded state of a machine."""
    _record(twin, machine).unlink(missing_ok=True)


def _record(twin: Twin, machine: str) -> Path:
    return twin.machine_directory(machine) / "running.json"


def inside(pid: int, command: Iterable[str]) -> list[str]:
    """Return the command line that runs a command in all namespaces of a container (see ``enter``)."""
    return [sys.executable, "-I", "-S", enter.__file__, str(pid), *command]


def command_in(
    twin: Twin, machine: str, command: Iterable[str], ssh_options: Iterable[str] = ()
) -> list[str]:
    """Return the command line that runs a command in a running machine; raise an error if it is off.

    ``ssh_options`` apply to an emulated machine.
    """
    pid = leader(twin, machine)
    found = running(twin, machine)
    if found is None or not found.emulated:
        return inside(pid, command)
    if not found.ready:
        raise TwinError(f"{machine} is booting: './twin boot {machine}' waits until it is up")
    # A new connection takes seconds on an emulated CPU.  The name has the PID: each boot has its own.
    socket = access.connections(twin) / str(pid)
    shared = ("ControlMaster=auto", f"ControlPersist={CONNECTION_SECONDS}", f"ControlPath={socket}")
    options = [word for option in shared for word in ("-o", option)]
    return ["ssh", "-F", str(access.ssh_config(twin)), *options, *ssh_options, machine, shlex.join(command)]

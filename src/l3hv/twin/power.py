"""Which machines have power, and the way into those that do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from l3hv.twin import TwinError, enter, network
from l3hv.twin.state import Twin, read_json, write_json


@dataclass(frozen=True)
class Running:
    """A machine that has power: its PID 1 and since when (Unix time); is it up yet?"""

    leader: int
    since: float
    ready: bool


def running(twin: Twin, machine: str) -> Running | None:
    """How a machine runs, or None when it is off."""
    stored = read_json(_record(twin, machine))
    if stored is None or not network.is_in(stored["leader"], twin.machine_namespace(machine)):
        return None
    return Running(**stored)


def leader(twin: Twin, machine: str) -> int:
    """The PID of a running machine's init; an error when the machine is off."""
    found = running(twin, machine)
    if found is None:
        raise TwinError(f"{machine} is off: './twin boot {machine}' starts it")
    return found.leader


def last_leader(twin: Twin, machine: str) -> int | None:
    """The PID that a machine's init has or had: of one that goes down, the process may still be there."""
    stored = read_json(_record(twin, machine))
    return int(stored["leader"]) if stored else None


def record_running(twin: Twin, machine: str, found: Running) -> None:
    """Write down how a machine runs."""
    write_json(_record(twin, machine), vars(found))


def forget_running(twin: Twin, machine: str) -> None:
    """Forget how a machine ran, if it did."""
    _record(twin, machine).unlink(missing_ok=True)


def _record(twin: Twin, machine: str) -> Path:
    return twin.machine_directory(machine) / "running.json"


def inside(pid: int, command: Iterable[str]) -> list[str]:
    """The command line that runs a command in all namespaces of a machine (see ``enter``)."""
    return [sys.executable, "-I", "-S", enter.__file__, str(pid), *command]

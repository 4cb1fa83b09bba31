"""Control groups: one per machine, on hosts with and without systemd as PID 1.

In a common group machines would stop each other's units, and the twin could not end or count the
processes of one machine.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from l3hv.twin.state import Twin

CGROUPS = Path("/sys/fs/cgroup")
# Hierarchies of control groups version 1 that systemd needs, and those that account for a machine.
LEGACY_HIERARCHIES = ("systemd", "unified", "memory", "pids")


def host_has_systemd() -> bool:
    """Return whether PID 1 of the host is systemd (sd_booted(3)): it then owns all control groups."""
    return Path("/run/systemd/system").is_dir()


def groups(twin: Twin, machine: str = "") -> list[Path]:
    """Return the directories of a machine's groups, or of the whole twin's, existing or not."""
    if host_has_systemd():
        return [CGROUPS / "l3hv.slice" / f"l3hv-{twin.name}.slice"]
    inside = Path("l3hv", twin.name, machine)
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / inside]
    return [CGROUPS / name / inside for name in LEGACY_HIERARCHIES if (CGROUPS / name).is_dir()]


def confined(twin: Twin, machine: str, script: str) -> list[str]:
    """Return a command that moves itself into the machine's group and then runs a shell script."""
    if host_has_systemd():
        return [
            "systemd-run",
            "--scope",
            "--quiet",
            "--collect",
            f"--slice=l3hv-{twin.name}.slice",
            # systemd keeps the name of a scope for a moment after its last process has ended.
            f"--unit={twin.prefix}{machine}-{time.monotonic_ns()}.scope",
            "--property=Delegate=yes",
            "sh",
            "-ec",
            script,
        ]
    directories = groups(twin, machine)
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    joins = "".join(f"echo $$ >{shlex.quote(str(directory / 'cgroup.procs'))}\n" for directory in directories)
    return ["sh", "-ec", joins + script]


def processes(twin: Twin) -> set[int]:
    """Return all processes in the twin's groups."""
    found: set[int] = set()
    for top in groups(twin):
        for directory in _below(top):
            try:
                found.update(int(line) for line in (directory / "cgroup.procs").open())
            except OSError:
                continue
    return found


def remove_groups(twin: Twin, machine: str = "") -> None:
    """Remove the groups of a machine that is off, or of a twin that is down."""
    if host_has_systemd():
        if not machine:
            _stop_slices(twin)
        return
    for top in groups(twin, machine):
        for directory in _below(top):
            # Skip groups that still have processes, and groups that no longer exist.
            with contextlib.suppress(OSError):
                directory.rmdir()
        if not machine:
            with contextlib.suppress(OSError):
                top.parent.rmdir()


def _stop_slices(twin: Twin) -> None:
    """Stop the twin's slice; stop the slice of all twins too if this was the last one."""
    (own,) = groups(twin)
    if own.is_dir():
        subprocess.run(["systemctl", "stop", own.name], check=False)
    if own.parent.is_dir() and not any(own.parent.glob("*.slice")):
        subprocess.run(["systemctl", "stop", own.parent.name], check=False)


def _below(top: Path) -> Iterator[Path]:
    """Yield a directory and all directories below it, the deepest first."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)

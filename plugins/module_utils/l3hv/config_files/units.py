"""Units of systemd that read the files of a set: their states and their journal."""

from __future__ import annotations

import shlex
import time

from ansible.module_utils.l3hv.config_files.commands import Commands
from ansible.module_utils.l3hv.config_files.refused import Refused

UNIT_DIRECTORY = "/etc/systemd/system/"
UNIT_SUFFIXES = (".service", ".socket", ".target", ".timer", ".path")
DROP_IN_DIRECTORIES = tuple(f"{suffix}.d" for suffix in UNIT_SUFFIXES)
UP = ("active", "reloading")
STARTS_AT_BOOT = ("enabled", "enabled-runtime", "static", "indirect", "generated")


def is_of_started_units(command: str, started: list[str]) -> bool:
    """Tell whether a command only restarts or reloads units that have just been started with the new files.

    A second start would only interrupt them, and dnsmasq would forget the leases that it has given meanwhile.
    """
    words = shlex.split(command)
    units = {*words[2:]}
    return (
        words[:2] in (["systemctl", "restart"], ["systemctl", "reload"])
        and units != set()
        and units <= {*started}
    )


class Units:
    """The units of a set, which must be enabled and active."""

    def __init__(self, names: list[str], commands: Commands) -> None:
        self.names = names
        self.commands = commands

    def states(self) -> dict[str, tuple[str, str]]:
        """Return for each unit its present state (`active` ...) and its state at boot (`enabled` ...)."""
        if not self.names:
            return {}
        code, out, err = self.commands.limited(
            ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *self.names]
        )
        if code != 0:
            raise Refused(f"systemctl show {shlex.join(self.names)}: {(out + err).strip()}")
        states = {}
        for unit, block in zip(self.names, out.strip().split("\n\n"), strict=True):
            facts = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            states[unit] = (
                facts.get("ActiveState") or "missing",
                facts.get("UnitFileState") or "not enabled",
            )
        return states

    def down(self) -> dict[str, str]:
        """Return each unit that is not enabled or not active, with its state."""
        return {
            unit: now if now not in UP else boot
            for unit, (now, boot) in self.states().items()
            if now not in UP or boot not in STARTS_AT_BOOT
        }

    def startup_problem(self) -> str:
        """Return the units that are down, with their journal, as a sentence; empty if all stay up."""
        if not self.names:
            return ""
        if not self.down():
            # A daemon that ends with an error of its configuration is active for a moment before.
            time.sleep(0.3)
        states = ", ".join(f"{unit} is {state}" for unit, state in self.down().items())
        return f"{states}{self.journal()}" if states else ""

    def journal(self, command: str = "") -> str:
        """Return the last journal lines of units that are down, or that a command of systemctl names."""
        program, *words = shlex.split(command) or [""]
        named = [word for word in words if word.endswith(UNIT_SUFFIXES)] if program == "systemctl" else []
        lines = []
        for unit in dict.fromkeys([*named, *self.down()]):
            out = self.commands.limited(
                ["journalctl", "--unit", unit, "--lines", "8", "--no-pager", "--output", "cat"]
            )[1]
            lines.append(f"\n{unit}:\n{out.strip()}")
        return "".join(lines)

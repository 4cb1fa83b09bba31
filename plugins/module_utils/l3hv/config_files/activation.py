"""The activation of a set of files: ``state: active``."""

from __future__ import annotations

import fnmatch
import os
import shlex
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.l3hv.config_files.config_set import ConfigSet
from ansible.module_utils.l3hv.config_files.refused import Refused
from ansible.module_utils.l3hv.config_files.units import (
    STARTS_AT_BOOT,
    UNIT_DIRECTORY,
    UP,
    is_of_started_units,
)


def matches(path: str, patterns: list[str]) -> bool:
    """Tell whether a path matches one of the glob patterns."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def activate(config: ConfigSet) -> dict[str, Any]:
    """Make the last change of the set take effect. If that fails, roll back and raise Refused."""
    nothing = {
        "changed": False,
        "changed_files": [],
        "removed_files": [],
        "reasons": [],
        "pending": config.transaction.pending,
    }
    if not config.transaction.pending or config.module.check_mode:
        return {**nothing, "changed": config.transaction.pending}
    try:
        make_effective(config)
    except Refused as refusal:
        if not config.transaction.files:
            raise Refused(
                f"The set {config.name} is as it should be, but {refusal}", refusal.output
            ) from refusal
        config.restore()
        outcome = rollback_outcome(config)
        config.transaction.end()
        raise Refused(
            f"The new files of the set {config.name} were refused: {refusal}. {outcome}.", refusal.output
        ) from refusal
    config.transaction.end()
    return {**nothing, "changed": True, "changed_files": list(config.transaction.files), "pending": False}


def rollback_outcome(config: ConfigSet) -> str:
    """Activate the restored files, and return the outcome as a sentence."""
    if not any(config.transaction.files.values()):
        return "There was nothing before them, and there is nothing now"
    try:
        make_effective(config)
    except Refused as second:
        return f"The previous files are back, but {second}"
    return "The previous files are back and active"


def make_effective(config: ConfigSet) -> None:
    """Make the files take effect. Raises Refused for the first step that fails."""
    files = config.transaction.files
    environment = {
        "CONFIG_FILES_CHANGED": "\n".join(path for path in files if os.path.lexists(path)),
        "CONFIG_FILES_REMOVED": "\n".join(path for path in files if not os.path.lexists(path)),
    }
    if any(path.startswith(UNIT_DIRECTORY) for path in files):
        run_or_refuse(config, "systemctl daemon-reload", environment)
    for command in commands_to_run(config, is_early=True):
        run_or_refuse(config, command, environment)
    started = start_units(config, environment)
    for command in commands_to_run(config, is_early=False):
        if not is_of_started_units(command, started):
            run_or_refuse(config, command, environment)
    seconds = config.module.params["timeout"]
    wait_until_none(config.units.startup_problem, seconds)
    wait_until_none(config.running_difference, seconds)


def commands_to_run(config: ConfigSet, *, is_early: bool) -> list[str]:
    """Return the commands of ``activate`` for the changed files, before or after the start of the units."""
    return [
        given["command"]
        for given in config.module.params["activate"]
        if given["early"] == is_early
        and (
            given["changed"] is None
            or any(matches(path, given["changed"]) for path in config.transaction.files)
        )
    ]


def start_units(config: ConfigSet, environment: dict[str, str]) -> list[str]:
    """Enable and start the units of the set that are not; return the units that were started."""
    states = config.units.states()
    masked = [unit for unit, (_, boot) in states.items() if boot.startswith("masked")]
    if masked:
        run_or_refuse(config, f"systemctl unmask --quiet {shlex.join(masked)}", environment)
        run_or_refuse(config, f"systemctl unmask --quiet --runtime {shlex.join(masked)}", environment)
        states = config.units.states()
    # systemd does not start a unit that has failed too often before its failures are reset.
    failed = [unit for unit, (now, _) in states.items() if now == "failed"]
    if failed:
        run_or_refuse(config, f"systemctl reset-failed {shlex.join(failed)}", environment)
    # Enable only units that are not enabled: `enable` also enables the units in Also= of a unit.
    disabled = [unit for unit, (_, boot) in states.items() if boot not in STARTS_AT_BOOT]
    if disabled:
        run_or_refuse(config, f"systemctl enable --quiet {shlex.join(disabled)}", environment)
    stopped = [unit for unit, (now, _) in states.items() if now not in UP]
    if stopped:
        run_or_refuse(config, f"systemctl start {shlex.join(stopped)}", environment)
    return stopped


def run_or_refuse(config: ConfigSet, command: str, environment: dict[str, str]) -> None:
    """Run a command of the activation. If it fails, raise Refused with its output and the units' journal."""
    code, output = config.commands.run(command, environment)
    if code != 0:
        raise Refused(f"`{command}` failed: {output}{config.units.journal(command)}", output)


def wait_until_none(problem: Callable[[], str], seconds: float) -> None:
    """Wait until ``problem`` returns an empty text. After ``seconds``, raise Refused with its text."""
    deadline = time.monotonic() + seconds
    while text := problem():
        if time.monotonic() > deadline:
            raise Refused(text, text)
        time.sleep(0.1)

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


def active(config: ConfigSet) -> dict[str, Any]:
    """Make the last change of the set take effect, or go back to its previous files and refuse."""
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
        config.put_back()
        outcome = outcome_of_going_back(config)
        config.transaction.end()
        raise Refused(
            f"The new files of the set {config.name} were refused: {refusal}. {outcome}.", refusal.output
        ) from refusal
    config.transaction.end()
    return {**nothing, "changed": True, "changed_files": list(config.transaction.files), "pending": False}


def outcome_of_going_back(config: ConfigSet) -> str:
    """Activate the previous files, and return the outcome as a sentence."""
    if not any(config.transaction.files.values()):
        return "There was nothing before them, and there is nothing now"
    try:
        make_effective(config)
    except Refused as second:
        return f"The previous files are back, but {second}"
    return "The previous files are back and active"


def make_effective(config: ConfigSet) -> None:
    """Make the files take effect. Raises Refused with the first thing that does not work."""
    changed = [path for path in config.transaction.files if os.path.lexists(path)]
    removed = [path for path in config.transaction.files if not os.path.lexists(path)]
    environment = {
        "CONFIG_FILES_CHANGED": "\n".join(changed),
        "CONFIG_FILES_REMOVED": "\n".join(removed),
    }
    commands = {
        early: [
            given["command"]
            for given in config.module.params["activate"]
            if given["early"] == early
            and (
                given["changed"] is None
                or any(matches(path, given["changed"]) for path in config.transaction.files)
            )
        ]
        for early in (True, False)
    }
    if any(path.startswith(UNIT_DIRECTORY) for path in config.transaction.files):
        perform(config, "systemctl daemon-reload", environment)
    for command in commands[True]:
        perform(config, command, environment)
    states = config.units.states()
    masked = [unit for unit, (_, boot) in states.items() if boot.startswith("masked")]
    if masked:
        perform(config, f"systemctl unmask --quiet {shlex.join(masked)}", environment)
        perform(config, f"systemctl unmask --quiet --runtime {shlex.join(masked)}", environment)
        states = config.units.states()
    # One that failed too often is not started before that is forgotten.
    failed = [unit for unit, (now, _) in states.items() if now == "failed"]
    if failed:
        perform(config, f"systemctl reset-failed {shlex.join(failed)}", environment)
    # Only those that need it: `enable` enables what a unit names in Also=, too.
    started = [unit for unit, (now, _) in states.items() if now not in UP]
    for verb, units in (
        ("enable --quiet", [unit for unit, (_, boot) in states.items() if boot not in STARTS_AT_BOOT]),
        ("start", started),
    ):
        if units:
            perform(config, f"systemctl {verb} {shlex.join(units)}", environment)
    for command in commands[False]:
        if not is_of_started_units(command, started):
            perform(config, command, environment)
    seconds = config.module.params["timeout"]
    wait_for(config.units.that_do_not_stay_up, seconds)
    wait_for(config.difference_from_what_runs, seconds)


def perform(config: ConfigSet, command: str, environment: dict[str, str]) -> None:
    """Run a command of the activation. Raises Refused with its output and journal where it fails."""
    code, output = config.commands.run(command, environment)
    if code != 0:
        raise Refused(f"`{command}` failed: {output}{config.units.journal(command)}", output)


def wait_for(complaint: Callable[[], str], seconds: float) -> None:
    """Wait until there is no complaint any more. Raises Refused with it when it takes too long."""
    deadline = time.monotonic() + seconds
    while text := complaint():
        if time.monotonic() > deadline:
            raise Refused(text, text)
        time.sleep(0.1)

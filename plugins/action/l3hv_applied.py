"""Remembers on the controller what a run has left on its hosts: the next run tells what it would remove."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.model.choices import KINDS
from l3hv.run.actions import ControllerAction
from l3hv.run.removals import record_applied


class ActionModule(ControllerAction):
    """Run once at the end of a run: ``run`` is what ``l3hv_intent`` returned at its beginning."""

    def act(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Record all hosts of the play, unless the run has applied a part of the intent only."""
        reason = why_not_recorded(task_vars)
        if reason:
            return {"changed": False, "skipped": True, "skip_reason": reason}
        run = self._task.args["run"]
        record_applied(
            Path(str(run["memory"])),
            Path(str(run["applied"])),
            done=[str(host) for host in task_vars["ansible_play_hosts"]],
            hosts={str(host) for kind in KINDS for host in task_vars["groups"].get(kind, ())},
        )
        return {"changed": False}


def why_not_recorded(variables: Mapping[str, Any]) -> str:
    """Return why a run has not applied all of the intent; an empty text where it has.

    A host that failed or was unreachable in an earlier play is not among ``ansible_play_hosts`` either.  A
    reflector that is left as it is is among them, but it is left only where a client has failed.
    """
    if variables["ansible_check_mode"]:
        return "In check mode nothing was applied."
    if "all" not in variables["ansible_run_tags"] or variables["ansible_skip_tags"]:
        return "With --tags or --skip-tags a part of the intent was applied."
    if set(variables["ansible_play_hosts"]) != set(variables["ansible_play_hosts_all"]):
        return "A host has failed or was unreachable."
    return ""

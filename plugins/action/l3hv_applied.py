"""Records on the controller the state that a run has left on its hosts: the next run compares with it."""

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
    """Run once at the end of a run: ``run`` is the result of ``l3hv_intent`` at the run's beginning."""

    def act(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Record all hosts of the play, unless the run has applied only a part of the intent."""
        reason = reason_to_skip(task_vars)
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


def reason_to_skip(variables: Mapping[str, Any]) -> str:
    """Return the reason why a run has not applied the whole intent; "" if it has.

    A host that failed or was unreachable in an earlier play is missing from ``ansible_play_hosts``.  A
    reflector that the run skipped is not missing, but a run skips reflectors only after a client has failed.
    """
    if variables["ansible_check_mode"]:
        return "A run in check mode applies nothing."
    if "all" not in variables["ansible_run_tags"] or variables["ansible_skip_tags"]:
        return "A run with --tags or --skip-tags applies only a part of the intent."
    if set(variables["ansible_play_hosts"]) != set(variables["ansible_play_hosts_all"]):
        return "A host has failed or was unreachable."
    return ""

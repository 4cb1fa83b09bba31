"""Remembers on the controller what a run has left on its hosts: the next run tells what it would remove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.intent import KINDS
from l3hv.removals import record_applied


class ActionModule(ActionBase):
    """Run once at the end of a run: ``run`` is what ``l3hv_intent`` returned at its beginning."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Record all hosts of the play that have not failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        assert task_vars is not None
        run = self._task.args["run"]
        record_applied(
            Path(str(run["memory"])),
            Path(str(run["applied"])),
            done=[str(host) for host in task_vars["ansible_play_hosts"]],
            hosts={str(host) for kind in KINDS for host in task_vars["groups"].get(kind, ())},
        )
        result["changed"] = False
        return result

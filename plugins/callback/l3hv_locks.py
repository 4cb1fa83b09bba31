"""Releases the locks that a run still holds at its end: on failed hosts, or on all hosts after a fatal error.

Ansible runs no further task on a failed host, and no further play once all hosts of a play have failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.playbook.play import Play
from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.run.actions import inventory_of

DOCUMENTATION = r"""
name: l3hv_locks
type: aggregate
short_description: Release the locks of a run that failed
description:
  - Records the hosts that the module P(l3hv_lock#module) locked.
  - Releases at the end of the run the locks that no task released.
  - It cannot repeat a connection that asked for a password. Such a lock lapses, or the next run of the same
    controller takes it.
"""


class CallbackModule(CallbackBase):
    """Follow the locks of a run from task to task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "l3hv_locks"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, dict[str, Any]] = {}
        self._play: Play | None = None

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._play = play

    def v2_runner_on_ok(self, result: Any) -> None:
        lock = result.result.get("l3hv_lock")
        host = result.host.get_name()
        if lock and lock["is_held"]:
            self._held[host] = {"fabric": str(lock["fabric"]), "run": {"id": str(lock["id"])}}
        elif lock:
            self._held.pop(host, None)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._held.pop(result.host.get_name(), None)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._held or self._play is None:
            return
        variables = self._play.get_variable_manager()
        inventory = inventory_of(variables)
        if inventory is None:
            Display().warning(
                f"The locks of {', '.join(self._held)} are not released: this ansible-core does not give the"
                " inventory of the run to plugins. The next run of this controller takes the locks; for"
                " other controllers they lapse."
            )
            return
        held, self._held = self._held, {}
        lock = next(iter(held.values()))  # one run has one id, and changes one fabric
        source = {
            "name": "Release the locks of a run that failed",
            "hosts": list(held),
            "gather_facts": False,
            "tasks": [{"name": "Release the lock", "l3hv_lock": {**lock, "state": "released"}}],
        }
        inventory.remove_restriction()  # It limits the inventory to the hosts of the last play.
        play = Play.load(source, variable_manager=variables, loader=self._play.get_loader())
        queue = TaskQueueManager(
            inventory=inventory,
            variable_manager=variables,
            loader=self._play.get_loader(),
            passwords={},
            run_additional_callbacks=False,
        )
        try:
            queue.run(play)
        finally:
            queue.cleanup()

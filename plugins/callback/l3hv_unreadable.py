"""Names the files of an inventory that are not valid YAML: Ansible's own error does not name the file."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any

from ansible.playbook.play import Play
from ansible.plugins.callback import CallbackBase

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.inventory.files import unreadable_files
from l3hv.run.actions import inventory_of

DOCUMENTATION = r"""
name: l3hv_unreadable
type: aggregate
short_description: Name the files of an inventory that are not valid YAML
description:
  - If a run fails because Ansible cannot read a file of variables, it names each such file, with the line.
"""
SIGN = "YAML parsing failed"


class CallbackModule(CallbackBase):
    """Name the files after a task that fails because of one, or at the end of a run that fails as a whole."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "l3hv_unreadable"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        self._play: Play | None = None
        self._is_done = False

    def v2_playbook_on_play_start(self, play: Play) -> None:
        if self._play is None:
            # If Ansible cannot read the variables of a group, the run ends, and plugins get no further event.
            atexit.register(self._name_files, os.getpid())
        self._play = play

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if SIGN in str(result.result.get("msg", "")):
            self._name_files(os.getpid())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._is_done = True

    def _name_files(self, process: int) -> None:
        if self._play is None or self._is_done or process != os.getpid():
            return
        self._is_done = True
        inventory = inventory_of(self._play.get_variable_manager())
        sources = [Path(source) for source in getattr(inventory, "_sources", ())]
        for sentence in unreadable_files(sources, self._play.get_loader()):
            self._display.error(sentence)

"""Takes the lock of a fabric on a host, also that of an earlier run of this controller that has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.run.identity import has_ended


class ActionModule(ActionBase):
    """Hand the run to the module of the same name; ask again where the holder of the lock has ended here."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``refusal`` of the host; in check mode a run that has the lock is a warning."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        answer = self._execute_module(module_name="l3hv_lock", module_args=arguments, task_vars=task_vars)
        holder = answer.get("holder")
        is_over = bool(holder) and has_ended(holder)
        if holder and self._task.check_mode:
            if is_over:
                answer["holder"] = None
            else:
                who = f"{holder['owner']} on {holder['host']} is changing this host ({holder['command']})"
                answer["warnings"] = [f"{who}: the result of --check may be outdated."]
        elif is_over:
            arguments["instead_of"] = holder["id"]
            answer = self._execute_module(module_name="l3hv_lock", module_args=arguments, task_vars=task_vars)
        result.update(answer)
        return result

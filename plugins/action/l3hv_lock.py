"""Takes the lock of a fabric on a host, also from a run of this controller that ended without a release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.run.identity import has_ended


class ActionModule(ActionBase):
    """Pass the run to the module l3hv_lock, and take the lock over if its holder ran here and has ended."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``refusal`` of the host; in check mode another run's lock is only a warning."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        answer = self._execute_module(module_name="l3hv_lock", module_args=arguments, task_vars=task_vars)
        holder = answer.get("holder")
        is_over = bool(holder) and has_ended(holder)
        if holder and self._task.check_mode:
            if is_over:
                answer["holder"] = None
            else:
                change = f"{holder['owner']} on {holder['host']} is changing this host ({holder['command']})"
                answer["warnings"] = [f"{change}: the result of --check may be outdated."]
        elif is_over:
            arguments["instead_of"] = holder["id"]
            answer = self._execute_module(module_name="l3hv_lock", module_args=arguments, task_vars=task_vars)
        result.update(answer)
        return result

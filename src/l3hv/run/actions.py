"""What the project's plugins that work on the controller have in common."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ControllerAction(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """An action that connects to no host: ``act`` returns what is new in its result."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        assert task_vars is not None
        result.update(self.act(task_vars))
        return result

    def act(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the work of the action."""
        raise NotImplementedError


def inventory_of(variables: Any) -> Any:
    """Return the inventory of a run, which Ansible gives a callback in no public way; None without one."""
    inventory = getattr(variables, "_inventory", None)
    return inventory if hasattr(inventory, "remove_restriction") else None

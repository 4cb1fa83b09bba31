"""The base of the project's plugins that work on the controller."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ControllerAction(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """An action that connects to no host: ``act`` returns the entries that it adds to the result."""

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
    """Return the inventory of a run, or ``None``: Ansible has no public interface to it for callbacks."""
    inventory = getattr(variables, "_inventory", None)
    return inventory if hasattr(inventory, "remove_restriction") else None

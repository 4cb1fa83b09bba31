"""Reads and checks the intent of a fabric on the controller, and writes each host's slice of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import Templar

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.errors import IntentError
from l3hv.inventory import Inventory, read_fabric


class ActionModule(ActionBase):
    """Run once for a play: ``directory`` is where slices, announcements and the index are kept."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the paths of what was written, or fail with every problem of the intent at once."""
        result = super().run(tmp, task_vars)
        assert task_vars is not None
        hostvars = task_vars["hostvars"]
        inventory = Inventory(
            groups=task_vars["groups"],
            raw=hostvars.raw_get,
            template=lambda raw, value: Templar(
                loader=self._loader, variables={**raw, "hostvars": hostvars}
            ).template(value),
            sources=tuple(Path(str(source)) for source in task_vars["ansible_inventory_sources"]),
        )
        try:
            run = read_fabric(
                inventory,
                touched=[str(host) for host in task_vars["ansible_play_hosts_all"]],
                directory=Path(str(self._task.args["directory"])),
                beside=(Path(str(task_vars["playbook_dir"])),),
            )
        except IntentError as error:
            raise AnsibleActionFail(str(error)) from None
        result.update(
            changed=False,
            slices=str(run.slices),
            announcements=str(run.announcements),
            hosts=run.hosts,
            guests=run.guests,
            warnings=list(run.warnings),
        )
        return result

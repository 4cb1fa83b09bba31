"""A set of files with the units that read them, and the restoration of its previous files."""

from __future__ import annotations

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.l3hv.config_files.commands import Commands
from ansible.module_utils.l3hv.config_files.files import reporting_write_errors
from ansible.module_utils.l3hv.config_files.transaction import Transaction
from ansible.module_utils.l3hv.config_files.units import (
    DROP_IN_DIRECTORIES,
    UNIT_DIRECTORY,
    UNIT_SUFFIXES,
    Units,
)


class ConfigSet:
    """The set of a task; its arguments are ``module.params``."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        parameters = module.params
        self.name = parameters["set"]
        self.running = parameters["running"]
        self.commands = Commands(module)
        self.units = Units(parameters["units"], self.commands)
        self.transaction = Transaction(os.path.join(parameters["state_dir"], self.name))

    def running_difference(self) -> str:
        """Return the difference that the command ``running`` finds as a sentence; empty without one."""
        if not self.running:
            return ""
        code, output = self.commands.run(self.running)
        return "" if code == 0 else f"what runs is not what the files say: {output}"

    def remove(self, path: str) -> None:
        """Remove a file of the set; a unit is stopped and disabled first, while its file still exists.

        With its last drop-in the directory of a unit's drop-ins is removed, too.
        """
        if (
            path.startswith(UNIT_DIRECTORY)
            and os.path.dirname(path) + "/" == UNIT_DIRECTORY
            and path.endswith(UNIT_SUFFIXES)
        ):
            self.commands.limited(["systemctl", "disable", "--now", os.path.basename(path)])
        if os.path.lexists(path):
            with reporting_write_errors(path, "removed"):
                os.unlink(path)
        if os.path.dirname(path).endswith(DROP_IN_DIRECTORIES):
            with contextlib.suppress(OSError):  # The directory has other drop-ins, or has gone already.
                os.rmdir(os.path.dirname(path))

    def restore(self) -> None:
        """Restore the files as they were before the change."""
        for path, attributes in self.transaction.files.items():
            if attributes is None:
                self.remove(path)
            else:
                self.transaction.restore(path)

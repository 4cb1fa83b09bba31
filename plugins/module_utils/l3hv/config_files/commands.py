"""Commands on the host, each with a time limit."""

from __future__ import annotations

import os
import re
import shlex
import time

from ansible.module_utils.basic import AnsibleModule

COMMAND_SECONDS = 300
"""The time limit of a command: a daemon that hangs must not block the run. Programs of roles wait less."""


class Commands:
    """The commands of a set, and the text of its files without the parts that match ``hidden``."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        hidden = module.params["hidden"]
        self.hidden = re.compile(hidden, re.MULTILINE) if hidden else None

    def hide(self, text: str) -> str:
        """Return the text of a file without the parts that match ``hidden``."""
        return self.hidden.sub("(not shown)", text) if self.hidden else text

    def run(self, command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        """Run a command line; return its exit status and its output."""
        code, out, err = self.limited(shlex.split(command), environment)
        return code, (out + err).strip()

    def limited(self, words: list[str], environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Run a command for at most COMMAND_SECONDS; after a timeout a sentence precedes its output."""
        began = time.monotonic()
        code, out, err = self.module.run_command(
            ["timeout", "--kill-after=10", str(COMMAND_SECONDS), *words], environ_update=environment or {}
        )
        # The exit status does not show a timeout: a command itself may end with 124, or SIGKILL ends it.
        if code != 0 and time.monotonic() - began >= COMMAND_SECONDS:
            out = f"it did not end within {COMMAND_SECONDS} s on {os.uname().nodename}. {out}"
        return code, out, err

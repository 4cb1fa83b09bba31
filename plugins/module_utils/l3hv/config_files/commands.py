"""Commands on the host, each with a time limit, and their output without secrets."""

from __future__ import annotations

import os
import re
import shlex
import time

from ansible.module_utils.basic import AnsibleModule

COMMAND_SECONDS = 300
"""The time limit of a command: a daemon that hangs must not block the run. Programs of roles wait less."""


class Commands:
    """The commands of a set; no output shows its ``secrets``, and no diff what matches ``hidden``."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        parameters = module.params
        self.hidden = re.compile(parameters["hidden"], re.MULTILINE) if parameters["hidden"] else None
        self.secrets = sorted(filter(None, parameters["secrets"]), key=len, reverse=True)

    def scrub(self, text: str) -> str:
        """Return a text with asterisks instead of secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "********")
        return text

    def hide(self, text: str) -> str:
        """Return the text of a file without secrets and without the parts that match ``hidden``."""
        return self.scrub(self.hidden.sub("(not shown)", text) if self.hidden else text)

    def run(self, command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        """Run a command line; return its exit status, and its output without secrets."""
        code, out, err = self.limited(shlex.split(command), environment)
        return code, self.scrub((out + err).strip())

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

"""Programs that read the state of a daemon, each with a limit of time."""

from __future__ import annotations

import subprocess

ANSWER_SECONDS = 10
"""The time in which a daemon must answer. The run would otherwise wait forever for one that hangs."""

POLL_SECONDS = 0.2


class Hangs(Exception):
    """A program or daemon did not answer in time."""


def asked(
    command: list[str], *, seconds: float | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command that queries a daemon, for ``seconds`` at most (ANSWER_SECONDS)."""
    seconds = ANSWER_SECONDS if seconds is None else seconds
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=check)
    except subprocess.TimeoutExpired:
        raise Hangs(f"`{' '.join(command[:2])}` got no answer within {seconds:g} s") from None

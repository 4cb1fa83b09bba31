"""Programs that read the state of a daemon, each with a time limit."""

from __future__ import annotations

import subprocess

ANSWER_SECONDS = 10
"""The time in which a daemon must answer. Without it a run would wait forever for a daemon that hangs."""

POLL_SECONDS = 0.2


class NoAnswerInTime(Exception):
    """A program or daemon did not answer in time."""


def run_query(
    command: list[str], *, seconds: float | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command that queries a daemon, for at most ``seconds`` (default: ANSWER_SECONDS)."""
    seconds = ANSWER_SECONDS if seconds is None else seconds
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=check)
    except subprocess.TimeoutExpired:
        raise NoAnswerInTime(f"`{' '.join(command[:2])}` got no answer within {seconds:g} s") from None

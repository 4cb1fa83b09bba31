"""The allowances of the fabric tests for a busy host, which are small on an idle host."""

from __future__ import annotations

import doctest
import random
import time

import lab
import pytest


def test_examples_in_docstrings_are_correct() -> None:
    found = doctest.testmod(lab)
    assert found.attempted
    assert not found.failed


def test_the_allowance_covers_the_time_for_which_the_process_was_blocked() -> None:
    numbers = random.sample(range(10**7), 10**6)
    with lab.HostLateness() as lateness:
        begin = time.monotonic()
        numbers.sort()  # No other thread of this process runs meanwhile.
        took_ms = 1000 * (time.monotonic() - begin)
    late_ms = lab.LATE_PARTIES * (took_ms - 1000 * lateness.STEP_S)
    assert lateness.allowance_ms >= 0.9 * min(late_ms, lab.MOST_ALLOWED_MS)
    assert lateness.allowance_ms <= lab.MOST_ALLOWED_MS


@pytest.mark.parametrize(
    ("now", "is_same"),
    [
        ("up 16:00:00.001 Established", True),
        ("up 15:59:59.999 Established", True),
        ("up 16:00:07.000 Established", False),
        ("up 17:00:00.000 Established", False),
        ("start 16:00:00.000 Active", False),
        ("up 2026-01-02 16:00:09 Established", False),
    ],
)
def test_states_of_the_same_moment_are_the_same(now: str, is_same: bool) -> None:
    assert lab.is_same_state("up 16:00:00.000 Established", now) == is_same

"""Addresses that connected to a reflector without a session there, from the log of its daemon."""

from __future__ import annotations

import collections
import re

from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import NoAnswerInTime, run_query

CALLS_SINCE = "-5min"
"""The part of the log to read: a daemon connects again after a shorter time."""

UNKNOWN_CALLER = re.compile(
    r"Unexpected connect from unknown address (?P<bird>[0-9a-f.:]+)"
    r"|Can't find configuration for a new passive connection\W.*?Key=\"?(?P<gobgp>[0-9a-f.:]+)"
    r"|\[Event\] (?P<frr>[0-9a-f.:]+) connection rejected"
)
"""The messages about a connection without a session: BIRD 1.6 to 3.1, GoBGP, FRR with `debug bgp
neighbor-events`."""


def unknown_callers(messages: str) -> dict[str, int]:
    """Return the addresses whose connections were refused, each with their number.

    >>> unknown_callers("BGP: Unexpected connect from unknown address 198.51.100.9 (port 179)")
    {'198.51.100.9': 1}
    """
    return dict(
        collections.Counter(next(filter(None, match.groups())) for match in UNKNOWN_CALLER.finditer(messages))
    )


def read_unknown_callers(plan: Plan) -> dict[str, int]:
    """Return the addresses that the daemon of a reflector has refused recently, and how often."""
    if plan["kind"] != "route_reflector":
        return {}
    units = [word for unit in ("bird*", "frr", "l3hv-gobgp-*") for word in ("--unit", f"{unit}.service")]
    words = ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--since", CALLS_SINCE, *units]
    try:
        return unknown_callers(run_query([*words, "--grep", "connect|passive connection"]).stdout)
    except (OSError, NoAnswerInTime):
        return {}

"""Addresses that connected to a reflector, or a host of a mesh, without a session there, from its log."""

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
    """Return the addresses that a daemon has refused recently, and how often.

    A host that has sessions with reflectors only opens them all itself: it expects no calls.
    """
    sessions = plan["routing"]["sessions"]
    if plan["kind"] != "route_reflector" and all(one["relation"] == "reflector" for one in sessions):
        return {}
    units = [word for unit in ("bird*", "frr", "l3hv-gobgp-*") for word in ("--unit", f"{unit}.service")]
    words = ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--since", CALLS_SINCE, *units]
    try:
        return unknown_callers(run_query([*words, "--grep", "connect|passive connection"]).stdout)
    except (OSError, NoAnswerInTime):
        return {}

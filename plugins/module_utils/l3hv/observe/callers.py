"""Addresses that called a reflector and have no session there, from the log of its daemon."""

from __future__ import annotations

import collections
import re

from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import Hangs, asked

CALLS_SINCE = "-5min"
"""Longer than a daemon waits before it calls again."""

UNKNOWN_CALLER = re.compile(
    r"Unexpected connect from unknown address (?P<bird>[0-9a-f.:]+)"
    r"|Can't find configuration for a new passive connection\W.*?Key=\"?(?P<gobgp>[0-9a-f.:]+)"
    r"|\[Event\] (?P<frr>[0-9a-f.:]+) connection rejected"
)
"""The log of a call that no session is for: BIRD 1.6 to 3.1, GoBGP, FRR with `debug bgp neighbor-events`."""


def unknown_callers(messages: str) -> dict[str, int]:
    """Return the addresses that called and were refused, and how often.

    >>> unknown_callers("BGP: Unexpected connect from unknown address 198.51.100.9 (port 179)")
    {'198.51.100.9': 1}
    """
    return dict(
        collections.Counter(next(filter(None, match.groups())) for match in UNKNOWN_CALLER.finditer(messages))
    )


def read_strangers(plan: Plan) -> dict[str, int]:
    """Return the addresses that the daemon of a reflector has refused of late, and how often."""
    if plan["kind"] != "route_reflector":
        return {}
    units = [word for unit in ("bird*", "frr", "l3hv-gobgp-*") for word in ("--unit", f"{unit}.service")]
    words = ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--since", CALLS_SINCE, *units]
    try:
        return unknown_callers(asked([*words, "--grep", "connect|passive connection"]).stdout)
    except (OSError, Hangs):
        return {}

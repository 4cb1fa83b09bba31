"""The state of a routing daemon in one shape for all programs, and the wait until it is as expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ansible.module_utils.l3hv.observe.bird import read_birds
from ansible.module_utils.l3hv.observe.frr import read_frr
from ansible.module_utils.l3hv.observe.gobgp import read_gobgp
from ansible.module_utils.l3hv.observe.kernel import learned_by
from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import POLL_SECONDS, Hangs

REST_SECONDS = 2.0
YOUNG_SECONDS = 15.0
"""A BIRD that was started or reconfigured removes stale routes from the kernel at its scan, every 10 s."""

READERS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "bird1": read_birds,
    "bird2": read_birds,
    "bird3": read_birds,
    "gobgp": read_gobgp,
    "frr": read_frr,
}
"""The function that reads a routing daemon, by its name in the plan."""


def read_routing(plan: Plan) -> dict[str, Any]:
    """Return the state of the routing daemon of the plan, or ``{"error": …}``.

    The shape is the same for every daemon::

        {"router_id": "198.51.100.126",
         "configuration": {"running": DIGEST, "placed": DIGEST, "file": DIGEST},
         "sessions": {"hv1_public": {"state": "Established", "info": "", "error": "",
                                     "neighbor": "198.51.100.1", "local": "198.51.100.126",
                                     "channels": {"ipv4": {"state": "UP",
                                                           "routes": {"imported": 5, "filtered": 0,
                                                                      "exported": 7}}}}},
         "bfd": [{"address": "198.51.100.1", "state": "Up", "interval": "0.100", "timeout": "0.300"}]}

    ``configuration`` compares what runs with the file that was placed; sessions have the plan's names, or
    another one where the plan knows of none. ``now`` and ``started``, where there are any, tell of a daemon
    that is still taking over (:func:`is_young`). ``hangs`` beside an error: it does not answer, and is not
    waited for any longer.
    """
    try:
        return READERS[plan["routing"]["daemon"]["name"]](plan)
    except Hangs as error:
        return {"error": str(error), "hangs": True}


def is_young(daemon: dict[str, Any]) -> bool:
    """Tell whether a daemon took its configuration so recently that it may not have cleaned up yet."""
    if "recovery" in daemon.get("state", ""):
        return True  # It waits for its neighbours, and announces nothing before.
    try:
        age = datetime.fromisoformat(daemon["now"]) - datetime.fromisoformat(daemon["reconfigured"])
    except (KeyError, ValueError):
        return False
    return age.total_seconds() < YOUNG_SECONDS


def has_sessions(daemon: dict[str, Any], plan: Plan) -> bool:
    """Tell whether the daemon has every session of the plan up, and BFD with their neighbours."""
    if "error" in daemon:
        return False
    states = {name: session["state"] for name, session in daemon["sessions"].items()}
    down = {session["address"] for session in daemon["bfd"] if session.get("state") != "Up"}
    return all(
        states.get(session["name"]) == "Established" and session["neighbor"] not in down
        for session in plan["routing"]["sessions"]
    )


def received_by(daemon: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the number of prefixes received from each session, by family."""
    return {
        name: {
            family: channel["routes"].get("imported", 0) for family, channel in session["channels"].items()
        }
        for name, session in daemon.get("sessions", {}).items()
    }


def settle(
    plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Return the routing daemon's state once it is as expected, at the latest after ``seconds``.

    Once all sessions are up, the wait ends when their routes do not change any more.
    """
    now = time.monotonic()
    deadline, changed, last = now + seconds, now, None
    while True:
        daemon = read_routing(plan)
        is_up = has_sessions(daemon, plan)
        counts = received_by(daemon) if received else {}
        digests = learned_by(plan) if learned else {}
        is_as_expected = all(counts.get(name) == wanted for name, wanted in received.items()) and all(
            digests.get(table) == digest for table, digest in learned.items()
        )
        now = time.monotonic()
        if (counts, digests) != last:
            changed, last = now, (counts, digests)
        is_at_rest = is_up and now - changed > REST_SECONDS and not is_young(daemon)
        if (is_up and is_as_expected) or is_at_rest or daemon.get("hangs") or now >= deadline:
            return daemon
        time.sleep(POLL_SECONDS)

"""The state of a routing daemon, in the same shape for all daemons, and the wait for the expected state."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ansible.module_utils.l3hv.observe.bird import read_birds
from ansible.module_utils.l3hv.observe.frr import read_frr
from ansible.module_utils.l3hv.observe.gobgp import read_gobgp
from ansible.module_utils.l3hv.observe.kernel import learned_digests
from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import POLL_SECONDS, NoAnswerInTime

REST_SECONDS = 2.0
YOUNG_SECONDS = 15.0
"""After a start or reconfiguration BIRD removes stale routes from the kernel at its next scan, every 10 s."""

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

    ``configuration`` has the digests of the running configuration and of the placed file.  Sessions have the
    plan's names, or another name if the plan does not have them.  BIRD also has ``now`` and ``reconfigured``
    (:func:`is_young`).  ``hangs`` beside an error means that the daemon does not answer: further waiting is
    useless.
    """
    try:
        return READERS[plan["routing"]["daemon"]["name"]](plan)
    except NoAnswerInTime as error:
        return {"error": str(error), "hangs": True}


def is_young(daemon: dict[str, Any]) -> bool:
    """Tell whether a daemon was reconfigured so recently that the kernel may still have stale routes."""
    if "recovery" in daemon.get("state", ""):
        return True  # It waits for the routes of its neighbours, and advertises none before.
    try:
        age = datetime.fromisoformat(daemon["now"]) - datetime.fromisoformat(daemon["reconfigured"])
    except (KeyError, ValueError):
        return False
    return age.total_seconds() < YOUNG_SECONDS


def has_sessions(daemon: dict[str, Any], plan: Plan) -> bool:
    """Tell whether every session of the plan is established, and BFD is up with its neighbour."""
    if "error" in daemon:
        return False
    states = {name: session["state"] for name, session in daemon["sessions"].items()}
    down = {session["address"] for session in daemon["bfd"] if session.get("state") != "Up"}
    return all(
        states.get(session["name"]) == "Established" and session["neighbor"] not in down
        for session in plan["routing"]["sessions"]
    )


def received_counts(daemon: dict[str, Any]) -> dict[str, dict[str, int]]:
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

    If all sessions are up but routes are not as expected, the wait ends when the routes no longer change.
    """
    now = time.monotonic()
    deadline, changed, last = now + seconds, now, None
    while True:
        daemon = read_routing(plan)
        is_up = has_sessions(daemon, plan)
        counts = received_counts(daemon) if received else {}
        digests = learned_digests(plan) if learned else {}
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

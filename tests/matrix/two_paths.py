"""A fabric of two paths whose reflectors accept clients from a range, for the tests of these daemons.

Two hypervisors, hv1 with vm1 and hv2 with vm2, are on both.
"""

from __future__ import annotations

from lab import Lab, wait_for

HYPERVISORS = ("hv1", "hv2")


def await_whole(fabric: Lab) -> None:
    def is_whole() -> bool:
        others = {"hv1": "203.0.113.2", "hv2": "203.0.113.1"}
        return all(fabric.on_each(HYPERVISORS, fabric.established).values()) and all(
            fabric.routes(machine, 4).get(other) == 2 for machine, other in others.items()
        )

    wait_for("sessions and both paths in all routes", is_whole, 60)

"""A fabric of three paths with a different reflector on each, for the tests of these daemons.

Two hypervisors, hv1 with vm1 and hv2 with vm2, and an edge router, gw, are on all of them.  The machines are
bare: a reflector that changes its daemon installs the other one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import Lab, both_families, wait_for

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

REFLECTORS = {"a": "rr1", "b": "rr2", "c": "rr3"}
MACHINES = ("hv1", "hv2", "gw", *REFLECTORS.values())
FLOWS = both_families("vm1", "vm2")


def is_whole(fabric: Lab) -> bool:
    """Return whether all sessions are up, and routes to the other guest and the Internet have three paths."""

    def looks_whole(machine: str) -> bool:
        if not fabric.established(machine):
            return False
        other = {"hv1": 2, "hv2": 1}.get(machine)
        if other is None:
            return True
        wanted = {4: (f"203.0.113.{other}", "default"), 6: (f"2001:db8:cb00:710{other}::/64", "default")}
        return all(
            fabric.routes(machine, family).get(prefix) == len(REFLECTORS)
            for family, prefixes in wanted.items()
            for prefix in prefixes
        )

    return all(fabric.on_each(MACHINES, looks_whole).values())


def await_whole(fabric: Lab) -> None:
    wait_for("sessions and all paths in all routes", lambda: is_whole(fabric), 60)


def change_daemon_and_back(fabric: Lab, intent: Path, copy: Path, daemon: str, program: str) -> None:
    """Change rr2 from BIRD to another daemon and back, with one run each."""
    await_whole(fabric)
    changed = Path(shutil.copytree(intent, copy))
    with (changed / "host_vars" / "rr2.yml").open("a") as variables:
        variables.write(f"l3hv_daemon: {daemon}\n")
    with fabric.steady_traffic(*FLOWS) as traffic:
        for source, there, gone in ((changed, program, "bird"), (intent, "bird", program)):
            fabric.playbook("site.yml", inventory=source)
            await_whole(fabric)
            fabric.run("rr2", f"pidof -q {there} && ! pidof -q {gone}")
            assert fabric.playbook("site.yml", inventory=source).changed_hosts() == {}
    assert traffic.lost() == {}

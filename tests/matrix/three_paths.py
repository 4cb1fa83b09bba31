"""A fabric of three paths with a reflector of another daemon on each.

Two hypervisors (hv1 with vm1, hv2 with vm2) and the edge router gw are on all paths. The machines are bare:
the role installs the packages of a daemon when a reflector changes to it.
"""

from __future__ import annotations

from pathlib import Path

from changed_intents import copy_of
from failures import no_loss
from lab import Lab, both_families, converged

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

REFLECTORS = {"a": "rr1", "b": "rr2", "c": "rr3"}
CONVERGED = converged(
    {"vm1": "hv1", "vm2": "hv2"}, ("gw", *REFLECTORS.values()), "default", next_hops=len(REFLECTORS)
)
"""The routes to the other guest and to the Internet have three paths."""
FLOWS = both_families("vm1", "vm2")


def change_daemon_and_back(fabric: Lab, directory: Path, daemon: str, program: str) -> None:
    """Change rr2 from BIRD to another daemon and back, with one run each."""
    changed = copy_of(fabric.inventory, directory)
    with (changed / "host_vars" / "rr2.yml").open("a") as variables:
        variables.write(f"l3hv_daemon: {daemon}\n")
    with no_loss(fabric, *FLOWS):
        for source, there, gone in ((changed, program, "bird"), (fabric.inventory, "bird", program)):
            fabric.playbook("site.yml", inventory=source)
            fabric.wait_until_converged()
            fabric.run("rr2", f"pidof -q {there} && ! pidof -q {gone}")
            assert fabric.provision(inventory=source) == {}


def up_on_b_alone(protocols: dict[str, str]) -> bool:
    """Return whether only the sessions of a hypervisor with rr2 are established."""
    return all(("Established" in state) == name.startswith("rr2") for name, state in protocols.items())

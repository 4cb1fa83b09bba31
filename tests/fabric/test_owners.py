"""A guest moves in a strict fabric in the order of the runbook, and stays reachable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from addresses import dhcp_servers
from changed_intents import copy_of, set_variable
from lab import Flows, Lab
from machines import INVENTORY, VALIDATORS

pytestmark = [pytest.mark.fabric, pytest.mark.matrix]

FLOWS = (Flows("vm1", "vm3", 4), Flows("vm4", "vm2", 6))
MOVED, OLD, NEW = "vm2", "hv1", "hv3"
MOST_MS = 1000


@pytest.fixture
def inventory(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """Apply a strict copy of the inventory to the hosts that validate, and restore the lab afterwards."""
    copy = copy_of(INVENTORY, tmp_path)
    set_variable(copy / "group_vars" / "all" / "fabric.yml", "l3hv_origin_validation", "strict")
    lab.playbook("site.yml", "--limit", ":".join(VALIDATORS), inventory=copy)
    try:
        yield copy
    finally:
        lab.twin("plug", MOVED, "--on", OLD)
        lab.playbook("site.yml")
        lab.wait_until_whole()


def move_entry(inventory: Path, **moves_from: str) -> None:
    """Move the guest's entry between the hypervisors' variables, as they are in the inventory under test."""
    read = {name: INVENTORY / "host_vars" / f"{name}.yml" for name in (OLD, NEW)}
    old, new = (yaml.safe_load(read[name].read_text()) for name in (OLD, NEW))
    (entry,) = (guest for guest in old["l3hv_guests"] if guest["name"] == MOVED)
    old["l3hv_guests"].remove(entry)
    new["l3hv_guests"].append(entry | moves_from)
    for name, variables in ((OLD, old), (NEW, new)):
        (inventory / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(variables))


def limited_to(hypervisor: str) -> str:
    """Return the hosts that know where the guest is (docs/runbooks/add-a-guest.md).

    All hosts of a mesh know it. The old hypervisor forgets the guest only after it has moved.
    """
    return ":".join([hypervisor, *VALIDATORS, *dhcp_servers(), *([f"!{OLD}"] if hypervisor == NEW else [])])


def restarted(lab: Lab, begin: str) -> dict[str, str]:
    """Return the log lines of sessions that were restarted for a new configuration."""
    command = f"journalctl --quiet --output cat --unit bird --since '{begin}'"
    logs = lab.on_each(VALIDATORS, lambda machine: lab.run(machine, command))
    assert all("Reconfigured" in log for log in logs.values())
    return {machine: line for machine, log in logs.items() for line in log.splitlines() if "Restart" in line}


def test_a_guest_moves_and_stays_accepted(lab: Lab, inventory: Path, figures: dict[str, str]) -> None:
    begin = lab.run(VALIDATORS[0], "date '+%F %T'").strip()
    with lab.steady_traffic(*FLOWS) as traffic:
        move_entry(inventory, moves_from=OLD)
        lab.playbook(*("site.yml", "--limit", limited_to(NEW), "--skip-tags", "verify"), inventory=inventory)
    assert traffic.lost() == {}
    probe = lab.twin(
        "probe", "vm4", MOVED, "--event", f"plug {MOVED} --on {NEW}", "--at", "3", "--seconds", "8", "--json"
    )
    outage = json.loads(probe)["worst_outage_ms"]
    figures["a guest moves in a strict fabric"] = f"{outage:.0f} ms"
    assert outage < MOST_MS
    with lab.steady_traffic(*FLOWS) as traffic:
        move_entry(inventory)
        lab.playbook("site.yml", "--limit", limited_to(OLD), inventory=inventory)
    assert traffic.lost() == {}
    assert restarted(lab, begin) == {}
    lab.playbook("playbooks/verify.yml", inventory=inventory)

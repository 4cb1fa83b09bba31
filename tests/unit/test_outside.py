"""Hosts outside of a run that have to change with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from changed_intents import copy_of
from golden_cases import INVENTORIES

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import read_fabric
from l3hv.run.removals import record_applied

HOSTS = {
    "mesh": ("hv1", "hv2", "hv3", "internet"),
    "lab": ("hv1", "hv2", "hv3", "internet", "rr1", "rr2"),
    "leaf-spine": (
        *("hv1", "hv2", "hv3", "hv4", "internet"),
        *("leaf1", "leaf2", "leaf3", "leaf4", "spine1", "spine2"),
    ),
}
GUEST = {"name": "vm9", "mac": "50:54:33:00:00:99", "ipv4": "203.0.113.9"}


class Fabric:
    """A copy of an inventory, and the memory of its runs."""

    def __init__(self, directory: Path, design: str) -> None:
        self.inventory = copy_of(INVENTORIES / design, directory)
        self.hosts = HOSTS[design]
        self._memory = directory / "build"

    def run(self, *touched: str, applied: bool = True) -> tuple[str, ...]:
        """Plan a run with these hosts (default: all), record it as applied, and return its warnings."""
        hosts = touched or self.hosts
        run = read_fabric(open_inventory(self.inventory), hosts, self._memory)
        if applied:
            record_applied(run.memory, run.applied, hosts, self.hosts)
        return run.outdated

    def change(self, host: str, **variables: object) -> None:
        path = self.inventory / "host_vars" / f"{host}.yml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | variables))

    def add_guest(self, host: str) -> None:
        path = self.inventory / "host_vars" / f"{host}.yml"
        guests = yaml.safe_load(path.read_text())["l3hv_guests"]
        self.change(host, l3hv_guests=[*guests, GUEST])

    def be_strict(self) -> None:
        path = self.inventory / "group_vars" / "all" / "strict.yml"
        path.write_text("l3hv_origin_validation: strict\n")

    def remove(self, host: str) -> None:
        (self.inventory / "host_vars" / f"{host}.yml").unlink()
        hosts = self.inventory / "hosts.yml"
        hosts.write_text(hosts.read_text().replace(f"    {host}:\n", ""))
        self.hosts = tuple(name for name in self.hosts if name != host)


def test_a_limited_run_of_a_changed_host_of_a_mesh_names_all_others(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, "mesh")
    assert fabric.run() == ()
    assert fabric.run("hv3") == ()
    fabric.change("hv3", l3hv_failure_profile="bfd")
    (sentence,) = fabric.run("hv3")
    assert "leaves out hv1, hv2, internet, which must change too: sessions with hv3," in sentence
    assert fabric.run("hv1", "hv2", "internet") == ()
    assert fabric.run("hv3") == ()


def test_a_change_of_the_host_alone_is_no_warning(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, "mesh")
    fabric.run()
    fabric.add_guest("hv3")
    assert fabric.run("hv3") == ()


@pytest.mark.parametrize(("design", "others"), [("mesh", "hv1, hv2, internet"), ("lab", "rr1, rr2")])
def test_a_new_guest_of_a_strict_fabric_changes_the_hosts_that_check_it(
    tmp_path: Path, design: str, others: str
) -> None:
    fabric = Fabric(tmp_path, design)
    fabric.be_strict()
    fabric.run()
    fabric.add_guest("hv3")
    (sentence,) = fabric.run("hv3", applied=False)
    assert f"leaves out {others}, which must change too" in sentence
    assert fabric.run() == ()


def test_a_host_that_has_left_a_mesh_is_named(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, "mesh")
    fabric.run()
    fabric.remove("hv3")
    (sentence,) = fabric.run("hv1")
    assert "leaves out hv2, internet, which must change too: sessions with hv3," in sentence


@pytest.mark.parametrize(("design", "others"), [("mesh", "hv1, hv2, internet"), ("lab", "rr1, rr2")])
def test_a_new_host_changes_its_neighbours(tmp_path: Path, design: str, others: str) -> None:
    whole, fabric = Fabric(tmp_path / "whole", design), Fabric(tmp_path, design)
    fabric.remove("hv3")
    assert fabric.run() == ()
    for file in ("hosts.yml", "host_vars/hv3.yml"):
        (fabric.inventory / file).write_text((whole.inventory / file).read_text())
    (sentence,) = fabric.run("hv3")
    assert f"leaves out {others}, which must change too: sessions with hv3," in sentence


def test_a_host_that_has_no_record_is_not_named(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, "mesh")
    assert fabric.run("hv1") == ()
    assert fabric.run("hv2") == ()  # hv1 was configured for hv2; the others have no record


def test_with_strict_validation_a_new_guest_changes_the_leaves_above_it(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, "leaf-spine")
    fabric.be_strict()
    fabric.run()
    fabric.add_guest("hv1")
    (sentence,) = fabric.run("hv1", applied=False)
    assert "leaves out leaf1, leaf2, which must change too: sessions with hv1," in sentence
    assert fabric.run("hv1", "leaf1", "leaf2", applied=False) == ()

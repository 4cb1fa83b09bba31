"""Names that would break out of a file, a path or a command are refused, and no file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from golden_cases import intent_directory
from mutations import renamed, sound_inventory, written

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import Run, read_fabric
from l3hv.model.errors import IntentError

LAB = sound_inventory(intent_directory("lab"))
LAB["common"]["l3hv_pools"]["customers"]["search"] = ["example.net"]
LAB["common"]["l3hv_fabric"] = "sound"

PLACES = {
    "a guest's name": ("vm4", "l3hv_guests[0].name"),
    "an interface": ("vm2-port", "l3hv_guests[vm2].interface"),
    "an uplink": ("b-private", "l3hv_uplinks.b.private"),
    "a host": ("hv3", "inventory_hostname"),
    "a domain": ("private", "l3hv_domains.{}"),
    "a path": ("b", "l3hv_paths.{}"),
    "a pool": ("customers", "l3hv_pools.{}"),
    "the fabric": ("sound", "l3hv_fabric"),
    "a DNS domain": ("example.net", "l3hv_pools.customers.search[0]"),
}
INJECTIONS = (
    'x"; }',
    "x'",
    "x\\",
    "x # y",
    "x;reboot",
    "x$(reboot)",
    "x`reboot`",
    "x|y",
    "x%n",
    "x,y",
    "x=y",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".x",
    "-x",
    "x\ny",
    "x\n[Network]\nDHCP=yes",
    "x\ry",
    "x\ty",
    "x y",
    "x\u2028y",
    "x\u00e9",
    "\u0445",
    "\u0661",
    "x\u0000y",
    "x\u007fy",
    "{% raw %}{{ x }}{% endraw %}",
    "{{ '{{' }}",
    "{# x #}{{ '%' }}",
    "x@digest@",
)


def lab() -> dict[str, Any]:
    """Return the lab with a different name for each object."""
    inventory = renamed(LAB, "", "")
    hv1, hv3 = (inventory["hosts"][host][1] for host in ("hv1", "hv3"))
    guests = {guest["name"]: guest for variables in (hv1, hv3) for guest in variables["l3hv_guests"]}
    guests["vm2"]["interface"] = "vm2-port"
    guests["vm4"]["interface"] = "vm4-port"
    return inventory


def read(source: Path, directory: Path) -> Run:
    inventory = open_inventory(source)
    return read_fabric(inventory, inventory.kinds()[0], directory)


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_name_is_refused_by_its_field(place: str, text: str, tmp_path: Path) -> None:
    old, field = PLACES[place]
    if place == "a host" and "[" in text:
        pytest.skip("Ansible reads brackets in the name of a host as a range")
    source = tmp_path / "hosts.yml"
    source.write_text(yaml.dump(written(renamed(lab(), old, text)), allow_unicode=True), encoding="utf-8")
    with pytest.raises(IntentError) as raised:
        read(source, tmp_path / "fabric")
    assert field.partition("{")[0] in str(raised.value)
    assert not (tmp_path / "fabric").exists(), "a refused intent has written slices"


def test_the_intent_is_valid_without_a_hostile_name(tmp_path: Path) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(yaml.dump(written(lab())), encoding="utf-8")
    assert read(source, tmp_path / "fabric").hosts == 6


@pytest.mark.parametrize("text", ["{{ nowhere }}", "{{ 1 / 0 }}", "{{ 'x' | nofilter }}", "{{ x", "{% if %}"])
@pytest.mark.parametrize("place", ["a guest's name", "an uplink", "the fabric", "a DNS domain"])
def test_an_expression_without_a_value_is_refused_by_its_field(place: str, text: str, tmp_path: Path) -> None:
    old, field = PLACES[place]
    source = tmp_path / "hosts.yml"
    source.write_text(yaml.dump(written(renamed(lab(), old, text))), encoding="utf-8")
    with pytest.raises(IntentError, match=r"Ansible cannot resolve") as raised:
        read(source, tmp_path / "fabric")
    assert all(problem.field for problem in raised.value.problems)
    assert {problem.field for problem in raised.value.problems} == {field.replace("vm2", "0")}


UNREADABLE = {
    "a key twice": "{l3hv_id: 1, l3hv_id: 2}",
    "a list that contains itself": "{l3hv_guests: &a [*a]}",
    "a list that lies too deep": "{l3hv_guests: " + "[" * 2000 + "]" * 2000 + "}",
    "an object of Python": "{l3hv_id: !!python/object/apply:os.getcwd []}",
    "no YAML": "{l3hv_id: [}",
}


@pytest.mark.parametrize("variables", UNREADABLE.values(), ids=UNREADABLE)
def test_an_inventory_that_ansible_cannot_read_is_refused(variables: str, tmp_path: Path) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(f"hypervisors: {{hosts: {{hv1: {variables}}}}}")
    with pytest.raises(IntentError, match=r"Ansible cannot read all of the inventory"):
        open_inventory(source)

"""An inventory with unusual features of Ansible, which the twin supports. These tests need root."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_machines import REPOSITORY, Lab, new_lab

pytestmark = pytest.mark.twin

HOSTS = """\
all:
  vars:
    l3hv_uplinks: {a: {public: a-public, private: a-private}}
  hosts:
    hv_1: {part: hypervisors, l3hv_id: "{{ id_of_hv_1 }}"}
    hv2.example: {part: hypervisors, l3hv_id: "{{ id_of_the_other }}"}
    rr_1: {part: route_reflectors, l3hv_id: 126, l3hv_path: a}
    upstream:
      part: edge_routers
      l3hv_id: 120
      l3hv_managed: false
      l3hv_edge_domains: [public]
      l3hv_uplinks: {a: {public: a-public}}
"""
GROUPS = """\
plugin: ansible.builtin.constructed
keyed_groups: [{key: part, separator: "", prefix: ""}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Write the inventory, and return the options with which ansible-playbook or the twin reads it."""
    place = tmp_path_factory.mktemp("site")
    (place / "shared").mkdir()
    shutil.copytree(REPOSITORY / "inventories/lab/group_vars", place / "shared/group_vars")
    (place / "shared/hosts.yml").write_text(HOSTS)
    (place / "groups.yml").write_text(GROUPS)
    (place / "password").write_text("correct horse\n")
    secret = place / "shared/host_vars/hv_1.yml"
    secret.parent.mkdir()
    secret.write_text("id_of_hv_1: 1\n")
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", "--vault-password-file"]
    subprocess.run([*vault, place / "password", secret], check=True, capture_output=True, cwd=place)
    return (
        "-i", str(place / "shared"), "-i", str(place / "groups.yml"),
        "--vault-password-file", str(place / "password"), "-e", '{"id_of_the_other": 2}',
    )  # fmt: skip


@pytest.fixture(scope="module")
def fabric(site: tuple[str, ...]) -> Iterator[Lab]:
    made = new_lab("site")
    made.do("up", *site)
    yield made
    made.do("down")
    assert made.leftovers() == []


def play(fabric: Lab, *arguments: str) -> None:
    command = fabric.command("play", "site.yml", "--skip-tags", "verify", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_machines_boot_under_valid_host_names(fabric: Lab) -> None:
    names = [found["name"] for found in fabric.json("status")["machines"]]
    assert names == ["hv2.example", "hv_1", "rr_1", "upstream"]
    own = {name: fabric.sh(name, "cat /proc/sys/kernel/hostname").strip() for name in names}
    assert own == {"hv2.example": "hv2.example", "hv_1": "hv-1", "rr_1": "rr-1", "upstream": "upstream"}
    for name, host_name in own.items():
        config = f"/run/l3hv/{fabric.name}/ssh_config"
        done = subprocess.run(
            ["ssh", "-F", config, name, "hostname"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == host_name


def test_play_repeats_the_options_and_does_not_change_an_unmanaged_router(fabric: Lab) -> None:
    before = fabric.sh("upstream", "find /etc -newer /etc/machine-id; ip -brief address")
    # The verification would wait for the routes of a router that has no configuration yet.
    play(fabric)
    for name in ("hv_1", "hv2.example", "rr_1"):
        assert fabric.sh(name, "systemctl is-active bird").strip() == "active"
    assert fabric.sh("upstream", "find /etc -newer /etc/machine-id; ip -brief address") == before
    assert fabric.run("exec", "upstream", "--", "systemctl", "is-active", "bird").stdout == "inactive\n"


def test_up_remembers_its_options(fabric: Lab) -> None:
    assert fabric.json("up")["booted"] == []


def test_an_unmanaged_router_can_be_adopted(fabric: Lab) -> None:
    assert fabric.json("up", "--adopt")["booted"] == []
    play(fabric, "--limit", "upstream")
    assert fabric.sh("upstream", "systemctl is-active bird").strip() == "active"

"""The playbooks as an operator starts them, up to the first connection to a host.

There are no hosts: errors are reported before the first connection, and plan.yml needs no host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ansible", reason="the playbooks are run by Ansible itself")

ROOT = Path(__file__).parents[2]
LAB = ROOT / "inventories" / "lab"
PROGRAM = Path(sys.executable).with_name("ansible-playbook")

Play = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Return a function that runs a playbook of the tree, and leaves no files there."""

    def run(
        playbook: str, *arguments: str, inventory: Path | str = LAB, cwd: Path = ROOT, tree: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        build = (
            [] if any("l3hv_build" in word for word in arguments) else ["-e", f"l3hv_build={tmp_path}/build"]
        )
        return subprocess.run(
            [str(PROGRAM), "-i", str(inventory), str(tree / playbook), *arguments, *build],
            cwd=cwd,
            env={**environment, "COLUMNS": "1000", "XDG_STATE_HOME": str(tmp_path / "state")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def output_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command without the line breaks of Ansible."""
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LAB, tmp_path / "lab"))


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/verify.yml", "playbooks/rotate_keys.yml"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--start-at-task", "Reload BIRD"],
            "--start-at-task 'Reload BIRD' leaves out the reading of the intent",
        ),
        (["--skip-tags", "always"], "--skip-tags always leaves out the reading of the intent"),
    ],
)
def test_a_run_that_skips_reading_the_intent_is_refused(play: Play, playbook, arguments, sentence):
    done = play(playbook, *arguments)
    assert done.returncode != 0
    assert sentence in output_of(done)


def test_an_inventory_without_a_fabric_is_refused(play: Play):
    done = play("site.yml", inventory="node7,")
    assert done.returncode != 0
    assert "No host of" in output_of(done)
    assert "is in a group of the fabric" in output_of(done)


def test_an_empty_inventory_is_refused(play: Play, tmp_path: Path):
    (tmp_path / "empty.yml").write_text("all: {}\n")
    done = play("site.yml", inventory=tmp_path / "empty.yml")
    assert done.returncode != 0
    assert "is in a group of the fabric" in output_of(done)


def test_a_limit_to_hosts_outside_of_the_fabric_is_refused(play: Play, lab: Path):
    with (lab / "hosts.yml").open("a") as hosts:
        hosts.write("others: {hosts: {printer: }}\n")
    done = play("site.yml", "--limit", "printer", inventory=lab)
    assert done.returncode != 0
    assert "--limit: The run has no host of hypervisors" in output_of(done)


def test_a_misspelt_group_is_refused(play: Play, lab: Path):
    hosts = lab / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("hypervisors:", "hypervisor:"))
    done = play("site.yml", inventory=lab)
    assert done.returncode != 0
    assert "hv1, hv2, hv3: groups:" in output_of(done)
    assert "did you mean hypervisors?" in output_of(done)


def test_playbooks_find_everything_from_another_directory(play: Play, tmp_path: Path):
    """The working directory has no ansible.cfg: Ansible finds plugins and roles beside the playbooks."""
    done = play("playbooks/plan.yml", "--limit", "hv1", cwd=tmp_path)
    assert done.returncode == 0, output_of(done)
    assert "hv1: hypervisor 1 of lab" in done.stdout
    for playbook in ("site.yml", "playbooks/verify.yml", "playbooks/rotate_keys.yml"):
        done = play(playbook, "--syntax-check", cwd=tmp_path)
        assert done.returncode == 0, output_of(done)


def test_the_network_configuration_of_a_guest_is_printed_for_its_image(play: Play):
    """Only the guest's own hypervisor prints it, also without --limit."""
    done = play("playbooks/plan.yml", "-e", "plan_guest=vm3")
    assert done.returncode == 0, output_of(done)
    printed = re.findall(r"msg: \|-\n((?: {8}.*\n)+)", done.stdout)
    assert len(printed) == 1
    (interface,) = yaml.safe_load(printed[0])["ethernets"].values()
    assert interface["match"] == {"macaddress": "50:54:33:00:00:0f"}
    assert "203.0.113.3/24" in interface["addresses"]


RELAYS = ROOT / "inventories/dhcp-relay"


def test_the_configuration_of_a_dhcp_server_is_printed_for_all_guests(play: Play):
    done = play("playbooks/plan.yml", "-e", "plan_dhcp_server=172.22.9.53", inventory=RELAYS)
    assert done.returncode == 0, output_of(done)
    printed = re.findall(r"msg: \|-\n((?: {8}.*\n|\n)+)", done.stdout)
    assert len(printed) == 1
    guests = re.findall(r'"circuit-id": "\'(.*)\'"', printed[0])
    assert guests == ["hv1/vm1", "hv1/vm2", "hv2/vm3", "hv3/vm4"]
    assert "@digest@" not in printed[0]
    assert '"interfaces": [ "*" ]' in printed[0], "the address is on a NIC that l3hv does not know"


def test_the_configuration_of_a_dhcp_server_may_name_its_interface(play: Play):
    choice = ("-e", "plan_dhcp_server=172.22.9.53", "-e", "plan_dhcp_interface=lo/172.22.9.53")
    done = play("playbooks/plan.yml", *choice, inventory=RELAYS)
    assert '"interfaces": [ "lo/172.22.9.53" ]' in done.stdout, output_of(done)


def test_the_configuration_of_a_dhcp_server_without_some_guests_is_refused(play: Play):
    limited = ("-e", "plan_dhcp_server=172.22.9.53", "--limit", "hv1")
    done = play("playbooks/plan.yml", *limited, inventory=RELAYS)
    assert done.returncode != 0
    assert "this run leaves out hv2, hv3." in " ".join(output_of(done).split())


@pytest.fixture
def read_only_tree(tmp_path: Path):
    """Yield a checkout on a read-only file system, as in an execution environment."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["mount", "--bind", str(ROOT), str(tree)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tree)], check=True)
        yield tree
    finally:
        subprocess.run(["umount", str(tree)], check=True)


def test_a_read_only_checkout_stores_its_plans_elsewhere(play: Play, read_only_tree: Path, tmp_path: Path):
    done = play("playbooks/plan.yml", "-e", "l3hv_build=", cwd=read_only_tree, tree=read_only_tree)
    assert done.returncode == 0, output_of(done)
    assert list((tmp_path / "state" / "l3hv" / "fabric").glob("*/basis.json"))


@pytest.mark.parametrize(
    ("playbook", "sentence"),
    [
        ("site.yml", "The roles need root, and this run is nobody on the host."),
        ("playbooks/rotate_keys.yml", "The roles need root, and this run is nobody on the host."),
        ("playbooks/verify.yml", "Only root can read the kernel's tables and the daemons"),
    ],
)
def test_a_run_that_is_not_root_is_refused(play: Play, lab: Path, playbook: str, sentence: str):
    """The connection is local, and the run ends before it changes anything."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another account without a password")
    become = (
        '{"ansible_become": true, "ansible_become_method": "su", "ansible_become_user": "nobody",'
        ' "ansible_become_flags": "-s /bin/sh"}'
    )
    done = play(playbook, "-e", "ansible_connection=local", "-e", become, inventory=lab)
    assert done.returncode != 0
    assert sentence in output_of(done)
    assert "Traceback" not in output_of(done)
    assert "PLAY [Configure" not in done.stdout


def test_the_removal_of_most_guests_needs_consent(play: Play, lab: Path, tmp_path: Path):
    """Record a run with four guests; then remove three of them from the inventory."""
    assert play("playbooks/plan.yml", inventory=lab).returncode == 0
    (run,) = (tmp_path / "build" / "fabric").glob("*/runs/*")
    from l3hv.run.removals import record_applied

    hosts = [path.stem for path in (run / "plans").glob("*.json")]
    record_applied(run.parents[1] / "applied", run / "applied.json", hosts, hosts)
    for name in ("hv1", "hv2"):
        path = lab / "host_vars" / f"{name}.yml"
        path.write_text(path.read_text().partition("l3hv_guests:")[0])
    removal_output = output_of(play("playbooks/plan.yml", inventory=lab))
    assert "This run removes 2 guests (vm1, vm2) from hv1." in removal_output
    local = ["-e", "ansible_connection=local", "-e", "ansible_python_interpreter=/bin/false"]
    done = play("site.yml", *local, inventory=lab)
    assert done.returncode != 0
    assert (
        "This run removes 0 of 6 hosts and 3 of 4 guests:"
        " more than a fifth of the guests that the last run left." in output_of(done)
    )
    assert "-e l3hv_removals=3" in output_of(done)
    assert "PLAY [Lock" not in done.stdout
    done = play("site.yml", *local, "-e", "l3hv_removals=2", inventory=lab)
    assert "l3hv_removals is 2" in output_of(done)
    assert "PLAY [Lock" in play("site.yml", *local, "-e", "l3hv_removals=3", inventory=lab).stdout
    assert "PLAY [Lock" in play("site.yml", *local, "--check", inventory=lab).stdout


def test_a_text_from_the_command_line_is_refused_with_the_notation_of_numbers(play: Play):
    done = play("playbooks/plan.yml", "-e", "l3hv_mtu=9000", "-e", "l3hv_managed=False")
    assert done.returncode != 0
    assert (
        "found the text '9000'. -e l3hv_mtu=… is always text: write -e '{\"l3hv_mtu\": 9000}'."
        in output_of(done)
    )
    assert "-e l3hv_managed=… is always text: write -e '{\"l3hv_managed\": false}'." in output_of(done)
    paths = '{"l3hv_paths": {"a": {"public": "198.51.100.0/25"}}}'
    done = play("playbooks/plan.yml", "-e", paths)
    assert "l3hv_paths.a.public: expected a mapping, found the text" in output_of(done)
    assert "is always text" not in output_of(done), "JSON from the command line is reported as text"
    assert play("playbooks/plan.yml", "-e", '{"l3hv_managed": true}').returncode == 0


SCRATCH = """
- hosts: all
  gather_facts: false
  tasks:
    - raw: "true"
    - fail:
      when: inventory_hostname == failing | default("")
- hosts: all
  gather_facts: false
  tasks:
    - meta: end_host
      when: inventory_hostname == left | default("")
- hosts: all
  gather_facts: false
  tasks:
    - l3hv_applied:
        run: {memory: "{{ playbook_dir }}/memory", applied: "{{ playbook_dir }}/applied.json"}
      run_once: true
      when: not ansible_check_mode
"""

# Nothing listens on port 1.
HOSTS = """
hypervisors:
  hosts: {hv1: , hv2: }
  vars:
    ansible_connection: "{{ 'ssh' if inventory_hostname == unreachable | default('') else 'local' }}"
    ansible_host: 127.0.0.1
    ansible_port: 1
"""


@pytest.mark.parametrize(
    ("arguments", "remembered"),
    [
        ([], ["hv1", "hv2"]),
        (["--tags", "all"], ["hv1", "hv2"]),
        (["--limit", "hv2"], ["hv2"]),
        (["--skip-tags", "bird"], []),
        (["--tags", "untagged"], []),
        (["--check"], []),
        (["-e", "failing=hv1"], []),
        (["-e", "failing=hv2"], []),
        (["-e", "left=hv1"], ["hv1", "hv2"]),
        (["-e", "failing=hv2", "-e", "left=hv1"], []),
        (["-e", "unreachable=hv2"], []),
    ],
)
def test_a_run_is_recorded_only_if_it_was_applied_completely(tmp_path: Path, arguments, remembered):
    """A host that ended a play with `meta: end_host` is in the next play; a failed host is not."""
    (tmp_path / "play.yml").write_text(SCRATCH)
    (tmp_path / "hosts.yml").write_text(HOSTS)
    left: dict[str, list[str]] = {"guests": [], "neighbors": []}
    (tmp_path / "applied.json").write_text(json.dumps({"hv1": left, "hv2": left}))
    subprocess.run(
        [PROGRAM, "-i", tmp_path / "hosts.yml", tmp_path / "play.yml", *arguments],
        env={**os.environ, "ANSIBLE_ACTION_PLUGINS": str(ROOT / "plugins" / "action")},
        check=not any("failing" in word or "unreachable" in word for word in arguments),
        timeout=120,
    )
    assert sorted(path.stem for path in (tmp_path / "memory").glob("*.json")) == remembered


@pytest.mark.parametrize("file", ["host_vars/hv2.yml", "group_vars/all/more.yml"])
def test_invalid_yaml_is_reported_with_file_and_line(play: Play, lab: Path, file: str) -> None:
    (lab / file).write_text("l3hv_mtu: 1500\nl3hv_uplinks: {a: {public: x\n")
    done = play("playbooks/plan.yml", inventory=lab)
    assert done.returncode != 0
    assert f"{lab}/{file}:3:1: YAML parsing failed" in output_of(done)


def test_the_output_ends_with_a_summary(play: Play):
    done = play("playbooks/plan.yml", "--limit", "hv1")
    assert done.returncode == 0, output_of(done)
    assert "PLAY RECAP" not in done.stdout
    summary = done.stdout.rpartition("SUMMARY")[2]
    assert re.search(r"^hosts +1: 0 changed$", summary, re.MULTILINE), summary
    assert re.search(r"^time +\d+ s$", summary, re.MULTILINE), summary
    assert not re.search(r"^ok: \[hv1\]$", done.stdout, re.MULTILINE)


def test_the_summary_names_hosts_that_failed_and_their_tasks(play: Play):
    local = ["-e", "ansible_connection=local", "-e", "ansible_python_interpreter=/bin/false"]
    done = play("site.yml", *local, "--limit", "hv1")
    assert done.returncode != 0
    summary = done.stdout.rpartition("SUMMARY")[2]
    assert re.search(r"^hosts +1: 0 changed, 1 failed$", summary, re.MULTILINE), summary
    assert re.search(r"^  hv1 +failed: Take the lock of each host$", summary, re.MULTILINE), summary
    assert re.search(r"^verification +not done: the run failed before$", summary, re.MULTILINE), summary


def test_the_summary_names_hosts_that_were_left_unchanged(play: Play, tmp_path: Path):
    """The play has only the task of site.yml that records such a host."""
    plays = yaml.safe_load((ROOT / "site.yml").read_text(encoding="utf-8"))
    blocks = [task for each in plays for task in each.get("pre_tasks", ()) if "block" in task]
    (task,) = [task for each in blocks for task in each["block"] if "ansible.builtin.set_stats" in task]
    alone = tmp_path / "play.yml"
    alone.write_text(yaml.dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    done = play(str(alone), "-e", '{"__failed": ["hv7", "hv8"]}', inventory="rr2,")
    assert done.returncode == 0, output_of(done)
    assert re.search(r"^  rr2 +left unchanged: hv7, hv8 could not be updated$", done.stdout, re.MULTILINE)


def test_problems_of_the_intent_are_printed_once_and_are_of_no_host(play: Play, lab: Path):
    with (lab / "host_vars" / "hv3.yml").open("a", encoding="utf-8") as text:
        text.write("l3hv_asn: zero\n")
    done = play("site.yml", inventory=lab)
    assert done.returncode != 0
    assert output_of(done).count("hv3: l3hv_asn:") == 1
    summary = done.stdout.rpartition("SUMMARY")[2]
    assert re.search(r"^intent +refused: its problems are listed above$", summary, re.MULTILINE), summary
    assert re.search(r"^verification +not done: the run failed before$", summary, re.MULTILINE), summary
    assert not re.search(r"^  (hv|rr|internet)", summary, re.MULTILINE), summary


def test_a_verbose_run_prints_the_tasks_of_ansible(play: Play):
    done = play("playbooks/plan.yml", "--limit", "hv1", "-v")
    assert "PLAY RECAP" in done.stdout
    assert "SUMMARY" in done.stdout
    assert "ok: [hv1]" in done.stdout

"""The variables of roles come from the plan of the host, unless a play sets another value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from rendered import ROOT

ROUTING = "{{ l3hv_plan.routing | combine({'asn': %s}) }}"
PLAY = [
    {"import_playbook": str(ROOT / "playbooks/plan_facts.yml")},
    {
        "hosts": "hv1:rr1",
        "gather_facts": False,
        "roles": [{"role": "shown"}, {"role": "shown", "bird_routing": ROUTING % 7}],
        "tasks": [
            {"include_role": {"name": "shown"}, "vars": {"l3hv_routing": ROUTING % 9}},
            {"include_role": {"name": "shown"}},
        ],
    },
]


def test_variables_are_bound_for_every_host_and_can_be_overridden(tmp_path: Path) -> None:
    tasks = tmp_path / "roles/shown/tasks"
    tasks.mkdir(parents=True)
    shown = "{{ bird_host }} {{ kernel_forwards }} {{ bird_routing.asn }}"
    (tasks / "main.yml").write_text(yaml.safe_dump([{"debug": {"msg": shown}}]))
    defaults = tmp_path / "roles/shown/defaults"
    defaults.mkdir()
    (defaults / "main.yml").write_text("bird_host: default\nkernel_forwards: default\n")
    (tmp_path / "play.yml").write_text(yaml.safe_dump(PLAY))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "play.yml",
            "--inventory",
            ROOT / "inventories/lab",
            "--limit",
            "hv1:rr1",
            "--extra-vars",
            f"l3hv_build={tmp_path}/build",
            "--check",
        ],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split('"')[3] for line in done.stdout.splitlines() if '"msg"' in line]
    assert sorted(lines) == sorted(
        f"{host} {asn}" for host in ("hv1 True", "rr1 False") for asn in (65000, 7, 9, 65000)
    )

"""Modules find their files of ``plugins/module_utils`` from every working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
BESIDE_A_PLAYBOOK = ("action_plugins", "library", "module_utils")


@pytest.mark.parametrize("module", MODULES)
def test_ansible_doc_reads_the_documentation_of_a_module(module: str) -> None:
    program = str(Path(sys.executable).with_name("ansible-doc"))
    done = subprocess.run(
        [program, "-t", "module", module], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "MODULE" in done.stdout


@pytest.mark.parametrize("directory", [".", "playbooks"])
def test_modules_find_their_files_without_ansible_cfg(tmp_path: Path, directory: str) -> None:
    """A module that refuses a task without arguments has imported all its files."""
    for name in BESIDE_A_PLAYBOOK:
        (tmp_path / name).symlink_to((ROOT / directory / name).resolve(strict=True))
    tasks = [{module: {}, "ignore_errors": True} for module in MODULES]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    program = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "here,", "-c", "local"]
    done = subprocess.run(
        [*program, "-e", f"ansible_python_interpreter={sys.executable}", str(tmp_path / "play.yml")],
        cwd="/",
        env={key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"msg": "missing required arguments: ') == len(MODULES), done.stdout

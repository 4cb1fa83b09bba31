"""The lock of a host in an Ansible run: the host is this one, in a namespace with a separate /run/l3hv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from l3hv.run.identity import describe_run

pytest.importorskip("ansible", reason="the playbooks are run by Ansible itself")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("ansible-playbook")
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - l3hv_lock:
        fabric: lab
        run: {run}
      register: answer
    - debug:
        msg: "refusal={{{{ answer.refusal }}}}"
    - command: cat /run/l3hv/lab.lock
      when: not ansible_check_mode
    - fail:
      when: fails | default(false)
    - l3hv_lock:
        fabric: lab
        run: {run}
        state: released
      when: not ansible_check_mode
"""
# Prints the remaining files after the play.
SCRIPT = """
mkdir -p /run/l3hv
mount -t tmpfs tmpfs /run/l3hv
if [ -s lock ]; then cp lock /run/l3hv/lab.lock; touch -d "$1" /run/l3hv/lab.lock; fi
shift
"$@" || true
echo "left: $(ls /run/l3hv)"
"""
OTHER = {
    **describe_run("site.yml -i /srv/site", os.getpid()),
    "owner": "alice",
    "host": "ctrl1",
    "process": ["another machine", 1, "1"],
}

Play = Callable[..., str]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Return a function that runs the play on a host with an existing lock, and returns its output."""

    def run(*arguments: str, lock: object = None, age: str = "now") -> str:
        own = describe_run("site.yml", os.getpid())
        (tmp_path / "play.yml").write_text(PLAY.format(run=json.dumps(own)))
        (tmp_path / "lock").write_text(json.dumps(lock) if lock is not None else "")
        interpreter = f"ansible_python_interpreter={sys.executable}"
        program = [str(PROGRAM), "-i", "here,", "-c", "local", "-e", interpreter, "play.yml"]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", SCRIPT, "sh", age, *program, *arguments],
            cwd=tmp_path,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
                "COLUMNS": "1000",
                "ANSIBLE_ACTION_PLUGINS": str(ROOT / "plugins" / "action"),
                "ANSIBLE_LIBRARY": str(ROOT / "plugins" / "modules"),
                "ANSIBLE_MODULE_UTILS": str(ROOT / "plugins" / "module_utils"),
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "plugins" / "callback"),
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        text = " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in text, text
        return text

    return run


def ended() -> dict[str, object]:
    """Return the record of a run of this controller that has ended."""
    process = subprocess.Popen(["sleep", "60"])
    run = {**OTHER, "process": describe_run("", process.pid)["process"]}
    process.kill()
    process.wait()
    return run


def test_a_lock_is_taken_and_released(play: Play) -> None:
    text = play()
    assert "failed=0" in text
    assert "left: lab.lock" not in text


def test_a_run_that_fails_leaves_no_lock(play: Play) -> None:
    """The callback asks Ansible for the inventory of the run, which is not a public interface."""
    text = play("-e", '{"fails": true}')
    assert "failed=1" in text
    assert "ok=3" in text, "the play did not get the lock"
    assert "left: lab.lock" not in text


def test_the_run_that_holds_a_lock_is_named(play: Play) -> None:
    assert "refusal=The host is locked: alice on ctrl1 runs site.yml -i /srv/site" in play(lock=OTHER)
    checked = play("--check", lock=OTHER)
    assert "alice on ctrl1 is changing this host" in checked
    assert "the result of --check may be outdated" in checked


@pytest.mark.parametrize("is_check", [True, False])
def test_a_lock_of_no_running_process_causes_no_warning(play: Play, is_check: bool) -> None:
    """Test a lapsed lock, the lock of a run that has ended, and a lock that names no run."""
    arguments = ["--check"] if is_check else []
    for text in (
        play(*arguments, lock=OTHER, age="-31 minutes"),
        play(*arguments, lock=ended()),
        play(*arguments, lock=[]),
        play(*arguments, lock={}),
    ):
        assert '"msg": "refusal="' in text
        assert "is changing this host" not in text
        assert "failed=0" in text

"""Locks of hosts: two operators start runs at the same time."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest
from lab import REPOSITORY, Lab
from machines import INVENTORY, MACHINES

pytestmark = pytest.mark.fabric

LOCK = "/run/l3hv/lab.lock"
OTHER = {
    "id": "0123456789abcdef",
    "owner": "alice",
    "host": "ctrl1",
    "since": "2026-11-29 12:01:07 UTC",
    "command": "site.yml -i /srv/site",
    "process": ["another machine", 1, "1"],
}


def failed_run(lab: Lab, *arguments: str) -> str:
    """Run site.yml, which must fail, and return what it prints on one line."""
    command = lab.ansible_command("ansible-playbook", INVENTORY, "site.yml", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=600)
    assert done.returncode != 0, done.stdout
    return " ".join(done.stdout.split())


def locks(lab: Lab) -> dict[str, str]:
    """Return the lock of each machine that has one."""
    found = lab.on_each(
        MACHINES, lambda machine: lab.run(machine, "cat /run/l3hv/*.lock 2>/dev/null || true")
    )
    return {machine: text for machine, text in found.items() if text}


@pytest.fixture
def held(standing: Lab) -> Iterator[Lab]:
    """Yield the lab while a run of another controller has the lock of hv2."""
    name = standing.run("hv2", "ls /run/l3hv 2>/dev/null || true")
    assert "lock" not in name
    text = shlex.quote(json.dumps(OTHER))
    standing.run("hv2", f"mkdir -p /run/l3hv && printf %s {text} > {LOCK}")
    yield standing
    standing.run("hv2", f"rm -f {LOCK}")


def test_a_second_run_names_the_holder_of_the_lock_and_changes_nothing(held: Lab) -> None:
    held.run("hv1", "rm /etc/l3hv/tables.conf")
    text = failed_run(held)
    assert "alice on ctrl1 runs site.yml -i /srv/site since 2026-11-29 12:01:07 UTC" in text
    assert locks(held).keys() == {"hv2"}, "the run has not released the locks of other hosts"
    assert held.run("hv1", "ls /etc/l3hv/tables.conf || true") == "", "hv1 was changed"


def test_check_mode_needs_no_lock(held: Lab) -> None:
    run = held.playbook("site.yml", "--check", "--limit", "hv2")
    assert "alice on ctrl1 is changing this host" in " ".join(run.warnings.split())
    assert json.loads(locks(held)["hv2"])["owner"] == "alice"


def test_a_lock_can_be_broken_and_is_released_at_the_end(held: Lab) -> None:
    held.playbook("site.yml", "-e", "l3hv_break_lock=true")
    assert locks(held) == {}


def test_a_lock_that_was_not_renewed_lapses(held: Lab) -> None:
    held.run("hv2", f"touch -d '-31 minutes' {LOCK}")
    held.playbook("site.yml", "--limit", "hv2")
    assert locks(held) == {}


def test_a_run_that_fails_releases_its_locks(standing: Lab) -> None:
    """hv2 fails in the middle of the run, because one of its files cannot be written."""
    standing.run("hv2", "rm /etc/l3hv/tables.conf && mkdir /etc/l3hv/tables.conf")
    try:
        assert "hv2 failed: tables" in failed_run(standing)
        assert locks(standing) == {}
    finally:
        standing.run("hv2", "rmdir /etc/l3hv/tables.conf 2>/dev/null || true")
        standing.playbook("site.yml")

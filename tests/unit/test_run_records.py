"""Runs and the locks that they take on hosts."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from l3hv.runs import describe_run, has_ended

pytest.importorskip("ansible", reason="the module needs Ansible's part of modules")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load("l3hv_lock")


def load(name: str) -> ModuleType:
    """Return a module of Ansible's as Python's."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"plugins/modules/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_run_ends_with_its_process():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = describe_run("site.yml", process.pid)
    assert not has_ended(run)
    process.kill()
    process.wait()
    assert has_ended(run)


def test_of_another_machine_nothing_is_known():
    run = describe_run("site.yml", os.getpid())
    run["process"] = ["another machine", 1, "0"]
    assert not has_ended(run)


def test_a_lock_is_one_run_s_until_it_is_released_or_lapses(module: ModuleType, tmp_path: Path):
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    lock = module.Lock("lab", str(tmp_path))
    assert lock.take(alice, 1800) is None
    assert lock.take(alice, 1800) is None, "its own lock refuses no run"
    assert lock.take(bob, 1800)["command"] == "alice"
    lock.release(bob)
    assert lock.holder()["id"] == alice["id"], "a run releases its own lock only"
    lock.release(alice)
    assert lock.take(bob, 1800) is None
    os.utime(lock.path, (0, os.path.getmtime(lock.path) - 1801))
    assert lock.take(alice, 1800) is None, "the lock has lapsed"
    assert lock.take(bob, 1800, instead_of="another") is not None
    assert lock.take(bob, 1800, instead_of=alice["id"]) is None
    assert lock.take(alice, 1800, force=True) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.lock"]


def test_a_run_whose_lock_was_broken_places_no_file(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_files = load("config_files")
    monkeypatch.setattr(config_files, "LOCKS", f"{tmp_path}/*.lock")
    monkeypatch.setenv("L3HV_FABRIC", "lab")
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    lock = module.Lock("lab", str(tmp_path))
    config_files.renew_lock(alice["id"])
    lock.take(alice, 1800)
    os.utime(lock.path, (0, 0))
    config_files.renew_lock(alice["id"])
    assert lock.holder()["idle"] < 60, "placing files renews the lock"
    lock.take(bob, 1800, force=True)
    with pytest.raises(config_files.Refused, match="this run has lost the lock of the host to"):
        config_files.renew_lock(alice["id"])
    config_files.renew_lock("")  # a role that is used alone


def test_fabrics_do_not_lock_each_other(module: ModuleType, tmp_path: Path):
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    assert module.Lock("a", str(tmp_path)).take(alice, 1800) is None
    assert module.Lock("b", str(tmp_path)).take(bob, 1800) is None


@pytest.mark.parametrize("content", ["", "{"])
def test_a_broken_lock_stops_no_run(module: ModuleType, tmp_path: Path, content: str):
    (tmp_path / "lab.lock").write_text(content)
    assert module.Lock("lab", str(tmp_path)).take(describe_run("site.yml", os.getpid()), 1800) is None


def test_of_many_runs_at_once_one_gets_the_lock(module: ModuleType, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    start, answers = context.Event(), context.Queue()

    def take(number: int) -> None:
        lock, run = module.Lock("lab", str(tmp_path)), describe_run(str(number), os.getpid())
        start.wait()
        answers.put(lock.take(run, 1800) is None)

    processes = [context.Process(target=take, args=(number,)) for number in range(16)]
    for process in processes:
        process.start()
    start.set()
    taken = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(taken) == [False] * 15 + [True]

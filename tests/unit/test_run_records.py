"""Records of runs, and the locks of runs on hosts."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from l3hv.run.identity import LEAST_LEASE_S, describe_run, has_ended, lease_seconds

pytest.importorskip("ansible", reason="the module needs Ansible's part of modules")

from ansible.module_utils.l3hv.config_files.lock import renew_lock
from ansible.module_utils.l3hv.config_files.refused import Refused

CONFIG_FILES = "ansible.module_utils.l3hv.config_files"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load("l3hv_lock")


def load(name: str) -> ModuleType:
    """Import an Ansible module as a Python module."""
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


def test_the_state_of_a_run_on_another_machine_is_unknown():
    run = describe_run("site.yml", os.getpid())
    run["process"] = ["another machine", 1, "0"]
    assert not has_ended(run)


@pytest.mark.parametrize("process", [None, [], 3, ["a machine"], [None, "x", ""]])
def test_the_state_of_a_run_without_a_process_is_unknown(process: object):
    assert not has_ended({"process": process})
    assert not has_ended({})


@pytest.mark.parametrize("hidepid", [0, 1, 2])
def test_a_run_of_another_user_is_alive_if_proc_hides_it(hidepid: int):
    """The process belongs to root, and the account `nobody` examines it before and after its end."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount another /proc")
    mounted = f"mount -t proc -o hidepid={hidepid} proc /proc"
    python = [sys.executable, "-c", EXAMINED_BY_NOBODY, str(ROOT / "src")]
    done = subprocess.run(
        [*NAMESPACES, "sh", "-ec", f'{mounted}; "$0" "$@"', *python],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["alive", "ended", *(["other"] if hidepid == 0 else ["unknown"])]


NAMESPACES = ("unshare", "--pid", "--mount", "--fork")
# The last examined process has the number of a run that has ended.
EXAMINED_BY_NOBODY = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from l3hv.run.identity import describe_run, has_ended
lives, ends = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
run, ended = (describe_run("site.yml", process.pid) for process in (lives, ends))
ends.kill()
ends.wait()
sys.stdout.flush()
child = os.fork()
if child == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    print("ended" if has_ended(run) else "alive")
    print("ended" if has_ended(ended) else "alive")
    machine, pid, started = run["process"]
    print("other" if has_ended({"process": [machine, pid, started + "0"]}) else "unknown")
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
lives.kill()
"""


def test_a_run_holds_a_lock_until_it_is_released_or_lapses(module: ModuleType, tmp_path: Path):
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    lock = module.Lock("lab", str(tmp_path))
    assert lock.take(alice) is None
    assert lock.take(alice) is None, "a run is refused by its own lock"
    assert lock.take(bob)["command"] == "alice"
    lock.release(bob)
    assert lock.holder()["id"] == alice["id"], "a run has released the lock of another run"
    lock.release(alice)
    assert lock.take(bob) is None
    os.utime(lock.path, (0, os.path.getmtime(lock.path) - LEAST_LEASE_S - 1))
    assert lock.living_holder() is None
    assert lock.take(alice) is None, "a lapsed lock refuses a run"
    assert lock.take(bob, instead_of="another") is not None
    assert lock.take(bob, instead_of=alice["id"]) is None
    assert lock.take(alice, force=True) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".guard", "lab.lock"]


def test_a_run_whose_lock_was_broken_places_no_file(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONFIG_FILES}.lock.LOCKS", f"{tmp_path}/*.lock")
    monkeypatch.setenv("L3HV_FABRIC", "lab")
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    lock = module.Lock("lab", str(tmp_path))
    renew_lock(alice["id"])
    lock.take(alice)
    os.utime(lock.path, (0, 0))
    renew_lock(alice["id"])
    assert lock.holder()["idle"] < 60, "placing files has not renewed the lock"
    lock.take(bob, force=True)
    with pytest.raises(Refused, match="this run has lost the lock of the host to"):
        renew_lock(alice["id"])
    renew_lock("")  # A role that is used without site.yml has no lock.


def test_fabrics_do_not_lock_each_other(module: ModuleType, tmp_path: Path):
    alice, bob = (describe_run(name, os.getpid()) for name in ("alice", "bob"))
    assert module.Lock("a", str(tmp_path)).take(alice) is None
    assert module.Lock("b", str(tmp_path)).take(bob) is None


BROKEN = ["", "{", "[]", "{}", "3", '{"id": "1"}', '{"id": 1, "owner": "a", "host": "b", "command": "c"}']


@pytest.mark.parametrize("content", BROKEN)
def test_an_invalid_lock_stops_no_run(
    module: ModuleType, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "lab.lock").write_text(content)
    monkeypatch.setattr(f"{CONFIG_FILES}.lock.LOCKS", f"{tmp_path}/*.lock")
    monkeypatch.setenv("L3HV_FABRIC", "lab")
    renew_lock("0123456789abcdef")
    run = describe_run("site.yml", os.getpid())
    assert module.Lock("lab", str(tmp_path)).holder() is None
    module.Lock("lab", str(tmp_path)).release(run)
    assert module.Lock("lab", str(tmp_path)).take(run) is None


def test_the_lease_of_a_lock_is_that_of_its_own_run(module: ModuleType, tmp_path: Path):
    """The lease of another run, for example one with --limit, may be too short."""
    large = describe_run("large", os.getpid(), lease_seconds(reflectors=4, clients=1000, forks=50))
    small = describe_run("small", os.getpid(), lease_seconds(reflectors=0, clients=1, forks=50))
    lock = module.Lock("lab", str(tmp_path))
    lock.take(large)
    idle = small["lease"] + 60
    assert idle < large["lease"]
    os.utime(lock.path, (0, os.path.getmtime(lock.path) - idle))
    holder = lock.take(small)
    assert holder is not None
    assert f"its lock lapses {large['lease'] // 60} minutes after" in module.refusal(holder)
    os.utime(lock.path, (0, os.path.getmtime(lock.path) - large["lease"]))
    assert lock.take(small) is None


def test_a_lock_without_a_lease_lapses_too(module: ModuleType, tmp_path: Path):
    run = describe_run("earlier", os.getpid())
    del run["lease"]
    (tmp_path / "lab.lock").write_text(json.dumps(run))
    assert module.Lock("lab", str(tmp_path)).holder()["lease"] == LEAST_LEASE_S


def test_a_lease_includes_the_time_for_which_a_host_waits():
    alone = lease_seconds(reflectors=1, clients=0, forks=5)
    assert alone < lease_seconds(reflectors=2, clients=0, forks=5)
    assert lease_seconds(0, 5, forks=5) == lease_seconds(0, 1, forks=5) < lease_seconds(0, 6, forks=5)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Yield a directory that all accounts can open, like /run/l3hv; only root can open those of pytest."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_another_account_cannot_block_a_lock(module: ModuleType, open_directory: Path):
    """The other account locks all files that it can open: flock(2) needs no write permission."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another account")
    directory = str(open_directory)
    lock = module.Lock("lab", directory)
    first, second = (describe_run(name, os.getpid()) for name in ("first", "second"))
    assert lock.take(first) is None
    context = multiprocessing.get_context("fork")
    locked, done = context.Queue(), context.Event()

    def hold_what_opens() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        held = []
        for path in (directory, *(os.path.join(directory, name) for name in os.listdir(directory))):
            try:
                held.append(os.open(path, os.O_RDONLY))
            except PermissionError:
                continue
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        locked.put(len(held))
        done.wait()

    other = context.Process(target=hold_what_opens)
    other.start()
    try:
        assert locked.get(timeout=30) == 2, (
            "the other account cannot read the directory and the lock of the fabric"
        )
        taking = context.Process(target=lambda: lock.take(second, force=True))
        taking.start()
        taking.join(timeout=20)
        is_stuck = taking.is_alive()
        taking.kill()
        assert not is_stuck
        assert lock.holder()["id"] == second["id"]
    finally:
        done.set()
        other.join()
    assert (open_directory / module.GUARD).stat().st_mode & 0o777 == 0o600


def test_a_locked_guard_file_is_named(module: ModuleType, tmp_path: Path):
    with (
        module.guarded(str(tmp_path)),
        pytest.raises(module.Busy, match=r"has kept \S+/\.guard locked for 0 s\. .* `fuser -v \S+` names it"),
        module.guarded(str(tmp_path), wait=0.2),
    ):
        pytest.fail("two processes hold the guard at the same time")
    with module.guarded(str(tmp_path), wait=0.2):
        pass


def test_one_of_many_simultaneous_runs_gets_the_lock(module: ModuleType, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    start, answers = context.Event(), context.Queue()

    def take(number: int) -> None:
        lock, run = module.Lock("lab", str(tmp_path)), describe_run(str(number), os.getpid())
        start.wait()
        answers.put(lock.take(run) is None)

    processes = [context.Process(target=take, args=(number,)) for number in range(16)]
    for process in processes:
        process.start()
    start.set()
    taken = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(taken) == [False] * 15 + [True]


def test_locks_stay_with_a_warning_if_ansible_hides_its_inventory_from_callbacks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A real play runs, whose variables have no inventory."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.playbook.play import Play
    from ansible.vars.manager import VariableManager

    locks = load("../callback/l3hv_locks")
    play = Play.load({"hosts": "all"}, variable_manager=VariableManager(loader=DataLoader()))
    callback = locks.CallbackModule()
    callback.v2_playbook_on_play_start(play)
    callback._held = {"hv1": {"fabric": "lab", "run": {"id": "1"}}}
    callback.v2_playbook_on_stats(None)
    assert "The locks of hv1 are not released" in " ".join(capfd.readouterr().err.split())

"""A full file system on a host: an unwritable file is named with the remedy, and no file is left."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_modules import MODULES, program_of
from images import loaded
from test_config_files import me

ROOT = Path(__file__).resolve().parents[2]
HOST = os.uname().nodename
FULL = "No space left on device"
ALONE = """
set -e
mount -t tmpfs -o size=16k none "$1"
shift
"$@"
"""
"""A script that mounts a small file system in a namespace, and runs a program there."""


def in_full(directory: str | Path, script: str, *arguments: str | Path) -> list[str]:
    """Return the output lines of a script with a full file system at ``directory``."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    inside = ["bash", "-ec", f"fill() {{ head -c 1M /dev/zero >{directory}/fill || :; }}\n{script}", "bash"]
    command = ["unshare", "--mount", "bash", "-c", ALONE, "bash", directory, *inside, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line]


def arguments_of(directory: Path, **parameters: Any) -> Path:
    """Write the file from which a module reads its arguments."""
    file = directory / "arguments.json"
    ours = {"_ansible_remote_tmp": str(directory), "_ansible_tmpdir": str(directory)}
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**ours, **parameters}}))
    return file


def test_a_lock_that_cannot_be_written_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    run = dict.fromkeys(("id", "owner", "host", "since", "command"), "x" * 4000)
    printed = in_full(
        "/run",
        'mkdir /run/l3hv; fill; "$1" "$2" <"$3"; echo; ls -A /run/l3hv',
        sys.executable,
        program_of("l3hv_lock", tmp_path),
        arguments_of(tmp_path, run=run, fabric="lab"),
    )
    answer = json.loads(printed[0])
    assert answer["refusal"] == (
        f"/run/l3hv/lab.lock cannot be written on {HOST}: {FULL}. `findmnt --target /run/l3hv`,"
        " `df -h /run/l3hv` and `df -i /run/l3hv` show its file system: make room, and run again."
    )
    assert answer["changed"] is False
    assert printed[1:] == [".guard"]


def test_files_without_disk_space_are_named_and_leave_no_file(tmp_path: Path) -> None:
    """The files of the set are unchanged."""
    etc = tmp_path / "etc"
    etc.mkdir()
    files = [{"dest": str(etc / name), "content": "x" * 9000, **me()} for name in ("a", "b")]
    printed = in_full(
        etc,
        f'echo before >{etc}/a; fill; ! "$1" "$2" <"$3"; echo; ls -A {etc}; cat {etc}/a',
        sys.executable,
        program_of("config_files", tmp_path),
        arguments_of(tmp_path, set="demo", state_dir=str(tmp_path / "previous"), files=files),
    )
    assert json.loads(printed[0])["msg"] == (
        f"{etc}/a cannot be written on {HOST}: {FULL}. `findmnt --target {etc}`, `df -h {etc}` and"
        f" `df -i {etc}` show its file system: make room, and run again. The previous files are back."
    )
    assert printed[1:] == ["a", "fill", "before"]


READ_ONLY = "Read-only file system"
LOOK = (
    "show its file system: look at `journalctl -k` for errors of the disk before it is mounted writable,"
    " and run again"
)


def test_the_remedy_for_a_disk_with_errors_is_to_examine_it_first(tmp_path: Path) -> None:
    """The kernel has made the file system read-only. A removal has another message than a write."""
    etc = tmp_path / "etc"
    etc.mkdir()
    ours = {"set": "demo", "state_dir": str(tmp_path / "previous")}
    removal = arguments_of(tmp_path, **ours, owned=[f"{etc}/a"]).rename(tmp_path / "removal.json")
    change = arguments_of(tmp_path, **ours, files=[{"dest": f"{etc}/a", "content": "new", **me()}])
    printed = in_full(
        etc,
        f'echo before >{etc}/a; mount -o remount,ro {etc}; for file in "$3" "$4"; do'
        ' ! "$1" "$2" <"$file"; echo; done',
        sys.executable,
        program_of("config_files", tmp_path),
        change,
        removal,
    )
    for line, done in zip(printed, ("written", "removed"), strict=True):
        assert json.loads(line)["msg"] == (
            f"{etc}/a cannot be {done} on {HOST}: {READ_ONLY}. `findmnt --target {etc}`, `df -h {etc}` and"
            f" `df -i {etc}` {LOOK}. The previous files are back."
        )


def test_a_lock_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = loaded(MODULES / "l3hv_lock.py")
    run = dict.fromkeys(("id", "owner", "host", "since", "command"), "x")
    lock = module.Lock("lab", str(tmp_path))
    assert lock.take(run) is None

    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, READ_ONLY, path)

    monkeypatch.setattr(module.os, "unlink", refuse)
    with pytest.raises(module.Unwritable) as refused:
        lock.release(run)
    assert str(refused.value) == (
        f"{tmp_path}/lab.lock cannot be removed on {HOST}: {READ_ONLY}. `findmnt --target {tmp_path}`,"
        f" `df -h {tmp_path}` and `df -i {tmp_path}` {LOOK}."
    )


def test_a_full_directory_for_temporary_files_is_named(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    file = {"dest": str(tmp_path / "a"), "content": "new", "validate": "true %s", **me()}
    arguments = arguments_of(tmp_path, set="demo", state_dir=str(tmp_path / "previous"), files=[file])
    text = arguments.read_text().replace(f'_ansible_tmpdir": "{tmp_path}"', f'_ansible_tmpdir": "{full}"')
    arguments.write_text(text)
    printed = in_full(
        full,
        f'mount -o remount,ro {full}; ! "$1" "$2" <"$3"',
        sys.executable,
        program_of("config_files", tmp_path),
        arguments,
    )
    sentence = f"{full} cannot be written on {HOST}: {READ_ONLY}. `findmnt --target {full}`, `df"
    assert json.loads(printed[0])["msg"].startswith(sentence)


PROGRAMS = {
    "gobgp": ("roles/gobgp/files/gobgp-sync", 'program.write("{0}/target", "x" * 9000)', "{0}/target"),
    "frr": (
        "roles/frr/files/frr-sync",
        'program.DIRECTORY = "{0}"; program.kept("x" * 9000)',
        "no file can be written to {0}",
    ),
    "management": (
        "roles/kernel/files/management-advertisements",
        'program.SETTINGS = "{0}/target"; program.apply(["x" * 9000])',
        "{0}/target",
    ),
}
LOADED = """
import sys
sys.path.append({path!r})
from images import loaded
program = loaded(__import__("pathlib").Path({program!r}))
{call}
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_without_disk_space_names_the_file_and_leaves_no_file(tmp_path: Path, name: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    program, call, named = PROGRAMS[name]
    text = LOADED.format(path=str(ROOT / "tests/roles"), program=str(ROOT / program), call=call.format(full))
    printed = in_full(full, f'fill; ! "$1" -c "$2" 2>&1; ls -A {full}', sys.executable, text)
    assert printed[0].startswith(named.format(full))
    assert f"on {HOST}: {FULL}. `df -h {full}` and `df -i {full}` show whether" in printed[0]
    assert printed[1:] == ["fill"]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_program_names_a_full_file_system_only_for_matching_errors(
    tmp_path: Path, name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file that cannot be removed does not hide the reason."""
    path, call, _ = PROGRAMS[name]
    program = loaded(ROOT / path)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    for function in ("replace", "unlink", "fchown"):
        monkeypatch.setattr(program.os, function, refuse)
    monkeypatch.setattr("tempfile._TemporaryFileWrapper.write", refuse, raising=False)
    with pytest.raises(SystemExit) as ended:
        exec(call.format(tmp_path), {"program": program})
    printed = str(ended.value)
    assert f"on {HOST}: {os.strerror(code)}" in printed
    assert ("is full" in printed) is (code == errno.EDQUOT)
    assert ("journalctl -k" in printed) is (code == errno.EROFS)

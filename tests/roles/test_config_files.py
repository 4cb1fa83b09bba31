"""The module `config_files` in a temporary directory: written, refused and restored files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_modules import FINDING, MODULES, program_of

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = "module_utils/l3hv/config_files/commands.py"

Run = Callable[..., dict[str, Any]]


def me() -> dict[str, str]:
    import grp
    import pwd

    return {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def converge(tmp_path: Path) -> Run:
    """Return a function that runs the module without Ansible; ``seconds`` is its limit for commands."""

    def run(
        *,
        check: bool = False,
        fails: bool = False,
        seconds: int | None = None,
        files: list[dict[str, Any]] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        arguments = {
            "set": "demo",
            "state_dir": str(tmp_path / "previous"),
            "files": [{**me(), **file} for file in files or []],
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path),
            "_ansible_tmpdir": str(tmp_path),
            **parameters,
        }
        if parameters.get("state") == "active":
            del arguments["files"]
        modules = MODULES
        if seconds is not None:
            plugins = shutil.copytree(MODULES.parent, tmp_path / "plugins", dirs_exist_ok=True)
            modules = plugins / "modules"
            text = (MODULES.parent / COMMANDS).read_text()
            assert "\nCOMMAND_SECONDS = 300\n" in text
            assert "--kill-after=10" in text
            (plugins / COMMANDS).write_text(
                text.replace("COMMAND_SECONDS = 300", f"COMMAND_SECONDS = {seconds}").replace(
                    "--kill-after=10", "--kill-after=1"
                )
            )
        done = subprocess.run(
            [sys.executable, str(program_of("config_files", tmp_path, modules))],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        )
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert bool(result.get("failed")) is fails, result
        return result

    return run


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


def settle(converge: Run, **parameters: Any) -> dict[str, Any]:
    """Place the files, then run the handler."""
    activate = parameters.pop("activate", [])
    result = converge(**parameters)
    converge(state="active", activate=activate, running=parameters.get("running"))
    return result


def test_a_new_file_is_written_and_the_second_run_changes_nothing(converge: Run, etc: Path) -> None:
    files = [{"dest": f"{etc}/sub/a.conf", "content": "one\n", "mode": "0640"}]
    first = settle(converge, files=files)
    assert first["changed"]
    assert first["changed_files"] == [f"{etc}/sub/a.conf"]
    assert (etc / "sub/a.conf").read_text() == "one\n"
    assert (etc / "sub/a.conf").stat().st_mode & 0o777 == 0o640
    second = converge(files=files)
    assert (second["changed"], second["changed_files"], second["diff"], second["pending"]) == (
        False,
        [],
        [],
        False,
    )


def test_changed_permission_bits_are_a_change_with_a_diff(converge: Run, etc: Path) -> None:
    files = [{"dest": f"{etc}/a.conf", "content": "one\n", "mode": "0644"}]
    settle(converge, files=files)
    (etc / "a.conf").chmod(0o600)
    result = settle(converge, files=files)
    assert result["changed"]
    assert "0600" in result["diff"][0]["prepared"]
    assert "0644" in result["diff"][0]["prepared"]
    assert (etc / "a.conf").stat().st_mode & 0o777 == 0o644


def test_check_mode_reports_the_changes_and_makes_none(converge: Run, etc: Path, tmp_path: Path) -> None:
    (etc / "old.conf").write_text("old\n")
    files = [{"dest": f"{etc}/a.conf", "content": "one\n"}]
    preview = converge(check=True, files=files, owned=[f"{etc}/*.conf"])
    assert (preview["changed_files"], preview["removed_files"]) == ([f"{etc}/a.conf"], [f"{etc}/old.conf"])
    assert sorted(path.name for path in etc.iterdir()) == ["old.conf"]
    assert not (tmp_path / "previous").exists()
    done = converge(files=files, owned=[f"{etc}/*.conf"])
    assert {key: done[key] for key in ("changed", "changed_files", "removed_files", "diff")} == {
        key: preview[key] for key in ("changed", "changed_files", "removed_files", "diff")
    }


def test_one_diff_per_file(converge: Run, etc: Path) -> None:
    settle(
        converge, files=[{"dest": f"{etc}/{name}", "content": "one\n"} for name in "abc"], owned=[f"{etc}/?"]
    )
    result = converge(
        files=[{"dest": f"{etc}/a", "content": "two\n"}, {"dest": f"{etc}/b", "content": "one\n"}],
        owned=[f"{etc}/?"],
    )
    assert [(diff["before"], diff["after"]) for diff in result["diff"]] == [("one\n", "two\n"), ("one\n", "")]
    assert result["diff"][1]["after_header"] == f"{etc}/c (removed)"


def test_files_that_left_the_set_are_removed_and_other_files_stay(converge: Run, etc: Path) -> None:
    (etc / "theirs.conf").write_text("theirs\n")
    settle(
        converge,
        files=[{"dest": f"{etc}/50-our-{n}.conf", "content": "x\n"} for n in (1, 2)],
        owned=[f"{etc}/50-our-*.conf"],
    )
    result = converge(
        files=[{"dest": f"{etc}/50-our-1.conf", "content": "x\n"}], owned=[f"{etc}/50-our-*.conf"]
    )
    assert result["removed_files"] == [f"{etc}/50-our-2.conf"]
    assert sorted(path.name for path in etc.iterdir()) == ["50-our-1.conf", "theirs.conf"]


def test_an_empty_directory_of_drop_ins_is_removed(converge: Run, etc: Path) -> None:
    places = [etc / f"{name}.service.d/zz-our.conf" for name in "ab"]
    owned = [f"{etc}/*.service.d/zz-our.conf"]
    settle(converge, files=[{"dest": str(place), "content": "x\n"} for place in places], owned=owned)
    (etc / "b.service.d/override.conf").write_text("theirs\n")
    settle(converge, owned=owned)
    assert [str(path.relative_to(etc)) for path in etc.glob("*/**/*")] == ["b.service.d/override.conf"]
    assert not (etc / "a.service.d").exists()


def test_one_refused_file_leaves_the_whole_set_untouched(converge: Run, etc: Path) -> None:
    settle(converge, files=[{"dest": f"{etc}/{name}", "content": "good\n"} for name in "ab"])
    result = converge(
        fails=True,
        files=[
            {"dest": f"{etc}/a", "content": "better\n"},
            {"dest": f"{etc}/b", "content": "bad\n", "validate": "grep -q good %s"},
            {"dest": f"{etc}/c", "content": "new\n"},
        ],
        owned=[f"{etc}/*"],
    )
    assert result["msg"].startswith(f"grep refuses the new {etc}/b; nothing was changed")
    assert {path.name: path.read_text() for path in etc.iterdir()} == {"a": "good\n", "b": "good\n"}


def test_one_file_that_cannot_be_written_leaves_the_whole_set_untouched(converge: Run, etc: Path) -> None:
    """The directory of the file is a file."""
    settle(converge, files=[{"dest": f"{etc}/{name}", "content": "good\n"} for name in "ab"])
    result = converge(
        fails=True,
        files=[
            {"dest": f"{etc}/a", "content": "better\n"},
            {"dest": f"{etc}/b/c", "content": "new\n"},
            {"dest": f"{etc}/d", "content": "new\n"},
            {"dest": f"{etc}/b", "content": "good\n"},
        ],
        owned=[f"{etc}/*"],
    )
    assert result["msg"] == (
        f"{etc}/b/c cannot be written on {os.uname().nodename}: File exists. The previous files are back."
    )
    assert {path.name: path.read_text() for path in etc.iterdir()} == {"a": "good\n", "b": "good\n"}


def test_validation_reads_the_new_content_under_the_name_of_the_file(converge: Run, etc: Path) -> None:
    converge(
        files=[
            {
                "dest": f"{etc}/a.conf",
                "content": "x\n",
                "validate": "sh -c 'case $0 in */a.conf) grep -q x $0;; *) exit 1; esac' %s",
            }
        ]
    )
    assert (etc / "a.conf").exists()


def test_check_mode_validates_if_the_program_is_installed(converge: Run, etc: Path) -> None:
    converge(check=True, fails=True, files=[{"dest": f"{etc}/a", "content": "x\n", "validate": "false %s"}])
    converge(check=True, files=[{"dest": f"{etc}/a", "content": "x\n", "validate": "no-such-program %s"}])


def test_the_content_of_a_sensitive_file_is_never_shown(converge: Run, etc: Path) -> None:
    dest = f"{etc}/keys"
    results = []
    for secret in ("hunter2", "correct horse"):
        files = [{"dest": dest, "secret_content": f"key {secret};\n", "mode": "0600"}]
        results += [converge(files=files, check=True), settle(converge, files=files)]
        assert Path(dest).read_text() == f"key {secret};\n"
        assert not converge(files=files)["changed"]
    results.append(settle(converge, files=[], owned=[dest]))
    assert not Path(dest).exists()
    shown = json.dumps(results)
    assert "hunter2" not in shown
    assert "horse" not in shown
    assert all(result["changed"] and dest in result["diff"][0]["prepared"] for result in results)


def test_secrets_of_existing_files_are_hidden_in_a_diff(converge: Run, etc: Path) -> None:
    """The role frr hides secrets and shows the names of keys."""
    tasks = yaml.safe_load((ROOT / "roles/frr/tasks/main.yml").read_text())
    hidden = tasks[0]["config_files"]["hidden"]
    for name in ("a.conf", "a.conf.sav"):
        (etc / name).write_text(" neighbor b password hunter2\n neighbor c password key_c\n as it was\n")
    files = [{"dest": f"{etc}/a.conf", "content": " neighbor b password key_b\n"}]
    changed, removed = converge(files=files, owned=[f"{etc}/a.conf.sav"], hidden=hidden)["diff"]
    shown = " neighbor b password (not shown)\n neighbor c password key_c\n as it was\n"
    assert (changed["before"], changed["after"]) == (shown, " neighbor b password key_b\n")
    assert (removed["before"], removed["after"]) == (shown, "")
    assert [path.name for path in etc.iterdir()] == ["a.conf"]


def test_validation_finds_the_other_new_files(converge: Run, etc: Path) -> None:
    files = [
        {
            "dest": f"{etc}/a.conf",
            "content": "include b.conf\n",
            "validate": "sh -c 'cat $(dirname %s)/b.conf'",
        },
        {"dest": f"{etc}/b.conf", "content": "b\n"},
    ]
    assert converge(files=files[:1], fails=True)["msg"].startswith("sh refuses the new")
    assert converge(files=files)["changed"]


def test_a_symbolic_link_is_replaced_and_not_followed(converge: Run, etc: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs\n")
    (etc / "a").symlink_to(tmp_path / "target")
    settle(converge, files=[{"dest": f"{etc}/a", "content": "ours\n"}])
    assert (tmp_path / "target").read_text() == "theirs\n"
    assert not (etc / "a").is_symlink()
    assert not converge(files=[{"dest": f"{etc}/a", "content": "ours\n"}])["changed"]


@pytest.mark.parametrize("dest", ["relative/a", "/tmp/../etc/a", "/tmp//a"])
def test_only_normalised_absolute_paths_are_accepted(converge: Run, dest: str) -> None:
    assert "absolute" in converge(fails=True, files=[{"dest": dest, "content": "x"}])["msg"]


def test_the_handler_runs_only_the_commands_of_the_changed_files(converge: Run, etc: Path) -> None:
    activate = [
        {"command": f"sh -c 'echo restart >> {etc}/log'", "changed": [f"{etc}/main.conf"]},
        {"command": f"sh -c 'echo reload $CONFIG_FILES_CHANGED - $CONFIG_FILES_REMOVED >> {etc}/log'"},
    ]
    names = ["main.conf", "a.conf", "b.conf"]
    owned = [f"{etc}/*.conf"]
    settle(
        converge,
        files=[{"dest": f"{etc}/{name}", "content": "1"} for name in names],
        owned=owned,
        activate=activate,
    )
    (etc / "log").unlink()
    settle(
        converge,
        files=[{"dest": f"{etc}/main.conf", "content": "1"}, {"dest": f"{etc}/a.conf", "content": "2"}],
        owned=owned,
        activate=activate,
    )
    assert (etc / "log").read_text() == f"reload {etc}/a.conf - {etc}/b.conf\n"


def test_early_commands_run_first(converge: Run, etc: Path) -> None:
    activate = [
        {"command": f"sh -c 'echo late >> {etc}/log'"},
        {"command": f"sh -c 'echo early >> {etc}/log'", "early": True},
    ]
    settle(converge, files=[{"dest": f"{etc}/a.conf", "content": "1"}], activate=activate)
    assert (etc / "log").read_text() == "early\nlate\n"


def test_commands_run_in_their_order_once_the_units_are_started(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    """Test the commands of the changed files and the commands of every activation."""
    fake_systemctl(tmp_path, {"a.service": "inactive enabled"})
    activate = [
        {"command": f"cp {tmp_path}/units/a.service {etc}/log"},
        {"command": f"sh -c 'echo changed >> {etc}/log'", "changed": [f"{etc}/a.conf"]},
        {"command": f"sh -c 'echo always >> {etc}/log'"},
    ]
    converge(files=[{"dest": f"{etc}/a.conf", "content": "1"}], units=["a.service"])
    converge(state="active", units=["a.service"], activate=activate)
    assert (etc / "log").read_text() == "active enabledchanged\nalways\n"


def test_a_failed_activation_restores_all_files(converge: Run, etc: Path) -> None:
    owned = [f"{etc}/*.conf"]
    activate = [{"command": f"sh -c 'cat {etc}/a.conf >> {etc}/seen; grep -q good {etc}/a.conf'"}]
    settle(
        converge,
        files=[
            {"dest": f"{etc}/a.conf", "content": "good\n", "mode": "0640"},
            {"dest": f"{etc}/b.conf", "content": "b\n"},
        ],
        owned=owned,
        activate=activate,
    )
    assert converge(
        files=[{"dest": f"{etc}/a.conf", "content": "bad\n"}, {"dest": f"{etc}/c.conf", "content": "c\n"}],
        owned=owned,
    )["changed"]
    result = converge(fails=True, state="active", activate=activate)
    assert "The previous files are back and active." in result["msg"]
    assert {path.name: path.read_text() for path in etc.glob("*.conf")} == {
        "a.conf": "good\n",
        "b.conf": "b\n",
    }
    assert (etc / "a.conf").stat().st_mode & 0o777 == 0o640
    assert (etc / "seen").read_text() == "good\nbad\ngood\n"
    again = converge(check=True, files=[{"dest": f"{etc}/a.conf", "content": "bad\n"}], owned=owned)
    assert again["changed_files"] == [f"{etc}/a.conf"], "the next run does not try again"


def test_a_daemon_that_runs_the_old_configuration_is_a_failure(converge: Run, etc: Path) -> None:
    (etc / "running").write_text("1\n")
    running = f"cmp {etc}/a.conf {etc}/running"
    activate = [{"command": f"sh -c 'grep -q 3 {etc}/a.conf || cp {etc}/a.conf {etc}/running'"}]
    settle(converge, files=[{"dest": f"{etc}/a.conf", "content": "2\n"}], running=running, activate=activate)
    converge(files=[{"dest": f"{etc}/a.conf", "content": "3\n"}], running=running)
    result = converge(fails=True, state="active", activate=activate, running=running, timeout=0)
    assert "what runs is not what the files say" in result["msg"]
    assert (etc / "a.conf").read_text() == "2\n"


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["ends", "has to be killed"])
def test_a_command_that_does_not_end_is_named(converge: Run, etc: Path, trap: str) -> None:
    converge(files=[{"dest": f"{etc}/a.conf", "content": "1\n"}])
    activate = [{"command": f'sh -c "{trap}while :; do sleep 0.1; done"'}]
    result = converge(fails=True, state="active", activate=activate, seconds=1)
    assert "failed: it did not end within 1 s on" in result["msg"]


def test_exit_status_124_of_a_command_is_no_time_out_of_the_module(converge: Run, etc: Path) -> None:
    converge(files=[{"dest": f"{etc}/a.conf", "content": "1\n"}])
    activate = [{"command": "sh -c 'echo nothing heard; exit 124'"}]
    result = converge(fails=True, state="active", activate=activate)
    assert "failed: nothing heard" in result["msg"]
    assert "did not end" not in result["msg"]


def test_the_module_does_not_wait_forever_for_systemd_or_the_journal(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    converge(files=[{"dest": f"{etc}/a.conf", "content": "1\n"}])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\nexec sleep 100\n")
    (tmp_path / "bin/systemctl").chmod(0o755)
    result = converge(fails=True, state="active", units=["a.service"], seconds=1)
    assert "systemctl show a.service: it did not end within 1 s on" in result["msg"]


def test_a_drifted_daemon_is_a_change_and_is_reconfigured(converge: Run, etc: Path) -> None:
    files = [{"dest": f"{etc}/a.conf", "content": "2\n"}]
    running = f"cmp {etc}/a.conf {etc}/running"
    activate = [{"command": f"cp {etc}/a.conf {etc}/running"}]
    settle(converge, files=files, running=running, activate=activate)
    (etc / "running").write_text("other\n")
    result = settle(converge, files=files, running=running, activate=activate)
    assert (result["changed"], result["changed_files"]) == (True, [])
    assert result["reasons"][0].startswith("what runs is not what the files say: ")
    assert not converge(files=files, running=running)["changed"]


def test_an_interrupted_run_is_completed_and_can_still_be_rolled_back(converge: Run, etc: Path) -> None:
    activate = [{"command": f"grep -q good {etc}/a"}]
    settle(converge, files=[{"dest": f"{etc}/a", "content": "good\n"}], activate=activate)
    converge(files=[{"dest": f"{etc}/a", "content": "bad 1\n"}])  # The run is interrupted before its handler.
    result = converge(files=[{"dest": f"{etc}/a", "content": "bad 1\n"}])
    assert (result["changed"], result["changed_files"], result["reasons"]) == (
        True,
        [],
        ["an earlier change was not activated"],
    )
    converge(files=[{"dest": f"{etc}/a", "content": "bad 2\n"}])
    converge(fails=True, state="active", activate=activate)
    assert (etc / "a").read_text() == "good\n"


def test_drift_never_restores_an_old_file(converge: Run, etc: Path) -> None:
    for content in ("1\n", "2\n"):
        settle(converge, files=[{"dest": f"{etc}/a", "content": content}])
    running = f"test -e {etc}/never"
    assert converge(files=[{"dest": f"{etc}/a", "content": "2\n"}], running=running)["reasons"]
    result = converge(fails=True, state="active", running=running, timeout=0)
    assert "is as it should be, but" in result["msg"]
    assert (etc / "a").read_text() == "2\n"


def test_only_root_can_read_previous_files(converge: Run, etc: Path, tmp_path: Path) -> None:
    for content in ("1\n", "2\n"):
        settle(converge, files=[{"dest": f"{etc}/a", "content": content}])
    previous = tmp_path / "previous/demo"
    assert (previous / str(etc).lstrip("/") / "a").read_text() == "1\n"
    assert previous.stat().st_mode & 0o777 == 0o700


def fake_systemctl(tmp_path: Path, units: dict[str, str]) -> None:
    """Install a fake systemctl that prints the state of some units, and starts and enables them."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "units").mkdir(exist_ok=True)
    for unit, state in units.items():
        (tmp_path / "units" / unit).write_text(state)
    program = tmp_path / "bin/systemctl"
    program.write_text(
        "#!/usr/bin/env python3\n"
        "import pathlib, sys\n"
        f"units = pathlib.Path({str(tmp_path / 'units')!r})\n"
        "verb, names = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith('-')]\n"
        "blocks = []\n"
        "for name in names:\n"
        "    active, enabled = (units / name).read_text().split()\n"
        "    if verb == 'show':\n"
        "        blocks.append(f'Id={name}\\nActiveState={active}\\nUnitFileState={enabled}\\n')\n"
        "    if verb == 'start' and active != 'broken':\n"
        "        (units / name).write_text(f'active {enabled}')\n"
        "    if verb == 'enable':\n"
        "        (units / name).write_text(f'{active} enabled')\n"
        "    if verb == 'unmask':\n"
        "        (units / name).write_text(f'{active} disabled')\n"
        "    if verb == 'reset-failed':\n"
        "        (units / name).write_text(f'inactive {enabled}')\n"
        "    if verb == 'reload':\n"
        "        sys.exit(f'Job for {name} failed.')\n"
        "print('\\n'.join(blocks), end='')\n"
    )
    program.chmod(0o755)


def test_a_stopped_or_disabled_unit_is_a_change_and_is_started_and_enabled(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    fake_systemctl(
        tmp_path,
        {"a.service": "active enabled", "b.service": "inactive enabled", "c.service": "active disabled"},
    )
    units = ["a.service", "b.service", "c.service"]
    assert converge(units=units)["reasons"] == ["b.service is inactive", "c.service is disabled"]
    converge(state="active", units=units)
    assert not converge(units=units)["changed"]


def test_masked_units_and_units_that_failed_too_often_are_started(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    units = ["a.service", "b.service"]
    fake_systemctl(tmp_path, {"a.service": "inactive masked", "b.service": "failed enabled"})
    assert converge(units=units)["reasons"] == ["a.service is inactive", "b.service is failed"]
    converge(state="active", units=units)
    assert (tmp_path / "units/a.service").read_text() == "active enabled"
    assert (tmp_path / "units/b.service").read_text() == "active enabled"


def test_the_journal_of_a_unit_that_fails_to_reload_is_shown(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    """The unit stays active: only its journal has the reason why the reload failed."""
    fake_systemctl(tmp_path, {"a.service": "active enabled"})
    journal = tmp_path / "bin/journalctl"
    journal.write_text('#!/bin/sh\necho "ip rule add: File exists, says the journal of $2"\n')
    journal.chmod(0o755)
    converge(files=[{"dest": f"{etc}/a", "content": "1\n"}])
    activate = [{"command": "systemctl reload a.service"}]
    message = converge(fails=True, state="active", units=["a.service"], activate=activate)["msg"]
    assert "`systemctl reload a.service` failed: Job for a.service failed." in message
    assert "a.service:\nip rule add: File exists, says the journal of a.service" in message


def test_a_newly_started_unit_is_neither_restarted_nor_reloaded(
    converge: Run, etc: Path, tmp_path: Path
) -> None:
    """A reload of this unit would fail."""
    fake_systemctl(tmp_path, {"a.service": "inactive enabled", "b.service": "active enabled"})
    units = ["a.service", "b.service"]
    converge(files=[{"dest": f"{etc}/a", "content": "1\n"}], units=units)
    for reloaded, fails in (("a.service", False), ("a.service b.service", True)):
        (tmp_path / "units/a.service").write_text("inactive enabled")
        converge(files=[{"dest": f"{etc}/a", "content": f"{reloaded}\n"}], units=units)
        activate = [{"command": f"systemctl reload {reloaded}"}]
        converge(fails=fails, state="active", units=units, activate=activate)


def test_a_unit_that_does_not_start_is_a_failure(converge: Run, etc: Path, tmp_path: Path) -> None:
    fake_systemctl(tmp_path, {"a.service": "broken enabled"})
    converge(units=["a.service"])
    assert (
        "a.service is broken" in converge(fails=True, state="active", units=["a.service"], timeout=0)["msg"]
    )


def test_a_failed_first_activation_leaves_no_file(converge: Run, etc: Path) -> None:
    converge(files=[{"dest": f"{etc}/a", "content": "1\n"}])
    result = converge(fails=True, state="active", activate=[{"command": "false"}])
    assert "There was nothing before them, and there is nothing now." in result["msg"]
    assert list(etc.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pending": true}'])
def test_a_broken_record_is_repaired_by_activating_the_set_again(
    converge: Run, etc: Path, tmp_path: Path, content: str
) -> None:
    """The record no longer tells whether the last change took effect, so all commands of the set run."""
    files = [{"dest": f"{etc}/{name}.conf", "content": "one\n"} for name in ("a", "b")]
    settle(converge, files=files)
    record = tmp_path / "previous/demo/transaction.json"
    record.write_text(content)
    rehearsed = converge(check=True, files=files)
    assert rehearsed["reasons"] == [f"{record} cannot be read: the set is activated again"]
    assert record.read_text() == content
    assert converge(files=files)["changed"]
    touch = [{"command": f"touch {tmp_path}/activated", "changed": ["*/b.conf"]}]
    assert converge(state="active", activate=touch)["changed"]
    assert (tmp_path / "activated").exists()
    assert not converge(files=files)["changed"]


def test_a_reader_never_sees_a_file_of_two_writers_unfinished(etc: Path) -> None:
    """During two simultaneous runs on a host, a reader sees one content or the other."""
    path = etc / "daemon.conf"
    contents = [letter * 200_000 for letter in "ab"]
    path.write_text(contents[0])
    program = (
        f"import sys; {FINDING.format(str(MODULES.parent / 'module_utils'))}\n"
        "from ansible.module_utils.l3hv.config_files.files import write_file\n"
        f"for _ in range(300): write_file({str(path)!r}, sys.argv[1].encode() * 200_000, 0o644, None, None)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, letter]) for letter in "ab"]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        assert path.read_text() in contents
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 0
    assert [found.name for found in etc.iterdir()] == ["daemon.conf"]


def test_temporary_files_of_a_killed_run_are_removed(converge: Run, etc: Path) -> None:
    old, new = (etc / f".a.conf.{name}.config_files" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("unfinished")
    os.utime(old, (0, 0))
    converge(files=[{"dest": f"{etc}/a.conf", "content": "one\n"}])
    assert sorted(path.name for path in etc.iterdir()) == sorted(["a.conf", new.name])

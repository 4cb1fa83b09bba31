"""The program that keeps IPv6 default routes of management interfaces, which may appear and disappear."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from images import ROOT, loaded

PROGRAM = ROOT / "roles/kernel/files/management-advertisements"


@pytest.fixture
def program() -> ModuleType:
    return loaded(PROGRAM)


def test_a_removed_interface_is_no_error(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ip").write_text('#!/bin/sh\necho \'[{"dst": "default", "dev": "gone0"}]\'\n')
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.learning_interfaces() == []
    monkeypatch.setattr(program, "SETTINGS", str(tmp_path / "settings"))
    program.apply(["gone0"])
    assert "-net.ipv6.conf.gone0.accept_ra = 2" in (tmp_path / "settings").read_text()


@pytest.mark.parametrize("words", [[], ["in-forec"], ["apply", "all"]])
def test_an_unknown_verb_is_refused(words: list[str]) -> None:
    done = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: management-advertisements apply|in-force\n"


def test_a_file_with_the_former_name_is_renamed_with_its_lines(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    former, settings = tmp_path / "89-l3hv-management.conf", tmp_path / "zz-l3hv-management.conf"
    former.write_text(f"{program.HEAD}-net.ipv6.conf.oob0.accept_ra = 2\n")
    monkeypatch.setattr(program, "FORMER", str(former))
    monkeypatch.setattr(program, "SETTINGS", str(settings))
    monkeypatch.setattr(program, "learning_interfaces", list)
    with pytest.raises(SystemExit) as refused:
        program.main(["in-force"])
    assert refused.value.code == 1
    assert "is to become" in capsys.readouterr().out
    program.main(["apply"])
    assert not former.exists()
    assert "oob0.accept_ra = 2" in settings.read_text()
    with pytest.raises(SystemExit) as sound:
        program.main(["in-force"])
    assert (sound.value.code, capsys.readouterr().out) == (0, "")

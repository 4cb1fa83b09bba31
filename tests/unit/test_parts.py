"""`make test` runs all its parts even if some fail, and prints the failures at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

MAKEFILE = """\
test-first:
\t@{python} -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . --confcutdir / test_sum.py
test-second:
\t@echo the second ran
test-third:
\t@exit 3
"""
TESTS = "def test_right(): pass\ndef test_wrong(): assert 1 + 1 == 3\n"


def run(place: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / ".ci/parts", *parts], cwd=place, capture_output=True, text=True, check=False
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (tmp_path / "test_sum.py").write_text(TESTS)
    (tmp_path / "conftest.py").symlink_to(REPOSITORY / "tests/conftest.py")
    return tmp_path


def test_all_parts_run_and_failures_are_summarised(place: Path) -> None:
    done = run(place, "first", "second", "third")
    assert done.returncode != 0
    _, _, end = done.stdout.partition("==> All parts\n")
    assert "the second ran" in done.stdout
    assert re.findall(r"(\w+) +test-(\w+)", end) == [
        ("FAILED", "first"),
        ("passed", "second"),
        ("FAILED", "third"),
    ]
    assert end.endswith("  Tests that failed:\n    test_sum.py::test_wrong\n")


def test_a_run_without_failures_succeeds(place: Path) -> None:
    done = run(place, "second")
    assert done.returncode == 0
    assert "FAILED" not in done.stdout
    assert "Tests that failed" not in done.stdout


def test_a_part_without_a_target_fails(place: Path) -> None:
    assert run(place, "second", "fourth").returncode != 0


def test_every_part_of_make_test_has_a_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (parts,) = re.findall(r"^PARTS := (.*)$", makefile, re.MULTILINE)
    for part in parts.split():
        assert re.search(rf"^test-{part}:", makefile, re.MULTILINE)

"""Every program on a host has verbs, a sentence for each of them in its head, and a usage for other words."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from rendered import ROOT

PROGRAMS = [
    path
    for path in sorted(ROOT.glob("roles/*/files/*"))
    if path.read_text(encoding="utf-8").startswith("#!")
    and path.name != "vtysh"  # it has the arguments of the program that it wraps
]
DOCUMENTATION = (ROOT / "docs/roles.md").read_text(encoding="utf-8")
VERB_TABLE = DOCUMENTATION.partition("\n| Verb | ")[2].partition("\n\n")[0]
VERBS = set(re.findall(r"^\| `([\w-]+)` \|", VERB_TABLE, re.MULTILINE))
"""A verb has the same meaning in all programs (docs/roles.md)."""


def usage(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert done.stderr.startswith(f"usage: {program.name} ")
    return done.stderr.removeprefix(f"usage: {program.name} ").strip()


def verbs_of(usage: str) -> set[str]:
    """Return the verbs of a usage: the first word of each form, and its alternatives."""
    return {verb for form in usage.split(" | ") for verb in form.split()[0].split("|")}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_tells_its_verbs(program: Path) -> None:
    shown = usage(program)
    assert usage(program, "chekc", "bird") == shown
    verbs = verbs_of(shown)
    assert verbs <= VERBS
    rows = [line.split(" | ") for line in DOCUMENTATION.splitlines() if line.startswith("| `")]
    (row,) = (row for row in rows if f"`{program.name}`" in row[0])
    assert verbs <= set(re.findall(r"`([\w-]+)`", row[2]))
    head = program.read_text(encoding="utf-8")[:3000]
    assert set(re.findall(rf"^(?:#   |    ){program.name} (\S+)", head, re.MULTILINE)) == verbs


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_of_one_language(program: Path) -> None:
    first, _, text = program.read_text(encoding="utf-8").partition("\n")
    if "python" not in first:
        assert "python" not in text
    else:
        assert "#!/bin/" not in text
        assert "shell=True" not in text


@pytest.mark.parametrize("name", ["notify_systemd", "remedy"])
def test_the_copies_of_a_function_are_equal(name: str) -> None:
    copies = [
        ast.dump(function)
        for program in PROGRAMS
        if "python" in (text := program.read_text(encoding="utf-8")).partition("\n")[0]
        for function in ast.parse(text).body
        if isinstance(function, ast.FunctionDef) and function.name == name
    ]
    assert len(copies) > 1
    assert len(set(copies)) == 1

"""Programs on hosts import no other file, so they have copies: these must not differ."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from l3hv.verify.values import VRF_TABLE

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "roles/guest_services/files"
PROGRAMS = [
    ROOT / "roles/packet_filter/files/packet-filter",
    *(SERVICES / name for name in ("dhcp-checksums", "dhcp-relay", "ndp-proxy")),
]
COPIES = {"notify_systemd": set(PROGRAMS), "digest": {SERVICES / "dhcp-relay", SERVICES / "ndp-proxy"}}
"""The functions, and the programs that have copies of them."""
SENTENCE = re.compile(r"(?:# [^\n]*\n)+(?=def notify_systemd)")


def functions(program: Path) -> dict[str, str]:
    """Return the text of each function of a program."""
    text = program.read_text(encoding="utf-8")
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_function_are_equal(name: str) -> None:
    found = {program: functions(program)[name] for program in PROGRAMS if name in functions(program)}
    assert found.keys() == COPIES[name]
    assert len(set(found.values())) == 1


def test_the_copies_have_the_same_comment_which_names_this_test() -> None:
    comments = {
        match[0] if (match := SENTENCE.search(program.read_text(encoding="utf-8"))) else program.name
        for program in PROGRAMS
    }
    (comment,) = comments
    assert str(Path(__file__).relative_to(ROOT)) in comment
    assert all(program.name in comment for program in PROGRAMS)


@pytest.mark.parametrize(
    "file", ["plugins/module_utils/l3hv/observe/kernel.py", "roles/tables/files/tables-sync"]
)
def test_the_table_of_the_rule_of_vrfs_has_one_name(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.findall(r'"(\[l3mdev[^"]*)"', text) == [VRF_TABLE]

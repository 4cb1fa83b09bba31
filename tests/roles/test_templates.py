"""Templates print fields of the plan, and compute nothing."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes
from rendered import ROOT

TEMPLATES = sorted(ROOT.glob("roles/*/templates/**/*.j2"))
ARITHMETIC = (nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.Neg, nodes.Pos)
OF_TEXT = {"split", "partition", "rpartition", "startswith", "endswith", "find", "replace", "index", "count"}
OF_ADDRESSES = {"ansible.utils.ipaddr", "ipaddr", "ipsubnet", "ipwrap", "regex_replace", "regex_search"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "roles"))


def parsed(path: Path) -> nodes.Template:
    return jinja2.Environment().parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_a_template_computes_nothing(path: Path) -> None:
    template = parsed(path)
    assert [node.lineno for node in template.find_all(ARITHMETIC)] == []
    # A plus may join lists; a sum of numbers would have a constant or a loop counter.
    added = [side for node in template.find_all(nodes.Add) for side in (node.left, node.right)]
    assert [side.lineno for side in added if isinstance(side, nodes.Const)] == []
    assert [
        side.lineno
        for side in added
        if isinstance(side, nodes.Filter) and side.name in ("length", "count", "int", "sum")
    ] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_a_template_parses_no_text(path: Path) -> None:
    template = parsed(path)
    methods = {
        node.node.attr for node in template.find_all(nodes.Call) if isinstance(node.node, nodes.Getattr)
    }
    assert methods & OF_TEXT == set()
    assert {node.name for node in template.find_all(nodes.Filter)} & OF_ADDRESSES == set()
    looked_for = [
        node.expr.value
        for node in template.find_all(nodes.Compare)
        if isinstance(node.expr, nodes.Const) and any(each.op in ("in", "notin") for each in node.ops)
    ]
    assert set(looked_for) & {":", ".", "/"} == set()


@pytest.mark.parametrize(
    "path", [path for path in TEMPLATES if path.parent.name in ("all_versions", "bird2")], ids=name
)
def test_templates_for_several_versions_of_bird_compare_no_version(path: Path) -> None:
    constants = {node.value for node in parsed(path).find_all(nodes.Const)}
    assert constants & {"bird1", "bird2", "bird3"} == set()


def test_no_template_of_one_grammar_of_bird_is_included_by_the_other() -> None:
    for path in TEMPLATES:
        for grammar, other in (("bird1", "bird2"), ("bird2", "bird1")):
            if path.parent.name == grammar:
                assert f"{other}/" not in path.read_text(encoding="utf-8"), name(path)

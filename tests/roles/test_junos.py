"""The configuration of a Junos reflector: the expected text, valid statements, and no undefined reference."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from config_files import template_at, texts
from jinja2.utils import missing
from rendered import ROOT, read_plan

from l3hv.render.junos import junos_reflector

REFLECTORS = [
    path
    for path in sorted(ROOT.glob("tests/golden/*/expected/*/plan.yml"))
    if "\n    name: junos\n" in path.read_text(encoding="utf-8")
]
ROLE = ROOT / "roles" / "junos" / "templates"
TOKENS = re.compile(r'"[^"\n]*"|[{};\[\]]|[^\s{};\[\]"#]+|#[^\n]*|\s+')

NAMES = {"name", "community-name"}
"""The keys of list elements, where the hierarchy does not have them."""

Statement = tuple[tuple[str, ...], list[Any] | None]
"""The words of a statement, and the statements in its braces, if it has braces."""


def name(path: Path) -> str:
    return f"{path.parts[-4]}-{path.parts[-2]}"


def rendered(path: Path) -> str:
    template = template_at(str(ROLE / "reflector.conf.j2"), str(ROLE))
    known = {"ansible_managed": "Ansible managed", "junos_reflector": junos_reflector(read_plan(path))}
    return texts(template, "item", [{}], lambda key: known.get(key, missing))[0]


def parsed(text: str) -> list[Statement]:
    """Return the statements of a configuration; words, braces and semicolons out of place are errors."""
    tokens, position = [], 0
    while position < len(text):
        match = TOKENS.match(text, position)
        assert match is not None, f"no token: {text[position : position + 40]!r}"
        position = match.end()
        if not match[0].isspace() and not match[0].startswith("#"):
            tokens.append(match[0])
    found, rest = statements(tokens, 0)
    assert rest == len(tokens), f"a brace too many before {tokens[rest + 1 : rest + 5]}"
    return found


def statements(tokens: list[str], at: int) -> tuple[list[Statement], int]:
    """Return the statements up to a closing brace or the end, and the position of this end."""
    found: list[Statement] = []
    words: list[str] = []
    while at < len(tokens) and tokens[at] != "}":
        token = tokens[at]
        if token == ";":
            assert words, "an empty statement"
            found.append((tuple(words), None))
            words = []
        elif token == "{":
            assert words, "braces without a name"
            inner, at = statements(tokens, at + 1)
            assert at < len(tokens), f"no brace ends {' '.join(words)}"
            found.append((tuple(words), inner))
            words = []
        else:
            words.append(token)
        at += 1
    assert not words, f"no semicolon after {' '.join(words)}"
    return found, at


def ours(text: str) -> list[Statement]:
    """Return the statements of the only group of the configuration."""
    (groups, applied) = parsed(text)
    assert applied == (("apply-groups", "l3hv"), None)
    assert groups[0] == ("groups",)
    ((words, inner),) = groups[1] or [((), None)]
    assert words == ("replace:", "l3hv")
    return inner or []


def walked(inner: list[Statement], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield each statement with the words of all enclosing statements."""
    for words, below in inner:
        yield (*above, *words)
        yield from walked(below or [], (*above, *words))


@pytest.mark.parametrize("path", REFLECTORS, ids=name)
def test_the_configuration_is_the_expected_one(path: Path, expect_file: Callable[[Path, str], None]) -> None:
    expect_file(path.with_name("junos.conf"), rendered(path))


@pytest.mark.parametrize("path", REFLECTORS, ids=name)
def test_all_references_are_defined_and_all_definitions_are_used(path: Path) -> None:
    lines = [" ".join(words) for words in walked(ours(rendered(path)))]

    def all_of(pattern: str) -> set[str]:
        return {match[1] for line in lines if (match := re.search(pattern, line))}

    defined = {
        "prefix lists": (r"^policy-options prefix-list (\S+)$", r" source-prefix-list (\S+)$"),
        "policies": (
            r"^policy-options policy-statement (\S+)$",
            r" bgp group \S+ (?:export|neighbor \S+ import) (\S+)$",
        ),
        "paths": (r"^policy-options as-path (\S+) ", r" from as-path (\S+)$"),
        "communities": (r"^policy-options community (\S+)", r" then community delete (\S+)$"),
        "filters": (r"^firewall family \S+ filter (\S+)$", r"^interfaces lo0 .* filter input (\S+)$"),
        "policers": (r"^firewall policer (\S+)$", r" then policer (\S+)$"),
    }
    for what, (definition, use) in defined.items():
        assert all_of(definition) == all_of(use) != set(), what
    units = {
        f"{match[1]}.{match[2]}"
        for line in lines
        if (match := re.match(r"interfaces (?!lo0)(\S+) unit (\S+)$", line))
    }
    assert units == all_of(r"^routing-instances \S+ interface (\S+)$")
    assert all_of(r"^firewall .* from interface (\S+)$") <= units


@pytest.mark.parametrize("path", REFLECTORS, ids=name)
def test_the_configuration_contains_the_whole_plan(path: Path) -> None:
    lines = {" ".join(words) for words in walked(ours(rendered(path)))}
    routing = read_plan(path)["routing"]
    for session in routing["sessions"]:
        start = (
            rf"routing-instances {session['domain']} protocols bgp group (\S+) neighbor {session['neighbor']}"
        )
        groups = {match[1] for line in lines if (match := re.fullmatch(start, line))}
        assert len(groups) == 1, session["name"]
        group = f"routing-instances {session['domain']} protocols bgp group {groups.pop()}"
        has_bfd = f"{group} bfd-liveness-detection session-mode single-hop" in lines
        assert has_bfd == session["bfd"], session["name"]
        assert f"{group} local-address {session['local']}" in lines
        assert (f"{group} cluster {routing['cluster_id']}" in lines) == (session["relation"] == "client")
        assert (f"{group} passive" in lines) == session["passive"]
        assert f"{group} neighbor {session['neighbor']} import l3hv-accept-{session['name']}" in lines
        policy = f"policy-options policy-statement l3hv-accept-{session['name']}"
        assert f"{policy} then reject" in lines
        for channel in session["channels"]:
            family = {"ipv4": "inet", "ipv6": "inet6"}[channel["family"]]
            assert f"{group} family {family} unicast" in lines
            limit = channel["limit"]
            maximum = f"{group} family {family} unicast accepted-prefix-limit maximum"
            assert [line for line in lines if line.startswith(maximum)] == (
                [f"{maximum} {limit['accepted']}"] if limit is not None else []
            )
            assert set(configured_terms(lines, policy, channel["family"])) == planned_terms(routing, channel)
    for instance in {session["domain"] for session in routing["sessions"]}:
        assert f"policy-options policy-statement l3hv-announce-{instance} then reject" in lines


def configured_terms(lines: set[str], policy: str, family: str) -> Iterator[str]:
    """Yield the conditions and actions of a policy's terms that accept a route of a family."""
    for line in lines:
        if line.startswith(f"{policy} term ") and " then accept" not in line:
            words = line.removeprefix(f"{policy} term ").split()
            if (
                words[0][-1] == family[-1]
                and words[1:2]
                and words[2:]
                and words[2] not in ("family", "protocol")
            ):
                yield " ".join(words[1:])


def planned_terms(routing: dict[str, Any], channel: dict[str, Any]) -> set[str]:
    """Return the same conditions and actions from the plan."""
    found = set()
    for part in channel["carries"]:
        policy = next(policy for policy in routing["policies"] if policy["name"] == part["policy"])
        routes = [(match["prefix"], match["low"], match["high"]) for match in policy["accepts"]]
        if part["loopback"] is not None:
            routes.append((part["loopback"], 32, 32))
        for prefix, low, high in routes:
            is_exact = prefix.endswith(f"/{low}") and low == high
            lengths = "exact" if is_exact else f"prefix-length-range /{low}-/{high}"
            found.add(f"from route-filter {prefix} {lengths}")
        if routes and part["accepted_next_hops"].endswith(("/32", "/128")):
            found.add(f"from next-hop {part['accepted_next_hops'].partition('/')[0]}")
        if routes and policy["only_original"]:
            found |= {
                "from as-path l3hv-none",
                "then metric 0",
                "then local-preference 100",
                "then origin igp",
                "then community delete l3hv-others",
                "then community delete l3hv-large",
            }
    return found


@pytest.mark.parametrize("path", REFLECTORS, ids=name)
def test_the_routing_engine_discards_unaccepted_packets(path: Path) -> None:
    inner = ours(rendered(path))
    firewall = next(below for words, below in inner if words == ("firewall",)) or []
    filters = [below for words, below in firewall if words[0] == "family"]
    assert len(filters) == 2
    for below in filters:
        ((_, terms),) = below or []
        last, content = (terms or [])[-1]
        assert last == ("term", "rest")
        assert list(walked(content or []))[-1] == ("then", "discard")
        for words, term in (terms or [])[:-1]:
            assert any(line[0] == "from" for line in walked(term or [])), f"{words} accepts everything"


@pytest.mark.parametrize("path", REFLECTORS, ids=name)
def test_every_statement_exists_in_junos(path: Path) -> None:
    """The hierarchy comes from the schema of Junos 24.4."""
    inner = ours(rendered(path))
    commands, found = read_by_junoscfg(printed(inner))
    # Both parsers have read the same statements, so neither has skipped one.
    assert sorted(commands) == sorted(leaves(inner))
    assert list(unknown(found, hierarchy())) == []


def read_by_junoscfg(text: str) -> tuple[list[str], dict[str, Any]]:
    """Return the set commands of a configuration, and its tree."""
    junoscfg = pytest.importorskip("junoscfg", reason="pip install -r requirements-dev.txt")

    def converted(wanted: str) -> str:
        source, target = junoscfg.Format.STRUCTURED, junoscfg.Format[wanted]
        result: str = junoscfg.convert_config(text, from_format=source, to_format=target, strict=True)
        return result

    commands = [line.removeprefix("set ") for line in converted("SET").splitlines()]
    tree: dict[str, Any] = json.loads(converted("JSON"))["configuration"]
    return commands, tree


@functools.cache
def hierarchy() -> dict[str, Any]:
    tree = files("junoscfg.validate.data").joinpath("junos-structure-tree.json").read_text()
    found: dict[str, Any] = json.loads(tree)
    return found


def printed(inner: list[Statement]) -> str:
    """Return statements as text in the format of Junos, one on each line."""
    lines = []
    for words, below in inner:
        start = " ".join(words)
        lines += [f"{start};"] if below is None else [f"{start} {{", printed(below), "}"]
    return "\n".join(lines)


def leaves(inner: list[Statement], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the statements as set commands: one for each leaf, and one for each element of a list."""
    for words, below in inner:
        if below:
            yield from leaves(below, (*above, *words))
        elif "[" in words:
            start = words[: words.index("[")]
            for element in words[words.index("[") + 1 : words.index("]")]:
                yield " ".join((*above, *start, element))
        else:
            yield " ".join((*above, *words))


def unknown(found: Any, place: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the statements that the hierarchy does not have."""
    if isinstance(found, list):
        for element in found:
            yield from unknown(element, place, path)
    elif isinstance(found, dict):
        for key, value in found.items():
            here = place.get("c", {}).get(key)
            if here is not None:
                yield from unknown(value, here, f"{path} {key}")
            elif key not in {*NAMES, place.get("fe", {}).get("k")}:
                yield f"{path} {key}".strip()


@pytest.mark.parametrize(
    "wrong", ["protocols {\nbgp {\ngroup x {\nhold-timer 90;\n}\n}\n}", "routing-instance {\npublic;\n}"]
)
def test_the_hierarchy_refuses_unknown_statements(wrong: str) -> None:
    _, found = read_by_junoscfg(printed(parsed(wrong)))
    assert list(unknown(found, hierarchy())) != []


@pytest.mark.parametrize("wrong", ["a {", "a } ", "a { b }", "a { ; }", "{ a; }", "a b", 'a "b;', "a; }"])
def test_the_grammar_is_strict(wrong: str) -> None:
    with pytest.raises(AssertionError):
        parsed(wrong)

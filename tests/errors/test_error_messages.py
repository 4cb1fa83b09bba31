"""Invalid intents, and the exact error messages for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from l3hv.intent.all_hosts import AllHosts
from l3hv.intent.fabric import parse_common
from l3hv.intent.hosts import host_kind, parse_host
from l3hv.model.errors import IntentError
from l3hv.plan.rules import rule_problems

HERE = Path(__file__).parent
SOUND = yaml.safe_load((HERE / "sound_intent.yaml").read_text())
CASES = sorted(HERE.glob("*.yml"))


def changed(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the common variables and the variables of each host after the changes of a case."""
    common = SOUND["common"] | case.get("common", {})
    hosts = {name: dict(variables) for name, variables in SOUND["hosts"].items()}
    for name, changes in case.get("hosts", {}).items():
        if changes is None:
            del hosts[name]
        else:
            hosts[name] = hosts.get(name, {}) | changes
    return common, hosts


def check(variables: dict[str, Any], hosts: dict[str, dict[str, Any]]) -> None:
    """Raise the error that a run raises for this intent."""
    common, problems = parse_common(variables)
    parsed = {}
    for name, own in hosts.items():
        kind, more = host_kind(name, own.pop("groups"))
        problems += more
        if kind is not None:
            parsed[name], more = parse_host(name, kind, variables | own, common)
            problems += more
    whole = {name: found for name, found in parsed.items() if found is not None}
    if common is not None and len(whole) == len(parsed):
        everybody = AllHosts.of(common, whole)
        problems += everybody.problems()
        for intent in whole.values():
            problems += rule_problems(everybody.slice_of(intent))
    if problems:
        raise IntentError(problems)


def test_the_valid_intent_has_no_problem():
    check(*changed({}))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_message_is_the_expected_one(path, expect_file):
    with pytest.raises(IntentError) as raised:
        check(*changed(yaml.safe_load(path.read_text())))
    expect_file(path.with_suffix(".txt"), f"{raised.value}\n")


def test_every_message_has_a_case():
    assert {path.stem for path in HERE.glob("*.txt")} == {path.stem for path in CASES}

"""The argument specs of roles: they agree with the defaults, and accept every golden plan."""

from __future__ import annotations

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from rendered import PLANS, ROLE_VARIABLES, ROOT, read_plan, role_calls

from l3hv.model import plan as plan_module
from l3hv.render.role_specs import bindings, field_texts, role_spec

ROLES = sorted(path.parents[1] for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
OURS = [role for role in ROLES if role.name != "verify"]

SLICES = bindings()


def options(role: Path) -> dict[str, Any]:
    specs: dict[str, Any] = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    return specs["argument_specs"]["main"]["options"]


def defaults(role: Path) -> dict[str, Any]:
    path = role / "defaults/main.yml"
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_and_defaults_have_the_same_keys_in_the_same_order(role: Path) -> None:
    has_default = {
        key: option
        for key, option in options(role).items()
        if key in defaults(role) or not option.get("required")
    }
    assert list(has_default) == list(defaults(role))
    for key, option in has_default.items():
        assert option.get("required") or option["default"] == defaults(role)[key]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    names = list(options(role))
    if (role / "vars/main.yml").exists():
        names += [name.removeprefix("__") for name in yaml.safe_load((role / "vars/main.yml").read_text())]
    assert [name for name in names if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parts[-4]}-{path.parts[-2]}")
def test_the_plans_match_the_specs(path: Path) -> None:
    plan = read_plan(path)
    for role in (ROOT / "roles" / call["role"] for call in role_calls(plan)):
        spec = {key: option for key, option in options(role).items() if key in SLICES}
        given = {key: functools.reduce(operator.getitem, SLICES[key].split("."), plan) for key in spec}
        assert ArgumentSpecValidator(spec).validate(given).error_messages == [], role.name


def test_every_variable_of_every_role_is_bound_to_the_plan_and_no_other() -> None:
    needed = {name for role in OURS for name in options(role)}
    needed |= {name for name, option in options(ROOT / "roles/verify").items() if option.get("required")}
    assert set(yaml.safe_load(ROLE_VARIABLES.read_text())) == needed


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_tasks_carry_the_tag_of_their_role(role: Path) -> None:
    for task in yaml.safe_load((role / "tasks/main.yml").read_text()):
        assert role.name in task.get("tags", []), task["name"]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_are_those_of_the_plans_dataclasses(role: Path) -> None:
    path = role / "meta/argument_specs.yml"
    assert path.read_text() == role_spec(path, SLICES), "`make specs` writes this file"


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(plan_module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_field_of_a_plan_is_described(kind: type) -> None:
    texts = field_texts(kind)
    assert list(texts) == [field.name for field in dataclasses.fields(kind)]
    assert [text for text in texts.values() if not text.endswith(".")] == []

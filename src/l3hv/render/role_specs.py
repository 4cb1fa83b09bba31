"""The argument specs of the roles: the nested shapes are those of the plan's dataclasses.

``make specs`` rewrites ``roles/*/meta/argument_specs.yml``.  The descriptions of roles and of their variables
stay as they are.  ``playbooks/vars/roles.yml`` binds each variable to a part of the plan.  Its type, its
choices and its nested options follow from that part.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import yaml

from l3hv.model.plan import HostPlan

ROOT = Path(__file__).resolve().parents[3]
BINDINGS = Path("playbooks/vars/roles.yml")
ROUTING_ROLES = ("bird", "frr", "gobgp")
"""Roles that take a routing daemon's plan: the names of their daemons begin with the role's."""

_PART_OF_THE_PLAN = re.compile(r"\bl3hv_plan\.([a-z_.]+)")
_LITERAL = re.compile(r"``([^`]+)``")
_SCALARS = {str: "str", int: "int", bool: "bool", float: "float"}


def bindings(root: Path = ROOT) -> dict[str, str]:
    """Return the part of the plan that each role variable is bound to: ``{"kernel_sysctls": "sysctls"}``."""
    values: Mapping[str, str] = yaml.safe_load((root / BINDINGS).read_text(encoding="utf-8"))
    found = {name: _PART_OF_THE_PLAN.search(value) for name, value in values.items()}
    return {name: match[1] for name, match in found.items() if match is not None}


def role_spec(path: Path, parts: Mapping[str, str]) -> str:
    """Return the text of the argument specs at ``path`` with the shapes that variables have by ``parts``."""
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    role = path.parents[1].name
    options = spec["argument_specs"]["main"]["options"]
    for name, option in options.items():
        if name in parts:
            options[name] = _with_shape(option, shape(part_type(parts[name])))
        if name in parts and parts[name] == "routing" and role in ROUTING_ROLES:
            daemon = options[name]["options"]["daemon"]["options"]["name"]
            daemon["choices"] = [choice for choice in daemon["choices"] if choice.startswith(role)]
    return "---\n" + yaml.dump(spec, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def part_type(path: str) -> Any:
    """Return the type of a part of the plan.

    >>> part_type("routing.daemon.version")
    <class 'str'>
    """
    kind: Any = HostPlan
    for name in path.split("."):
        kind = get_type_hints(kind)[name]
    return kind


def shape(hint: Any) -> dict[str, Any]:
    """Return the type, choices and nested options of a value in Ansible's terms.

    >>> shape(tuple[int, ...])
    {'type': 'list', 'elements': 'int'}
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"type": "str", "choices": list(arguments)}
    if origin is tuple:
        inner = shape(arguments[0])
        return {"type": "list", "elements": inner.pop("type"), **_without_elements(inner)}
    if origin in (Union, types.UnionType):
        (known,) = (member for member in arguments if member is not type(None))
        return shape(known)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        texts = field_texts(cast("type", hint))
        names = [field.name for field in dataclasses.fields(hint)]
        return {"type": "dict", "options": {name: _option(hints[name], texts[name]) for name in names}}
    return {"type": _SCALARS[hint]}


def _option(hint: Any, text: str) -> dict[str, Any]:
    """Return a nested option, required unless its value can be ``None``: every plan has all other values."""
    found = shape(hint)
    nested = found.pop("options", None)
    option = {"description": _LITERAL.sub(r"C(\1)", text), **found}
    if type(None) in get_args(hint):
        option.pop("choices", None)  # Ansible compares None with the choices too
    else:
        option["required"] = True
    return option if nested is None else {**option, "options": nested}


def _with_shape(option: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an option of a role with the shape that is ``found`` in the plan.

    Choices of the role's own stay: a role may support fewer values than a plan can have.
    """
    own = {key: value for key, value in option.items() if key in ("description", "required", "default")}
    before = {key: found[key] for key in ("type", "elements", "choices") if key in found}
    if "choices" in option:
        before["choices"] = option["choices"]
    nested = {"options": found["options"]} if "options" in found else {}
    return {"description": own.pop("description"), **before, **own, **nested}


def _without_elements(inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shape of a list's elements: argument specs cannot describe lists inside a list."""
    return {key: value for key, value in inner.items() if key != "elements"}


@functools.cache
def field_texts(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, in one line.

    >>> from l3hv.model.plan import Sysctl
    >>> field_texts(Sysctl)["value"]
    "The setting's value."
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef), "the source of a dataclass is its definition"
    texts = {}
    for node, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    texts[node.target.id] = " ".join(text.split())
    return texts


class _Dumper(yaml.SafeDumper):
    """A dumper that indents lists below their keys, as yamllint requires, and prints choices in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, value in node.value:
            if key.value in ("choices", "default"):
                value.flow_style = True
        return node

    def ignore_aliases(self, data: object) -> bool:
        return True


def main() -> None:
    """Rewrite the argument specs of all roles of this repository."""
    parts = bindings()
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        path.write_text(role_spec(path, parts), encoding="utf-8")


if __name__ == "__main__":
    main()

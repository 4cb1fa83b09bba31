"""Every file that site.yml places on a host, rendered from its plan without a machine."""

from __future__ import annotations

import functools
import sys
from os.path import normpath
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from jinja2.utils import missing

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "plugins/action"))

from config_files import destination, is_wanted, template_at, texts  # noqa: E402 - the action plugin that renders in a run

PLANS = [
    path
    for path in sorted(ROOT.glob("tests/golden/*/expected/*/plan.yml"))
    if "\n    name: junos\n" not in path.read_text(encoding="utf-8")  # nothing is placed on those
]
ROLE_VARIABLES = ROOT / "playbooks/vars/roles.yml"
GROUPS = {"hypervisor": "hypervisors", "route_reflector": "route_reflectors", "edge_router": "edge_routers"}


def trusted(value: Any) -> Any:
    """Return ``value`` as Ansible has it after reading a playbook: its texts may be expressions."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


@functools.cache
def read(path: Path) -> Any:
    return trusted(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else None


@functools.cache
def read_plan(path: Path) -> dict[str, Any]:
    plan: dict[str, Any] = yaml.load(
        path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return plan


@functools.cache
def rendered_files(path: Path) -> dict[str, str]:
    """Return what the plan at ``path`` prints: the text of each file by the path where it is placed."""
    return files_of_plan(read_plan(path))


def files_of_plan(plan: dict[str, Any]) -> dict[str, str]:
    """Return what a plan prints: the text of each file by the path where it is placed."""
    files: dict[str, str] = {}
    for call in role_calls(plan):
        files.update(files_of_role(ROOT / "roles" / call["role"], call, plan))
    return files


def role_calls(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the roles that site.yml has for a plan, with the variables that it sets itself."""
    if not plan["managed"]:
        return []
    templar = Templar(loader=DataLoader(), variables={"l3hv_plan": plan})
    return [
        call
        for play in read(ROOT / "site.yml")
        if GROUPS[plan["kind"]] in str(play.get("hosts", ""))
        for call in map(role_call, play.get("roles", ()))
        if call["role"] != "verify" and templar.evaluate_conditional(call.get("when", True))
    ]


def role_call(entry: str | dict[str, Any]) -> dict[str, Any]:
    """Return an entry of a play's roles, which may be a name alone."""
    return {"role": entry} if isinstance(entry, str) else entry


def files_of_role(role: Path, call: dict[str, Any], plan: dict[str, Any]) -> dict[str, str]:
    variables = {**(read(role / "defaults/main.yml") or {}), **(read(role / "vars/main.yml") or {})}
    variables.update(read(ROLE_VARIABLES))
    variables.update({key: value for key, value in call.items() if key not in {"role", "when", "tags"}})
    variables["l3hv_plan"] = plan
    variables["l3hv_bgp_secrets"] = {name: f"tests only: {name}" for name in plan["routing"]["session_keys"]}
    templar = Templar(loader=DataLoader(), variables=variables)

    def ask(key: str) -> Any:
        if key == "ansible_managed":
            return "Ansible managed"
        return templar.template(variables[key]) if key in variables else missing

    files: dict[str, str] = {}
    for task in read(role / "tasks/main.yml"):
        for entry in filter(is_wanted, templar.template(task.get("config_files", {}).get("files", []))):
            if not entry["src"].endswith(".j2"):
                # As Ansible does: a role that takes a file from another role may have no files of its own.
                text = Path(normpath(role / "files" / entry["src"])).read_text(encoding="utf-8")
                files.update((destination(entry["dest"], one), text) for one in entry.get("each", [{}]))
                continue
            path = role / "templates" / entry["src"]
            template = template_at(str(path), str(role / "templates"), str(path.parent))
            elements = entry.get("each", [{}])
            printed = texts(template, entry.get("as", "item"), elements, ask)
            for element, text in zip(elements, printed, strict=True):
                files[destination(entry["dest"], element) if "each" in entry else entry["dest"]] = text
    return files

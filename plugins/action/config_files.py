"""Renders the templates of a set on the controller, and hands the contents to the module of the same name."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

DIGEST = "@digest@"
PASSED_ON = ("mode", "owner", "group", "validate")
FIELDS = frozenset({"src", "dest", "each", "as", *PASSED_ON})
PLACEHOLDER = re.compile(r"\{(\w+)\}")
# What may become a part of a file's name: nothing that leaves the directory or hides the file.
FILE_NAME_PART = re.compile(r"[A-Za-z0-9_+:@%-][A-Za-z0-9_.+:@%-]*\Z")


def destination(pattern: str, element: dict[str, Any]) -> str:
    """Return ``pattern`` with each ``{field}`` replaced by the field of ``element``.

    >>> destination("/etc/x/{interface}.network", {"interface": "vm1"})
    '/etc/x/vm1.network'
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] not in element:
            raise AnsibleActionFail(f"dest: {pattern}: the elements of `each` have no field {match[1]!r}")
        value = str(element[match[1]])
        if not FILE_NAME_PART.match(value):
            raise AnsibleActionFail(f"dest: {pattern}: {value!r} cannot be a part of a file's name")
        return value

    return PLACEHOLDER.sub(replace, pattern)


def with_digest(text: str) -> str:
    """Return ``text`` with its digest in the place of ``@digest@``, so that what runs can be asked for it."""
    return text.replace(DIGEST, hashlib.sha256(text.encode()).hexdigest()[:16]) if DIGEST in text else text


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        variables = task_vars or {}
        files = arguments.get("files") or []
        if not isinstance(files, list):
            raise AnsibleActionFail("files: must be a list")
        arguments["files"] = [rendered for file in files for rendered in self._render(dict(file), variables)]
        result.update(
            self._execute_module(module_name="config_files", module_args=arguments, task_vars=variables)
        )
        return result

    def _render(self, file: dict[str, Any], variables: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what the module needs of each file that the entry ``file`` of the set stands for."""
        unknown = sorted(set(file) - FIELDS)
        if unknown:
            raise AnsibleActionFail(f"files: unknown: {', '.join(unknown)}")
        for field in ("src", "dest"):
            if not file.get(field):
                raise AnsibleActionFail(f"files: {field} is required")
        passed_on = {field: file[field] for field in PASSED_ON if file.get(field) is not None}
        name = str(file.get("as") or "item")
        elements = file.get("each")
        if elements is not None and not isinstance(elements, list):
            raise AnsibleActionFail(f"files: {file['src']}: each must be a list")

        if not str(file["src"]).endswith(".j2"):
            content = self._loader.get_text_file_contents(self._find_needle("files", file["src"]))
            return [{"dest": file["dest"], "content": str(content), **passed_on}]
        text = self._renderer(str(file["src"]), variables)
        if elements is None:
            return [{"dest": file["dest"], "content": text({}), **passed_on}]
        return [
            {"dest": destination(str(file["dest"]), element), "content": text({name: element}), **passed_on}
            for element in elements
        ]

    def _renderer(self, src: str, variables: dict[str, Any]) -> Callable[[dict[str, Any]], str]:
        """Return a function from an element's variables to the text, with one environment for all elements.

        The same calls as in ``ansible.builtin.template``: the lookup of that name copies every variable of
        the host for each file, which a hundred guests would pay for a hundred times.
        """
        path = self._find_needle("templates", src)
        template = trust_as_template(self._loader.get_text_file_contents(path))
        searchpath = [
            directory
            for base in [
                *variables.get("ansible_search_path", []),
                self._loader.get_basedir(),
                os.path.dirname(path),
            ]
            for directory in (os.path.join(base, "templates"), base)
        ]
        managed = {"ansible_managed": str(C.config.get_config_value("DEFAULT_MANAGED_STR"))}
        templar = self._templar.copy_with_new_env(searchpath=searchpath)
        overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}

        def text(extra: dict[str, Any]) -> str:
            templar.available_variables = {**managed, **variables, "template_path": src, **extra}
            rendered = templar.template(template, escape_backslashes=False, overrides=overrides)
            return with_digest("" if rendered is None else str(rendered))

        return text

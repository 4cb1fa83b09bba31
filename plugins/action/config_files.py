"""Renders the templates of a set on the controller, and hands the contents to the module of the same name."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

DIGEST = "@digest@"
PASSED_ON = ("mode", "owner", "group", "validate")
FIELDS = frozenset({"src", "dest", "each", "as", *PASSED_ON})
# Jinja's own settings stand in a template's first line.
HEADER = re.compile(r"#jinja2:[^\n]*\n")
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


def looping(source: str, name: str, between: str) -> str:
    """Return a template that prints ``source`` for each of ``config_files_elements``, then ``between``."""
    header = HEADER.match(source)
    start = header.end() if header else 0
    loop = f"{{% for {name} in config_files_elements %}}\n"
    return f"{source[:start]}{loop}{source[start:]}{between}{{% endfor %}}"


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
        elements = file.get("each")
        if elements is not None and not isinstance(elements, list):
            raise AnsibleActionFail(f"files: {file['src']}: each must be a list")

        if not str(file["src"]).endswith(".j2"):
            content = self._loader.get_text_file_contents(self._find_needle("files", file["src"]))
            return [{"dest": file["dest"], "content": str(content), **passed_on}]
        name = str(file.get("as") or "item")
        texts = self._texts(str(file["src"]), variables, name, [{}] if elements is None else elements)
        if elements is None:
            return [{"dest": file["dest"], "content": texts[0], **passed_on}]
        return [
            {"dest": destination(str(file["dest"]), element), "content": text, **passed_on}
            for element, text in zip(elements, texts, strict=True)
        ]

    def _texts(self, src: str, variables: dict[str, Any], name: str, elements: list[Any]) -> list[str]:
        """Return the text that the template ``src`` gives for each of ``elements``, known to it as ``name``.

        The same calls as in ``ansible.builtin.template``, but the template is compiled once and loops over
        the elements itself: compiling takes longer than rendering it a hundred times.
        """
        path = self._find_needle("templates", src)
        source = self._loader.get_text_file_contents(path)
        between = f"<{secrets.token_hex(16)}>"
        template = trust_as_template(looping(source, name, between))
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
        templar = self._templar.copy_with_new_env(
            searchpath=searchpath,
            available_variables={
                **managed,
                **variables,
                "template_path": src,
                "config_files_elements": elements,
            },
        )
        overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
        rendered = templar.template(template, escape_backslashes=False, overrides=overrides)
        return [with_digest(text) for text in str(rendered or "").split(between)[:-1]]

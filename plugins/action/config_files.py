"""Renders the templates of a file set on the controller, and passes the texts to the module config_files."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import jinja2
from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.filter.core import comment

ASK = "config_files_ask"
DIGEST = "@digest@"
PASSED_ON = ("mode", "owner", "group", "validate")
FIELDS = frozenset({"src", "dest", "when", "each", "as", "sensitive", *PASSED_ON})
HEADER = re.compile(r"#jinja2:[^\n]*\n")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
# A value that may become a part of a file's name: it cannot leave the directory or hide the file.
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


def is_wanted(file: dict[str, Any]) -> bool:
    """Return whether the entry ``file`` is part of the set: the value of its ``when``, by default true.

    >>> is_wanted({"src": "keys.j2", "when": False})
    False
    """
    condition = file.get("when", True)
    if not isinstance(condition, bool):
        raise AnsibleActionFail(f"files: {file.get('src')}: when must be a boolean, not {condition!r}")
    return condition


def with_digest(text: str) -> str:
    """Return ``text`` with its digest instead of ``@digest@``; a daemon can report it later."""
    return text.replace(DIGEST, hashlib.sha256(text.encode()).hexdigest()[:16]) if DIGEST in text else text


class Context(jinja2.runtime.Context):
    """A context that resolves a variable of Ansible only when a template uses it: a host has hundreds."""

    def resolve_or_missing(self, key: str) -> Any:
        value = super().resolve_or_missing(key)
        return self.parent[ASK](key) if value is jinja2.utils.missing and ASK in self.parent else value


@functools.cache
def template_at(path: str, *searchpath: str) -> jinja2.Template:
    """Return the template at ``path``; its includes are searched in ``searchpath``.

    Templates have only loops, conditions and fields, so the environment is Jinja's own.  Ansible's engine
    looks for templates in every value, which takes ten times as long.  Here a value can never become a
    template, an undefined variable is an error, and ``none`` is printed as ``None``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(searchpath),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.context_class = Context
    environment.filters["comment"] = comment
    with open(path, encoding="utf-8") as file:
        source = file.read()
    # The first line sets these options for Ansible's own template module and for ansible-lint.
    return environment.from_string(HEADER.sub("", source, count=1))


def texts(
    template: jinja2.Template, name: str, elements: Iterable[Any], ask: Callable[[str], Any]
) -> list[str]:
    """Return the text of ``template`` for each of ``elements``, which is the template's variable ``name``.

    ``ask`` returns the value of any other variable, or ``jinja2.utils.missing``.
    """
    remembered = functools.cache(ask)
    return [with_digest(template.render({ASK: remembered, name: element})) for element in elements]


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
        arguments["files"] = [
            rendered for file in files if is_wanted(file) for rendered in self._render(dict(file), variables)
        ]
        result.update(
            self._execute_module(module_name="config_files", module_args=arguments, task_vars=variables)
        )
        return result

    def _render(self, file: dict[str, Any], variables: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the module's arguments for each file that the entry ``file`` of the set describes."""
        unknown = sorted(set(file) - FIELDS)
        if unknown:
            raise AnsibleActionFail(f"files: unknown: {', '.join(unknown)}")
        for field in ("src", "dest"):
            if not file.get(field):
                raise AnsibleActionFail(f"files: {field} is required")
        passed_on = {field: file[field] for field in PASSED_ON if file.get(field) is not None}
        # Ansible logs no argument of this name (no_log), at any verbosity.
        holder = "secret_content" if file.get("sensitive") else "content"
        elements = file.get("each")
        if elements is not None and not isinstance(elements, list):
            raise AnsibleActionFail(f"files: {file['src']}: each must be a list")

        if not str(file["src"]).endswith(".j2"):
            content = self._loader.get_text_file_contents(self._find_needle("files", file["src"]))
            places = [file["dest"]]
            if elements is not None:
                places = [destination(str(file["dest"]), element) for element in elements]
            return [{"dest": place, holder: str(content), **passed_on} for place in places]
        name = str(file.get("as") or "item")
        texts = self._texts(str(file["src"]), variables, name, [{}] if elements is None else elements)
        if elements is None:
            return [{"dest": file["dest"], holder: texts[0], **passed_on}]
        return [
            {
                holder: text,
                **passed_on,
                **{
                    field: destination(str(file[field]), element)
                    for field in ("dest", "validate")
                    if file.get(field)
                },
            }
            for element, text in zip(elements, texts, strict=True)
        ]

    def _texts(self, src: str, variables: dict[str, Any], name: str, elements: list[Any]) -> list[str]:
        path = self._find_needle("templates", src)
        searchpath = [
            directory
            for base in [
                *variables.get("ansible_search_path", []),
                self._loader.get_basedir(),
                os.path.dirname(path),
            ]
            for directory in (os.path.join(base, "templates"), base)
        ]

        def ask(key: str) -> Any:
            if key == "ansible_managed":
                return str(C.config.get_config_value("DEFAULT_MANAGED_STR"))
            return self._templar.template(variables[key]) if key in variables else jinja2.utils.missing

        try:
            return texts(template_at(path, *searchpath), name, elements, ask)
        except jinja2.TemplateError as error:
            where = f":{error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise AnsibleActionFail(f"{path}{where}: {error}") from error

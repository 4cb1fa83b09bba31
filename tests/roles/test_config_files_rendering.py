"""The rendered files of the action plugin `config_files`, which Ansible runs on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_config_files import ROOT, me


def play(
    tmp_path: Path,
    arguments: dict[str, Any],
    variables: dict[str, Any] | None = None,
    fails: bool = False,
    flags: tuple[str, ...] = (),
) -> str:
    """Run a playbook with one task, and return the output of Ansible."""
    arguments = {"set": "demo", "state_dir": f"{tmp_path}/previous", **arguments}
    arguments["files"] = [{**me(), **file} for file in arguments["files"]]
    playbook = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": variables or {},
            "tasks": [{"config_files": arguments, "register": "outcome"}, {"debug": {"var": "outcome"}}],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook))
    done = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            "localhost,",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
            *flags,
            str(tmp_path / "play.yml"),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    directory = tmp_path / "templates"
    directory.mkdir()
    (tmp_path / "etc").mkdir()
    return directory


def test_headers_includes_and_elements_work_as_in_the_template_module(
    tmp_path: Path, templates: Path
) -> None:
    (templates / "port.j2").write_text(
        "#jinja2: lstrip_blocks: True\n"
        "{{ ansible_managed | comment }}\n"
        "{% from 'macros.j2' import line %}\n"
        "{% for address in port.addresses %}\n"
        "    {% if address is defined %}\n"
        "Address={{ address }}\n"
        "    {% endif %}\n"
        "{% endfor %}\n"
        "{{ line(port.name) }} of {{ fabric }}\n"
    )
    (templates / "macros.j2").write_text("{% macro line(name) %}# {{ name }}{% endmacro %}\n")
    arguments = {
        "files": [
            {
                "src": "port.j2",
                "dest": f"{tmp_path}/etc/10-{{name}}.network",
                "each": "{{ ports }}",
                "as": "port",
            },
        ]
    }
    variables = {
        "ports": [{"name": "vm1", "addresses": ["192.0.2.1", "192.0.2.2"]}, {"name": "vm2", "addresses": []}],
        "fabric": "lab",
    }
    play(tmp_path, arguments, variables)
    assert (tmp_path / "etc/10-vm1.network").read_text() == (
        "#\n# Ansible managed\n#\nAddress=192.0.2.1\nAddress=192.0.2.2\n# vm1 of lab\n"
    )
    assert (tmp_path / "etc/10-vm2.network").read_text() == "#\n# Ansible managed\n#\n# vm2 of lab\n"


def test_the_diff_names_each_file_and_check_mode_writes_no_file(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text("{{ item.name }}\n")
    arguments = {
        "files": [{"src": "a.j2", "dest": f"{tmp_path}/etc/{{name}}", "each": [{"name": "x"}, {"name": "y"}]}]
    }
    printed = play(tmp_path, arguments, flags=("--check", "--diff"))
    assert f"+++ after: {tmp_path}/etc/x (new)" in printed or f"+++ {tmp_path}/etc/x (new)" in printed
    assert "+y" in printed
    assert list((tmp_path / "etc").iterdir()) == []


def test_static_files_are_not_rendered(tmp_path: Path, templates: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/program").write_text("#!/bin/sh\necho '{{ not a template }}'\n")
    play(tmp_path, {"files": [{"src": "program", "dest": f"{tmp_path}/etc/program", "mode": "0755"}]})
    assert (tmp_path / "etc/program").read_text() == "#!/bin/sh\necho '{{ not a template }}'\n"
    assert (tmp_path / "etc/program").stat().st_mode & 0o777 == 0o755


def test_values_are_data_and_never_templates(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text("{{ item.name }} {{ item.note }}\n")
    (tmp_path / "plan.json").write_text(json.dumps([{"name": "x", "note": "{{ 6 * 7 }}"}]))
    arguments = {
        "files": [
            {
                "src": "a.j2",
                "dest": f"{tmp_path}/etc/{{name}}",
                "each": f"{{{{ lookup('file', '{tmp_path}/plan.json') | from_json }}}}",
            }
        ]
    }
    play(tmp_path, arguments)
    assert (tmp_path / "etc/x").read_text() == "x {{ 6 * 7 }}\n"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b", "a\nb"])
def test_a_template_outside_of_the_role_is_refused(tmp_path: Path, templates: Path, name: str) -> None:
    (templates / "a.j2").write_text("x\n")
    arguments = {"files": [{"src": "a.j2", "dest": f"{tmp_path}/etc/p{{name}}", "each": [{"name": name}]}]}
    assert "cannot be a part of a file's name" in " ".join(play(tmp_path, arguments, fails=True).split())


def test_undefined_fields_are_errors(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text("{{ item.nothing }}\n")
    arguments = {"files": [{"src": "a.j2", "dest": f"{tmp_path}/etc/a", "each": [{"name": "x"}]}]}
    assert "nothing" in play(tmp_path, arguments, fails=True)


def test_a_digest_follows_from_the_text_of_its_file(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text('define digest = "@digest@";\nvalue {{ value }};\n')
    digests = set()
    for value in (1, 2, 1):
        play(tmp_path, {"files": [{"src": "a.j2", "dest": f"{tmp_path}/etc/a"}]}, {"value": value})
        digests.add((tmp_path / "etc/a").read_text().split('"')[1])
    assert len(digests) == 2
    assert all(len(digest) == 16 for digest in digests)


def test_a_hundred_files_take_one_task(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text(
        "#jinja2: lstrip_blocks: True\n{{ ansible_managed | comment }}\n"
        "{% for n in item.list %}\nline {{ n }}\n{% endfor %}\n"
    )
    guests = [{"name": f"vm{n}", "list": list(range(20))} for n in range(100)]
    arguments = {"files": [{"src": "a.j2", "dest": f"{tmp_path}/etc/{{name}}", "each": "{{ guests }}"}]}
    play(tmp_path, arguments, {"guests": guests, "ballast": guests})
    # No handler has run: the change is still pending, and no file is written again.
    assert "changed=0" not in play(tmp_path, arguments, {"guests": guests, "ballast": guests})
    assert len(list((tmp_path / "etc").iterdir())) == len(guests)


def test_a_file_with_a_false_condition_is_not_in_the_set(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text("{{ undefined_here }}\n")
    (templates / "b.j2").write_text("value\n")
    files = [
        {"src": "a.j2", "dest": f"{tmp_path}/etc/a", "when": "{{ keys | length > 0 }}"},
        {"src": "b.j2", "dest": f"{tmp_path}/etc/b", "when": "{{ keys | length == 0 }}"},
    ]
    play(tmp_path, {"files": files}, {"keys": []})
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["b"]


def test_a_condition_that_is_no_boolean_is_refused(tmp_path: Path, templates: Path) -> None:
    (templates / "a.j2").write_text("value\n")
    file = {"src": "a.j2", "dest": f"{tmp_path}/etc/a", "when": "{{ keys }}"}
    assert "a.j2: when must be a boolean, not []" in play(
        tmp_path, {"files": [file]}, {"keys": []}, fails=True
    )

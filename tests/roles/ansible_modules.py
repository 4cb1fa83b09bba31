"""Modules of l3hv as programs of this machine, without Ansible around them."""

from __future__ import annotations

from pathlib import Path

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"
FINDING = "import ansible.module_utils; ansible.module_utils.__path__.append({!r})"
"""Lets a Python find l3hv's part of Ansible's package, as ``tests/conftest.py`` does for the tests."""


def program_of(name: str, directory: Path, modules: Path = MODULES) -> Path:
    """Write a program that runs a module on the arguments of its standard input."""
    program = directory / f"run_{name}.py"
    finding = FINDING.format(str(modules.parent / "module_utils"))
    running = f"import runpy; runpy.run_path({str(modules / f'{name}.py')!r}, run_name='__main__')"
    program.write_text(f"{finding}\n{running}\n")
    return program

"""The Ansible modules of l3hv, run as programs on this machine without Ansible."""

from __future__ import annotations

from pathlib import Path

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"
FINDING = "import ansible.module_utils; ansible.module_utils.__path__.append({!r})"
"""Code with which Python finds the module_utils of l3hv, as ``tests/conftest.py`` does for the tests."""


def program_of(name: str, directory: Path, modules: Path = MODULES) -> Path:
    """Write a program that runs a module with arguments from its standard input."""
    program = directory / f"run_{name}.py"
    finding = FINDING.format(str(modules.parent / "module_utils"))
    running = f"import runpy; runpy.run_path({str(modules / f'{name}.py')!r}, run_name='__main__')"
    program.write_text(f"{finding}\n{running}\n")
    return program

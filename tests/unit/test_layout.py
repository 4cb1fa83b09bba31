"""The folders of the package are the steps of the data: each imports only from itself and earlier steps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "l3hv"
STEPS = ("model", "intent", "plan", "render", "keys", "run", "inventory", "twin", "verify")
"""The steps in the order of docs/architecture.md."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> set[str]:
    """Return the folders of the package that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("l3hv.")}
    return found


def test_every_folder_is_a_step() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(STEPS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_from_a_later_step(path: Path) -> None:
    own = STEPS.index(path.relative_to(PACKAGE).parts[0])
    assert {name for name in imported(path) if STEPS.index(name) > own} == set()


def test_models_import_only_models() -> None:
    assert set().union(*(imported(path) for path in (PACKAGE / "model").glob("*.py"))) == {"model"}

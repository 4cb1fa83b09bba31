"""Fixtures for all tests: the comparison with expected files, and the option that rewrites these files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Failed assertions of these modules show the compared values, as those of tests do.
pytest.register_assert_rewrite("changed_intents", "failures", "liar", "three_paths")

with contextlib.suppress(ImportError):  # some tests run without Ansible
    import ansible.module_utils

    # On a host, Ansible adds the module_utils of l3hv to this package.
    ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "plugins/module_utils"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the expected files instead of comparing with them; read the difference before committing",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add the failed tests to the file from which `.ci/parts` prints a summary."""
    if path := os.environ.get("L3HV_FAILED_TESTS"):
        failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
        with open(path, "a", encoding="utf-8") as names:
            names.writelines(f"{report.nodeid}\n" for report in failed)


@pytest.fixture
def expect_file(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a function that compares a text with its expected file, or rewrites this file."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: pytest --rewrite-golden writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare

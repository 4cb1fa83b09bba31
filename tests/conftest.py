"""What all levels of the tests share: files that hold what is expected, and the switch to rewrite them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Failed assertions of these modules show the compared values, as those of tests do.
pytest.register_assert_rewrite("changed_intents", "failures", "liar", "three_paths")

with contextlib.suppress(ImportError):  # tests of what works without Ansible run without it
    import ansible.module_utils

    # Ansible adds l3hv's part to this package when it sends a module to a host.
    ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "plugins/module_utils"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the expected files instead of comparing with them; read the difference before committing",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add what failed to the file that `.ci/parts` sums up from, if that runs the tests."""
    if path := os.environ.get("L3HV_FAILED_TESTS"):
        failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
        with open(path, "a", encoding="utf-8") as names:
            names.writelines(f"{report.nodeid}\n" for report in failed)


@pytest.fixture
def expect_file(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with the file that holds what is expected; write it if that was asked for."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: pytest --rewrite-golden writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare

"""The standing, provisioned twin that the fabric tests work on: L3HV_TWIN names it (default: lab)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator

import pytest
from lab import Lab

FIGURES = pytest.StashKey[dict[str, str]]()
BROKEN = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def standing() -> Lab:
    """The twin, up and provisioned; else a sentence that says what to run."""
    lab = Lab(os.environ.get("L3HV_TWIN", "lab"))
    name = f"--name {lab.name}"
    remedy = f"run as root: ./twin up -i inventories/lab {name} && ./twin play {name} site.yml"
    try:
        status = lab.status()
    except (AssertionError, subprocess.SubprocessError) as error:
        pytest.fail(f"the twin {lab.name} does not stand ({error}); {remedy}", pytrace=False)
    if off := [machine["name"] for machine in status["machines"] if machine["state"] != "up"]:
        pytest.fail(f"{', '.join(off)} of the twin {lab.name} is not up; {remedy}", pytrace=False)
    try:
        lab.wait_until_whole()
    except AssertionError as error:
        pytest.fail(f"the twin {lab.name} is not provisioned ({error}); {remedy}", pytrace=False)
    return lab


@pytest.fixture
def lab(standing: Lab, request: pytest.FixtureRequest) -> Lab:
    """The twin with nothing broken: what the test before has broken has recovered."""
    stash = request.config.stash
    try:
        standing.wait_until_whole(5 if stash.get(BROKEN, False) else 45)
    except AssertionError:
        stash[BROKEN] = True  # The tests that follow need not wait as long to see the same.
        raise
    stash[BROKEN] = False
    return standing


@pytest.fixture
def restarted(lab: Lab) -> Iterator[Lab]:
    """The lab; vm1 and vm2 are started anew afterwards, with none of what a test has set in them."""
    yield lab
    for guest in ("vm1", "vm2"):
        lab.twin("unplug", guest)
        lab.twin("plug", guest)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> dict[str, str]:
    """What was measured, by what it is: printed at the end."""
    return request.config.stash.setdefault(FIGURES, {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the machines logged during a test that failed: nobody can ask them afterwards."""
    report = yield
    known = getattr(item, "funcargs", {})
    lab = known.get("lab") or known.get("standing")
    if report.failed and lab:
        report.sections.append(("What the machines logged", lab.logged(call.start)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what, found in config.stash.get(FIGURES, {}).items():
        terminalreporter.write_line(f"measured: {what}: {found}")

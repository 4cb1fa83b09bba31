"""Fixtures of the fabric tests: a running, provisioned twin that L3HV_TWIN names (default: lab)."""

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
    """Return the running, provisioned twin; fail with the command that starts it if it does not run."""
    lab = Lab(os.environ.get("L3HV_TWIN", "lab"))
    name = f"--name {lab.name}"
    remedy = f"run as root: ./twin up -i inventories/lab {name} && ./twin play {name} site.yml"
    try:
        status = lab.status()
    except (AssertionError, subprocess.SubprocessError) as error:
        pytest.fail(f"the twin {lab.name} does not run ({error}); {remedy}", pytrace=False)
    if off := [machine["name"] for machine in status["machines"] if machine["state"] != "up"]:
        pytest.fail(f"{', '.join(off)} of the twin {lab.name} is not up; {remedy}", pytrace=False)
    try:
        lab.wait_until_whole()
    except AssertionError as error:
        pytest.fail(f"the twin {lab.name} is not provisioned ({error}); {remedy}", pytrace=False)
    return lab


@pytest.fixture
def lab(standing: Lab, request: pytest.FixtureRequest) -> Lab:
    """Return the twin after it has recovered from the test before."""
    stash = request.config.stash
    try:
        standing.wait_until_whole(5 if stash.get(BROKEN, False) else 45)
    except AssertionError:
        stash[BROKEN] = True  # The next tests wait for a shorter time.
        raise
    stash[BROKEN] = False
    return standing


@pytest.fixture
def restarted(lab: Lab) -> Iterator[Lab]:
    """Yield the lab; afterwards restart vm1 and vm2, without the settings of the test."""
    yield lab
    for guest in ("vm1", "vm2"):
        lab.twin("unplug", guest)
        lab.twin("plug", guest)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the measured figures by name, which pytest prints at the end."""
    return request.config.stash.setdefault(FIGURES, {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the machines during a failed test to its report: later they are not available."""
    report = yield
    known = getattr(item, "funcargs", {})
    lab = known.get("lab") or known.get("standing")
    if report.failed and lab:
        report.sections.append(("Logs of the machines", lab.logged(call.start)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what, found in config.stash.get(FIGURES, {}).items():
        terminalreporter.write_line(f"measured: {what}: {found}")

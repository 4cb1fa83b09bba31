"""Golden cases: an intent, and everything that is made of it, file by file.

`pytest tests/golden --rewrite-golden` writes what is made now; read the difference before it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from l3hv.claims import claims, clashes
from l3hv.errors import IntentError
from l3hv.facts import HostIntent
from l3hv.intent import KINDS, Roster, host_slice, member, parse_common, parse_host, peers

GOLDEN = Path(__file__).parent
INVENTORIES = GOLDEN.parent.parent / "inventories"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the expected files instead of comparing them"
    )


def intent_directory(case: str) -> Path:
    """Return the inventory of a golden case; `lab` is the one that the project is shipped with."""
    own = GOLDEN / case / "intent"
    return own if own.is_dir() else INVENTORIES / case


def cases() -> list[str]:
    return sorted(
        path.name for path in GOLDEN.iterdir() if (path / "expected").is_dir() or (path / "intent").is_dir()
    )


def read_variables(inventory: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return, by host, its group and its variables merged as Ansible does: all, group, host."""

    def load(*places: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for place in places:
            files = (
                sorted(place.glob("*.yml")) if place.is_dir() else [place.with_suffix(place.suffix + ".yml")]
            )
            for file in files:
                if file.exists():
                    merged.update(yaml.safe_load(file.read_text()) or {})
        return merged

    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    return {
        host: (
            group,
            load(
                inventory / "group_vars" / "all",
                inventory / "group_vars" / group,
                inventory / "host_vars" / host,
            ),
        )
        for group in KINDS
        for host in hosts.get(group, {}).get("hosts", {})
    }


def slices(inventory: Path) -> tuple[dict[str, dict[str, Any]], dict[str, HostIntent]]:
    """Return, by host, the slice of every host of an inventory and its intent."""
    variables = read_variables(inventory)
    common, problems = parse_common(next(iter(variables.values()))[1])
    hosts = {}
    for name, (group, values) in variables.items():
        hosts[name], more = parse_host(name, KINDS[group], values, common)
        problems += more
    if common is None or problems:
        raise IntentError(problems)
    problems = clashes({name: claims(host) for name, host in hosts.items()}, common)
    if problems:
        raise IntentError(problems)
    roster = Roster(map(member, hosts.values()))
    return {name: host_slice(common, host, peers(host, roster)) for name, host in hosts.items()}, hosts


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str, str, str], None]]:
    """Compare `text` with the golden file of a case, host and name; write it if that was asked for."""

    def compare(case: str, host: str, name: str, text: str) -> None:
        path = GOLDEN / case / "expected" / host / name
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: pytest tests/golden --rewrite-golden writes it"
        assert text == path.read_text()

    yield compare

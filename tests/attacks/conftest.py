"""Fixtures of the attack tests, which use the same running twin as the tests of the fabric."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FABRIC = Path(__file__).parents[1] / "fabric"
sys.path.append(str(FABRIC))

_spec = importlib.util.spec_from_file_location("fabric_conftest", FABRIC / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_fabric = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fabric)

from hostile import Victims, exchanging  # noqa: E402 - after the path is set
from lab import Lab  # noqa: E402 - after the path is set

standing = _fabric.standing
lab = _fabric.lab


@pytest.fixture(scope="module")
def victims(standing: Lab) -> Iterator[Victims]:
    """Yield guests that exchange packets during all attacks of a file."""
    standing.wait_until_whole()
    with exchanging(standing) as found:
        yield found

"""Fixtures of the tests of the twin: a topology file, and a twin of two machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from two_machines import TOPOLOGY, Lab, new_lab


@pytest.fixture(scope="session")
def topology_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Return a function that writes a topology to a file for ``up --topology``."""
    directory = tmp_path_factory.mktemp("topologies")

    def write(topology: Any) -> Path:
        path = directory / f"{len(list(directory.iterdir()))}.json"
        path.write_text(json.dumps(topology))
        return path

    return write


@pytest.fixture(scope="module")
def lab(topology_file: Callable[[Any], Path]) -> Iterator[Lab]:
    """Boot two machines without configuration on one segment, with a guest on each."""
    made = new_lab("test")
    made.do("down")
    made.do("up", "--topology", str(topology_file(TOPOLOGY)))
    yield made
    made.do("down")
    assert made.leftovers() == []

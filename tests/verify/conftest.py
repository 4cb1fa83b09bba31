"""The fixture of a standing lab, which the tests of verification break."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from standing import Standing


@pytest.fixture(scope="module")
def lab() -> Iterator[Standing]:
    """Yield the provisioned lab without failed checks; L3HV_TWIN names its twin."""
    standing = Standing(os.environ.get("L3HV_TWIN", "lab"))
    standing.await_whole(*standing.plans)
    yield standing
    standing.close()

"""Every plan of every golden case is what it was."""

from __future__ import annotations

import pytest
import yaml
from golden_cases import GOLDEN, INVENTORIES, cases, expected_directory, intent_directory, slices

from l3hv.model import as_plain
from l3hv.plan import host_plan


@pytest.mark.parametrize("case", cases())
def test_plans_are_the_expected_ones(case, expect_file):
    by_host = slices(intent_directory(case))
    for host, part in by_host.items():
        plan = as_plain(host_plan(part))
        text = yaml.safe_dump(plan, sort_keys=False, width=110)
        expect_file(expected_directory(case, host) / "plan.yml", text)
    expected = {path.name for path in (GOLDEN / case / "expected").iterdir()}
    assert expected == by_host.keys()


@pytest.mark.parametrize("name", sorted(path.name for path in INVENTORIES.iterdir()))
def test_inventories_that_are_shipped_have_neither_problems_nor_warnings(name):
    plans = [host_plan(part) for part in slices(INVENTORIES / name).values()]
    assert [(plan.host, plan.warnings) for plan in plans if plan.warnings] == []

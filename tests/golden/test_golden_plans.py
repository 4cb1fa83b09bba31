"""The plans of all golden cases are the expected ones."""

from __future__ import annotations

import pytest
import yaml
from golden_cases import GOLDEN, INVENTORIES, cases, expected_directory, intent_directory, plans


@pytest.mark.parametrize("case", cases())
def test_plans_are_the_expected_ones(case, expect_file):
    by_host = plans(intent_directory(case))
    for host, plan in by_host.items():
        text = yaml.safe_dump(plan, sort_keys=False, width=110)
        expect_file(expected_directory(case, host) / "plan.yml", text)
    expected = {path.name for path in (GOLDEN / case / "expected").iterdir()}
    assert expected == by_host.keys()


@pytest.mark.parametrize("name", sorted(path.name for path in INVENTORIES.iterdir()))
def test_shipped_inventories_have_no_problems_or_warnings(name):
    shipped = plans(INVENTORIES / name)
    assert {host: plan["warnings"] for host, plan in shipped.items() if plan["warnings"]} == {}

"""The order and the grouping of problems in an error message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from l3hv.model.errors import IntentError, Problem
from l3hv.model.text import natural_key


def problem(host="hv1", field="l3hv_id", message="No."):
    return Problem(host, field, "", message, "Do.")


def test_the_fabric_comes_first_then_hosts_by_number():
    error = IntentError(problem(host) for host in ["hv10", "hv9", "all", "aaa"])
    assert [p.host for p in error.problems] == ["all", "aaa", "hv9", "hv10"]


def test_a_problem_that_several_hosts_share_is_shown_once():
    error = IntentError([*(problem(f"hv{n}") for n in range(1, 6)), problem("rr1", "l3hv_mtu")])
    assert str(error).splitlines() == [
        "The intent has 2 problems:",
        "  hv1, hv2, hv3 and 2 more: l3hv_id: No. Do.",
        "  rr1: l3hv_mtu: No. Do.",
    ]
    assert len(error.problems) == 6


def test_a_repeated_problem_is_shown_once():
    assert str(IntentError([problem(), problem()])) == "The intent has one problem:\n  hv1: l3hv_id: No. Do."


@given(st.lists(st.text()))
def test_natural_order_is_total_for_any_texts(texts):
    assert sorted(sorted(texts, reverse=True), key=natural_key) == sorted(texts, key=natural_key)


def test_numbers_that_python_cannot_convert_are_sorted_as_text():
    assert natural_key("9" * 5000) > natural_key("")

"""Hosts and guests that a run removes, and the limit above which an operator must confirm it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from l3hv.run.removals import Applied, load_applied, record_applied, removals


def fabric(hypervisors: int, guests: int) -> dict[str, Applied]:
    """Return the record of the last run: a reflector and hypervisors with guests."""
    names = [f"hv{number}" for number in range(hypervisors)]
    found = {name: Applied(tuple(f"{name}-{guest}" for guest in range(guests)), ("rr1",)) for name in names}
    return {**found, "rr1": Applied((), tuple(names))}


def all_guests(before: dict[str, Applied]) -> list[str]:
    return [guest for applied in before.values() for guest in applied.guests]


@pytest.mark.parametrize(
    ("total", "removed", "needs_consent"),
    [
        (4, 1, False),
        (9, 1, False),
        (10, 2, False),
        (10, 3, True),
        (4, 2, True),
        (50, 10, False),
        (50, 11, True),
    ],
)
def test_more_than_a_fifth_of_the_guests_needs_consent(total, removed, needs_consent):
    before = fabric(1, total)
    left = all_guests(before)[removed:]
    found = removals(before, before, before, left)
    assert (len(found.guests), found.needs_consent) == (removed, needs_consent)
    assert found.exceeding() == (["guests"] if needs_consent else [])
    assert found.totals() == f"0 of 2 hosts and {removed} of {total} guests"


def test_more_than_a_fifth_of_the_hosts_needs_consent():
    before = fabric(9, 0)
    for left, needs_consent in ((8, False), (7, True)):
        hosts = [f"hv{number}" for number in range(left - 1)] + ["rr1"]
        found = removals(before, hosts, hosts, [])
        assert found.needs_consent is needs_consent
        assert found.exceeding() == (["hosts"] if needs_consent else [])


def test_a_removed_reflector_is_named_with_its_clients():
    before = fabric(2, 1)
    found = removals(before, ["hv0", "hv1"], ["hv0", "hv1"], all_guests(before))
    assert found.sentences() == ["rr1 has left the inventory. This run ends its sessions with hv0, hv1."]


def test_a_limited_run_removes_no_guests_of_other_hosts():
    before = fabric(2, 2)
    found = removals(before, ["hv0"], before, [])
    assert found.sentences() == ["This run removes 2 guests (hv0-0, hv0-1) from hv0."]


def test_a_removed_host_stays_recorded_while_a_neighbor_has_a_session_with_it(tmp_path: Path):
    def applied(**hosts: dict[str, list[str]]) -> None:
        (tmp_path / "run.json").write_text(json.dumps(hosts))
        record_applied(tmp_path / "applied", tmp_path / "run.json", hosts, ["rr1", "rr2", "hv1"])

    for name in ("rr1", "rr2", "hv1", "hv2"):
        others = ["hv1", "hv2"] if name[0] == "r" else ["rr1", "rr2"]
        applied(**{name: {"guests": [], "neighbors": others}})
    assert load_applied(tmp_path / "applied").keys() == {"rr1", "rr2", "hv1", "hv2"}
    applied(rr1={"guests": [], "neighbors": ["hv1"]})
    assert "hv2" in load_applied(tmp_path / "applied")
    applied(rr2={"guests": [], "neighbors": ["hv1"]})
    assert load_applied(tmp_path / "applied").keys() == {"rr1", "rr2", "hv1"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"guests": 3}'])
def test_an_invalid_record_of_a_host_stops_no_run(tmp_path: Path, content: str):
    (tmp_path / "hv1.json").write_text(content)
    assert load_applied(tmp_path) == {}

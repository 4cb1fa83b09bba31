"""The reports of differences, for operators and for programs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fabrics import lab

from l3hv.verify import subjects
from l3hv.verify.check import Check, Kind
from l3hv.verify.report import Report
from l3hv.verify.report.files import write_reports
from l3hv.verify.report.html import marks
from l3hv.verify.report.junit import junit
from l3hv.verify.report.table import table
from l3hv.verify.values import BfdState, PolicyRule, Presence, SessionState, UnitState

LAB = lab()
RULES = "0: from all lookup local\n1000: from all iif lo lookup main"
UP = SessionState("Established", "198.51.100.1", "198.51.100.126")
PLANNED = (PolicyRule(0, "lookup", "local"), PolicyRule(1000, "lookup", "main", iif="lo"))
BIRD = UnitState("active", "enabled")
CHECKS = (
    Check("hv1", Kind.SESSION, subjects.Session("rr1_public"), UP, UP, "ok"),
    Check("hv1", Kind.RULES, subjects.InFamily("ipv4"), PLANNED, PLANNED[:1], "failed"),
    Check("hv1", Kind.PING, subjects.EchoRequest("vm1", "vm2", "ipv4"), True, False, "failed"),
    Check("hv2", Kind.GUEST, subjects.Guest("vm3"), Presence.PRESENT, Presence.ABSENT, "warning"),
    Check(
        "hv2", Kind.BFD, subjects.Bfd("rr1", "a", "public", None), BfdState("Up"), BfdState("Down"), "failed"
    ),
    Check("hv10", Kind.UNIT, subjects.Unit("bird"), BIRD, BIRD, "ok"),
)
REPORT = Report("inventories/lab", "2026-11-21T03:00:00+00:00", 1.4, CHECKS)
GREEN = Report("inventories/lab", "2026-11-21T03:00:00+00:00", 1.4, (CHECKS[0], CHECKS[3], CHECKS[5]))


def test_a_report_with_only_warnings_passes() -> None:
    assert GREEN.passes
    assert not REPORT.passes
    assert REPORT.counts() == {"ok": 2, "warning": 1, "failed": 3}


def test_the_table_counts_per_host_and_shows_each_difference_in_full() -> None:
    lines = table(REPORT).splitlines()
    assert lines[0].split() == ["sessions", "bfd", "rules", "units", "ports", "packets"]
    assert [line.split()[0] for line in lines[1:4]] == ["hv1", "hv2", "hv10"]
    assert lines[1].split()[1:] == ["1", "·", "0!1", "·", "·", "0!1"]
    assert lines[2].split()[1:] == ["·", "0!1", "·", "·", "0?1", "·"]
    text = "\n".join(lines)
    assert "FAILED  hv1: rules ipv4\n    expected  0: from all lookup local\n" in text
    assert "              1000: from all iif lo lookup main" in text
    assert "    see       systemctl reload l3hv-tables" in text
    assert lines[-1] == "2 checks ok, 1 warning, 3 failed on 3 hosts in 1.4 s"
    assert "\x1b" not in text


def test_columns_are_aligned_whatever_the_colours() -> None:
    heads, *hosts = table(REPORT).splitlines()[:4]
    assert {len(line) for line in hosts} == {len(heads)}
    painted = table(REPORT, lambda text, colour: f"<{colour}>{text}</>")
    assert all(f"<{colour}>" in painted for colour in ("red", "green", "yellow"))


def test_the_files_hold_the_same_checks(tmp_path: Path) -> None:
    write_reports(REPORT, LAB.values(), tmp_path / "verify")
    data = json.loads((tmp_path / "verify" / "report.json").read_text())
    assert data["ok"] is False
    assert data["counts"] == {"ok": 2, "warning": 1, "failed": 3}
    assert data["checks"][1] == {
        "host": "hv1",
        "what": "rules ipv4",
        "expected": RULES,
        "found": "0: from all lookup local",
        "state": "failed",
        "ok": False,
        "remedy": "systemctl reload l3hv-tables; remove a rule of another program by hand",
    }
    suites = ElementTree.parse(tmp_path / "verify" / "report.xml").getroot()
    assert suites.get("tests") == str(len(data["checks"]))


def test_junit_has_a_suite_per_host_and_its_failures() -> None:
    root = ElementTree.fromstring(junit(REPORT))
    assert (root.get("tests"), root.get("failures")) == ("6", "3")
    assert [suite.get("name") for suite in root] == ["hv1", "hv2", "hv10"]
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["rules ipv4", "ping vm1 → vm2 ipv4", "bfd rr1 a public"]


class Page(HTMLParser):
    """A parser that collects the references of a page and its unclosed elements."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("report", [REPORT, GREEN])
def test_the_page_refers_to_no_other_file(report: Report, tmp_path: Path) -> None:
    write_reports(report, LAB.values(), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert (page.references, page.open) == ([], [])
    assert "prefers-color-scheme: dark" in text
    assert ("The fabric is as intended" in text) is report.passes


def test_texts_of_checks_are_escaped(tmp_path: Path) -> None:
    expected, found = SessionState("<script>"), SessionState("</dd><script>alert(1)</script>")
    evil = Check("hv1", Kind.SESSION, subjects.Session("<b><img>"), expected, found, "failed")
    write_reports(Report("<i>", "", 0, (evil,)), LAB.values(), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "<i>" not in text


def test_the_picture_marks_failures() -> None:
    marked = marks(REPORT, LAB.values())
    assert marked.machines == {"hv1": "rules ipv4: 0: from all lookup local"}
    assert marked.links == {("hv2", "a"): "bfd rr1 a public: Down"}
    assert marked.guests == {"vm1": "ping vm1 → vm2 ipv4: no answer"}
    assert marked.doubtful == {"vm3": "guest vm3: absent"}

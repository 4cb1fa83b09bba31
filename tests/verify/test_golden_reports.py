"""The names and texts of all reports are stable, because scripts search for them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cases import CASES, FABRICS, Case, load_plugin, play

from l3hv.verify.report import Report
from l3hv.verify.report.html import html
from l3hv.verify.report.junit import junit
from l3hv.verify.report.table import table

GOLDEN = Path(__file__).parent / "golden_reports"
ExpectFile = Callable[[Path, str], None]


class Tokens(HTMLParser):
    """A parser of a page into tags and texts, without white space around tags and in the style."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.lines.append(" ".join([f"<{tag}", *(f"{key}={value!r}" for key, value in attrs)]) + ">")

    def handle_endtag(self, tag: str) -> None:
        self.lines.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.lines and self.lines[-1].startswith("<style"):
            self.lines += re.split(r"(?<=[;}])\s+", data.strip())
        elif data.strip():
            self.lines.append(repr(data))


def tokens(page: str) -> str:
    """Return a page with one tag or text on each line."""
    parser = Tokens()
    parser.feed(page)
    parser.close()
    return "\n".join([*parser.lines, ""])


def in_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", FABRICS)
def test_the_report_of_a_fabric_as_planned(name: str, expect_file: ExpectFile) -> None:
    report = Case(FABRICS[name]).report(name)
    place = GOLDEN / name
    if name == "lab":
        expect_file(place / "report.xml", junit(report))
    expect_file(place / "report.json", in_json(report.as_plain()))
    expect_file(place / "table.txt", table(report) + "\n")


def differences(report: Report) -> dict[str, Any]:
    """Return all checks of a report that are not "ok", and digests of its complete files."""
    plain = report.as_plain()
    files = {"json": in_json(plain), "xml": junit(report)}
    cases = ElementTree.fromstring(files["xml"]).iter("testcase")
    failed_cases = [ElementTree.tostring(case, encoding="unicode").strip() for case in cases if len(case)]
    groups = play(load_plugin()).by_host(report.groups)
    return {
        "counts": plain["counts"],
        "checks": [check for check in plain["checks"] if check["state"] != "ok"],
        "junit": failed_cases,
        "table": table(report).splitlines(),
        "verbose": hashlib.sha256(table(report, is_verbose=True).encode()).hexdigest(),
        "hosts": groups,
        **{name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
    }


@pytest.mark.parametrize("name", CASES)
def test_the_reports_of_fabrics_with_differences(name: str, expect_file: ExpectFile) -> None:
    found = {case: differences(CASES[name][case].report(case)) for case in CASES[name]}
    expect_file(GOLDEN / f"{name}.json", in_json(found))


PAGES = {
    "green": Case(FABRICS["lab"]),
    "cut": CASES["cuts"]["an interface without carrier"],
    "traces": CASES["values"]["what belongs to no plan"],
    "changed": CASES["values"]["other values"],
    "packets": CASES["made_elsewhere"]["packets"],
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_same_but_for_white_space(name: str, expect_file: ExpectFile) -> None:
    case = PAGES[name]
    plans = [plan for host, plan in case.plans.items() if host in (case.chosen or case.plans)]
    found = tokens(html(case.report(name), plans)).splitlines()
    listed = found.index("'Checks'")
    lines = [*found[:listed], hashlib.sha256("\n".join(found[listed:]).encode()).hexdigest(), ""]
    expect_file(GOLDEN / "pages" / f"{name}.txt", "\n".join(found if name == "cut" else lines))

"""The files that a verification leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from l3hv.model import HostPlan
from l3hv.verify.report import Report
from l3hv.verify.report.html import html
from l3hv.verify.report.junit import junit


def write_reports(report: Report, plans: Iterable[HostPlan], directory: Path) -> None:
    """Write ``report.json``, ``report.xml`` (JUnit) and ``report.html`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(
        json.dumps(report.as_plain(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (directory / "report.xml").write_text(junit(report), encoding="utf-8")
    (directory / "report.html").write_text(html(report, plans), encoding="utf-8")

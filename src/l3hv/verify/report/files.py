"""The files that a verification writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from l3hv.model.plan import HostPlan
from l3hv.verify.report import Report
from l3hv.verify.report.html import html
from l3hv.verify.report.junit import junit


def write_reports(report: Report, plans: Iterable[HostPlan], directory: Path, name: str = "") -> None:
    """Write ``report.json``, ``report.xml`` (JUnit) and ``report.html`` into ``directory``.

    With ``name`` they are in a subdirectory of that name, and links in ``directory`` lead to those of the
    last run.
    """
    place = directory / name
    place.mkdir(parents=True, exist_ok=True)
    for file, text in (
        ("report.json", json.dumps(report.as_plain(), indent=1, ensure_ascii=False) + "\n"),
        ("report.xml", junit(report)),
        ("report.html", html(report, plans)),
    ):
        (place / file).write_text(text, encoding="utf-8")
        if name:
            (directory / file).unlink(missing_ok=True)
            (directory / file).symlink_to(Path(name) / file)

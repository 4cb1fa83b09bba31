"""The table that ends a run: a line of counts per host, then every difference in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from l3hv.verify.check import Check
from l3hv.verify.report import TOPICS, Report, topic
from l3hv.verify.words import some

Paint = Callable[[str, str], str]
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def unpainted(text: str, _colour: str) -> str:
    """Return ``text`` without any colour."""
    return text


def table(report: Report, paint: Paint = unpainted) -> str:
    """Return the report as text; ``paint`` colours a piece of text for a terminal."""
    lines = [*_counts(report, paint)]
    for check in report.checks:
        if check.state != "ok":
            lines += ["", *_difference(check, paint)]
    return "\n".join([*lines, "", summary(report, paint)])


def _counts(report: Report, paint: Paint) -> Iterator[str]:
    topics = [name for name in dict.fromkeys(TOPICS.values()) if any(topic(c) == name for c in report.checks)]
    width = max([len(host) for host in report.hosts], default=0)
    yield " " * width + "".join(f"  {name}" for name in topics)
    for host in report.hosts:
        checks = report.of(host)
        cells = []
        for name in topics:
            here = [check for check in checks if topic(check) == name]
            bad = report.counts(here)
            text = str(bad["ok"]) if here else "·"
            text += f"!{bad['failed']}" if bad["failed"] else f"?{bad['warning']}" if bad["warning"] else ""
            state = "failed" if bad["failed"] else "warning" if bad["warning"] else "ok"
            cells.append("  " + paint(text.rjust(len(name)), COLOURS[state] if here else "dark gray"))
        yield host.ljust(width) + "".join(cells)


def _difference(check: Check, paint: Paint) -> Iterator[str]:
    yield f"{paint(MARKS[check.state], COLOURS[check.state])}  {check.host}: {check.what}"
    yield from _quoted("expected", check.expected)
    yield from _quoted("found", check.found)
    if check.remedy:
        yield from _quoted("see", check.remedy)


def _quoted(label: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines() or [""]):
        yield f"    {label if number == 0 else '':8}  {line}"


def summary(report: Report, paint: Paint = unpainted) -> str:
    """Return the report in one line."""
    counts = report.counts()
    words = [paint(f"{some(counts['ok'], 'check')} ok", "green")]
    if counts["warning"]:
        words.append(paint(some(counts["warning"], "warning"), "yellow"))
    if counts["failed"]:
        words.append(paint(f"{counts['failed']} failed", "red"))
    return f"{', '.join(words)} on {some(len(report.hosts), 'host')} in {report.seconds:.1f} s"

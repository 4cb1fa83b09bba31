"""The table at the end of a run: counts for each host, then each cause with what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from l3hv.model.text import counted
from l3hv.verify.causes import Group
from l3hv.verify.check import State
from l3hv.verify.report import Report
from l3hv.verify.report.entry import Entry, entry_of
from l3hv.verify.report.kinds import TOPICS

Paint = Callable[[str, str], str]
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def unpainted(text: str, _colour: str) -> str:
    """Return ``text`` without any colour."""
    return text


def table(report: Report, paint: Paint = unpainted, *, is_verbose: bool = False) -> str:
    """Return the report as text; ``paint`` colours a piece of text for a terminal.

    Checks that follow from another failed check are only counted, unless ``is_verbose`` is true.
    """
    lines = [*_counts(report, paint)]
    for group in report.groups:
        lines += ["", *_difference(entry_of(group.check), paint)]
        if group.follows and not is_verbose:
            lines += _quoted("then", f"{consequence(group)} (ansible-playbook -v shows them)")
        for check in group.follows if is_verbose else ():
            lines += ["", *_difference(entry_of(check), paint, "FOLLOWS")]
    grouped = {(c.host, c.key) for group in report.groups for c in (group.check, *group.follows)}
    for check in report.checks:
        if check.state != "ok" and (check.host, check.key) not in grouped:
            lines += ["", *_difference(entry_of(check), paint)]
    return "\n".join([*lines, "", summary(report, paint)])


def consequence(group: Group) -> str:
    """Return the numbers of checks and hosts that follow from the cause of a group, as a sentence."""
    hosts = {check.host for check in group.follows}
    verb = "follows" if len(group.follows) == 1 else "follow"
    return f"{counted(len(group.follows), 'more check')} on {counted(len(hosts), 'host')} {verb} from it"


def _counts(report: Report, paint: Paint) -> Iterator[str]:
    by_topic: dict[tuple[str, str], list[Entry]] = {}
    for entry in report.entries:
        by_topic.setdefault((entry.host, entry.topic), []).append(entry)
    used = {name for _, name in by_topic}
    topics = [name for name in TOPICS if name in used]
    width = max([len(host) for host in report.hosts], default=0)
    yield " " * width + "".join(f"  {name}" for name in topics)
    for host in report.hosts:
        cells = (_cell(report.counts(by_topic.get((host, name), [])), len(name), paint) for name in topics)
        yield host.ljust(width) + "".join(cells)


def _cell(counts: Mapping[State, int], width: int, paint: Paint) -> str:
    """Return the counts of one topic on one host, padded to the width of its heading."""
    if not any(counts.values()):
        return "  " + paint("·".rjust(width), "dark gray")
    state: State = "failed" if counts["failed"] else "warning" if counts["warning"] else "ok"
    more = (
        f"!{counts['failed']}" if counts["failed"] else f"?{counts['warning']}" if counts["warning"] else ""
    )
    return "  " + paint(f"{counts['ok']}{more}".rjust(width), COLOURS[state])


def _difference(entry: Entry, paint: Paint, mark: str = "") -> Iterator[str]:
    yield f"{paint(mark or MARKS[entry.state], COLOURS[entry.state])}  {entry.host}: {entry.what}"
    yield from _quoted("expected", entry.expected)
    yield from _quoted("found", entry.found)
    if entry.remedy:
        yield from _quoted("see", entry.remedy)


def _quoted(label: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines() or [""]):
        yield f"    {label if number == 0 else '':8}  {line}"


def summary(report: Report, paint: Paint = unpainted) -> str:
    """Return the report in one line."""
    counts = report.counts()
    words = [paint(f"{counted(counts['ok'], 'check')} ok", "green")]
    if counts["warning"]:
        words.append(paint(counted(counts["warning"], "warning"), "yellow"))
    if counts["failed"]:
        words.append(paint(f"{counts['failed']} failed", "red"))
    return f"{', '.join(words)} on {counted(len(report.hosts), 'host')} in {report.seconds:.1f} s"

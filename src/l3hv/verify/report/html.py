"""The report as a page that needs nothing else: the fabric's picture, what differs, all that was checked."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from l3hv.model.plan import HostPlan
from l3hv.model.text import counted
from l3hv.render.picture import Marks, draw, names_of, topology_of
from l3hv.verify.check import Check, first_line
from l3hv.verify.report import Report, topic
from l3hv.verify.report.table import summary

CHECKS_LISTED = 20_000
"""Of more checks than this only those that differ are listed: a page has to open."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #66727f; --paper: #ffffff; --line: #dde3ea;
        --band: #f3f5f8; --ok: #1f7a4d; --warning: #9a6b00; --failed: #c62828; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf1; --soft: #98a6b5; --paper: #12171e; --line: #2b3643;
          --band: #1c242e; --ok: #56c98f; --warning: #e0b04a; --failed: #ff6b63; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
       font: 15px/1.5 ui-sans-serif, system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.sum { color: var(--soft); }
figure { margin: 1.5rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
td.text, dd { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.ok { color: var(--ok); } .warning { color: var(--warning); } .failed { color: var(--failed); }
.difference { border-left: 4px solid currentColor; background: var(--band);
              padding: .6rem 1rem; margin: .8rem 0; }
dl { display: grid; grid-template-columns: 6rem 1fr; margin: .4rem 0 0; color: var(--ink); }
dt { color: var(--soft); } dd { margin: 0; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
"""


def html(report: Report, plans: Iterable[HostPlan]) -> str:
    """Return ``report.html``; ``plans`` are those of the hosts to draw."""
    plans = list(plans)
    picture = draw(topology_of(plans), names_of(plans), marks(report, plans))
    counts = report.counts()
    title = "The fabric is as intended"
    if not report.ok:
        title = f"The fabric has {counted(counts['failed'], 'difference')}"
    different = [check for check in report.checks if check.state != "ok"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f'<h1 class="{"ok" if report.ok else "failed"}">{escape(title)}</h1>',
        f'<p class="sum">{escape(report.inventory)}, {escape(report.time)}: {summary(report)}</p>',
        f"<figure>{picture}</figure>",
    ]
    if different:
        parts += ["<h2>What differs</h2>", *map(_difference, sorted(different, key=lambda check: check.ok))]
    parts.append("<h2>What was checked</h2>")
    parts += [_host(report, host) for host in report.hosts]
    return "\n".join([*parts, "</body></html>", ""])


def marks(report: Report, plans: Iterable[HostPlan]) -> Marks:
    """Return what to mark in the picture: hosts, guests, and links whose sessions or interfaces fail."""
    machines: dict[str, list[str]] = {}
    links: dict[tuple[str, str], list[str]] = {}
    guests: dict[str, list[str]] = {}
    doubtful: dict[str, str] = {}
    known = {plan.host: plan for plan in plans}
    for check in report.checks:
        plan = known.get(check.host)
        if check.state == "ok" or plan is None:
            continue
        words = f"{check.what}: {first_line(check.found)}"
        guest, path = _guest_of(check, plan), _path_of(check, plan)
        if guest is not None and check.state == "warning":
            doubtful[guest] = words
        elif check.state == "warning":
            continue
        elif guest is not None:
            guests.setdefault(guest, []).append(words)
        elif path is not None:
            links.setdefault((check.host, path), []).append(words)
        else:
            machines.setdefault(check.host, []).append(words)
    return Marks(
        {name: "\n".join(words) for name, words in machines.items()},
        {link: "\n".join(words) for link, words in links.items()},
        {name: "\n".join(words) for name, words in guests.items()},
        doubtful,
    )


def _guest_of(check: Check, plan: HostPlan) -> str | None:
    """Return the guest that a check is about."""
    words = check.what.split()
    names = {guest.name for guest in plan.guests}
    if (
        words[0] in {"guest", "port", "mac", "lease", "ra", "ping", "silence", "address"}
        and words[1] in names
    ):
        return words[1]
    if words[0] == "route":
        return next((g.name for g in plan.guests if words[1] in {route.prefix for route in g.routes}), None)
    return None


def _path_of(check: Check, plan: HostPlan) -> str | None:
    """Return the path that a check is about."""
    kind, name, *rest = [*check.what.split(), "", ""]
    if kind in {"path", "size"}:
        return name
    if kind == "bfd":
        return rest[0]
    if kind in {"session", "received", "sent"}:
        return next((session.path for session in plan.routing.sessions if session.name == name), None)
    if kind in {"link", "networkd", "addresses"}:
        return next((uplink.path for uplink in plan.uplinks if uplink.interface == name), None)
    return None


def _difference(check: Check) -> str:
    rows = [("expected", check.expected), ("found", check.found), ("see", check.remedy)]
    cells = "".join(f"<dt>{label}</dt><dd>{escape(text)}</dd>" for label, text in rows if text)
    return (
        f'<div class="difference {check.state}"><strong>{escape(check.host)}: {escape(check.what)}</strong>'
        f"<dl>{cells}</dl></div>"
    )


def _host(report: Report, host: str) -> str:
    checks = report.of(host)
    counts = report.counts(checks)
    state = "failed" if counts["failed"] else "warning" if counts["warning"] else "ok"
    summary = f"{counts['ok']} ok"
    summary += f", {counted(counts['warning'], 'warning')}" if counts["warning"] else ""
    summary += f", {counts['failed']} failed" if counts["failed"] else ""
    if len(report.checks) > CHECKS_LISTED:
        checks = [check for check in checks if check.state != "ok"]
    rows = "".join(
        f'<tr><td>{topic(check)}</td><td>{escape(check.what)}</td><td class="text">{escape(check.found)}</td>'
        f'<td class="{check.state}">{check.state}</td></tr>'
        for check in checks
    )
    return (
        f'<details><summary><strong>{escape(host)}</strong> <span class="{state}">{summary}</span></summary>'
        f"<table><tr><th>topic</th><th>check</th><th>found</th><th></th></tr>{rows}</table></details>"
    )

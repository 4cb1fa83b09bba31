"""The report as a self-contained page: the picture of the fabric, the differences, and all checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from l3hv.model.plan import HostPlan
from l3hv.model.text import counted
from l3hv.render.picture import Marks, draw, names_of, topology_of
from l3hv.verify import subjects
from l3hv.verify.check import Check, Key, Kind, State
from l3hv.verify.report import Report
from l3hv.verify.report.entry import Entry, entry_of, first_line
from l3hv.verify.report.table import summary

CHECKS_LISTED = 20_000
"""A page with more checks than this lists only the differences: a browser has to be able to open it."""

PAGE = "page.html.j2"
OF_A_GUEST = {
    Kind.GUEST,
    Kind.PORT_LINK,
    Kind.PORT_MAC,
    Kind.PORT_ADDRESSES,
    Kind.PORT_SETTING,
    Kind.MAC,
    Kind.LEASE,
    Kind.ADVERTISEMENT,
    Kind.PING,
    Kind.SILENCE,
    Kind.GUEST_ADDRESS,
}
"""The kinds of checks whose differences mark a guest in the picture."""


@dataclass(frozen=True)
class HostPart:
    """The part of the page about one host."""

    name: str
    state: State
    summary: str
    entries: list[Entry]


def html(report: Report, plans: Iterable[HostPlan]) -> str:
    """Return ``report.html``; the picture shows the hosts of ``plans``."""
    plans = list(plans)
    title = "The fabric is as intended"
    if not report.passes:
        title = f"The fabric has {counted(report.counts()['failed'], 'difference')}"
    different = [entry for entry in report.entries if entry.state != "ok"]
    # Escape all values: the observations of hosts are text, never markup.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(PAGE).render(
        title=title,
        report=report,
        summary=summary(report),
        picture=draw(topology_of(plans), names_of(plans), marks(report, plans)),
        different=sorted(different, key=lambda entry: entry.passes),
        hosts=list(_hosts(report)),
    )


def _hosts(report: Report) -> Iterator[HostPart]:
    for host in report.hosts:
        entries = report.of(host)
        counts = report.counts(entries)
        state: State = "failed" if counts["failed"] else "warning" if counts["warning"] else "ok"
        words = [f"{counts['ok']} ok"]
        words += [counted(counts["warning"], "warning")] if counts["warning"] else []
        words += [f"{counts['failed']} failed"] if counts["failed"] else []
        if len(report.checks) > CHECKS_LISTED:
            entries = [entry for entry in entries if entry.state != "ok"]
        yield HostPart(host, state, ", ".join(words), entries)


def marks(report: Report, plans: Iterable[HostPlan]) -> Marks:
    """Return the marks of the picture: hosts, guests, and links whose sessions or interfaces fail."""
    machines: dict[str, list[str]] = {}
    links: dict[tuple[str, str], list[str]] = {}
    guests: dict[str, list[str]] = {}
    doubtful: dict[str, str] = {}
    known = {plan.host: plan for plan in plans}
    for check in report.checks:
        plan = known.get(check.host)
        if check.state == "ok" or plan is None:
            continue
        entry = entry_of(check)
        words = f"{entry.what}: {first_line(entry.found)}"
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
    """Return the guest that a check concerns, or None."""
    names = {guest.name for guest in plan.guests}
    match check.subject:
        case subjects.Route(prefix):
            return next((g.name for g in plan.guests if prefix in {route.prefix for route in g.routes}), None)
        case (
            subjects.Guest(name)
            | subjects.PortSetting(name)
            | subjects.GuestFamily(name)
            | subjects.EchoRequest(name)
        ) if check.kind in OF_A_GUEST and name in names:
            return name
    return None


def _path_of(check: Check, plan: HostPlan) -> str | None:
    """Return the path that a check concerns, or None."""
    match check.key:
        case (
            Key(Kind.PATH, subjects.Path(path))
            | Key(Kind.SIZE, subjects.PathToPeer(path))
            | Key(Kind.BFD, subjects.Bfd(path=path))
            | Key(Kind.IGP_NEIGHBORS, subjects.IgpLink(path))
        ):
            return path
        case Key(Kind.SESSION, subjects.Session(name)) | Key(
            Kind.RECEIVED | Kind.SENT, subjects.SessionFamily(name)
        ):
            on_path = () if plan.routing.igp else plan.routing.sessions
            return next((session.path for session in on_path if session.name == name), None)
        case Key(Kind.LINK | Kind.NETWORKD | Kind.ADDRESSES, subjects.Interface(name)):
            return next((uplink.path for uplink in plan.uplinks if uplink.interface == name), None)
    return None

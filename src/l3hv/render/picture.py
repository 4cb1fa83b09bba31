"""The fabric as a picture: paths, the machines on them, the guests behind them, and marks on broken parts.

The drawing is a self-contained SVG that follows the reader's light or dark preference.  To stay legible, it
shows only some of many machines or guests (broken ones first) and the number of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from l3hv.model.plan import HostPlan
from l3hv.model.text import natural_key
from l3hv.model.topology import GuestMachine, Machine, Port, Topology

MACHINES_DRAWN = 20
GUESTS_DRAWN = 4
PER_ROW = 5
NAME_DRAWN, NAME_BESIDE_KIND = 22, 11

BOX, GAP, MARGIN = 196, 20, 24
HEADER, LINE, PADDING = 34, 15, 10
PATH_STEP, RISER = 24, 24
KINDS = {"route_reflector": "route reflector", "edge_router": "edge router", "hypervisor": "hypervisor"}
PATH_COLOURS = ("#2f7fd1", "#2c9c69", "#b8771f", "#8659c4")

# Plain values first, for renderers that know neither variables nor media queries.
STYLE = """
svg { font-family: ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.paper { fill: #ffffff; }
.box { fill: #f3f5f8; stroke: #c3ccd6; }
.chip { fill: #ffffff; stroke: #d5dce4; }
text { fill: #1d2733; font-size: 11px; }
.name { font-size: 13px; font-weight: 600; }
.soft { fill: #66727f; font-size: 10px; }
.address { fill: #4d5965; font-size: 10px; font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
.path { stroke-width: 5; stroke-linecap: round; }
.riser { stroke-width: 2; }
.halo { stroke: #ffffff; stroke-width: 6; }
.broken { stroke: #cf2f2f; stroke-width: 2; }
.riser.broken { stroke-dasharray: 3 4; }
.doubt { stroke: #b07a00; stroke-width: 1.5; stroke-dasharray: 4 3; }
text.broken, text.mark { fill: #cf2f2f; stroke: none; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #12171e; }
  .box { fill: #1c242e; stroke: #3a4756; }
  .chip { fill: #242e3a; stroke: #3a4756; }
  text { fill: #e6ebf1; }
  .soft { fill: #98a6b5; }
  .address { fill: #b4c0cc; }
  .halo { stroke: #12171e; }
  .broken { stroke: #ff6b63; }
  .doubt { stroke: #e0b04a; }
  text.broken, text.mark { fill: #ff6b63; }
}
"""


@dataclass(frozen=True)
class Marks:
    """The parts to mark, each with the reason, which the picture shows as a tooltip.

    ``links`` are (machine, path) pairs.  ``doubtful`` guests are marked, but not as broken.
    """

    machines: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[tuple[str, str], str] = field(default_factory=dict)
    guests: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """The labels of machines and paths: addresses and prefixes, one per line."""

    machines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)


def topology_of(plans: Iterable[HostPlan]) -> Topology:
    """Return the machines and guests of ``plans``."""
    machines, guests = [], []
    for plan in plans:
        ports = tuple(Port(u.interface, u.path, u.domain, u.mtu) for u in plan.uplinks)
        machines.append(Machine(plan.host, plan.kind, "", ports))
        for guest in plan.guests:
            further = [
                route.prefix for route in guest.routes if route.kind in {"address", "subnet", "anycast"}
            ]
            guests.append(
                GuestMachine(
                    name=guest.name,
                    hypervisor=plan.host,
                    interface=guest.interface,
                    mac=guest.mac,
                    domain=guest.domain,
                    mtu=guest.mtu,
                    ipv4=guest.lease.address if guest.lease else None,
                    ipv6_prefix=guest.prefix.prefix if guest.prefix else None,
                    addresses=tuple(prefix.removesuffix("/32").removesuffix("/128") for prefix in further),
                    transparent=tuple(address for address, _ in guest.transparent),
                )
            )
    return Topology(tuple(machines), tuple(guests))


def names_of(plans: Iterable[HostPlan]) -> Names:
    """Return the labels of the machines and paths of ``plans``."""
    machines: dict[str, list[str]] = {}
    paths: dict[str, list[str]] = {}
    for plan in plans:
        machines[plan.host] = [loopback.address for loopback in plan.loopbacks]
        for uplink in plan.uplinks:
            prefixes = ", ".join(address.prefix for address in uplink.addresses)
            line = f"{uplink.domain} {prefixes}"
            if prefixes and line not in paths.setdefault(uplink.path, []):
                paths[uplink.path].append(line)
            if not plan.loopbacks and uplink.addresses:
                machines[plan.host].append(uplink.addresses[0].address)
    return Names({host: lines[:2] for host, lines in machines.items()}, paths)


def draw(topology: Topology, names: Names | None = None, marks: Marks | None = None) -> str:
    """Return the fabric as an SVG document."""
    return _Drawing(topology, names or Names(), marks or Marks()).svg()


class _Drawing:
    """The parts of one picture, from top to bottom."""

    def __init__(self, topology: Topology, names: Names, marks: Marks) -> None:
        self.names, self.marks = names, marks
        self.paths = sorted({port.path for m in topology.machines for port in m.ports}, key=natural_key)
        self.guests: dict[str, list[GuestMachine]] = {}
        for guest in topology.guests:
            self.guests.setdefault(guest.hypervisor, []).append(guest)
        above = [machine for machine in topology.machines if machine.kind != "hypervisor"]
        below = [machine for machine in topology.machines if machine.kind == "hypervisor"]
        above.sort(key=lambda machine: (machine.kind != "edge_router", natural_key(machine.name)))
        self.above, more_above = self._chosen(
            above, PER_ROW if len(above) + len(below) > MACHINES_DRAWN else 10
        )
        self.below, more_below = self._chosen(below, MACHINES_DRAWN - min(len(self.above), PER_ROW))
        self.more = {"above": more_above, "below": more_below}
        columns = max(len(self.above) + bool(more_above), min(len(self.below) + bool(more_below), PER_ROW), 2)
        self.gutter = 40 + 8 * max((len(path) for path in self.paths), default=0)
        self.width = 2 * MARGIN + self.gutter + columns * BOX + (columns - 1) * GAP

    def _chosen(self, machines: list[Machine], most: int) -> tuple[list[Machine], int]:
        """Return the machines to draw, broken ones before others, and the number of machines left out."""
        if len(machines) <= most:
            return machines, 0
        broken = {host for host, _ in self.marks.links} | set(self.marks.machines)
        broken |= {
            host for host, guests in self.guests.items() for g in guests if g.name in self.marks.guests
        }
        kept = sorted(machines, key=lambda machine: machine.name not in broken)[: most - 1]
        return [machine for machine in machines if machine in kept], len(machines) - len(kept)

    def svg(self) -> str:
        parts: list[str] = []
        y = MARGIN
        if self.above:
            height = max(self._height(machine) for machine in self.above)
            top, y = y, y + height + RISER
            parts += self._paths(y)
            for machine, x in zip(
                self.above, self._columns(len(self.above), bool(self.more["above"])), strict=False
            ):
                parts += self._risers(machine, x, top + height, y)
                parts += self._machine(machine, x, top + height - self._height(machine))
            parts += self._left_out("above", len(self.above), top, height)
        else:
            parts += self._paths(y)
        y += self._paths_height()
        cells: list[Machine | None] = [*self.below, *([None] if self.more["below"] else [])]
        for start in range(0, len(cells), PER_ROW):
            row = cells[start : start + PER_ROW]
            if start:
                parts += self._paths(y)
                y += self._paths_height()
            bars, top = y - self._paths_height(), y + RISER
            tallest = max((self._height(machine) for machine in row if machine), default=HEADER)
            for cell, x in zip(row, self._columns(len(row), more=False), strict=True):
                if cell is None:
                    parts += self._more(x, top, f"and {self.more['below']} more hypervisors")
                else:
                    parts += self._risers(cell, x, top, bars)
                    parts += self._machine(cell, x, top)
            y = top + tallest + MARGIN
        if any(self.names.paths.values()):
            parts += self._legend(y)
            y += len(self.paths) * (LINE + 3) + MARGIN - LINE
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {y}" width="{self.width}" '
            f'role="img" aria-label="The fabric">\n<style>{STYLE}</style>\n'
            f'<rect class="paper" width="{self.width}" height="{y}"/>\n' + "\n".join(parts) + "\n</svg>\n"
        )

    def _columns(self, count: int, more: bool) -> list[int]:
        """Return the left edges of a row of centred boxes; with ``more`` there is one box for the others."""
        count += more
        left = (self.width + self.gutter - count * BOX - (count - 1) * GAP) // 2
        return [left + index * (BOX + GAP) for index in range(count)]

    def _paths_height(self) -> int:
        return (len(self.paths) - 1) * PATH_STEP if self.paths else 0

    def _paths(self, y: int) -> Iterator[str]:
        for number, path in enumerate(self.paths):
            at, colour = y + number * PATH_STEP, _colour(number)
            ends = f'x1="{MARGIN + self.gutter}" x2="{self.width - MARGIN}" y1="{at}" y2="{at}"'
            yield f'<line class="path" stroke="{colour}" {ends}/>'
            yield f'<text class="name" x="{MARGIN}" y="{at + 4}">path {escape(path)}</text>'

    def _legend(self, y: int) -> Iterator[str]:
        """Yield one line for each path with its prefixes."""
        for number, path in enumerate(self.paths):
            at = y + number * (LINE + 3)
            colour = _colour(number)
            words = " · ".join(self.names.paths.get(path, ()))
            ends = f'x1="{MARGIN}" x2="{MARGIN + 20}" y1="{at}" y2="{at}"'
            yield f'<line class="path" stroke="{colour}" {ends}/>'
            yield f'<text x="{MARGIN + 30}" y="{at + 4}"><tspan font-weight="600">path {escape(path)}</tspan>'
            yield f'<tspan class="address" dx="8">{escape(words)}</tspan></text>'

    def _risers(self, machine: Machine, x: int, edge: int, bars: int) -> Iterator[str]:
        """Yield the lines from a machine's edge to its paths."""
        connected = [path for path in self.paths if any(port.path == path for port in machine.ports)]
        for index, path in enumerate(connected, 1):
            number = self.paths.index(path)
            at = x + BOX * index // (len(connected) + 1)
            bar, colour = bars + number * PATH_STEP, _colour(number)
            ends = f'x1="{at}" x2="{at}" y1="{edge}" y2="{bar}"'
            yield f'<line class="halo" {ends}/>'
            reason = self.marks.links.get((machine.name, path))
            kind = "riser broken" if reason else "riser"
            stroke = "" if reason else f' stroke="{colour}"'
            yield f'<line class="{kind}"{stroke} {ends}>{_title(reason)}</line>'
            yield f'<circle cx="{at}" cy="{bar}" r="4.5" fill="{colour}"/>'
            if reason:
                y = edge + (14 if edge < bar else -8)
                yield f'<text class="mark name" x="{at + 5}" y="{y}">✕{_title(reason)}</text>'

    def _height(self, machine: Machine) -> int:
        height = HEADER + LINE * len(self.names.machines.get(machine.name, ()))
        drawn, more = self._drawn_guests(machine)
        height += sum(LINE * len(_guest_lines(guest)) + PADDING + 6 for guest in drawn)
        return height + (LINE + 4 if more else 0) + (4 if drawn else 0)

    def _drawn_guests(self, machine: Machine) -> tuple[list[GuestMachine], int]:
        guests = self.guests.get(machine.name, [])
        if len(guests) <= GUESTS_DRAWN:
            return guests, 0
        kept = sorted(guests, key=lambda guest: guest.name not in self.marks.guests)[: GUESTS_DRAWN - 1]
        return [guest for guest in guests if guest in kept], len(guests) - len(kept)

    def _machine(self, machine: Machine, x: int, y: int) -> Iterator[str]:
        reason = self.marks.machines.get(machine.name)
        height = self._height(machine)
        yield (
            f'<rect class="box{" broken" if reason else ""}" x="{x}" y="{y}" width="{BOX}" height="{height}" '
            f'rx="8">{_title(reason)}</rect>'
        )
        mark = "✕ " if reason else ""
        yield (
            f'<text class="name{" broken" if reason else ""}" x="{x + PADDING}" y="{y + 20}">'
            f"{mark}{escape(_shortened(machine.name))}</text>"
        )
        kind = KINDS.get(machine.kind, machine.kind) if len(machine.name) <= NAME_BESIDE_KIND else ""
        yield f'<text class="soft" text-anchor="end" x="{x + BOX - PADDING}" y="{y + 20}">{kind}</text>'
        at = y + HEADER
        for line in self.names.machines.get(machine.name, ()):
            yield f'<text class="address" x="{x + PADDING}" y="{at + 3}">{escape(line)}</text>'
            at += LINE
        drawn, more = self._drawn_guests(machine)
        for guest in drawn:
            lines = _guest_lines(guest)
            height = LINE * len(lines) + PADDING
            yield from self._guest(guest, lines, x + PADDING, at, height)
            at += height + 6
        if more:
            yield f'<text class="soft" x="{x + PADDING}" y="{at + 10}">and {more} more guests</text>'

    def _guest(self, guest: GuestMachine, lines: list[str], x: int, y: int, height: int) -> Iterator[str]:
        reason = self.marks.guests.get(guest.name)
        doubt = self.marks.doubtful.get(guest.name)
        kind = " broken" if reason else " doubt" if doubt else ""
        yield (
            f'<rect class="chip{kind}" x="{x}" y="{y}" width="{BOX - 2 * PADDING}" height="{height}" rx="5">'
            f"{_title(reason or doubt)}</rect>"
        )
        name = f'<tspan font-weight="600">{"✕ " if reason else ""}{escape(_shortened(guest.name))}</tspan>'
        domain = f"  {escape(guest.domain)}"
        text = '<text class="broken"' if reason else "<text"
        yield f'{text} x="{x + 8}" y="{y + 16}">{name}<tspan class="soft">{domain}</tspan></text>'
        for number, line in enumerate(lines[1:], 1):
            yield f'<text class="address" x="{x + 8}" y="{y + 16 + number * LINE}">{escape(line)}</text>'

    def _left_out(self, where: str, drawn: int, y: int, height: int) -> Iterator[str]:
        if self.more[where]:
            x = self._columns(drawn, more=True)[-1]
            yield from self._more(x, y + height - HEADER, f"and {self.more[where]} more machines")

    def _more(self, x: int, y: int, words: str) -> Iterator[str]:
        yield (
            f'<rect class="box" stroke-dasharray="4 4" x="{x}" y="{y}" width="{BOX}" height="{HEADER}" '
            f'rx="8"/>'
            f'<text class="soft" x="{x + PADDING}" y="{y + 21}">{words}</text>'
        )


def _guest_lines(guest: GuestMachine) -> list[str]:
    """Return the lines of a guest's box: its name, its main addresses, and its further addresses."""
    lines = [guest.name, *(address for address in (guest.ipv4, guest.ipv6_prefix) if address)]
    lines += [f"+ {address}" for address in guest.addresses[:3]]
    lines += [f"⇢ {address}" for address in guest.transparent[:2]]
    return lines


def _colour(number: int) -> str:
    return PATH_COLOURS[number % len(PATH_COLOURS)]


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_DRAWN else f"{name[: NAME_DRAWN - 1]}…"


def _title(reason: str | None) -> str:
    return f"<title>{escape(reason)}</title>" if reason else ""

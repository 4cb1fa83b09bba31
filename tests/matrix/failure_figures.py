"""A table of the outages that failures cause, for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Figures = dict[tuple[str, str, str], float]
"""The outage of the worst flow in ms, by failure profile, machine and event."""


@contextmanager
def collected(path: Path, heading: str, names: Mapping[str, str]) -> Iterator[Figures]:
    """Collect figures while the block runs, then write them as a table to `path` and print it.

    ``heading`` is the heading of the column of machines, and ``names`` has the text of each machine there.
    """
    seen: Figures = {}
    yield seen
    events = sorted({event for _, _, event in seen})
    lines = [f"| profile | {heading} | {' | '.join(events)} |", "|---|---|" + "---|" * len(events)]
    for profile, machine in dict.fromkeys((profile, machine) for profile, machine, _ in seen):
        figures = [seen.get((profile, machine, event)) for event in events]
        cells = ["" if figure is None else f"{figure:.0f}" for figure in figures]
        lines.append(f"| `{profile}` | {names[machine]} | {' | '.join(cells)} |")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"\n{path.read_text()}")

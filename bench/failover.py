"""Measures the outages that failures cause for guests of a lab: the worst of 32 flows, in both families.

    make lab && make bench-failover                              # DESIGN=mesh: another design
    L3HV_INVENTORY=INVENTORY python bench/failover.py --name TWIN --repetitions 5     # any running twin

The flows go from vm1 (hv1) to vm3 (hv2). Each event is followed by its repair, which is an event of its own.
Prints a table and writes every single figure to build/bench/failover.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), *(str(REPOSITORY / "tests" / part) for part in ("fabric", "golden"))]

from lab import Lab, both_families  # noqa: E402 - after the path is set
from machines import REFLECTORS  # noqa: E402 - after the path is set

OUTPUT = REPOSITORY / "build" / "bench" / "failover.json"
FLOWS = both_families("vm1", "vm3")
DEAD_SECONDS = 60
RUN_SECONDS = 40


@dataclass(frozen=True)
class Event:
    """A failure or repair during ``seconds`` of traffic.

    With ``until_whole`` the fabric must be whole again before the next event.
    """

    name: str
    action: Callable[[Lab], object]
    seconds: float
    until_whole: bool = True


def each_reflector(verb: str) -> Callable[[Lab], object]:
    return lambda lab: lab.on_each(REFLECTORS, lambda name: lab.twin(verb, name))


def verb(*words: str) -> Callable[[Lab], object]:
    return lambda lab: lab.twin(*words)


SCENARIOS: tuple[tuple[Event, ...], ...] = (
    (
        Event("silent cut of a path at a hypervisor", verb("cut", "hv2", "a"), 3, until_whole=False),
        Event("that path healed", verb("heal", "hv2", "a"), 8),
    ),
    (
        Event("carrier loss at a hypervisor", verb("carrier", "hv2", "b", "down"), 3, until_whole=False),
        Event("the carrier back", verb("carrier", "hv2", "b", "up"), 8),
    ),
    (Event("BIRD killed on a hypervisor", verb("kill", "hv2", "bird"), 8),),
    (Event("BIRD restarted on a hypervisor", verb("exec", "hv2", "--", "systemctl", "restart", "bird"), 8),),
    (
        Event(
            "configurations loaded again",
            verb("exec", "hv2", "--", "sh", "-c", "systemctl reload bird && networkctl reload"),
            4,
        ),
    ),
    (Event("BIRD killed on another hypervisor", verb("kill", "hv3", "bird"), 8),),
    (Event("site.yml again", lambda lab: lab.playbook("site.yml"), RUN_SECONDS),),
    (
        Event("another hypervisor without power", verb("crash", "hv3"), 5, until_whole=False),
        Event("that hypervisor back", verb("boot", "hv3"), 15),
    ),
)
OF_REFLECTORS: tuple[tuple[Event, ...], ...] = (
    (Event("BIRD killed on a reflector", verb("kill", "rr1", "bird"), 8),),
    (
        Event("a reflector without power", verb("crash", "rr1"), 5, until_whole=False),
        Event("the reflector back", verb("boot", "rr1"), 15),
    ),
    (
        Event(
            f"both reflectors without power for {DEAD_SECONDS} s",
            each_reflector("crash"),
            DEAD_SECONDS,
            until_whole=False,
        ),
        Event("both reflectors back", each_reflector("boot"), 15),
    ),
)
"""Events that a mesh does not have."""


def run_event(lab: Lab, event: Event) -> dict[int, dict[str, float]]:
    """Cause an event under traffic; return the figures of the probes by family."""
    with lab.traffic(*FLOWS, seconds=event.seconds) as traffic:
        event.action(lab)
    if event.until_whole:
        lab.wait_until_whole()
    return {flows.family: result for flows, result in traffic.results.items()}


def measure(
    lab: Lab, repetitions: int, wanted: str
) -> Iterator[tuple[str, list[dict[int, dict[str, float]]]]]:
    for scenario in (*SCENARIOS, *(OF_REFLECTORS if REFLECTORS else ())):
        if not any(wanted in event.name for event in scenario):
            continue
        seen: dict[str, list[dict[int, dict[str, float]]]] = {event.name: [] for event in scenario}
        for _ in range(repetitions):
            lab.wait_until_whole()
            for event in scenario:
                seen[event.name].append(run_event(lab, event))
        yield from seen.items()


def row(name: str, runs: list[dict[int, dict[str, float]]]) -> str:
    """Return a table row: minimum, median and maximum of the worst flow by family, and lost packets."""
    cells = []
    for family in (4, 6):
        worst = sorted(run[family]["worst_outage_ms"] for run in runs)
        lost = sum(run[family]["lost"] for run in runs)
        spread = f"{worst[0]:.0f}/{statistics.median(worst):.0f}/{worst[-1]:.0f}" if lost else "0"
        cells.append(spread)
    sent = sum(run[family]["sent"] for run in runs for family in run)
    lost = sum(run[family]["lost"] for run in runs for family in run)
    return f"| {name} | {cells[0]} | {cells[1]} | {lost:.0f} of {sent:.0f} |"


def main() -> None:
    """Measure the events, print a table and write the figures to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="lab", help="the twin (default: lab)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--event", default="", help="only events with this in their name")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    lab = Lab(options.name)
    lab.wait_until_whole()
    figures: dict[str, Any] = {
        "bfd_detection_ms": lab.detection_ms(),
        "repetitions": options.repetitions,
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "events": {},
    }
    print(f"BFD detects in {figures['bfd_detection_ms']:.0f} ms. Worst of 32 flows in ms, min/med/max.\n")
    print("| event | v4 | v6 | packets lost |\n|---|---|---|---|")
    for name, runs in measure(lab, options.repetitions, options.event):
        print(row(name, runs), flush=True)
        figures["events"][name] = runs
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Measures an unchanged site.yml relative to `ansible all -m ping`: the limit is 15 times as long.

    make lab && make bench-run               # or: python bench/run_time.py --name TWIN --repetitions 3

Prints a table and writes build/bench/run_time.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), *(str(REPOSITORY / "tests" / part) for part in ("fabric", "golden"))]

from lab import Lab  # noqa: E402 - after the path is set

OUTPUT = REPOSITORY / "build" / "bench" / "run_time.json"
LIMIT = 15


def main() -> None:
    """Measure both alternately, so that other load of the machine affects both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="lab", help="the twin (default: lab)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    lab = Lab(options.name)
    lab.wait_until_whole()
    lab.playbook("site.yml")  # It makes all outstanding changes and opens the connections.
    seconds: dict[str, list[float]] = {"ping": [], "site.yml": []}
    for _ in range(options.repetitions):
        seconds["ping"].append(lab.ping().seconds)
        run = lab.playbook("site.yml")
        if run.changed_hosts():
            sys.exit(f"a repeated site.yml has made changes: {sorted(run.changes())}")
        seconds["site.yml"].append(run.seconds)
    ratio = min(seconds["site.yml"]) / min(seconds["ping"])
    print("| what | seconds, min/med/max |\n|---|---|")
    for what, taken in seconds.items():
        print(f"| {what} | {min(taken):.1f}/{statistics.median(taken):.1f}/{max(taken):.1f} |")
    print(f"\nAn unchanged site.yml takes {ratio:.1f} times as long as a ping of all hosts (limit: {LIMIT}).")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"seconds": seconds, "ratio": ratio}, indent=2) + "\n")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()

"""Measures one hypervisor with policy rules and one with VRFs, in pairs, on a machine whose kernel has VRFs.

Prints a line of JSON for each round: the case, and the packets per second of each.  ``vrf.py`` starts it and reads the
lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from hypervisor import FAMILIES, GUEST, INTERNET, ROUTER, TARGETS, Hypervisor, all_built

ORDER = ("rules", "vrf", "vrf", "rules")
"""The order in a round: a load that grows or shrinks steadily affects both equally."""
WAYS = {"from a guest": GUEST, "to a guest": INTERNET}


def cases(hypervisors: dict[str, Hypervisor], filters: list[str]) -> Iterator[tuple[str, str, str]]:
    """Load each packet filter, and yield it with each family and way; ``none`` is no packet filter."""
    for name in filters:
        for hypervisor in hypervisors.values():
            if name == "none":
                hypervisor.run(ROUTER, "nft", "flush", "ruleset")
            else:
                hypervisor.load(hypervisor.directory / f"{name}.conf")
        for family in FAMILIES:
            for way in WAYS:
                yield name, family, way


def main() -> None:
    """Measure all rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--filters", nargs="+", required=True)
    options = parser.parse_args()
    hypervisors = {name: Hypervisor(name, options.directory / name) for name in dict.fromkeys(ORDER)}
    with all_built(hypervisors.values()):
        for hypervisor in hypervisors.values():
            hypervisor.warm_up()
        for number in range(options.rounds):
            for packet_filter, family, way in cases(hypervisors, options.filters):
                rates: dict[str, list[float]] = {name: [] for name in hypervisors}
                for name in ORDER:
                    one = hypervisors[name]
                    target = TARGETS[family].format(8) if WAYS[way] == GUEST else one.address(family)
                    rates[name].append(one.rate(WAYS[way], [target], options.seconds, options.burst))
                line = {"round": number, "filter": packet_filter, "family": family, "way": way, "rates": rates}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""Flows between two hosts use all paths."""

from __future__ import annotations

import pytest
from lab import Flows, Lab

pytestmark = pytest.mark.fabric

PAIRS = [("vm1", "vm3"), ("vm4", "internet")]


def sent_on_each_path(lab: Lab, machine: str) -> list[int]:
    """The packets that a machine has sent on path a and on path b."""
    counters = (f"/sys/class/net/{path}-public/statistics/tx_packets" for path in "ab")
    return [int(count) for count in lab.run(machine, f"cat {' '.join(counters)}").split()]


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_flows_of_a_pair_are_spread_over_both_paths(lab: Lab, source: str, target: str, family: int) -> None:
    # Of 32 flows, fewer than 4 on a path happen once in 200,000 times.
    machines = {"vm1": "hv1", "vm3": "hv2", "vm4": "hv3", "internet": "internet"}
    ends = machines[source], machines[target]
    before = lab.on_each(ends, lambda machine: sent_on_each_path(lab, machine))
    wanted = Flows(
        source, {4: "192.0.2.8", 6: "2001:db8:8888::8"}[family] if target == "internet" else target, family
    )
    with lab.traffic(wanted, seconds=1) as traffic:
        pass
    after = lab.on_each(ends, lambda machine: sent_on_each_path(lab, machine))
    assert traffic.lost() == {}
    sent = traffic.results[wanted]["sent"]
    for machine in ends:
        shares = [(now - then) / sent for now, then in zip(after[machine], before[machine], strict=True)]
        assert min(shares) >= 4 / 32, f"{machine} sent {shares} of the packets on paths a and b"

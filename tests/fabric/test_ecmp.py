"""Flows between two hosts use all paths, unless ECMP is switched off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
from lab import INTERNET, Flows, Lab, both_families, wait_for

pytestmark = pytest.mark.fabric

PAIRS = [("vm1", "vm3"), ("vm4", "internet")]


def sent_on_each_path(lab: Lab, machine: str) -> list[int]:
    """Return the number of packets that a machine has sent on path a and on path b."""
    counters = (f"/sys/class/net/{path}-public/statistics/tx_packets" for path in "ab")
    return [int(count) for count in lab.run(machine, f"cat {' '.join(counters)}").split()]


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_flows_of_a_pair_are_spread_over_both_paths(lab: Lab, source: str, target: str, family: int) -> None:
    # With 32 flows, a path has fewer than 4 of them once in 200,000 times.
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


@pytest.fixture
def preferring(standing: Lab) -> Iterator[Lab]:
    """Yield the lab with one next hop for the public default route and all routes of the private domain."""
    ecmp = {"public": "without_default", "private": "none"}
    run = ("site.yml", "-e", json.dumps({"l3hv_ecmp": ecmp}))
    flows = (*both_families("vm1", "vm3"), *both_families("vm4", "vm2"))
    standing.wait_until_whole()
    try:
        with standing.steady_traffic(*flows) as traffic:
            assert standing.playbook(*run).changed_hosts()
        assert traffic.lost() == {}
        assert standing.playbook(*run).changed_hosts() == {}
        yield standing
    finally:
        standing.playbook("site.yml")
    standing.wait_until_whole()


def uses_only(lab: Lab, path: str, family: int) -> bool:
    """Return whether the default route of hv1 leads over one path alone."""
    return default_paths(lab, "hv1", family) == {path}


def default_paths(lab: Lab, machine: str, family: int) -> set[str]:
    """Return the paths of a machine's default route."""
    shown = lab.run(machine, f"ip -{family} route show table public default proto bird")
    return {path for path in "ab" if f"dev {path}-public" in shown}


@pytest.mark.matrix
def test_routes_with_one_next_hop_fail_over_as_fast(preferring: Lab) -> None:
    """Both families fail over in BFD's 300 ms, because any fresh route wins over a stale one (RFC 9494).

    The run has verified the number of next hops before.
    """
    lab = preferring
    for family, guest in ((4, "203.0.113.3"), (6, "2001:db8:cb00:7103::/64")):
        assert default_paths(lab, "hv1", family) == {"a"}
        assert lab.routes("hv1", family)[guest] == 2
    assert set(lab.routes("hv1", 4, "private").values()) == {1}
    assert set(lab.routes("hv1", 4, "local-out").values()) == {1}
    try:
        with lab.traffic(*(Flows("vm1", "internet", family) for family in INTERNET), seconds=5) as traffic:
            lab.twin("cut", "hv1", "a")
        for family in INTERNET:
            assert default_paths(lab, "hv1", family) == {"b"}
    finally:
        lab.twin("heal", "hv1", "a")
    print(traffic.outages_ms())
    assert max(traffic.outages_ms().values()) <= 1.2 * lab.detection_ms() + 100 + traffic.allowance_ms
    for family in INTERNET:
        wait_for("the first path", partial(uses_only, lab, "a", family))

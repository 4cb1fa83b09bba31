"""Changes on a machine by hand, which the next run reverts and reports as changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab import Lab, Run
from machines import HYPERVISORS

pytestmark = pytest.mark.fabric

LOOK = (
    "for link in a-public a-private b-public b-private $(cd /sys/class/net; ls -d vm*); do"
    " ip -oneline link show dev $link | grep -oE '^[0-9]+: [^ ]+|mtu [0-9]+|link/ether [^ ]+';"
    " ip -oneline address show dev $link scope global | awk '{print $4}' | sort; done;"
    " ip -oneline address show dev lo | awk '{print $4}' | sort"
)
BY_HAND = {
    "hv1": (
        "ip address delete 198.51.100.1/25 dev a-public",
        "ip address add 192.0.2.77/32 dev b-public",
        "ip -6 address add 2001:db8:77::77/128 dev b-public",
    ),
    "hv2": (
        "ip link set dev b-private mtu 1400",
        "ip -6 address delete 2001:db8:c633:6401::2/120 dev b-public",
        "ip link set dev vm3 mtu 1400",
    ),
    "hv3": (
        "ip address delete 172.22.2.3/32 dev lo",
        "ip link set dev vm4 address 02:00:00:00:00:99",
        "ip address delete 203.0.113.254/32 dev vm4",
    ),
}


@dataclass(frozen=True)
class Drift:
    """The state of the machines before the changes by hand, after them, and after a run."""

    before: dict[str, str]
    by_hand: dict[str, str]
    run: Run
    after: dict[str, str]


def look(lab: Lab) -> dict[str, str]:
    return lab.on_each(HYPERVISORS, lambda machine: lab.run(machine, LOOK))


@pytest.fixture(scope="module")
def drift(standing: Lab) -> Iterator[Drift]:
    before = look(standing)
    for machine, commands in BY_HAND.items():
        standing.run(machine, "; ".join(commands))
    by_hand = look(standing)
    run = standing.playbook("site.yml")
    yield Drift(before, by_hand, run, look(standing))
    standing.playbook("site.yml")
    standing.wait_until_whole()


def test_the_run_reverts_changes_by_hand(drift: Drift) -> None:
    assert all(drift.by_hand[machine] != drift.before[machine] for machine in BY_HAND)
    assert drift.after == drift.before


def test_reverted_hosts_count_as_changed(drift: Drift) -> None:
    assert set(drift.run.changed_hosts()) == set(BY_HAND)


def test_the_next_run_has_nothing_to_do(drift: Drift, lab: Lab) -> None:
    assert lab.playbook("site.yml").changed_hosts() == {}

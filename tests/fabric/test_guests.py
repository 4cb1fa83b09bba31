"""Guests that start and stop without an Ansible run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from addresses import address_of, advertised_prefix, is_in_block, shown_prefix
from lab import INTERNET, Lab, both_families, wait_for

pytestmark = pytest.mark.fabric

PREFIXES = {family: shown_prefix("vm2", family) for family in INTERNET}
PORT = "-e /sys/class/net/vm2"
BY_ITSELF = pytest.mark.skipif(
    is_in_block("vm2"), reason="vm2's hypervisor advertises its block instead of vm2"
)
IN_A_BLOCK = pytest.mark.skipif(not is_in_block("vm2"), reason="vm2's hypervisor advertises vm2 by itself")


def shown(family: int, table: str = "public") -> str:
    """Return a shell condition that is true while vm2's prefix is in a table of a machine."""
    return f"ip -{family} route show table {table} {PREFIXES[family]} | grep -q ."


def shown_delays(delays: dict[str, float]) -> str:
    return ", ".join(f"{family} {delay:.3f}" for family, delay in delays.items())


@pytest.fixture
def with_vm2(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.twin("plug", "vm2")


@BY_ITSELF
def test_a_guest_that_stops_is_withdrawn_within_a_second(with_vm2: Lab, figures: dict[str, str]) -> None:
    lab = with_vm2
    gone = lab.moment("hv1", f"[ ! {PORT} ]")
    withdrawn = {family: lab.moment("hv3", f"! {shown(family)}") for family in PREFIXES}
    with lab.steady_traffic(*both_families("vm1", "vm3")) as neighbors:
        lab.twin("unplug", "vm2")
    delays = {f"IPv{family}": moment.result() - gone.result() for family, moment in withdrawn.items()}
    figures["withdrawal of a stopped guest, s"] = shown_delays(delays)
    assert max(delays.values()) < 1 + neighbors.allowance_ms / 1000, delays
    assert neighbors.lost() == {}


@BY_ITSELF
def test_a_guest_that_starts_is_announced_within_a_second(with_vm2: Lab, figures: dict[str, str]) -> None:
    lab = with_vm2
    lab.twin("unplug", "vm2")
    wait_for("the withdrawal", lambda: PREFIXES[4] not in lab.routes("hv3", 4), 10)
    there = lab.moment("hv1", f"[ {PORT} ]")
    announced = {family: lab.moment("hv3", shown(family)) for family in PREFIXES}
    with lab.steady_traffic(*both_families("vm1", "vm3")) as neighbors:
        lab.twin("plug", "vm2")
    delays = {f"IPv{family}": moment.result() - there.result() for family, moment in announced.items()}
    figures["announcement of a started guest, s"] = shown_delays(delays)
    assert max(delays.values()) < 1 + neighbors.allowance_ms / 1000, delays
    assert neighbors.lost() == {}
    wait_for("its lease and its /64", lambda: lab.has_addresses("vm2"), 15)
    assert lab.reached("vm2", INTERNET.values()) == set(INTERNET.values())


@IN_A_BLOCK
def test_a_guest_of_a_block_stops_and_starts_without_a_withdrawal(with_vm2: Lab) -> None:
    """Its hypervisor drops packets to it while it is stopped, and the neighbour receives no change."""
    lab = with_vm2
    blocks = [advertised_prefix("vm2", family) for family in PREFIXES]
    lab.run(
        "hv3",
        "rm -f /run/events; (timeout 60 ip monitor route > /run/events 2>&1 & echo $! > /run/events.pid)",
    )
    try:
        with lab.steady_traffic(*both_families("vm1", "vm3")) as neighbors:
            lab.twin("unplug", "vm2")
            assert lab.reached("vm4", [address_of("vm2", 4)]) == set()
            lab.twin("plug", "vm2")
            wait_for("its lease and its /64", lambda: lab.has_addresses("vm2"), 15)
    finally:
        lab.run("hv3", "kill $(cat /run/events.pid) || true")
    wait_for("its answer", lambda: lab.reached("vm4", [address_of("vm2", 4)]), 15)
    assert neighbors.lost() == {}
    events = lab.run("hv3", "cat /run/events")
    assert [block for block in blocks if block in events] == []


def test_the_routes_of_a_stopped_guest_are_in_no_table(with_vm2: Lab) -> None:
    lab = with_vm2
    lab.twin("unplug", "vm2")

    def left() -> str:
        everywhere = ("hv1", "hv2", "hv3", "internet")
        tables = lab.on_each(
            everywhere, lambda name: lab.run(name, "ip -4 route show table all; ip -6 route show table all")
        )
        return "\n".join(
            f"{name}: {line}"
            for name, lines in tables.items()
            for line in lines.splitlines()
            if "vm2" in line or any(f"{prefix} " in line for prefix in PREFIXES.values())
        )

    wait_for("routes to go", lambda: not left(), 3)
    assert "vm2" not in lab.run("hv1", "ip -4 rule; ip -6 rule")

"""Guests that start and stop without an Ansible run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from addresses import shown_prefix
from lab import INTERNET, Lab, both_families, wait_for

pytestmark = pytest.mark.fabric

PREFIXES = {family: shown_prefix("vm2", family) for family in INTERNET}
PORT = "-e /sys/class/net/vm2"


def shown(family: int, table: str = "public") -> str:
    """Return a shell condition that is true while vm2's prefix is in a table of a machine."""
    return f"ip -{family} route show table {table} {PREFIXES[family]} | grep -q ."


def shown_delays(delays: dict[str, float]) -> str:
    return ", ".join(f"{family} {delay:.3f}" for family, delay in delays.items())


@pytest.fixture
def with_vm2(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.twin("plug", "vm2")


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

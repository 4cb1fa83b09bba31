"""A hypervisor originates the routes of a guest while its port has a carrier."""

from __future__ import annotations

import time

import pytest
from addresses import anycast_prefix, is_in_block, prefix_of, shown_prefix
from lab import ANYCAST, Lab, wait_for
from machines import addresses

pytestmark = pytest.mark.fabric

GUEST, HOME, ELSEWHERE = "vm1", "hv1", "hv2"
THIRD = "hv3"
"""A hypervisor that is no holder of the guest's anycast prefix."""
WITHDRAWN_MS = 1000
RESTORED_MS = 1000


def has_route(family: int, prefix: str, options: str = "", line: str = ".") -> str:
    return f"ip -{family} route show table public {prefix} {options} | grep -q {line}"


def route_of_the_guest(family: int) -> tuple[str, str]:
    """Return a hypervisor, and a shell condition that is true while it has a route that the guest brings.

    The block of a guest stays advertised without the guest: there its anycast prefix leads to its hypervisor.
    """
    if not is_in_block(GUEST):
        return ELSEWHERE, has_route(family, prefix_of(GUEST, family))
    via = " ".join(f"-e 'via {address} '" for address in sorted(addresses(HOME)))
    return THIRD, has_route(family, anycast_prefix(family), line=via)


@pytest.mark.parametrize("family", [4, 6])
def test_a_guest_that_loses_its_carrier_is_withdrawn_and_comes_back(
    restarted: Lab, figures: dict[str, str], family: int
) -> None:
    lab = restarted
    elsewhere, route = route_of_the_guest(family)
    # The route to the other holder, over the paths.
    anycast = has_route(family, anycast_prefix(family), "proto bird")
    lab.run_as_guest(GUEST, "ip link set eth0 up")
    gone = lab.moment(elsewhere, f"! {route}")
    other = lab.moment(HOME, anycast)
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    lab.run_as_guest(GUEST, "ip link set eth0 down")
    try:
        withdrawn, taken_over = 1000 * (gone.result() - began), 1000 * (other.result() - began)
        back = lab.moment(elsewhere, route)
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
    finally:
        lab.run_as_guest(GUEST, "ip link set eth0 up")
    restored = 1000 * (back.result() - began)
    figures[f"carrier of a guest, IPv{family}"] = (
        f"withdrawn {withdrawn:.0f} ms, anycast elsewhere {taken_over:.0f} ms, restored {restored:.0f} ms"
    )
    # /proc/uptime has hundredths of a second, rounded down.
    assert -10 < withdrawn < WITHDRAWN_MS
    assert -10 < taken_over < WITHDRAWN_MS
    assert -10 < restored < RESTORED_MS
    wait_for(
        "the hypervisor's own holder", lambda: not _shows(lab, HOME, family, ANYCAST[family], "proto bird")
    )


def _shows(lab: Lab, machine: str, family: int, prefix: str, options: str) -> str:
    return lab.run(machine, f"ip -{family} route show table public root {prefix} {options}")


def test_a_carrier_that_flaps_is_not_followed(restarted: Lab) -> None:
    """Ten short losses of carrier: no other hypervisor receives a withdrawal."""
    lab = restarted
    lab.run(
        ELSEWHERE,
        "rm -f /run/events; (timeout 30 ip monitor route > /run/events 2>&1 & echo $! > /run/events.pid)",
    )
    try:
        lab.run_as_guest(
            GUEST,
            "for n in 1 2 3 4 5 6 7 8 9 10; do ip link set eth0 down; ip link set eth0 up; done",
        )
        # The monitor prints this later change after all earlier ones.
        lab.run(ELSEWHERE, "ip route add blackhole 192.0.2.99 table 90")
        wait_for("the last event", lambda: "192.0.2.99" in lab.run(ELSEWHERE, "cat /run/events"))
    finally:
        lab.run(
            ELSEWHERE,
            "ip route delete blackhole 192.0.2.99 table 90; kill $(cat /run/events.pid) || true",
        )
    prefixes = [shown_prefix(GUEST, family) for family in (4, 6)]
    events = lab.run(ELSEWHERE, "cat /run/events").splitlines()
    assert [line for line in events if any(f"{shown} " in line for shown in prefixes)] == []

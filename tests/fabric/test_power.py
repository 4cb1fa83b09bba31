"""Machines that lose power or reboot recover without a run, and start their units in the right order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import INTERNET, Lab, both_families, wait_for
from machines import HYPERVISORS

from l3hv.twin import TwinError

pytestmark = pytest.mark.fabric


def kernel_state(lab: Lab, machine: str) -> dict[str, str]:
    """Return the state of the kernel that must exist before BIRD advertises routes."""
    return {
        "rules": lab.run(machine, "ip -4 rule; ip -6 rule"),
        "last resorts": lab.run(
            machine,
            "for f in 4 6; do ip -$f route show table all type blackhole; "
            "ip -$f route show table all type unreachable; done | grep 4294967294 | sort",
        ),
        "settings": lab.run(
            machine,
            "sysctl net.ipv4.fib_multipath_hash_policy net.ipv6.fib_multipath_hash_policy "
            "net.ipv4.conf.a-public.forwarding net.ipv4.conf.b-public.forwarding "
            "net.ipv6.conf.all.forwarding net.ipv4.conf.all.arp_ignore net.ipv4.icmp_echo_ignore_all",
        ),
        "addresses": lab.run(
            machine,
            "for i in lo a-public b-public a-private b-private; do ip -brief address show dev $i; done "
            "| sed 's/@[^ ]*//'",
        ),
    }


def started_us(lab: Lab, machine: str, unit: str, event: str = "ActiveEnter") -> int:
    """Return the start of a unit, in microseconds since its machine's boot."""
    return int(lab.run(machine, f"systemctl show --value -p {event}TimestampMonotonic {unit}"))


def assert_its_guests_are_back(lab: Lab) -> None:
    def answers() -> bool:
        if not lab.has_addresses("vm4"):
            return False
        addresses = {lab.guest_address("vm4", family) for family in (4, 6)}
        return lab.reached("vm1", addresses, patience=1) == addresses

    wait_for("hv3's session with each reflector", lambda: lab.established("hv3"), 20)
    wait_for("routes to hv3's guest", answers, 20)
    assert lab.reached("vm4", INTERNET.values()) == set(INTERNET.values())


def assert_right_order(lab: Lab) -> None:
    daemon = started_us(lab, "hv3", "bird", "InactiveExit")
    for earlier in ("systemd-sysctl", "l3hv-tables", "systemd-networkd"):
        assert 0 < started_us(lab, "hv3", earlier) <= daemon, f"{earlier} was not ready when bird started"


@pytest.fixture
def hardened(lab: Lab) -> Iterator[Lab]:
    """Yield the lab with a file on hv3 whose settings would cut guests off at the next boot."""
    file = "/etc/sysctl.d/99-hardening.conf"
    settings = "net.ipv4.conf.all.arp_ignore=2\\nnet.ipv4.icmp_echo_ignore_all=1\\n"
    lab.run("hv3", f"printf '{settings}' > {file}")
    yield lab
    lab.run("hv3", f"rm {file}")


def test_a_hypervisor_loses_power_and_comes_back(hardened: Lab) -> None:
    lab = hardened
    state = kernel_state(lab, "hv3")
    with lab.steady_traffic(*both_families("vm1", "vm3")) as others:
        lab.twin("crash", "hv3")
    assert others.lost() == {}, "flows of other guests lost packets"
    lab.twin("boot", "hv3")
    wait_for("the first session of hv3", lambda: "Established" in str(lab.protocols("hv3")), 20)
    assert kernel_state(lab, "hv3") == state, "hv3 advertised routes before its data plane was ready"
    assert_its_guests_are_back(lab)
    assert_right_order(lab)


def test_no_route_stays_on_a_path_that_is_lost_while_a_hypervisor_is_dead(lab: Lab) -> None:
    """Routes that reflectors advertise as stale leave a dead path too (docs/decisions.md)."""

    def has_stale_routes() -> bool:
        return "(90" in lab.run("hv1", "birdc show route table public4")

    def left() -> bool:
        shown = (lab.run("hv1", f"ip -{family} route show table public proto bird") for family in (4, 6))
        return "a-public" not in "".join(shown)

    lab.twin("crash", "hv3")
    try:
        wait_for("stale routes", has_stale_routes, 20)
        lab.twin("cut", "hv1", "a")
        wait_for("all routes to leave the dead path", left, 10)
    finally:
        lab.twin("heal", "hv1", "a")
        lab.twin("boot", "hv3")
        lab.wait_until_whole()


def test_a_hypervisor_reboots(lab: Lab) -> None:
    def booted() -> str:
        try:
            return lab.run("hv3", "systemctl show --value --property=FinishTimestampMonotonic")
        except (AssertionError, TwinError):
            return ""  # hv3 is off, or has just begun to boot.

    before = booted()
    lab.run("hv3", "systemctl --no-block reboot")
    wait_for("the reboot", lambda: booted() not in ("", "0\n", before), 30)
    assert_its_guests_are_back(lab)
    assert_right_order(lab)


def test_no_machine_has_a_failed_unit(lab: Lab) -> None:
    failed = lab.on_each(HYPERVISORS, lambda name: lab.run(name, "systemctl --failed --plain --no-legend"))
    assert not any(failed.values()), failed

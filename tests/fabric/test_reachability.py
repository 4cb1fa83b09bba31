"""Reachability between guests, hypervisors and the Internet, in both families."""

from __future__ import annotations

import pytest
from addresses import address_of
from lab import ANYCAST, INTERNET, TRANSPARENT, Lab
from machines import GUESTS, HYPERVISORS, LOOPBACKS

pytestmark = pytest.mark.fabric

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@FAMILIES
@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_reaches_all_guests_and_the_internet(lab: Lab, guest: str, family: int) -> None:
    expected = {lab.guest_address(other, family) for other in GUESTS if other != guest}
    expected |= {INTERNET[family], ANYCAST[family]}
    if family == 4 and guest != "vm4":
        expected.add(TRANSPARENT)
    assert lab.reached(guest, expected) == expected


@FAMILIES
def test_the_internet_reaches_all_guests(lab: Lab, family: int) -> None:
    expected = {lab.guest_address(guest, family) for guest in GUESTS} | {ANYCAST[family]}
    if family == 4:
        expected.add(TRANSPARENT)
    assert lab.reached("internet", expected) == expected


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_has_the_addresses_of_the_inventory(lab: Lab, guest: str) -> None:
    assert {address_of(guest, 4), address_of(guest, 6)} <= set(lab.guest_addresses(guest))


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_a_hypervisor_reaches_its_guests_and_other_hypervisors(lab: Lab, hypervisor: str) -> None:
    guests = {lab.guest_address(guest, 4) for guest, place in GUESTS.items() if place == hypervisor}
    expected = guests | {LOOPBACKS[other] for other in HYPERVISORS if other != hypervisor}
    assert lab.reached(hypervisor, expected) == expected


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_a_hypervisor_sends_to_other_hypervisors_from_its_loopback(lab: Lab, hypervisor: str) -> None:
    for other, loopback in LOOPBACKS.items():
        if other != hypervisor:
            (route,) = lab.read_json(hypervisor, f"ip -json route get {loopback}")
            assert route["prefsrc"] == LOOPBACKS[hypervisor]
            assert route["dev"].endswith("-private")


def test_a_hypervisor_does_not_use_the_public_default_route(lab: Lab) -> None:
    assert lab.reached("hv1", [INTERNET[4]], patience=1) == set()


def test_a_public_guest_reaches_no_private_address(lab: Lab) -> None:
    # Addresses of its own hypervisor are an exception: all tables use local routes (docs/verification.md).
    loopbacks = [address for hypervisor, address in LOOPBACKS.items() if hypervisor != GUESTS["vm1"]]
    uplinks = [f"172.22.15.{number}" for number in (2, 3, 126, 130, 131, 254)]
    assert lab.reached("vm1", [*loopbacks, *uplinks], patience=1) == set()


def test_packets_with_a_forged_source_address_are_dropped(lab: Lab) -> None:
    def dropped() -> int:
        shown = lab.read_json("hv1", "nft --json list counter inet l3hv source")
        return next(entry["counter"]["packets"] for entry in shown["nftables"] if "counter" in entry)

    before, stolen = dropped(), lab.guest_address("vm4", 4)
    lab.run_as_guest("vm2", f"ip address add {stolen}/32 dev lo")
    try:
        ping = f"busybox ping -c 3 -i 0.2 -W 1 -I {stolen} {INTERNET[4]} || true"
        assert "0 packets received" in lab.run_as_guest("vm2", ping)
    finally:
        lab.run_as_guest("vm2", f"ip address del {stolen}/32 dev lo")
    assert dropped() - before >= 3

"""Guests that accept packets only from some senders (allowed_sources, port_isolation)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from changed_intents import copy_of, replace
from lab import REPOSITORY, Lab

pytestmark = pytest.mark.fabric

VM2 = '  - name: vm2\n    interface: vm2\n    mac: "50:54:33:00:00:09"\n'
VM1_AND_VM2 = ("vm1", "vm2")
SMALL_MTU = 1300
SEND_UNTIL_TOO_LONG = """
import errno, socket, sys, time
version6 = ":" in sys.argv[1]
with socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_DGRAM) as wire:
    # IPV6_MTU_DISCOVER or IP_MTU_DISCOVER: never fragment (ip(7), ipv6(7))
    wire.setsockopt(*((41, 23, 2) if version6 else (0, 10, 2)))
    wire.connect((sys.argv[1], 4000))
    for _ in range(30):
        try:
            wire.send(bytes(1400))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                print("too long")
                break
        time.sleep(0.1)
"""


@pytest.fixture(scope="module", params=["allowed_sources", "port_isolation"])
def condition(
    standing: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Apply one of the two conditions to vm2, and remove it afterwards."""
    words = {
        "allowed_sources": "allowed_sources: [203.0.113.3, '2001:db8:cb00:7103::/64']",
        "port_isolation": "port_isolation: true",
    }[request.param]
    copy = copy_of(REPOSITORY / "inventories" / "lab", tmp_path_factory.mktemp(request.param))
    replace(copy / "host_vars" / "hv1.yml", VM2, f"{VM2}    {words}\n")
    run = ("site.yml", "--limit", "hv1", "--tags", "packet_filter")
    standing.wait_until_whole()
    standing.playbook(*run, inventory=copy)
    try:
        yield request.param
    finally:
        standing.playbook(*run)


def reach(lab: Lab, sources: tuple[str, ...], targets: tuple[str, ...]) -> set[tuple[str, str, int]]:
    """Return (source, target, family) for each guest of `targets` that answers a ping of `sources`."""
    found = set()
    for source in sources:
        addresses = {
            lab.guest_address(target, family): (source, target, family)
            for target in targets
            if target != source
            for family in (4, 6)
        }
        found |= {addresses[address] for address in lab.reached(source, addresses, patience=1)}
    return found


def test_only_permitted_senders_reach_a_guest(lab: Lab, condition: str) -> None:
    guests = ("vm1", "vm2", "vm3", "vm4")
    everything = {
        (source, target, family)
        for source in guests
        for target in guests
        for family in (4, 6)
        if source != target
    }
    if condition == "port_isolation":
        expected = {one for one in everything if {*one[:2]} != {*VM1_AND_VM2}}
    else:  # An answer is also a packet from another guest.
        expected = {one for one in everything if "vm2" not in one[:2] or "vm3" in one[:2]}
    assert reach(lab, guests, guests) == expected


@pytest.fixture
def narrow(restarted: Lab) -> Iterator[Lab]:
    """Yield the lab with a small MTU on the port of vm3 on hv2."""
    restarted.run("hv2", f"ip link set vm3 mtu {SMALL_MTU}")
    try:
        yield restarted
    finally:
        restarted.run("hv2", "ip link set vm3 mtu 1500")


@pytest.mark.usefixtures("condition")
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_restricted_guest_learns_the_path_mtu_to_permitted_senders(narrow: Lab, family: int) -> None:
    address = narrow.guest_address("vm3", family)
    assert narrow.run_as_guest("vm2", f"python3 -c '{SEND_UNTIL_TOO_LONG}' {address}") == "too long\n"

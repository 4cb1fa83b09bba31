"""Guests that share a /64: neighbour discovery through the proxy of their hypervisors."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from types import ModuleType

import pytest
from changed_intents import copy_of, replace
from images import ROOT, loaded
from lab import INTERNET, Flows, Lab, booted, both_families, converged_with, wait_for

from l3hv.twin.network import entered
from l3hv.twin.state import Twin

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

PROXY: ModuleType = loaded(ROOT / "roles/guest_services/files/ndp-proxy")
INVENTORY = ROOT / "inventories" / "ndp-proxy"
PREFIX = "2001:db8:cb00:7100"
ADDRESSES = {
    "vm1": ("203.0.113.1", f"{PREFIX}:5254:33ff:fe00:7"),
    "vm2": ("203.0.113.2", f"{PREFIX}:5254:33ff:fe00:9"),
    "vm3": ("203.0.113.3", f"{PREFIX}:5254:33ff:fe00:f"),
    "vm4": ("203.0.113.4", f"{PREFIX}::4"),
}
"""vm1 and vm2 are on hv1. vm4 has its address from the inventory, the others from SLAAC."""
ANYCAST, UNUSED = f"{PREFIX}::10", f"{PREFIX}::99"
TRANSPARENT = "203.0.113.11"
GATEWAY_MAC = "02:6c:33:68:76:01"
MOST_MS = 1000


CONVERGED = converged_with(lambda guest, family: ADDRESSES[guest][family == 6])


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    with booted("ndp", INVENTORY, converged=CONVERGED) as made:
        made.provision()
        made.wait_until_whole(60)
        yield made


def test_guests_reach_each_other_and_the_internet(fabric: Lab) -> None:
    for source, own in ADDRESSES.items():
        assert set(fabric.guest_addresses(source)) == set(own)
        others = {address for guest, both in ADDRESSES.items() for address in both if guest != source}
        others |= {*INTERNET.values(), ANYCAST}
        # The transparent address of vm4 leads vm4's own packets back to it.
        others |= set() if source == "vm4" else {TRANSPARENT}
        assert fabric.reached(source, others) == others, source


def test_the_guests_of_the_prefix_are_neighbours_of_each_other(fabric: Lab) -> None:
    """The /64 is on each guest's link: the guest has an entry for each of the others, with its port's MAC."""
    fabric.reached("vm1", [both[1] for both in ADDRESSES.values()])
    shown = json.loads(fabric.run_as_guest("vm1", "ip -6 -json neighbour show dev eth0"))
    macs = {entry["dst"]: entry.get("lladdr") for entry in shown}
    assert {macs[ADDRESSES[guest][1]] for guest in ("vm2", "vm3", "vm4")} == {GATEWAY_MAC}


# --- solicitations, as a guest sends them ------------------------------------------------------------


@dataclass(frozen=True)
class Advertised:
    """An answer to a solicitation: a neighbour advertisement (RFC 4861, section 4.4)."""

    source: str
    destination: str
    target: str
    mac: str
    is_solicited: bool
    overrides: bool


@dataclass(frozen=True)
class Neighbour:
    """A guest's interface, opened as a packet socket."""

    wire: socket.socket

    def solicit(self, source: str, target: str) -> None:
        """Send one neighbour solicitation to the group of its target."""
        wanted = IPv6Address(target).packed
        group = IPv6Address("ff02::1:ff00:0").packed[:13] + wanted[13:]
        message = b"\x87\0\0\0" + bytes(4) + wanted
        total = PROXY.checksum(IPv6Address(source), IPv6Address(group), message)
        message = message[:2] + total.to_bytes(2, "big") + message[4:]
        header = (6 << 28).to_bytes(4, "big") + len(message).to_bytes(2, "big") + bytes((58, 255))
        packet = header + IPv6Address(source).packed + group + message
        self.wire.sendto(packet, ("eth0", 0x86DD, 0, 0, b"\x33\x33" + group[12:]))

    def answers(self, seconds: float) -> Iterator[Advertised]:
        """Yield the advertisements that arrive within some seconds."""
        deadline = time.monotonic() + seconds
        while select.select([self.wire], [], [], max(0, deadline - time.monotonic()))[0]:
            packet = self.wire.recv(2048)
            if len(packet) < 72 or packet[6] != 58 or packet[40] != 136:
                continue
            message, flags = packet[40:], packet[44]
            assert packet[7] == 255, "a receiver drops it: it could have passed a router"
            source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
            assert PROXY.checksum(source, destination, message[:32]) == 0
            yield Advertised(
                source=str(source),
                destination=str(destination),
                target=str(IPv6Address(message[8:24])),
                mac=message[26:32].hex(":"),
                is_solicited=bool(flags & 0x40),
                overrides=bool(flags & 0x20),
            )

    def answer(self, source: str, target: str, seconds: float = 1) -> Advertised | None:
        """Return the answer to one solicitation, or None if none arrives."""
        self.solicit(source, target)
        return next((found for found in self.answers(seconds) if found.target == target), None)


@contextmanager
def neighbour(fabric: Lab, guest: str) -> Iterator[Neighbour]:
    with entered(Twin(fabric.name, print).guest_namespace(guest)):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    with wire:
        wire.bind(("eth0", 0x86DD))
        yield Neighbour(wire)


@pytest.mark.parametrize("target", ["vm2", "vm3", "vm4"])
def test_a_solicitation_for_another_guest_is_answered_from_the_link(fabric: Lab, target: str) -> None:
    """OpenBSD drops an answer whose source is in no prefix of its interface: fe80::1 is in fe80::/64."""
    own, wanted = ADDRESSES["vm1"][1], ADDRESSES[target][1]
    with neighbour(fabric, "vm1") as guest:
        found = wait_for("an answer", lambda: guest.answer(own, wanted), 5)
    assert found == Advertised("fe80::1", own, wanted, GATEWAY_MAC, is_solicited=True, overrides=False)


def test_a_solicitation_from_a_link_local_address_is_answered(fabric: Lab) -> None:
    with neighbour(fabric, "vm1") as guest:
        found = guest.answer("fe80::5254:33ff:fe00:7", ADDRESSES["vm3"][1])
    assert found is not None
    assert found.destination == "fe80::5254:33ff:fe00:7"


@pytest.mark.parametrize("source", [ADDRESSES["vm1"][1], "::"], ids=["solicitation", "probe"])
@pytest.mark.parametrize(
    "target",
    [UNUSED, ADDRESSES["vm1"][1], ANYCAST, "2001:db8:cb00:7300::1"],
    ids=["unused", "own", "anycast", "foreign"],
)
def test_other_addresses_get_no_answer(fabric: Lab, source: str, target: str) -> None:
    """No guest has the address, or the guest has it itself: its probe of its own address must succeed."""
    with neighbour(fabric, "vm1") as guest:
        assert guest.answer(source, target) is None
        assert guest.answer(ADDRESSES["vm1"][1], ADDRESSES["vm2"][1]) is not None, (
            "the proxy does not answer at all"
        )


def test_a_probe_of_an_address_of_another_guest_finds_the_duplicate(fabric: Lab) -> None:
    fabric.run_as_guest("vm1", f"ip address add {ADDRESSES['vm4'][1]}/128 dev eth0")
    try:
        shown = "ip -6 -o address show dev eth0 dadfailed"
        wait_for("the duplicate", lambda: ADDRESSES["vm4"][1] in fabric.run_as_guest("vm1", shown), 10)
    finally:
        fabric.run_as_guest("vm1", f"ip address delete {ADDRESSES['vm4'][1]}/128 dev eth0")


# --- floods ---------------------------------------------------------------------------------------------


def test_a_flood_is_limited_and_hurts_no_other_guest(fabric: Lab) -> None:
    """vm1 solicits as fast as it can; vm2, on the same hypervisor, asks for all its neighbours anew."""
    own, target = ADDRESSES["vm1"][1], ADDRESSES["vm3"][1]
    mine = ADDRESSES["vm2"][1]
    others = [ADDRESSES["vm3"][1], ADDRESSES["vm4"][1]]
    seconds, sent, answered, asked = 4.0, 0, 0, 0
    heard: list[str] = []
    with (
        fabric.steady_traffic(*both_families("vm2", "vm3")) as traffic,
        neighbour(fabric, "vm1") as flooder,
        neighbour(fabric, "vm2") as quiet,
    ):
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            for _ in range(500):
                flooder.solicit(own, target)
            sent += 500
            answered += sum(1 for _ in flooder.answers(0))
            quiet.solicit(mine, others[asked % 2])
            asked += 1
            heard += [found.target for found in quiet.answers(0)]
        heard += [found.target for found in quiet.answers(1)]
        answered += sum(1 for _ in flooder.answers(1))
    print(f"\nflood: {sent / seconds:.0f} solicitations a second, {answered} answers in {seconds + 1:.0f} s")
    assert sent > 10 * PROXY.RATE * seconds, "this is no flood"
    assert 0 < answered <= PROXY.BURST + PROXY.RATE * (seconds + 2)
    assert asked < PROXY.BURST + PROXY.RATE * seconds, "the quiet guest has exceeded its own budget"
    assert set(heard) == set(others)
    assert len(heard) >= 0.95 * asked, f"{len(heard)} answers to {asked} solicitations of the quiet guest"
    assert traffic.lost() == {}


# --- addresses that the fabric does not know ---------------------------------------------------------------


def _reaches_from(fabric: Lab, guest: str, source: str) -> bool:
    shown = fabric.run_as_guest(
        guest, f"ping -n -c 2 -W 1 -I {source} {INTERNET[6]} >/dev/null && echo yes || :"
    )
    return bool(shown)


def test_temporary_addresses_do_not_work(fabric: Lab) -> None:
    """RFC 8981: the fabric routes only the address of the inventory, and drops packets from others."""
    settings = "/proc/sys/net/ipv6/conf/eth0/use_tempaddr"
    own = ADDRESSES["vm1"][1]
    try:
        fabric.run_as_guest("vm1", f"echo 2 >{settings}; ip link set eth0 down; ip link set eth0 up")
        temporary = wait_for(
            "a temporary address",
            lambda: next(
                (found for found in fabric.guest_addresses("vm1") if ":" in found and found != own), None
            ),
        )
        wait_for("the own address", lambda: own in fabric.guest_addresses("vm1"))
        wait_for("the Internet", lambda: _reaches_from(fabric, "vm1", own), 20)
        assert temporary is not None
        assert not _reaches_from(fabric, "vm1", temporary)
        # The guest prefers the temporary address, so it reaches nothing until it is told not to use it.
        chosen = json.loads(fabric.run_as_guest("vm1", f"ip -json route get {INTERNET[6]}"))
        assert chosen[0]["prefsrc"] == temporary
    finally:
        fabric.run_as_guest("vm1", f"echo 0 >{settings}")
        fabric.twin("unplug", "vm1")
        fabric.twin("plug", "vm1")
        fabric.wait_until_whole(60)


def test_a_second_guest_with_the_address_is_refused(fabric: Lab, tmp_path: Path) -> None:
    changed = copy_of(INVENTORY, tmp_path)
    replace(
        changed / "host_vars" / "hv2.yml",
        "    ipv4: 203.0.113.3\n",
        f"    ipv4: 203.0.113.3\n    ipv6: {ADDRESSES['vm4'][1]}\n",
    )
    said = fabric.failing_playbook("playbooks/plan.yml", "-i", str(changed / "hosts.yml"))
    assert f"{ADDRESSES['vm4'][1]}" in said.output
    assert "vm4" in said.output


# --- moves and anycast -----------------------------------------------------------------------------------


def moved(inventory: Path, guest: str, old: str, new: str) -> None:
    """Move the entry of the last guest of a hypervisor to another one."""
    source, target = (inventory / "host_vars" / f"{name}.yml" for name in (old, new))
    before, found, after = source.read_text().partition(f"  - name: {guest}\n")
    source.write_text(before)
    target.write_text(target.read_text() + found + after)


def test_a_guest_keeps_its_address_when_it_moves(fabric: Lab, tmp_path: Path) -> None:
    changed = copy_of(INVENTORY, tmp_path)
    moved(changed, "vm2", "hv1", "hv2")
    try:
        fabric.provision("--limit", "hv2", "--skip-tags", "verify", inventory=changed)
        flows = (*both_families("vm4", "vm2"), Flows("vm1", "vm2", 6), Flows("vm3", "vm2", 6))
        with fabric.traffic(*flows, seconds=6, each=8) as traffic:
            fabric.twin("plug", "vm2", "--on", "hv2")
        print(f"\nmove of vm2: {traffic.outages_ms()}")
        assert max(traffic.outages_ms().values()) <= MOST_MS + traffic.allowance_ms
        assert set(fabric.guest_addresses("vm2")) == set(ADDRESSES["vm2"]), (
            "it has probed its address, and given it up"
        )
        fabric.provision("--limit", "hv1", inventory=changed)
        others = {ADDRESSES[guest][1] for guest in ("vm1", "vm3", "vm4")}
        assert fabric.reached("vm2", others) == others
        for guest in ("vm1", "vm3", "vm4"):
            assert fabric.reached(guest, [ADDRESSES["vm2"][1]]), guest
    finally:
        fabric.provision("--limit", "hv1", "--skip-tags", "verify")
        fabric.twin("plug", "vm2", "--on", "hv1")
        fabric.provision("--limit", "hv2")
        fabric.wait_until_whole(60)


def test_an_anycast_address_of_the_prefix_has_another_holder(fabric: Lab) -> None:
    """vm1 and vm3 hold an address of the /64. When vm1 stops, its neighbours on hv1 reach vm3."""
    assert fabric.reached("vm2", [ANYCAST]) == {ANYCAST}
    fabric.twin("unplug", "vm1")
    try:
        wait_for("the other holder", lambda: fabric.reached("vm2", [ANYCAST]), 10)
        assert "via" in fabric.run("hv1", f"ip -6 route get {ANYCAST} from {ADDRESSES['vm2'][1]} iif vm2")
        with neighbour(fabric, "vm2") as guest:
            assert guest.answer(ADDRESSES["vm2"][1], ANYCAST) is not None
    finally:
        fabric.twin("plug", "vm1")
        fabric.wait_until_whole(60)


def test_the_proxy_starts_again(fabric: Lab) -> None:
    """While it is down, entries of guests stay; systemd starts it again within a second."""
    flows = Flows("vm1", "vm4", 6)
    with fabric.steady_traffic(flows) as traffic:
        show = "systemctl show --property=MainPID --value l3hv-ndp-proxy"
        before = fabric.run("hv1", show)
        fabric.run("hv1", "systemctl kill --signal=KILL l3hv-ndp-proxy")
        wait_for("another process", lambda: fabric.run("hv1", show) not in (before, "0\n"), 10)
        with neighbour(fabric, "vm1") as guest:
            wait_for("an answer", lambda: guest.answer(ADDRESSES["vm1"][1], ADDRESSES["vm4"][1]), 5)
    assert traffic.lost() == {}

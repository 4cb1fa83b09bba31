"""Attacks of a guest with root: each attack fails, is counted, and costs other guests no packet.

The attacker is vm2 on hv1. Its victims are vm1 beside it, vm3 on another hypervisor, the hypervisors and the
fabric. All the time vm1 exchanges packets with vm3 and with the Internet in both families, and no attack may
cost them one.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import cycle, islice
from pathlib import Path

import pytest
from addresses import (
    address_of,
    addresses_of_its_prefix,
    anycast_address,
    gateway_mac,
    gateway_of,
    has_vrfs,
    mac_of,
)
from bgp import open_message
from hostile import Victims, in_namespace
from lab import Lab, wait_for
from machines import sessions
from packets import (
    ARP,
    EVERYBODY,
    ICMPV6,
    IPV4,
    IPV6,
    TCP,
    UDP,
    advertisement,
    arp,
    dhcp,
    ethernet,
    icmp,
    ip,
    neighbor,
    packed,
    syn,
    tagged,
    udp,
)
from wire import MarkCounter, cable, counting_marks

from l3hv.twin.power import running
from l3hv.twin.state import Twin

pytestmark = [pytest.mark.fabric, pytest.mark.attacks]

SPEAKER = Path(__file__).with_name("speaker.py")
MARK, ALLOWED = b"l3hv-attack-" + os.urandom(8), b"l3hv-allowed-" + os.urandom(8)
"""Marks in the payload of attacks and of permitted packets, by which their arrival is detected."""
ROGUE_PREFIX = "2001:db8:bad::"
VICTIMS = ("vm1", "vm3", "internet")

ATTACKER, HOST = "vm2", "hv1"
OWN_MAC, GATEWAY_MAC = mac_of(ATTACKER), gateway_mac()
OWN, OWN6, OWN_LINK_LOCAL = address_of(ATTACKER, 4), address_of(ATTACKER, 6), "fe80::5254:33ff:fe00:9"
GATEWAY, GATEWAY6 = gateway_of(ATTACKER, 4), "fe80::1"
NEIGHBOR, NEIGHBOR_MAC, NEIGHBOR6 = address_of("vm1", 4), mac_of("vm1"), address_of("vm1", 6)
UNUSED = "unused address of its pool"
REMOTE, REMOTE6 = address_of("vm3", 4), address_of("vm3", 6)
OUTSIDE, OUTSIDE6 = "192.0.2.8", "2001:db8:8888::8"
FEW, MANY = 20, 2000
PAUSE_S = 0.02
"""The pause between the frames of an attack, in which victims send packets."""
WATCHED_S = 0.2
"""The time for which victims are watched after an attack."""


@dataclass(frozen=True)
class Attack:
    """Frames that are each sent ``count`` times, and the counter that must count ``least`` of them.

    Without a ``reason`` the kernel itself drops them.
    """

    name: str
    frames: tuple[bytes, ...]
    reason: str | None
    count: int = FEW
    least: int = FEW


def out(packet: bytes, *, source: str = OWN_MAC, target: str = GATEWAY_MAC) -> bytes:
    """Put a packet into a frame for the gateway."""
    return ethernet(source, target, IPV6 if packet[0] >> 4 == 6 else IPV4, packet)


def spoofed(name: str, source: str) -> Attack:
    """Return an attack with a forged source address, on a guest of another hypervisor."""
    target = REMOTE6 if ":" in source else REMOTE
    return Attack(name, (out(udp(source, target, (4000, 4000), MARK)),), "source")


def towards(name: str, target: str, packet: bytes, reason: str) -> Attack:
    """Return an attack on the fabric's own machines."""
    return Attack(f"{name} {target}", (out(packet),), reason)


def flood(name: str, frame: bytes, reason: str | None, *, passed: int = 0) -> Attack:
    """Return an attack that sends a frame ``MANY`` times, of which ``passed`` may pass."""
    return Attack(name, (frame,), reason, count=MANY, least=MANY - passed)


def forged_arp(name: str, operation: int, mac: str, address: str, asked: str) -> Attack:
    frame = ethernet(OWN_MAC, EVERYBODY, ARP, arp(operation, mac, address, EVERYBODY, asked))
    return Attack(name, (frame,), "arp_sender" if mac == OWN_MAC else "arp_mac")


def extended(header: int, body: bytes, packet_type: int, message: bytes, target: str) -> bytes:
    """Return an IPv6 packet with an extension header before its message."""
    return ip(OWN_LINK_LOCAL, target, header, bytes((packet_type,)) + body + message, ttl=255)


def fragments6(packet: bytes, *, shown: int = 0) -> tuple[bytes, ...]:
    """Return an IPv6 packet in two fragments, with destination options before its message.

    The first fragment has the options with the mark, and ``shown`` bytes of the message.
    """
    option = bytes((0x1E, len(MARK))) + MARK  # an experiment (RFC 4727), which hosts skip
    options = bytes((packet[6], len(option) // 8)) + option
    whole, cut = options + packet[40:], len(options) + shown
    source, target = (str(IPv6Address(packet[at : at + 16])) for at in (8, 24))
    return tuple(
        ip(source, target, 44, struct.pack("!BBHI", 60, 0, field, 7) + part, ttl=packet[7])
        for field, part in ((1, whole[:cut]), (cut, whole[cut:]))
    )


def hidden(name: str, packet: bytes, *, target: str = GATEWAY_MAC) -> Attack:
    """Return an attack with a packet whose transport header is not in its first fragment."""
    frames = tuple(out(fragment, target=target) for fragment in fragments6(packet))
    return Attack(name, frames, "fragment")


RA = advertisement(OWN_LINK_LOCAL, ROGUE_PREFIX, OWN_MAC)
ALL_NODES_MAC, NO_MAC = "33:33:00:00:00:01", "00:00:00:00:00:00"
BFD = struct.pack("!BBBBIIIII", 0x20, 0xC0, 3, 24, 1, 0, 1000000, 1000000, 0)
SMALL = struct.pack("!HH", 0, 68)
LYING = packed(OWN) + ip(REMOTE, NEIGHBOR, UDP, bytes(8))
ROUTED = bytes((2, 0, 1)) + bytes(4) + packed(REMOTE6)

ATTACKS = (
    # Forged sources.
    spoofed("source outside", "192.0.2.77"),
    spoofed("source of a guest on the same hypervisor", NEIGHBOR),
    spoofed("source of a guest of another hypervisor", address_of("vm4", 4)),
    spoofed("source of the gateway", GATEWAY),
    spoofed("source of the hypervisor's loopback", "172.22.2.1"),
    spoofed("source of a path", "198.51.100.1"),
    spoofed("private source", "10.1.1.1"),
    spoofed("source 127.0.0.1", "127.0.0.1"),
    spoofed("source of no guest", "0.0.0.0"),
    spoofed("source that is a multicast", "224.0.0.1"),
    spoofed("source that is a broadcast", "255.255.255.255"),
    spoofed("anycast source that it does not share", anycast_address(4)),
    spoofed("IPv6 source outside", "2001:db8:8888::77"),
    spoofed("IPv6 source of a guest on the same hypervisor", NEIGHBOR6),
    spoofed("IPv6 source of a guest of another hypervisor", address_of("vm4", 6)),
    spoofed("IPv6 source of the gateway", GATEWAY6),
    spoofed("IPv6 source of a path", "2001:db8:c633:6400::1"),
    spoofed("IPv6 source that is unique local", "fd00::1"),
    # A guest may have any link-local address: the kernel forwards none.
    Attack(
        "link-local source of a guest on the same hypervisor",
        (out(udp("fe80::5254:33ff:fe00:7", REMOTE6, (4000, 4000), MARK)),),
        None,
    ),
    Attack(
        "another MAC",
        (out(udp(OWN, REMOTE, (4000, 4000), MARK), source="02:00:00:00:00:66"),),
        "mac",
    ),
    Attack(
        "many MACs",
        tuple(out(udp(OWN, REMOTE, (4, 4), MARK), source=f"02:00:00:00:{n:02x}:66") for n in range(200)),
        "mac",
        count=1,
        least=200,
    ),
    Attack(
        "a MAC of zeros, as the gateway",
        (
            out(udp(GATEWAY6, "ff02::1", (4, 9999), MARK, ttl=255), source=NO_MAC, target=ALL_NODES_MAC),
            out(ip(GATEWAY6, "ff02::1", ICMPV6, RA, ttl=255), source=NO_MAC, target=ALL_NODES_MAC),
        ),
        "mac",
    ),
    Attack(
        "a MAC of zeros, DHCP",
        (
            out(
                udp("0.0.0.0", "255.255.255.255", (68, 67), dhcp(1, OWN_MAC, 1, 1)),
                source=NO_MAC,
                target=EVERYBODY,
            ),
        ),
        "mac",
    ),
    Attack("the gateway's MAC", (out(udp(OWN, REMOTE, (4000, 4000), MARK), source=GATEWAY_MAC),), "mac"),
    # ARP and neighbour discovery.
    forged_arp("ARP reply as the gateway", 2, OWN_MAC, GATEWAY, NEIGHBOR),
    forged_arp("ARP reply as another guest", 2, OWN_MAC, NEIGHBOR, GATEWAY),
    forged_arp("ARP request as another guest", 1, OWN_MAC, REMOTE, GATEWAY),
    forged_arp("gratuitous ARP", 1, OWN_MAC, NEIGHBOR, NEIGHBOR),
    forged_arp("ARP with another's MAC", 2, NEIGHBOR_MAC, OWN, GATEWAY),
    flood(
        "ARP flood",
        ethernet(OWN_MAC, EVERYBODY, ARP, arp(1, OWN_MAC, OWN, EVERYBODY, GATEWAY)),
        "arp_rate",
        passed=MANY // 2,
    ),
    Attack(
        "ARP for an address outside its pools",
        (ethernet(OWN_MAC, EVERYBODY, ARP, arp(1, OWN_MAC, OWN, EVERYBODY, "192.168.7.7")),),
        "arp_target",
    ),
    Attack(
        "ARP probe for an address outside its pools",
        (ethernet(OWN_MAC, EVERYBODY, ARP, arp(1, OWN_MAC, "0.0.0.0", EVERYBODY, "192.168.7.7")),),
        "arp_target",
    ),
    Attack(
        "neighbour advertisement for another guest",
        (out(neighbor(136, NEIGHBOR6, GATEWAY6, NEIGHBOR6, OWN_MAC)),),
        "source",
    ),
    Attack(
        "neighbour discovery flood from all of its /64",
        tuple(
            out(neighbor(135, source, GATEWAY6, GATEWAY6, OWN_MAC))
            for source in islice(cycle(addresses_of_its_prefix(ATTACKER, MANY)), MANY)
        ),
        "nd_rate",
        count=1,
        least=MANY // 2,
    ),
    # Packets of routers and servers.
    Attack(
        "router advertisement",
        (out(ip(OWN_LINK_LOCAL, "ff02::1", ICMPV6, RA, ttl=255), target=ALL_NODES_MAC),),
        "rogue_ra",
    ),
    Attack(
        "router advertisement behind destination options",
        (out(extended(60, bytes((0, 1, 4, 0, 0, 0, 0)), ICMPV6, RA, "ff02::1"), target=ALL_NODES_MAC),),
        "rogue_ra",
    ),
    Attack(
        "router advertisement in a fragment",
        (out(extended(44, bytes((0, 0, 1, 0, 0, 0, 7)), ICMPV6, RA, "ff02::1"), target=ALL_NODES_MAC),),
        "rogue_ra",
    ),
    Attack(
        "DHCP offer",
        (
            out(
                udp(OWN, "255.255.255.255", (67, 68), dhcp(2, NEIGHBOR_MAC, 1, 2, OWN) + MARK),
                target=EVERYBODY,
            ),
        ),
        "rogue_dhcp",
    ),
    Attack(
        "DHCP offer to a guest of another hypervisor",
        (out(udp(OWN, REMOTE, (67, 68), dhcp(2, NEIGHBOR_MAC, 1, 2, OWN) + MARK)),),
        "rogue_dhcp",
    ),
    Attack(
        "DHCP offer from another port",
        (out(udp(OWN, REMOTE, (1067, 68), dhcp(2, NEIGHBOR_MAC, 1, 2, OWN) + MARK)),),
        "rogue_dhcp",
    ),
    Attack("DHCPv6 reply from another port", (out(udp(OWN6, REMOTE6, (1547, 546), MARK)),), "rogue_dhcp"),
    Attack("DHCPv6 reply", (out(udp(OWN6, REMOTE6, (547, 546), MARK)),), "rogue_dhcp"),
    hidden("DHCPv6 reply in a second fragment", udp(OWN6, REMOTE6, (547, 546), bytes(64))),
    hidden(
        "DHCPv6 reply to all in a second fragment",
        udp(OWN_LINK_LOCAL, "ff02::1", (547, 546), bytes(64)),
        target=ALL_NODES_MAC,
    ),
    hidden("TCP in a second fragment to the gateway", syn(OWN_LINK_LOCAL, GATEWAY6, 179, ttl=255)),
    hidden("router advertisement in a second fragment", ip(OWN_LINK_LOCAL, GATEWAY6, ICMPV6, RA, ttl=255)),
    Attack(
        "DHCPv6 reply in fragments",
        tuple(out(part) for part in fragments6(udp(OWN6, REMOTE6, (547, 546), bytes(64)), shown=8)),
        "rogue_dhcp",
    ),
    Attack(
        "DHCP offer in fragments",
        (out(ip(OWN, REMOTE, UDP, udp(OWN, REMOTE, (67, 68), MARK)[20:].ljust(48, b"\0"), fragment=0x2000)),),
        "rogue_dhcp",
    ),
    Attack(
        "DHCP starvation",
        tuple(
            out(
                udp(
                    "0.0.0.0",
                    "255.255.255.255",
                    (68, 67),
                    dhcp(1, f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", n, 1),
                ),
                target=EVERYBODY,
            )
            for n in range(500)
        ),
        "dhcp_rate",
        count=1,
        least=400,
    ),
    Attack("ICMP redirect", (out(icmp(OWN, REMOTE, 5, LYING + MARK, code=1)),), "icmp_redirect"),
    Attack(
        "ICMPv6 redirect",
        (out(icmp(OWN_LINK_LOCAL, GATEWAY6, 137, bytes(36), ttl=255)),),
        "icmp_redirect",
    ),
    # The hypervisor and the fabric.
    towards("BGP to", GATEWAY, syn(OWN, GATEWAY, 179, ttl=255), "to_host"),
    towards("BGP to", "198.51.100.1", syn(OWN, "198.51.100.1", 179, ttl=255), "to_host"),
    towards("BGP to", GATEWAY6, syn(OWN_LINK_LOCAL, GATEWAY6, 179, ttl=255), "to_host"),
    towards("BGP to", "198.51.100.126", syn(OWN, "198.51.100.126", 179, ttl=255), "fabric"),
    towards("BGP to", "2001:db8:c633:6400::7e", syn(OWN6, "2001:db8:c633:6400::7e", 179, ttl=255), "fabric"),
    towards("link-local", "fe80::77", udp(OWN6, "fe80::77", (4000, 4000), MARK), "link_local"),
    Attack("link-local 169.254.169.254", (out(udp(OWN, "169.254.169.254", (4, 4), MARK)),), None),
    Attack(UNUSED, (out(udp(OWN, "203.0.113.99", (4, 4), MARK)),), None),
    towards("BFD to", "198.51.100.1", udp(OWN, "198.51.100.1", (49152, 3784), BFD, ttl=255), "to_host"),
    towards("BFD to", "198.51.100.2", udp(OWN, "198.51.100.2", (49152, 3784), BFD, ttl=255), "fabric"),
    towards("SSH to", "172.22.2.1", syn(OWN, "172.22.2.1", 22), "to_host"),
    towards("SSH to", GATEWAY6, syn(OWN_LINK_LOCAL, GATEWAY6, 22), "to_host"),
    towards("SSH to", "172.22.2.2", syn(OWN, "172.22.2.2", 22), "fabric"),
    towards("private path", "172.22.15.2", icmp(OWN, "172.22.15.2", 8, bytes(4) + MARK), "fabric"),
    towards(
        "private path here",
        "172.22.15.1",
        icmp(OWN, "172.22.15.1", 8, bytes(4) + MARK),
        "fabric" if has_vrfs(HOST) else "to_host",  # An address in another VRF is like one of another host.
    ),
    towards("traceroute to", GATEWAY, udp(OWN, GATEWAY, (40000, 33434), MARK, ttl=1), "to_host"),
    Attack(
        "lies about the path MTU",
        (out(icmp(OWN, REMOTE, 3, SMALL + ip(REMOTE, NEIGHBOR, UDP, bytes(8)), code=4)),),
        None,
    ),
    Attack(
        "BGP in fragments",
        (
            out(ip(OWN, GATEWAY, TCP, syn(OWN, GATEWAY, 179)[20:28], ttl=255, fragment=0x2000)),
            out(ip(OWN, GATEWAY, TCP, syn(OWN, GATEWAY, 179)[28:], ttl=255, fragment=1)),
        ),
        "to_host",
        count=1,
        least=1,
    ),
    Attack(
        "routing header of IPv6",
        (out(ip(OWN6, GATEWAY6, 43, bytes((UDP,)) + ROUTED + udp(OWN6, REMOTE6, (4, 4), MARK)[40:])),),
        None,
    ),
    # Frames and floods.
    Attack("802.1Q", (tagged(out(udp(OWN, REMOTE, (4000, 4000), MARK)), 20),), None),
    Attack("TTL that ends here", (out(udp(OWN, REMOTE, (4000, 4000), MARK, ttl=1)),), None),
    flood(
        "broadcast flood",
        out(udp(OWN, "255.255.255.255", (4000, 4000), MARK), target=EVERYBODY),
        "multicast",
    ),
    Attack(
        "broadcast of its subnet",
        (out(udp(OWN, "203.0.113.255", (4000, 4000), MARK), target=EVERYBODY),),
        None,
    ),
    flood(
        "multicast flood",
        out(udp(OWN, "239.1.1.1", (4000, 4000), MARK), target="01:00:5e:01:01:01"),
        None,
    ),
    flood(
        "IPv6 multicast flood",
        out(udp(OWN6, "ff02::1", (4000, 4000), MARK), target=ALL_NODES_MAC),
        "multicast",
    ),
    flood(
        "ping flood of the gateway",
        out(icmp(OWN, GATEWAY, 8)),
        "ping_rate",
        passed=MANY // 2,
    ),
)


@pytest.fixture(scope="module")
def attacker(standing: Lab) -> Iterator[socket.socket]:
    """Open the attacker's end of its cable."""
    with cable(standing, ATTACKER, "eth0") as wire:
        yield wire


@pytest.fixture(scope="module")
def counters(standing: Lab) -> Iterator[dict[str, MarkCounter]]:
    """Count the attacker's packets at its victims."""
    with counting_marks(standing, VICTIMS, (MARK, packed(ROGUE_PREFIX), ALLOWED)) as found:
        yield found


def send(wire: socket.socket, attack: Attack) -> None:
    """Send the frames of an attack: few frames with pauses, many as fast as possible."""
    is_flood = attack.count * len(attack.frames) > 10 * FEW
    for frame in attack.frames:
        for _ in range(attack.count):
            wire.send(frame.ljust(60, bytes(1)))
            if not is_flood:
                time.sleep(PAUSE_S / len(attack.frames))


def send_allowed(wire: socket.socket, counter: MarkCounter) -> dict[bytes, int]:
    """Send permitted packets until one arrives, and return the counts of all marks until then."""
    frame = out(udp(OWN, REMOTE, (4000, 4000), ALLOWED))
    total: dict[bytes, int] = {}

    def arrived() -> bool:
        wire.send(frame)
        time.sleep(0.01)
        for mark, count in counter.found().items():
            total[mark] = total.get(mark, 0) + count
        return total[ALLOWED] > 0

    wait_for("the attacker's own packets", arrived, 5)
    return total


def drops(lab: Lab) -> dict[str, int]:
    """Return the drop counters of the attacker's hypervisor, by reason."""
    shown = json.loads(lab.run(HOST, "nft --json list counters"))
    counters = (entry["counter"] for entry in shown["nftables"] if "counter" in entry)
    return {counter["name"]: counter["packets"] for counter in counters if counter["table"] == "l3hv"}


def test_permitted_packets_arrive(
    standing: Lab, attacker: socket.socket, counters: dict[str, MarkCounter], victims: Victims
) -> None:
    """The same packet with the attacker's own address arrives, so the tests detect attacks that pass."""
    before = drops(standing)["source"]
    send(attacker, Attack("nothing", (out(udp(OWN, REMOTE, (4000, 4000), MARK)),), None))
    assert send_allowed(attacker, counters["vm3"])[MARK] == FEW
    assert standing.reached(ATTACKER, [REMOTE]) == {REMOTE}
    assert drops(standing)["source"] == before
    assert victims.lost() == {}


def has_blackhole_for_pool(lab: Lab) -> bool:
    """Return whether packets to unused addresses end at the hypervisor, as without BIRD 1.6."""
    return bool(lab.run(HOST, "ip route show table public type blackhole 203.0.113.0/24").strip())


def least_counted(lab: Lab, attack: Attack) -> int:
    """Return the number of frames that the hypervisor must count, of those that reach it.

    The NIC of an emulated machine is behind a Linux bridge, which drops frames with a source MAC of zeros,
    and loses frames of a flood that come faster than its CPU is emulated.
    """
    state = running(Twin(lab.name, print), HOST)
    assert state is not None
    if not state.emulated:
        return attack.least
    if any(frame[6:12] == bytes(6) for frame in attack.frames):
        return 0
    return min(attack.least, FEW)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_attack_fails(
    standing: Lab, attacker: socket.socket, counters: dict[str, MarkCounter], victims: Victims, attack: Attack
) -> None:
    assert victims.lost() == {}
    before = drops(standing)
    for counter in counters.values():
        counter.found()
    send(attacker, attack)
    arrived = {"vm3": send_allowed(attacker, counters["vm3"])}
    time.sleep(WATCHED_S)
    arrived |= {name: counter.found() for name, counter in counters.items() if name != "vm3"}
    if attack.name == UNUSED and not has_blackhole_for_pool(standing):
        del arrived["internet"]
    assert {name: counts for name, counts in arrived.items() if sum(counts.values()) > counts[ALLOWED]} == {}
    if attack.reason is not None:
        after = drops(standing)
        counted = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        assert counted.get(attack.reason, 0) >= least_counted(standing, attack), f"counted: {counted}"
    assert victims.lost() == {}


@pytest.mark.parametrize("target", [GATEWAY, "198.51.100.1", sessions("hv1")[0]["neighbor"]])
def test_a_guest_gets_no_bgp_session(standing: Lab, victims: Victims, target: str) -> None:
    """With TTL 255 and the OPEN of a hypervisor it gets no session with its hypervisor or a neighbour."""
    command = in_namespace(standing, ATTACKER, sys.executable, str(SPEAKER))
    line = f"{OWN} {target} 255 4 {open_message(65000, '172.22.2.1').hex()}\n"
    printed = subprocess.run(
        command, input=line, text=True, capture_output=True, check=True, timeout=60
    ).stdout
    assert printed == "refused\n"
    assert victims.lost() == {}


def test_the_fabric_works_after_all_attacks(lab: Lab, victims: Victims) -> None:
    assert lab.reached(ATTACKER, [NEIGHBOR, REMOTE, OUTSIDE, OUTSIDE6, GATEWAY]) == {
        NEIGHBOR,
        REMOTE,
        OUTSIDE,
        OUTSIDE6,
        GATEWAY,
    }
    neighbors = lab.run(HOST, "ip neighbour show dev vm1; ip -6 neighbour show dev vm1")
    assert OWN_MAC not in neighbors
    assert NEIGHBOR_MAC in neighbors
    assert victims.lost() == {}

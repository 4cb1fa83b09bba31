"""The proxy of neighbour discovery: what it answers, and real kernels on both sides of it."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import ROOT, in_an_image, loaded

PROGRAM = ROOT / "roles/guest_services/files/ndp-proxy"
PROXY: ModuleType = loaded(PROGRAM)
GUEST, TARGET = IPv6Address("2001:db8:cb00:7100::7"), IPv6Address("2001:db8:cb00:7100::5")
UNSPECIFIED, GROUP = IPv6Address("::"), IPv6Address("ff02::1:ff00:5")
MAC, PORT_MAC = bytes.fromhex("525400000007"), bytes.fromhex("026c33687601")


def solicitation(
    source: IPv6Address = GUEST,
    target: IPv6Address = TARGET,
    *,
    hop_limit: int = 255,
    flip: int = 0,
    code: int = 0,
    destination: IPv6Address = GROUP,
    options: bytes = b"",
    length: int = 255,
) -> bytes:
    message = (bytes((135, code, 0, 0)) + bytes(4) + target.packed + options)[:length]
    total = PROXY.checksum(source, destination, message) ^ flip
    message = message[:2] + total.to_bytes(2, "big") + message[4:]
    header = (6 << 28).to_bytes(4, "big") + len(message).to_bytes(2, "big") + bytes((58, hop_limit))
    return header + source.packed + destination.packed + message


def test_only_valid_solicitations_are_read() -> None:
    found = PROXY.parse_solicitation(solicitation(), MAC)
    assert (found.source, found.target) == (GUEST, TARGET)
    assert PROXY.parse_solicitation(solicitation(hop_limit=64), MAC) is None, "it has passed a router"
    assert PROXY.parse_solicitation(solicitation(flip=1), MAC) is None, "its checksum is wrong"
    assert PROXY.parse_solicitation(solicitation()[:-1], MAC) is None, "it is cut off"


SENDER = b"\1\1" + MAC
"""The option with the sender's MAC."""
NONCE = b"\x0e\1" + bytes(6)
"""An option of a probe (RFC 7527)."""


@pytest.mark.parametrize(
    "packet",
    [
        solicitation(options=SENDER),
        solicitation(destination=TARGET, options=SENDER),
        solicitation(UNSPECIFIED),
        solicitation(UNSPECIFIED, options=NONCE),
    ],
    ids=["to the group", "to the address", "a probe", "a probe with a nonce"],
)
def test_solicitations_of_all_kinds_are_read(packet: bytes) -> None:
    assert PROXY.parse_solicitation(packet, MAC) is not None


@pytest.mark.parametrize(
    "packet",
    [
        solicitation(code=1),
        # The frame is padded: the packet is longer than its payload.
        solicitation(length=8) + bytes(64),
        solicitation(target=GROUP),
        solicitation(options=b"\1\0" + MAC),
        solicitation(options=b"\1\2" + MAC),
        solicitation(options=SENDER + b"\1"),
        solicitation(UNSPECIFIED, destination=TARGET),
        solicitation(UNSPECIFIED, options=SENDER),
    ],
    ids=[
        "a code",
        "no target",
        "a group as the target",
        "an option of length 0",
        "an option that is cut off",
        "an option without a length",
        "a probe to the address",
        "a probe with the sender's MAC",
    ],
)
def test_solicitations_that_a_host_discards_are_dropped(packet: bytes) -> None:
    """RFC 4861, section 7.1.1."""
    assert PROXY.parse_solicitation(packet, MAC) is None


def test_the_answer_is_valid_and_gives_way_to_the_address_itself() -> None:
    answer = PROXY.advertisement(PROXY.parse_solicitation(solicitation(), MAC), PORT_MAC)
    source, destination, message = IPv6Address(answer[8:24]), IPv6Address(answer[24:40]), answer[40:]
    assert (source, destination, answer[7]) == (IPv6Address("fe80::1"), GUEST, 255)
    assert PROXY.checksum(source, destination, message) == 0
    solicited, override = message[4] & 0x40, message[4] & 0x20
    assert solicited
    assert not override
    assert message[8:24] == TARGET.packed
    assert message[24:] == b"\2\1" + PORT_MAC


def test_a_probe_is_answered_to_all_nodes() -> None:
    probe = PROXY.parse_solicitation(solicitation(IPv6Address("::")), MAC)
    answer = PROXY.advertisement(probe, PORT_MAC)
    assert IPv6Address(answer[24:40]) == IPv6Address("ff02::1")
    assert not answer[44] & 0x40, "RFC 4861, section 7.2.4"


def test_a_port_has_a_budget() -> None:
    budget = PROXY.Budget(0.0)
    assert sum(budget.take(0.0) for _ in range(1000)) == PROXY.BURST
    assert sum(budget.take(1.0) for _ in range(1000)) == PROXY.RATE


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_dropped(data: bytes) -> None:
    PROXY.parse_solicitation(data, MAC)


@given(st.binary(max_size=40), st.integers(0, 64))
def test_any_solicitation_is_read_or_dropped(options: bytes, length: int) -> None:
    PROXY.parse_solicitation(solicitation(options=options, length=length) + bytes(64), MAC)


# Two guests, the hypervisor, and another host with ::5, in four namespaces.
NEIGHBOURS = """
mount -t tmpfs none /run
for name in guest second hv other; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n hv link add up0 type veth peer name eth0 netns other
ip netns exec hv sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
ip -n other link set eth0 up
ip -n hv link set up0 up
ip -n hv address add fe80::9/64 dev up0 nodad
ip -n other address add 2001:db8:cb00:7100::5/128 dev lo
ip -n other address add fe80::8/64 dev eth0 nodad
ip -n other route add default via fe80::9 dev eth0
ip -n hv route add 2001:db8:cb00:7100::5/128 via fe80::8 dev up0
ip -n hv route add blackhole 2001:db8:cb00:7100::/64
add_port() { # namespace port number
    ip -n hv link add $2 type veth peer name eth0 netns $1
    ip -n $1 link set eth0 address 52:54:00:00:00:0$3 up
    ip -n hv link set $2 up
    ip -n hv address add fe80::1/64 dev $2 nodad
    ip -n $1 address add 2001:db8:cb00:7100::$3/64 dev eth0 nodad
    ip -n $1 route add default via fe80::1 dev eth0
    ip -n hv neighbour add fe80::$3 lladdr 52:54:00:00:00:0$3 dev $2 nud permanent
    ip -n hv route add 2001:db8:cb00:7100::$3/128 via fe80::$3 dev $2
}
add_port guest vm1 7
mkdir -p /run/l3hv-ndp-proxy
ip netns exec hv python3 -I "$2" serve "$3" &
proxy=$!
for try in $(seq 100); do
    ! python3 -I "$2" in-force "$3" 2>/dev/null || break
    sleep 0.05
done
add_port second vm2 8
reaches() { # namespace address
    ip netns exec $1 ping -c 3 -i 0.2 -W 1 -q "$2" >/dev/null 2>&1 || printf 'does not '
    echo "reach $2"
}
"""
PREFIX = "2001:db8:cb00:7100::"
PORTS = f"vm1 {PREFIX}/64 {PREFIX}7/128 {PREFIX}66/128\nvm2 {PREFIX}/64 {PREFIX}8/128\n"


def in_the_neighbourhood(ports: Path, script: str, *arguments: Path) -> list[str]:
    """Run a script beside the guests and a running proxy, and return the lines that it prints."""
    ports.write_text(PORTS, encoding="ascii")
    done = in_an_image("debian13", "bird2", NEIGHBOURS + script, PROGRAM, ports, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


REACH = """
reaches guest 2001:db8:cb00:7100::5
reaches guest 2001:db8:cb00:7100::8
reaches guest 2001:db8:cb00:7100::99
# The guest adds addresses: one of another host, an own one that is still routed elsewhere, and a free one.
ip -n hv route add 2001:db8:cb00:7100::66/128 via fe80::8 dev up0
for address in 5 66 77; do ip -n guest address add 2001:db8:cb00:7100::$address/64 dev eth0; done
until [ -z "$(ip -n guest -6 -o address show dev eth0 tentative -dadfailed)" ]; do sleep 0.1; done
ip -n guest -6 -o address show dev eth0 dadfailed | awk '{ print "duplicate", $4 }'
kill $proxy
"""


def test_a_guest_reaches_the_addresses_of_others_as_if_they_were_on_its_link(tmp_path: Path) -> None:
    assert in_the_neighbourhood(tmp_path / "ports", REACH) == [
        f"reach {PREFIX}5",
        f"reach {PREFIX}8",
        f"does not reach {PREFIX}99",
        f"duplicate {PREFIX}5/64",
    ]


RETURN = """
reaches guest 2001:db8:cb00:7100::5
ip -n hv link delete vm1
add_port guest vm1 7
reaches guest 2001:db8:cb00:7100::5
kill $proxy
"""


def test_a_port_that_is_created_anew_is_served(tmp_path: Path) -> None:
    assert in_the_neighbourhood(tmp_path / "ports", RETURN) == [f"reach {PREFIX}5"] * 2


FLOOD = """
ip netns exec guest python3 -I "$4" 2001:db8:cb00:7100::7 2001:db8:cb00:7100::5 >/run/flood &
flood=$!
until [ -s /run/flood ]; do sleep 0.05; done
for try in $(seq 20); do
    ip -n second neighbour flush dev eth0
    ip netns exec second ping -c 1 -W 1 -q 2001:db8:cb00:7100::5 >/dev/null 2>&1 && echo answered || echo lost
done
ticks() { awk '{ print $14 + $15 }' /proc/$proxy/stat; }
before=$(ticks)
sleep 2
after=$(ticks)
kill $flood
echo "ticks $((after - before))"
ip netns exec guest ping -c 1 -w 5 -q 2001:db8:cb00:7100::5 >/dev/null 2>&1 && echo answered || echo lost
kill $proxy
"""
FLOODER = r"""
import socket, sys
from ipaddress import IPv6Address
source, target = map(IPv6Address, sys.argv[1:])
group = IPv6Address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
message = b"\x87\0\0\0" + bytes(4) + target.packed
data = source.packed + group + bytes(3) + bytes((len(message), 0, 0, 0, 58)) + message
total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
message = message[:2] + (~total & 0xFFFF).to_bytes(2, "big") + message[4:]
header = (6 << 28).to_bytes(4, "big") + len(message).to_bytes(2, "big") + bytes((58, 255))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
print("begun", flush=True)
while True:
    wire.sendto(header + source.packed + group + message, ("eth0", 0x86DD, 0, 0, b"\x33\x33" + group[12:]))
"""


def test_a_flood_of_one_guest_does_not_delay_the_answers_to_another(tmp_path: Path) -> None:
    """A guest solicits as fast as a core can; the program reads its budget and no more."""
    flooder = tmp_path / "flooder"
    flooder.write_text(FLOODER, encoding="ascii")
    *answers, ticks, afterwards = in_the_neighbourhood(tmp_path / "ports", FLOOD, flooder)
    assert answers == ["answered"] * 20
    assert int(ticks.split()[1]) <= 50, "of 200 ticks of CPU time in 2 s"
    assert afterwards == "answered"

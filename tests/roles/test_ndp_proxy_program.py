"""The proxy of neighbour discovery: what it answers, and real kernels on both sides of it."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path
from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st
from images import ROOT, in_an_image, loaded

PROGRAM = ROOT / "roles/guest_services/files/ndp-proxy"
PROXY: ModuleType = loaded(PROGRAM)
GUEST, TARGET = IPv6Address("2001:db8:cb00:7100::7"), IPv6Address("2001:db8:cb00:7100::5")
MAC, PORT_MAC = bytes.fromhex("525400000007"), bytes.fromhex("026c33687601")


def solicitation(
    source: IPv6Address = GUEST, target: IPv6Address = TARGET, *, hop_limit: int = 255, flip: int = 0
) -> bytes:
    destination = IPv6Address("ff02::1:ff00:5")
    message = b"\x87\0\0\0" + bytes(4) + target.packed
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


def test_a_port_has_a_budget_of_answers() -> None:
    budget = PROXY.Budget(0.0)
    assert sum(budget.take(0.0) for _ in range(1000)) == PROXY.BURST
    assert sum(budget.take(1.0) for _ in range(1000)) == PROXY.RATE


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_dropped(data: bytes) -> None:
    PROXY.parse_solicitation(data, MAC)


# A guest, the hypervisor, and another host with ::5, in three namespaces.
NEIGHBOURS = """
mount -t tmpfs none /run
for name in guest hv other; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n hv link add vm1 type veth peer name eth0 netns guest
ip -n hv link add up0 type veth peer name eth0 netns other
ip netns exec hv sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
ip -n guest link set eth0 address 52:54:00:00:00:07 up
ip -n other link set eth0 up
for name in vm1 up0; do ip -n hv link set $name up; done
ip -n hv address add fe80::1/64 dev vm1 nodad
ip -n hv address add fe80::9/64 dev up0 nodad
ip -n guest address add 2001:db8:cb00:7100::7/64 dev eth0 nodad
ip -n guest route add default via fe80::1 dev eth0
ip -n other address add 2001:db8:cb00:7100::5/128 dev lo
ip -n other address add fe80::8/64 dev eth0 nodad
ip -n other route add default via fe80::9 dev eth0
ip -n hv neighbour add fe80::7 lladdr 52:54:00:00:00:07 dev vm1 nud permanent
ip -n hv route add 2001:db8:cb00:7100::5/128 via fe80::8 dev up0
ip -n hv route add 2001:db8:cb00:7100::7/128 via fe80::7 dev vm1
ip -n hv route add blackhole 2001:db8:cb00:7100::/64
mkdir -p /run/l3hv-ndp-proxy
ip netns exec hv python3 -I "$2" serve "$3" &
for try in $(seq 100); do
    ! python3 -I "$2" in-force "$3" 2>/dev/null || break
    sleep 0.05
done
reaches() {
    ip netns exec guest ping -c 3 -i 0.2 -W 1 -q "$1" >/dev/null 2>&1 || printf 'does not '
    echo "reach $1"
}
reaches 2001:db8:cb00:7100::5
reaches 2001:db8:cb00:7100::99
# Addresses that the guest adds: one of another host, and one that no host has.
ip -n guest address add 2001:db8:cb00:7100::5/64 dev eth0
ip -n guest address add 2001:db8:cb00:7100::77/64 dev eth0
sleep 2
ip -n guest -6 -o address show dev eth0 dadfailed | awk '{ print "duplicate", $4 }'
"""


def test_a_guest_reaches_the_addresses_of_others_as_if_they_were_on_its_link(tmp_path: Path) -> None:
    ports = tmp_path / "ports"
    ports.write_text("vm1 2001:db8:cb00:7100::/64\n", encoding="ascii")
    done = in_an_image("debian13", "bird2", NEIGHBOURS, PROGRAM, ports)
    assert done.stdout.splitlines() == [
        "reach 2001:db8:cb00:7100::5",
        "does not reach 2001:db8:cb00:7100::99",
        "duplicate 2001:db8:cb00:7100::5/64",
    ], done.stdout + done.stderr

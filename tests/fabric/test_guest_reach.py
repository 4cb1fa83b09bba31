"""Reachability of guests with any link-local address, ICMP errors, ARP and fragments."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import ANYCAST, INTERNET, Lab, wait_for

from l3hv.twin.network import NAMESPACES

pytestmark = pytest.mark.fabric

GATEWAY, GATEWAY6 = "203.0.113.254", "fe80::1"
EUI64 = {"vm1": "fe80::5254:33ff:fe00:7", "vm2": "fe80::5254:33ff:fe00:9"}
OTHER_LINK_LOCAL = "fe80::dead:beef"
BOUNCE = "ip link set eth0 down && ip link set eth0 up"
LINK_LOCALS = {
    "stable privacy (RFC 7217)": f"sysctl -qw net.ipv6.conf.eth0.addr_gen_mode=3 && {BOUNCE}",
    "stable privacy with temporary addresses (RFC 8981)": "sysctl -qw"
    " net.ipv6.conf.eth0.stable_secret=2001:db8::1"
    " net.ipv6.conf.eth0.addr_gen_mode=2 net.ipv6.conf.eth0.use_tempaddr=2"
    f" && {BOUNCE}",
    "set by hand": f"ip -6 address add {OTHER_LINK_LOCAL}/64 dev eth0 nodad",
}
SMALL_MTU = 1300
LENGTH = 300_000
SEND = f"""
import socket, sys
own = (sys.argv[2], 0) if len(sys.argv) > 2 else None
with socket.create_connection((sys.argv[1], 5001), 20, own) as wire:
    wire.settimeout(20)
    wire.sendall(bytes({LENGTH}))
"""
RECEIVE = """
import socket, sys
with socket.create_server(("::", 5001), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    server.settimeout(25)
    print("listening", flush=True)
    wire, _ = server.accept()
    wire.settimeout(25)
    total = 0
    while received := wire.recv(65536):
        total += len(received)
    print(total)
"""
SCANNED = 300
SCAN = f"""
import socket
wire = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for number in range({SCANNED}):
    wire.sendto(b"scan", (f"2001:db8:cb00:7102:5ca::{{number:x}}", 4000))
"""


@pytest.mark.parametrize("kind", LINK_LOCALS)
@pytest.mark.parametrize("guest", ["vm1", "vm2"])
def test_a_guest_has_ipv6_whatever_its_link_local_address_is(restarted: Lab, guest: str, kind: str) -> None:
    lab = restarted
    lab.run_as_guest(guest, LINK_LOCALS[kind])
    lab.run_as_guest(guest, f"ip -6 address del {EUI64[guest]}/64 dev eth0 2>/dev/null || true")

    def own() -> list[str]:
        shown = lab.run_as_guest(guest, "ip -6 -json address show dev eth0 scope global")
        found = (each for link in json.loads(shown) for each in link.get("addr_info", ()))
        return [each["local"] for each in found if "local" in each and not each.get("tentative")]

    others = {INTERNET[6], lab.guest_address("vm3", 6), GATEWAY6 + "%eth0"}
    wait_for("its SLAAC address", own, 20)
    wait_for("answers from the other addresses", lambda: lab.reached(guest, others) == others, 20)
    shown = lab.run_as_guest(guest, "ip -6 address show dev eth0 scope link")
    assert EUI64[guest] not in shown
    assert "fe80::" in shown
    for source in ("internet", "vm3", "vm2" if guest == "vm1" else "vm1"):
        assert lab.reached(source, own()) == {*own()}
    if guest == "vm1":  # It holds the anycast address on the hypervisor of vm2.
        assert lab.reached("vm2", [ANYCAST[6]]) == {ANYCAST[6]}


def test_the_permanent_neighbor_survives_a_reconfiguration_and_a_loss_of_carrier(
    restarted: Lab,
) -> None:
    lab, permanent = restarted, "ip -6 neighbour show dev vm2 nud permanent"
    expected = [EUI64["vm2"], "lladdr", "50:54:33:00:00:09", "PERMANENT"]
    assert lab.run("hv1", permanent).split() == expected
    lab.run("hv1", "networkctl reconfigure vm2")
    wait_for("the neighbour", lambda: lab.run("hv1", permanent).split() == expected, 5)
    lab.run_as_guest("vm2", "ip link set eth0 down; ip link set eth0 up")
    wait_for("the neighbour", lambda: lab.run("hv1", permanent).split() == expected, 5)


def test_a_scan_of_a_guests_prefix_makes_no_neighbors(lab: Lab) -> None:
    def neighbors() -> int:
        return len(lab.run("hv1", "ip -6 neighbour show dev vm2").splitlines())

    def sent() -> int:
        return int(lab.run("hv1", "cat /sys/class/net/vm2/statistics/tx_packets"))

    assert lab.reached("internet", [lab.guest_address("vm2", 6)])
    before, sent_before = neighbors(), sent()
    lab.run("internet", f"python3 -c '{SCAN}'")
    wait_for("the scan's packets at the port", lambda: sent() - sent_before >= SCANNED, 10)
    assert neighbors() <= before


# ICMP errors.


def listening(lab: Lab, guest: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        lab.as_guest(guest, "python3", "-c", RECEIVE), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


@pytest.fixture
def narrow(lab: Lab) -> Iterator[Lab]:
    """Yield the lab with a small MTU on the port of vm3 on hv2."""
    senders = ("internet", "vm1", "vm4")
    lab.run("hv2", f"ip link set vm3 mtu {SMALL_MTU}")
    try:
        yield lab
    finally:
        lab.run("hv2", "ip link set vm3 mtu 1500")
        forget = "ip route flush cache; ip -6 route flush cache"
        for sender in senders:
            (lab.run if sender == "internet" else lab.run_as_guest)(sender, forget)


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("sender", ["internet", "vm1", "vm4"])
def test_a_sender_learns_the_mtu_of_a_port_beyond_the_fabric(narrow: Lab, sender: str, family: int) -> None:
    lab = narrow
    address = lab.guest_address("vm3", family)
    receiver = listening(lab, "vm3")
    try:
        run = lab.run if sender == "internet" else lab.run_as_guest
        # Guests do not answer the edge router's addresses on the paths.
        source = INTERNET[family] if sender == "internet" else ""
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(run, sender, f"python3 -c '{SEND}' {address} {source}")
            out, _ = receiver.communicate(timeout=40)
            sent.result()
        assert out.strip() == str(LENGTH)
    finally:
        receiver.kill()
        receiver.communicate()


@pytest.mark.parametrize(
    ("source", "target", "family", "hops"),
    [
        ("internet", "vm1", 4, [{"198.51.100.1", "198.51.100.129"}]),
        ("internet", "vm1", 6, [{"2001:db8:c633:6400::1", "2001:db8:c633:6401::1"}]),
        ("vm1", "vm3", 4, [{GATEWAY}, {"198.51.100.2", "198.51.100.130"}]),
        (
            "vm1",
            "vm3",
            6,
            [
                {"2001:db8:c633:6400::1", "2001:db8:c633:6401::1"},
                {"2001:db8:c633:6400::2", "2001:db8:c633:6401::2"},
            ],
        ),
    ],
)
def test_traceroute_shows_each_hypervisor(
    lab: Lab, source: str, target: str, family: int, hops: list[set[str]]
) -> None:
    address = lab.guest_address(target, family)
    program = "traceroute6" if family == 6 else "traceroute"
    # Run the host's program in the network namespace of a guest or machine.
    place = "host-internet" if source == "internet" else f"guest-{source}"
    command = [*("nsenter", f"--net={NAMESPACES}/l3hv-{lab.name}-{place}"), *("busybox", program)]
    options = ("-n", "-q", "1", "-w", "2", "-m", "6", address)
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    shown = [line.split()[1] for line in done.stdout.splitlines() if line[:2].strip().isdigit()]
    assert len(shown) == len(hops) + 1, done.stdout
    assert all(hop in choices for hop, choices in zip(shown, hops, strict=False)), done.stdout
    assert shown[-1] == address


@pytest.mark.parametrize("bound", ["", "-I 198.51.100.1", f"-I {GATEWAY}"])
def test_a_hypervisors_own_pings_do_not_leave_by_a_public_path(lab: Lab, bound: str) -> None:
    assert "1 received" not in lab.run("hv1", f"ping -n -c 1 -W 1 {bound} {INTERNET[4]} 2>&1 || true")
    assert "0 received" in lab.run("internet", f"ping -n -c 1 -W 1 -I {INTERNET[4]} 198.51.100.1 || true")


# ARP.


def answered(lab: Lab, guest: str, address: str, option: str = "") -> bool:
    command = f"busybox arping {option} -c 2 -w 1 -I eth0 {address} || true"
    return re.search("Received [1-9]", lab.run_as_guest(guest, command)) is not None


REACHABLE = ("203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.11", GATEWAY)
"""Guests on the same and on other hypervisors, a transparent address, and the gateway."""
UNREACHABLE = ("203.0.113.99", "203.0.113.255", "192.168.7.7", "8.8.8.8", "169.254.169.254", "198.51.100.2")
OWN = ("203.0.113.1", "203.0.113.10")


@pytest.mark.parametrize("option", ["", "-D"], ids=["request", "probe"])
def test_the_gateway_answers_arp_only_for_reachable_addresses(lab: Lab, option: str) -> None:
    asked = (*REACHABLE, *UNREACHABLE, *OWN)
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = pool.map(lambda address: answered(lab, "vm1", address, option), asked)
        found = {address for address, is_answered in zip(asked, answers, strict=True) if is_answered}
    assert found == {*REACHABLE}


def test_a_guest_detects_no_address_conflict_while_its_route_points_to_another_port(lab: Lab) -> None:
    elsewhere = "203.0.113.2/32 dev vm1 scope link table public metric 5"
    lab.run("hv1", f"ip route add {elsewhere}")
    try:
        assert not answered(lab, "vm2", "203.0.113.2", "-D")
        assert not answered(lab, "vm2", "203.0.113.2")
    finally:
        lab.run("hv1", f"ip route delete {elsewhere}")


def test_packets_to_unused_addresses_end_at_the_hypervisor(lab: Lab) -> None:
    for address in ("203.0.113.99", "169.254.169.254"):
        route = f"ip route get {address} from 203.0.113.1 iif vm1 2>&1 || true"
        assert "Invalid argument" in lab.run("hv1", route)
    learned = lab.run(
        "hv2", "ip route show table public proto bird; ip -6 route show table public proto bird"
    )
    assert "203.0.113.0/24" not in learned
    assert "2001:db8:cb00:7100::/56" not in learned


LARGE = 4000
"""Payload in bytes of pings and datagrams that are sent in fragments."""
ANSWER = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
    wire.bind(("::", 5002))
    wire.settimeout(10)
    print("listening", flush=True)
    for _ in range(2):
        wire.sendto(*wire.recvfrom(65535))
"""
ASK = f"""
import os, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as wire:
    wire.settimeout(5)
    data = os.urandom({LARGE})
    wire.sendto(data, (sys.argv[1], 5002))
    print(wire.recv(65535) == data)
"""


@pytest.mark.parametrize("gateway", [GATEWAY, GATEWAY6])
def test_the_gateway_answers_pings_in_fragments(standing: Lab, gateway: str) -> None:
    target = f"{gateway}%eth0" if ":" in gateway else gateway
    printed = standing.run_as_guest("vm2", f"ping -c 3 -i 0.2 -W 2 -s {LARGE} {target} 2>&1 || true")
    assert " 3 received" in printed, printed


def test_the_internet_pings_a_hypervisor_in_fragments(standing: Lab) -> None:
    """Test IPv6 only: a hypervisor does not answer IPv4 pings from outside the fabric."""
    ping = f"ping -I {INTERNET[6]} -c 2 -i 0.2 -W 2 -s {LARGE} 2001:db8:c633:6400::1"
    printed = standing.run("internet", f"{ping} 2>&1 || true")
    assert " 2 received" in printed, printed


def test_guests_exchange_datagrams_in_fragments(standing: Lab) -> None:
    command = standing.as_guest("vm3", "timeout", "20", "python3", "-c", ANSWER)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as answering:
        assert answering.stdout is not None
        assert answering.stdout.readline() == "listening\n"
        for family in (4, 6):
            address = standing.guest_address("vm3", family)
            assert standing.run_as_guest("vm2", f"python3 -c '{ASK}' {address}") == "True\n"

"""The relay of the guests' DHCP messages: what it passes on, and a real client and server beside it."""

from __future__ import annotations

import socket
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import ROOT, in_an_image, loaded

PROGRAM = ROOT / "roles/guest_services/files/dhcp-relay"
RELAY: ModuleType = loaded(PROGRAM)
MAC = "52:54:00:00:00:01"
CONFIGURATION = RELAY.read_configuration(f"""
relay hv1 172.22.2.1
server 172.22.9.53
guest vm1 hv1/vm1 {MAC} 203.0.113.1 203.0.113.254 203.0.113.254
guest vm2 hv1/vm2 52:54:00:00:00:02 203.0.113.2 203.0.113.254 203.0.113.254
""")
VM1 = CONFIGURATION.guests["vm1"]
OWN = socket.inet_aton("172.22.2.1")
DISCOVER = (53, b"\1")


def message(
    kind: int = 1,
    *options: tuple[int, bytes],
    mac: str = MAC,
    relay: bytes = bytes(4),
    hops: int = 0,
    client: str = "0.0.0.0",
    offered: str = "0.0.0.0",
) -> bytes:
    hardware = bytes.fromhex(mac.replace(":", ""))
    none = bytes(4)
    addresses = (socket.inet_aton(client), socket.inet_aton(offered), none, relay)
    head = RELAY.HEADER.pack(kind, 1, 6, hops, 7, 0, 0x8000, *addresses, hardware, b"", RELAY.MAGIC)
    return bytes(head + b"".join(bytes((code, len(value))) + value for code, value in options) + b"\xff")


def relayed(data: bytes) -> bytes | None:
    parsed = RELAY.parse(data)
    is_dropped = parsed is None or RELAY.fault(VM1, parsed)
    return None if is_dropped else RELAY.to_servers(CONFIGURATION, VM1, parsed)


def suboptions(data: bytes) -> dict[int, bytes]:
    parsed = RELAY.parse(data)
    (information,) = [value for code, value in parsed.options if code == 82]
    return dict(RELAY.options_of(information))


def test_option_82_names_the_hypervisor_the_port_and_the_subnet() -> None:
    data = relayed(message(1, DISCOVER))
    assert data is not None
    assert suboptions(data) == {1: b"hv1/vm1", 2: b"hv1", 5: VM1.link, 11: VM1.gateway}
    parsed = RELAY.parse(data)
    assert (parsed.relay, parsed.hops) == (OWN, 1)
    assert DISCOVER in parsed.options


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (message(1, DISCOVER, (82, b"\1\3vm2")), "a message with relay information"),
        (message(1, DISCOVER, relay=VM1.gateway), "a message with the relay 203.0.113.254"),
        (message(1, DISCOVER, mac="52:54:00:00:00:02"), "a message with the MAC 52:54:00:00:00:02"),
        (message(1, DISCOVER, hops=16), "a message after 16 hops"),
        (message(2, DISCOVER), "an answer"),
        (message(1, (53, b"\1"), client="172.22.9.7"), "a message from the address 172.22.9.7"),
        (message(1, (53, b"\3"), (53, b"\10"), client="172.22.9.7"), "a message from the address 172.22.9.7"),
        (message(1, (53, b"\10"), client="172.22.9.7"), "a message from the address 172.22.9.7"),
        (message(1, (53, b"\10"), client="203.0.113.1"), "an inform, which servers answer past the relay,"),
    ],
    ids=[
        "own relay information",
        "a relay",
        "another MAC",
        "a loop",
        "an answer",
        "a discover with the address of another host",
        "two types",
        "an inform for another host",
        "an inform",
    ],
)
def test_a_guest_cannot_impersonate_another(data: bytes, fault: str) -> None:
    assert RELAY.fault(VM1, RELAY.parse(data)) == fault
    assert relayed(data) is None


def test_a_guest_renews_and_releases_its_own_address() -> None:
    for kind in (b"\3", b"\7"):
        assert relayed(message(1, (53, kind), client="203.0.113.1")) is not None


def test_a_guest_with_an_old_address_may_ask_for_it() -> None:
    """The server refuses it, through the relay, and the guest then asks for its new address."""
    assert relayed(message(1, (53, b"\3"), client="203.0.113.77")) is not None


def answered(data: bytes, relay: bytes = OWN, offered: str = "203.0.113.1") -> bytes:
    """Return a server's answer to a relayed message."""
    (information,) = [value for code, value in RELAY.parse(data).options if code == 82]
    return message(2, (53, b"\2"), (82, information), relay=relay, offered=offered)


def test_an_answer_goes_to_the_port_of_its_request_and_loses_the_relay_information() -> None:
    data = relayed(message(1, DISCOVER))
    assert data is not None
    answer = RELAY.parse(answered(data))
    assert RELAY.guest_of(CONFIGURATION, answer) == VM1
    passed_on = RELAY.parse(RELAY.to_guest(answer))
    assert (passed_on.options, passed_on.relay) == ([(53, b"\2")], bytes(4))
    assert len(passed_on.data) >= RELAY.SMALLEST


def test_an_answer_for_another_hypervisor_or_port_is_dropped() -> None:
    data = relayed(message(1, DISCOVER))
    assert data is not None
    elsewhere = RELAY.parse(answered(data.replace(b"\2\3hv1", b"\2\3hv2")))
    assert RELAY.guest_of(CONFIGURATION, elsewhere) is None
    other_port = RELAY.parse(answered(data.replace(b"\1\7hv1/vm1", b"\1\7hv1/vm2")))
    assert RELAY.guest_of(CONFIGURATION, other_port) is None, "the MAC is that of vm1"
    unknown_relay = RELAY.parse(answered(data, relay=socket.inet_aton("172.22.2.9")))
    assert RELAY.guest_of(CONFIGURATION, unknown_relay) is None


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_read_or_dropped(data: bytes, is_framed: bool) -> None:
    parsed = RELAY.parse(message()[:-1] + data if is_framed else data)
    if parsed is not None:
        RELAY.fault(VM1, parsed)
        RELAY.to_servers(CONFIGURATION, VM1, parsed)
        RELAY.guest_of(CONFIGURATION, parsed)
        RELAY.parse(RELAY.to_guest(parsed))


# A guest with udhcpc, the hypervisor with the relay, and a server with dnsmasq, in three namespaces.
LEASE = """
mount -t tmpfs none /run
for name in guest hv server; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n hv link add vm1 type veth peer name eth0 netns guest
ip -n hv link add up0 type veth peer name eth0 netns server
ip -n guest link set eth0 address MAC_OF_GUEST up
for name in vm1 up0; do ip -n hv link set $name up; done
ip -n server link set eth0 up
ip netns exec hv sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
ip -n hv address add 203.0.113.254/32 dev vm1 scope link
ip -n hv route add 203.0.113.1/32 dev vm1 scope link
ip -n hv address add 172.22.2.1/32 dev lo
ip -n hv address add 172.22.9.1/24 dev up0
ip -n server address add 172.22.9.53/24 dev eth0
ip -n server route add 172.22.2.0/24 via 172.22.9.1
mkdir -p /run/l3hv-dhcp-relay
cp "$3" /mnt/root/run/relay.conf
cat >/mnt/root/run/dnsmasq.conf <<'CONFIGURATION'
port=0
dhcp-authoritative
no-ping
user=root
pid-file=
dhcp-leasefile=/run/leases
dhcp-range=set:customers,203.0.113.0,static,255.255.255.0,1h
dhcp-option=tag:customers,option:router,203.0.113.254
dhcp-circuitid=set:vm1,hv1/vm1
dhcp-host=tag:vm1,MAC_OF_GUEST,203.0.113.1
CONFIGURATION
ip netns exec server chroot /mnt/root dnsmasq --keep-in-foreground --conf-file=/run/dnsmasq.conf &
server=$!
ip netns exec hv python3 -I "$2" serve /mnt/root/run/relay.conf &
cat >/mnt/root/run/script <<'SCRIPT'
#!/bin/sh
echo "$1 $ip $router $serverid"
case $1 in bound) ip address add "$ip/24" dev eth0; ip route add default via "$router" ;; esac
SCRIPT
chmod 755 /mnt/root/run/script
for try in $(seq 100); do
    ! python3 -I "$2" in-force /mnt/root/run/relay.conf 2>/dev/null || break
    sleep 0.05
done
ip netns exec guest busybox udhcpc -f -q -n -t 5 -T 1 -i eth0 -s /mnt/root/run/script 2>/dev/null
# A renewal by unicast, to the server that the guest sees: its gateway.
ip netns exec guest sh -c 'busybox udhcpc -f -t 3 -T 1 -i eth0 -s /mnt/root/run/script 2>/dev/null & client=$!
    sleep 3; kill -USR1 $client; sleep 3; kill $client'
# Another MAC on the same port.
ip -n guest link set eth0 address 52:54:00:00:00:66
client="busybox udhcpc -f -q -n -t 2 -T 1 -i eth0 -s /mnt/root/run/script"
ip netns exec guest $client 2>/dev/null || echo refused
kill $server
# A large answer passes, and an answer that is cut off is reported.
ip netns exec guest timeout 5 python3 -c 'RECEIVER' &
receiver=$!
until ip netns exec guest ss -Hlun sport = 68 | grep -q .; do sleep 0.05; done
ip netns exec server python3 -c 'SENDER'
wait $receiver
"""
SENDER = r"""
import socket, struct
none, offered, relay = bytes(4), socket.inet_aton("203.0.113.1"), socket.inet_aton("172.22.2.1")
mac = bytes.fromhex("MAC_OF_GUEST".replace(":", ""))
fields = (2, 1, 6, 0, 7, 0, 0, none, offered, none, relay, mac, b"", b"\x63\x82\x53\x63")
head = struct.pack("!BBBBIHH4s4s4s4s16s192s4s", *fields)
information = b"\1\7hv1/vm1\2\3hv1"
many = (b"\xe0\xff" + bytes(255)) * 20
answer = head + many + bytes((82, len(information))) + information + b"\xff"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("172.22.9.53", 67))
    server.sendto(answer[:-4], ("172.22.2.1", 67))
    server.sendto(answer, ("172.22.2.1", 67))
"""
RECEIVER = r"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.bind(("", 68))
    print("received", len(client.recv(65535)), flush=True)
"""
LARGE = 240 + 20 * 257 + 1
"""The size of the answer without relay information."""


def test_a_guest_gets_its_lease_from_a_server_elsewhere(tmp_path: Path) -> None:
    configuration = tmp_path / "relay.conf"
    guest = f"guest vm1 hv1/vm1 {MAC} 203.0.113.1 203.0.113.254 203.0.113.254"
    configuration.write_text(f"relay hv1 172.22.2.1\nserver 172.22.9.53\n{guest}\n", encoding="ascii")
    script = LEASE.replace("SENDER", SENDER).replace("RECEIVER", RECEIVER).replace("MAC_OF_GUEST", MAC)
    done = in_an_image("debian13", "bird2", script, PROGRAM, configuration)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("deconfig")]
    lease = "203.0.113.1 203.0.113.254 203.0.113.254"
    assert lines[0] == f"bound {lease}", done.stdout + done.stderr
    assert f"renew {lease}" in lines, done.stdout + done.stderr
    assert "refused" in lines, done.stdout + done.stderr
    dropped = "172.22.9.53: 5393 bytes that are no valid DHCP message are dropped"
    assert dropped in lines, done.stdout + done.stderr
    assert f"received {LARGE}" in lines, done.stdout + done.stderr
    assert "vm1: a message with the MAC 52:54:00:00:00:66 is dropped" in done.stdout

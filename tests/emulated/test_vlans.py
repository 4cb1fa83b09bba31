"""Uplinks as VLANs of a NIC: machines create them, and send frames with 802.1Q tags to each other."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from l3hv.twin import network

sys.path.append(str(Path(__file__).resolve().parents[1] / "twin"))
from two_machines import Lab, new_lab

pytestmark = [pytest.mark.twin, pytest.mark.matrix]

INVENTORY = {
    "hosts.yml": "{hypervisors: {hosts: {hv1: , hv2: }}, route_reflectors: {hosts: {rr1: }}}",
    "group_vars/all.yml": """
l3hv_asn: 65040
l3hv_domains:
  public: {table: 90, vlan: 90}
  private: {table: 20, vlan: 20, families: [ipv4], loopbacks: {ipv4: 172.22.2.0/24}}
l3hv_mtu: 9000
l3hv_guest_mtu: 8900
l3hv_paths:
  a:
    public: {ipv4: 198.51.100.0/25, ipv6: "2001:db8:c633:6400::/120"}
    private: {ipv4: 172.22.15.0/25}
l3hv_pools:
  customers: {ipv4: 203.0.113.0/24, gateway: 203.0.113.254, ipv6: "2001:db8:cb00:7100::/56"}
  services: {domain: private, ipv4: 10.30.0.0/24, gateway: 10.30.0.254, mtu: 1500}
l3hv_uplinks: {a: eno1}
""",
    "host_vars/hv1.yml": """
l3hv_id: 1
l3hv_guests:
  - {name: vm1, mac: "50:54:33:00:00:01", ipv4: 203.0.113.1}
  - {name: svc1, mac: "50:54:33:00:01:01", domain: private, ipv4: 10.30.0.1}
""",
    "host_vars/hv2.yml": """
l3hv_id: 2
l3hv_guests:
  - {name: vm2, mac: "50:54:33:00:00:02", ipv4: 203.0.113.2}
  - {name: svc2, mac: "50:54:33:00:01:02", domain: private, ipv4: 10.30.0.2}
""",
    "host_vars/rr1.yml": "{l3hv_id: 126}",
}
VLANS = {"eno1.90": (90, "198.51.100.1"), "eno1.20": (20, "172.22.15.1")}
"""The id of each VLAN of hv1, and an address of hv1 in it."""

PRIORITIES = {0: 0, 5: 0, 6: 6, 7: 7}
"""The kernel's priority of a packet, and the frame's: only 6 and 7 are kept."""

ETH_P_ALL, ARP, IPV4, VLAN = 0x0003, 0x0806, 0x0800, 0x8100
SOL_PACKET, PACKET_AUXDATA, TAG_IS_VALID = 263, 8, 0x10
BROADCAST = """
import socket, sys
for priority in sys.argv[2:]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packet:
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, int(priority))
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
        packet.sendto(f"{sys.argv[1]} priority {priority}.".encode(), ("255.255.255.255", 9))
"""


@dataclass(frozen=True)
class Frame:
    """A frame on a cable, without its tag, and the tag's VLAN and priority (None without a tag)."""

    content: bytes
    vlan: int | None
    priority: int | None
    is_received: bool


class Cable:
    """The switch's end of a machine's cable, which sees all frames, and sends frames to the machine."""

    def __init__(self, lab: Lab, machine: str, interface: str) -> None:
        with network.entered(f"l3hv-{lab.name}-switch"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.bind((network.interface_name(machine, interface), ETH_P_ALL))

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def frames(self, seconds: float) -> Iterator[Frame]:
        """Yield the frames of the next seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                content, auxiliary, _, address = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                return
            # The kernel takes the tag out of the frame.
            status, tag = struct.unpack_from("=I12xH", auxiliary[0][2])
            vlan, priority = (tag & 0xFFF, tag >> 13) if status & TAG_IS_VALID else (None, None)
            yield Frame(content, vlan, priority, address[2] != socket.PACKET_OUTGOING)

    def first(self, what: str, is_wanted: Callable[[Frame], bool], seconds: float = 10) -> Frame:
        for frame in self.frames(seconds):
            if is_wanted(frame):
                return frame
        raise AssertionError(f"{what}: no such frame within {seconds:g} s")


def who_has(address: str, asker: str, vlan: int) -> bytes:
    """Return an ARP request with a tag."""
    mac = bytes.fromhex("025254000001")
    header = b"\xff" * 6 + mac + struct.pack("!HHH", VLAN, 6 << 13 | vlan, ARP)
    request = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + mac + ipaddress.ip_address(asker).packed
    return header + request + bytes(6) + ipaddress.ip_address(address).packed


def is_answer_for(address: str, frame: Frame) -> bool:
    """Return whether a frame is an ARP reply for an address."""
    header = struct.pack("!HHHBBH", ARP, 1, IPV4, 6, 4, 2)
    return frame.content[12:22] == header and frame.content[28:32] == ipaddress.ip_address(address).packed


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vlans")
    for name, text in INVENTORY.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
def fabric(inventory: Path) -> Iterator[Lab]:
    made = new_lab("vlan")
    done = subprocess.run(
        made.command("up", "--tagged", "-i", str(inventory)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    play(made, "site.yml")
    yield made
    made.do("down")
    assert made.leftovers() == []


def play(fabric: Lab, playbook: str) -> str:
    done = subprocess.run(fabric.command("play", playbook), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def links(fabric: Lab) -> dict[str, Any]:
    shown = json.loads(fabric.sh("hv1", "ip -details -json address show"))
    return {link["ifname"]: link for link in shown}


def test_a_machine_has_its_nics(fabric: Lab) -> None:
    assert fabric.machine("hv1")["ports"] == {"eno1": "up"}


def test_verification_finds_no_difference(fabric: Lab) -> None:
    play(fabric, "playbooks/verify.yml")


def test_the_vlans_are_as_planned(links: dict[str, Any]) -> None:
    for name, (number, address) in VLANS.items():
        link = links[name]
        vlan = link["linkinfo"]["info_data"]
        assert (link["linkinfo"]["info_kind"], link["link"]) == ("vlan", "eno1")
        assert (vlan["protocol"], vlan["id"]) == ("802.1Q", number)
        for maps in ("egress_qos", "ingress_qos"):
            assert [f"{entry['from']}-{entry['to']}" for entry in vlan[maps]] == ["6-6", "7-7"]
        assert (link["operstate"], link["mtu"]) == ("UP", 9000)
        assert address in {entry["local"] for entry in link["addr_info"]}


def test_the_nic_carries_only_the_vlans(links: dict[str, Any]) -> None:
    assert (links["eno1"]["operstate"], links["eno1"]["mtu"], links["eno1"]["addr_info"]) == ("UP", 9000, [])
    assert {name for name, found in links.items() if found.get("link") == "eno1"} == set(VLANS)


def test_frames_leave_with_the_vlans_tag_and_the_mapped_priority(fabric: Lab) -> None:
    for name, (vlan, _) in VLANS.items():
        with Cable(fabric, "hv1", "eno1") as cable:
            words = [name, *map(str, PRIORITIES)]
            fabric.do("exec", "hv1", "--", "python3", "-c", BROADCAST, *words)
            found = list(cable.frames(1))
        for priority, expected in PRIORITIES.items():
            content = f"{name} priority {priority}.".encode()
            tags = [(frame.vlan, frame.priority) for frame in found if content in frame.content]
            assert tags == [(vlan, expected)], content


def test_the_machine_answers_in_the_vlan_of_the_request(fabric: Lab) -> None:
    for vlan, address in VLANS.values():
        asker = str(ipaddress.ip_network(f"{address}/25", strict=False)[-2])
        with Cable(fabric, "hv1", "eno1") as cable:
            for asked in (vlan + 1, vlan):
                cable.send(who_has(address, asker, asked))
            replies = [
                frame.vlan for frame in cable.frames(3) if frame.is_received and is_answer_for(address, frame)
            ]
        assert set(replies) == {vlan}


def is_ipv4_to(address: bytes, frame: Frame) -> bool:
    """Return whether a frame has an IPv4 packet to an address."""
    return frame.content[12:14] == b"\x08\x00" and frame.content[30:34] == address


def test_packets_of_guests_have_the_tag_of_their_domain(fabric: Lab) -> None:
    for source, target, vlan in (("vm1", "203.0.113.2", 90), ("svc1", "10.30.0.2", 20)):
        packed = ipaddress.ip_address(target).packed
        with Cable(fabric, "hv2", "eno1") as cable:
            fabric.do("guest", source, "--", "ping", "-c", "1", "-W", "2", target)
            frame = cable.first(f"a ping to {target}", partial(is_ipv4_to, packed))
        assert frame.vlan == vlan


def test_a_cut_of_a_trunk_concerns_all_vlans(fabric: Lab) -> None:
    fabric.do("cut", "hv2", "a")
    for source, target in (("vm1", "203.0.113.2"), ("svc1", "10.30.0.2")):
        assert fabric.run("guest", source, "--", "ping", "-c", "1", "-W", "1", target).returncode != 0
    assert "it has (path, domain): a 802.1q" in fabric.run("heal", "hv2", "a", "--domain", "public").stderr
    fabric.do("heal", "hv2", "a")

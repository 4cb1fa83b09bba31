"""Uplinks as VLANs of two NICs: the files of the role on a kernel with 802.1Q, and real frames."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulated_machine import Console, Wire, emulated_machine

pytestmark = pytest.mark.twin

TESTS = Path(__file__).resolve().parents[1]
PLAN = TESTS / "golden" / "vlans" / "expected" / "hv1" / "plan.yml"
PLACED = PLAN.parent / "etc" / "systemd"

VLAN, ARP, IPV4 = 0x8100, 0x0806, 0x0800
PRIORITIES = {
    0: 0,
    5: 0,
    6: 6,
    7: 7,
}  # The kernel's priority of a packet, and the frame's: only 6 and 7 are kept.

OBSERVER_UNIT = """\
[Unit]
After=systemd-networkd.service
[Service]
ExecStart=/usr/bin/python3 /observer.py
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
"""

# Waits for the addresses of the plan, prints the links, and sends a packet of each priority.
OBSERVER = """\
import json, socket, subprocess, time

plan = json.load(open("/plan.json"))

def links():
    shown = subprocess.check_output(["ip", "-details", "-json", "address", "show"])
    return {link["ifname"]: link for link in json.loads(shown)}

def complete(found):
    return all(
        address["address"] in [
            entry["local"] for entry in found[uplink["interface"]]["addr_info"] if not entry.get("tentative")
        ]
        for uplink in plan["uplinks"] if uplink["interface"] in found for address in uplink["addresses"]
    ) and all(uplink["interface"] in found for uplink in plan["uplinks"])

deadline = time.monotonic() + 30
while not complete(found := links()) and time.monotonic() < deadline:
    time.sleep(0.1)
print("links:" + json.dumps(found), flush=True)
for uplink in plan["uplinks"]:
    for priority in plan["priorities"]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packet:
            packet.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            packet.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
            packet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, uplink["interface"].encode())
            packet.sendto(f"{uplink['interface']} priority {priority}.".encode(), ("255.255.255.255", 9))
time.sleep(600)
"""


@dataclass(frozen=True)
class Tagged:
    """An Ethernet frame with the parts of its 802.1Q tag."""

    vlan: int
    priority: int
    ethertype: int
    payload: bytes


def tagged(frame: bytes) -> Tagged | None:
    """Parse a frame; return None if it has no tag."""
    if struct.unpack_from("!H", frame, 12)[0] != VLAN:
        return None
    tag, ethertype = struct.unpack_from("!HH", frame, 14)
    return Tagged(tag & 0xFFF, tag >> 13, ethertype, frame[18:])


def who_has(address: str, asker: str, vlan: int) -> bytes:
    """Return an ARP request with a tag."""
    mac = bytes.fromhex("025254000001")
    header = b"\xff" * 6 + mac + struct.pack("!HHH", VLAN, 6 << 13 | vlan, ARP)
    request = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + mac + ipaddress.ip_address(asker).packed
    return header + request + bytes(6) + ipaddress.ip_address(address).packed


def answers_for(address: str, frame: bytes) -> Tagged | None:
    """Return the frame if it is a tagged ARP reply for an address."""
    found = tagged(frame)
    if found is None or found.ethertype != ARP or found.payload[6:8] != b"\0\2":
        return None
    return found if found.payload[14:18] == ipaddress.ip_address(address).packed else None


def placed_files() -> dict[str, str]:
    """Return the expected files of the role `uplinks` for systemd-networkd."""
    paths = [*PLACED.glob("networkd.conf.d/*"), *PLACED.glob("network/05-l3hv-nic-*")]
    paths += PLACED.glob("network/05-l3hv-uplink-*")
    return {f"etc/systemd/{path.relative_to(PLACED)}": path.read_text() for path in paths}


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    assert {uplink["vlan"]["id"] for uplink in found["uplinks"]} == {20, 90}
    return found


@pytest.fixture(scope="module")
def machine(
    plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Console, dict[str, Wire]]]:
    nics = {nic["interface"]: f"02:00:00:00:00:{number:02x}" for number, nic in enumerate(plan["nics"], 1)}
    seen = json.dumps({"uplinks": plan["uplinks"], "priorities": list(PRIORITIES)})
    files = {**placed_files(), "plan.json": seen, "observer.py": OBSERVER}
    units = {"observer.service": OBSERVER_UNIT}
    with emulated_machine(tmp_path_factory.mktemp("machine"), nics, files, units) as booted:
        yield booted


@pytest.fixture(scope="module")
def links(machine: tuple[Console, dict[str, Wire]]) -> dict[str, Any]:
    found: dict[str, Any] = machine[0].await_json("links:", seconds=240)
    return found


@pytest.fixture(scope="module")
def wires(machine: tuple[Console, dict[str, Wire]], links: dict[str, Any]) -> dict[str, Wire]:
    return machine[1]


def test_the_vlans_are_as_planned(plan: dict[str, Any], links: dict[str, Any]) -> None:
    for uplink in plan["uplinks"]:
        link = links[uplink["interface"]]
        vlan = link["linkinfo"]["info_data"]
        assert link["linkinfo"]["info_kind"] == "vlan"
        assert link["link"] == uplink["vlan"]["parent"]
        assert (vlan["protocol"], vlan["id"]) == ("802.1Q", uplink["vlan"]["id"])
        for maps in ("egress_qos", "ingress_qos"):
            assert [f"{entry['from']}-{entry['to']}" for entry in vlan[maps]] == uplink["vlan"]["qos_maps"]
        assert link["operstate"] == "UP"
        assert link["mtu"] == uplink["mtu"]
        shown = {
            f"{entry['local']}/{entry['prefixlen']}"
            for entry in link["addr_info"]
            if entry["scope"] == "global"
        }
        assert shown == {f"{address['address']}/{address['length']}" for address in uplink["addresses"]}


def test_the_nics_carry_only_the_vlans(plan: dict[str, Any], links: dict[str, Any]) -> None:
    for nic in plan["nics"]:
        link = links[nic["interface"]]
        assert (link["operstate"], link["mtu"], link["addr_info"]) == ("UP", nic["mtu"], [])
        assert {name for name, found in links.items() if found.get("link") == nic["interface"]} == set(
            nic["vlans"]
        )


def test_frames_leave_with_the_vlans_tag_and_the_mapped_priority(
    plan: dict[str, Any], wires: dict[str, Wire]
) -> None:
    for uplink in plan["uplinks"]:
        for priority, expected in PRIORITIES.items():
            content = f"{uplink['interface']} priority {priority}.".encode()
            wire = wires[uplink["vlan"]["parent"]]
            seen = wire.await_frame(str(content), lambda frame, c=content: frame if c in frame else None)
            frame = tagged(seen)
            assert frame is not None, f"{content!r} left without a tag"
            assert (frame.vlan, frame.priority) == (uplink["vlan"]["id"], expected), content


def test_the_machine_answers_in_the_vlan_of_the_request(plan: dict[str, Any], wires: dict[str, Wire]) -> None:
    for uplink in plan["uplinks"]:
        wire, vlan = wires[uplink["vlan"]["parent"]], uplink["vlan"]["id"]
        ours = uplink["addresses"][0]
        network = ipaddress.ip_network(ours["prefix"])
        asker = str(network[-2])
        for asked in (vlan + 1, vlan):
            wire.send(who_has(ours["address"], asker, asked))
        reply = wire.await_frame(
            f"{ours['address']} in VLAN {vlan}", lambda frame, a=ours["address"]: answers_for(a, frame)
        )
        assert reply.vlan == vlan
        replies = [found for frame in wire.frames if (found := answers_for(ours["address"], frame))]
        assert [found.vlan for found in replies] == [vlan], "the machine answered in other VLANs too"

"""Guests whose hypervisors relay DHCP to two servers in the private domain, Kea 2.6 and Kea 2.2.

The servers stop, are cut off and answer wrongly; guests lie, move and come back; relays die.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import inet_aton

import pytest
from dhcp_client import ACK, DISCOVER, OFFER, REQUEST, REQUESTED, SERVER, Answer, Client, client
from lab import Flows, Lab, booted, wait_for

from l3hv.twin.network import processes_in
from l3hv.twin.state import Twin

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = {"services": "172.22.9.53", "services2": "172.22.9.54"}
GATEWAY = "203.0.113.254"
GUESTS = {"vm1": "203.0.113.1", "vm2": "203.0.113.2", "vm3": "203.0.113.3", "vm4": "203.0.113.4"}
FLOWS = (Flows("vm2", "vm3", 4), Flows("vm1", "vm4", 4))
CONFIGURATION = "/etc/kea/l3hv/kea-dhcp4.conf"
SECOND = """---
l3hv_id: 122
l3hv_system: debian12
l3hv_uplinks:
  a: {private: a-private}
  b: {private: b-private}
l3hv_edge_domains: [private]
l3hv_addresses: [172.22.9.54]
l3hv_serves_dhcp_at: 172.22.9.54
"""
STATISTIC = """python3 -c '
import json, socket
control = socket.socket(socket.AF_UNIX)
control.connect("/run/kea/kea4-ctrl-socket")
control.sendall(json.dumps({"command": "statistic-get", "arguments": {"name": "NAME"}}).encode())
print(json.loads(b"".join(iter(lambda: control.recv(65536), b"")))["arguments"]["NAME"][0][0])'
"""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the inventory of the design, and add a second server."""
    copy = tmp_path_factory.mktemp("inventories") / "dhcp-relay"
    shutil.copytree(REPOSITORY / "inventories/dhcp-relay", copy)
    (copy / "host_vars/services2.yml").write_text(SECOND, encoding="utf-8")
    for path, old, new in (
        (copy / "hosts.yml", "    services:\n", "    services:\n    services2:\n"),
        (copy / "group_vars/all/fabric.yml", "[172.22.9.53]", "[172.22.9.53, 172.22.9.54]"),
        (copy / "group_vars/all/fabric.yml", "[172.22.9.53/32]", "[172.22.9.53/32, 172.22.9.54/32]"),
    ):
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def fabric(inventory: Path) -> Iterator[Lab]:
    """Boot and provision the fabric in a twin of its own; guests have their leases."""
    with booted("keadhcp", inventory) as made:
        made.provision()
        wait_for("the leases", lambda: all(made.has_addresses(guest) for guest in GUESTS), 60)
        yield made


def namespace(fabric: Lab, guest: str) -> str:
    return Twin(fabric.name, print).guest_namespace(guest)


def offer(fabric: Lab, guest: str, seconds: float = 5) -> Answer | None:
    """Return the offer that a guest gets now; None if there is none."""
    with client(namespace(fabric, guest)) as opened:
        return opened.ask(DISCOVER, seconds=seconds)


def offered(fabric: Lab, guest: str) -> str | None:
    found = offer(fabric, guest)
    return found.offered if found is not None and found.kind == OFFER else None


def statistic(fabric: Lab, server: str, name: str) -> int:
    return int(fabric.run(server, STATISTIC.replace("NAME", name)))


def renew(fabric: Lab, guest: str) -> None:
    """Make the guest's udhcpc renew its lease by unicast."""
    for process in processes_in([namespace(fabric, guest)]):
        os.kill(process, signal.SIGUSR1)


def logged(fabric: Lab, machine: str, unit: str, text: str) -> bool:
    return text in fabric.run(machine, f"journalctl --quiet --output=cat --unit={unit}")


def is_active(fabric: Lab, machine: str, unit: str) -> bool:
    return fabric.run(machine, f"systemctl is-active {unit} || :").strip() == "active"


@contextmanager
def no_loss(fabric: Lab) -> Iterator[None]:
    with fabric.steady_traffic(*FLOWS) as traffic:
        yield
    assert traffic.lost() == {}


def test_a_second_run_changes_nothing_and_all_hosts_verify(fabric: Lab) -> None:
    assert fabric.provision() == {}
    assert fabric.playbook("site.yml", "--check", "--diff").changed_hosts() == {}
    fabric.playbook("playbooks/verify.yml")
    versions = [fabric.run(server, "kea-dhcp4 -v").split(".")[:2] for server in SERVERS]
    assert versions == [["2", "6"], ["2", "2"]]


def test_each_guest_has_its_address_from_its_gateway(fabric: Lab) -> None:
    for guest, address in GUESTS.items():
        found = offer(fabric, guest)
        assert found is not None
        assert (found.offered, found.source, found.server) == (address, GATEWAY, GATEWAY)
        assert (found.is_ready, found.has_good_checksum) == (True, True)


def assert_every_server_renews(fabric: Lab, guest: str) -> None:
    before = {server: statistic(fabric, server, "pkt4-ack-sent") for server in SERVERS}

    def answered(server: str) -> bool:
        return statistic(fabric, server, "pkt4-ack-sent") > before[server]

    renew(fabric, guest)
    wait_for("the renewal at every server", lambda: all(map(answered, SERVERS)), 10)


def test_renewals_reach_every_server(fabric: Lab) -> None:
    assert_every_server_renews(fabric, "vm2")


@pytest.mark.parametrize("name", ["dhclient", "networkd"])
def test_other_clients_have_their_leases(fabric: Lab, name: str) -> None:
    fabric.twin("unplug", "vm2")
    fabric.twin("plug", "vm2", "--client", name, seconds=600)
    try:
        wait_for("a lease", lambda: GUESTS["vm2"] in fabric.guest_addresses("vm2"), 60)
    finally:
        fabric.twin("unplug", "vm2")
        fabric.twin("plug", "vm2")
        wait_for("the lease of udhcpc", lambda: fabric.has_addresses("vm2"), 30)


def test_a_guest_that_is_plugged_later_gets_its_lease(fabric: Lab) -> None:
    fabric.twin("unplug", "vm1")
    fabric.twin("plug", "vm1")
    wait_for("a lease", lambda: GUESTS["vm1"] in fabric.guest_addresses("vm1"), 30)


def test_one_server_is_enough(fabric: Lab) -> None:
    with no_loss(fabric):
        fabric.run("services", "systemctl stop l3hv-dhcp-server")
        try:
            assert offered(fabric, "vm2") == GUESTS["vm2"]
            text = "172.22.9.53 vm2: the DHCP server does not answer this guest"
            wait_for("the log", lambda: logged(fabric, "hv1", "l3hv-dhcp-relay", text), 20)
        finally:
            fabric.run("services", "systemctl start l3hv-dhcp-server")
        text = "172.22.9.53 vm2 again: the DHCP server answers this guest again"
        wait_for(
            "the log of the answer",
            lambda: (
                offered(fabric, "vm2") == GUESTS["vm2"] and logged(fabric, "hv1", "l3hv-dhcp-relay", text)
            ),
            20,
        )


def test_guests_keep_their_leases_while_no_server_runs(fabric: Lab) -> None:
    with no_loss(fabric):
        for server in SERVERS:
            fabric.run(server, "systemctl stop l3hv-dhcp-server")
        try:
            # udhcpc ends its lease after three attempts of a renewal on a signal, but not by its timer.
            assert offer(fabric, "vm2", seconds=3) is None
            assert GUESTS["vm2"] in fabric.guest_addresses("vm2")
        finally:
            for server in SERVERS:
                fabric.run(server, "systemctl start l3hv-dhcp-server")
        wait_for("an offer", lambda: offered(fabric, "vm2") == GUESTS["vm2"], 20)


def test_a_server_is_reached_over_the_other_path(fabric: Lab) -> None:
    fabric.run("services2", "systemctl stop l3hv-dhcp-server")
    try:
        for path in ("a", "b"):
            fabric.twin("cut", "services", path)
            try:
                wait_for(
                    f"an offer without path {path}",
                    lambda: (found := offer(fabric, "vm3", seconds=1)) and found.offered == GUESTS["vm3"],
                    20,
                )
            finally:
                fabric.twin("heal", "services", path)
            wait_for("the path", lambda: fabric.established("services"), 30)
        with no_loss(fabric):
            for path in ("a", "b"):
                fabric.twin("cut", "services", path)
            try:
                assert offer(fabric, "vm3", seconds=3) is None
                assert GUESTS["vm3"] in fabric.guest_addresses("vm3")
            finally:
                for path in ("a", "b"):
                    fabric.twin("heal", "services", path)
            wait_for("an offer", lambda: offered(fabric, "vm3") == GUESTS["vm3"], 60)
    finally:
        fabric.run("services2", "systemctl start l3hv-dhcp-server")


@pytest.mark.parametrize(
    ("machine", "unit"),
    [
        ("hv1", "l3hv-dhcp-relay"),
        ("services", "l3hv-dhcp-server"),
        ("services2", "l3hv-dhcp-server"),
    ],
)
def test_a_killed_process_is_started_again(fabric: Lab, machine: str, unit: str) -> None:
    def process() -> str:
        return fabric.run(machine, f"systemctl show --property=MainPID --value {unit}").strip()

    before = process()
    with no_loss(fabric):
        fabric.run(machine, f"systemctl kill --signal=KILL {unit}")
        wait_for("another process", lambda: process() not in ("0", before), 15)
        wait_for("an offer", lambda: offered(fabric, "vm2") == GUESTS["vm2"], 15)


def send(wire: Client, *, mac: bytes, relay: str, options: bytes) -> None:
    """Broadcast a DHCPDISCOVER with another MAC, relay or options, in a frame from the guest's MAC."""
    message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, b"lie!", 0, 0x8000) + bytes(12) + inet_aton(relay)
    message += mac.ljust(16, b"\0") + bytes(192) + bytes.fromhex("63825363350101") + options + b"\xff"
    segment = struct.pack("!HHHH", 68, 67, 8 + len(message), 0) + message
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    wire.wire.send(b"\xff" * 6 + wire.mac + b"\x08\x00" + header + segment)


def test_a_guest_cannot_pass_for_another(fabric: Lab) -> None:
    """No forged message reaches a server; an honest one after it does."""
    other = bytes.fromhex("50543300000f")
    circuit = b"\x52\x09\x01\x07hv2/vm3"
    before = {server: statistic(fabric, server, "pkt4-received") for server in SERVERS}
    with client(namespace(fabric, "vm2")) as opened:
        send(opened, mac=opened.mac, relay="0.0.0.0", options=circuit)
        send(opened, mac=opened.mac, relay="172.22.2.2", options=b"")
        send(opened, mac=other, relay="0.0.0.0", options=b"")
    assert offered(fabric, "vm2") == GUESTS["vm2"]
    received = {server: statistic(fabric, server, "pkt4-received") - before[server] for server in SERVERS}
    assert received == dict.fromkeys(SERVERS, 1)
    # The relay logs the first of them only: at most one line in ten seconds about a port.
    assert logged(fabric, "hv1", "l3hv-dhcp-relay", "vm2: a message with relay information is dropped")


def test_a_guest_does_not_reach_a_server_itself(fabric: Lab) -> None:
    """The servers are in the private domain, and the guest is in the public one."""
    script = REPOSITORY / "tests/roles/dhcp_message.py"
    before = {server: statistic(fabric, server, "pkt4-received") for server in SERVERS}
    relay = GUESTS["vm2"]
    said = fabric.run_as_guest(
        "vm2", f"python3 -I {script} {relay} {relay} {GATEWAY} hv2/vm3 50:54:33:00:00:0f"
    )
    assert said.strip() == "silence"
    assert {server: statistic(fabric, server, "pkt4-received") for server in SERVERS} == before


def test_an_answer_with_another_address_is_dropped(fabric: Lab) -> None:
    """A server with a wrong lease is named by the relay and by verification; a run repairs it."""
    for server in SERVERS:
        fabric.run(server, f"sed -i 's/203.0.113.2\"/203.0.113.99\"/' {CONFIGURATION}")
        fabric.run(server, "systemctl reload l3hv-dhcp-server")
    assert offer(fabric, "vm2", seconds=3) is None
    text = "offers 203.0.113.99, but the guest has 203.0.113.2: correct the server"
    assert logged(fabric, "hv1", "l3hv-dhcp-relay", text)
    output = fabric.failing_playbook("playbooks/verify.yml").output
    assert "services: configuration of l3hv-dhcp-server" in output
    assert f"{CONFIGURATION} was changed after it was placed" in output
    assert "hv1: lease vm2" in output
    assert set(fabric.provision()) == set(SERVERS)
    assert offered(fabric, "vm2") == GUESTS["vm2"]


def test_a_moved_guest_keeps_its_address(fabric: Lab, inventory: Path, tmp_path: Path) -> None:
    """Both servers know the guest at its new port before the guest asks there."""
    moved = tmp_path / "dhcp-relay"
    shutil.copytree(inventory, moved)
    old, new = moved / "host_vars/hv1.yml", moved / "host_vars/hv2.yml"
    head, guest = old.read_text(encoding="utf-8").split("  - name: vm2\n")
    old.write_text(head, encoding="utf-8")
    new.write_text(f"{new.read_text(encoding='utf-8')}  - name: vm2\n{guest}", encoding="utf-8")
    assert set(fabric.provision(inventory=moved)) >= {"hv1", "hv2", *SERVERS}
    try:
        fabric.twin("plug", "vm2", "--on", "hv2")
        wait_for("an offer at hv2", lambda: offered(fabric, "vm2") == GUESTS["vm2"], 20)
        assert_every_server_renews(fabric, "vm2")
        assert GUESTS["vm2"] in fabric.guest_addresses("vm2")
    finally:
        fabric.provision()
        fabric.twin("plug", "vm2", "--on", "hv1")
    wait_for("an offer at hv1", lambda: offered(fabric, "vm2") == GUESTS["vm2"], 20)


def test_a_new_mac_gets_the_address_at_once(fabric: Lab, inventory: Path, tmp_path: Path) -> None:
    """The lease of the old MAC does not withhold the address."""
    changed = tmp_path / "dhcp-relay"
    shutil.copytree(inventory, changed)
    path = changed / "host_vars/hv1.yml"
    text = path.read_text(encoding="utf-8")
    assert "50:54:33:00:00:09" in text
    path.write_text(text.replace("50:54:33:00:00:09", "50:54:33:00:00:99"), encoding="utf-8")
    mac = json.loads(fabric.run_as_guest("vm2", "ip -json link show dev eth0"))[0]["address"]
    fabric.provision(inventory=changed)
    try:
        fabric.run_as_guest("vm2", "ip link set dev eth0 address 50:54:33:00:00:99")
        with client(namespace(fabric, "vm2")) as opened:
            found = wait_for("an offer", lambda: opened.ask(DISCOVER), 20)
            assert found is not None
            wanted = ((REQUESTED, inet_aton(found.offered)), (SERVER, inet_aton(found.server)))
            answer = opened.ask(REQUEST, *wanted)
        assert answer is not None
        assert (answer.kind, answer.offered) == (ACK, GUESTS["vm2"])
    finally:
        fabric.run_as_guest("vm2", f"ip link set dev eth0 address {mac}")
        fabric.provision()
    wait_for("an offer", lambda: offered(fabric, "vm2") == GUESTS["vm2"], 20)


def test_a_host_that_no_longer_serves_stops_kea(fabric: Lab, inventory: Path, tmp_path: Path) -> None:
    """The run removes the server's files; Debian's own configuration of Kea stays."""
    one = tmp_path / "dhcp-relay"
    shutil.copytree(inventory, one)
    path = one / "host_vars/services2.yml"
    path.write_text(SECOND.replace("l3hv_serves_dhcp_at: 172.22.9.54\n", ""), encoding="utf-8")
    fabric.provision(inventory=one)
    assert not is_active(fabric, "services2", "l3hv-dhcp-server")
    assert fabric.run("services2", f"ls {CONFIGURATION} 2>&1 || :").endswith("No such file or directory\n")
    assert fabric.run("services2", "ls /etc/kea/kea-dhcp4.conf").strip() == "/etc/kea/kea-dhcp4.conf"
    assert offered(fabric, "vm2") == GUESTS["vm2"]
    assert "services2" in fabric.provision()
    assert is_active(fabric, "services2", "l3hv-dhcp-server")

"""The verbs of the twin on an emulated machine beside a container. These tests need root."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "twin"))
from two_machines import Lab, eventually, guest, new_lab, port

pytestmark = pytest.mark.twin

SYSTEM = {"kind": "hypervisor", "system": "debian13"}
EMULATED = {"name": "m1", **SYSTEM, "ports": [port("a")], "emulated": True}
CONTAINER = {"name": "m2", **SYSTEM, "kind": "route_reflector", "ports": [port("a"), port("b")]}
TOPOLOGY = {"machines": [EMULATED, CONTAINER], "guests": [guest(1, "m1")]}
MORE_PORTS = {
    "machines": [EMULATED | {"ports": [port("a"), port("b")]}, CONTAINER],
    "guests": [guest(1, "m1"), guest(2, "m1", interface="vm-two")],
}
BOOT_SECONDS = 120
# The gateway, addresses and routes of the guest, without the roles and without DHCP.
PROVISION = """
ip address replace 203.0.113.1/24 dev eno0.90; ip link set eno0.90 up
sysctl -qw net.ipv4.ip_forward=1
ip address replace 192.0.2.254/32 dev vm-1 scope link; ip route replace 192.0.2.1 dev vm-1
"""
GUEST = """
ip address replace 192.0.2.1/32 dev eth0; ip route replace 192.0.2.254 dev eth0 scope link
ip route replace default via 192.0.2.254
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = new_lab("emul")
    made.do("down")
    up(made, tmp_path_factory.mktemp("topology"), TOPOLOGY)
    yield made
    made.do("down")
    assert made.leftovers() == []


def up(lab: Lab, directory: Path, topology: object) -> dict[str, list[str]]:
    """Apply a topology and return the result of ``up``."""
    path = directory / "topology.json"
    path.write_text(json.dumps(topology))
    found: dict[str, list[str]] = lab.json("up", "--topology", str(path))
    return found


def provision(lab: Lab) -> None:
    """Configure addresses on both machines and the guest, and wait until the guest reaches the container."""
    eventually(lambda: lab.run("exec", "m1", "--", "ip", "link", "show", "vm-1").returncode == 0)
    lab.sh("m1", PROVISION)
    lab.sh(
        "m2",
        "ip address replace 203.0.113.2/24 dev eno0.90; ip link set eno0.90 up;"
        "ip route replace 192.0.2.1 via 203.0.113.1",
    )
    lab.do("guest", "vm1", "--", "sh", "-ec", GUEST)
    eventually(lambda: reaches(lab))


def reaches(lab: Lab) -> bool:
    return lab.run("guest", "vm1", "--", "ping", "-c1", "-W1", "203.0.113.2").returncode == 0


def test_the_machine_has_its_own_kernel_and_no_failed_unit(lab: Lab) -> None:
    assert [lab.machine(name)["emulated"] for name in ("m1", "m2")] == [True, False]
    assert "cloud-amd64" in lab.sh("m1", "uname -r")
    assert lab.sh("m1", "uname -r") != lab.sh("m2", "uname -r")
    assert lab.sh("m1", "systemctl is-system-running; systemctl --failed --plain --no-legend") == "running\n"
    done = lab.run("exec", "m1", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_its_kernel_has_what_containers_may_lack(lab: Lab) -> None:
    lab.sh(
        "m1",
        "ip link add l3vrf type vrf table 10; ip link add link eno0.90 name l3vlan type vlan id 10;"
        "ip link del l3vlan; ip link del l3vrf",
    )


def test_ports_are_down_and_the_management_port_has_the_only_address(lab: Lab) -> None:
    shown = json.loads(lab.sh("m1", "ip -json address"))
    found = {link["ifname"]: (link["operstate"], len(link["addr_info"])) for link in shown}
    assert found["eno0.90"] == ("DOWN", 0)
    assert found["mgmt0"] == ("UP", 1)
    assert lab.sh("m1", "ip route show table main") == ""


def test_a_guest_reaches_the_container_through_the_machine(lab: Lab) -> None:
    provision(lab)
    result = lab.json("probe", "vm1", "m2", "--flows", "4", "--seconds", "3")
    assert (result["sent"], result["lost"]) == (1200, 0)


def test_a_cut_is_silent_and_a_lost_carrier_is_seen(lab: Lab) -> None:
    provision(lab)
    lab.do("cut", "m1", "a")
    assert not reaches(lab)
    assert "LOWER_UP" in lab.sh("m1", "ip link show dev eno0.90")
    lab.do("heal", "m1", "a")
    assert reaches(lab)
    lab.do("carrier", "m1", "a", "down")
    eventually(lambda: "NO-CARRIER" in lab.sh("m1", "ip link show dev eno0.90"))
    lab.do("carrier", "m1", "a", "up")
    eventually(lambda: reaches(lab))


def test_a_guest_is_unplugged_plugged_and_moved(lab: Lab) -> None:
    lab.do("unplug", "vm1")
    eventually(lambda: "vm-1" not in lab.sh("m1", "ip -brief link"))
    lab.do("plug", "vm1")
    eventually(lambda: "UP" in lab.sh("m1", "ip -brief link show vm-1 || true"))
    assert "fe:54:00:00:00:01" in lab.sh("m1", "ip link show vm-1")
    lab.do("plug", "vm1", "--on", "m2")
    assert "fe:54:00:00:00:01" in lab.sh("m2", "ip link show vm-1")
    eventually(lambda: "vm-1" not in lab.sh("m1", "ip -brief link"))
    lab.do("plug", "vm1", "--on", "m1")
    provision(lab)


@pytest.mark.matrix
def test_a_guest_that_is_plugged_again_at_once_has_a_port(lab: Lab) -> None:
    for _ in range(3):
        lab.do("unplug", "vm1")
        lab.do("plug", "vm1")
    provision(lab)
    assert sum("vm-1" in name for name in links(lab)) == 1


def test_up_adds_and_removes_ports_and_guests(lab: Lab, tmp_path: Path) -> None:
    before = lab.leader("m1")
    changed = up(lab, tmp_path, MORE_PORTS)
    assert (changed["booted"], changed["plugged"]) == ([], ["vm2"])
    eventually(lambda: {"eno1.90", "vm-two"} <= links(lab).keys())
    assert (links(lab)["eno1.90"], links(lab)["vm-two"]) == ("DOWN", "UP")
    assert up(lab, tmp_path, TOPOLOGY)["booted"] == []
    eventually(lambda: not {"eno1.90", "vm-two"} & links(lab).keys())
    assert lab.leader("m1") == before


def links(lab: Lab) -> dict[str, str]:
    shown = json.loads(lab.sh("m1", "ip -json link"))
    return {link["ifname"]: "UP" if "UP" in link["flags"] else "DOWN" for link in shown}


@pytest.mark.matrix
def test_kill_ends_a_daemon(lab: Lab) -> None:
    lab.sh("m1", "systemctl start systemd-networkd")
    lab.do("kill", "m1", "systemd-networkd")
    eventually(lambda: lab.sh("m1", "systemctl show -P NRestarts systemd-networkd").strip() == "1")
    done = lab.run("kill", "m1", "no-such-daemon")
    assert (done.returncode, done.stderr) == (1, "twin: no process named 'no-such-daemon' runs on m1\n")


def test_a_probe_cannot_end_at_the_machine(lab: Lab) -> None:
    done = lab.run("probe", "vm1", "m1")
    assert (done.returncode, done.stderr) == (
        1,
        "twin: m1 is emulated, and no end of a probe: name one of its guests\n",
    )


def test_a_reboot_keeps_files_cuts_and_guests(lab: Lab) -> None:
    lab.sh("m1", "echo kept >/root/kept; sysctl -qw net.ipv4.ip_forward=1; sync")
    identity = lab.sh("m1", "cat /sys/class/net/eno0.90/address /etc/machine-id")
    lab.do("cut", "m1", "a")
    before = lab.leader("m1")
    lab.run("exec", "m1", "--", "systemctl", "reboot")
    eventually(lambda: lab.machine("m1")["state"] != "up", seconds=BOOT_SECONDS)
    done = lab.run("exec", "m1", "--", "true")
    assert "m1 is booting" in done.stderr or "m1 is off" in done.stderr
    lab.do("boot", "m1")
    assert lab.leader("m1") != before
    assert lab.sh("m1", "cat /root/kept; sysctl -n net.ipv4.ip_forward") == "kept\n0\n"
    assert lab.sh("m1", "cat /sys/class/net/eno0.90/address /etc/machine-id") == identity
    assert lab.machine("m1")["ports"]["eno0.90"] == "cut"
    lab.do("heal", "m1", "a")
    provision(lab)


@pytest.mark.matrix
def test_a_power_cut_and_a_boot(lab: Lab) -> None:
    lab.do("crash", "m1")
    assert lab.machine("m1")["state"] == "off"
    assert lab.guest("vm1")["state"] == "off"
    assert lab.run("exec", "m1", "--", "true").stderr == "twin: m1 is off: './twin boot m1' starts it\n"
    lab.do("boot", "m1")
    provision(lab)


@pytest.mark.matrix
def test_down_after_a_killed_up(tmp_path: Path) -> None:
    lab = new_lab("emuk")
    path = tmp_path / "topology.json"
    path.write_text(json.dumps(TOPOLOGY))
    with subprocess.Popen(
        lab.command("up", "--topology", str(path)), stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr
        # The supervisor of m1 runs when the twin goes on to m2.
        assert any("booting m2" in line for line in running.stderr)
        running.send_signal(signal.SIGKILL)
    try:
        eventually(lambda: any("qemu" in found for found in lab.leftovers()))
    finally:
        lab.do("down")
    assert lab.leftovers() == []

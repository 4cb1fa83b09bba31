"""Emulated machines and trunks: the parts that boot nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from l3hv.model.plan import Nic
from l3hv.model.topology import Machine, Port, Topology
from l3hv.twin import TwinError, access, cli, emulator, lifecycle, state
from l3hv.twin.trunks import TRUNK, with_trunks

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MACHINE = Machine("hv1", "hypervisor", "debian13", ())


def test_a_kind_of_interface_that_no_kernel_has_makes_a_machine_emulated() -> None:
    assert emulator.lacks("no-such-kind")
    wanted = lifecycle.Wanted(Topology((), ()))
    assert lifecycle.as_booted(replace(MACHINE, needs=("no-such-kind",)), wanted).emulated
    assert not lifecycle.as_booted(MACHINE, wanted).emulated
    assert lifecycle.as_booted(MACHINE, replace(wanted, emulated=True)).emulated


@pytest.mark.skipif(os.geteuid() != 0, reason="only root creates interfaces")
def test_a_kind_of_interface_that_every_kernel_of_a_twin_has() -> None:
    assert not emulator.lacks("bridge")


def test_the_sentence_about_a_machine_that_boots_names_what_the_kernel_lacks() -> None:
    assert lifecycle.booting(MACHINE) == "booting hv1"
    emulated = replace(MACHINE, emulated=True, needs=("no-such-kind",))
    assert lifecycle.booting(emulated) == "booting hv1 in QEMU: this host's kernel has no no-such-kind"
    assert lifecycle.booting(replace(MACHINE, emulated=True)) == "booting hv1 in QEMU"


def test_a_twin_remembers_emulation_and_trunks() -> None:
    standing = state.Standing(
        ("/site",), Topology((MACHINE,), ()), {}, {}, bare=False, emulated=True, tagged=True
    )
    stored = json.loads(json.dumps(state.stored_form(standing)))
    assert state.standing_from(stored) == standing


def test_nics_are_devices_with_their_macs_in_slots_of_their_own() -> None:
    case = emulator.Case(state.Twin("pure", print), "hv1")
    case.nics = {
        "mgmt0": emulator.Nic(0, "02:00:00:00:00:01", carrier=True),
        "eno1": emulator.Nic(1, "02:00:00:00:00:02", carrier=False),
    }
    words = case.arguments()
    assert words[:2] == ["-netdev", "tap,id=nic-0,ifname=nic-0,script=no,downscript=no"]
    devices = [word for option, word in zip(words[::2], words[1::2], strict=True) if option == "-device"]
    assert [dict(part.split("=") for part in device.split(",")[1:])["mac"] for device in devices] == [
        "02:00:00:00:00:01",
        "02:00:00:00:00:02",
    ]
    assert "addr=0x4" in devices[0]
    assert "addr=0x5" in devices[1]


def test_names_wait_until_the_machine_listens_and_are_repeated_after_a_restart() -> None:
    twin, machine = socket.socketpair()
    machine.settimeout(5)
    names = emulator.Names(twin)
    names.give({"fe:54:00:00:00:01": "vm1 up"})
    machine.sendall(b"liste")
    assert names.read()
    machine.setblocking(False)
    with pytest.raises(BlockingIOError):
        machine.recv(100)
    machine.settimeout(5)
    machine.sendall(b"ning\n")
    assert names.read()
    assert machine.recv(100) == b"fe:54:00:00:00:01 vm1 up\n"
    names.give({"fe:54:00:00:00:02": "vm2 up"})
    assert machine.recv(100) == b"fe:54:00:00:00:02 vm2 up\n"
    machine.sendall(b"named fe:54:00:00:00:01\nlistening\n")
    assert names.read()
    assert machine.recv(100) == b"fe:54:00:00:00:02 vm2 up\n"
    names.forget(["fe:54:00:00:00:02"])
    machine.close()
    assert not names.read()
    names.close()


def test_qmp_returns_results_keeps_events_and_reports_refusals(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    command = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    with subprocess.Popen([*command, "-qmp", f"unix:{path},server=on,wait=off"]) as process:
        qmp = emulator.Qmp(emulator.connect(path, process))
        assert qmp.execute("query-status")["status"] == "running"
        with pytest.raises(TwinError, match="QEMU refuses set_link: Device 'none' not found"):
            qmp.execute("set_link", name="none", up=True)
        qmp.execute("quit")
        qmp.read_last_events()
        assert [event["event"] for event in qmp.events] == ["SHUTDOWN"]
        with pytest.raises(TwinError, match="QEMU has ended"):
            qmp.read_event()
        assert qmp.has_ended
        qmp.close()


def test_a_qemu_that_does_not_start_is_an_error_at_once(tmp_path: Path) -> None:
    command = ["qemu-system-x86_64", "-machine", "no-such-machine"]
    with (
        subprocess.Popen(command, stderr=subprocess.DEVNULL) as process,
        pytest.raises(TwinError, match="QEMU ended with status 1"),
    ):
        emulator.connect(tmp_path / "qmp", process)


def test_the_vlans_of_a_nic_are_one_port() -> None:
    found = cli.inventory_topology([str(GOLDEN / "vlans/intent")], [], tagged=True)
    ports = {machine.name: machine.ports for machine in found.machines}
    assert ports["hv1"] == (Port("eno1", "a", TRUNK, 9000), Port("eno2", "b", TRUNK, 9000))
    # The roles create the VLANs of this host too, although another program does so in production.
    assert ports["rr2"] == (Port("eno1", "b", TRUNK, 9000),)
    assert {machine.needs for machine in found.machines} == {("vlan",)}
    assert found.segments == ("a-802.1q", "b-802.1q")
    assert access.variables(tagged=True) == {"l3hv_vlan_interfaces": "kernel"}


def test_without_trunks_each_vlan_is_a_port() -> None:
    found = cli.inventory_topology([str(GOLDEN / "vlans/intent")], [], tagged=False)
    ports = [port.interface for port in found.machines[0].ports]
    assert ports == ["eno1.90", "eno1.20", "eno2.90", "eno2.20"]
    assert {machine.needs for machine in found.machines} == {()}


def test_a_path_with_and_without_tags_is_refused() -> None:
    ports = (Port("eno1.90", "a", "public", 1500), Port("eno1.20", "a", "private", 1500))
    plain = replace(MACHINE, name="hv2", ports=(Port("eth1", "a", "public", 1500),))
    topology = Topology((replace(MACHINE, ports=ports), plain), ())
    nics = {"hv1": [Nic("eno1", 1500, ("eno1.90", "eno1.20"))]}
    with pytest.raises(TwinError, match="hv1 has VLANs of a NIC on path a, and hv2 an interface per domain"):
        with_trunks(topology, nics)
    with pytest.raises(TwinError, match="no machine of the inventory has VLANs of a NIC: omit --tagged"):
        with_trunks(topology, {})


def test_an_emulated_machine_with_too_many_interfaces_is_refused() -> None:
    emulator.check_room("hv1", emulator.MOST_NICS)
    with pytest.raises(TwinError, match=r"hv1 is emulated, and would have 29 interfaces .* room for 28"):
        emulator.check_room("hv1", emulator.MOST_NICS + 1)


def test_qmp_finds_each_event_about_a_device_once() -> None:
    twin, qemu = socket.socketpair()
    greeting = b'{"QMP": {}}\n{"return": {}}\n'
    deleted = b'{"event": "DEVICE_DELETED", "data": {"device": "device-%d"}}\n'
    qemu.sendall(greeting + deleted % 1 + deleted % 2 + b'{"event": "SHUTDOWN", "data": {}}\n')
    qmp = emulator.Qmp(twin)
    assert qmp.await_event("DEVICE_DELETED", "device-2", 5)
    assert qmp.await_event("DEVICE_DELETED", "device-1", 5)
    assert not qmp.await_event("DEVICE_DELETED", "device-1", 0)
    qemu.close()
    qmp.read_last_events()
    assert [event["event"] for event in qmp.events] == ["SHUTDOWN"]
    qmp.close()

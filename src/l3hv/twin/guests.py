"""Guests: network namespaces with a DHCP client and the kernel's own SLAAC, or with another client.

A plugged guest has one cable: ``eth0`` in its own namespace, and the guest's port in the namespace
of its hypervisor.  The port is created as libvirt creates one: up, without addresses, with
libvirt's MAC.  A moved guest keeps its namespace, as a virtual machine that migrates keeps its memory.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_interface
from pathlib import Path

from l3hv.model.topology import GuestMachine
from l3hv.twin import TwinError, emulator, guest_system, network, power, vm
from l3hv.twin.state import Standing, Twin, guest_from, read_json, write_json

INTERFACE = "eth0"
NIC_MTU = 1500
LEASE_SCRIPT = Path(__file__).with_name("lease.sh")

GUEST_SETTINGS = {
    # Solicit a router every second until one answers: the hypervisor may be provisioned after the guest.
    "net/ipv6/conf/default/router_solicitation_delay": "0",
    "net/ipv6/conf/default/router_solicitation_interval": "1",
    "net/ipv6/conf/default/router_solicitation_max_interval": "1",
    "net/ipv6/conf/default/router_solicitations": "-1",
    # A virtual machine sees no carrier change when it migrates, so its neighbour tables stay.
    "net/ipv4/conf/default/arp_evict_nocarrier": "0",
    "net/ipv6/conf/default/ndisc_evict_nocarrier": "0",
}


@dataclass(frozen=True)
class Kind:
    """The way a guest runs: as a virtual machine, with a Debian client in a user space, or with udhcpc."""

    qemu: bool = False
    client: str | None = None

    @property
    def word(self) -> str:
        """The name of the client, or ``qemu``: the system of a virtual machine chooses its own client."""
        return "qemu" if self.qemu else self.client or "udhcpc"


def place(twin: Twin, guest: GuestMachine) -> str | None:
    """Return the hypervisor of a guest, also if the hypervisor is off; None if the guest is unplugged."""
    stored = read_json(twin.guest_directory(guest.name) / "plugged.json")
    if stored is None:
        return guest.hypervisor
    hypervisor: str | None = stored["hypervisor"]
    return hypervisor


def kind(twin: Twin, guest: GuestMachine) -> Kind:
    """Return the way a guest runs, or will run when its hypervisor boots."""
    stored = read_json(twin.guest_directory(guest.name) / "plugged.json") or {}
    return Kind(stored.get("qemu", False), stored.get("client"))


def is_plugged(twin: Twin, guest: GuestMachine) -> bool:
    """Return whether the guest runs and its cable is in place."""
    hypervisor = place(twin, guest)
    return (
        hypervisor is not None
        and bool(network.namespaces(twin.guest_namespace(guest.name)))
        and network.has_link(twin.machine_namespace(hypervisor), guest.interface)
    )


def plug(twin: Twin, guest: GuestMachine, on: str | None = None, wanted_kind: Kind | None = None) -> bool:
    """Start a guest on its last hypervisor, or ``on`` another one; move a guest that runs elsewhere.

    ``wanted_kind`` applies until the guest is unplugged, also over its hypervisor's reboots.  Return whether
    the guest was started.
    """
    if wanted_kind is not None and wanted_kind.client:
        guest_system.ensure_guest_image(twin)  # It takes a minute, so do it before locking the guest.
    with _locked(twin, guest.name):
        old_place, old_kind = place(twin, guest), kind(twin, guest)
        new_place, new_kind = on or old_place or guest.hypervisor, wanted_kind or old_kind
        if not (network.NAMESPACES / twin.machine_namespace(new_place)).exists():
            raise TwinError(f"{new_place} is off: './twin boot {new_place}' starts it")
        is_started = not is_plugged(twin, guest) or new_kind != old_kind
        if twin.standing().machine(new_place).emulated and (is_started or new_place != old_place):
            _check_room(twin, guest, new_place)
        if is_started:
            _stop(twin, guest, old_place)
            _start(twin, guest, new_place, new_kind)
        elif old_place is not None and old_place != new_place:
            _move(twin, guest, old_place, new_place, new_kind)
        _record(twin, guest, new_place, new_kind)
        return is_started


def _check_room(twin: Twin, guest: GuestMachine, hypervisor: str) -> None:
    others = [cable for cable in emulator.cables(twin, hypervisor) if cable.name != guest.interface]
    emulator.check_room(hypervisor, len(others) + 1)


def unplug(twin: Twin, guest: GuestMachine) -> None:
    """Stop a guest, so that the next boot of its hypervisor does not start it either."""
    with _locked(twin, guest.name):
        _stop(twin, guest, place(twin, guest))
        _record(twin, guest, None, Kind())


def plug_all(twin: Twin, standing: Standing, machine: str) -> list[str]:
    """Start the guests of a machine that do not run, and return their names."""
    here = [guest for guest in standing.topology.guests if place(twin, guest) == machine]
    return [guest.name for guest in here if plug(twin, guest)]


def stop_all(twin: Twin, machine: str) -> None:
    """Stop the guests of a machine that loses power; its next boot starts them again."""
    for guest in _recorded(twin):
        if place(twin, guest) == machine:
            with _locked(twin, guest.name):
                _stop(twin, guest, machine)


def remove_surplus(twin: Twin, standing: Standing) -> None:
    """Stop and forget guests that have changed or have left the inventory."""
    for guest in _recorded(twin):
        at = place(twin, guest)
        moved = replace(guest, hypervisor=at) if at else guest
        if guest not in standing.topology.guests and moved in standing.topology.guests:
            _record(twin, moved, at, kind(twin, guest))  # The inventory has followed the guest.
        elif guest not in standing.topology.guests:
            twin.say(f"removing the guest {guest.name}")
            _stop(twin, guest, place(twin, guest))
            (twin.guest_directory(guest.name) / "plugged.json").unlink()


def addresses(twin: Twin, guest: GuestMachine) -> list[str]:
    """Return the addresses of global scope of a running guest, without prefix lengths."""
    namespace = twin.guest_namespace(guest.name)
    if kind(twin, guest).qemu:
        return vm.vm_addresses(twin, guest.name) if network.namespaces(namespace) else []
    return network.global_addresses(namespace) if network.namespaces(namespace) else []


def _recorded(twin: Twin) -> list[GuestMachine]:
    return [
        guest_from(read_json(path)["guest"])
        for path in sorted((twin.directory / "guests").glob("*/plugged.json"))
    ]


def _record(twin: Twin, guest: GuestMachine, hypervisor: str | None, how: Kind) -> None:
    write_json(
        twin.guest_directory(guest.name) / "plugged.json",
        {"hypervisor": hypervisor, **asdict(how), "guest": asdict(guest)},
    )


@contextmanager
def _locked(twin: Twin, guest: str) -> Iterator[None]:
    """Lock a guest, because its hypervisor's supervisor may start it at the same time."""
    directory = twin.guest_directory(guest)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(twin: Twin, guest: GuestMachine, hypervisor: str, how: Kind) -> None:
    _stop(twin, guest, hypervisor)
    network.create_namespaces([twin.guest_namespace(guest.name)])
    if how.qemu:
        vm.start_vm(twin, guest, hypervisor, tap_mac(guest.mac))
    else:
        _add_cable(twin, guest, hypervisor, has_client=how.client is not None)
    _bring_up(twin, guest, hypervisor)
    if how.client:
        guest_system.start(twin, guest, how.client, INTERFACE)
    elif guest.ipv4 and not how.qemu:
        _start_dhcp(twin, guest)


def _add_cable(twin: Twin, guest: GuestMachine, hypervisor: str, *, has_client: bool) -> None:
    """Create the cable of a guest; a Debian client brings its end up itself."""
    namespace = twin.guest_namespace(guest.name)
    network.write_settings(namespace, network.KERNEL_DEFAULTS | GUEST_SETTINGS)
    mtu = max(guest.mtu, NIC_MTU)
    with network.netlink(namespace) as link:
        link.link("set", index=1, state="up")
        for address in map(ip_interface, guest.addresses):
            link.addr("add", index=1, address=str(address.ip), prefixlen=address.network.prefixlen)
        with network.namespace_fd(twin.machine_namespace(hypervisor)) as fd:
            link.link(
                "add",
                kind="veth",
                ifname=INTERFACE,
                address=guest.mac,
                mtu=mtu,
                state="down" if has_client else "up",
                peer={
                    "ifname": guest.interface,
                    "address": tap_mac(guest.mac),
                    "mtu": mtu,
                    "net_ns_fd": fd,
                },
            )


def tap_mac(mac: str) -> str:
    """Return the MAC that libvirt gives to the hypervisor's end of a guest's cable.

    >>> tap_mac("52:54:00:12:34:56")
    'fe:54:00:12:34:56'
    """
    return f"fe{mac[2:]}"


def _bring_up(twin: Twin, guest: GuestMachine, hypervisor: str) -> None:
    _apply_settings(twin, guest.interface, hypervisor)
    with network.netlink(twin.machine_namespace(hypervisor)) as link:
        index = link.link_lookup(ifname=guest.interface)[0]
        link.link("set", index=index, state="up")


def _apply_settings(twin: Twin, interface: str, hypervisor: str) -> None:
    """Apply sysctl.d to a new interface, as udev does outside of containers."""
    found = power.running(twin, hypervisor)
    if found is not None and not found.emulated:  # an emulated machine does it when the NIC appears
        kinds = ("ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh")
        program = [
            "/usr/lib/systemd/systemd-sysctl",
            *(f"--prefix=/net/{kind}/{interface}" for kind in kinds),
        ]
        subprocess.run(power.inside(found.leader, program), check=False, stdin=subprocess.DEVNULL)


def _start_dhcp(twin: Twin, guest: GuestMachine) -> None:
    log = twin.guest_directory(guest.name) / "dhcp.log"
    client = ["busybox", "udhcpc", "-f", "-i", INTERFACE, "-s", str(LEASE_SCRIPT)]
    # Send a DHCPDISCOVER every second without end.
    retries = ["-t", "3", "-T", "1", "-A", "1"]
    options = ["-O", "staticroutes", "-O", "mtu", "-x", f"hostname:{guest.name}"]
    with network.entered(twin.guest_namespace(guest.name)), log.open("w") as out:
        subprocess.run(
            ["setsid", "--fork", *client, *retries, *options],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
        )


def _stop(twin: Twin, guest: GuestMachine, hypervisor: str | None) -> None:
    # Remove the hypervisor's end first: the kernel would remove it with the namespace, but later.
    if hypervisor and network.namespaces(twin.machine_namespace(hypervisor)):
        with network.netlink(twin.machine_namespace(hypervisor)) as link:
            network.remove_link(link, guest.interface)
    network.remove_namespaces([twin.guest_namespace(guest.name)])


def _move(twin: Twin, guest: GuestMachine, old: str, new: str, how: Kind) -> None:
    """Move the hypervisor's end of the cable to another hypervisor; the guest's end does not change."""
    with (
        network.netlink(twin.machine_namespace(old)) as link,
        network.namespace_fd(twin.machine_namespace(new)) as fd,
    ):
        index = link.link_lookup(ifname=guest.interface)[0]
        running = power.running(twin, old)
        # The NIC of an emulated hypervisor has the MAC of the port, so the port has another one there.
        own = {"address": tap_mac(guest.mac)} if running is not None and running.emulated else {}
        link.link("set", index=index, net_ns_fd=fd, **own)
    _bring_up(twin, guest, new)
    if not how.qemu:
        _announce(twin, guest)


def _announce(twin: Twin, guest: GuestMachine) -> None:
    """Send gratuitous ARP, as a Linux guest with virtio-net does after a migration."""
    namespace = twin.guest_namespace(guest.name)
    mac = bytes.fromhex(guest.mac.replace(":", ""))
    with network.netlink(namespace) as link:
        index = link.link_lookup(ifname=INTERFACE)[0]
        own = [
            socket.inet_aton(found.get_attr("IFA_ADDRESS"))
            for found in link.get_addr(family=socket.AF_INET, index=index)
        ]
    with (
        network.entered(namespace),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire,
    ):
        wire.bind((INTERFACE, 0))
        for address in own:
            header = b"\xff" * 6 + mac + struct.pack("!H", 0x0806)
            request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
            wire.send(header + request + mac + address + bytes(6) + address)

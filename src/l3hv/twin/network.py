"""The network of a twin: namespaces, switches (Linux bridges) and cables (veth pairs).

None of it is in the host's own network namespace, so no packet of a twin can leave the host.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l3hv.model.topology import Machine, Port, Router
from l3hv.twin import TwinError
from l3hv.twin.state import HOST_NUMBER, MANAGEMENT, Standing, Twin, read_json, write_json

if TYPE_CHECKING:
    from pyroute2 import IPRoute

NAMESPACES = Path("/run/netns")
MANAGEMENT_INTERFACE = "mgmt0"
SWITCH_MTU = 9216
MOST_ROUTER_PORTS = 64
CLONE_NEWNET = 0x40000000
IFF_UP = 1
RTMGRP_LINK, RTMGRP_IPV4_IFADDR = 1, 0x10

# A new namespace inherits the host's IPv4 settings; the twin sets these to the kernel's own defaults.
KERNEL_DEFAULTS = {
    "net/ipv4/ip_forward": "0",
    **{
        f"net/ipv4/conf/{scope}/{key}": value
        for scope in ("all", "default", "lo")
        for key, value in {
            "accept_redirects": "1",
            "arp_announce": "0",
            "arp_ignore": "0",
            "log_martians": "0",
            "promote_secondaries": "0",
            "proxy_arp": "0",
            "rp_filter": "0",
            "send_redirects": "1",
        }.items()
    },
}
# A switch has no addresses, and passes no bridged packet to the host's packet filters.
SWITCH_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-iptables": "0",
}

_libc = ctypes.CDLL(None, use_errno=True)


def namespaces(prefix: str) -> list[str]:
    """Return the named network namespaces whose names begin with ``prefix``."""
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith(prefix))


def create_namespaces(names: Iterable[str]) -> None:
    _ip_batch(f"netns add {name}" for name in names)


def remove_namespaces(names: Iterable[str]) -> None:
    """Kill the processes in existing namespaces, and remove the namespaces."""
    gone = [name for name in names if (NAMESPACES / name).exists()]
    if gone:
        end_processes_in(gone)
        _ip_batch(f"netns del {name}" for name in gone)


def _ip_batch(lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(["ip", "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TwinError(f"ip could not do {text.strip()!r}: {done.stderr.strip()}")


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Put the calling thread into a network namespace: sockets opened there stay there."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        yield
    finally:
        _setns(own)
        os.close(own)


def enter(namespace: str) -> None:
    """Put the calling thread into a network namespace permanently."""
    try:
        with namespace_fd(namespace) as fd:
            _setns(fd)
    except FileNotFoundError:
        raise TwinError(
            f"the network namespace {namespace} does not exist: its machine or guest does not run"
        ) from None


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


@contextmanager
def namespace_fd(namespace: str) -> Iterator[int]:
    """Open a namespace as a file descriptor, with which the kernel moves links there."""
    fd = os.open(NAMESPACES / namespace, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def netlink(namespace: str) -> Iterator[IPRoute]:
    """Open an rtnetlink socket (pyroute2's IPRoute) in a namespace."""
    try:
        from pyroute2 import IPRoute
    except ModuleNotFoundError:
        raise TwinError(
            "the Python package pyroute2 is missing: install requirements.txt into .venv (make venv)"
        ) from None

    with entered(namespace):
        route = IPRoute()
    try:
        yield route
    finally:
        route.close()


def has_link(namespace: str, interface: str) -> bool:
    """Return whether a namespace exists and has an interface."""
    if not (NAMESPACES / namespace).exists():
        return False
    with netlink(namespace) as link:
        return bool(link.link_lookup(ifname=interface))


def remove_link(link: IPRoute, name: str) -> None:
    """Remove an interface and its cable, if it exists."""
    found = link.link_lookup(ifname=name)
    if found:
        link.link("del", index=found[0])


def global_addresses(namespace: str, *, of_lo: bool = False) -> list[str]:
    """Return the usable addresses of global scope in a namespace, addresses of ``lo`` last.

    With ``of_lo`` only the addresses of ``lo`` are returned.
    """
    with netlink(namespace) as link:
        found = sorted(
            (e for e in link.get_addr() if e["scope"] == 0 and (e["index"] == 1 or not of_lo)),
            key=lambda entry: (entry["index"] == 1, entry["family"]),
        )
    unusable = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
    return [
        entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        for entry in found
        if not (entry.get_attr("IFA_FLAGS") or 0) & unusable
    ]


def is_local(namespace: str, address: str) -> bool:
    """Return whether a namespace delivers packets to an address locally."""
    with netlink(namespace) as link:
        from pyroute2 import NetlinkError

        try:
            found = link.route("get", dst=address)
        except NetlinkError:
            return False  # no route at all
        return any(route["type"] == 2 for route in found)  # RTN_LOCAL


def processes_in(names: Iterable[str]) -> list[int]:
    """Return the processes in the named network namespaces."""
    wanted = {identity(NAMESPACES / name) for name in names} - {None}
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and identity(entry / "ns/net") in wanted
    ]


def is_in(pid: int, namespace: str) -> bool:
    """Return whether a process runs in a network namespace."""
    own = identity(NAMESPACES / namespace)
    return own is not None and own == identity(Path(f"/proc/{pid}/ns/net"))


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which identify a namespace while it exists, or None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def end_processes_in(names: Iterable[str], *, timeout: float = 5) -> None:
    """Send SIGKILL to all processes in namespaces, and wait for their end (at most ``timeout`` s)."""
    names = list(names)
    deadline = time.monotonic() + timeout
    while pids := processes_in(names):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TwinError(f"processes {pids} in {', '.join(names)} do not end: see ps")
        time.sleep(0.01)


def write_settings(namespace: str, settings: dict[str, str]) -> None:
    """Write sysctls of a namespace, except those that this kernel does not have."""
    with entered(namespace):
        for key, value in settings.items():
            path = Path("/proc/sys") / key
            if path.exists():
                path.write_text(value)


def interface_name(owner: str, interface: str) -> str:
    """Return the name of a cable's end at the switch: readable if it fits into 15 characters.

    >>> interface_name("hv1", "eno1.90")
    'hv1~eno1.90'
    >>> interface_name("hypervisor-12", "eno1.90")
    'c-199f77bcf801'
    """
    name = f"{owner}~{interface}"
    return name if len(name) <= 15 else "c-" + _digest(owner, interface)[:12]


def bridge_name(segment: str) -> str:
    """Return the name of a segment's bridge."""
    is_valid = len(segment) <= 15 and not set("/:") & set(segment)
    return segment if is_valid else "s-" + _digest(segment)[:12]


def stable_mac(owner: str, interface: str) -> str:
    """Return the locally administered MAC of an interface, the same in every twin and at every boot.

    >>> stable_mac("hv1", "mgmt0")
    '02:26:02:49:31:6b'
    """
    digest = _digest(owner, interface)
    return ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


# --- switches ---------------------------------------------------------------------------


def ensure_switches(twin: Twin, segments: Iterable[str]) -> None:
    """Create the missing bridges: one for management and one per segment, in two namespaces."""
    existing = namespaces(twin.prefix)
    for namespace in (twin.management_namespace, twin.switch_namespace):
        if namespace not in existing:
            create_namespaces([namespace])
        write_settings(namespace, SWITCH_SETTINGS)
    with netlink(twin.management_namespace) as link:
        if not link.link_lookup(ifname="mgmt"):
            add_bridge(link, "mgmt")
            index = link.link_lookup(ifname="mgmt")[0]
            link.addr(
                "add",
                index=index,
                address=str(MANAGEMENT[HOST_NUMBER]),
                prefixlen=MANAGEMENT.prefixlen,
            )
    with netlink(twin.switch_namespace) as link:
        for name in sorted({bridge_name(segment) for segment in segments} - _bridges(link)):
            add_bridge(link, name)


def remove_other_switches(twin: Twin, segments: Iterable[str]) -> None:
    """Remove the bridges of segments without machines."""
    with netlink(twin.switch_namespace) as link:
        for name in sorted(_bridges(link) - {bridge_name(segment) for segment in segments}):
            link.link("del", ifname=name)


def _bridges(link: IPRoute) -> set[str]:
    return {found.get_attr("IFLA_IFNAME") for found in link.get_links(kind="bridge")}


def add_bridge(link: IPRoute, name: str) -> None:
    """Create a bridge without spanning tree."""
    # No multicast snooping: neighbour discovery then works from the first packet on.
    link.link(
        "add",
        ifname=name,
        kind="bridge",
        br_stp_state=0,
        br_mcast_snooping=0,
        address=stable_mac("switch", name),
        mtu=SWITCH_MTU,
        state="up",
    )


# --- routers ----------------------------------------------------------------------------


def ensure_routers(twin: Twin, routers: Iterable[Router]) -> None:
    """Create the routers between the subnets of paths, and remove those that are no longer needed.

    A router is a namespace that forwards packets between its ports. It has routes to the subnets only.
    """
    wanted = {router.name: router for router in routers}
    recorded = twin.directory / "routers.json"
    before = read_json(recorded) or {}
    for namespace in namespaces(twin.router_namespace("")):
        name = namespace.removeprefix(twin.router_namespace(""))
        if name not in wanted or before.get(name) != _stored(wanted[name]):
            remove_router(twin, name)
    for router in wanted.values():
        if not (NAMESPACES / twin.router_namespace(router.name)).exists():
            _create_router(twin, router)
    if wanted or before:
        write_json(recorded, {name: _stored(router) for name, router in wanted.items()})


def _stored(router: Router) -> Any:
    return json.loads(json.dumps(asdict(router)))


def remove_router(twin: Twin, name: str) -> None:
    """Remove a router: first the ends of its cables at the switches."""
    with netlink(twin.switch_namespace) as link:
        for number in range(MOST_ROUTER_PORTS):
            remove_link(link, interface_name(f"router-{name}", _router_port(number)))
    remove_namespaces([twin.router_namespace(name)])


def _router_port(number: int) -> str:
    return f"port{number}"


def _create_router(twin: Twin, router: Router) -> None:
    if len(router.ports) > MOST_ROUTER_PORTS:
        raise TwinError(f"the router {router.name} would have more than {MOST_ROUTER_PORTS} ports")
    namespace = twin.router_namespace(router.name)
    create_namespaces([namespace])
    forwarding = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
    write_settings(namespace, KERNEL_DEFAULTS | forwarding)
    owner = f"router-{router.name}"
    with netlink(twin.switch_namespace) as link:
        for number, port in enumerate(router.ports):
            _add_cable(link, owner, _router_port(number), namespace, bridge_name(port.segment))
    lines = ["link set lo up"]
    for number, port in enumerate(router.ports):
        name = _router_port(number)
        lines.append(f"link set {name} mtu {port.mtu} up")
        for address in port.addresses:
            lines.append(f"address add {address} dev {name}" + (" nodad" if ":" in address else ""))
        lines += [f"{'-6 ' if ':' in host else ''}route add {host} dev {name}" for host in port.hosts]
    with entered(namespace):
        for line in lines:
            subprocess.run(["ip", *line.split()], check=True)


# --- the cables of machines -------------------------------------------------------------


def create_cables(twin: Twin, standing: Standing, machine: Machine) -> None:
    """Create a new network namespace for a machine, and connect it to its switches.

    The ports are down and without addresses, as after power-on; only the management port is configured.
    """
    remove_machine(twin, machine.name, machine.ports)
    namespace = twin.machine_namespace(machine.name)
    create_namespaces([namespace])
    write_settings(namespace, KERNEL_DEFAULTS)
    with netlink(twin.management_namespace) as link:
        _add_cable(link, machine.name, MANAGEMENT_INTERFACE, namespace, "mgmt")
    write_settings(namespace, {f"net/ipv6/conf/{MANAGEMENT_INTERFACE}/disable_ipv6": "1"})
    with netlink(namespace) as link:
        link.link("set", index=link.link_lookup(ifname=MANAGEMENT_INTERFACE)[0], state="up")
    configure_management(twin, standing, machine.name)
    add_ports(twin, machine.name, machine.ports)


def configure_management(twin: Twin, standing: Standing, machine: str) -> None:
    """Restore the address of a machine's management port, and the route to the host, if they are missing.

    The port does not change while it is down.  The kernel removes the route when the port goes down.
    """
    address = str(standing.address(machine))
    with netlink(twin.machine_namespace(machine)) as link:
        for index in link.link_lookup(ifname=MANAGEMENT_INTERFACE, flags=lambda flags: flags & IFF_UP):
            held = link.get_addr(family=socket.AF_INET, index=index)
            if address not in {entry.get_attr("IFA_LOCAL") for entry in held}:
                link.addr(
                    "add",
                    index=index,
                    address=address,
                    prefixlen=MANAGEMENT.prefixlen,
                    scope=253,  # link: the kernel never selects it as source of other traffic
                    IFA_FLAGS=0x200,  # IFA_F_NOPREFIXROUTE
                )
            # In the table local the route to the host does not depend on the machine's rules, and is in
            # none of the tables of the fabric.
            link.route("replace", dst=str(MANAGEMENT), oif=index, scope="link", table=255)


class LinkEvents:
    """Netlink events about the interfaces of a namespace, and about their IPv4 addresses."""

    def __init__(self, namespace: str) -> None:
        with entered(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))

    def fileno(self) -> int:
        """Return the file descriptor for select."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, index: int | None = None) -> bool:
        """Read all pending events; return whether one concerns the interface ``index`` (default: any)."""
        concerns_interface = False
        while True:
            try:
                content = self._socket.recv(1 << 16)
            except BlockingIOError:
                return concerns_interface
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerns_interface = True  # The kernel has dropped events, perhaps one about the interface.
                continue
            at = 0
            while at < len(content):
                # Both kinds of message have the interface's index 4 bytes after the header.
                length, found = struct.unpack_from("=I16xI", content, at)
                concerns_interface = concerns_interface or index in (None, found)
                at += (length + 3) & ~3


def index_of(namespace: str, interface: str) -> int:
    """Return the index of an interface in a namespace."""
    with entered(namespace):
        return socket.if_nametoindex(interface)


def add_ports(twin: Twin, machine: str, ports: Iterable[Port]) -> None:
    """Connect ports of a machine to their switches, with the recorded faults of their cables."""
    namespace = twin.machine_namespace(machine)
    with netlink(twin.switch_namespace) as link:
        for port in ports:
            _add_cable(link, machine, port.interface, namespace, bridge_name(port.segment))
    faults = cable_faults(twin)
    for port in ports:
        if interface_name(machine, port.interface) in faults:
            apply_cable_faults(twin, machine, port)


def remove_ports(twin: Twin, machine: str, ports: Iterable[Port]) -> None:
    """Remove ports of a machine."""
    with netlink(twin.switch_namespace) as link:
        for port in ports:
            remove_link(link, interface_name(machine, port.interface))


def remove_machine(twin: Twin, machine: str, ports: Iterable[Port]) -> None:
    """Remove a machine's cables and its namespace.

    Remove the ends at the switches first: the kernel would remove them with the namespace, but later,
    in the background.
    """
    remove_ports(twin, machine, ports)
    with netlink(twin.management_namespace) as link:
        remove_link(link, interface_name(machine, MANAGEMENT_INTERFACE))
    remove_namespaces([twin.machine_namespace(machine)])


def pull_cables(twin: Twin, machine: str, ports: Iterable[Port]) -> None:
    """Disconnect a machine at once, so that it cannot close its sessions first."""
    if not namespaces(twin.switch_namespace):
        return
    with netlink(twin.switch_namespace) as link:
        for port in ports:
            found = link.link_lookup(ifname=interface_name(machine, port.interface))
            if found:
                link.link("set", index=found[0], state="down")
    with netlink(twin.management_namespace) as link:
        remove_link(link, interface_name(machine, MANAGEMENT_INTERFACE))


def _add_cable(link: IPRoute, machine: str, interface: str, namespace: str, bridge: str) -> None:
    with namespace_fd(namespace) as fd:
        link.link(
            "add",
            kind="veth",
            ifname=interface_name(machine, interface),
            mtu=SWITCH_MTU,
            master=link.link_lookup(ifname=bridge)[0],
            state="up",
            peer={
                "ifname": interface,
                "address": stable_mac(machine, interface),
                "net_ns_fd": fd,
            },
        )


# --- the faults of cables ---------------------------------------------------------------


def cable_faults(twin: Twin) -> dict[str, list[str]]:
    """Return the faults of each cable, by its name: ``cut``, ``dark`` or both."""
    return read_json(twin.directory / "cables.json") or {}


def set_cable_fault(twin: Twin, machine: str, port: Port, fault: str, *, present: bool) -> None:
    """Add or remove a fault of a cable.  Faults persist over reboots of the machine.

    ``cut`` drops all frames in both directions while both ends keep their carrier; ``dark`` takes the
    carrier from the machine.
    """
    recorded = cable_faults(twin)
    name = interface_name(machine, port.interface)
    faults = set(recorded.get(name, ()))
    faults = faults | {fault} if present else faults - {fault}
    if faults:
        recorded[name] = sorted(faults)
    else:
        recorded.pop(name, None)
    write_json(twin.directory / "cables.json", recorded)
    apply_cable_faults(twin, machine, port)


def apply_cable_faults(twin: Twin, machine: str, port: Port) -> None:
    """Apply the recorded faults to the switch's end of a cable."""
    name = interface_name(machine, port.interface)
    faults = cable_faults(twin).get(name, ())
    with netlink(twin.switch_namespace) as link:
        found = link.link_lookup(ifname=name)
        if not found:
            return  # The machine is off: its next boot applies the faults.
        bridge = link.link_lookup(ifname=bridge_name(port.segment))[0]
        link.link(
            "set",
            index=found[0],
            # Without a bridge the switch's end forwards no frame, but keeps its carrier.
            master=0 if "cut" in faults else bridge,
            state="down" if "dark" in faults else "up",
        )

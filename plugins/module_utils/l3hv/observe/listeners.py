"""Processes that listen on a host, with their units and ports."""

from __future__ import annotations

import contextlib
import glob
import os
import re

from ansible.module_utils.l3hv.observe.files import read_lines, read_text

LISTENING = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h, in the form of /proc/net."""

SENDING_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
"""The range of local ports: a UDP socket on such a port, without a peer, only sends."""


def listening_sockets() -> dict[str, str]:
    """Return the listening sockets of this host (``tcp 179``) by the number of their inode."""
    found = {}
    first_local_port = int((read_text(SENDING_PORTS) or "32768").split()[0])
    for table, kind in (
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
        ("raw6", "raw ipv6"),
    ):
        for line in read_lines(f"/proc/net/{table}")[1:]:
            _, local, remote, state, *_ = fields = line.split()
            port, peer = (int(place.rpartition(":")[2], 16) for place in (local, remote))
            is_waiting = state == LISTENING if kind == "tcp" else peer == 0 and port < first_local_port
            if is_waiting:
                found[fields[9]] = f"{kind} {port}"
    return found


def read_listeners() -> dict[str, list[str]]:
    """Return the listening sockets by the unit of their process; without a unit, by the process's name."""
    sockets = listening_sockets()
    listeners: dict[str, set[str]] = {}
    for process in glob.glob("/proc/[0-9]*"):
        owned = set()
        for link in glob.glob(f"{process}/fd/*"):
            with contextlib.suppress(OSError):  # closed, or ended, meanwhile
                owned.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        if here := {sockets[inode] for inode in owned & sockets.keys()}:
            unit = re.search(r"/([^/\n]+\.(?:service|socket))", read_text(f"{process}/cgroup") or "")
            name = unit[1] if unit else (read_text(f"{process}/comm") or "?")
            listeners.setdefault(name, set()).update(here)
    return {name: sorted(here) for name, here in sorted(listeners.items())}

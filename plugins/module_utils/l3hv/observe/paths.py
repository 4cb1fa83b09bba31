"""The size of the largest packet that reaches each reflector, found by pings that are never fragmented."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from typing import Any

from ansible.module_utils.l3hv.observe.plan import FAMILIES, Plan

ECHO_REQUEST = {"ipv4": 8, "ipv6": 128}
ECHO_REPLY = {"ipv4": 0, "ipv6": 129}
IP_HEADER = {"ipv4": 20, "ipv6": 40}
ECHO = struct.Struct("!BBHHH")
# The socket module has no names for these.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3
PING_TIMES = (0.0, 0.1, 0.25)
"""The times in s at which a ping is sent: it is repeated because a single packet may also be lost."""

PING_SECONDS = 0.4
SMALL_PING = 128
"""Bytes of a packet that every path carries: a reflector that does not answer it, answers no pings."""


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data`` (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class FarEnd:
    """The far end of a path, which gets pings of several sizes, one after the other, never fragmented."""

    def __init__(self, session: dict[str, Any], most: int) -> None:
        self.name = f"{session['interface']} {session['neighbor']}"
        self.passes, self.size, self._fails = 0, most, most + 1
        self.family = "ipv6" if ":" in session["neighbor"] else "ipv4"
        is_ipv4 = self.family == "ipv4"
        self._address = session["neighbor"]
        self.socket = socket.socket(
            FAMILIES[self.family],
            socket.SOCK_RAW,
            socket.IPPROTO_ICMP if is_ipv4 else socket.IPPROTO_ICMPV6,
        )
        level, option = (
            (socket.IPPROTO_IP, IP_MTU_DISCOVER) if is_ipv4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        )
        self.socket.setsockopt(level, option, PROBE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, session["interface"].encode())
        self.socket.bind((session["local"], 0))
        self.socket.setblocking(False)

    def send(self, identifier: int) -> None:
        """Send one echo request of the present size; its sequence number is the size."""
        payload = bytes(self.size - IP_HEADER[self.family] - ECHO.size)
        header = ECHO.pack(ECHO_REQUEST[self.family], 0, 0, identifier, self.size)
        if self.family == "ipv4":  # the kernel computes the checksum of ICMPv6
            header = ECHO.pack(ECHO_REQUEST["ipv4"], 0, checksum(header + payload), identifier, self.size)
        with contextlib.suppress(OSError):  # the interface is down, or its MTU is smaller
            self.socket.sendto(header + payload, (self._address, 0))

    def is_answer(self, identifier: int) -> bool:
        """Read one packet; return whether it answers an echo request of the present size."""
        data, sender = self.socket.recvfrom(65536)
        if self.family == "ipv4":
            data = data[(data[0] & 0x0F) * 4 :]
        if len(data) < ECHO.size or sender[0].partition("%")[0] != self._address:
            return False
        kind, _, _, theirs, size = ECHO.unpack_from(data)
        return (kind, theirs, size) == (ECHO_REPLY[self.family], identifier, self.size)

    def narrow(self, has_answered: bool) -> bool:
        """Choose the next size: the largest, the smallest, then halves of the rest. False if none is left."""
        if has_answered:
            self.passes = self.size
        else:
            self._fails = self.size
        if self.passes == 0:
            is_silent = self.size <= SMALL_PING
            self.size = SMALL_PING
            return not is_silent
        self.size = (self.passes + self._fails) // 2
        return self._fails - self.passes > 1


def ping_round(fars: list[FarEnd], identifier: int) -> set[str]:
    """Send every far end a packet of its present size; return the names of the far ends that answer."""
    waiting = {far.socket: far for far in fars}
    begin = time.monotonic()
    times = list(PING_TIMES)
    while waiting and (now := time.monotonic() - begin) < PING_SECONDS:
        if times and now >= times[0]:
            del times[0]
            for far in waiting.values():
                far.send(identifier)
        until = times[0] if times else PING_SECONDS
        for ready in select.select(list(waiting), [], [], max(0.0, until - now))[0]:
            if waiting[ready].is_answer(identifier):
                del waiting[ready]
    return {far.name for far in fars} - {far.name for far in waiting.values()}


def far_ends(plan: Plan) -> list[dict[str, Any]]:
    """Return the far ends that get pings: with an IGP the neighbours on each path."""
    if plan["routing"]["igp"]:
        return [] if plan["kind"] == "route_reflector" else plan["routing"]["path_neighbors"]
    return [s for s in plan["routing"]["sessions"] if s["relation"] in ("reflector", "mesh")]


def path_sizes(plan: Plan, links: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return the size of the largest packet that each reflector answers, in bytes, by interface and address.

    The size is 0 if a reflector answers no ping at all.  A path with the planned MTU costs only two packets.
    """
    mtus = {uplink["interface"]: uplink["mtu"] for uplink in plan["uplinks"]}
    fars: dict[str, FarEnd] = {}
    with contextlib.ExitStack() as stack:
        for session in far_ends(plan):
            link = links.get(session["interface"])
            if link is not None and link["carrier"]:
                with contextlib.suppress(OSError):  # Without its address another check of the host fails.
                    far = FarEnd(session, min(link["mtu"], mtus[session["interface"]]))
                    stack.callback(far.socket.close)
                    fars[far.name] = far
        identifier = os.getpid() & 0xFFFF
        left = list(fars.values())
        while left:
            answered = ping_round(left, identifier)
            left = [far for far in left if far.narrow(far.name in answered)]
    return {name: far.passes for name, far in fars.items()}

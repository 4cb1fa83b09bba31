"""A DHCP client on a packet socket of the guest, which sends one request and reads one answer."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from l3hv.twin.network import entered

SOL_PACKET, PACKET_AUXDATA = 263, 8
CHECKSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY
COOKIE = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, DECLINE, ACK = 1, 2, 3, 4, 5
MESSAGE_TYPE, REQUESTED, SERVER, END = 53, 50, 54, 255
BROADCAST = 0x8000


@dataclass(frozen=True)
class Answer:
    """An answer on the guest's packet socket; ``is_ready``: the kernel marks the checksum as complete."""

    kind: int
    offered: str
    source: str
    server: str
    is_ready: bool
    has_good_checksum: bool
    options: dict[int, bytes]


@dataclass(frozen=True)
class Client:
    """A guest's interface, opened as a packet socket."""

    wire: socket.socket
    mac: bytes

    def send(
        self, kind: int, *options: tuple[int, bytes], flags: int = 0, transaction: bytes | None = None
    ) -> bytes:
        """Send one message to everyone, and return its transaction."""
        transaction = transaction or os.urandom(4)
        message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, flags) + bytes(16)
        message += self.mac.ljust(16, b"\0") + bytes(192) + COOKIE
        for code, value in ((MESSAGE_TYPE, bytes([kind])), *options):
            message += bytes([code, len(value)]) + value
        message += bytes([END])
        segment = struct.pack("!HHHH", 68, 67, 8 + len(message), 0) + message
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4
        )
        header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
        self.wire.send(b"\xff" * 6 + self.mac + b"\x08\x00" + header + segment)
        return transaction

    def ask(
        self, kind: int, *options: tuple[int, bytes], flags: int = 0, seconds: float = 5
    ) -> Answer | None:
        """Send one message and return the answer to it, or None if there is none."""
        transaction = self.send(kind, *options, flags=flags)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.wire], [], [], left)[0]:
                break
            frame, control, *_ = self.wire.recvmsg(2048, 256)
            is_dhcp = frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:36] == b"\0\x43"
            if is_dhcp and frame[46:50] == transaction:
                return _answer(frame, control)
        return None


@contextmanager
def client(namespace: str, interface: str = "eth0") -> Iterator[Client]:
    """Open a guest's interface."""
    with entered(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with wire:
        wire.bind((interface, 0x0800))
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        yield Client(wire, wire.getsockname()[4])


def _answer(frame: bytes, control: list[tuple[int, int, bytes]]) -> Answer:
    (status,) = {
        struct.unpack_from("I", data)[0]
        for level, kind, data in control
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA)
    }
    header = frame[14:34]
    segment = frame[34 : 14 + struct.unpack("!H", header[2:4])[0]]
    options = dict(_options(segment[8 + 240 :]))
    pseudo = header[12:20] + struct.pack("!HH", 17, len(segment))
    return Answer(
        kind=options[MESSAGE_TYPE][0],
        offered=str(IPv4Address(segment[24:28])),
        source=str(IPv4Address(header[12:16])),
        server=str(IPv4Address(options[SERVER])),
        is_ready=not status & CHECKSUM_NOT_READY,
        has_good_checksum=segment[6:8] != b"\0\0" and _checksum(pseudo + segment) == 0,
        options=options,
    )


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at] != END:
        if data[at] == 0:
            at += 1
            continue
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def _checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

"""Cables of guests and machines: send frames at one end, and count packets with a mark at the other."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from hostile import namespace
from lab import Lab

from l3hv.twin.network import entered

EVERYTHING = 0x0003  # ETH_P_ALL
SOL_PACKET, PACKET_STATISTICS = 263, 6
BUFFER_BYTES = 32 << 20
SO_RCVBUFFORCE = 33


@contextmanager
def cable(lab: Lab, name: str, interface: str) -> Iterator[socket.socket]:
    """Open an interface of a guest, from which the socket sends frames."""
    with entered(namespace(lab, name)):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind((interface, 0))
        yield wire


class MarkCounter:
    """A counter of incoming packets with given marks, on all interfaces of a guest or machine."""

    def __init__(self, wire: socket.socket, marks: Iterable[bytes]) -> None:
        self._wire = wire
        self._marks = tuple(marks)

    def found(self) -> dict[bytes, int]:
        """Return the number of packets with each mark since the last call."""
        counts = dict.fromkeys(self._marks, 0)
        while True:
            try:
                data, sender = self._wire.recvfrom(65535)
            except BlockingIOError:
                break
            if sender[2] != socket.PACKET_OUTGOING:
                for mark in self._marks:
                    counts[mark] += mark in data
        statistics = self._wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        assert struct.unpack("II", statistics)[1] == 0, "the kernel dropped packets before they were counted"
        return counts


@contextmanager
def counting_marks(
    lab: Lab, names: Iterable[str], marks: Iterable[bytes]
) -> Iterator[dict[str, MarkCounter]]:
    """Count packets with marks at some guests and machines while the block runs."""
    with ExitStack() as stack:
        lookers = {}
        for name in names:
            with entered(namespace(lab, name)):
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
            stack.enter_context(wire)
            wire.setblocking(False)
            wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            lookers[name] = MarkCounter(wire, marks)
        yield lookers

"""Cables of guests and machines: frames go in, and packets with a mark are looked for where they come out."""

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
    """Open an interface of a guest: what is sent by the socket comes from there."""
    with entered(namespace(lab, name)):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind((interface, 0))
        yield wire


class Looker:
    """Counts the packets with one of some marks that come in at a guest or machine, on all its interfaces."""

    def __init__(self, wire: socket.socket, marks: Iterable[bytes]) -> None:
        self._wire = wire
        self._marks = tuple(marks)

    def found(self) -> dict[bytes, int]:
        """Return how many packets had each mark since this was asked before."""
        counts = dict.fromkeys(self._marks, 0)
        while True:
            try:
                data, sender = self._wire.recvfrom(65535)
            except BlockingIOError:
                break
            if sender[2] != socket.PACKET_OUTGOING:
                for mark in self._marks:
                    counts[mark] += mark in data
        told = self._wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        assert struct.unpack("II", told)[1] == 0, "packets were not looked at: there were too many"
        return counts


@contextmanager
def looking(lab: Lab, names: Iterable[str], marks: Iterable[bytes]) -> Iterator[dict[str, Looker]]:
    """Look for marks at some guests and machines while the block runs."""
    with ExitStack() as stack:
        lookers = {}
        for name in names:
            with entered(namespace(lab, name)):
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
            stack.enter_context(wire)
            wire.setblocking(False)
            wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            lookers[name] = Looker(wire, marks)
        yield lookers

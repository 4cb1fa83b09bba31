"""A program of the attack tests that exchanges packets between pairs of ends until it is stopped.

First line of standard input: JSON, ``interval`` in seconds and ``pairs``, each with ``name``, the ``source``
and ``target`` (network namespace, address), and its number of ``flows``.  Each further line is a question.
The answer is a line of JSON, as soon as it is known: for each pair the packets sent and lost since the answer
before.  A first answer comes unasked, when packets flow.  A packet is lost when its echo has not come for a
second.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.twin.network import entered

PAYLOAD = struct.Struct("!8sQ")
LOST_AFTER_S = 1.0


@dataclass
class Pair:
    """A pair's packet counts since the last answer, and its packets in flight: number → sending time."""

    name: str
    sent: int = 0
    lost: int = 0
    underway: dict[int, float] = field(default_factory=dict)


def opened(namespace: str, address: str) -> socket.socket:
    """Return a socket of an end, bound to any port."""
    with entered(namespace):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((address, 0))
    return made


class Exchange:
    """The pairs and their sockets."""

    def __init__(self, pairs: list[dict[str, Any]]) -> None:
        self.pairs: list[Pair] = []
        self.flows: list[tuple[Pair, socket.socket, tuple[object, ...]]] = []
        self.senders: dict[int, tuple[Pair, socket.socket]] = {}
        self.echoes: dict[int, socket.socket] = {}
        self.token = secrets.token_bytes(8)
        self.number = 0
        self.poll = select.epoll()
        for wanted in pairs:
            pair = Pair(str(wanted["name"]))
            self.pairs.append(pair)
            echo = opened(*wanted["target"])
            self.echoes[echo.fileno()] = echo
            self.poll.register(echo.fileno(), select.EPOLLIN)
            for _ in range(int(wanted["flows"])):
                sender = opened(*wanted["source"])
                self.senders[sender.fileno()] = pair, sender
                self.flows.append((pair, sender, echo.getsockname()))
                self.poll.register(sender.fileno(), select.EPOLLIN)

    def send(self) -> None:
        """Send the next packet of the next flow."""
        pair, sender, target = self.flows[self.number % len(self.flows)]
        pair.sent += 1
        pair.underway[self.number] = time.monotonic()
        with contextlib.suppress(OSError):  # Without a route the packet is lost.
            sender.sendto(PAYLOAD.pack(self.token, self.number), target)
        self.number += 1

    def receive(self, fd: int) -> None:
        """Answer a packet, or count its echo."""
        with contextlib.suppress(BlockingIOError):
            if fd in self.echoes:
                while True:
                    data, sender = self.echoes[fd].recvfrom(2048)
                    with contextlib.suppress(OSError):
                        self.echoes[fd].sendto(data, sender)
            pair, wire = self.senders[fd]
            while True:
                with contextlib.suppress(ConnectionError):
                    data = wire.recv(2048)
                    if len(data) == PAYLOAD.size and data.startswith(self.token):
                        pair.underway.pop(PAYLOAD.unpack(data)[1], None)

    def give_up(self) -> None:
        """Count packets as lost that have been in flight for too long."""
        sent_until = time.monotonic() - LOST_AFTER_S
        for pair in self.pairs:
            while pair.underway and next(iter(pair.underway.values())) < sent_until:
                del pair.underway[next(iter(pair.underway))]
                pair.lost += 1

    def known(self, until: int) -> bool:
        """Return whether all packets before that number have arrived or are lost."""
        return self.number >= until and all(next(iter(pair.underway), until) >= until for pair in self.pairs)

    def answer(self) -> dict[str, dict[str, int]]:
        """Return the counts since the last call."""
        found = {pair.name: {"sent": pair.sent, "lost": pair.lost} for pair in self.pairs}
        for pair in self.pairs:
            pair.sent = pair.lost = 0
        return found


def main() -> None:
    with contextlib.suppress(OSError):  # This program itself must lose no packets.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    request = json.loads(sys.stdin.readline())
    exchange = Exchange(request["pairs"])
    exchange.poll.register(sys.stdin.fileno(), select.EPOLLIN)
    step = request["interval"] / len(exchange.flows)
    begin = time.monotonic()
    asked: int | None = len(exchange.flows)
    while True:
        while begin + exchange.number * step <= time.monotonic():
            exchange.send()
        if asked is not None and exchange.known(asked):
            print(json.dumps(exchange.answer()), flush=True)
            asked = None
        pause = begin + exchange.number * step - time.monotonic()
        ready = exchange.poll.poll(max(0.0, pause))
        if not ready:  # Read first: echoes that arrived while this process could not run are not lost.
            exchange.give_up()
        for fd, _ in ready:
            if fd != sys.stdin.fileno():
                exchange.receive(fd)
            elif not os.read(fd, 4096):
                return
            else:
                asked = exchange.number + len(exchange.flows)  # Each flow sends a packet after the request.


if __name__ == "__main__":
    main()

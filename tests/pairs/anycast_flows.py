"""Flows to an anycast address and their answers: a program for the namespaces of guests.

    anycast_flows.py answer NAME ADDRESS...        answer requests to these addresses with a name
    anycast_flows.py ask ADDRESS FLOWS ROUNDS      send ROUNDS requests in each of FLOWS flows; 0: until EOF

A flow is a UDP socket: Linux computes a hash for each.  `ask` prints the number of rounds, and a list of
the answers of each flow: pairs of a name and the TTL (hop limit) with which the request arrived.
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable

PORT = 7707
PATIENCE_S, PAUSE_S = 1.0, 0.1
RECEIVE_HOP_LIMIT = (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)
RECEIVE_TTL = (socket.IPPROTO_IP, 12)  # IP_RECVTTL of ip(7)
RECEIVE_BUFFER = (socket.SOL_SOCKET, 33, 2**23)  # SO_RCVBUFFORCE: one holder may get all flows at once


def opened(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def answer(name: str, *addresses: str) -> None:
    """Answer each request with a name and the request's TTL."""
    selector = selectors.DefaultSelector()
    for address in addresses:
        here = opened(address)
        here.setsockopt(*(RECEIVE_HOP_LIMIT if ":" in address else RECEIVE_TTL), 1)
        here.setsockopt(*RECEIVE_BUFFER)
        here.bind((address, PORT))
        selector.register(here, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            _, ((_, _, ttl),), _, asking = key.fileobj.recvmsg(64, 64)
            key.fileobj.sendto(f"{name} {int.from_bytes(ttl, sys.byteorder)}".encode(), asking)


def ask(address: str, flows: str, rounds: str) -> None:
    """Send a request in each flow and wait for the answers, several times."""
    asking = [opened(address) for _ in range(int(flows))]
    for flow in asking:
        flow.connect((address, PORT))
    answers: list[list[tuple[str, int]]] = [[] for _ in asking]
    count = 0
    while count < int(rounds) if int(rounds) else not select.select([sys.stdin], [], [], 0)[0]:
        count += 1
        selector = selectors.DefaultSelector()
        for number, flow in enumerate(asking):
            selector.register(flow, selectors.EVENT_READ, number)
            flow.send(b"who?")
        end = time.monotonic() + PATIENCE_S
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    name, ttl = key.fileobj.recv(64).decode().split()
                    answers[key.data].append((name, int(ttl)))
                except OSError:
                    pass  # an ICMP error
                selector.unregister(key.fileobj)
        time.sleep(PAUSE_S)
    print(json.dumps([count, answers]))


if __name__ == "__main__":
    programs: dict[str, Callable[..., object]] = {"answer": answer, "ask": ask}
    programs[sys.argv[1]](*sys.argv[2:])

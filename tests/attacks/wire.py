"""Run in a namespace by the attack tests: sends frames that it is given, or looks for a mark."""

from __future__ import annotations

import select
import socket
import sys


def send(interface: str) -> None:
    """Send each line of standard input, ``COUNT HEX``."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, 0))
        for line in sys.stdin:
            count, frame = line.split()
            for _ in range(int(count)):
                wire.send(bytes.fromhex(frame))


def look(mark: str) -> None:
    """Print how many packets with the mark come in, when standard input ends."""
    wanted = bytes.fromhex(mark)
    found = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        print("looking", flush=True)
        while True:
            ready, _, _ = select.select([wire, sys.stdin], [], [])
            if wire in ready:
                data, sender = wire.recvfrom(65535)
                found += wanted in data and sender[2] != socket.PACKET_OUTGOING
            elif sys.stdin in ready:
                break
    print(found)


if __name__ == "__main__":
    {"send": send, "look": look}[sys.argv[1]](sys.argv[2])

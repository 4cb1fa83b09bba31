"""A program of test_judgement that sends forged announcements in one BGP session, from a network namespace.

``python announcer.py KEY LOCAL NEIGHBOUR UPDATE…`` opens the session, sends the messages (in hexadecimal),
prints ``sent`` when the reflector has had time to read them, and runs until it is killed. KEY is the key of
the session (RFC 2385), or empty.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "attacks"))

import bgp

PATIENCE_S = 8
TCP_MD5SIG = 14


def connected(key: str, local: str, neighbor: str) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        session = socket.socket()
        session.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        if key:
            address = struct.pack("=H", socket.AF_INET) + struct.pack(
                "!H4s120x", 0, socket.inet_aton(neighbor)
            )
            signature = address + struct.pack("=BBHi80s", 0, 0, len(key), 0, key.encode())
            session.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, signature)
        try:
            session.bind((local, 0))
            session.settimeout(3)
            session.connect((neighbor, 179))
            session.sendall(bgp.open_message(65000, local))
            received = b""
            while bgp.message(bgp.KEEPALIVE, b"") not in received:
                part = session.recv(4096)
                if not part:
                    raise OSError("the session ended")
                received += part
                if len(received) > 19:
                    session.sendall(bgp.message(bgp.KEEPALIVE, b""))
        except OSError:
            session.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return session


def main() -> None:
    key, local, neighbor, *updates = sys.argv[1:]
    session = connected(key, local, neighbor)
    for update in updates:
        session.sendall(bytes.fromhex(update))
    time.sleep(1.5)
    print("sent", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()

"""A program of the attack tests that opens a hand-made BGP session in a namespace, and sends given messages.

Standard input: a line ``SOURCE TARGET TTL PATIENCE OPEN`` (for how many seconds it tries, and the OPEN in
hexadecimal), then lines ``COUNT HERTZ HEX``: messages, how often and how fast.
Standard output: ``established`` or ``refused``; ``sent`` for each line; what ends the session: ``closed``,
``notification CODE SUBCODE``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

from bgp import KEEPALIVE, NOTIFICATION, OPEN, message

IPV6_UNICAST_HOPS = 16


def connect(source: str, target: str, ttl: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    session = socket.socket(family)
    if family == socket.AF_INET6:
        session.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl)
    else:
        session.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session.bind((source, 0))
    session.settimeout(3)
    session.connect((target, 179))
    return session


def receive(session: socket.socket) -> tuple[int, bytes]:
    """Return the type and the body of the next message; raise EOFError if there is none."""

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = session.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    head = exactly(19)
    return head[18], exactly(int.from_bytes(head[16:18], "big") - 19)


def establish(source: str, target: str, ttl: int, patience: float, opening: bytes) -> socket.socket | None:
    """Return an established session, or ``None`` if the neighbour refuses one for ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            session = connect(source, target, ttl)
            session.sendall(opening)
            kinds = []
            while KEEPALIVE not in kinds:
                kind, body = receive(session)
                kinds.append(kind)
                if kind == OPEN:
                    session.sendall(message(KEEPALIVE, b""))
                if kind == NOTIFICATION:
                    print_line(f"notification {body[0]} {body[1]}")
                    raise EOFError
        except (OSError, EOFError):
            time.sleep(0.3)
        else:
            session.settimeout(None)
            return session
    return None


def listen(session: socket.socket) -> None:
    """Read the neighbour's messages until the session ends."""
    try:
        while True:
            kind, body = receive(session)
            if kind == NOTIFICATION:
                print_line(f"notification {body[0]} {body[1]}")
    except (OSError, EOFError):
        print_line("closed")
        with contextlib.suppress(OSError):
            session.shutdown(socket.SHUT_RDWR)  # so that the other thread stops sending


def print_line(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())  # unbuffered, because two threads print


def main() -> None:
    source, target, ttl, patience, opening = sys.stdin.readline().split()
    session = establish(source, target, int(ttl), float(patience), bytes.fromhex(opening))
    if session is None:
        print_line("refused")
        return
    print_line("established")
    threading.Thread(target=listen, args=(session,), daemon=True).start()
    for line in sys.stdin:
        count, hertz, data = line.split()
        payload = bytes.fromhex(data)
        due = time.monotonic()
        for _ in range(int(count)):
            try:
                session.sendall(payload)
            except OSError:
                break  # the listening thread has printed the reason
            due += 1 / float(hertz)
            time.sleep(max(0.0, due - time.monotonic()))
        print_line("sent")
    session.close()


if __name__ == "__main__":
    main()

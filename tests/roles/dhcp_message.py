"""Send a relayed message to a DHCP server, and print its answer.

    dhcp_message.py SOURCE RELAY LINK CIRCUIT MAC [TYPE ADDRESS [CLIENT]]

The type is that of option 53 (1: discover), and the address is requested.
CLIENT is the address that the client has already.  Prints the offered address and
some options in hexadecimal, or "silence".
"""

from __future__ import annotations

import socket
import struct
import sys

HEADER = struct.Struct("!BBBB4sHH4s4s4s4s16s192s4s")
MAGIC = b"\x63\x82\x53\x63"
SERVER = "172.22.9.53"
SHOWN = (1, 3, 26, 54, 119, 121)
PATIENCE_S = 1


def option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def message(relay: str, link: str, circuit: str, *more: str) -> bytes:
    mac, kind, address, client = (*more, *("", "1", "", "0.0.0.0")[len(more) :])
    none, hardware = bytes(4), bytes.fromhex(mac.replace(":", ""))
    relay_address = socket.inet_aton(relay)
    head = HEADER.pack(
        1, 1, 6, 1, b"l3hv", 0, 0, socket.inet_aton(client), none, none, relay_address, hardware, b"", MAGIC
    )
    hypervisor = circuit.partition("/")[0]
    information = option(1, circuit.encode()) + option(2, hypervisor.encode())
    information += option(5, socket.inet_aton(link)) if link != "0.0.0.0" else b""
    options = option(53, bytes((int(kind),))) + option(55, bytes(SHOWN))
    if address:
        options += option(50, socket.inet_aton(address)) + option(54, socket.inet_aton(link))
    return head + options + option(82, information) + b"\xff"


def offer(data: bytes) -> str:
    options, at = {}, HEADER.size
    while at < len(data) and data[at] != 255:
        options[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1] if data[at] else 1
    shown = (f"{code}={options[code].hex()}" for code in SHOWN if code in options)
    return " ".join([socket.inet_ntoa(data[16:20]), *shown])


def main(source: str, *words: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 67))
        client.settimeout(PATIENCE_S)
        client.sendto(message(*words), (SERVER, 67))
        try:
            print(offer(client.recv(2048)))
        except TimeoutError:
            print("silence")


if __name__ == "__main__":
    main(*sys.argv[1:])

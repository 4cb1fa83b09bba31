"""The DHCP leases and router advertisements that guests are offered on their ports."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from typing import Any

DHCP_SERVER = 67
DHCP_CLIENT = 68
DHCP_MAGIC = b"\x63\x82\x53\x63"
DHCP_HEADER = struct.Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")
DHCP_WANTED = bytes((1, 3, 6, 15, 26, 51, 119, 121))
IP_PKTINFO = 8  # the socket module has no name for it before Python 3.14
ICMP6_FILTER = 1
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
RA_HEADER = struct.Struct("!BBHBBHII")
RA_PREFIX = struct.Struct("!BBBBIII16s")
OFFER_SECONDS = 1.5
"""The time in which a daemon must answer. The daemons need a millisecond. radvd answers this solicitation at
once, because it sends the reply to the host itself, not to the guest."""


def dhcp_discover(mac: str, transaction: bytes) -> bytes:
    """Return the DHCPDISCOVER of a client with this MAC, which requests a broadcast reply (RFC 2131)."""
    none = bytes(4)
    hardware = bytes.fromhex(mac.replace(":", ""))
    header = (1, 1, 6, 0, transaction, 0, 0x8000, none, none, none, none, hardware, b"", b"", DHCP_MAGIC)
    options = bytes((53, 1, 1, 55, len(DHCP_WANTED))) + DHCP_WANTED + b"\xff"
    return (DHCP_HEADER.pack(*header) + options).ljust(300, b"\0")


def dhcp_options(data: bytes) -> dict[int, bytes]:
    """Return the options of a DHCP message; the parts of a split option are joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    position = DHCP_HEADER.size
    while position + 1 < len(data) and data[position] != 255:
        code = data[position]
        if code == 0:
            position += 1
            continue
        length = data[position + 1]
        options[code] = options.get(code, b"") + data[position + 2 : position + 2 + length]
        position += 2 + length
    return options


def addresses_in(data: bytes) -> list[str]:
    """Return the IPv4 addresses of an option that is a list of addresses."""
    return [socket.inet_ntoa(data[at : at + 4]) for at in range(0, len(data) - 3, 4)]


def classless_routes(data: bytes) -> list[list[str]]:
    """Return the (prefix, gateway) pairs of option 121 (RFC 3442)."""
    routes = []
    position = 0
    while position < len(data):
        length = data[position]
        size = (length + 7) // 8
        prefix = data[position + 1 : position + 1 + size].ljust(4, b"\0")
        gateway = data[position + 1 + size : position + 5 + size]
        if len(gateway) != 4:
            break
        routes.append([f"{socket.inet_ntoa(prefix)}/{length}", socket.inet_ntoa(gateway)])
        position += 5 + size
    return routes


def parse_offer(data: bytes) -> dict[str, Any] | None:
    """Return the lease of a DHCPOFFER, or None if ``data`` is another message."""
    if len(data) < DHCP_HEADER.size or data[0] != 2 or data[236:240] != DHCP_MAGIC:
        return None
    options = dhcp_options(data)
    if options.get(53) != b"\x02":
        return None
    return {
        "address": socket.inet_ntoa(data[16:20]),
        "server": next(iter(addresses_in(options.get(54, b""))), None),
        "netmask": next(iter(addresses_in(options.get(1, b""))), None),
        "gateway": next(iter(addresses_in(options.get(3, b""))), None),
        "dns": addresses_in(options.get(6, b"")),
        "mtu": int.from_bytes(options[26], "big") if 26 in options else None,
        "routes": classless_routes(options.get(121, b"")),
        "seconds": int.from_bytes(options.get(51, b""), "big"),
    }


def parse_advertisement(data: bytes) -> dict[str, Any] | None:
    """Return the fields of a router advertisement (RFC 4861, RFC 8106), or None for another message."""
    if len(data) < RA_HEADER.size or data[0] != ROUTER_ADVERTISEMENT:
        return None
    found: dict[str, Any] = {
        "lifetime": RA_HEADER.unpack_from(data)[5],
        "mtu": None,
        "prefixes": [],
        "dns": [],
    }
    position = RA_HEADER.size
    while position + 8 <= len(data) and data[position + 1]:
        kind, length = data[position], data[position + 1] * 8
        option = data[position : position + length]
        if kind == 3 and len(option) >= RA_PREFIX.size:
            _, _, bits, flags, valid, preferred, _, prefix = RA_PREFIX.unpack_from(option)
            found["prefixes"].append(
                {
                    "prefix": f"{socket.inet_ntop(socket.AF_INET6, prefix)}/{bits}",
                    "on_link": bool(flags & 0x80),
                    "autonomous": bool(flags & 0x40),
                    "valid": valid,
                    "preferred": preferred,
                }
            )
        elif kind == 1:
            found["mac"] = option[2:8].hex(":")
        elif kind == 5:
            found["mtu"] = int.from_bytes(option[4:8], "big")
        elif kind == 25:
            found["dns"] += [
                socket.inet_ntop(socket.AF_INET6, option[at : at + 16])
                for at in range(8, len(option) - 15, 16)
            ]
        position += length
    return found


def solicit(guests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Solicit a lease and a router on every guest port, and return the offers by guest.

    The kernel also delivers the multicasts and broadcasts to the sending host, on the outgoing interface.
    For the daemons these requests look like requests of the guest.
    """
    offers: dict[str, dict[str, Any]] = {guest["name"]: {"lease": None, "router": None} for guest in guests}
    leases = {os.urandom(4): guest for guest in guests if guest["lease"]}
    routers = {socket.if_nametoindex(guest["interface"]): guest for guest in guests if guest["prefix"]}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dhcp,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp,
    ):
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        dhcp.bind(("", DHCP_CLIENT))
        only_advertisements = bytearray(b"\xff" * 32)
        only_advertisements[ROUTER_ADVERTISEMENT // 8] &= ~(1 << (ROUTER_ADVERTISEMENT % 8))
        icmp.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(only_advertisements))
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for transaction, guest in leases.items():
            through = struct.pack("@i4s4s", socket.if_nametoindex(guest["interface"]), bytes(4), bytes(4))
            with contextlib.suppress(OSError):  # A port that is down has no offers.
                dhcp.sendmsg(
                    [dhcp_discover(guest["mac"], transaction)],
                    [(socket.IPPROTO_IP, IP_PKTINFO, through)],
                    0,
                    ("255.255.255.255", DHCP_SERVER),
                )
        for index in routers:
            with contextlib.suppress(OSError):
                icmp.sendto(struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0), ("ff02::2", 0, 0, index))
        deadline = time.monotonic() + OFFER_SECONDS
        while (leases or routers) and (left := deadline - time.monotonic()) > 0:
            for ready in select.select([dhcp, icmp], [], [], left)[0]:
                data, sender = ready.recvfrom(2048)
                if ready is dhcp and (offer := parse_offer(data)) and data[4:8] in leases:
                    offers[leases.pop(data[4:8])["name"]]["lease"] = offer
                elif ready is icmp and sender[3] in routers and (router := parse_advertisement(data)):
                    offers[routers.pop(sender[3])["name"]]["router"] = {
                        **router,
                        "address": sender[0].split("%")[0],
                    }
    return offers

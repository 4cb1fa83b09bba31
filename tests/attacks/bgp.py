"""BGP messages of an attacker (RFC 4271, 4760), built without a daemon."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
OPTIONAL, TRANSITIVE, EXTENDED = 0x80, 0x40, 0x10
ORIGIN, AS_PATH, NEXT_HOP, MED, LOCAL_PREF = 1, 2, 3, 4, 5
COMMUNITIES, ORIGINATOR_ID, CLUSTER_LIST, MP_REACH, EXTENDED_COMMUNITIES = 8, 9, 10, 14, 16
AIGP, LARGE_COMMUNITIES = 26, 32
IPV4_UNICAST, IPV6_UNICAST = (1, 1), (2, 1)
LONGEST = 4096


def message(kind: int, body: bytes) -> bytes:
    return b"\xff" * 16 + struct.pack("!HB", 19 + len(body), kind) + body


def open_message(asn: int, router_id: str) -> bytes:
    """Return an OPEN for both families, with route refresh and 4-octet AS numbers."""
    capabilities = b"".join(
        struct.pack("!BB", code, len(value)) + value
        for code, value in (
            *(
                (1, struct.pack("!HBB", family, 0, subsequent))
                for family, subsequent in (IPV4_UNICAST, IPV6_UNICAST)
            ),
            (2, b""),
            (65, struct.pack("!I", asn)),
        )
    )
    parameters = struct.pack("!BB", 2, len(capabilities)) + capabilities
    head = struct.pack("!BHH4sB", 4, asn, 90, ip_address(router_id).packed, len(parameters))
    return message(OPEN, head + parameters)


def attribute(kind: int, value: bytes, flags: int = TRANSITIVE) -> bytes:
    if len(value) > 255:
        return struct.pack("!BBH", flags | EXTENDED, kind, len(value)) + value
    return struct.pack("!BBB", flags, kind, len(value)) + value


def number(kind: int, value: int, flags: int = TRANSITIVE) -> bytes:
    """Return an attribute of one 4-octet number."""
    return attribute(kind, struct.pack("!I", value), flags)


def address(kind: int, value: str, flags: int = TRANSITIVE) -> bytes:
    """Return an attribute that is an address."""
    return attribute(kind, ip_address(value).packed, flags)


def prefix(text: str) -> bytes:
    network = ip_network(text)
    return bytes((network.prefixlen,)) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def path(*numbers: int) -> bytes:
    """Return an AS_PATH of one sequence, or an empty one."""
    segment = struct.pack(f"!BB{len(numbers)}I", 2, len(numbers), *numbers) if numbers else b""
    return attribute(AS_PATH, segment)


def usual() -> bytes:
    """Return the attributes of every iBGP announcement, except the next hop."""
    return attribute(ORIGIN, b"\0") + path() + number(LOCAL_PREF, 100)


def update(attributes: bytes, announced: Iterable[str] = (), withdrawn: Iterable[str] = ()) -> bytes:
    """Return an UPDATE of IPv4 prefixes."""
    gone, come = b"".join(map(prefix, withdrawn)), b"".join(map(prefix, announced))
    return message(
        UPDATE, struct.pack("!H", len(gone)) + gone + struct.pack("!H", len(attributes)) + attributes + come
    )


def reach(next_hop: str, announced: Iterable[str]) -> bytes:
    """Return the attribute that announces IPv6 prefixes (RFC 4760)."""
    hop = ip_address(next_hop).packed
    head = struct.pack("!HBB", *IPV6_UNICAST, len(hop)) + hop + b"\0"
    return attribute(MP_REACH, head + b"".join(map(prefix, announced)), OPTIONAL)


def updates(next_hop: str, announced: list[str]) -> list[bytes]:
    """Return UPDATEs of many IPv6 prefixes, each as full as possible."""
    room = (LONGEST - 200) // 17
    parts = (announced[first : first + room] for first in range(0, len(announced), room))
    return [update(usual() + reach(next_hop, part)) for part in parts]

"""Frames of an attacker, whose headers do not come from the kernel."""

from __future__ import annotations

import struct
from ipaddress import ip_address

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
EVERYBODY = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def tagged(frame: bytes, vlan: int) -> bytes:
    """Return a frame with an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac(sender_mac) + packed(sender) + mac(target_mac) + packed(target)


def ip(source: str, target: str, protocol: int, payload: bytes, *, ttl: int = 64, fragment: int = 0) -> bytes:
    """Return an IPv4 or IPv6 packet; ``fragment`` is the IPv4 field of flags and offset."""
    if ":" in source:
        return (
            struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl)
            + packed(source)
            + packed(target)
            + payload
        )
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, ttl, protocol, 0)
    head += packed(source) + packed(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def sealed(source: str, target: str, protocol: int, payload: bytes, at: int) -> bytes:
    """Return a transport's ``payload`` with its checksum inserted ``at`` an offset."""
    pseudo = packed(source) + packed(target)
    pseudo += struct.pack("!IHBB", len(payload), 0, 0, protocol)
    if protocol == ICMP:
        pseudo = b""
    value = checksum(pseudo + payload) or 0xFFFF
    return payload[:at] + struct.pack("!H", value) + payload[at + 2 :]


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes = b"", *, ttl: int = 64) -> bytes:
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    return ip(source, target, UDP, sealed(source, target, UDP, head + payload, 6), ttl=ttl)


def syn(source: str, target: str, port: int, *, ttl: int = 64) -> bytes:
    head = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 0x02, 1024, 0, 0)
    return ip(source, target, TCP, sealed(source, target, TCP, head, 16), ttl=ttl)


def icmp(
    source: str, target: str, kind: int, body: bytes = b"\0\0\0\0", *, code: int = 0, ttl: int = 64
) -> bytes:
    """Return an ICMP or ICMPv6 packet, according to the family of the addresses."""
    protocol = ICMPV6 if ":" in source else ICMP
    message = struct.pack("!BBH", kind, code, 0) + body
    return ip(source, target, protocol, sealed(source, target, protocol, message, 2), ttl=ttl)


def advertisement(source: str, prefix: str, own_mac: str) -> bytes:
    """Return a router advertisement of ``prefix`` (RFC 4861), without the IPv6 header."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    body += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 1800, 1800, 0) + packed(prefix)
    body += b"\1\1" + mac(own_mac)
    message = struct.pack("!BBH", 134, 0, 0) + body
    return sealed(source, "ff02::1", ICMPV6, message, 2)


def neighbor(kind: int, source: str, target: str, about: str, own_mac: str) -> bytes:
    """Return a neighbour solicitation (135) or advertisement (136) ``about`` an address."""
    flags = 0x20000000 if kind == 136 else 0
    option = (b"\2\1" if kind == 136 else b"\1\1") + mac(own_mac)
    return icmp(source, target, kind, struct.pack("!I", flags) + packed(about) + option, ttl=255)


def dhcp(operation: int, client_mac: str, transaction: int, kind: int, offered: str = "0.0.0.0") -> bytes:
    """Return a DHCP message (RFC 2131) without UDP: ``operation`` 1 is a request, 2 a reply."""
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, transaction, 0, 0x8000)
    head += packed("0.0.0.0") + packed(offered) + packed("0.0.0.0") * 2 + mac(client_mac).ljust(16, b"\0")
    return head.ljust(236, b"\0") + b"\x63\x82\x53\x63" + bytes((53, 1, kind, 255))

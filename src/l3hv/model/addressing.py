"""Address arithmetic: the addresses and prefixes that follow from numbers, and comparisons of prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from l3hv.model.choices import Family

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
HOST_LENGTH: dict[Family, int] = {"ipv4": 32, "ipv6": 128}
DEFAULT_ROUTE: dict[Family, str] = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}
GUEST_PREFIX_LENGTH = 64
"""Length of a guest's IPv6 prefix: SLAAC (RFC 4862) works with no other length."""

PIECE_LENGTH: dict[Family, int] = {"ipv4": HOST_LENGTH["ipv4"], "ipv6": GUEST_PREFIX_LENGTH}
"""Length of the smallest part of a pool: one IPv4 address, or one guest's IPv6 prefix."""

OUTER_HEADER: dict[Family, int] = {"ipv4": 20, "ipv6": 40}
"""Bytes of the outer header of a tunnel (RFC 2003; RFC 2473 without an encapsulation limit)."""

LINK_LOCAL_GATEWAY = "fe80::1"
"""The link-local address of every guest port, which is the IPv6 gateway of every guest."""

LINK_LOCAL6 = IPv6Network("fe80::/64")

LINK_LOCAL4 = IPv4Network("169.254.0.0/16")
"""The link-local prefix, to which a router does not forward packets (RFC 3927, section 2.6.2)."""

LINK_LOCAL_GATEWAY4 = IPv4Address("169.254.1.1")
"""The gateway of guests whose pool has ``gateway: link_local``."""

METADATA_SERVICE = IPv4Address("169.254.169.254")
"""The address at which guests expect a metadata service: it cannot be a gateway."""

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_MAC_BASE = 60
_GUEST_PREFIX_SIZE = 1 << (128 - GUEST_PREFIX_LENGTH)
_NOT_UNICAST = {
    version: tuple(
        (int(prefix.network_address), int(prefix.broadcast_address)) for prefix in map(ip_network, prefixes)
    )
    for version, prefixes in (
        (4, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")),
        (6, ("::/8", "fe80::/10", "ff00::/8")),
    )
}


def family_of(address: Address | Network) -> Family:
    """Return the family of an address or prefix.

    >>> family_of(IPv4Address("192.0.2.1"))
    'ipv4'
    """
    return "ipv4" if address.version == 4 else "ipv6"


def family_of_text(address: str) -> Family:
    """Return the family of a canonical address or prefix in text.

    >>> family_of_text("2001:db8::/32")
    'ipv6'
    """
    return "ipv6" if ":" in address else "ipv4"


def numbers_of(prefix: Network) -> range:
    """Return the host numbers that can be used in ``prefix``.

    The network address (in IPv6 the subnet-router anycast address, RFC 4291) and IPv4's broadcast
    address are excluded.

    >>> numbers_of(IPv4Network("198.51.100.0/25"))
    range(1, 127)
    >>> numbers_of(IPv6Network("2001:db8::/120"))
    range(1, 256)
    """
    size = 1 << (prefix.max_prefixlen - prefix.prefixlen)
    return range(1, size - 1 if prefix.version == 4 else size)


def numbered(prefix: Network, number: int) -> Address:
    """Return the address of ``prefix`` with a host number of ``numbers_of(prefix)``.

    >>> str(numbered(IPv4Network("198.51.100.128/25"), 3))
    '198.51.100.131'
    """
    return prefix.network_address + number


def guest_prefix_numbers(pool: IPv6Network) -> range:
    """Return the numbers of the /64s inside ``pool``.

    >>> guest_prefix_numbers(IPv6Network("2001:db8:cb00:7100::/56"))
    range(0, 256)
    """
    return range(1 << max(0, GUEST_PREFIX_LENGTH - pool.prefixlen))


def guest_prefix(pool: IPv6Network, number: int) -> IPv6Network | None:
    """Return the /64 with this number inside ``pool``, or ``None`` if the pool has no such /64.

    The number counts the /64s: number 10 is ``…0a::/64``, not ``…10::/64``.

    >>> guest_prefix(IPv6Network("2001:db8:cb00:7100::/56"), 3)
    IPv6Network('2001:db8:cb00:7103::/64')
    >>> guest_prefix(IPv6Network("2001:db8:cb00:7100::/60"), 16) is None
    True
    """
    if number not in guest_prefix_numbers(pool):
        return None
    return IPv6Network((int(pool.network_address) + number * _GUEST_PREFIX_SIZE, GUEST_PREFIX_LENGTH))


def link_local_of(mac: str) -> str:
    """Return the link-local address that SLAAC makes of a MAC (modified EUI-64, RFC 4291 appendix A).

    >>> link_local_of("50:54:33:00:00:07")
    'fe80::5254:33ff:fe00:7'
    """
    return str(slaac_address(LINK_LOCAL6, mac))


def slaac_address(prefix: IPv6Network, mac: str) -> IPv6Address:
    """Return the address that SLAAC makes of a /64 and a MAC (RFC 4862, modified EUI-64).

    >>> slaac_address(IPv6Network("2001:db8:cb00:7100::/64"), "50:54:33:00:00:07")
    IPv6Address('2001:db8:cb00:7100:5254:33ff:fe00:7')
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return prefix.network_address + int.from_bytes(identifier, "big")


def mac_of(value: object) -> str | None:
    """Return a MAC in canonical form, or ``None`` if ``value`` is not a MAC.

    YAML 1.1 reads ``50:54:33:00:00:07`` without quotes as a number in base 60. Such a number is
    converted back.

    >>> mac_of("50-54-33-00-00-0F")
    '50:54:33:00:00:0f'
    >>> mac_of(39586968007)
    '50:54:33:00:00:07'
    """
    if isinstance(value, str):
        mac = value.lower().replace("-", ":")
        return mac if _MAC.fullmatch(mac) else None
    if isinstance(value, int) and not isinstance(value, bool):
        octets: list[int] = []
        for _ in range(5):
            value, octet = divmod(value, _MAC_BASE)
            octets.insert(0, octet)
        if 10 <= value <= 99:
            return ":".join(f"{octet:02}" for octet in (value, *octets))
    return None


def is_unicast_mac(mac: str) -> bool:
    """Tell whether a canonical MAC can belong to one interface: it is not multicast and not all zeros.

    >>> is_unicast_mac("50:54:33:00:00:07"), is_unicast_mac("01:00:5e:00:00:01")
    (True, False)
    """
    return int(mac[:2], 16) & 1 == 0 and mac != "00:00:00:00:00:00"


def is_unicast(prefix: Network) -> bool:
    """Tell whether ``prefix`` can be routed to a host: not link-local, multicast, loopback or reserved.

    >>> is_unicast(IPv4Network("224.0.0.0/24"))
    False
    """
    first, last = bounds(prefix)
    return not any(first <= high and low <= last for low, high in _NOT_UNICAST[prefix.version])


def bounds(prefix: Address | Network) -> tuple[int, int]:
    """Return the first and last address of a prefix as numbers; for a single address they are equal.

    >>> bounds(IPv4Network("0.0.1.0/24"))
    (256, 511)
    """
    if isinstance(prefix, (IPv4Address, IPv6Address)):
        return int(prefix), int(prefix)
    return int(prefix.network_address), int(prefix.broadcast_address)


def brief(prefix: Address | Network | str) -> str:
    """Return a prefix as text; a single address (/32, /128) is written without its length.

    >>> brief("192.0.2.1/32"), brief(IPv6Network("2001:db8::/64"))
    ('192.0.2.1', '2001:db8::/64')
    """
    address, _, length = str(prefix).partition("/")
    return address if length in ("", "128" if ":" in address else "32") else f"{address}/{length}"


def is_inside(inner: Address | Network, outer: Network) -> bool:
    """Tell whether an address or a whole prefix lies inside ``outer``.

    >>> is_inside(IPv4Address("192.0.2.1"), IPv4Network("192.0.2.0/24"))
    True
    """
    if inner.version != outer.version:
        return False
    (first, last), (low, high) = bounds(inner), bounds(outer)
    return low <= first and last <= high


def is_covered(prefix: str, blocks: tuple[str, ...]) -> bool:
    """Tell whether a prefix is inside one of several blocks, all in text.

    >>> is_covered("203.0.113.65/32", ("203.0.113.64/26",)), is_covered("203.0.113.1/32", ())
    (True, False)
    """
    return bool(blocks) and any(is_inside(ip_network(prefix), ip_network(block)) for block in blocks)


def by_address(prefix: Network) -> tuple[int, int]:
    """Return the sort key for prefixes of one family: a prefix sorts before the prefixes inside it."""
    return (int(prefix.network_address), prefix.prefixlen)


def outermost(prefixes: Iterable[Network]) -> list[Network]:
    """Return the prefixes of one family that lie inside no other, in the order of their addresses."""
    kept: list[Network] = []
    for prefix in sorted(prefixes, key=by_address):
        if not kept or not is_inside(prefix, kept[-1]):
            kept.append(prefix)
    return kept


def longer_than(prefix: Network) -> int:
    """Return the prefix length of the largest parts of ``prefix``, without ``prefix`` itself.

    The smallest parts are one IPv4 address and one /64 (:data:`PIECE_LENGTH`). A prefix without smaller parts
    returns their length.

    >>> longer_than(IPv4Network("203.0.113.0/24")), longer_than(IPv6Network("2001:db8::/64"))
    (25, 64)
    """
    return min(prefix.prefixlen + 1, PIECE_LENGTH[family_of(prefix)])


def first_host(prefix: Network) -> Address:
    """Return the first host address of a prefix that is routed to a machine.

    A single address, a /31 and a /127 have no network address: their first address is a host address.

    >>> str(first_host(IPv4Network("203.0.113.64/28"))), str(first_host(IPv4Network("203.0.113.10/32")))
    ('203.0.113.65', '203.0.113.10')
    """
    has_network_address = prefix.prefixlen < prefix.max_prefixlen - 1
    return prefix.network_address + (1 if has_network_address else 0)

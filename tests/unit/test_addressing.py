"""Address arithmetic, for any prefix and number."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l3hv.model.addressing import (
    bounds,
    first_host,
    guest_prefix,
    guest_prefix_numbers,
    is_inside,
    is_unicast,
    link_local_of,
    mac_of,
    numbered,
    numbers_of,
)

ipv4_networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(8, 30),
)
ipv6_networks = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(16, 126),
)
octets = st.integers(0, 255)


@given(ipv4_networks | ipv6_networks, st.data())
def test_numbers_give_different_usable_addresses_of_the_prefix(prefix, data):
    numbers = numbers_of(prefix)
    one, other = (data.draw(st.integers(numbers.start, numbers.stop - 1)) for _ in range(2))
    address = numbered(prefix, one)
    assert address in prefix
    assert address != prefix.network_address
    assert prefix.version == 6 or address != prefix.broadcast_address
    assert (address == numbered(prefix, other)) == (one == other)


@pytest.mark.parametrize("prefix", ["198.51.100.0/31", "198.51.100.0/32", "2001:db8::/128"])
def test_too_long_prefixes_have_no_host_numbers(prefix):
    assert not numbers_of(ip_network(prefix))


@given(st.integers(16, 64), st.data())
def test_guest_prefixes_are_distinct_and_inside_the_pool(length, data):
    pool = IPv6Network((0x20010DB8 << 96, length), strict=False)
    numbers = guest_prefix_numbers(pool)
    one, other = (data.draw(st.integers(0, len(numbers) - 1)) for _ in range(2))
    prefix = guest_prefix(pool, one)
    assert prefix is not None
    assert prefix.prefixlen == 64
    assert prefix.subnet_of(pool)
    assert (prefix == guest_prefix(pool, other)) == (one == other)
    assert guest_prefix(pool, len(numbers)) is None
    assert guest_prefix(pool, -1) is None


def test_an_ipv6_pool_longer_than_64_bits_has_one_guest_prefix():
    assert list(guest_prefix_numbers(IPv6Network("2001:db8::/80"))) == [0]


@given(st.lists(octets, min_size=6, max_size=6))
def test_macs_are_read_in_every_notation(values):
    mac = ":".join(f"{value:02x}" for value in values)
    assert mac_of(mac) == mac
    assert mac_of(mac.upper()) == mac
    assert mac_of(mac.replace(":", "-")) == mac


@given(st.integers(10, 99), st.lists(st.integers(0, 59), min_size=5, max_size=5))
def test_macs_that_yaml_reads_as_numbers_are_restored(first, rest):
    """PyYAML follows YAML 1.1, where digits with colons are a number in base 60."""
    written = ":".join(f"{value:02}" for value in (first, *rest))
    number = 0
    for value in (first, *rest):
        number = number * 60 + value
    assert mac_of(number) == written


@pytest.mark.parametrize(
    "value", ["", "50:54:33:00:00", "50:54:33:00:00:0g", "50543300000f", None, True, 7, 1.5, []]
)
def test_invalid_macs_are_refused(value):
    assert mac_of(value) is None


@given(st.lists(octets, min_size=6, max_size=6), st.lists(octets, min_size=6, max_size=6))
def test_link_local_addresses_are_as_distinct_as_macs(one, other):
    first, second = (":".join(f"{value:02x}" for value in values) for values in (one, other))
    assert (link_local_of(first) == link_local_of(second)) == (one == other)
    assert link_local_of(first).startswith("fe80::")


@given(ipv4_networks | ipv6_networks)
def test_the_first_host_address_is_inside_the_prefix(prefix):
    assert is_inside(first_host(prefix), prefix)
    assert is_inside(prefix, prefix)


def test_families_do_not_contain_each_other():
    assert not is_inside(IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("203.0.113.0/24", True),
        ("10.0.0.0/8", True),
        ("0.0.0.0/0", False),
        ("127.0.0.0/8", False),
        ("126.0.0.0/7", False),
        ("169.254.1.0/24", False),
        ("224.0.0.0/4", False),
        ("255.255.255.255/32", False),
        ("2001:db8::/32", True),
        ("::/0", False),
        ("::1/128", False),
        ("fe80::/64", False),
        ("ff02::/16", False),
        ("fd00::/8", True),
    ],
)
def test_is_unicast(prefix, expected):
    assert is_unicast(ip_network(prefix)) is expected


def test_a_single_address_has_equal_bounds():
    assert bounds(first_host(IPv4Network("192.0.2.1/32"))) == (0xC0000201, 0xC0000201)

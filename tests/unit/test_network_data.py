"""The network configuration of guests without DHCP, in the format of cloud-init."""

from __future__ import annotations

from typing import Any

import pytest
from intents import COMMON, common_of, slices

from l3hv.model.plain import as_plain
from l3hv.plan.host import host_plan
from l3hv.render.network_data import network_data

MAC = "52:54:00:00:00:07"
POOLS = {
    "subnet": {
        "ipv4": "203.0.113.0/25",
        "gateway": "203.0.113.126",
        "ipv6": "2001:db8:cb00:7100::/56",
        "mtu": 1400,
    },
    "routed": {
        "ipv4": "198.51.100.0/24",
        "gateway": "198.51.100.1",
        "routes": {"10.0.0.0/8": "198.51.100.9"},
        "dns": ["192.0.2.53", "2001:db8:53::53"],
        "search": ["example.net"],
    },
    "single": {
        "ipv4": "203.0.113.128/25",
        "gateway": "link_local",
        "ipv6": "2001:db8:cb00:7200::/64",
        "ipv6_mode": "address",
        "routes": ["10.0.0.0/8"],
    },
}
BY_GATEWAY = {"to": "::/0", "via": "fe80::1", "on-link": True}


def configuration(**guest: Any) -> dict[str, Any]:
    """Return the configuration of the interface of a guest."""
    variables = {
        "l3hv_id": 1,
        "l3hv_uplinks": {"a": "eno1", "b": "eno2"},
        "l3hv_dhcp": "none",
        "l3hv_guests": [{"name": "vm1", "mac": MAC, **guest}],
    }
    common = common_of(COMMON | {"l3hv_pools": POOLS})
    plan = host_plan(slices({"hv1": ("hypervisor", variables)}, common)["hv1"])
    found = network_data(as_plain(plan), "vm1")
    assert found["version"] == 2
    interface: dict[str, Any] = found["ethernets"]["guest"]
    assert interface["match"] == {"macaddress": MAC}
    return interface


def test_a_guest_of_a_subnet_has_its_length_and_makes_its_ipv6_addresses_itself():
    found = configuration(ipv4="203.0.113.7")
    assert found["addresses"] == ["203.0.113.7/25"]
    assert found["routes"] == [{"to": "0.0.0.0/0", "via": "203.0.113.126"}]
    assert found["accept-ra"] is True
    assert found["mtu"] == 1400
    assert "nameservers" not in found


def test_routes_and_name_servers_are_those_of_the_pool():
    found = configuration(ipv4="198.51.100.7")
    assert found["routes"] == [
        {"to": "0.0.0.0/0", "via": "198.51.100.1"},
        {"to": "10.0.0.0/8", "via": "198.51.100.9"},
    ]
    assert found["nameservers"] == {"addresses": ["192.0.2.53"], "search": ["example.net"]}
    assert found["accept-ra"] is False


def test_name_servers_of_both_families_for_a_guest_with_both():
    found = configuration(ipv4="198.51.100.7", ipv6="2001:db8:cb00:7107::/64")
    assert found["nameservers"]["addresses"] == ["192.0.2.53", "2001:db8:53::53"]


def test_a_link_local_gateway_is_reached_on_the_link():
    found = configuration(ipv4="203.0.113.128", ipv6=False)
    assert found["addresses"] == ["203.0.113.128/32"]
    assert found["routes"] == [
        {"to": "0.0.0.0/0", "via": "169.254.1.1", "on-link": True},
        {"to": "10.0.0.0/8", "via": "169.254.1.1", "on-link": True},
    ]


@pytest.mark.parametrize(
    ("ipv6", "address"),
    [
        ({"ipv6": "2001:db8:cb00:7200::7"}, "2001:db8:cb00:7200::7/128"),
        ({}, "2001:db8:cb00:7200:5054:ff:fe00:7/128"),
    ],
)
def test_a_guest_of_a_shared_prefix_has_its_address_and_makes_no_others(ipv6: dict[str, Any], address: str):
    found = configuration(ipv4="203.0.113.255", **ipv6)
    assert found["addresses"] == ["203.0.113.255/32", address]
    assert BY_GATEWAY in found["routes"]
    assert found["accept-ra"] is False


def test_a_guest_without_ipv4_has_no_ipv4_routes():
    found = configuration(ipv6="2001:db8:cb00:7200::7")
    assert (found["addresses"], found["routes"]) == (["2001:db8:cb00:7200::7/128"], [BY_GATEWAY])


def test_additional_and_anycast_addresses_are_on_the_interface_and_others_are_not():
    found = configuration(
        ipv4="203.0.113.7",
        ipv6=False,
        addresses=["203.0.113.8", "2001:db8:cb00:7120::8"],
        anycast=["203.0.113.9"],
        subnets=["203.0.113.16/28"],
        transparent=["203.0.113.10"],
    )
    assert found["addresses"] == [
        "203.0.113.7/25",
        "203.0.113.8/32",
        "2001:db8:cb00:7120::8/128",
        "203.0.113.9/32",
    ]
    # No advertisement gives it a default route.
    assert BY_GATEWAY in found["routes"]


def test_an_unknown_guest_is_a_key_error():
    plan = as_plain(
        host_plan(slices({"hv1": ("hypervisor", {"l3hv_id": 1, "l3hv_uplinks": {"a": "eno1"}})})["hv1"])
    )
    with pytest.raises(KeyError):
        network_data(plan, "vm1")

"""Valid intents for the tests: one hypervisor, and fabrics of any size."""

from __future__ import annotations

from typing import Any

from l3hv.intent.all_hosts import AllHosts
from l3hv.intent.fabric import parse_common
from l3hv.intent.hosts import parse_host
from l3hv.model.choices import Kind
from l3hv.model.intent import Common, HostIntent, HostSlice

COMMON: dict[str, Any] = {
    "l3hv_fabric": "test",
    "l3hv_asn": 65000,
    "l3hv_domains": {
        "public": {"table": 90, "vlan": 90, "families": ["ipv4", "ipv6"]},
        "private": {"table": 20, "vlan": 20, "loopbacks": {"ipv4": "172.22.0.0/16"}},
    },
    "l3hv_local_out": {"table": 100},
    "l3hv_paths": {
        "a": {
            "public": {"ipv4": "198.18.0.0/18", "ipv6": "2001:db8:a::/112"},
            "private": {"ipv4": "172.16.0.0/18"},
        },
        "b": {
            "public": {"ipv4": "198.18.64.0/18", "ipv6": "2001:db8:b::/112"},
            "private": {"ipv4": "172.16.64.0/18"},
        },
    },
    "l3hv_pools": {
        "customers": {
            "ipv4": "10.0.0.0/12",
            "gateway": "10.0.0.1",
            "ipv6": "2001:db8:8000::/33",
            "dns": ["192.0.2.53", "2001:db8:53::53"],
        },
        "services": {"domain": "private", "ipv4": "10.64.0.0/16", "gateway": "10.64.0.1"},
    },
}


def hypervisor(number: int, guests: int = 1) -> dict[str, Any]:
    """Return the variables of a hypervisor whose guests clash with those of no other number."""
    first = (number - 1) * max(guests, 1) + 2
    return {
        "l3hv_id": number,
        "l3hv_uplinks": {"a": "eno1", "b": "eno2"},
        "l3hv_guests": [
            {
                "name": f"vm{n}",
                "mac": f"52:54:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
                "ipv4": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
            }
            for n in range(first, first + guests)
        ],
    }


REFLECTORS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "rr1": ("route_reflector", {"l3hv_id": 16000, "l3hv_uplinks": {"a": "eno1"}}),
    "rr2": ("route_reflector", {"l3hv_id": 16000, "l3hv_uplinks": {"b": "eno1"}}),
}
EDGE: dict[str, tuple[Kind, dict[str, Any]]] = {
    "edge": ("edge_router", {"l3hv_id": 15000, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}}),
}


def fabric(hypervisors: int, guests: int = 1) -> dict[str, tuple[Kind, dict[str, Any]]]:
    """Return the kind and the variables of each host of a fabric."""
    hosts: dict[str, tuple[Kind, dict[str, Any]]] = {
        f"hv{n}": ("hypervisor", hypervisor(n, guests)) for n in range(1, hypervisors + 1)
    }
    return hosts | REFLECTORS | EDGE


def common_of(variables: dict[str, Any] | None = None) -> Common:
    common, problems = parse_common(COMMON if variables is None else variables)
    assert common is not None
    assert not problems
    return common


def intents(
    hosts: dict[str, tuple[Kind, dict[str, Any]]], common: Common | None = None
) -> dict[str, HostIntent]:
    """Return the parsed hosts of an intent without problems."""
    common = common or common_of()
    parsed = {}
    for name, (kind, variables) in hosts.items():
        host, problems = parse_host(name, kind, variables, common)
        assert host is not None, problems
        parsed[name] = host
    return parsed


def slices(
    hosts: dict[str, tuple[Kind, dict[str, Any]]], common: Common | None = None
) -> dict[str, HostSlice]:
    """Return the slice of each host of an intent without problems."""
    common = common or common_of()
    everybody = AllHosts.of(common, intents(hosts, common))
    return {name: everybody.slice_of(host) for name, host in everybody.hosts.items()}

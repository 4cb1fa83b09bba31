"""The addresses of the inventory under test, from its plans.

The tests of the fabric and the attacks run on the lab, and on other designs with guests of the same names on
the same hypervisors.  Their addresses differ, so the tests take them from here.
"""

from __future__ import annotations

from functools import cache
from ipaddress import IPv6Network, ip_interface, ip_network
from typing import Any

from machines import GUESTS, host_plans

from l3hv.model.addressing import slaac_address

FAMILY = {4: "ipv4", 6: "ipv6"}


@cache
def _guests() -> dict[str, dict[str, Any]]:
    """Return the plan of each guest."""
    return {guest["name"]: guest for plan in host_plans().values() for guest in plan["guests"]}


def has_vrfs(host: str) -> bool:
    """Return whether a hypervisor keeps its domains apart by VRFs."""
    return bool(host_plans()[host]["vrfs"])


def dhcp_servers() -> list[str]:
    """Return the DHCP servers of the fabric: a guest's reservation there names its hypervisor."""
    return [name for name, plan in host_plans().items() if plan["dhcp_server"] is not None]


def _prefixes(guest: str, family: int, kind: str) -> list[str]:
    routes = _guests()[guest]["routes"]
    return [each["prefix"] for each in routes if (each["family"], each["kind"]) == (FAMILY[family], kind)]


def prefix_of(guest: str, family: int) -> str:
    """Return the prefix of a guest's route: 203.0.113.2/32, 2001:db8:cb00:7102::/64."""
    (prefix,) = _prefixes(guest, family, "main")
    return prefix


def shown_prefix(guest: str, family: int) -> str:
    """Return the prefix of a guest's route as `ip` prints it."""
    return as_shown(prefix_of(guest, family))


def as_shown(prefix: str) -> str:
    """Return a prefix as `ip` prints it: without the length of one address."""
    return prefix.removesuffix("/32").removesuffix("/128")


def advertised_prefix(guest: str, family: int) -> str:
    """Return the prefix by which other hosts reach a guest: that of its route, or its hypervisor's block."""
    prefix = prefix_of(guest, family)
    advertised = advertised_prefixes(GUESTS[guest], "public", family)
    return next(each for each in advertised if ip_network(prefix).subnet_of(ip_network(each)))  # type: ignore[arg-type] # one family


def advertised_prefixes(hypervisor: str, domain: str, family: int) -> list[str]:
    """Return the prefixes that a hypervisor may advertise in a domain."""
    return [
        match["prefix"]
        for table in host_plans()[hypervisor]["routing"]["tables"]
        if (table["domain"], table["family"]) == (domain, FAMILY[family])
        for match in table["announces"]
    ]


def blocks(hypervisor: str, family: int) -> list[str]:
    """Return the blocks of a hypervisor, which it advertises instead of its guests; usually none."""
    tables = host_plans()[hypervisor]["routing"]["tables"]
    own = [table for table in tables if (table["domain"], table["family"]) == ("public", FAMILY[family])]
    return [prefix for table in own for prefix in table["originates"]]


def is_in_block(guest: str) -> bool:
    """Return whether its hypervisor advertises a block instead of the guest's prefixes."""
    return advertised_prefix(guest, 4) != prefix_of(guest, 4)


def anycast_prefix(family: int) -> str:
    """Return the anycast prefix that vm1 and vm3 share."""
    (prefix,) = _prefixes("vm1", family, "anycast")
    return prefix


def anycast_address(family: int) -> str:
    """Return the address with which the holders of the anycast prefix answer."""
    network = ip_network(anycast_prefix(family))
    return str(network[network.num_addresses > 1])


def address_of(guest: str, family: int) -> str:
    """Return the address that a guest gets by DHCP or SLAAC."""
    network = ip_network(prefix_of(guest, family))
    if network.num_addresses == 1:
        return str(network[0])
    return str(slaac_address(IPv6Network(network), mac_of(guest)))


def transparent_prefix() -> str:
    """Return the address that is translated to vm4's, as a prefix."""
    (prefix,) = _prefixes("vm4", 4, "transparent")
    return prefix


def has_shared_prefix(guest: str) -> bool:
    """Return whether the guest has one address of a /64 that it shares with others."""
    return _guests()[guest]["shared_prefix"] is not None


def addresses_of_its_prefix(guest: str, number: int) -> list[str]:
    """Return IPv6 addresses that a guest may use: many of its /64, or its only one."""
    network = ip_network(prefix_of(guest, 6))
    last = min(number, network.num_addresses)
    return [str(network[at]) for at in range(last > 1, last)]


def unused_subnet() -> IPv6Network:
    """Return a prefix in the IPv6 pool of the guests that no guest has."""
    if has_shared_prefix("vm2"):
        return IPv6Network(f"{_guests()['vm2']['shared_prefix'].removesuffix('::/64')}:1::/80")
    network = IPv6Network(prefix_of("vm2", 6))
    return IPv6Network((network.network_address + (0x97 << 64), 80))


def mac_of(guest: str) -> str:
    return str(_guests()[guest]["mac"])


def gateway_of(guest: str, family: int) -> str:
    """Return the address of the gateway at a guest's port."""
    gateways = map(ip_interface, _guests()[guest]["gateways"])
    return next(str(gateway.ip) for gateway in gateways if gateway.version == family)


def gateway_mac() -> str:
    return str(_guests()["vm1"]["gateway_mac"])

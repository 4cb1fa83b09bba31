"""The machines and guests of all hosts, as the twin builds them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network

from l3hv.model.addressing import GUEST_PREFIX_LENGTH, first_host, slaac_address
from l3hv.model.intent import GuestIntent, HostIntent
from l3hv.model.text import natural_key
from l3hv.model.topology import GuestMachine, Machine, Port, Topology


def topology(hosts: Iterable[HostIntent]) -> Topology:
    """Return the machines and guests of all hosts, sorted by name."""
    in_order = sorted(hosts, key=lambda host: natural_key(host.name))
    ports = (_guest_port(host, guest) for host in in_order for guest in host.guests)
    return Topology(
        machines=tuple(_machine(host) for host in in_order),
        guests=tuple(sorted(ports, key=lambda port: natural_key(port.name))),
    )


def _machine(host: HostIntent) -> Machine:
    ports = tuple(
        Port(
            uplink.interface,
            uplink.path,
            uplink.domain,
            host.settings.mtu,
            link="-".join(sorted((host.name, uplink.path))) if uplink.link is not None else None,
        )
        for uplink in host.uplinks
    )
    settings = host.settings
    return Machine(
        name=host.name,
        kind=host.kind,
        system=settings.system,
        ports=ports,
        daemon=settings.daemon,
        managed=settings.managed,
        needs=("vrf",) if host.uses_vrfs else (),
        serves_dhcp=settings.serves_dhcp_at is not None,
    )


def _guest_port(host: HostIntent, guest: GuestIntent) -> GuestMachine:
    routed = [ip_network(prefix) for prefix in guest.addresses + guest.subnets + guest.anycast]
    if guest.ipv6 is not None and _is_set_by_hand(guest.ipv6, guest.mac):
        routed.append(ip_network(guest.ipv6))
    return GuestMachine(
        name=guest.name,
        hypervisor=host.name,
        interface=guest.interface,
        mac=guest.mac,
        domain=guest.domain,
        mtu=guest.mtu,
        ipv4=guest.ipv4,
        ipv6_prefix=guest.ipv6,
        addresses=tuple(f"{first_host(prefix)}/{prefix.max_prefixlen}" for prefix in routed),
        transparent=guest.transparent,
    )


def _is_set_by_hand(ipv6: str, mac: str) -> bool:
    """Tell whether ``ipv6`` is a single address that SLAAC does not make of the MAC."""
    prefix = IPv6Network(ipv6)
    if prefix.prefixlen != prefix.max_prefixlen:
        return False
    return prefix[0] != slaac_address(prefix.supernet(new_prefix=GUEST_PREFIX_LENGTH), mac)

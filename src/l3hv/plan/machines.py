"""The machines and guests of all hosts, as the twin builds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network, ip_network

from l3hv.model.addressing import FAMILIES, GUEST_PREFIX_LENGTH, HOST_LENGTH, first_host, slaac_address
from l3hv.model.intent import Common, GuestIntent, HostIntent, PathNetwork, UplinkIntent
from l3hv.model.text import natural_key
from l3hv.model.topology import GuestMachine, Machine, Port, Router, RouterPort, Topology
from l3hv.plan.tunnels import tunnels


def topology(hosts: Iterable[HostIntent], common: Common | None = None) -> Topology:
    """Return the machines and guests of all hosts, sorted by name, and the routers between their subnets.

    Without ``common`` no host is in a subnet of its own.
    """
    in_order = sorted(hosts, key=lambda host: natural_key(host.name))
    ports = (_guest_port(host, guest) for host in in_order for guest in host.guests)
    return Topology(
        machines=tuple(_machine(common, host) for host in in_order),
        guests=tuple(sorted(ports, key=lambda port: natural_key(port.name))),
        routers=tuple(_routers(common, in_order)),
    )


def _machine(common: Common | None, host: HostIntent) -> Machine:
    ports = tuple(_port(common, host, uplink) for uplink in host.uplinks)
    settings = host.settings
    needs = tuple(dict.fromkeys(tunnel.kind for tunnel in tunnels(common, host))) if common else ()
    return Machine(
        name=host.name,
        kind=host.kind,
        system=settings.system,
        ports=ports,
        daemon=settings.daemon,
        managed=settings.managed,
        needs=("vrf",) if host.uses_vrfs else needs,
        serves_dhcp=settings.serves_dhcp_at is not None,
    )


def _networks(common: Common | None, uplink: UplinkIntent) -> list[PathNetwork]:
    found = (common.network(uplink.path, uplink.domain, family) for family in FAMILIES) if common else ()
    return [network for network in found if network is not None]


def _port(common: Common | None, host: HostIntent, uplink: UplinkIntent) -> Port:
    subnets = [
        str(host.subnet_in(network))
        for network in _networks(common, uplink)
        if host.router_in(network) is not None
    ]
    subnet = subnets[0] if subnets else ""
    link = None if uplink.link is None else "-".join(sorted((host.name, uplink.path)))
    return Port(uplink.interface, uplink.path, uplink.domain, host.settings.mtu, subnet, link)


def _routers(common: Common | None, hosts: Iterable[HostIntent]) -> Iterator[Router]:
    """Yield a router for each path and domain whose hosts are in several subnets."""
    ports: dict[str, dict[str, list[tuple[HostIntent, UplinkIntent]]]] = {}
    for host in hosts:
        for uplink in host.uplinks:
            port = _port(common, host, uplink)
            if port.subnet:
                here = ports.setdefault(f"{uplink.path}-{uplink.domain}", {})
                here.setdefault(port.segment, []).append((host, uplink))
    for name, segments in sorted(ports.items()):
        yield Router(name, tuple(_router_port(common, name, ends) for name, ends in segments.items()))


def _router_port(
    common: Common | None, segment: str, ends: Iterable[tuple[HostIntent, UplinkIntent]]
) -> RouterPort:
    """Return the router's port on a segment, whose hosts are ``ends``."""
    addresses: dict[str, None] = {}
    alone: dict[str, None] = {}
    mtus = []
    for host, uplink in ends:
        mtus.append(host.settings.mtu)
        for network in _networks(common, uplink):
            router = host.router_in(network)
            if router is not None:
                addresses[f"{router.address}/{router.length}"] = None
                if router.length == HOST_LENGTH[network.family]:
                    alone[f"{host.address_in(network)}/{router.length}"] = None
    return RouterPort(segment, max(mtus), tuple(addresses), tuple(alone))


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

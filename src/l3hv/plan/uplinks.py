"""The interfaces of a host towards the L2 paths, and its addresses on the loopback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.addressing import FAMILIES, HOST_LENGTH, family_of_text, numbered
from l3hv.model.intent import Common, HostIntent, PathNetwork, UplinkIntent
from l3hv.model.plan import LoopbackAddress, Nic, Uplink, UplinkAddress, Vlan, Vrf
from l3hv.plan.igp import fallbacks, link_local, own_loopback

VLAN_QOS_MAPS = ("6-6", "7-7")
"""Priorities that VLANs keep for received and sent packets: routing protocols and BFD (6), control (7)."""


def nics(host: HostIntent) -> tuple[Nic, ...]:
    """Return the NICs that carry VLANs; none if the operator creates the VLAN interfaces."""
    if host.settings.vlan_interfaces == "external":
        return ()
    vlans: dict[str, list[str]] = {}
    for uplink in host.uplinks:
        if uplink.nic is not None:
            vlans.setdefault(uplink.nic, []).append(uplink.interface)
    return tuple(Nic(nic, host.settings.mtu, tuple(interfaces)) for nic, interfaces in vlans.items())


def vrfs(common: Common, host: HostIntent) -> tuple[Vrf, ...]:
    """Return the VRFs of a host: one for each of its domains, or none."""
    if not host.uses_vrfs:
        return ()
    return tuple(Vrf(domain.name, domain.table) for domain in common.domains if domain.name in host.domains)


def uplinks(common: Common, host: HostIntent) -> tuple[Uplink, ...]:
    """Return the interfaces of a host on its paths, with their addresses."""
    return tuple(_uplink(common, host, uplink) for uplink in host.uplinks)


def _uplink(common: Common, host: HostIntent, uplink: UplinkIntent) -> Uplink:
    vlan = None
    vlan_id = common.domain(uplink.domain).vlan
    if uplink.nic is not None and vlan_id is not None and host.settings.vlan_interfaces == "kernel":
        vlan = Vlan(uplink.nic, vlan_id, VLAN_QOS_MAPS)
    networks = (common.network(uplink.path, uplink.domain, family) for family in FAMILIES)
    has_igp6 = common.has_igp and common.network(uplink.path, uplink.domain, "ipv6") is not None
    return Uplink(
        interface=uplink.interface,
        path=uplink.path,
        domain=uplink.domain,
        mtu=host.settings.mtu,
        vlan=vlan,
        vrf=host.vrf_of(uplink.domain),
        addresses=tuple(_address(host, network) for network in networks if network is not None),
        link_local=link_local(common, uplink.path, host.id) if has_igp6 else None,
        has_planned_link_local=has_igp6 or common.is_unnumbered,
        on_link=fallbacks(common, host, uplink),
        proxied6=own_loopback(common.domain(uplink.domain), "ipv6", host.id)
        if has_igp6 and host.kind != "route_reflector"
        else None,
    )


def _address(host: HostIntent, network: PathNetwork) -> UplinkAddress:
    router, subnet = host.router_in(network), host.subnet_in(network)
    return UplinkAddress(
        network.family,
        host.address_in(network),
        subnet.prefixlen,
        str(subnet),
        router=None if router is None else router.address,
        beyond=None if router is None else str(network.prefix),
    )


def awaited_interfaces(common: Common, host: HostIntent) -> tuple[str, ...]:
    """Return the interfaces that need their IPv6 address before the daemon starts.

    BIRD resolves a next hop only once, when the route arrives, with the addresses of that moment.
    """
    return tuple(
        uplink.interface
        for uplink in host.uplinks
        if not common.is_unnumbered and common.network(uplink.path, uplink.domain, "ipv6") is not None
    )


def loopback_addresses(common: Common, host: HostIntent) -> tuple[LoopbackAddress, ...]:
    """Return the addresses of a host on ``lo``: its loopbacks, then the addresses of an edge router."""
    return (*_loopbacks(common, host), *_edge_router_addresses(common, host))


def _loopbacks(common: Common, host: HostIntent) -> Iterator[LoopbackAddress]:
    if common.has_loopbacks(host):
        for domain in common.domains:
            for family in domain.families:
                prefix = domain.loopback(family)
                if prefix is not None and domain.name in host.domains:
                    own = str(numbered(prefix, host.id))
                    yield LoopbackAddress(family, own, HOST_LENGTH[family], domain.name, announced=True)


def _edge_router_addresses(common: Common, host: HostIntent) -> Iterator[LoopbackAddress]:
    for address in host.addresses:
        family = family_of_text(address)
        yield LoopbackAddress(family, address, HOST_LENGTH[family], common.public.name, announced=False)


def preferred_source(common: Common, loopbacks: Iterable[LoopbackAddress]) -> str | None:
    """Return the IPv4 source of the hypervisor's own traffic: its private loopback, else its public one."""
    own = {lo.domain: lo.address for lo in loopbacks if lo.announced and lo.family == "ipv4"}
    if common.private is not None and common.private.name in own:
        return own[common.private.name]
    return own.get(common.public.name)

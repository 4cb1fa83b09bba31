"""The tunnels of a host to hosts in other subnets of its paths: read, then checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import TypeVar

from l3hv.intent.fabric import LEAST_IPV6_MTU, path_name
from l3hv.intent.guests import LONGEST_INTERFACE, interface_name, reference
from l3hv.intent.shape import Fields, Notes, Unfit
from l3hv.model.addressing import FAMILIES, HOST_LENGTH, OUTER_HEADER, is_unicast
from l3hv.model.choices import DaemonName, Family
from l3hv.model.daemons import TITLES
from l3hv.model.intent import Common, HostIntent, PathNetwork, PathRouter, TunnelName
from l3hv.model.names import FALLBACK_DEVICES
from l3hv.model.text import natural_key

Interface = IPv4Interface | IPv6Interface
T = TypeVar("T")
Place = tuple[str, str, Family]
"""A path, a domain and a family."""

WITH_MULTIHOP: frozenset[DaemonName] = frozenset({"bird2", "bird3"})
"""The daemons for which l3hv has a configuration with neighbours in other subnets."""


def outer_header(common: Common | None) -> int:
    """Return the size of the largest outer header of the fabric's tunnels in bytes; 0 without tunnels."""
    if common is None or common.encapsulation is None:
        return 0
    return max((OUTER_HEADER[network.family] for network in common.networks), default=0)


# Shape.


def read_routers(fields: Fields) -> dict[Place, Interface]:
    """Return the routers of the host's subnets, each with the length of the subnet."""
    return _by_place(fields.mapping("l3hv_routers"), _ROUTERS)


def _by_place(paths: Fields, converters: Mapping[Family, Callable[[object], T]]) -> dict[Place, T]:
    """Return the values below path, domain and family."""
    return {
        (path, domain, family): found
        for path, domains in paths.named(path_name)
        for domain, families in domains.named(reference, frozenset(FAMILIES))
        for family in FAMILIES
        if (found := families.take(family, converters[family])) is not None
    }


def _ipv4_router(value: object) -> Interface:
    return _router(value, "ipv4", "an IPv4 router with the length of the host's subnet", "198.51.100.1/28")


def _ipv6_router(value: object) -> Interface:
    return _router(value, "ipv6", "an IPv6 router with the length of the host's subnet", '"2001:db8::1/124"')


_ROUTERS: dict[Family, Callable[[object], Interface]] = {"ipv4": _ipv4_router, "ipv6": _ipv6_router}


def _router(value: object, family: Family, expected: str, example: str) -> Interface:
    unfit = Unfit(expected, f"Write it like {example}; with {HOST_LENGTH[family]} the host is alone.")
    if not isinstance(value, str) or "/" not in value or "%" in value:
        raise unfit
    try:
        router: Interface = ip_interface(str(value))
    except ValueError:
        raise unfit from None
    if router.max_prefixlen != HOST_LENGTH[family] or not value.rpartition("/")[2].isdecimal():
        raise unfit
    if not is_unicast(ip_interface(f"{router.ip}/{router.max_prefixlen}").network):
        raise unfit
    return router


def read_tunnel_names(fields: Fields) -> dict[Place, str]:
    """Return the names of tunnel devices."""
    return _by_place(fields.mapping("l3hv_tunnel_devices"), dict.fromkeys(FAMILIES, interface_name))


# Relations.


def resolved_tunnel_names(names: Mapping[Place, str], common: Common, notes: Notes) -> tuple[TunnelName, ...]:
    """Return the names in the order of paths; a group may name devices of paths that a host does not use."""
    valid = []
    for (path, domain, family), interface in names.items():
        where = f"l3hv_tunnel_devices.{path}.{domain}.{family}"
        if _has_network(where, interface, (path, domain, family), common, notes):
            valid.append(TunnelName(path, domain, family, interface))
    return tuple(sorted(valid, key=lambda one: (natural_key(one.path), one.domain, one.family)))


def resolved_routers(
    routers: Mapping[Place, Interface], host: HostIntent, common: Common, notes: Notes
) -> tuple[PathRouter, ...]:
    """Return the routers of a host in the order of paths and domains."""
    valid = []
    for place, router in routers.items():
        path, domain, family = place
        where = f"l3hv_routers.{path}.{domain}.{family}"
        if _has_network(where, router, place, common, notes):
            network = common.network(path, domain, family)
            assert network is not None
            _check_router(where, router, host, network, notes)
            valid.append(PathRouter(path, domain, str(router.ip), router.network.prefixlen))
    return tuple(sorted(valid, key=lambda one: (natural_key(one.path), one.domain, ":" in one.address)))


def _has_network(where: str, value: object, place: Place, common: Common, notes: Notes) -> bool:
    path, domain, family = place
    if common.encapsulation is None:
        notes.add(
            where,
            str(value),
            "The fabric has no tunnels: all hosts of a path share an L2 network.",
            "Remove it, or set l3hv_encapsulation: ipip for the fabric.",
        )
        return False
    if common.network(path, domain, family) is None:
        notes.add(
            where,
            str(value),
            f"{domain} has no {family} prefix on path {path}.",
            "Remove it, or add the prefix to l3hv_paths.",
        )
        return False
    return True


def _check_router(
    where: str, router: Interface, host: HostIntent, network: PathNetwork, notes: Notes
) -> None:
    prefix = network.prefix
    if router.network.prefixlen <= prefix.prefixlen:
        notes.add(
            where,
            str(router),
            f"The subnet would not be smaller than {prefix}, the prefix of all hosts of the path.",
            f"Choose a length from {prefix.prefixlen + 1} to {prefix.max_prefixlen}.",
        )
        return
    if host.id >= prefix.num_addresses:
        return  # another problem of the host
    own = ip_address(host.address_in(network))
    if router.ip == own:
        notes.add(where, str(router), f"{own} is the host's own address.", "Name the router of its subnet.")
    elif router.network.prefixlen < router.max_prefixlen and own not in router.network:
        notes.add(
            where,
            str(router),
            f"The host's address {own} is not in {router.network}, the subnet of this router.",
            "Choose the router and the length of the host's own subnet, or another address of the host.",
        )


def check_encapsulation(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note settings with which tunnels cannot work."""
    if common.encapsulation is None or not host.settings.managed:
        return
    settings = host.settings
    if settings.daemon not in WITH_MULTIHOP:
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            "l3hv configures neighbours in other subnets (l3hv_encapsulation) only with BIRD 2 and 3, not"
            f" with {'BIRD 1.6' if settings.daemon == 'bird1' else TITLES[settings.daemon]}.",
            "Choose bird2 or bird3.",
        )
    if settings.failure_profile == "link":
        notes.add(
            "l3hv_failure_profile",
            settings.failure_profile,
            "With l3hv_encapsulation a router is between two hosts: neither loses its carrier when the other"
            " fails.",
            "Choose bfd_llgr or bfd.",
        )
    if host.uses_vrfs:
        notes.add(
            "l3hv_data_plane",
            settings.data_plane,
            "With l3hv_encapsulation the outer packets are routed by the table main, not by a VRF.",
            "Choose l3hv_data_plane: rules.",
        )
    if not common.has_tunnels(host):
        return
    for network in common.networks:
        if not any((up.path, up.domain) == (network.path, network.domain) for up in host.uplinks):
            continue
        where = f"l3hv_tunnel_devices.{network.path}.{network.domain}.{network.family}"
        name = host.tunnel_in(network)
        if len(name) > LONGEST_INTERFACE:
            notes.add(
                where,
                None,
                f"The name of the tunnel device {name} would have {len(name)} bytes.",
                f"The kernel allows {LONGEST_INTERFACE}: choose a shorter name.",
            )
        family = next((f for f, fallback in FALLBACK_DEVICES.items() if fallback == name), network.family)
        if family != network.family or name in _OTHER_FALLBACKS:
            notes.add(
                where, name, f"{name} is a device of the kernel for other packets.", "Choose another name."
            )
    inside = settings.mtu - outer_header(common)
    if inside < LEAST_IPV6_MTU and any(network.family == "ipv6" for network in common.networks):
        notes.add(
            "l3hv_mtu",
            settings.mtu,
            f"The tunnels would have an MTU of {inside}, and IPv6 needs {LEAST_IPV6_MTU}.",
            f"Choose at least {LEAST_IPV6_MTU + outer_header(common)}.",
        )


_OTHER_FALLBACKS = frozenset({"gre0", "gretap0", "erspan0", "sit0", "ip_vti0", "ip6_vti0", "ip6gre0"})

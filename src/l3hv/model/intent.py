"""The facts of a fabric and its hosts, after they were read and checked.

Addresses and prefixes of the fabric are objects of :mod:`ipaddress`: they are few, and much is computed
from them.  Addresses and prefixes of hosts and guests are canonical text: they are many, and mostly printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Literal

from l3hv.model.addressing import (
    DEFAULT_ROUTE,
    LINK_LOCAL4,
    Network,
    family_of,
    family_of_text,
    is_inside,
    numbered,
)
from l3hv.model.choices import (
    SWITCHES,
    Announce,
    Anycast,
    DaemonName,
    DataPlane,
    Dhcp,
    DomainKind,
    Ecmp,
    FailureProfile,
    Family,
    Igp,
    Kind,
    LimitAction,
    Links,
    Neighbors,
    OriginValidation,
    Reflection,
    SessionLayout,
    System,
    Underlay,
)
from l3hv.model.names import tunnel_device
from l3hv.model.plan import Owner, Timers


@dataclass(frozen=True)
class Domain:
    """A routing domain: a kernel table of its own, and the prefixes that belong to it alone.

    ``loopbacks`` (at most one prefix per family) contain one address of each hypervisor.  ``accept`` are
    the prefixes that are accepted from edge routers besides the default route.  ``spread_table`` is the
    kernel table of a hypervisor's routes to other holders of its guests' anycast prefixes.
    """

    name: str
    kind: DomainKind
    table: int
    spread_table: int
    vlan: int | None
    families: tuple[Family, ...]
    loopbacks: tuple[Network, ...]
    accept: tuple[Network, ...]

    def loopback(self, family: Family) -> Network | None:
        """Return the prefix of the hypervisors' loopbacks in ``family``."""
        return next((prefix for prefix in self.loopbacks if family_of(prefix) == family), None)


@dataclass(frozen=True)
class PathNetwork:
    """The prefix of a domain on a path, in one family."""

    path: str
    domain: str
    prefix: Network

    @property
    def family(self) -> Family:
        return family_of(self.prefix)


@dataclass(frozen=True)
class Pool:
    """Addresses for guests; without ``gateway`` the pool has only additional addresses of guests.

    With a gateway inside ``ipv4`` the guests see the pool as the subnet of their interface.  With a
    link-local gateway each guest has its address alone (/32), and no address of the pool has another meaning.

    With ``shared_ipv6`` the guests share ``ipv6``, a /64, and each has one address in it; otherwise each
    guest has a /64 of its own.  ``block_lengths`` are the lengths of the blocks into which its prefixes are
    cut if hypervisors advertise blocks.  ``mtu`` is in bytes, ``None`` for the host's default.  ``routes``
    are pairs of a prefix and its gateway that DHCP gives to guests.
    """

    name: str
    domain: str
    ipv4: IPv4Network | None
    gateway: IPv4Address | None
    ipv6: IPv6Network | None
    shared_ipv6: bool
    mtu: int | None
    dns: tuple[str, ...]
    search: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]
    block_lengths: Mapping[Family, int]

    @property
    def has_link_local_gateway(self) -> bool:
        """Whether the gateway is on the guests' link and in no subnet."""
        return self.gateway is not None and self.gateway in LINK_LOCAL4

    @property
    def subnet(self) -> IPv4Network | None:
        """The subnet of the guests' interfaces: ``None`` without a gateway, and with a link-local one."""
        return None if self.gateway is None or self.has_link_local_gateway else self.ipv4

    @property
    def option_routes(self) -> tuple[tuple[str, str], ...]:
        """The routes of DHCP option 121 (RFC 3442) in their order, as pairs of a prefix and its gateway."""
        routes = self.routes
        has_default = any(prefix == DEFAULT_ROUTE["ipv4"] for prefix, _ in routes)
        if (routes or self.has_link_local_gateway) and not has_default:
            routes = ((DEFAULT_ROUTE["ipv4"], str(self.gateway)), *routes)
        if self.has_link_local_gateway:
            # The first route reaches the gateway itself on the guest's link (RFC 3442).
            routes = ((f"{self.gateway}/32", "0.0.0.0"), *routes)
        return routes

    @property
    def prefixes(self) -> tuple[Network, ...]:
        return tuple(prefix for prefix in (self.ipv4, self.ipv6) if prefix is not None)


@dataclass(frozen=True)
class Encapsulation:
    """The tunnels in which the packets of guests cross the path between two hosts.

    With ``only_other_subnets`` hosts of one subnet reach each other without a tunnel.  ``hops`` is the
    largest number of hops between two hosts of a path: 2 if there is one router between them.
    """

    only_other_subnets: bool
    hops: int


@dataclass(frozen=True)
class Common:
    """The facts that all hosts of a fabric share. The public domain is first, the others follow by name.

    ``bgp_keys`` are the names of the keys that BGP sessions can use.  ``reflection`` is the way in which
    routes reach all hosts of a path: over its reflectors, or in sessions of each hypervisor with each other
    host.  ``underlay`` is what connects the hosts: the L2 networks of the paths alone; an IGP (the protocol
    ``igp``) over them, between the hosts' loopbacks; or links between a host and its leaves, and between
    leaves and spines.  ``links`` tells whether these have prefixes of their own, which are parts of
    ``link_prefixes``; ``networks`` then has only the links of the host whose plan is computed.
    ``announce`` is what a hypervisor advertises: each guest by itself, or blocks of addresses and only
    those guests that are outside of its blocks.  ``encapsulation`` is set if the hosts of a path share no L2.
    """

    fabric: str
    asn: int
    domains: tuple[Domain, ...]
    local_out_table: int
    paths: tuple[str, ...]
    networks: tuple[PathNetwork, ...]
    pools: tuple[Pool, ...]
    gateway_mac: str
    rule_priority: int
    bgp_keys: tuple[str, ...]
    reflection: Reflection
    announce: Announce
    encapsulation: Encapsulation | None = None
    underlay: Underlay = "l2"
    igp: Igp = "rip"
    links: Links = "unnumbered"
    link_prefixes: tuple[PathNetwork, ...] = ()

    @property
    def has_links(self) -> bool:
        """Whether hosts are connected by links with leaves and spines, and not by L2 paths."""
        return self.underlay == "leaf_spine"

    @property
    def is_unnumbered(self) -> bool:
        """Whether links have only link-local addresses."""
        return self.has_links and self.links == "unnumbered"

    def has_tunnels(self, host: HostIntent) -> bool:
        """Tell whether a host has tunnel devices: a reflector forwards nothing, and has none."""
        return self.encapsulation is not None and host.kind != "route_reflector"

    def has_loopbacks(self, host: HostIntent) -> bool:
        """Tell whether a host has one of the loopbacks of each domain: with an IGP every host has them."""
        return self.has_igp or host.kind == "hypervisor" or host.is_switch

    def checks_announcements(self, host: HostIntent) -> bool:
        """Tell whether a host compares what hypervisors advertise with the inventory."""
        return host.kind in ("route_reflector", "leaf") or self.is_mesh

    @property
    def is_mesh(self) -> bool:
        """Whether hypervisors have sessions with each other, and not with reflectors."""
        return self.reflection == "mesh"

    @property
    def has_igp(self) -> bool:
        """Whether sessions run between loopbacks, which an IGP makes reachable over all paths."""
        return self.underlay == "igp"

    def domain_of(self, prefix: str) -> str:
        """Return the domain of the pool that ``prefix`` is inside."""
        network = ip_network(prefix)
        return next(p.domain for p in self.pools for whole in p.prefixes if is_inside(network, whole))

    @cached_property
    def public(self) -> Domain:
        """The domain of the kind ``public``: all traffic that is not known to be private belongs to it."""
        return next(domain for domain in self.domains if domain.kind == "public")

    @cached_property
    def private(self) -> Domain | None:
        return next((domain for domain in self.domains if domain.kind == "private"), None)

    def domain(self, name: str) -> Domain:
        return next(domain for domain in self.domains if domain.name == name)

    @cached_property
    def _network_by_place(self) -> dict[tuple[str, str, Family], PathNetwork]:
        return {(network.path, network.domain, network.family): network for network in self.networks}

    def network(self, path: str, domain: str, family: Family) -> PathNetwork | None:
        return self._network_by_place.get((path, domain, family))

    def loopback_network(self, domain: str, family: Family) -> PathNetwork | None:
        """Return the prefix of a domain's loopbacks as a network that is on no path."""
        prefix = self.domain(domain).loopback(family)
        return None if prefix is None else PathNetwork("", domain, prefix)

    def domains_of_path(self, path: str) -> tuple[Domain, ...]:
        """Return the domains that have a prefix on ``path``."""
        present = {network.domain for network in self.networks if network.path == path}
        return tuple(domain for domain in self.domains if domain.name in present)

    def pool_prefixes(self, domain: str, family: Family) -> tuple[Network, ...]:
        """Return the prefixes of all pools of a domain in one family, in the order of their addresses."""
        prefixes = (p for pool in self.pools if pool.domain == domain for p in pool.prefixes)
        return tuple(sorted(p for p in prefixes if family_of(p) == family))

    def fabric_prefixes(self, domain: Domain, family: Family) -> tuple[Network, ...]:
        """Return the prefixes of a domain's guests and hypervisors: its pools, then its loopbacks."""
        loopback = domain.loopback(family)
        return self.pool_prefixes(domain.name, family) + ((loopback,) if loopback is not None else ())


@dataclass(frozen=True)
class UplinkIntent:
    """One interface of a host on one path for one domain.

    ``nic`` carries the interface as a VLAN; it is ``None`` where the intent names the interface itself.
    With leaves and spines the path is a link, which has the name of the neighbour: ``link`` tells whether
    that is a leaf or spine above this host (``up``), or a host below this leaf or spine (``down``).
    """

    path: str
    domain: str
    interface: str
    nic: str | None
    link: Literal["up", "down"] | None = None


@dataclass(frozen=True)
class GuestIntent:
    """One guest. ``addresses``, ``subnets`` and ``anycast`` are prefixes, ``transparent`` are addresses.

    ``mtu`` is in bytes.  ``pool`` is the pool of the main address (of the IPv6 prefix for a guest without
    IPv4).  ``ipv6`` is a /64, or a single address (/128) of a pool with ``shared_ipv6``.
    ``link_local`` is ``None`` where no IPv6 prefix is routed to the guest.  ``moves_from`` names the
    hypervisor that the guest is leaving and that may still advertise it.  If ``allowed_sources`` is not
    empty, only these prefixes may send to the guest; with ``port_isolation`` no guest of the same host may.
    With ``withdraw_without_carrier`` the guest is advertised only while its port has a carrier.
    """

    name: str
    interface: str
    mac: str
    domain: str
    pool: str
    mtu: int
    ipv4: str | None
    ipv6: str | None
    ipv6_on_link: bool
    link_local: str | None
    addresses: tuple[str, ...]
    subnets: tuple[str, ...]
    anycast: tuple[str, ...]
    transparent: tuple[str, ...]
    port_isolation: bool
    allowed_sources: tuple[str, ...]
    moves_from: str | None
    withdraw_without_carrier: bool


@dataclass(frozen=True)
class PathAddress:
    """A declared address of a host on a path, in one domain; it replaces the one that follows from the id."""

    path: str
    domain: str
    address: str


@dataclass(frozen=True)
class PathRouter:
    """The router through which a host reaches the other subnets of a path's network, in one family.

    ``length`` is that of the host's own subnet.
    """

    path: str
    domain: str
    address: str
    length: int


@dataclass(frozen=True)
class TunnelName:
    """The name that the intent gives to a tunnel device of a host."""

    path: str
    domain: str
    family: Family
    interface: str


def declared_address(network: PathNetwork, declared: tuple[PathAddress, ...]) -> str | None:
    """Return the address that is declared in a path's network, or ``None``."""
    for candidate in declared:
        place = (candidate.path, candidate.domain, family_of_text(candidate.address))
        if place == (network.path, network.domain, network.family):
            return candidate.address
    return None


def path_address(network: PathNetwork, number: int, declared: tuple[PathAddress, ...]) -> str:
    """Return the address of a host in a path's network: the declared one, else the one with ``number``."""
    return declared_address(network, declared) or str(numbered(network.prefix, number))


@dataclass(frozen=True)
class Settings:
    """The settings of a host from its own variables and its groups, with the defaults filled in.

    MTUs are in bytes.  ``neighbors`` is ``explicit`` where a reflector lists its clients, ``range`` where it
    accepts any client of a prefix.  ``prefix_limit_margin`` is in percent; ``prefix_limit`` replaces the
    number of prefixes that follows from the inventory.  ``anycast`` applies to flows of guests to an anycast
    address that a guest of the same host holds: they stay there (``local``) or are spread over all holders.
    ``data_plane`` is the means by which a hypervisor keeps its domains apart: policy rules, or VRFs.
    ``dhcp`` is the source of the guests' leases: this host, the ``dhcp_servers`` (by a relay), or none.
    ``serves_dhcp_at`` is the address at which an edge router is such a server.
    """

    mtu: int
    guest_mtu: int
    timers: Timers
    failure_profile: FailureProfile
    session_layout: SessionLayout
    neighbors: Neighbors
    ecmp_limit: int
    anycast: Anycast
    data_plane: DataPlane
    dhcp: Dhcp
    dhcp_servers: tuple[str, ...]
    serves_dhcp_at: str | None
    origin_validation: OriginValidation
    prefix_limit_margin: int
    prefix_limit_action: LimitAction
    prefix_limit: int | None
    ttl_security: bool
    monitoring_group: str | None
    vlan_interfaces: Literal["kernel", "external"]
    main_default_route: bool
    system: System
    daemon: DaemonName
    managed: bool


@dataclass(frozen=True)
class HostIntent:
    """One host of the fabric; ``guests`` are sorted by name.

    ``edge_domains`` are the domains for which an edge router originates a default route.  ``addresses`` are
    the addresses that an edge router holds on its loopback.  ``path_addresses`` replace the addresses that
    follow from its id.  ``management_sources`` are prefixes that may reach its services on public uplinks.
    ``bgp_keys`` are pairs of a path and the name of the key of its sessions there.  ``ecmp`` are pairs of a
    domain and the choice of routes that may have several next hops.  ``blocks`` are the parts of pools that a
    hypervisor advertises as a whole.  ``routers`` lead to the other subnets of the paths.  ``asn`` is its AS
    number: the fabric's, except with leaves and spines.  With an IGP, ``turn`` is the path with whose
    reflectors a run changes this reflector; it is empty elsewhere.
    """

    name: str
    kind: Kind
    id: int
    settings: Settings
    uplinks: tuple[UplinkIntent, ...]
    edge_domains: tuple[str, ...]
    addresses: tuple[str, ...]
    path_addresses: tuple[PathAddress, ...]
    management_sources: tuple[str, ...]
    bgp_keys: tuple[tuple[str, str], ...]
    ecmp: tuple[tuple[str, Ecmp], ...]
    blocks: tuple[str, ...]
    guests: tuple[GuestIntent, ...]
    routers: tuple[PathRouter, ...] = ()
    tunnel_names: tuple[TunnelName, ...] = ()
    asn: int = 0
    turn: str = ""

    @cached_property
    def anycast(self) -> tuple[str, ...]:
        """The anycast prefixes that its guests hold, each once."""
        return tuple(dict.fromkeys(prefix for guest in self.guests for prefix in guest.anycast))

    @property
    def is_switch(self) -> bool:
        """Whether it is a leaf or spine, which advertises the routes of its neighbours to others."""
        return self.kind in SWITCHES

    @property
    def uses_vrfs(self) -> bool:
        """Whether each of its domains is a VRF."""
        return self.kind == "hypervisor" and self.settings.data_plane == "vrf"

    def vrf_of(self, domain: str) -> str | None:
        """Return the VRF of a domain, which has the domain's name; ``None`` without VRFs."""
        return domain if self.uses_vrfs else None

    def address_in(self, network: PathNetwork) -> str:
        """Return its address in a path's network."""
        return path_address(network, self.id, self.path_addresses)

    def router_in(self, network: PathNetwork) -> PathRouter | None:
        """Return the router to the other subnets of a path's network; ``None`` if it is one subnet."""
        place = (network.path, network.domain, network.family)
        for router in self.routers:
            if (router.path, router.domain, family_of_text(router.address)) == place:
                return router
        return None

    def tunnel_in(self, network: PathNetwork) -> str:
        """Return the name of the tunnel device to the hosts of a path's network."""
        place = (network.path, network.domain, network.family)
        named = (one for one in self.tunnel_names if (one.path, one.domain, one.family) == place)
        return next((one.interface for one in named), tunnel_device(*place))

    def subnet_in(self, network: PathNetwork) -> Network:
        """Return the prefix that the host shares with its neighbours on the link: its subnet of a path."""
        router = self.router_in(network)
        length = network.prefix.prefixlen if router is None else router.length
        return ip_network(f"{self.address_in(network)}/{length}", strict=False)

    def bgp_key(self, path: str) -> str | None:
        """Return the name of the key that this host wants on a path."""
        return dict(self.bgp_keys).get(path)

    def ecmp_of(self, domain: str) -> Ecmp:
        """Return the choice of routes of a domain that may have several next hops on this host."""
        return dict(self.ecmp).get(domain, "all")

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains that this host has an uplink in, in the order of the uplinks."""
        return tuple(dict.fromkeys(uplink.domain for uplink in self.uplinks))


@dataclass(frozen=True)
class Link:
    """The domains of a host's uplinks on one path, and the name of the key that its sessions there use.

    ``addresses`` are the declared addresses on the path, which do not follow from the host's id.
    """

    path: str
    domains: tuple[str, ...]
    bgp_key: str | None
    addresses: tuple[PathAddress, ...] = ()


@dataclass(frozen=True)
class Member:
    """The facts about a host that its BGP neighbours need.  ``mtu`` is that of its uplinks, in bytes.

    ``down`` are the hosts below a leaf or spine.  ``turn`` and ``bgp_keys`` are those of the host's intent.
    """

    name: str
    kind: Kind
    id: int
    daemon: DaemonName
    failure_profile: FailureProfile
    session_layout: SessionLayout
    neighbors: Neighbors
    links: tuple[Link, ...]
    mtu: int
    managed: bool = True
    ttl_security: bool = True
    prefix_limit: int | None = None
    asn: int = 0
    down: tuple[str, ...] = ()
    edge_domains: tuple[str, ...] = ()
    turn: str = ""
    bgp_keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Peer:
    """A BGP neighbour on one path; with leaves and spines, the path has the neighbour's name.

    With an IGP, ``path`` is the path in whose turn a run changes the reflector of the session, and ``links``
    are the neighbour's links.
    """

    name: str
    kind: Kind
    id: int
    daemon: DaemonName
    failure_profile: FailureProfile
    session_layout: SessionLayout
    bgp_key: str | None
    path: str
    domains: tuple[str, ...]
    mtu: int
    addresses: tuple[PathAddress, ...] = ()
    managed: bool = True
    ttl_security: bool = True
    prefix_limit: int | None = None
    asn: int = 0
    links: tuple[Link, ...] = ()

    def address_in(self, network: PathNetwork) -> str:
        """Return its address in a path's network."""
        return path_address(network, self.id, self.addresses)


@dataclass(frozen=True)
class Largest:
    """The largest number of prefixes that any hypervisor has, in each family."""

    ipv4: int = 0
    ipv6: int = 0


@dataclass(frozen=True)
class HostSlice:
    """All facts from which the plan of one host is computed.

    ``largest`` is set only for reflectors, ``owners`` only for reflectors with strict origin validation.
    ``edges``, the edge routers on the host's paths, is set only for hypervisors that prefer one default
    route.  ``holders`` is set only for hypervisors that spread anycast: each prefix that both their guests
    and other hypervisors hold, with the number of hypervisors that hold it.  ``relays`` is set only for DHCP
    servers: the hypervisors that relay their guests' messages to this host.
    """

    common: Common
    host: HostIntent
    peers: tuple[Peer, ...]
    largest: Largest
    owners: tuple[Owner, ...]
    edges: tuple[Peer, ...]
    holders: tuple[tuple[str, int], ...]
    relays: tuple[HostIntent, ...] = ()

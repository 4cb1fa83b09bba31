"""What an operator says about a fabric and its hosts, once it has been read and found sound.

Addresses and prefixes of the fabric are objects of :mod:`ipaddress`: there are few, and much is computed
from them.  Those of hosts and guests are canonical text: there are many, and they are mostly printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Literal

from l3hv.model.addressing import Network, family_of, family_of_text, numbered
from l3hv.model.choices import (
    Anycast,
    DaemonName,
    DomainKind,
    Ecmp,
    FailureProfile,
    Family,
    Kind,
    LimitAction,
    Neighbors,
    OriginValidation,
    SessionLayout,
    System,
)
from l3hv.model.plan import Owner, Timers


@dataclass(frozen=True)
class Domain:
    """A routing domain: a kernel table of its own, and the prefixes that belong to it alone.

    ``loopbacks`` (one per family at most) hold an address of each hypervisor; ``accept`` are prefixes
    that are taken from edge routers beside the default route.  ``spread_table`` is the kernel table of what
    other hypervisors hold of the anycast prefixes that a hypervisor holds itself.
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
    """The prefix that a domain has on a path in one family."""

    path: str
    domain: str
    prefix: Network

    @property
    def family(self) -> Family:
        return family_of(self.prefix)


@dataclass(frozen=True)
class Pool:
    """A subnet that guests believe to be in, or without ``gateway`` a store of additional addresses."""

    name: str
    domain: str
    ipv4: IPv4Network | None
    gateway: IPv4Address | None
    ipv6: IPv6Network | None
    mtu: int | None
    dns: tuple[str, ...]
    search: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]

    @property
    def prefixes(self) -> tuple[Network, ...]:
        return tuple(prefix for prefix in (self.ipv4, self.ipv6) if prefix is not None)


@dataclass(frozen=True)
class Common:
    """The facts that all hosts of a fabric share. Domains are sorted public first, the rest by name.

    ``bgp_keys`` are the names of the keys that BGP sessions can have.
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

    @cached_property
    def public(self) -> Domain:
        """The domain of the kind ``public``: what is not known to be private belongs to it."""
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

    def domains_of_path(self, path: str) -> tuple[Domain, ...]:
        """Return the domains that have a prefix on ``path``."""
        present = {network.domain for network in self.networks if network.path == path}
        return tuple(domain for domain in self.domains if domain.name in present)

    def pool_prefixes(self, domain: str, family: Family) -> tuple[Network, ...]:
        """Return the prefixes of all pools of a domain in one family, in the order of their addresses."""
        prefixes = (p for pool in self.pools if pool.domain == domain for p in pool.prefixes)
        return tuple(sorted(p for p in prefixes if family_of(p) == family))

    def home_prefixes(self, domain: Domain, family: Family) -> tuple[Network, ...]:
        """Return where a domain's guests and hypervisors live: its pools, then its loopbacks."""
        loopback = domain.loopback(family)
        return self.pool_prefixes(domain.name, family) + ((loopback,) if loopback is not None else ())


@dataclass(frozen=True)
class UplinkIntent:
    """One interface of a host on one path for one domain; ``nic`` carries it as a VLAN, if there is one."""

    path: str
    domain: str
    interface: str
    nic: str | None


@dataclass(frozen=True)
class GuestIntent:
    """One guest. ``addresses``, ``subnets`` and ``anycast`` are prefixes, ``transparent`` are addresses.

    ``pool`` is the one of the main address (of the /64 for a guest without IPv4).
    ``link_local`` is ``None`` where nothing of IPv6 is routed to the guest.  ``moves_from`` names the
    hypervisor that the guest is leaving, and may still be announced from.  Where there are
    ``allowed_sources`` nobody else may send to the guest, with ``port_isolation`` no guest of its host.
    ``withdraw_without_carrier`` says whether the guest is announced only while its port has a carrier.
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
    """An address of a host on a path, in one domain, that does not follow from its id."""

    path: str
    domain: str
    address: str


def declared_address(network: PathNetwork, declared: tuple[PathAddress, ...]) -> str | None:
    """Return the address that is declared for a path's network, if there is one."""
    for own in declared:
        place = (own.path, own.domain, family_of_text(own.address))
        if place == (network.path, network.domain, network.family):
            return own.address
    return None


def path_address(network: PathNetwork, number: int, declared: tuple[PathAddress, ...]) -> str:
    """Return the address of a host in a path's network: the declared one, else the one with its number."""
    return declared_address(network, declared) or str(numbered(network.prefix, number))


@dataclass(frozen=True)
class Settings:
    """What a host has of its own or from its groups, with the defaults filled in. MTUs are in bytes.

    ``neighbors`` is how a reflector knows its clients.  ``prefix_limit_margin`` is in percent;
    ``prefix_limit`` is a number instead of what follows from the inventory.
    ``anycast`` is what is done with flows of guests to an anycast address that a guest beside them holds.
    """

    mtu: int
    guest_mtu: int
    timers: Timers
    failure_profile: FailureProfile
    session_layout: SessionLayout
    neighbors: Neighbors
    ecmp_limit: int
    anycast: Anycast
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

    ``edge_domains`` are those that an edge router announces a default route into, ``addresses`` those
    that it answers for itself.  ``path_addresses`` replace those that follow from its id.
    ``management_sources`` may reach its services by public uplinks.
    ``bgp_keys`` are pairs of a path and the name of the key of the sessions there, ``ecmp`` pairs of a domain
    and which of its routes may have several next hops.
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
    guests: tuple[GuestIntent, ...]

    @cached_property
    def anycast(self) -> tuple[str, ...]:
        """The anycast prefixes that its guests hold, each once."""
        return tuple(dict.fromkeys(prefix for guest in self.guests for prefix in guest.anycast))

    def address_in(self, network: PathNetwork) -> str:
        """Return its address in a path's network."""
        return path_address(network, self.id, self.path_addresses)

    def bgp_key(self, path: str) -> str | None:
        """Return the name of the key that this host wants on a path."""
        return dict(self.bgp_keys).get(path)

    def ecmp_of(self, domain: str) -> Ecmp:
        """Return which routes of a domain may have several next hops on this host."""
        return dict(self.ecmp).get(domain, "all")

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains that this host has an uplink in, in the order of the uplinks."""
        return tuple(dict.fromkeys(uplink.domain for uplink in self.uplinks))


@dataclass(frozen=True)
class Link:
    """The domains that a host has uplinks for on one path, and the name of the key that it wants there.

    ``addresses`` are those on the path that do not follow from the host's id.
    """

    path: str
    domains: tuple[str, ...]
    bgp_key: str | None
    addresses: tuple[PathAddress, ...] = ()


@dataclass(frozen=True)
class Member:
    """The part of a host that its neighbours in BGP need to know."""

    name: str
    kind: Kind
    id: int
    daemon: DaemonName
    failure_profile: FailureProfile
    session_layout: SessionLayout
    neighbors: Neighbors
    links: tuple[Link, ...]
    managed: bool = True
    ttl_security: bool = True
    prefix_limit: int | None = None


@dataclass(frozen=True)
class Peer:
    """A neighbour in BGP, on one path."""

    name: str
    kind: Kind
    id: int
    daemon: DaemonName
    failure_profile: FailureProfile
    session_layout: SessionLayout
    bgp_key: str | None
    path: str
    domains: tuple[str, ...]
    addresses: tuple[PathAddress, ...] = ()
    managed: bool = True
    ttl_security: bool = True
    prefix_limit: int | None = None

    def address_in(self, network: PathNetwork) -> str:
        """Return its address in a path's network."""
        return path_address(network, self.id, self.addresses)


@dataclass(frozen=True)
class Largest:
    """How many prefixes the hypervisor with the most of them has, in each family."""

    ipv4: int = 0
    ipv6: int = 0


@dataclass(frozen=True)
class HostSlice:
    """Everything that the plan of one host is made of.

    Only reflectors are told of ``largest``, and only those that validate strictly of ``owners``.  Only
    hypervisors that prefer one default route are told of ``edges``, the edge routers on their paths, and only
    those that spread anycast of ``holders``: the prefixes that their guests and other hypervisors hold, each
    with the number of hypervisors that do.
    """

    common: Common
    host: HostIntent
    peers: tuple[Peer, ...]
    largest: Largest
    owners: tuple[Owner, ...]
    edges: tuple[Peer, ...]
    holders: tuple[tuple[str, int], ...]

"""What one host becomes: the plan that every template, role and verification reads.

A plan is made by :mod:`l3hv.plan`, travels through Ansible as plain dictionaries (``as_plain``)
and is only ever printed after that: whoever reads it decides nothing about networking any more.
Addresses and prefixes are strings in canonical form (RFC 5952 for IPv6).  Sequences are sorted
in the order in which they are printed.  Fields that do not apply are ``None`` or empty.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["ipv4", "ipv6"]
Kind = Literal["hypervisor", "route_reflector", "edge_router"]


@dataclass(frozen=True)
class Vlan:
    """An 802.1Q interface to create on ``parent``; the QoS maps are networkd's ``from-to`` pairs."""

    parent: str
    id: int
    qos_maps: tuple[str, ...]


@dataclass(frozen=True)
class UplinkAddress:
    """One address of this host on an L2 path: ``address``/``length`` inside ``prefix``."""

    family: Family
    address: str
    length: int
    prefix: str


@dataclass(frozen=True)
class Uplink:
    """One interface on one path for one domain. ``vlan`` is ``None`` when the interface exists already."""

    interface: str
    path: str
    domain: str
    mtu: int
    vlan: Vlan | None
    addresses: tuple[UplinkAddress, ...]


@dataclass(frozen=True)
class Nic:
    """A physical interface that carries VLANs (only where VLAN interfaces are made by the kernel)."""

    interface: str
    mtu: int
    vlans: tuple[str, ...]


@dataclass(frozen=True)
class LoopbackAddress:
    """An address of this host on ``lo``.

    ``announced`` ones are the host's loopbacks in ``domain`` (in the plan of a hypervisor: the preferred
    source of its own traffic); the others are addresses that an edge router answers for.
    """

    family: Family
    address: str
    length: int
    domain: str
    announced: bool


@dataclass(frozen=True)
class TableName:
    """A kernel routing table and its name in ``rt_tables``."""

    id: int
    name: str


@dataclass(frozen=True)
class Rule:
    """One policy rule (``ip -4|-6 rule``).

    ``iif``, ``source`` and ``destination`` select (``None``: any); ``table`` is looked up by name;
    ``suppress_prefixlength`` as in ip-rule(8); ``why`` is the reason that is printed beside it.
    """

    family: Family
    priority: int
    table: str
    why: str
    iif: str | None = None
    source: str | None = None
    destination: str | None = None
    suppress_prefixlength: int | None = None


@dataclass(frozen=True)
class LastResort:
    """The route that ends a table: ``blackhole`` or ``unreachable`` default of metric 4294967294."""

    family: Family
    table: str
    type: Literal["blackhole", "unreachable"]
    metric: int = 4294967294


@dataclass(frozen=True)
class GuestRoute:
    """One route towards a guest, in every table of ``tables`` (names).

    ``via`` is ``None`` for a device route, otherwise the guest's own address, reached on-link.
    ``prefsrc`` applies in the table ``local-out`` only.  ``metric`` is the kernel's: lower than that of
    routes learned by BGP (32), so that a guest that is here is reached here.
    """

    family: Family
    prefix: str
    via: str | None
    tables: tuple[str, ...]
    metric: int
    kind: Literal["main", "address", "subnet", "anycast", "transparent"]


@dataclass(frozen=True)
class GuestLease:
    """What DHCPv4 offers to one guest. ``routes`` are (prefix, gateway) pairs of RFC 3442."""

    pool: str
    address: str


@dataclass(frozen=True)
class GuestPrefix:
    """What router advertisements offer to one guest: its /64 (RFC 4862), and how it is reached."""

    prefix: str
    on_link: bool
    dns: tuple[str, ...]


@dataclass(frozen=True)
class Guest:
    """One guest port of a hypervisor.

    ``gateways`` are the addresses (``address/length``) that the port holds with scope link;
    ``gateway_mac`` is the port's own MAC, the same on every hypervisor; ``mac`` is the guest's.
    ``link_local`` is the guest's fe80:: address. ``mtu`` is in bytes.
    ``transparent`` pairs an additional IPv4 address with the main one that it is translated to.
    """

    name: str
    interface: str
    mac: str
    domain: str
    mtu: int
    gateway_mac: str
    gateways: tuple[str, ...]
    link_local: str | None
    lease: GuestLease | None
    prefix: GuestPrefix | None
    routes: tuple[GuestRoute, ...]
    transparent: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DhcpPool:
    """A subnet that guests of this host believe to be in, as the DHCP server offers it."""

    name: str
    subnet: str
    netmask: str
    gateway: str
    mtu: int
    dns: tuple[str, ...]
    search: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PrefixMatch:
    """A BIRD-style prefix pattern: ``prefix`` itself or what is inside with a length of ``low`` to ``high``."""

    prefix: str
    low: int
    high: int
    why: str


@dataclass(frozen=True)
class Channel:
    """One address family of a session.

    ``next_hop`` is the address that this host puts into its announcements (``None`` on a reflector,
    which keeps the announced one). ``table`` is the BIRD table's name (``public4``).
    """

    family: Family
    table: str
    next_hop: str | None


@dataclass(frozen=True)
class Session:
    """One BGP session: protocol ``name`` in BIRD, on ``interface``, from ``local`` to ``neighbor``.

    ``relation`` is what the neighbour is to us: ``reflector`` (we are its client), ``client`` (we reflect
    for it) or ``peer`` (another reflector of the path). ``passive`` sessions wait for the neighbour.
    """

    name: str
    peer: str
    path: str
    domain: str
    interface: str
    local: str
    neighbor: str
    relation: Literal["reflector", "client", "peer"]
    passive: bool
    channels: tuple[Channel, ...]


@dataclass(frozen=True)
class RoutingTable:
    """One BIRD table: a domain (or local-out) in one family, and the kernel table that it is kept in.

    ``kernel_table`` is ``None`` on reflectors. ``learn``: guest routes of the kernel are taken from there.
    ``fed_by`` names the BIRD table whose BGP routes are copied here (local-out), with ``prefsrc``.
    ``originates`` are prefixes that this host announces itself (its loopback; an edge's default).
    ``accepts`` is what the host takes from its neighbours, ``announces`` what it may tell them.
    """

    name: str
    domain: str
    family: Family
    kernel_table: int | None
    learn: bool
    fed_by: str | None
    prefsrc: str | None
    originates: tuple[str, ...]
    accepts: tuple[PrefixMatch, ...]
    announces: tuple[PrefixMatch, ...]


@dataclass(frozen=True)
class Timers:
    """BFD in milliseconds (RFC 5880), the rest in seconds (RFC 4271, RFC 9494)."""

    bfd_interval_ms: int
    bfd_multiplier: int
    hold_s: int
    keepalive_s: int
    connect_retry_s: int
    stale_s: int


@dataclass(frozen=True)
class Routing:
    """What the routing daemon of this host is told."""

    asn: int
    router_id: str
    cluster_id: str | None
    failure_profile: str
    timers: Timers
    ecmp_limit: int
    tables: tuple[RoutingTable, ...]
    sessions: tuple[Session, ...]


@dataclass(frozen=True)
class Sysctl:
    """One kernel setting and the reason for it. ``key`` is in sysctl.d syntax (``/`` for a dot in a name)."""

    key: str
    value: str
    why: str


@dataclass(frozen=True)
class HostPlan:
    """Everything that one host becomes."""

    host: str
    kind: Kind
    id: int
    fabric: str
    main_default_route: bool
    nics: tuple[Nic, ...]
    uplinks: tuple[Uplink, ...]
    loopbacks: tuple[LoopbackAddress, ...]
    table_names: tuple[TableName, ...]
    rules: tuple[Rule, ...]
    last_resorts: tuple[LastResort, ...]
    sysctls: tuple[Sysctl, ...]
    guests: tuple[Guest, ...]
    dhcp_pools: tuple[DhcpPool, ...]
    routing: Routing
    warnings: tuple[str, ...] = field(default=())


def as_plain(value: Any) -> Any:
    """Return ``value`` as the plain dictionaries, lists and scalars that Ansible accepts from a filter.

    >>> as_plain(TableName(90, "public"))
    {'id': 90, 'name': 'public'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    return value

"""What one host becomes: the plan that every template, role and verification reads.

A plan is made by :mod:`l3hv.plan`, travels through Ansible as plain dictionaries (``as_plain``)
and is only ever printed after that: whoever reads it decides nothing about networking any more.
Addresses and prefixes are strings in canonical form (RFC 5952 for IPv6).  Sequences are sorted
in the order in which they are printed.  Fields that do not apply are ``None`` or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from l3hv.model.choices import (
    Announcer,
    DaemonName,
    Ecmp,
    FailureProfile,
    Family,
    Kind,
    LimitAction,
    SessionLayout,
    System,
)


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
    """A kernel routing table and its name in ``rt_tables``; systemd-networkd has routes in most of them."""

    id: int
    name: str
    is_networkds: bool


@dataclass(frozen=True)
class Rule:
    """One policy rule (``ip -4|-6 rule``).

    ``iif``, ``source`` and ``destination`` select (``None``: any); ``table`` is looked up by name;
    ``suppress_prefixlength`` as in ip-rule(8); ``why`` is the reason that is printed beside it.
    ``mark`` is a bit, in hexadecimal, that the packet's mark must have; the others do not matter.
    ``ip_protocol`` (IANA's number) and ``source_port`` select by the headers of the packet.  Only a rule with
    ``iif lo`` may have them: any other one makes the kernel dissect every packet that it forwards.
    """

    family: Family
    priority: int
    table: str
    why: str
    iif: str | None = None
    source: str | None = None
    destination: str | None = None
    suppress_prefixlength: int | None = None
    mark: str | None = None
    ip_protocol: int | None = None
    source_port: int | None = None


@dataclass(frozen=True)
class LastResort:
    """A route that ends a table, or what is looked up there of ``prefix``, where no other route is known.

    ``prefix`` is "default" or a prefix.  No route that a daemon knows has so high a metric.
    """

    family: Family
    table: str
    type: Literal["blackhole", "unreachable"]
    metric: int = 4294967294
    prefix: str = "default"


@dataclass(frozen=True)
class GuestRoute:
    """One route towards a guest, in every table of ``tables`` (names).

    ``via`` is ``None`` for a device route, otherwise the guest's own address, reached on-link.
    ``prefsrc`` applies in the table ``local-out`` only (``None``: the kernel chooses, or the route is not
    in that table).  ``metric`` is the kernel's: lower than that of routes learned by BGP (32), so that a
    guest that is here is reached here; guests of one host that share an anycast prefix differ in it.
    """

    family: Family
    prefix: str
    via: str | None
    tables: tuple[str, ...]
    metric: int
    kind: Literal["main", "address", "subnet", "anycast", "transparent"]
    prefsrc: str | None = None


@dataclass(frozen=True)
class GuestLease:
    """What DHCPv4 offers to one guest: this address, with the options of the :class:`DhcpPool` ``pool``."""

    pool: str
    address: str


@dataclass(frozen=True)
class GuestPrefix:
    """What router advertisements offer to one guest: its /64 (RFC 4862), and how it is reached."""

    prefix: str
    on_link: bool
    dns: tuple[str, ...]


@dataclass(frozen=True)
class PortAddress:
    """An address of a guest port: a gateway of the guest."""

    family: Family
    address: str
    length: int


@dataclass(frozen=True)
class Guest:
    """One guest port of a hypervisor.

    ``addresses`` are those that the port holds with scope link, ``gateways`` the same as ``address/length``;
    ``gateway_mac`` is the port's own MAC, the same on every hypervisor; ``mac`` is the guest's.
    ``link_local`` is the fe80:: address that its IPv6 is routed to: a permanent neighbour of the port, with
    the guest's MAC.  So it works whatever link-local addresses the guest has.  ``mtu`` is in bytes.
    ``transparent`` pairs an additional IPv4 address with the main one that it is translated to.
    With ``withdraw_without_carrier`` the port has addresses and routes only while it has a carrier.
    """

    name: str
    interface: str
    mac: str
    domain: str
    mtu: int
    gateway_mac: str
    addresses: tuple[PortAddress, ...]
    gateways: tuple[str, ...]
    link_local: str | None
    lease: GuestLease | None
    prefix: GuestPrefix | None
    routes: tuple[GuestRoute, ...]
    transparent: tuple[tuple[str, str], ...]
    withdraw_without_carrier: bool


@dataclass(frozen=True)
class DhcpPool:
    """A subnet that guests of this host believe to be in, as the DHCP server offers it.

    ``mtu`` is that of its guests; ``routes`` are the (prefix, gateway) pairs of option 121.
    They are complete: where there are any the default route is among them, because clients that
    understand the option ignore the router option beside it (RFC 3442).
    """

    name: str
    subnet: str
    netmask: str
    gateway: str
    mtu: int
    dns: tuple[str, ...]
    search: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GuestServices:
    """What the daemons of a hypervisor offer to its guests: DHCPv4 to some, router advertisements to some."""

    dhcp: bool
    advertisements: bool


@dataclass(frozen=True)
class PrefixMatch:
    """A prefix pattern as in BIRD: ``prefix`` or what is inside it, with a length of ``low`` to ``high``.

    ``longer_from`` and ``longer_to`` are the same two, each ``None`` where it is the length of ``prefix``
    itself: a pattern without ``longer_to`` matches exactly ``prefix``.  ``number`` is its line in a prefix
    list (``None`` where the daemon has none).
    """

    prefix: str
    low: int
    high: int
    why: str
    longer_from: int | None = None
    longer_to: int | None = None
    number: int | None = None


@dataclass(frozen=True)
class Refusal:
    """A reason not to take an announcement. ``number`` is what a daemon marks it with, ``why`` a sentence."""

    number: int
    name: str
    why: str


@dataclass(frozen=True)
class NextHop:
    """The address of a router on a path; ``why`` is what is printed beside it."""

    address: str
    why: str


@dataclass(frozen=True)
class RankedNextHop:
    """A next hop, and what is ``added`` to the local preference of the default route by it."""

    address: str
    added: int
    why: str


@dataclass(frozen=True)
class DefaultRanking:
    """The order of default routes (to ``prefix``) that their routers prefer alike.

    The local preference is multiplied by ``factor``, then each next hop of ``next_hops`` adds less than that:
    a preference that a router sets still counts first.  The last of the next hops adds nothing, and is left
    out.
    """

    prefix: str
    factor: int
    next_hops: tuple[RankedNextHop, ...]


@dataclass(frozen=True)
class ImportPolicy:
    """What is taken into ``table`` from neighbours of one kind; the rest is refused, for a :class:`Refusal`.

    Where hypervisors may announce exactly their own and the daemon has no table of ``owners`` to ask, each
    of them has a policy of its own.

    The prefix must lie in ``accepts`` and be none of ``reserved``, the next hop in what a
    :class:`CarriedDomain` says of the neighbour.
    ``loopbacks``: of this prefix only the neighbour's own loopback is taken.  ``is_owned``: the prefix must
    be the neighbour's among the routing's ``owners``.  ``is_original``: what was
    reflected, or has an AS path, is refused, and no attribute is taken as it is.  ``is_silent``: what is not
    in ``accepts`` is left out without a word, because the neighbour may well know more.
    ``default_next_hops``: of default routes that are alike to their routers the one by the first of these is
    preferred, so that no two of them are merged; without any they are left as they are.  ``default_ranking``
    is how a daemon gets there (``None`` where there are no two to choose from).
    """

    name: str
    table: str
    family: Family
    neighbors: Announcer
    accepts: tuple[PrefixMatch, ...]
    reserved: tuple[PrefixMatch, ...]
    loopbacks: str | None
    is_owned: bool
    is_original: bool
    is_silent: bool
    default_next_hops: tuple[NextHop, ...]
    default_ranking: DefaultRanking | None


@dataclass(frozen=True)
class Owner:
    """The prefixes of the guests of ``host``, which may announce them: in the order of their addresses."""

    id: int
    host: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


@dataclass(frozen=True)
class PrefixOwner:
    """An :class:`Owner` with (prefix, length) pairs: the entries of a table of origins (RFC 6482)."""

    id: int
    host: str
    ipv4: tuple[tuple[str, int], ...]
    ipv6: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PrefixLimit:
    """How many prefixes are taken from a neighbour, and what is done about more.

    ``remembered`` counts refused ones as well: further announcements are dropped, or end the session, as
    ``action`` says; with ``warn`` they are only logged.
    """

    accepted: int
    remembered: int
    action: LimitAction


@dataclass(frozen=True)
class CarriedDomain:
    """What a channel carries of one domain: the routes of the BIRD table ``table`` (``public4``).

    ``next_hop`` is the address that this host puts into its announcements (``None`` on a reflector, which
    keeps the announced one).

    What the neighbour announces is judged by the :class:`ImportPolicy` ``policy``, with ``next_hops`` (a
    prefix), ``loopback`` (a prefix) and ``owner`` (the neighbour's id), the last two where the policy asks.
    ``next_hop_length`` is the length of a single address where ``next_hops`` has several, otherwise ``None``.
    ``is_direct``: the next hop must be the address that the neighbour speaks from.
    """

    domain: str
    table: str
    next_hop: str | None
    policy: str
    next_hops: str
    next_hop_length: int | None
    is_direct: bool
    loopback: str | None
    owner: int | None


@dataclass(frozen=True)
class Channel:
    """One address family of a session.

    ``table`` is the BIRD table that its routes are in: that of the one domain that it ``carries``, or, in a
    shared session, a :class:`SharedTable` of several.
    """

    family: Family
    table: str
    carries: tuple[CarriedDomain, ...]
    limit: PrefixLimit | None

    @property
    def next_hops(self) -> dict[str, str | None]:
        """The BIRD tables of domains whose routes are exchanged, each with the next hop that we announce."""
        return {part.table: part.next_hop for part in self.carries}


@dataclass(frozen=True)
class Session:
    """One BGP session: protocol ``name`` in BIRD, on ``interface``, from ``local`` to ``neighbor``.

    ``domain`` is the one whose network it runs in, ``domains`` are those whose routes it carries.
    ``relation`` is what the neighbour is to us: ``reflector`` (we are its client), ``client`` (we reflect
    for it) or ``peer`` (another reflector of the path). ``passive`` sessions wait for the neighbour.
    ``layout``, ``failure_profile`` and ``key`` (the name of its secret) are the same at both ends; ``bfd``
    tells whether BFD watches the neighbour.  Without ``ttl_security`` packets of BGP are taken from the
    neighbour with any TTL (RFC 5082 does not apply).
    """

    name: str
    peer: str
    path: str
    domain: str
    domains: tuple[str, ...]
    layout: SessionLayout
    interface: str
    local: str
    neighbor: str
    relation: Literal["reflector", "client", "peer"]
    passive: bool
    failure_profile: FailureProfile
    bfd: bool
    key: str | None
    ttl_security: bool
    channels: tuple[Channel, ...]


@dataclass(frozen=True)
class RoutingTable:
    """One BIRD table: a domain (or local-out) in one family, and the kernel table that it is kept in.

    Or what a domain has to anycast prefixes of this host from other holders (``public4_spread``).

    ``kernel_table`` is ``None`` on reflectors. ``learn``: guest routes of the kernel are taken from there.
    ``fed_by`` names the BIRD table whose BGP routes are copied here, with ``prefsrc``: those in ``accepts``,
    or all where it is empty (local-out).
    ``persists``: its routes stay in the kernel when the table is configured away.
    ``ecmp`` tells which of its routes may have several next hops in the kernel, ``ecmp_limit`` how many.
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
    persists: bool
    ecmp: Ecmp
    ecmp_limit: int
    originates: tuple[str, ...]
    accepts: tuple[PrefixMatch, ...]
    announces: tuple[PrefixMatch, ...]


@dataclass(frozen=True)
class DomainCommunity:
    """The large community (its three parts) that the routes of a domain carry in shared sessions."""

    domain: str
    value: tuple[int, int, int]


@dataclass(frozen=True)
class SharedPart:
    """A domain that has a part in a shared table, and the BIRD table of its own."""

    domain: str
    table: str


@dataclass(frozen=True)
class SharedTable:
    """The BIRD table between the shared sessions and the tables of domains, in one family.

    It may hold the same prefix for each domain: they come from different protocols or have different path
    identifiers (RFC 7911), and none of them is preferred to another here.
    """

    name: str
    family: Family
    parts: tuple[SharedPart, ...]


@dataclass(frozen=True)
class Timers:
    """BFD in milliseconds (RFC 5880), the rest in seconds (RFC 4271, RFC 4724, RFC 9494)."""

    bfd_interval_ms: int
    bfd_multiplier: int
    hold_s: int
    keepalive_s: int
    connect_retry_s: int
    restart_s: int
    stale_s: int


@dataclass(frozen=True)
class Daemon:
    """The routing daemon of a host, and what it can be told.

    ``package`` is the system's (empty where nothing is installed).  ``device_scan_s`` and ``kernel_scan_s``
    are how often, in seconds, BIRD looks at the interfaces and at the kernel's tables, beside being told of
    changes: more often where something waits for that; other daemons are not told (``None``).
    ``asks_for_authentication``: beside a key, how it is used has to be said.  ``options`` are for its command
    line.  ``bounds_restart``: it can be told how long the routes of a neighbour that restarts are kept at
    most, whatever time the neighbour asks for.  ``reading_socket`` is how a second control socket is declared
    that only answers questions (``None``: there is none).
    """

    name: DaemonName
    system: System
    package: str
    version: str
    device_scan_s: int | None = None
    kernel_scan_s: int | None = None
    asks_for_authentication: bool = False
    options: tuple[str, ...] = ()
    bounds_restart: bool = False
    reading_socket: str | None = None


@dataclass(frozen=True)
class Program:
    """A process of BIRD, for ``families``: 1.6 has one for each, the others one for both.

    ``name`` is that of the program, of its unit, its configuration and its socket; ``client`` talks to it.
    """

    name: Literal["bird", "bird6"]
    client: Literal["birdc", "birdc6"]
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Routing:
    """What the routing daemon of this host is told, all of its ``programs`` together.

    ``failure_profile`` is the host's own, ``failure_profiles`` are those of its sessions: a reflector has its
    clients'. ``awaited_interfaces`` are those that must have their IPv6 address before it starts.
    ``rescans``: it has to be asked to look at the kernel's tables whenever a route changes.
    ``session_shapes`` tell of which paths another configuration begins the sessions anew.
    ``kernel_tables`` are those that ``tables`` are kept in, ``multipath`` the families in which a route there
    may have several next hops.
    ``session_keys`` are the names of the secrets of its sessions. ``ranges`` are sessions that each host
    in the prefix ``neighbor`` can have; ``peer`` is empty there.
    ``communities`` and ``shared_tables`` are there where sessions are shared, ``owners`` where a policy asks
    for them, sorted by id.  ``monitoring_group`` is the group of the system that may read the daemon's state.
    """

    daemon: Daemon
    programs: tuple[Program, ...]
    asn: int
    router_id: str
    cluster_id: str | None
    failure_profile: FailureProfile
    failure_profiles: tuple[FailureProfile, ...]
    timers: Timers
    ecmp_limit: int
    rescans: bool
    session_shapes: tuple[str, ...]
    session_keys: tuple[str, ...]
    awaited_interfaces: tuple[str, ...]
    tables: tuple[RoutingTable, ...]
    kernel_tables: tuple[int, ...]
    multipath: tuple[Family, ...]
    communities: tuple[DomainCommunity, ...]
    shared_tables: tuple[SharedTable, ...]
    refusals: tuple[Refusal, ...]
    policies: tuple[ImportPolicy, ...]
    owners: tuple[PrefixOwner, ...]
    sessions: tuple[Session, ...]
    ranges: tuple[Session, ...]
    monitoring_group: str | None


@dataclass(frozen=True)
class Sysctl:
    """One kernel setting and the reason for it. ``key`` is in sysctl.d syntax (``/`` for a dot in a name)."""

    key: str
    value: str
    why: str


@dataclass(frozen=True)
class DropReason:
    """Why packets are dropped: a counter's name, and what it counts. Some are not worth a line in the log."""

    name: str
    why: str
    is_logged: bool


@dataclass(frozen=True)
class FilteredDomain:
    """What one domain's packets are forwarded between: its uplinks and guest ports on this host.

    - ``open_guests``: the guest ports that ``open_interfaces`` may send to without any further condition.
    - ``pools4``: the IPv4 prefixes of its pools: its guests may ask for addresses of these by ARP.
    """

    name: str
    interfaces: tuple[str, ...]
    open_interfaces: tuple[str, ...]
    open_guests: tuple[str, ...]
    pools4: tuple[str, ...]


@dataclass(frozen=True)
class PrefixesOfLength:
    """Prefixes by their first ``addresses``: whose part under ``mask`` is one of these is in one of them."""

    length: int
    mask: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class SpreadShare:
    """The anycast of one family that ``holders`` hypervisors hold, this one included.

    A flow has a number from 0 to 65535 that depends on its addresses and ports: those below ``local`` stay.
    """

    family: Family
    holders: int
    local: int
    lengths: tuple[PrefixesOfLength, ...]


@dataclass(frozen=True)
class SpreadDomain:
    """Which packets of ``guests`` (interfaces) of a domain get ``mark``: those for guests of other hosts."""

    name: str
    mark: str
    guests: tuple[str, ...]
    shares: tuple[SpreadShare, ...]


@dataclass(frozen=True)
class PacketFilter:
    """What passes the interfaces of the fabric on one host; others are not judged.

    Pairs are (interface, what belongs to it), triples (interface, MAC, address). The number of rules that
    these become does not depend on them: each is a set that a packet is looked up in once.

    - ``neighbours4`` and ``neighbours6``: where BGP and BFD may come from, by uplink.
    - ``any_ttl4`` and ``any_ttl6``: the neighbours of these whose packets of BGP may have any TTL.
    - ``closed_uplinks``: by these the host offers nothing else, but to ``fabric4`` and ``fabric6`` (the
      prefixes of paths and loopbacks), ``management4`` and ``management6``.
    - ``macs`` and ``sources4`` to ``source_prefixes6``: what guests may send with: single addresses,
      /64s (by their first address), and other prefixes. ``senders4`` and ``sender_networks6`` are the single
      addresses and the /64s with their guest's MAC: one look-up lets nearly all packets of guests through.
    - ``gateways4``: ports and the addresses by which their guests know this host.
    - ``probers4``: the main address of each guest, to which the answer to its ARP probes is sent.
    - ``on_link6``: ports behind which any number of neighbours may be.
    - ``isolated``, ``restricted``: as the intent says; ``allowed4`` and ``allowed6`` may send to the latter.
    - ``transparent``: pairs of an additional address and the one that it is translated to; ``tracked4`` are
      the addresses of the connections that have to be followed for that.
    - ``spread``: the domains whose anycast is spread over all its holders.
    - ``reasons``, ``arp_reasons``: why IP packets and ARP are dropped.
    """

    uplinks: tuple[str, ...]
    closed_uplinks: tuple[str, ...]
    neighbours4: tuple[tuple[str, str], ...]
    neighbours6: tuple[tuple[str, str], ...]
    any_ttl4: tuple[tuple[str, str], ...]
    any_ttl6: tuple[tuple[str, str], ...]
    fabric4: tuple[str, ...]
    fabric6: tuple[str, ...]
    management4: tuple[str, ...]
    management6: tuple[str, ...]
    domains: tuple[FilteredDomain, ...]
    guests: tuple[str, ...]
    macs: tuple[tuple[str, str], ...]
    sources4: tuple[tuple[str, str], ...]
    source_prefixes4: tuple[tuple[str, str], ...]
    sources6: tuple[tuple[str, str], ...]
    senders4: tuple[tuple[str, str, str], ...]
    sender_networks6: tuple[tuple[str, str, str], ...]
    source_prefixes6: tuple[tuple[str, str], ...]
    gateways4: tuple[tuple[str, str], ...]
    probers4: tuple[tuple[str, str], ...]
    on_link6: tuple[str, ...]
    isolated: tuple[str, ...]
    restricted: tuple[str, ...]
    allowed4: tuple[tuple[str, str], ...]
    allowed6: tuple[tuple[str, str], ...]
    transparent: tuple[tuple[str, str], ...]
    tracked4: tuple[str, ...]
    spread: tuple[SpreadDomain, ...]
    reasons: tuple[DropReason, ...]
    arp_reasons: tuple[DropReason, ...]


@dataclass(frozen=True)
class HostPlan:
    """Everything that one host becomes.

    It ``forwards`` packets unless it only reflects routes.
    ``warnings`` are sentences about what works, but probably not as meant.  A host that is not
    ``managed`` belongs to somebody else: others have sessions with it, nothing is configured on it.
    Reflectors that come ``after_clients`` are changed when hypervisors and edge routers have been: what
    both ends of a session have to change together then takes one path after the other away, never all.
    """

    host: str
    kind: Kind
    id: int
    fabric: str
    forwards: bool
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
    guest_services: GuestServices
    packet_filter: PacketFilter
    routing: Routing
    warnings: tuple[str, ...] = field(default=())
    managed: bool = True
    after_clients: bool = False

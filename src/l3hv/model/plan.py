"""The plan of one host: every template, role and verification reads it.

:mod:`l3hv.plan` makes a plan, and Ansible passes it on as plain dictionaries (``as_plain``). Roles, templates
and checks only print and compare it; they make no decisions about networking. Addresses and prefixes are
strings in canonical form (RFC 5952 for IPv6). Sequences are sorted in the order in which they are printed.
Fields that do not apply are ``None`` or empty.

The text below a field describes it; ``make specs`` copies it into the argument specs of the roles
(:mod:`l3hv.render.role_specs`).
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
    Igp,
    Kind,
    LimitAction,
    Relation,
    SessionLayout,
    System,
    TunnelKind,
)


@dataclass(frozen=True)
class Vlan:
    """An 802.1Q interface that the host creates."""

    parent: str
    """The physical interface."""
    id: int
    """The VLAN's number."""
    qos_maps: tuple[str, ...]
    """Priorities that packets keep, as ``from-to`` pairs of systemd-networkd."""


@dataclass(frozen=True)
class UplinkAddress:
    """One address of this host on an L2 path."""

    family: Family
    """The address family."""
    address: str
    """The host's address."""
    length: int
    """The length of ``prefix``."""
    prefix: str
    """The prefix of the hosts on the link that the address is in: that of the path, or the host's subnet."""
    router: str | None = None
    """The router of the host's subnet; none if all hosts of the path are on the link."""
    beyond: str | None = None
    """The path's prefix, whose other subnets the router leads to; none without a router."""


@dataclass(frozen=True)
class Tunnel:
    """A device that sends each packet to another host of a path, in a packet to the next hop of its route.

    It carries the family of its outer packets: IPv4 in IPv4 (RFC 2003), or IPv6 in IPv6 (RFC 2473).
    """

    interface: str
    """The device's name."""
    kind: TunnelKind
    """The kind of the device in the kernel."""
    family: Family
    """The family of the packets, inside and outside."""
    path: str
    """The path."""
    domain: str
    """The routing domain."""
    uplink: str
    """The interface on the path."""
    local: str
    """The host's address on the path: the source of the outer packets."""
    length: int
    """The length of a single address."""
    prefix: str
    """The path's prefix, in which the other ends are."""
    mtu: int
    """The MTU in bytes: that of the uplink without the outer header."""
    is_fallback: bool
    """Whether it is the device that the kernel's module makes itself, with any local address."""


@dataclass(frozen=True)
class NextHopRoute:
    """The interface that leads to the next hops in a prefix."""

    prefix: str
    """The prefix of next hops."""
    interface: str
    """The tunnel device, or the uplink to hosts of the same subnet."""
    onlink: bool
    """Whether the kernel must not look for the next hops on the interface."""


@dataclass(frozen=True)
class NextHopTable:
    """The BIRD table in which the next hops of BGP's routes are looked up, in one family."""

    name: str
    """The table's name in BIRD."""
    family: Family
    """The address family."""
    routes: tuple[NextHopRoute, ...]
    """The interfaces by the prefixes of next hops."""


@dataclass(frozen=True)
class OnLinkRoute:
    """A route to destinations that answer on the interface itself."""

    family: Family
    """The address family."""
    prefix: str
    """The destinations."""
    metric: int
    """The kernel's metric."""


@dataclass(frozen=True)
class Uplink:
    """One interface on one path for one domain."""

    interface: str
    """The interface's name."""
    path: str
    """The L2 path."""
    domain: str
    """The routing domain."""
    mtu: int
    """The MTU in bytes."""
    vlan: Vlan | None
    """The VLAN to create; none if the interface already exists."""
    vrf: str | None
    """The VRF that it belongs to; none without VRFs."""
    addresses: tuple[UplinkAddress, ...]
    """The host's addresses, one for each family that the path carries."""
    link_local: str | None
    """The host's link-local address with an IGP; none without one."""
    has_planned_link_local: bool
    """Whether the plan has the link-local address, and the kernel makes none of the MAC: with an IGP for
    IPv6, and on unnumbered links."""
    on_link: tuple[OnLinkRoute, ...]
    """Routes in C(main) to the loopbacks of other hosts, with an IGP."""
    proxied6: str | None
    """The host's loopback, for which it answers neighbour solicitations on the path; none without an IGP."""


@dataclass(frozen=True)
class Vrf:
    """A VRF: an interface that selects a domain's table for its uplinks and guest ports."""

    name: str
    """The name of the interface, which is the domain's."""
    table: int
    """The number of the domain's table."""


@dataclass(frozen=True)
class Nic:
    """A physical interface that carries VLANs (only where the host creates the VLAN interfaces)."""

    interface: str
    """The interface's name."""
    mtu: int
    """The MTU in bytes."""
    vlans: tuple[str, ...]
    """The names of the VLAN interfaces that it carries."""


@dataclass(frozen=True)
class LoopbackAddress:
    """An address of this host on ``lo``."""

    family: Family
    """The address family."""
    address: str
    """The address."""
    length: int
    """The prefix length: that of a single address."""
    domain: str
    """The routing domain that the address belongs to."""
    announced: bool
    """Whether the address is the host's loopback in its domain, which it advertises and prefers as the source
    of its own traffic. Otherwise it is an address of an edge router, which the router does not advertise."""


@dataclass(frozen=True)
class TableName:
    """A kernel routing table and its name in ``rt_tables``."""

    id: int
    """The table's number."""
    name: str
    """The table's name."""
    used_by_networkd: bool
    """Whether systemd-networkd puts routes into the table."""


@dataclass(frozen=True)
class Rule:
    """One policy rule (``ip -4|-6 rule``).

    ``ip_protocol`` and ``source_port`` select by the headers of the packet. Only a rule with ``iif lo`` may
    have them: any other rule would make the kernel dissect every packet that it forwards.
    """

    family: Family
    """The address family."""
    priority: int
    """The rule's priority."""
    table: str | None
    """The name of the table that is looked up; none: that of the packet's VRF (``l3mdev``)."""
    why: str
    """The reason, printed beside the rule."""
    iif: str | None = None
    """The interface that the packet arrived on; none: any."""
    source: str | None = None
    """The prefix of the packet's source; none: any."""
    destination: str | None = None
    """The prefix of the packet's destination; none: any."""
    suppress_prefixlength: int | None = None
    """The table's routes with this prefix length or a shorter one are not used (ip-rule(8)); none: all are
    used."""
    mark: str | None = None
    """The bit, in hexadecimal, that the packet's mark must have; none: any mark."""
    ip_protocol: int | None = None
    """IANA's number of the packet's protocol; none: any."""
    source_port: int | None = None
    """The packet's source port; none: any."""


@dataclass(frozen=True)
class LastResort:
    """A route that ends the look-up in a table, or of ``prefix`` there, if no other route matches."""

    family: Family
    """The address family."""
    table: str
    """The name of the table."""
    type: Literal["blackhole", "unreachable"]
    """The type of the route: packets are dropped, or their sender gets an error."""
    metric: int = 4294967294
    """The route's metric, higher than that of any route of a daemon."""
    prefix: str = "default"
    """The destination: C(default) or a prefix."""


@dataclass(frozen=True)
class GuestRoute:
    """One route towards a guest."""

    family: Family
    """The address family."""
    prefix: str
    """The destination."""
    via: str | None
    """The guest's own address, reached on-link; none for a device route."""
    tables: tuple[str, ...]
    """The names of the tables that have the route."""
    metric: int
    """The kernel's metric, lower than the 32 of routes learned by BGP: the route to a local guest is
    preferred. Guests of one host that share an anycast prefix have different metrics."""
    kind: Literal["main", "address", "subnet", "anycast", "transparent"]
    """The part of the guest's intent that the route comes from."""
    prefsrc: str | None = None
    """The preferred source in the table local-out; none if the kernel chooses, or the route is not in that
    table."""


@dataclass(frozen=True)
class GuestLease:
    """The offer of DHCPv4 to one guest."""

    pool: str
    """The name of the pool whose options the guest gets."""
    address: str
    """The guest's address."""


@dataclass(frozen=True)
class GuestPrefix:
    """The offer of router advertisements to one guest."""

    prefix: str
    """The guest's /64 (RFC 4862), or the one that it shares with others."""
    autonomous: bool
    """Whether the guest makes its addresses of the prefix and its MAC."""
    on_link: bool
    """Whether the guest reaches the addresses of its prefix directly."""
    dns: tuple[str, ...]
    """The IPv6 addresses of name servers."""


@dataclass(frozen=True)
class PortAddress:
    """An address of a guest port: a gateway of the guest."""

    family: Family
    """The address family."""
    address: str
    """The address."""
    length: int
    """The prefix length."""
    is_link_local: bool
    """Whether networkd looks for other owners of the address by default (RFC 4862, RFC 5227). That delays it
    by seconds, and a guest that claims the address would take it from the port."""


@dataclass(frozen=True)
class GuestPlan:
    """The plan of a guest and its port on the hypervisor."""

    name: str
    """The guest's name."""
    interface: str
    """The port's name on the hypervisor."""
    mac: str
    """The guest's MAC."""
    domain: str
    """The routing domain that the guest is in."""
    mtu: int
    """The MTU in bytes."""
    gateway_mac: str
    """The port's own MAC, the same on every hypervisor."""
    addresses: tuple[PortAddress, ...]
    """The addresses that the port holds with scope link: the guest's gateways."""
    gateways: tuple[str, ...]
    """The same as ``address/length``, as the kernel shows them."""
    link_local: str | None
    """The link-local address that the guest's IPv6 is routed to: a permanent neighbour of the port with the
    guest's MAC, so that it works with any link-local addresses of the guest. None without IPv6."""
    lease: GuestLease | None
    """The guest's lease of DHCPv4; none for a guest without IPv4."""
    prefix: GuestPrefix | None
    """The offer of router advertisements; none for a guest without IPv6."""
    shared_prefix: str | None
    """The /64 that the guest shares with other guests: the port answers its neighbour solicitations for their
    addresses (RFC 4389). None for a guest with a /64 of its own."""
    routes: tuple[GuestRoute, ...]
    """The routes towards the guest."""
    transparent: tuple[tuple[str, str], ...]
    """Pairs of an additional IPv4 address and the main one that it is translated to."""
    withdraw_without_carrier: bool
    """Whether the port has addresses and routes only while it has a carrier."""
    vrf: str | None
    """The VRF that the port belongs to; none without VRFs."""


@dataclass(frozen=True)
class DhcpPool:
    """A subnet as the DHCP server offers it: guests of this host use it as the subnet of their interface."""

    name: str
    """The pool's name."""
    subnet: str
    """The first address of the subnet."""
    netmask: str
    """The subnet's mask."""
    guest_netmask: str | None
    """The mask of the guests' addresses if it is not the subnet's: 255.255.255.255 with a link-local
    gateway."""
    gateway: str
    """The guests' gateway."""
    mtu: int
    """The MTU of the guests in bytes."""
    dns: tuple[str, ...]
    """The IPv4 addresses of name servers."""
    search: tuple[str, ...]
    """The DNS search domains."""
    routes: tuple[tuple[str, str], ...]
    """The (prefix, gateway) pairs of option 121. The default route is among them if there are any: clients
    that understand the option ignore the router option beside it (RFC 3442)."""

    @property
    def has_link_local_gateway(self) -> bool:
        """Whether the gateway is on the guests' link and in no subnet: guests then have single addresses."""
        return self.guest_netmask is not None


@dataclass(frozen=True)
class RelayedGuest:
    """A guest whose DHCPv4 messages are relayed."""

    interface: str
    """The port's name on the hypervisor."""
    circuit_id: str
    """The circuit id of the guest's messages: the hypervisor's name and the port's. No other guest has it."""
    mac: str
    """The guest's MAC."""
    address: str
    """The guest's address: no other address of a server's offer reaches the guest."""
    gateway: str
    """The address of the port, which the guest takes for its server."""
    link: str
    """An address of the guest's pool, by which the server finds the pool (RFC 3527)."""


@dataclass(frozen=True)
class DhcpRelay:
    """The relay of the guests' DHCPv4 messages to servers elsewhere (RFC 3046)."""

    name: str
    """The hypervisor's name, which tells the servers where a guest is."""
    address: str
    """The address of the hypervisor that the servers answer to."""
    servers: tuple[str, ...]
    """The addresses of the servers."""
    guests: tuple[RelayedGuest, ...]
    """The guests with a lease."""


@dataclass(frozen=True)
class ServedGuest:
    """A guest whose lease a DHCP server in the fabric offers."""

    name: str
    """The guest's name."""
    circuit_id: str
    """The circuit id of the guest's relayed messages: its hypervisor and its port. It selects the lease."""
    mac: str
    """The guest's MAC. The relay accepts no other, so the server does not compare it."""
    address: str
    """The guest's address."""
    mtu: int | None
    """The guest's MTU in bytes, if it is not that of its pool."""


@dataclass(frozen=True)
class ServedPool:
    """A subnet of which a DHCP server in the fabric offers leases."""

    id: int
    """The first address of C(prefix) as a number: it does not change when other pools come and go."""
    name: str
    """The pool's name."""
    prefix: str
    """The pool's prefix, or one address of it: guests behind a link-local gateway have single addresses."""
    gateway: str
    """The guests' gateway, which they also take for the server."""
    mtu: int
    """The MTU of most of its guests in bytes."""
    dns: tuple[str, ...]
    """The IPv4 addresses of name servers."""
    search: tuple[str, ...]
    """The DNS search domains."""
    routes: str | None
    """The value of option 121 in hexadecimal (RFC 3442), because Kea 2.2 has no other notation; none without
    routes."""
    guests: tuple[ServedGuest, ...]
    """Its guests."""


@dataclass(frozen=True)
class RelayingHypervisor:
    """A hypervisor that relays its guests' messages to a DHCP server in the fabric."""

    name: str
    """The hypervisor's name."""
    address: str
    """The address from which it relays."""
    circuit_prefix: str
    """The first characters of all circuit ids of its guests."""
    circuit_prefix_length: int
    """The number of these characters."""


@dataclass(frozen=True)
class DhcpServer:
    """The DHCPv4 server for the guests of hypervisors that relay to it."""

    address: str
    """The address that the hypervisors relay to."""
    lease_s: int
    """The duration of a lease in s."""
    relays: tuple[RelayingHypervisor, ...]
    """The hypervisors: the server answers no other sender."""
    pools: tuple[ServedPool, ...]
    """The pools of their guests."""


@dataclass(frozen=True)
class GuestServices:
    """The services that the guests of a hypervisor need."""

    dhcp: bool
    """Whether this host offers a guest a lease of DHCPv4."""
    dhcp_relay: DhcpRelay | None
    """The relay, if servers elsewhere offer the guests leases; none otherwise."""
    advertisements: bool
    """Whether a guest gets router advertisements."""
    ndp_proxy: bool
    """Whether a guest shares a /64 with others."""


@dataclass(frozen=True)
class PrefixMatch:
    """A match of prefixes as in BIRD: a prefix, or all prefixes inside it with a length in a range."""

    prefix: str
    """The prefix."""
    low: int
    """The minimum length of a matching prefix."""
    high: int
    """The maximum length of a matching prefix."""
    why: str
    """The reason, printed beside the match."""
    longer_from: int | None = None
    """``low`` if it is greater than the length of ``prefix``, otherwise none."""
    longer_to: int | None = None
    """``high`` if it is greater than the length of ``prefix``; none for a match of ``prefix`` alone."""
    number: int | None = None
    """The number of the match's line in a prefix list; none if the daemon has no prefix lists."""


@dataclass(frozen=True)
class Refusal:
    """A reason to refuse a route of a neighbour."""

    number: int
    """The number that the daemon marks the route with."""
    name: str
    """The reason's name."""
    why: str
    """The reason as a sentence."""


@dataclass(frozen=True)
class NextHop:
    """The address of a router on a path."""

    address: str
    """The address."""
    why: str
    """The router's name and its path, printed beside the address."""


@dataclass(frozen=True)
class RankedNextHop:
    """A next hop of the default route, and its preference."""

    address: str
    """The address."""
    added: int
    """The number that is added to the local preference of the default route by this next hop."""
    why: str
    """The router's name and its path, printed beside the address."""


@dataclass(frozen=True)
class DefaultRanking:
    """The order of default routes with equal local preference.

    The local preference that a router sets stays decisive: it is multiplied by ``factor``, and each next hop
    adds less than ``factor``.
    """

    prefix: str
    """The default route of the family."""
    factor: int
    """The factor of the local preference."""
    next_hops: tuple[RankedNextHop, ...]
    """The next hops in the order of preference, without the last one, which adds nothing."""


@dataclass(frozen=True)
class ImportPolicy:
    """The routes that a table accepts from neighbours of one kind.

    Other routes are refused, each for a :class:`Refusal`.

    If hypervisors may advertise exactly their own prefixes, and the daemon has no table of ``owners``, each
    hypervisor has a policy of its own.
    """

    name: str
    """The name of the policy, which is a function in BIRD."""
    table: str
    """The BIRD table that accepted routes go into."""
    family: Family
    """The address family."""
    neighbors: Announcer
    """The kind of the neighbours."""
    accepts: tuple[PrefixMatch, ...]
    """The accepted prefixes."""
    reserved: tuple[PrefixMatch, ...]
    """Parts of pools that no guest can have: they are refused although they lie in ``accepts``."""
    loopbacks: str | None
    """The prefix of which only the neighbour's own loopback is accepted; none if no loopback is accepted."""
    checks_owner: bool
    """Whether ``owners`` must assign the prefix to the neighbour."""
    only_original: bool
    """Whether reflected routes and routes with an AS path are refused, and all attributes are reset."""
    silent: bool
    """Whether other prefixes are refused without a line in the log: the neighbour may have many of them."""
    default_next_hops: tuple[NextHop, ...]
    """The order in which next hops of default routes with equal local preference are preferred, so that these
    routes are not merged. Empty if they may be merged."""
    default_ranking: DefaultRanking | None
    """The same as numbers for a daemon; none if there are fewer than two next hops."""


@dataclass(frozen=True)
class Owner:
    """A hypervisor and the prefixes of its guests, which it may advertise, sorted by address."""

    id: int
    """The hypervisor's id."""
    host: str
    """The hypervisor's name."""
    ipv4: tuple[str, ...]
    """The IPv4 prefixes."""
    ipv6: tuple[str, ...]
    """The IPv6 prefixes."""


@dataclass(frozen=True)
class PrefixOwner:
    """An :class:`Owner` with the lengths of its prefixes, as a table of origins has them (RFC 6482)."""

    id: int
    """The hypervisor's id."""
    host: str
    """The hypervisor's name."""
    ipv4: tuple[tuple[str, int], ...]
    """Pairs of an IPv4 prefix and its length."""
    ipv6: tuple[tuple[str, int], ...]
    """Pairs of an IPv6 prefix and its length."""


@dataclass(frozen=True)
class PrefixLimit:
    """The maximum number of prefixes of a neighbour, and the reaction to more prefixes."""

    accepted: int
    """The maximum number of accepted prefixes."""
    remembered: int
    """The maximum number of accepted and refused prefixes."""
    action: LimitAction
    """The reaction to more prefixes: they are dropped (C(block)), the session ends (C(restart), C(disable)),
    or the daemon only logs it (C(warn))."""


@dataclass(frozen=True)
class CarriedDomain:
    """The part of a channel that carries the routes of one domain."""

    domain: str
    """The routing domain."""
    table: str
    """The domain's BIRD table."""
    own_next_hop: str | None
    """The next hop of routes that this host advertises; none on a reflector, which keeps the next hop of a
    route."""
    policy: str
    """The name of the import policy for the neighbour's routes."""
    accepted_next_hops: str
    """The prefix that must contain the next hops of the neighbour's routes."""
    accepted_next_hop_length: int | None
    """The length of a single address if ``accepted_next_hops`` has several addresses, otherwise none."""
    direct_next_hop: bool
    """Whether the next hop must be the neighbour's address of the session."""
    loopback: str | None
    """The neighbour's own loopback as a prefix, if the policy needs it; otherwise none."""
    owner: int | None
    """The neighbour's id, if the policy needs it; otherwise none."""
    sets_onlink: bool = False
    """Whether the import must mark the next hops as reachable, because BIRD 2 does not take the mark from the
    table of next hops."""
    untunnelled: str | None = None
    """The prefix of next hops that are reached without a tunnel; none if there are none."""


@dataclass(frozen=True)
class Channel:
    """One address family of a session."""

    family: Family
    """The address family."""
    table: str
    """The BIRD table of the channel: that of its domain, or a shared table if it carries several domains."""
    carries: tuple[CarriedDomain, ...]
    """The domains whose routes it carries; several in shared sessions only."""
    limit: PrefixLimit | None
    """The maximum number of prefixes of the neighbour; none without a limit."""
    next_hop_table: str | None = None
    """The BIRD table in which next hops are looked up (``igp table``); none if they are on a link."""

    @property
    def own_next_hops(self) -> dict[str, str | None]:
        """The BIRD tables of domains whose routes are exchanged, with the next hop that this host
        advertises."""
        return {part.table: part.own_next_hop for part in self.carries}


@dataclass(frozen=True)
class Session:
    """One BGP session."""

    name: str
    """The name of the session's protocol in BIRD."""
    peer: str
    """The neighbour's name; empty if any client can be the neighbour."""
    path: str
    """The L2 path; with an IGP the path in whose turn a run changes the reflector of the session."""
    domain: str
    """The routing domain whose network the session runs in."""
    vrf: str | None
    """The VRF whose network it is; none without VRFs."""
    domains: tuple[str, ...]
    """The routing domains whose routes it carries."""
    layout: SessionLayout
    """The extent of one session, the same at both ends: one family, both, or several domains."""
    interface: str
    """The uplink that the session runs on, or C(lo)."""
    local: str
    """This host's address."""
    neighbor: str
    """The neighbour's address; a prefix if any client in it can be the neighbour."""
    asn: int
    """The neighbour's AS number."""
    relation: Relation
    """The role of the neighbour: reflector, client, another reflector of the path, or a host of the mesh; on
    a link the leaf or spine above this host (C(switch)), or a host below this one (C(attached))."""
    passive: bool
    """Whether this host waits for the neighbour to connect."""
    failure_profile: FailureProfile
    """The reaction of both ends to failures."""
    bfd: bool
    """Whether BFD watches the neighbour."""
    key: str | None
    """The name of the session's secret, the same at both ends; none without a secret."""
    ttl_security: bool
    """Whether packets of BGP must have a TTL of 255 (RFC 5082)."""
    unnumbered: bool
    """Whether it runs between link-local addresses, which are also the next hops of IPv4 (RFC 8950)."""
    channels: tuple[Channel, ...]
    """The session's address families."""


@dataclass(frozen=True)
class IgpInstance:
    """One instance of the IGP: it advertises this host's loopback of a domain and learns those of others."""

    name: str
    """The name of the protocol in BIRD."""
    protocol: Igp
    """The protocol."""
    domain: str
    """The routing domain."""
    family: Family
    """The address family."""
    table: str
    """The BIRD table of the loopbacks."""
    interfaces: tuple[str, ...]
    """The uplinks that it runs on."""
    loopback: str
    """The host's loopback as a prefix."""
    loopbacks: str
    """The prefix of the loopbacks of all hosts."""
    length: int
    """The length of a loopback's prefix."""
    ecmp_limit: int
    """The maximum number of next hops of a loopback."""
    kernel: str | None
    """The BIRD table by which the loopbacks of others get into the kernel's table of the domain; none on a
    reflector."""


@dataclass(frozen=True)
class IgpTable:
    """The BIRD table of all loopbacks in one family."""

    name: str
    """The table's name in BIRD."""
    family: Family
    """The address family."""
    kernel_table: int | None
    """The number of the kernel table that has the loopbacks; none if the tables of domains have them."""


@dataclass(frozen=True)
class PathNeighbor:
    """The address of a neighbour on a path, with an IGP: sessions themselves run between loopbacks."""

    peer: str
    """The neighbour's name."""
    path: str
    """The L2 path."""
    domain: str
    """The routing domain."""
    family: Family
    """The address family."""
    interface: str
    """The host's uplink."""
    local: str
    """The host's address on the path, in IPv6 a link-local one."""
    neighbor: str
    """The neighbour's address on the path, in IPv6 a link-local one."""


@dataclass(frozen=True)
class RoutingTable:
    """One BIRD table for a domain or local-out in one family, and the kernel table of its routes.

    A table of spread anycast (``public4_spread``) has a domain's routes to other holders of this host's
    anycast.
    """

    name: str
    """The table's name in BIRD."""
    domain: str
    """The routing domain, or C(local-out), or the kernel table of spread anycast (C(public-spread))."""
    family: Family
    """The address family."""
    kernel_table: int | None
    """The number of the kernel table that its routes are exported to; none on a reflector."""
    learn: bool
    """Whether routes of guests are learned from the kernel table."""
    fed_by: str | None
    """The BIRD table whose BGP routes are copied to this table: the routes in ``accepts``, or all routes if
    it is empty. None for a table without copies."""
    prefsrc: str | None
    """The preferred source of its routes; none if the kernel chooses."""
    persists: bool
    """Whether its routes stay in the kernel when the table is removed from the configuration."""
    ecmp: Ecmp
    """The routes that may have several next hops in the kernel."""
    ecmp_limit: int
    """The maximum number of next hops of a route in the kernel."""
    originates: tuple[str, ...]
    """Prefixes that this host originates: loopback and blocks; of an edge router default route and server."""
    accepts: tuple[PrefixMatch, ...]
    """The prefixes that the host accepts from its neighbours."""
    announces: tuple[PrefixMatch, ...]
    """The prefixes that the host may advertise to its neighbours."""


@dataclass(frozen=True)
class DomainCommunity:
    """The large community that the routes of a domain carry in shared sessions."""

    domain: str
    """The routing domain."""
    value: tuple[int, int, int]
    """The three numbers of the community (RFC 8092)."""


@dataclass(frozen=True)
class SharedPart:
    """A domain that shares a table with other domains."""

    domain: str
    """The routing domain."""
    table: str
    """The domain's own BIRD table."""


@dataclass(frozen=True)
class SharedTable:
    """The BIRD table between the shared sessions and the tables of domains, in one family.

    It may have the same prefix once per domain: these routes come from different protocols or have different
    path identifiers (RFC 7911), and this table does not prefer one of them.
    """

    name: str
    """The table's name in BIRD."""
    family: Family
    """The address family."""
    parts: tuple[SharedPart, ...]
    """The domains that share the table."""


@dataclass(frozen=True)
class Timers:
    """The timers of BFD (RFC 5880) and BGP (RFC 4271, RFC 4724, RFC 9494)."""

    bfd_interval_ms: int
    """BFD's interval in ms."""
    bfd_multiplier: int
    """The number of missed BFD packets after which a path is dead."""
    hold_s: int
    """BGP's hold time in s."""
    keepalive_s: int
    """BGP's keepalive time in s."""
    connect_retry_s: int
    """The time between two attempts to connect, in s."""
    restart_s: int
    """The time that the routes of a restarting neighbour stay fresh, in s."""
    stale_s: int
    """The time that stale routes are kept, in s."""


@dataclass(frozen=True)
class Daemon:
    """The routing daemon of a host, and the properties of its version."""

    name: DaemonName
    """The daemon and its grammar."""
    system: System
    """The distribution that provides it."""
    package: str
    """Its package in the distribution; empty if no package is installed."""
    version: str
    """Its version in the distribution."""
    device_scan_s: int | None = None
    """The interval in s at which BIRD scans the interfaces, in addition to notifications of the kernel: short
    if the version notices some changes only by a scan. None for other daemons."""
    kernel_scan_s: int | None = None
    """The interval in s at which BIRD scans the kernel's tables. None for other daemons."""
    asks_for_authentication: bool = False
    """Whether the configuration needs the kind of authentication in addition to a key."""
    options: tuple[str, ...] = ()
    """Options for its command line."""
    bounds_restart: bool = False
    """Whether it can limit the time that the routes of a restarting neighbour are kept, if the neighbour asks
    for a longer time."""
    reading_socket: str | None = None
    """The declaration of a second, read-only control socket; none if the version has no such socket."""


@dataclass(frozen=True)
class Program:
    """A process of BIRD: BIRD 1.6 has one process per family, later versions have one for both."""

    name: Literal["bird", "bird6"]
    """The name of the program, of its unit, its configuration and its socket."""
    client: Literal["birdc", "birdc6"]
    """The client program for its control socket."""
    families: tuple[Family, ...]
    """The address families that it routes."""


@dataclass(frozen=True)
class Routing:
    """The configuration of this host's routing daemon, all of its programs together."""

    daemon: Daemon
    """The routing daemon."""
    programs: tuple[Program, ...]
    """The processes of a BIRD; empty for other daemons."""
    asn: int
    """The AS number."""
    router_id: str
    """The BGP identifier."""
    cluster_id: str | None
    """The identifier of a reflector's cluster; none elsewhere."""
    failure_profile: FailureProfile
    """The host's own failure profile."""
    failure_profiles: tuple[FailureProfile, ...]
    """The failure profiles of its sessions: a reflector has those of its clients."""
    timers: Timers
    """The timers."""
    ecmp_limit: int
    """The maximum number of next hops of a route."""
    rescans: bool
    """Whether BIRD needs a request to scan the kernel's tables whenever a route changes."""
    session_digests: tuple[str, ...]
    """A digest of the sessions of each path: the sessions restart when it changes. Empty if the daemon should
    not be restarted for such a change."""
    session_keys: tuple[str, ...]
    """The names of the secrets of its sessions, keys of C(l3hv_bgp_secrets)."""
    awaited_interfaces: tuple[str, ...]
    """The interfaces that must have their IPv6 address before the daemon starts."""
    advertises_on: tuple[str, ...]
    """The interfaces on which BIRD sends router advertisements, from which the neighbours learn the
    link-local address of this host."""
    tables: tuple[RoutingTable, ...]
    """The tables, one for each domain and family."""
    kernel_tables: tuple[int, ...]
    """The numbers of the kernel tables that ``tables`` are exported to."""
    multipath: tuple[Family, ...]
    """The families in which a route of the kernel may have several next hops."""
    communities: tuple[DomainCommunity, ...]
    """The communities that identify domains in shared sessions; empty without such sessions."""
    shared_tables: tuple[SharedTable, ...]
    """The tables between shared sessions and the tables of domains; empty without such sessions."""
    refusals: tuple[Refusal, ...]
    """The reasons to refuse routes of neighbours."""
    policies: tuple[ImportPolicy, ...]
    """The import policies, one for each table and kind of neighbours."""
    owners: tuple[PrefixOwner, ...]
    """The owners of prefixes, sorted by id; empty if no policy needs them."""
    sessions: tuple[Session, ...]
    """The sessions with named neighbours."""
    ranges: tuple[Session, ...]
    """The sessions that any host in the prefix C(neighbor) can open."""
    igp: tuple[IgpInstance, ...]
    """The instances of the IGP between hosts; empty without an IGP."""
    igp_tables: tuple[IgpTable, ...]
    """The BIRD tables of loopbacks; empty without an IGP."""
    path_neighbors: tuple[PathNeighbor, ...]
    """The addresses on the paths of the neighbours of its sessions; empty without an IGP."""
    monitoring_group: str | None
    """The system group whose members may read the daemon's state; none if only root may."""
    hops: int | None = None
    """The maximum number of hops to a neighbour; none if all neighbours are on the links of the paths."""
    next_hop_tables: tuple[NextHopTable, ...] = ()
    """The tables of next hops behind tunnels; empty without tunnels."""
    awaited_tunnels: tuple[str, ...] = ()
    """The tunnel devices that must exist before the daemon starts."""


@dataclass(frozen=True)
class Sysctl:
    """One kernel setting."""

    key: str
    """The setting's name as in sysctl.d(5): a slash stands for a dot in a name."""
    value: str
    """The setting's value."""
    why: str
    """The reason, printed above the setting."""


@dataclass(frozen=True)
class DropReason:
    """A reason to drop packets."""

    name: str
    """The name of the counter."""
    why: str
    """The packets that it counts."""
    logged: bool
    """Whether some of them are logged."""


@dataclass(frozen=True)
class FilteredDomain:
    """The interfaces that one domain's packets are forwarded between."""

    name: str
    """The domain's name."""
    interfaces: tuple[str, ...]
    """Its uplinks and guest ports."""
    open_interfaces: tuple[str, ...]
    """The interfaces that may send to ``open_guests`` without further conditions."""
    opens_all_interfaces: bool
    """Whether ``open_interfaces`` are all of ``interfaces``."""
    open_guests: tuple[str, ...]
    """The guest ports that ``open_interfaces`` may send to without further conditions."""
    pools4: tuple[str, ...]
    """The IPv4 prefixes of its pools, and its link-local gateways: its guests may send ARP requests for
    addresses in them."""


@dataclass(frozen=True)
class PrefixesOfLength:
    """Prefixes of one length, by their first addresses."""

    length: int
    """The length in bits."""
    mask: str
    """The netmask of this length."""
    addresses: tuple[str, ...]
    """The first address of each prefix."""


@dataclass(frozen=True)
class AnycastShare:
    """The anycast prefixes of one family that have the same number of holders.

    A flow has a hash from 0 to 65535 of its addresses and ports: flows below ``local`` stay on this host.
    """

    family: Family
    """The address family."""
    holders: int
    """The number of hypervisors that hold the prefixes, including this one."""
    local: int
    """The number of flows, of 65536, that stay on this host."""
    lengths: tuple[PrefixesOfLength, ...]
    """The prefixes by their length."""


@dataclass(frozen=True)
class AnycastDomain:
    """The marked packets of a domain's guests: packets to anycast guests of other hosts."""

    name: str
    """The domain's name."""
    mark: str
    """The bit, in hexadecimal, that is set in the mark of these packets."""
    guests: tuple[str, ...]
    """The guest ports of the domain."""
    shares: tuple[AnycastShare, ...]
    """The anycast prefixes by family and number of holders."""


@dataclass(frozen=True)
class PacketFilter:
    """The packets that pass the interfaces of the fabric on one host; other interfaces are not filtered.

    Pairs are (interface, address or prefix or MAC), triples (interface, MAC, address). They become sets, so
    the number of rules does not depend on their number.
    """

    uplinks: tuple[str, ...]
    """The interfaces of the paths."""
    igp: Igp | None
    """The IGP whose packets neighbours send; none without an IGP."""
    has_vrfs: bool
    """Whether each domain is a VRF with the domain's name, from which its packets arrive after routing."""
    closed_uplinks: tuple[str, ...]
    """The uplinks on which the host offers only routing, ICMP and neighbour discovery, except to the prefixes
    of ``fabric4``, ``fabric6``, ``management4`` and ``management6``."""
    neighbours4: tuple[tuple[str, str], ...]
    """Pairs of an uplink and the IPv4 prefix from which BGP and BFD are accepted."""
    neighbours6: tuple[tuple[str, str], ...]
    """The same for IPv6."""
    any_ttl4: tuple[tuple[str, str], ...]
    """Pairs of an uplink and an IPv4 neighbour whose packets of BGP may have any TTL."""
    any_ttl6: tuple[tuple[str, str], ...]
    """The same for IPv6."""
    fabric4: tuple[str, ...]
    """The IPv4 prefixes of paths and loopbacks."""
    fabric6: tuple[str, ...]
    """The same for IPv6."""
    management4: tuple[str, ...]
    """The IPv4 prefixes that may reach the host by closed uplinks."""
    management6: tuple[str, ...]
    """The same for IPv6."""
    domains: tuple[FilteredDomain, ...]
    """The domains whose packets the host forwards."""
    guests: tuple[str, ...]
    """The guest ports."""
    macs: tuple[tuple[str, str], ...]
    """Pairs of a guest port and the guest's MAC."""
    sources4: tuple[tuple[str, str], ...]
    """Pairs of a guest port and a single IPv4 address that the guest may send with."""
    source_prefixes4: tuple[tuple[str, str], ...]
    """Pairs of a guest port and another IPv4 prefix that the guest may send with."""
    sources6: tuple[tuple[str, str], ...]
    """Pairs of a guest port and a single IPv6 address that the guest may send with."""
    senders4: tuple[tuple[str, str, str], ...]
    """The entries of ``sources4`` with the guest's MAC: one look-up accepts nearly all packets of guests."""
    sender_networks6: tuple[tuple[str, str, str], ...]
    """Lists of a guest port, the guest's MAC and the first address of a /64 that the guest may send with."""
    source_prefixes6: tuple[tuple[str, str], ...]
    """Pairs of a guest port and an IPv6 prefix of another length that the guest may send with."""
    gateways4: tuple[tuple[str, str], ...]
    """Pairs of a guest port and the IPv4 address of the guest's gateway."""
    probers4: tuple[tuple[str, str], ...]
    """Pairs of a guest port and the guest's main address, to which the answer to its ARP probes is sent."""
    on_link6: tuple[str, ...]
    """The guest ports that may have any number of IPv6 neighbours."""
    isolated: tuple[str, ...]
    """The guest ports that exchange no packets with other guests of the host."""
    restricted: tuple[str, ...]
    """The guest ports that only the sources of ``allowed4`` and ``allowed6`` may send to."""
    allowed4: tuple[tuple[str, str], ...]
    """Pairs of a restricted guest port and an IPv4 prefix that may send to it."""
    allowed6: tuple[tuple[str, str], ...]
    """The same for IPv6."""
    transparent: tuple[tuple[str, str], ...]
    """Pairs of an additional IPv4 address and the main address that it is translated to."""
    tracked4: tuple[str, ...]
    """The IPv4 addresses of the connections that have to be tracked for the translation."""
    anycast: tuple[AnycastDomain, ...]
    """The domains whose anycast is spread over all its holders."""
    reasons: tuple[DropReason, ...]
    """The reasons to drop IP packets."""
    arp_reasons: tuple[DropReason, ...]
    """The reasons to drop ARP."""
    least_ttl: int = 255
    """The least TTL of packets of BGP: 255 if all neighbours are on the link (RFC 5082)."""
    outer4: tuple[tuple[str, str, str], ...] = ()
    """Triples of an uplink, the host's IPv4 address there, and the prefix from which tunnelled packets are
    accepted (IPv4 in IPv4)."""
    outer6: tuple[tuple[str, str, str], ...] = ()
    """The same for IPv6 in IPv6."""


@dataclass(frozen=True)
class HostPlan:
    """The complete plan of one host."""

    host: str
    """The host's name."""
    kind: Kind
    """The kind of the host."""
    id: int
    """The host's number in the prefixes of the paths."""
    fabric: str
    """The fabric's name."""
    forwards: bool
    """Whether the host forwards packets: not if it only reflects routes."""
    main_default_route: bool
    """Whether the management network has a default route in the table main."""
    vrfs: tuple[Vrf, ...]
    """The VRFs, one for each domain; none if policy rules keep the domains apart."""
    nics: tuple[Nic, ...]
    """The physical interfaces that carry VLANs."""
    uplinks: tuple[Uplink, ...]
    """The interfaces on the paths."""
    loopbacks: tuple[LoopbackAddress, ...]
    """The addresses on C(lo)."""
    table_names: tuple[TableName, ...]
    """The names of kernel routing tables."""
    rules: tuple[Rule, ...]
    """The policy rules."""
    last_resorts: tuple[LastResort, ...]
    """The routes that end the tables."""
    sysctls: tuple[Sysctl, ...]
    """The kernel settings."""
    guests: tuple[GuestPlan, ...]
    """The guests and their ports."""
    dhcp_pools: tuple[DhcpPool, ...]
    """The subnets from which DHCP offers addresses."""
    guest_services: GuestServices
    """The services that the guests need."""
    dhcp_server: DhcpServer | None
    """The DHCP server for guests of other hosts; none on most hosts."""
    packet_filter: PacketFilter
    """The packets that pass the interfaces of the fabric."""
    routing: Routing
    """The configuration of the routing daemon."""
    tunnels: tuple[Tunnel, ...] = ()
    """The tunnel devices to other hosts of the paths; none if these share an L2 network."""
    warnings: tuple[str, ...] = field(default=())
    """Sentences about an intent that works, but probably not as intended."""
    managed: bool = True
    """Whether this inventory manages the host. The roles do not change an unmanaged host, but other hosts
    have sessions with it."""
    after_clients: bool = False
    """Whether a reflector is changed after hypervisors and edge routers: if both ends of sessions must change
    together, then only one path at a time is down."""

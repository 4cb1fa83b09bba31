"""What each host becomes: the plan of one host from its slice of the intent, the topology from all hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from l3hv.addressing import FAMILIES, HOST_LENGTH, family_of_text, first_host, numbered
from l3hv.communities import domain_communities
from l3hv.daemons import (
    DAEMONS,
    OVERLOOKING,
    REFLECTORS_ONLY,
    SLEEPY,
    TITLES,
    WITH_OWNERS,
    WITHOUT_BFD,
    programs,
)
from l3hv.errors import natural_key
from l3hv.facts import Common, GuestIntent, HostIntent, HostSlice, UplinkIntent
from l3hv.filtering import packet_filter
from l3hv.kernel import last_resorts, sysctls, table_names
from l3hv.model import (
    HostPlan,
    LoopbackAddress,
    Nic,
    Routing,
    Uplink,
    UplinkAddress,
    Vlan,
    from_plain,
)
from l3hv.policy import import_policies, preferred_source, refusals, routing_tables, shared_tables
from l3hv.ports import dhcp_pools, guests
from l3hv.rules import policy_rules
from l3hv.sessions import (
    BFD_PROFILES,
    FAILURE_PROFILES,
    LLGR_PROFILES,
    anybody,
    failure_profile,
    ranges,
    router_id,
    session_shapes,
    sessions,
)
from l3hv.spread import spreads
from l3hv.topology import GuestPort, Machine, Port, Topology

NAMES_OF_LIBVIRT = ("vnet", "vif", "macvtap", "macvlan")
"""Prefixes of the names that libvirt gives itself: it drops one that was asked for."""

VLAN_QOS_MAPS = ("6-6", "7-7")
"""Priorities that VLANs keep, inward and outward: routing protocols and BFD (6), network control (7)."""


def host_plan(slice_: Mapping[str, Any]) -> HostPlan:
    """Return the plan of the host whose slice (:func:`l3hv.intent.host_slice`) this is.

    Raises ValueError for anything else: a slice was checked when it was made, and is not checked again.
    """
    try:
        part = from_plain(HostSlice, slice_)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"This is no slice of an intent as l3hv_intent writes it ({error!r}): plan the fabric first."
        ) from error
    common, host = part.common, part.host
    daemon = DAEMONS[host.settings.daemon, host.settings.system]
    loopbacks = tuple(_loopbacks(common, host))
    ports = guests(common, host, preferred_source(common, (lo for lo in loopbacks if lo.announced)))
    identity = router_id(common, host)
    own = sessions(common, host, part.peers, part.largest)
    open_to_all = ranges(common, host, part.largest)
    profiles = {session.failure_profile for session in (*own, *open_to_all)}
    spread = spreads(common, host, dict(part.holders))
    tables = routing_tables(common, host, loopbacks, ports, spread)
    policies = import_policies(part, (*own, *open_to_all))
    is_shared = any(session.layout == "shared" for session in (*own, *open_to_all))
    return HostPlan(
        host=host.name,
        kind=host.kind,
        id=host.id,
        fabric=common.fabric,
        main_default_route=host.settings.main_default_route,
        nics=tuple(_nics(host)),
        uplinks=tuple(_uplink(common, host, uplink) for uplink in host.uplinks),
        loopbacks=loopbacks,
        table_names=table_names(common, host, spread),
        rules=policy_rules(common, host, spread),
        last_resorts=last_resorts(common, host),
        sysctls=sysctls(common, host),
        guests=ports,
        dhcp_pools=dhcp_pools(common, ports),
        packet_filter=packet_filter(common, host, ports, spread, own),
        routing=Routing(
            daemon=daemon,
            programs=programs(host.settings.daemon, (table.family for table in tables)),
            asn=common.asn,
            router_id=identity,
            cluster_id=identity if host.kind == "route_reflector" else None,
            failure_profile=host.settings.failure_profile,
            failure_profiles=tuple(profile for profile in FAILURE_PROFILES if profile in profiles),
            timers=host.settings.timers,
            ecmp_limit=host.settings.ecmp_limit,
            rescans=daemon.version in OVERLOOKING and any(table.kernel_table is not None for table in tables),
            session_shapes=session_shapes(own, host.settings.timers, daemon),
            session_keys=tuple(sorted({session.key for session in own if session.key is not None})),
            awaited_interfaces=tuple(_awaited_interfaces(common, host)),
            tables=tables,
            communities=domain_communities(common, host.domains) if is_shared else (),
            shared_tables=shared_tables(host, tables) if is_shared else (),
            refusals=refusals(policies, is_shared=is_shared),
            policies=policies,
            owners=part.owners if host.settings.daemon in WITH_OWNERS else (),
            sessions=own,
            ranges=open_to_all,
            monitoring_group=host.settings.monitoring_group,
        ),
        warnings=tuple(_warnings(part)),
        managed=host.settings.managed,
        after_clients=host.kind == "route_reflector" and host.uplinks[0].path != common.paths[0],
    )


def _nics(host: HostIntent) -> Iterator[Nic]:
    """Yield the NICs that carry VLANs, unless somebody else makes the VLAN interfaces."""
    if host.settings.vlan_interfaces == "external":
        return
    vlans: dict[str, list[str]] = {}
    for uplink in host.uplinks:
        if uplink.nic is not None:
            vlans.setdefault(uplink.nic, []).append(uplink.interface)
    for nic, interfaces in vlans.items():
        yield Nic(nic, host.settings.mtu, tuple(interfaces))


def _uplink(common: Common, host: HostIntent, uplink: UplinkIntent) -> Uplink:
    vlan = None
    vlan_id = common.domain(uplink.domain).vlan
    if uplink.nic is not None and vlan_id is not None and host.settings.vlan_interfaces == "kernel":
        vlan = Vlan(uplink.nic, vlan_id, VLAN_QOS_MAPS)
    networks = (common.network(uplink.path, uplink.domain, family) for family in FAMILIES)
    return Uplink(
        interface=uplink.interface,
        path=uplink.path,
        domain=uplink.domain,
        mtu=host.settings.mtu,
        vlan=vlan,
        addresses=tuple(
            UplinkAddress(
                network.family,
                host.address_in(network),
                network.prefix.prefixlen,
                str(network.prefix),
            )
            for network in networks
            if network is not None
        ),
    )


def _awaited_interfaces(common: Common, host: HostIntent) -> Iterator[str]:
    """Yield where next hops of IPv6 are reached: a daemon judges them once, by its own address."""
    for uplink in host.uplinks:
        if common.network(uplink.path, uplink.domain, "ipv6") is not None:
            yield uplink.interface


def _loopbacks(common: Common, host: HostIntent) -> Iterator[LoopbackAddress]:
    if host.kind == "hypervisor":
        for domain in common.domains:
            for family in domain.families:
                prefix = domain.loopback(family)
                if prefix is not None and domain.name in host.domains:
                    own = str(numbered(prefix, host.id))
                    yield LoopbackAddress(family, own, HOST_LENGTH[family], domain.name, announced=True)
    for address in host.addresses:
        family = family_of_text(address)
        yield LoopbackAddress(family, address, HOST_LENGTH[family], common.public.name, announced=False)


def _warnings(part: HostSlice) -> Iterator[str]:
    """Yield what works, but probably not as meant."""
    common, host = part.common, part.host
    for domain in common.domains:
        if domain.name not in host.domains:
            continue
        used = {uplink.path for uplink in host.uplinks if uplink.domain == domain.name}
        for path in sorted(used, key=natural_key):
            for family in domain.families:
                if common.network(path, domain.name, family) is None:
                    yield f"path {path} does not carry {family} of {domain.name}"
        if host.kind != "route_reflector" and len(used) == 1 < len(common.paths):
            yield f"{domain.name} hangs on path {used.pop()} alone"
    yield from _renamed_by_libvirt(host)
    yield from _without_bfd(part)
    yield from _unbounded(part)
    daemon = DAEMONS[host.settings.daemon, host.settings.system]
    profiles = {failure_profile(host, peer) for peer in (*part.peers, *anybody(host))}
    reflects_by_frr = daemon.name == "frr" and host.kind == "route_reflector"
    if reflects_by_frr and "bfd_llgr" in profiles:
        yield (
            "FRR withdraws the routes of a client that BFD has lost; as a last resort it keeps only those of "
            "a daemon that is gone: let BIRD reflect on another path"
        )
    if reflects_by_frr and "link" in profiles:
        yield (
            "FRR does not watch its own carrier: where it goes, clients with the profile link are lost after "
            f"the hold time of {host.settings.timers.hold_s} s"
        )
    if reflects_by_frr and "graceful_restart" in profiles and not profiles.isdisjoint(LLGR_PROFILES):
        yield (
            "FRR has one restart time for all its clients, 0 s for those with bfd_llgr or llgr: "
            "those with graceful_restart lose the routes of this path while it restarts"
        )
    if daemon.version in SLEEPY and daemon.device_scan_s is not None and "bfd_llgr" in profiles:
        yield (
            f"BIRD {daemon.version} may need {2 * daemon.device_scan_s} s more than BFD to leave a path; "
            "2.14 and later do not, nor does the profile bfd"
        )


def _unbounded(part: HostSlice) -> Iterator[str]:
    """Yield which neighbours of others could keep their routes here although they are gone."""
    daemon = DAEMONS[part.host.settings.daemon, part.host.settings.system]
    if (
        part.host.settings.daemon in REFLECTORS_ONLY
        or daemon.bounds_restart
        or not part.host.settings.managed
    ):
        return
    for peer in part.peers:
        if not peer.managed and failure_profile(part.host, peer) in LLGR_PROFILES:
            host = part.host.name if part.host.kind != "route_reflector" else peer.name
            yield (
                f"BIRD {daemon.version} keeps the routes of {peer.name} (path {peer.path}) for the restart "
                f"time that {peer.name} asks for, if it has no long-lived graceful restart: write "
                f"l3hv_failure_profile: bfd for {host}, or use BIRD 2.17 or later"
            )


def _renamed_by_libvirt(host: HostIntent) -> Iterator[str]:
    """Yield the ports whose names libvirt replaces (``virDomainNetDefParseXML``): they would never appear."""
    named = [
        f"{guest.interface} ({guest.name})"
        for guest in host.guests
        if guest.interface.startswith(NAMES_OF_LIBVIRT)
    ]
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        yield (
            f"libvirt replaces interface names that begin with {', '.join(NAMES_OF_LIBVIRT)}: "
            f"choose others for {', '.join(named[:3])}{more}"
        )


def _without_bfd(part: HostSlice) -> Iterator[str]:
    """Yield what it costs that a reflector has no BFD: the wish for it is what makes the difference."""
    host, timers = part.host, part.host.settings.timers
    if host.settings.daemon in WITHOUT_BFD:
        title = TITLES[host.settings.daemon]
        if any(peer.failure_profile in BFD_PROFILES for peer in part.peers):
            yield f"{title} has no BFD: a neighbour that is gone shows by the hold time of {timers.hold_s} s"
    elif host.settings.failure_profile in BFD_PROFILES:
        for peer in part.peers:
            if peer.daemon in WITHOUT_BFD:
                yield (
                    f"{peer.name} has no BFD ({TITLES[peer.daemon]}): that path {peer.path} is dead "
                    "shows by its carrier, or by the shorter hold time of the two"
                )


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
        Port(uplink.interface, uplink.path, uplink.domain, host.settings.mtu) for uplink in host.uplinks
    )
    settings = host.settings
    return Machine(host.name, host.kind, settings.system, ports, settings.daemon, settings.managed)


def _guest_port(host: HostIntent, guest: GuestIntent) -> GuestPort:
    routed = (ip_network(prefix) for prefix in guest.addresses + guest.subnets + guest.anycast)
    return GuestPort(
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

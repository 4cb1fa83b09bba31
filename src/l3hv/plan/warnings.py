"""Warnings about an intent that works, but probably not as intended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from l3hv.model.addressing import is_inside
from l3hv.model.choices import FailureProfile
from l3hv.model.daemons import DAEMONS, REFLECTORS_ONLY, TITLES, WITH_LATE_TIMERS, WITHOUT_BFD
from l3hv.model.intent import HostIntent, HostSlice, Peer
from l3hv.model.profiles import BFD_PROFILES, LLGR_PROFILES
from l3hv.model.text import first_of, natural_key
from l3hv.plan.sessions import any_client, failure_profile
from l3hv.plan.tables import dhcp_server_routes

MOST_NAMED = 3
"""Maximum number of names in a list."""

LARGE_MESH = 50
"""The largest number of hypervisors in a mesh without a warning: its sessions grow with the square."""

NAMES_OF_LIBVIRT = ("vnet", "vif", "macvtap", "macvlan")
"""Prefixes of names that libvirt generates itself: it replaces a requested name that begins with one."""


def warnings(host_slice: HostSlice) -> tuple[str, ...]:
    """Return sentences about an intent that works, but probably not as intended."""
    return (
        *_missing_paths(host_slice),
        *_different_mtus(host_slice),
        *_renamed_by_libvirt(host_slice.host),
        *_without_bfd(host_slice),
        *_unbounded_restart(host_slice),
        *_frr_as_reflector(host_slice),
        *_late_bird(host_slice),
        *_server_without_relays(host_slice),
        *_server_without_route(host_slice),
        *_large_mesh(host_slice),
        *_without_block(host_slice),
    )


def _large_mesh(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning of a mesh in which each new host costs all others a session on each path."""
    if not host_slice.common.is_mesh:
        return
    others = {peer.name for peer in host_slice.peers if peer.kind == "hypervisor"}
    if _is_first_hypervisor(host_slice.host, host_slice.peers) and len(others) >= LARGE_MESH:
        yield (
            f"the mesh has {1 + len(others)} hypervisors, and each of them has sessions with all others: "
            "set l3hv_reflection: reflectors, and add a reflector to each path"
        )


def _is_first_hypervisor(host: HostIntent, peers: Iterable[Peer]) -> bool:
    """Tell whether the host is the hypervisor with the lowest id: one host of a mesh warns for all."""
    others = (peer.id for peer in peers if peer.kind == "hypervisor")
    return host.kind == "hypervisor" and all(host.id < number for number in others)


def _without_block(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning of each pool in which a hypervisor has guests, but no block."""
    common, host = host_slice.common, host_slice.host
    if common.announce != "blocks":
        return
    blocks = [ip_network(block) for block in host.blocks]
    for pool in common.pools:
        has_block = any(is_inside(block, whole) for block in blocks for whole in pool.prefixes)
        if not has_block and any(guest.pool == pool.name for guest in host.guests):
            yield (
                f"no block of the pool {pool.name} belongs to this host, so each of its guests there is "
                "advertised by itself: list a block in l3hv_blocks"
            )


def _server_without_route(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning of a DHCP server that hypervisors reach by the default route only."""
    common, host = host_slice.common, host_slice.host
    address = host.settings.serves_dhcp_at
    domains = [common.domain(name) for name in host.edge_domains]
    if address is not None and not any(dhcp_server_routes(host, domain) for domain in domains):
        name = domains[0].name if domains else common.public.name
        yield (
            f"hypervisors reach {address} by the default route, which leads to any edge router of {name}: "
            f"add {address}/32 to l3hv_domains.{name}.accept"
        )


def _server_without_relays(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning of a DHCP server that no hypervisor relays to."""
    address = host_slice.host.settings.serves_dhcp_at
    if address is not None and not host_slice.relays:
        yield f"no hypervisor relays DHCP to {address}: set l3hv_dhcp: relay and l3hv_dhcp_servers on them"


def _missing_paths(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning for each family that a path lacks, and for each domain that depends on one path."""
    common, host = host_slice.common, host_slice.host
    for domain in common.domains:
        if domain.name not in host.domains:
            continue
        used = {uplink.path for uplink in host.uplinks if uplink.domain == domain.name}
        for path in sorted(used, key=natural_key):
            for family in domain.families:
                if common.network(path, domain.name, family) is None:
                    yield f"path {path} does not carry {family} of {domain.name}"
        if host.kind != "route_reflector" and len(used) == 1 < len(common.paths):
            yield f"{domain.name} depends on path {used.pop()} alone"


def _different_mtus(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning of a reflector, or of the first hypervisor of a mesh, for hosts with different MTUs.

    The MTUs of unmanaged routers are not known.
    """
    host = host_slice.host
    is_reflector, is_mesh = host.kind == "route_reflector", host_slice.common.is_mesh
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        on_path = [peer for peer in host_slice.peers if peer.path == path]
        if not is_reflector and not (is_mesh and _is_first_hypervisor(host, on_path)):
            continue
        names: dict[int, list[str]] = {} if is_reflector else {host.settings.mtu: [host.name]}
        for peer in on_path:
            if peer.kind != "route_reflector" and peer.managed:
                names.setdefault(peer.mtu, []).append(peer.name)
        if len(names) < 2:
            continue
        listed = "; ".join(f"{mtu}: {first_of(names[mtu], MOST_NAMED)}" for mtu in sorted(names))
        yield (
            f"the hosts on path {path} have different MTUs ({listed}): packets above {min(names)} bytes "
            "between them can be lost, so set the same l3hv_mtu"
        )


def _failure_profiles(host_slice: HostSlice) -> set[FailureProfile]:
    return {
        failure_profile(host_slice.host, peer) for peer in (*host_slice.peers, *any_client(host_slice.host))
    }


def _frr_as_reflector(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning for each limit of FRR 8 and 10 that affects the clients of a reflector."""
    if host_slice.host.settings.daemon != "frr" or host_slice.host.kind != "route_reflector":
        return
    profiles = _failure_profiles(host_slice)
    if "bfd_llgr" in profiles:
        yield (
            "FRR withdraws the routes of a client when BFD detects a failure; it keeps stale routes only "
            "when the client's daemon ends: use BIRD as reflector of another path"
        )
    if "link" in profiles:
        yield (
            "FRR does not watch its own carrier: when it is lost, sessions of clients with the profile link "
            f"end only after the hold time of {host_slice.host.settings.timers.hold_s} s"
        )
    if "graceful_restart" in profiles and not profiles.isdisjoint(LLGR_PROFILES):
        yield (
            "FRR has one restart time for all clients. Clients with bfd_llgr or llgr need 0 s, so clients "
            "with graceful_restart lose the routes of this path while FRR restarts"
        )


def _late_bird(host_slice: HostSlice) -> Iterator[str]:
    daemon = DAEMONS[host_slice.host.settings.daemon, host_slice.host.settings.system]
    if daemon.version not in WITH_LATE_TIMERS or daemon.device_scan_s is None:
        return
    if "bfd_llgr" in _failure_profiles(host_slice):
        yield (
            f"BIRD {daemon.version} may need {2 * daemon.device_scan_s} s more than BFD to leave a dead "
            "path; use BIRD 2.14 or later, or the profile bfd"
        )


def _unbounded_restart(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning for each unmanaged neighbour that chooses how long this host keeps its routes."""
    daemon = DAEMONS[host_slice.host.settings.daemon, host_slice.host.settings.system]
    if (
        host_slice.host.settings.daemon in REFLECTORS_ONLY
        or daemon.bounds_restart
        or not host_slice.host.settings.managed
    ):
        return
    for peer in host_slice.peers:
        if not peer.managed and failure_profile(host_slice.host, peer) in LLGR_PROFILES:
            host = host_slice.host.name if host_slice.host.kind != "route_reflector" else peer.name
            yield (
                f"BIRD {daemon.version} keeps the routes of {peer.name} (path {peer.path}) for the restart "
                f"time that {peer.name} asks for, if {peer.name} has no long-lived graceful restart: set "
                f"l3hv_failure_profile: bfd for {host}, or use BIRD 2.17 or later"
            )


def _renamed_by_libvirt(host: HostIntent) -> Iterator[str]:
    """Yield a warning for port names that libvirt replaces: no interface gets them.

    The function is ``virDomainNetDefParseXML`` of libvirt.
    """
    named = [
        f"{guest.interface} ({guest.name})"
        for guest in host.guests
        if guest.interface.startswith(NAMES_OF_LIBVIRT)
    ]
    if named:
        yield (
            f"libvirt replaces interface names that begin with {', '.join(NAMES_OF_LIBVIRT)}: "
            f"choose other names for {first_of(named, MOST_NAMED)}"
        )


def _without_bfd(host_slice: HostSlice) -> Iterator[str]:
    """Yield a warning for a reflector without BFD, if a host or client has a profile with BFD."""
    host, timers = host_slice.host, host_slice.host.settings.timers
    if host.settings.daemon in WITHOUT_BFD:
        title = TITLES[host.settings.daemon]
        peers = (*host_slice.peers, *any_client(host))
        if any(peer.failure_profile in BFD_PROFILES for peer in peers):
            yield f"{title} has no BFD: it detects a lost neighbour by the hold time of {timers.hold_s} s"
    elif host.settings.failure_profile in BFD_PROFILES:
        for peer in host_slice.peers:
            if peer.daemon in WITHOUT_BFD:
                yield (
                    f"{peer.name} has no BFD ({TITLES[peer.daemon]}): only the carrier or the shorter hold "
                    f"time of the two detects that path {peer.path} is dead"
                )

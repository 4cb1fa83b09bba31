"""The kernel settings (sysctls) of a host."""

from __future__ import annotations

from collections.abc import Iterator

from l3hv.model.addressing import FAMILIES, numbers_of
from l3hv.model.choices import Family
from l3hv.model.intent import Common, HostIntent
from l3hv.model.plan import Sysctl
from l3hv.plan.tunnels import tunnels

LEAST_NEIGHBORS = 1024
"""Minimum size of a neighbour table: a smaller one overflows in a fabric of the intended size."""

MOST_NEIGHBORS_OF_UPLINK = 4096
"""Maximum number of neighbours of an uplink: its prefix may be a /64, but an L2 path has fewer machines."""

NEIGHBORS_OF_GUEST = 8
"""Entries per guest and family: its own addresses, and unanswered requests for additional ones."""


def sysctls(common: Common, host: HostIntent) -> tuple[Sysctl, ...]:
    """Return the settings of a host; those of guest ports also apply to interfaces that appear later."""
    everywhere = (*_answers(host), *_neighbor_tables(common, host))
    if host.kind == "route_reflector":
        return everywhere
    vrfs = _sockets_of_vrfs() if host.uses_vrfs else ()
    return (*_routing(), *vrfs, *everywhere, *_ports(host), *_uplinks(common, host), *_tunnels(common, host))


def _sockets_of_vrfs() -> Iterator[Sysctl]:
    """Yield the settings with which sockets outside of VRFs get the packets of VRFs, as without VRFs.

    dnsmasq and sshd bind no socket to a VRF.
    """
    for protocol in ("tcp", "udp"):
        yield Sysctl(f"net.ipv4.{protocol}_l3mdev_accept", "1", "daemons of this host serve all VRFs")


def _routing() -> Iterator[Sysctl]:
    yield Sysctl(
        "net.ipv6.conf.all.forwarding",
        "1",
        "this host is a router; in IPv6 forwarding is a setting of the host",
    )
    ports = "include ports in the hash: otherwise all flows between two hosts would share one path"
    yield Sysctl("net.ipv4.fib_multipath_hash_policy", "1", ports)
    yield Sysctl("net.ipv6.fib_multipath_hash_policy", "1", ports)
    yield Sysctl(
        "net.ipv4.icmp_errors_use_inbound_ifaddr",
        "1",
        "traceroute shows the interface that the packet arrived on",
    )
    yield Sysctl(
        "net.ipv4.conf.all.rp_filter",
        "0",
        "the kernel uses the stricter value of this setting and the interface's",
    )
    yield Sysctl(
        "net.ipv4.conf.all.send_redirects",
        "0",
        "guests reach each other through this router, so it sends no redirects",
    )
    yield Sysctl("net.ipv4.conf.all.accept_redirects", "0", "routes come from BGP only")
    yield Sysctl("net.ipv6.conf.all.accept_redirects", "0", "routes come from BGP only")
    yield Sysctl(
        "net.ipv6.route.max_size", "2147483647", "Linux before 6.3 limits cached routes to 4096 by default"
    )
    # The kernel accepts source routes only if both this setting and the interface's own are on.
    source_routes = "ignore source routes of senders; 0 here overrides the interfaces' values"
    yield Sysctl("net.ipv4.conf.all.accept_source_route", "0", source_routes)
    yield Sysctl("net.ipv6.conf.all.accept_source_route", "0", source_routes)
    # The defaults of Linux; older versions had 1000 for icmp.ratelimit.
    errors = "minimum time in ms between two ICMP errors to one address; traceroute needs errors"
    yield Sysctl("net.ipv4.icmp_ratelimit", "1000", errors)
    yield Sysctl("net.ipv6.icmp.ratelimit", "100", errors)
    limited = "the ICMP types with that limit: errors, but not echo replies"
    yield Sysctl("net.ipv4.icmp_ratemask", "6168", limited)
    yield Sysctl("net.ipv6.icmp.ratemask", "0-1,3-127", limited)


_ARP_ANSWERS = (
    ("arp_ignore", "with 2 the host answers only senders in a prefix of the interface, with 8 none"),
    ("arp_filter", "1 would not answer a sender whose address is routed by another interface"),
)


def _answers(host: HostIntent) -> Iterator[Sysctl]:
    """Yield the settings for answers to ARP and pings on gateways and paths, which hardening tools change."""
    for setting, why in _ARP_ANSWERS:
        yield Sysctl(f"net.ipv4.conf.all.{setting}", "0", why)
        for uplink in host.uplinks:
            yield Sysctl(f"net.ipv4.conf.{_sysctl_name(uplink.interface)}.{setting}", "0", why)
    pings = "answer pings: guests ping their gateway, and machines of the fabric ping each other on each path"
    yield Sysctl("net.ipv4.icmp_echo_ignore_all", "0", pings)
    yield Sysctl("net.ipv6.icmp.echo_ignore_all", "0", pings)


def _neighbor_tables(common: Common, host: HostIntent) -> Iterator[Sysctl]:
    why = "number of neighbour entries that are never removed: for hosts on the paths and for guests"
    for family in FAMILIES:
        least = neighbors(common, host, family)
        key = f"net.{family}.neigh.default.gc_thresh"
        yield Sysctl(f"{key}1", str(least), why)
        yield Sysctl(f"{key}2", str(2 * least), "above this number, entries are removed after 5 s")
        yield Sysctl(f"{key}3", str(4 * least), "maximum number of entries")


def neighbors(common: Common, host: HostIntent, family: Family) -> int:
    """Return the number of neighbours that the host must be able to keep, as a power of two.

    It is the number of host addresses on the paths (at most :data:`MOST_NEIGHBORS_OF_UPLINK` each) plus
    :data:`NEIGHBORS_OF_GUEST` for each guest, and at least :data:`LEAST_NEIGHBORS`.  The kernel's defaults
    (128, 512, 1024) are for the whole machine and overflow with a few hundred guests.
    """
    count = NEIGHBORS_OF_GUEST * len(host.guests)
    for uplink in host.uplinks:
        network = common.network(uplink.path, uplink.domain, family)
        if network is not None:
            # len() of a range fails beyond 2^63.
            numbers = numbers_of(network.prefix)
            count += min(numbers.stop - numbers.start, MOST_NEIGHBORS_OF_UPLINK)
    return 1 << (max(count, LEAST_NEIGHBORS) - 1).bit_length()


_PORT_SETTINGS = (
    ("net.ipv4.conf.{}.rp_filter", "1", "accept only the guest's own source addresses"),
    ("net.ipv4.conf.{}.send_redirects", "0", "guests must send to the gateway, not to each other's MAC"),
    ("net.ipv4.conf.{}.accept_redirects", "0", "guests must not change the routes of this host"),
    ("net.ipv6.conf.{}.accept_redirects", "0", "guests must not change the routes of this host"),
    (
        "net.ipv4.conf.{}.arp_announce",
        "2",
        "ARP requests to guests come from the gateway, not from the hypervisor's loopback",
    ),
    *((f"net.ipv4.conf.{{}}.{setting}", "0", why) for setting, why in _ARP_ANSWERS),
    ("net.ipv4.neigh.{}.proxy_delay", "0", "proxy ARP answers at once instead of after up to 0.8 s"),
)

_FORWARDING = ("net.ipv4.conf.{}.forwarding", "1", "forward the packets of guests")
"""A setting that systemd-networkd itself makes for each interface, from version 256 on."""


def _ports(host: HostIntent) -> Iterator[Sysctl]:
    """Yield the settings of guest ports twice: as defaults, which apply once a port appears, and by name.

    Settings by name are for ports that exist already, and for settings without a default in a container
    (``neigh``).  When an interface appears, udev lets systemd-sysctl apply the settings with its name.
    """
    if host.kind != "hypervisor":
        return
    settings = _PORT_SETTINGS if host.settings.system != "debian12" else (*_PORT_SETTINGS, _FORWARDING)
    for name in ("default", *(_sysctl_name(guest.interface) for guest in host.guests)):
        for key, value, why in settings:
            yield Sysctl(key.format(name), value, why)


def _sysctl_name(interface: str) -> str:
    """Return an interface's name as a part of a key, in which a slash stands for a dot (sysctl.d(5))."""
    return interface.replace(".", "/")


def _uplinks(common: Common, host: HostIntent) -> Iterator[Sysctl]:
    for uplink in host.uplinks:
        interface = _sysctl_name(uplink.interface)
        for setting, value, why in (
            ("forwarding", "1", f"forward packets from path {uplink.path} of {uplink.domain}"),
            ("rp_filter", "0", "answers may arrive by another path"),
            ("send_redirects", "0", "traffic may leave by the interface it came from when a path fails"),
            ("arp_announce", "2", "ARP requests come from our address on the path, not from our loopback"),
        ):
            yield Sysctl(f"net.ipv4.conf.{interface}.{setting}", value, why)
        if common.has_igp:
            why = "neighbour solicitations for the loopback are answered at once instead of after up to 0.8 s"
            yield Sysctl(f"net.ipv6.neigh.{interface}.proxy_delay", "0", why)


def _tunnels(common: Common, host: HostIntent) -> Iterator[Sysctl]:
    for tunnel in tunnels(common, host):
        if tunnel.family == "ipv4":
            interface = _sysctl_name(tunnel.interface)
            why = f"forward packets from the tunnels on path {tunnel.path} of {tunnel.domain}"
            yield Sysctl(f"net.ipv4.conf.{interface}.forwarding", "1", why)
            why = "answers may arrive by another path"
            yield Sysctl(f"net.ipv4.conf.{interface}.rp_filter", "0", why)
            why = "traffic may leave by the tunnel that it came from when a path fails"
            yield Sysctl(f"net.ipv4.conf.{interface}.send_redirects", "0", why)

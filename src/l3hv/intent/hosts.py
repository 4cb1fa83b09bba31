"""The facts of one host: read, then checked against each other and against the facts of the fabric."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Address
from typing import Any, Literal

from l3hv.intent import igp
from l3hv.intent.blocks import blocks_of
from l3hv.intent.claims import guest_claims
from l3hv.intent.encapsulation import (
    check_encapsulation,
    outer_header,
    read_routers,
    read_tunnel_names,
    resolved_routers,
    resolved_tunnel_names,
)
from l3hv.intent.fabric import COMMON_KEYS, LEAST_IPV6_MTU, OPTION_BYTES, mtu, path_name
from l3hv.intent.guests import (
    LONGEST_INTERFACE,
    GuestVariables,
    HostOfGuests,
    interface_name,
    read_guests,
    reference,
    resolve_guests,
)
from l3hv.intent.links import (
    check_links_of_host,
    host_asn,
    private_asn,
    read_links,
    resolve_links,
)
from l3hv.intent.shape import (
    Fields,
    Notes,
    OneOf,
    Text,
    Unfit,
    WholeNumber,
    address,
    address_or_network,
    ipv4_address,
    ipv6_address,
    network,
    shown,
    unicast_ipv4,
    yes_or_no,
)
from l3hv.model.addressing import (
    FAMILIES,
    Address,
    family_of,
    family_of_text,
    is_covered,
    is_inside,
    numbers_of,
)
from l3hv.model.choices import (
    KINDS,
    SWITCHES,
    Anycast,
    DaemonName,
    DataPlane,
    Dhcp,
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
from l3hv.model.daemons import (
    DAEMONS,
    PER_FAMILY,
    REFLECTORS_ONLY,
    SYSTEM_NAMES,
    TITLES,
    VALIDATING,
    WITHOUT_BFD,
    WITHOUT_RANGES,
    WITHOUT_SINGLE_BFD_MISS,
    supported_daemons,
    systems_with,
)
from l3hv.model.errors import Problem
from l3hv.model.intent import (
    Common,
    Domain,
    HostIntent,
    PathAddress,
    PathNetwork,
    Settings,
    UplinkIntent,
    declared_address,
)
from l3hv.model.names import LONGEST_SYMBOL, VRF_RULE_PRIORITY, bird_symbol
from l3hv.model.plan import Timers
from l3hv.model.profiles import BFD_PROFILES, FAILURE_PROFILES, SESSION_LAYOUTS
from l3hv.model.text import counted, natural_key

HOST_KEYS = frozenset(
    {
        "l3hv_addresses",
        "l3hv_anycast",
        "l3hv_blocks",
        "l3hv_bgp_key",
        "l3hv_daemon",
        "l3hv_data_plane",
        "l3hv_dhcp",
        "l3hv_dhcp_servers",
        "l3hv_downlinks",
        "l3hv_ecmp",
        "l3hv_ecmp_limit",
        "l3hv_edge_domains",
        "l3hv_failure_profile",
        "l3hv_guest_mtu",
        "l3hv_guests",
        "l3hv_host_asn",
        "l3hv_id",
        "l3hv_main_default_route",
        "l3hv_managed",
        "l3hv_management_sources",
        "l3hv_monitoring_group",
        "l3hv_mtu",
        "l3hv_neighbors",
        "l3hv_origin_validation",
        "l3hv_path",
        "l3hv_path_addresses",
        "l3hv_prefix_limit",
        "l3hv_prefix_limit_action",
        "l3hv_prefix_limit_margin",
        "l3hv_serves_dhcp_at",
        "l3hv_routers",
        "l3hv_session_layout",
        "l3hv_system",
        "l3hv_timers",
        "l3hv_ttl_security",
        "l3hv_tunnel_devices",
        "l3hv_uplinks",
        "l3hv_vlan_interfaces",
    }
)
"""The variables that may differ from host to host, and be set for groups of them."""

DEFAULT_MTU = 1500
DEFAULT_ECMP_LIMIT = 16
DEFAULT_ORIGIN_VALIDATION: OriginValidation = "pool"
DEFAULT_PREFIX_LIMIT_ACTION: LimitAction = "block"
DEFAULT_PREFIX_LIMIT_MARGIN = 50
DEFAULT_PROFILE: FailureProfile = "bfd_llgr"
DEFAULT_LAYOUT: SessionLayout = "multiprotocol"
DEFAULT_DAEMON: DaemonName = "bird2"
DEFAULT_SYSTEM: System = "debian13"
JUNOS: Literal["junos"] = "junos"
"""The daemon that is a system of its own. l3hv renders its configuration and does not provision it."""

LEAST_BFD_INTERVAL_MS = 10
"""The shortest interval at which BIRD sends and expects BFD packets."""

LEAST_BFD_PACKETS = 3
"""The least number of missed BFD packets that shows a dead path at that interval: on a working path, fewer
packets can be late."""

LEAST_DETECTION_MS = LEAST_BFD_PACKETS * LEAST_BFD_INTERVAL_MS

REDUCED_HOLD_S = 9
"""The default hold time if only the hold time detects a dead path whose carrier stays up."""

REDUCED_HOLD_PROFILES: tuple[FailureProfile, ...] = ("llgr", "graceful_restart")

TIMERS: dict[str, tuple[WholeNumber, int]] = {
    "bfd_interval_ms": (WholeNumber(LEAST_BFD_INTERVAL_MS, 60000, "an interval in milliseconds"), 100),
    "bfd_multiplier": (WholeNumber(1, 255, "a number of packets"), 3),
    "hold_s": (WholeNumber(3, 65535, "a time in seconds"), 90),
    "connect_retry_s": (WholeNumber(1, 65535, "a time in seconds"), 5),
    "restart_s": (WholeNumber(1, 4095, "a time in seconds"), 30),
    "stale_s": (WholeNumber(1, 2**24 - 1, "a time in seconds"), 3600),
}
"""Bounds and default of each timer: RFC 4271 (hold), RFC 4724 (restart, 12 bits), RFC 9494 (stale)."""

# Names that no host can have.  Followed by "_" and a domain they could be an attribute or function of BIRD,
# or a name that its configuration uses (kernel_public4, accept_public4, …).  "all" and "ungrouped" are groups
# of Ansible.
_RESERVED_HOSTS = frozenset(
    {
        *("aspa", "babel", "bfd", "bgp", "igp", "krt", "mpls", "ospf", "ra", "rip", "roa", "rta", "rts"),
        *(
            "accept",
            "announce",
            "clients",
            "communities",
            "community",
            "device",
            "direct",
            "fabric",
            "guests",
            "kernel",
            "key",
            "next",
            "originated",
            "own",
            "pipe",
            "refuse",
            "shared",
            "static",
        ),
        *("all", "ungrouped"),
    }
)

host_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "a host's name of letters, digits, '.', '_' and '-' (at most 63) that BIRD does not use itself",
    "Rename the host in the inventory.",
    _RESERVED_HOSTS,
    "BIRD's configuration or Ansible uses them itself",
)
junos_interface = Text(
    r"[a-z]+(-?[0-9]+)?(/[0-9]+)*(:[0-9]+)?(\.[0-9]{1,5})?",
    "an interface name of Junos",
    "Choose a name such as ae0, xe-0/0/1 or ae0.90.",
    {"all", "lo0"},
)
host_id = WholeNumber(1, 2**24 - 1, "a host id")
ecmp_limit = WholeNumber(1, 255, "a number of next hops")
prefix_limit = WholeNumber(1, 10_000_000, "a number of prefixes")
system_group = Text(
    r"[a-z_][a-z0-9_-]{0,31}",
    "the name of a system's group",
    "Choose a name such as monitoring.",
    {"root", "bird"},
)
prefix_limit_margin = WholeNumber(0, 1000, "a margin in percent")


def host_kind(name: str, groups: Iterable[str]) -> tuple[Kind | None, list[Problem]]:
    """Return the kind of a host that follows from its inventory groups, and the problems of these.

    >>> host_kind("hv1", ["all", "hypervisors"])
    ('hypervisor', [])
    """
    groups = set(groups)
    fabric_groups = [group for group in KINDS if group in groups]
    if len(fabric_groups) == 1:
        return KINDS[fabric_groups[0]], []
    notes = Notes(name)
    if fabric_groups:
        message, remedy = f"The host is in {' and in '.join(fabric_groups)}.", "Keep it in one of them."
    else:
        message, remedy = "The host is in no group of the fabric.", f"Add it to {_one_of(KINDS)}."
    notes.add("groups", fabric_groups or None, message, remedy)
    return None, notes.problems


def parse_host(
    name: str, kind: Kind, variables: Mapping[str, Any], common: Common | None
) -> tuple[HostIntent | None, list[Problem]]:
    """Read the variables of one host: check first their shape, then their relations.

    Variables without the prefix ``l3hv_`` and fabric-wide variables are ignored.  Without ``common``, because
    the shape of the fabric-wide variables is wrong, only the shape is checked.
    """
    notes = Notes(name)
    try:
        host_name(name)
    except Unfit as unfit:
        notes.unfit("inventory_hostname", name, unfit)
    own_variables = {k: v for k, v in variables.items() if isinstance(k, str) and k.startswith("l3hv_")}
    fields = Fields(notes, "", own_variables, COMMON_KEYS | HOST_KEYS)
    settings = _read_settings(fields, outer_header(common))
    interface = junos_interface if settings.daemon == JUNOS else interface_name
    has_links = variables.get("l3hv_underlay") == "leaf_spine" if common is None else common.has_links
    uplinks: dict[str, Any] = (
        read_links(fields, "l3hv_uplinks", interface) if has_links else _read_uplinks(fields, interface)
    )
    downlinks = read_links(fields, "l3hv_downlinks", interface)
    own_asn = fields.take("l3hv_host_asn", private_asn)
    guests = read_guests(fields)
    number = fields.need("l3hv_id", host_id, "Give the host a number that no other host has.")
    path = fields.take("l3hv_path", _own_path)
    edge_domains = fields.take_all("l3hv_edge_domains", reference)
    addresses = fields.take_all("l3hv_addresses", address)
    path_addresses = _read_path_addresses(fields)
    routers = read_routers(fields)
    tunnel_names = read_tunnel_names(fields)
    management_sources = fields.take_all("l3hv_management_sources", address_or_network)
    blocks = None if fields.raw.get("l3hv_blocks") is None else fields.take_all("l3hv_blocks", network)
    if common is None or notes.problems or number is None:
        return None, notes.problems

    _check_kind(fields, kind, settings, notes)
    edge_domains = _edge_domains(kind, edge_domains, common, notes)
    host = HostIntent(
        name=name,
        kind=kind,
        id=number,
        settings=settings,
        uplinks=(
            resolve_links(uplinks, downlinks, common, edge_domains if kind == "edge_router" else None, notes)
            if common.has_links
            else _resolve_uplinks(uplinks, kind, edge_domains, common, notes)
        ),
        edge_domains=edge_domains,
        addresses=tuple(map(str, addresses)),
        path_addresses=_path_addresses(path_addresses, common, notes),
        management_sources=tuple(map(str, management_sources)),
        bgp_keys=_bgp_keys(
            fields.raw.get("l3hv_bgp_key"),
            common.paths if common.has_igp else [*uplinks, *downlinks],
            common,
            notes,
        ),
        ecmp=_ecmp(fields, common),
        blocks=(),
        guests=(),
        tunnel_names=resolved_tunnel_names(tunnel_names, common, notes),
        asn=own_asn or host_asn(common, kind, number),
        turn=_turn(kind, path, uplinks) if common.has_igp else "",
    )
    host = dataclasses.replace(host, routers=resolved_routers(routers, host, common, notes))
    check_links_of_host(fields, host, common, notes)
    if kind == "hypervisor" and (blocks is not None or settings.managed):
        host = dataclasses.replace(host, blocks=blocks_of(common, host.domains, number, blocks, notes))
    _check_uplinks(host, path, common, notes)
    _check_id(host, common, notes)
    _check_mtu(host, common, notes)
    _check_daemon(settings, kind, notes, is_mesh=common.is_mesh)
    _check_relay(host, common, notes)
    _check_served_address(host, common, notes)
    _check_vrfs(host, common, notes)
    check_encapsulation(host, common, notes)
    igp.check_host(host, common, notes)
    _check_timers(host, notes)
    _check_name(name, common, notes)
    _check_addresses(addresses, common, notes)
    of_guests = HostOfGuests(notes, common, host.domains, mtu=settings.mtu, guest_mtu=settings.guest_mtu)
    host = dataclasses.replace(host, guests=resolve_guests(guests, of_guests))
    _check_interfaces(host, guests, common, notes)
    _check_prefix_limit(host, common, notes)
    _check_search_of_relay(host, common, notes)
    return (None if notes.problems else host), notes.distinct()


# Shape.


def _read_settings(fields: Fields, outer: int) -> Settings:
    """Read the settings; ``outer`` is the size of the largest outer header of tunnels, 0 without tunnels."""
    uplink_mtu = fields.take("l3hv_mtu", mtu, DEFAULT_MTU)
    daemon = fields.take("l3hv_daemon", _daemon, DEFAULT_DAEMON)
    profile = fields.take("l3hv_failure_profile", OneOf[FailureProfile](*FAILURE_PROFILES), DEFAULT_PROFILE)
    return Settings(
        mtu=uplink_mtu,
        guest_mtu=fields.take(
            "l3hv_guest_mtu", mtu, min(DEFAULT_MTU, uplink_mtu - outer) if outer else DEFAULT_MTU
        ),
        timers=_read_timers(fields.mapping("l3hv_timers", TIMERS.keys()), profile, daemon),
        failure_profile=profile,
        session_layout=fields.take(
            "l3hv_session_layout",
            OneOf[SessionLayout](*SESSION_LAYOUTS),
            "per_family" if daemon in PER_FAMILY else DEFAULT_LAYOUT,
        ),
        neighbors=fields.take("l3hv_neighbors", OneOf[Neighbors]("explicit", "range"), "explicit"),
        ecmp_limit=fields.take("l3hv_ecmp_limit", ecmp_limit, DEFAULT_ECMP_LIMIT),
        anycast=fields.take("l3hv_anycast", OneOf[Anycast]("local", "spread"), "local"),
        data_plane=fields.take("l3hv_data_plane", OneOf[DataPlane]("rules", "vrf"), "rules"),
        dhcp=fields.take("l3hv_dhcp", OneOf[Dhcp]("server", "relay", "none"), "server"),
        dhcp_servers=tuple(map(str, fields.take_all("l3hv_dhcp_servers", unicast_ipv4))),
        serves_dhcp_at=fields.take("l3hv_serves_dhcp_at", _ipv4_text),
        origin_validation=fields.take(
            "l3hv_origin_validation", OneOf[OriginValidation]("pool", "strict"), DEFAULT_ORIGIN_VALIDATION
        ),
        prefix_limit_margin=fields.take(
            "l3hv_prefix_limit_margin", prefix_limit_margin, DEFAULT_PREFIX_LIMIT_MARGIN
        ),
        prefix_limit_action=fields.take(
            "l3hv_prefix_limit_action",
            OneOf[LimitAction]("warn", "block", "restart", "disable"),
            DEFAULT_PREFIX_LIMIT_ACTION,
        ),
        prefix_limit=fields.take("l3hv_prefix_limit", prefix_limit),
        ttl_security=fields.take("l3hv_ttl_security", yes_or_no, True),
        monitoring_group=fields.take("l3hv_monitoring_group", system_group),
        vlan_interfaces=fields.take(
            "l3hv_vlan_interfaces", OneOf[Literal["kernel", "external"]]("kernel", "external"), "kernel"
        ),
        main_default_route=fields.take("l3hv_main_default_route", yes_or_no, False),
        system=fields.take(
            "l3hv_system", OneOf[System](*SYSTEM_NAMES), JUNOS if daemon == JUNOS else DEFAULT_SYSTEM
        ),
        daemon=daemon,
        managed=fields.take("l3hv_managed", yes_or_no, daemon != JUNOS),
    )


def _ipv4_text(value: object) -> str:
    return str(ipv4_address(value))


def _own_path(value: object) -> str:
    if isinstance(value, dict):
        raise Unfit("the name of one path", "Describe the paths of the fabric in l3hv_paths.")
    return path_name(value)


def _daemon(value: object) -> DaemonName:
    return OneOf[DaemonName](*supported_daemons())(value)


def _read_timers(fields: Fields, profile: FailureProfile, daemon: DaemonName) -> Timers:
    """Read the timers.

    A session uses the shorter hold time of its two ends, so a host without BFD has a short default.
    """
    defaults = {name: default for name, (_, default) in TIMERS.items()}
    if profile in REDUCED_HOLD_PROFILES or daemon in WITHOUT_BFD:
        defaults["hold_s"] = REDUCED_HOLD_S
    values = {name: fields.take(name, bounds, defaults[name]) for name, (bounds, _) in TIMERS.items()}
    # RFC 4271, section 4.4: a third of the hold time.
    return Timers(keepalive_s=values["hold_s"] // 3, **values)


def _read_uplinks(fields: Fields, name_of_interface: Text) -> dict[str, str | dict[str, str]]:
    """Return, by path, the NIC that carries all domains, or the interface of each domain."""
    uplinks: dict[str, str | dict[str, str]] = {}
    nested = fields.mapping("l3hv_uplinks")
    if not nested.raw and isinstance(fields.raw.get("l3hv_uplinks", {}), dict | None):
        fields.notes.add(
            "l3hv_uplinks", None, "is missing.", "Name the interface that the host has on each path."
        )
    for path, value in nested.names(path_name):
        if isinstance(value, dict) and value:
            domains = nested.nested(nested.path(path), value)
            uplinks[path] = {
                domain: domains.need(domain, name_of_interface, "Name its interface, or remove the domain.")
                or ""
                for domain, _ in domains.names(reference)
            }
        elif value is None or value == {}:
            fields.notes.add(nested.path(path), None, "is empty.", "Name its interface, or remove the path.")
        else:
            uplinks[path] = nested.take(path, name_of_interface, "")
    return uplinks


def _read_path_addresses(fields: Fields) -> dict[tuple[str, str], dict[Family, Address]]:
    """Return the declared addresses by path and domain, and there by family."""
    declared: dict[tuple[str, str], dict[Family, Address]] = {}
    for path, domains in fields.mapping("l3hv_path_addresses").named(path_name):
        for domain, families in domains.named(reference, frozenset(FAMILIES)):
            by_family = declared[path, domain] = {}
            if (ipv4 := families.take("ipv4", ipv4_address)) is not None:
                by_family["ipv4"] = ipv4
            if (ipv6 := families.take("ipv6", ipv6_address)) is not None:
                by_family["ipv6"] = ipv6
    return declared


# Relations.


def _path_addresses(
    declared: Mapping[tuple[str, str], Mapping[Family, Address]], common: Common, notes: Notes
) -> tuple[PathAddress, ...]:
    """Return the addresses that do not follow from the host's id, in the order of paths and domains.

    A group may declare addresses on paths that some of its hosts do not use.
    """
    valid = []
    for (path, domain), families in declared.items():
        for family, declared_one in families.items():
            where = f"l3hv_path_addresses.{path}.{domain}.{family}"
            network = common.network(path, domain, family)
            if network is None:
                notes.add(
                    where,
                    declared_one,
                    f"{domain} has no {family} prefix on path {path}.",
                    "Remove the address, or add the prefix to l3hv_paths.",
                )
            elif not is_inside(declared_one, network.prefix) or (
                int(declared_one) - int(network.prefix.network_address) not in numbers_of(network.prefix)
            ):
                notes.add(
                    where,
                    declared_one,
                    f"{declared_one} is not a host address of {network.prefix} (path {path}, {domain}).",
                    f"Choose an address of {network.prefix}.",
                )
            else:
                valid.append(PathAddress(path, domain, str(declared_one)))
    return tuple(sorted(valid, key=lambda one: (natural_key(one.path), one.domain, ":" in one.address)))


def _check_kind(fields: Fields, kind: Kind, settings: Settings, notes: Notes) -> None:
    """Note variables that apply to another kind of host."""
    for key, owner, group, reason in (
        ("l3hv_guests", "hypervisor", "hypervisors", "hypervisors have guests"),
        ("l3hv_blocks", "hypervisor", "hypervisors", "hypervisors advertise blocks"),
        ("l3hv_anycast", "hypervisor", "hypervisors", "hypervisors spread the flows of guests"),
        ("l3hv_path", "route_reflector", "route_reflectors", "route reflectors belong to one path"),
        ("l3hv_neighbors", "route_reflector", "route_reflectors", "route reflectors have clients"),
        ("l3hv_edge_domains", "edge_router", "edge_routers", "edge routers originate default routes"),
        ("l3hv_addresses", "edge_router", "edge_routers", "edge routers have addresses outside the fabric"),
        ("l3hv_serves_dhcp_at", "edge_router", "edge_routers", "edge routers serve DHCP to hypervisors"),
    ):
        value = fields.raw.get(key)
        if value and kind != owner:
            notes.add(key, value, f"Only {reason}.", f"Remove it, or move the host to the group {group}.")
    if kind == "edge_router" and fields.raw.get("l3hv_management_sources"):
        notes.add(
            "l3hv_management_sources",
            fields.raw["l3hv_management_sources"],
            "The packet filter of an edge router protects only its routing: all other services are open.",
            "Remove it: it is for hypervisors and route reflectors.",
        )
    if settings.managed and settings.daemon == JUNOS:
        notes.add(
            "l3hv_managed",
            True,
            "l3hv does not provision a Junos router: it only renders its configuration.",
            "Remove it, and run playbooks/render_junos.yml.",
        )
    if settings.managed and not settings.ttl_security:
        notes.add(
            "l3hv_ttl_security",
            False,
            "A managed host sends BGP with a TTL of 255 (RFC 5082) and requires it of its neighbours.",
            "Remove it: it is for hosts with l3hv_managed: false whose daemon sends another TTL.",
        )


def _bgp_keys(
    value: object, paths: Collection[str], common: Common, notes: Notes
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a path and the name of its key; ``value`` is one name, or a mapping by path.

    A group may name keys of paths that some of its hosts do not use.  A wrong value may be a secret that was
    written in the wrong place, so no problem repeats it.
    """
    if isinstance(value, Mapping):
        names = value
        for path, name in names.items():
            if path in (common.paths or paths):
                _check_key(f"l3hv_bgp_key.{path}", name, common, notes)
                continue
            key = f"The key {name} is" if name in common.bgp_keys else "A key is"
            message = f"{key} set for a path that the fabric does not have."
            notes.add("l3hv_bgp_key", None, message, f"Choose one of {', '.join(common.paths)}.")
    else:
        names = {} if value is None else dict.fromkeys(common.paths or paths, value)
        if names:
            _check_key("l3hv_bgp_key", value, common, notes)
    return tuple((path, names[path]) for path in sorted(paths, key=natural_key) if path in names)


def _check_key(where: str, name: object, common: Common, notes: Notes) -> None:
    if name in common.bgp_keys:
        return
    remedy = "Add the name of the key to l3hv_bgp_keys."
    if common.bgp_keys:
        close = get_close_matches(name, common.bgp_keys, n=1) if isinstance(name, str) else []
        suggestion = f"Did you mean '{close[0]}'? " if close else ""
        remedy = f"{suggestion}Choose one of {', '.join(common.bgp_keys)}."
    notes.add(where, None, "The value is not the name of a key of the fabric.", remedy)


def _ecmp(fields: Fields, common: Common) -> tuple[tuple[str, Ecmp], ...]:
    """Return the pairs of a domain and the choice of its routes that may have several next hops.

    One word applies to all domains.  A group may name domains that some of its hosts are not in.
    """
    word = OneOf[Ecmp]("all", "without_default", "none")
    domains = [domain.name for domain in common.domains]
    if not isinstance(fields.raw.get("l3hv_ecmp"), Mapping):
        everywhere = fields.take("l3hv_ecmp", word)
        return () if everywhere is None else tuple((name, everywhere) for name in domains)
    chosen = fields.mapping("l3hv_ecmp")
    for name in chosen.raw.keys() - set(domains):
        fields.notes.add(
            chosen.path(shown(name)), name, "There is no such domain.", f"Choose one of {', '.join(domains)}."
        )
    return tuple((name, chosen.take(name, word, "all")) for name in domains if name in chosen.raw)


def _edge_domains(kind: Kind, names: tuple[str, ...], common: Common, notes: Notes) -> tuple[str, ...]:
    """Return the domains that an edge router serves, in the fabric's order."""
    if kind != "edge_router":
        return ()
    known = [domain.name for domain in common.domains]
    for name in names:
        if name not in known:
            notes.add(
                "l3hv_edge_domains", name, f"There is no domain {name}.", f"Choose one of {', '.join(known)}."
            )
    return tuple(name for name in known if name in names) if names else (common.public.name,)


def _resolve_uplinks(
    uplinks: Mapping[str, str | Mapping[str, str]],
    kind: Kind,
    edge_domains: Collection[str],
    common: Common,
    notes: Notes,
) -> tuple[UplinkIntent, ...]:
    """Return one uplink per path and domain, in the fabric's order."""
    resolved: list[UplinkIntent] = []
    for path in sorted(uplinks, key=natural_key):
        where = f"l3hv_uplinks.{path}"
        if path not in common.paths:
            notes.add(where, path, f"There is no path {path}.", f"Choose one of {', '.join(common.paths)}.")
            continue
        path_domains = common.domains_of_path(path)
        uplink = uplinks[path]
        if isinstance(uplink, str):
            served = [d for d in path_domains if kind != "edge_router" or d.name in edge_domains]
            resolved += _vlan_uplinks(path, uplink, served, notes)
            continue
        resolved += [
            UplinkIntent(path, domain.name, uplink[domain.name], None)
            for domain in path_domains
            if domain.name in uplink
        ]
        for name in uplink.keys() - {domain.name for domain in path_domains}:
            notes.add(
                f"{where}.{name}",
                name,
                f"The path {path} has no domain {name}.",
                f"Choose one of {', '.join(domain.name for domain in path_domains)}.",
            )
    return tuple(resolved)


def _vlan_uplinks(path: str, nic: str, domains: Iterable[Domain], notes: Notes) -> Iterable[UplinkIntent]:
    where = f"l3hv_uplinks.{path}"
    longest = nic
    for domain in domains:
        if domain.vlan is None:
            notes.add(
                where,
                nic,
                f"{nic} would carry {domain.name}, which has no VLAN.",
                f"Set l3hv_domains.{domain.name}.vlan, or name one interface per domain.",
            )
            continue
        interface = f"{nic}.{domain.vlan}"
        longest = max(longest, interface, key=len)
        yield UplinkIntent(path, domain.name, interface, nic)
    if len(longest) > LONGEST_INTERFACE:
        notes.add(
            where,
            nic,
            f"The name of the VLAN interface {longest} would have {len(longest)} bytes.",
            f"The kernel allows {LONGEST_INTERFACE}: give the NIC a shorter name with a systemd.link file.",
        )


def _turn(kind: Kind, path: str | None, paths: Iterable[str]) -> str:
    """Return the path whose reflectors a run changes together with this one; empty for other hosts."""
    return (path or min(paths, key=natural_key, default="")) if kind == "route_reflector" else ""


def _check_uplinks(host: HostIntent, path: str | None, common: Common, notes: Notes) -> None:
    paths = list(dict.fromkeys(uplink.path for uplink in host.uplinks))
    if common.has_igp:
        igp.check_reflector(host, path, common, notes)
    elif host.kind == "route_reflector":
        if len(paths) > 1:
            notes.add(
                "l3hv_uplinks",
                paths,
                f"A reflector on {len(paths)} paths would advertise only its best path and hide the others.",
                "Give each path a reflector of its own.",
            )
        elif path is not None and paths and path != paths[0]:
            notes.add(
                "l3hv_path",
                path,
                f"The reflector's uplink is on path {paths[0]}.",
                "Name that path, or remove l3hv_path.",
            )
    for name in host.edge_domains:
        if name not in host.domains:
            notes.add(
                "l3hv_edge_domains",
                name,
                f"The edge router has no uplink in {name}.",
                f"Add {name} to l3hv_uplinks, or remove it here.",
            )


def _networks(host: HostIntent, common: Common) -> list[PathNetwork]:
    places = {(uplink.path, uplink.domain) for uplink in host.uplinks}
    return [network for network in common.networks if (network.path, network.domain) in places]


def _check_id(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note an id that is not a host number in every prefix from which the host gets an address."""
    prefixes = [
        (n.prefix, f"{n.prefix} (path {n.path}, {n.domain})")
        for n in _networks(host, common)
        if declared_address(n, host.path_addresses) is None
    ]
    if common.has_loopbacks(host):
        for domain in common.domains:
            if domain.name in host.domains:
                prefixes += [(p, f"{p} (loopbacks, {domain.name})") for p in domain.loopbacks]
    # Prefixes without room for any host are a problem of the fabric, which fabric.py notes.
    prefixes = [(prefix, place) for prefix, place in prefixes if numbers_of(prefix)]
    if not prefixes:
        return
    smallest, place = min(prefixes, key=lambda prefix: numbers_of(prefix[0]).stop)
    numbers = numbers_of(smallest)
    if host.id not in numbers:
        notes.add(
            "l3hv_id",
            host.id,
            f"{host.id} does not fit in {place}.",
            f"Choose 1 to {numbers.stop - 1}.",
        )


def _check_mtu(host: HostIntent, common: Common, notes: Notes) -> None:
    uplink, guest = host.settings.mtu, host.settings.guest_mtu
    if guest > uplink and host.kind == "hypervisor":
        notes.add(
            "l3hv_guest_mtu",
            guest,
            f"Guests would have an MTU of {guest}, but the uplinks have {uplink}.",
            f"Choose at most {uplink}, or raise l3hv_mtu.",
        )
    has_ipv6 = any("ipv6" in domain.families for domain in common.domains)
    of_guests = [("l3hv_guest_mtu", guest)] * (host.kind == "hypervisor")
    for key, value in (("l3hv_mtu", uplink), *of_guests):
        if has_ipv6 and value < LEAST_IPV6_MTU:
            notes.add(
                key, value, f"IPv6 does not work with an MTU of {value}.", f"Choose {LEAST_IPV6_MTU} or more."
            )


def _check_vrfs(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note settings with which VRFs cannot work."""
    if not host.uses_vrfs:
        return
    if "lo" in host.domains:
        notes.add(
            "l3hv_data_plane",
            "vrf",
            "The VRF of the domain lo would have the name of the loopback interface.",
            "Rename the domain in l3hv_domains, or choose l3hv_data_plane: rules.",
        )
    if host.settings.daemon == "bird1":
        notes.add(
            "l3hv_data_plane",
            "vrf",
            "BIRD 1.6 has no BGP sessions and no BFD in VRFs.",
            "Choose l3hv_daemon: bird2 or bird3, or l3hv_data_plane: rules.",
        )
    if host.settings.session_layout == "shared":
        notes.add(
            "l3hv_data_plane",
            "vrf",
            "A shared session runs in one VRF, and cannot resolve the next hops of the other one.",
            "Choose another l3hv_session_layout, or l3hv_data_plane: rules.",
        )
    if common.rule_priority != VRF_RULE_PRIORITY:
        notes.add(
            "l3hv_data_plane",
            "vrf",
            f"The kernel's rule of VRFs has the priority {VRF_RULE_PRIORITY}, and the other rules are placed"
            f" around it, but l3hv_rule_priority is {common.rule_priority}.",
            "Remove l3hv_rule_priority, or choose l3hv_data_plane: rules.",
        )


def _check_relay(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note a relay without servers, servers without a relay, and a relay without an address of its own.

    Hosts without guests ignore these variables, which a group of all hosts may have.
    """
    if host.kind != "hypervisor":
        return
    settings = host.settings
    if settings.dhcp != "relay":
        if settings.dhcp_servers:
            notes.add(
                "l3hv_dhcp_servers",
                ", ".join(settings.dhcp_servers),
                f"Only a DHCP relay uses servers, but l3hv_dhcp is {settings.dhcp}.",
                "Remove l3hv_dhcp_servers (in host_vars: [] for this host), or set l3hv_dhcp: relay.",
            )
        return
    if not settings.dhcp_servers:
        notes.add(
            "l3hv_dhcp_servers",
            None,
            "is missing: a DHCP relay needs a server.",
            "List the IPv4 addresses of the DHCP servers.",
        )
    for server, times in Counter(settings.dhcp_servers).items():
        if times > 1:
            notes.add("l3hv_dhcp_servers", server, f"{server} is listed twice.", "Keep one of them.")
        if (reason := _unusable_server(IPv4Address(server), host, common)) is not None:
            notes.add(
                "l3hv_dhcp_servers",
                server,
                f"{server} cannot be a DHCP server: {reason}.",
                "Choose an address in the private domain that belongs to no guest and no hypervisor.",
            )
    _check_address_of_relay(host, common, notes)


def _check_search_of_relay(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note search domains that fit into option 119 only with compression, which Kea lacks (2.2 and 2.6)."""
    is_relay = host.kind == "hypervisor" and host.settings.dhcp == "relay"
    used = {guest.pool for guest in host.guests if is_relay and guest.ipv4 is not None}
    for pool in common.pools:
        size = sum(len(domain) + 2 for domain in pool.search)
        if pool.name in used and size > OPTION_BYTES:
            notes.add(
                "l3hv_dhcp",
                "relay",
                f"The search domains of the pool {pool.name} have {size} bytes, more than the {OPTION_BYTES}"
                " of DHCP option 119: Kea does not compress them.",
                f"Keep fewer or shorter ones in l3hv_pools.{pool.name}.search.",
            )


def _unusable_server(server: IPv4Address, host: HostIntent, common: Common) -> str | None:
    """Return the reason why a relay cannot reach a server, or cannot accept its answers."""
    for pool in common.pools:
        if pool.ipv4 is not None and server in pool.ipv4:
            return f"it is in the pool {pool.name}, and the relay accepts no answers from guests"
    for domain in common.domains:
        loopbacks = domain.loopback("ipv4")
        if loopbacks is not None and is_inside(server, loopbacks):
            return f"it is in {loopbacks}, the loopbacks of the hypervisors in {domain.name}"
    for net in common.networks:
        if not is_inside(server, net.prefix):
            continue
        if net.domain == common.public.name:
            return f"it is in {net.prefix} of {net.domain}, and relays reach only the private domain"
        if net.domain in host.domains and str(server) == host.address_in(net):
            return f"the hypervisor itself has this address (path {net.path})"
    return None


def _check_address_of_relay(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note a relay without a private loopback.

    The hypervisors' own traffic reaches only the private domain, and addresses on paths fail with their path.
    """
    private = common.private
    if private is None or private.loopback("ipv4") is None:
        name = "private" if private is None else private.name
        notes.add(
            "l3hv_dhcp",
            "relay",
            "A DHCP relay reaches its servers in the private domain, from the hypervisor's loopback there.",
            f"Give the fabric l3hv_domains.{name}.loopbacks.ipv4, or choose another l3hv_dhcp.",
        )
    elif private.name not in host.domains:
        notes.add(
            "l3hv_dhcp",
            "relay",
            f"A DHCP relay reaches its servers in {private.name}, where the hypervisor has no uplink.",
            f"Add {private.name} to l3hv_uplinks, or choose another l3hv_dhcp.",
        )


def _check_served_address(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note a server at an address that the host does not have, or outside of the private domain."""
    address, private = host.settings.serves_dhcp_at, common.private
    if host.kind != "edge_router" or address is None:
        return
    if address not in host.addresses:
        notes.add(
            "l3hv_serves_dhcp_at",
            address,
            f"The host does not have the address {address}.",
            "Add it to l3hv_addresses: the hypervisors reach it there, whichever path fails.",
        )
    if private is None:
        notes.add(
            "l3hv_serves_dhcp_at",
            address,
            "DHCP relays reach their servers only in a private domain, and the fabric has none.",
            "Add a private domain to l3hv_domains, or remove l3hv_serves_dhcp_at.",
        )
    elif private.name not in host.edge_domains:
        notes.add(
            "l3hv_serves_dhcp_at",
            address,
            f"DHCP relays reach their servers only in {private.name}, which the host does not serve.",
            f"Add {private.name} to l3hv_edge_domains, or remove l3hv_serves_dhcp_at.",
        )


def _check_daemon(settings: Settings, kind: Kind, notes: Notes, *, is_mesh: bool) -> None:
    is_switch = kind in SWITCHES
    if is_switch:
        pass  # l3hv.intent.links checks the daemons of leaves and spines
    elif settings.daemon in REFLECTORS_ONLY and kind != "route_reflector" and settings.managed:
        usable = [daemon for daemon in supported_daemons() if daemon not in REFLECTORS_ONLY]
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            f"l3hv uses {TITLES[settings.daemon]} only on route reflectors, without routes in the kernel.",
            f"Use {_one_of(usable)}, or make the host a route reflector.",
        )
    elif (settings.daemon, settings.system) not in DAEMONS:
        systems = ", ".join(systems_with(settings.daemon))
        remedy = f"Use {DEFAULT_DAEMON}, or one of the systems that have it: {systems} (l3hv_system)."
        if settings.system == JUNOS:
            remedy = (
                f"Set l3hv_daemon: {JUNOS}, or set l3hv_system to a system with {settings.daemon}: {systems}."
            )
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            f"{SYSTEM_NAMES[settings.system]} has no {settings.daemon}.",
            remedy,
        )
    if settings.daemon in PER_FAMILY and settings.session_layout != "per_family":
        notes.add(
            "l3hv_session_layout",
            settings.session_layout,
            f"{settings.daemon} has one process per family, so each of its sessions carries one family.",
            "Set per_family for this host, remove the variable, or choose bird2.",
        )
    daemon = DAEMONS.get((settings.daemon, settings.system))
    if (
        settings.monitoring_group is not None
        and settings.managed
        and daemon
        and daemon.reading_socket is None
    ):
        readable = [f"{d.name} ({d.system})" for d in DAEMONS.values() if d.reading_socket is not None]
        notes.add(
            "l3hv_monitoring_group",
            settings.monitoring_group,
            f"{TITLES[daemon.name]} {daemon.version} has no read-only control socket: "
            "its only socket also allows changes.",
            f"Set null for this host, or choose {_one_of(readable)}.",
        )
    checks_owners = kind in ("route_reflector", "leaf") or (is_mesh and settings.managed)
    if checks_owners and settings.origin_validation == "strict":
        _check_validation(settings, notes)
    if settings.daemon in WITHOUT_RANGES and settings.neighbors == "range" and daemon is not None:
        notes.add(
            "l3hv_neighbors",
            settings.neighbors,
            f"l3hv configures the neighbours of {TITLES[settings.daemon]} {daemon.version}".rstrip()
            + " one by one, not as a range.",
            "Use explicit, or choose bird2.",
        )


def _check_validation(settings: Settings, notes: Notes) -> None:
    if settings.daemon not in VALIDATING:
        notes.add(
            "l3hv_origin_validation",
            settings.origin_validation,
            f"The configuration of {settings.daemon} cannot contain the owners of the guests' prefixes.",
            f"Use pool for this host, or choose {_one_of(sorted(VALIDATING))}.",
        )
    elif settings.neighbors == "range":
        notes.add(
            "l3hv_origin_validation",
            settings.origin_validation,
            "The reflector accepts clients from a range and cannot tell which client is which hypervisor.",
            "Use pool for this host, or l3hv_neighbors: explicit.",
        )


def _check_timers(host: HostIntent, notes: Notes) -> None:
    """Note timers of BFD that cannot work, if the host uses BFD. A reflector uses BFD if its clients do."""
    timers = host.settings.timers
    if host.settings.failure_profile not in BFD_PROFILES and host.kind != "route_reflector":
        return
    detection_ms = timers.bfd_interval_ms * timers.bfd_multiplier
    if detection_ms < LEAST_DETECTION_MS:
        notes.add(
            "l3hv_timers",
            detection_ms,
            f"After {detection_ms} ms without BFD packets a path may still work: BIRD sends one every "
            f"{LEAST_BFD_INTERVAL_MS} ms at best, and {LEAST_BFD_PACKETS} packets can be late.",
            f"Raise bfd_interval_ms or bfd_multiplier to a product of at least {LEAST_DETECTION_MS} ms.",
        )
    daemon = DAEMONS.get((host.settings.daemon, host.settings.system))
    if daemon and daemon.version in WITHOUT_SINGLE_BFD_MISS and timers.bfd_multiplier == 1:
        message = f"{TITLES[daemon.name]} {daemon.version} needs a multiplier of at least 2."
        notes.add("l3hv_timers.bfd_multiplier", 1, message, "Set 2, and halve bfd_interval_ms.")
    if detection_ms >= timers.hold_s * 1000:
        notes.add(
            "l3hv_timers",
            detection_ms,
            f"BFD would detect a failure after {detection_ms} ms, but the hold time of {timers.hold_s} s "
            "ends the session by then.",
            "Lower bfd_interval_ms or bfd_multiplier, or raise hold_s.",
        )


def _check_name(name: str, common: Common, notes: Notes) -> None:
    """Note a name that is too long: the names of BIRD's sessions have the host's and the domain's name.

    A session of one family ends with the digit of the family, and one of all domains is named ``shared``.  In
    a mesh the names also have that of the path.
    """
    longest = max(len(name) for name in ("shared", *(f"{domain.name}4" for domain in common.domains)))
    if common.has_links:
        longest = max(longest, len("private4"))
    if common.is_mesh:
        longest += max(map(len, common.paths), default=0) + len("_")
    room = LONGEST_SYMBOL - len("_") - longest
    if len(bird_symbol(name)) > room:
        notes.add(
            "inventory_hostname",
            name,
            f"{name} is too long: the names of BIRD's sessions contain the host's and the domain's name.",
            f"Rename the host: its name can have at most {room} characters.",
        )


def _check_addresses(addresses: tuple[Address, ...], common: Common, notes: Notes) -> None:
    """Note addresses of an edge router that are listed twice, or that are part of the fabric."""
    for repeated in (one for one, times in Counter(addresses).items() if times > 1):
        notes.add("l3hv_addresses", repeated, f"{repeated} is listed twice.", "Keep one of them.")
    all_prefixes = [network.prefix for network in common.networks]
    all_prefixes += [prefix for domain in common.domains for prefix in domain.loopbacks]
    all_prefixes += [prefix for pool in common.pools for prefix in pool.prefixes]
    for listed in addresses:
        for prefix in all_prefixes:
            if listed.version == prefix.version and listed in prefix:
                notes.add(
                    "l3hv_addresses",
                    listed,
                    f"{listed} is in {prefix} of the fabric.",
                    "Choose an address that is outside the fabric.",
                )


def _check_prefix_limit(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note a limit that the hypervisor's own prefixes exceed: its reflectors would act on it at once."""
    limit = host.settings.prefix_limit
    if limit is None or host.kind != "hypervisor":
        return
    # One session carries all domains or one of them.
    is_shared = host.settings.session_layout == "shared"
    prefixes: dict[tuple[str, Family], set[str]] = {}
    for block in host.blocks:
        domain_of_block = common.domain_of(block)
        session = ("" if is_shared else domain_of_block, family_of_text(block))
        prefixes.setdefault(session, set()).add(block)
    for guest in host.guests:
        for claim in guest_claims(guest):
            if claim.kind == "prefix" and (claim.shared or not is_covered(claim.value, host.blocks)):
                session = ("" if is_shared else guest.domain, family_of_text(claim.value))
                prefixes.setdefault(session, set()).add(claim.value)
    for domain in common.domains:
        is_advertised = domain.name in host.domains and not common.has_igp
        for loopback in domain.loopbacks if is_advertised else ():
            session = ("" if is_shared else domain.name, family_of(loopback))
            prefixes.setdefault(session, set()).add(str(loopback))
    most = max(map(len, prefixes.values()), default=0)
    if most > limit:
        notes.add(
            "l3hv_prefix_limit",
            limit,
            f"The hypervisor itself advertises {counted(most, 'prefix')} in one session.",
            f"Choose at least {most}, or remove the limit: it then follows from the inventory.",
        )


def _check_interfaces(
    host: HostIntent, guests: Iterable[GuestVariables], common: Common, notes: Notes
) -> None:
    """Note interfaces that two fields of the intent use: a path its NIC, a domain or a guest its interface.

    With VRFs each domain has an interface of its name.
    A NIC has a VLAN interface for each domain: the domains share the field of their path.
    """
    places: dict[str, str] = {}
    used: dict[str, str] = {}
    if host.uses_vrfs:
        used = {domain: f"the VRF of {domain} (l3hv_data_plane)" for domain in host.domains}
    for net in _networks(host, common) if common.has_tunnels(host) else ():
        places[f"l3hv_tunnel_devices.{net.path}.{net.domain}.{net.family}"] = host.tunnel_in(net)
    for uplink in host.uplinks:
        where = f"l3hv_uplinks.{uplink.path}"
        if uplink.nic is not None:
            places[where] = uplink.nic
            used[uplink.interface] = where
        else:
            places[f"{where}.{uplink.domain}"] = uplink.interface
    for guest in guests:
        places[f"{guest.where}.interface"] = guest.interface
    for field, interface in places.items():
        if interface in used:
            notes.add(
                field,
                interface,
                f"The interface {interface} is already used by {used[interface]}.",
                "Choose another interface.",
            )
        used.setdefault(interface, field)


def _one_of(words: Collection[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"

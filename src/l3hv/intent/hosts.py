"""The facts of one host: read, then checked against themselves and the facts of the fabric."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from l3hv.intent.fabric import COMMON_KEYS, LEAST_IPV6_MTU, mtu, path_name
from l3hv.intent.guests import (
    LONGEST_INTERFACE,
    Home,
    Written,
    interface_name,
    read_guests,
    reference,
    resolve_guests,
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
    shown,
    yes_or_no,
)
from l3hv.model.addressing import FAMILIES, Address, is_inside, numbers_of
from l3hv.model.choices import (
    KINDS,
    Anycast,
    DaemonName,
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
    built_daemons,
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
from l3hv.model.names import LONGEST_SYMBOL, bird_symbol
from l3hv.model.plan import Timers
from l3hv.model.profiles import BFD_PROFILES, FAILURE_PROFILES, SESSION_LAYOUTS
from l3hv.model.text import natural_key

HOST_KEYS = frozenset(
    {
        "l3hv_addresses",
        "l3hv_anycast",
        "l3hv_bgp_key",
        "l3hv_daemon",
        "l3hv_ecmp",
        "l3hv_ecmp_limit",
        "l3hv_edge_domains",
        "l3hv_failure_profile",
        "l3hv_guest_mtu",
        "l3hv_guests",
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
        "l3hv_session_layout",
        "l3hv_system",
        "l3hv_timers",
        "l3hv_ttl_security",
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
"""A daemon that is a system of its own, and the one that is not provisioned."""

LEAST_BFD_INTERVAL_MS = 10
"""BIRD sends and expects BFD packets no faster than this."""

LEAST_BFD_PACKETS = 3
"""Fewer packets of that pace that are late are no sign of a dead path."""

LEAST_DETECTION_MS = LEAST_BFD_PACKETS * LEAST_BFD_INTERVAL_MS

REDUCED_HOLD_S = 9
"""The default hold time where it alone finds a path that is dead without anybody noticing its carrier go."""

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

# Names that, followed by "_" and a domain, could be an attribute or function of BIRD, or something that its
# configuration names itself (kernel_public4, accept_public4, …); and Ansible's own groups.
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
            "originated",
            "own",
            "pipe",
            "refuse",
            "shared",
            "static",
        ),
        *("static", "all", "ungrouped"),
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
    """Return what a host is by the inventory groups that it is in.

    >>> host_kind("hv1", ["all", "hypervisors"])
    ('hypervisor', [])
    """
    groups = set(groups)
    ours = [group for group in KINDS if group in groups]
    if len(ours) == 1:
        return KINDS[ours[0]], []
    notes = Notes(name)
    if ours:
        message, remedy = f"The host is in {' and in '.join(ours)}.", "Keep it in one of them."
    else:
        message, remedy = "The host is in no group of the fabric.", f"Add it to {_one_of(KINDS)}."
    notes.add("groups", ours or None, message, remedy)
    return None, notes.problems


def parse_host(
    name: str, kind: Kind, variables: Mapping[str, Any], common: Common | None
) -> tuple[HostIntent | None, list[Problem]]:
    """Read the variables of one host: first their shape, then how they relate.

    Variables that are not ours (without ``l3hv_``) and those of the fabric are passed over.  Without
    ``common``, whose own shape is broken then, only the shape is checked.
    """
    notes = Notes(name)
    try:
        host_name(name)
    except Unfit as unfit:
        notes.unfit("inventory_hostname", name, unfit)
    ours = {k: v for k, v in variables.items() if isinstance(k, str) and k.startswith("l3hv_")}
    fields = Fields(notes, "", ours, COMMON_KEYS | HOST_KEYS)
    settings = _read_settings(fields)
    uplinks = _read_uplinks(fields, junos_interface if settings.daemon == JUNOS else interface_name)
    guests = read_guests(fields)
    number = fields.need("l3hv_id", host_id, "Give the host a number that no other host has.")
    path = fields.take("l3hv_path", _own_path)
    edge_domains = fields.take_all("l3hv_edge_domains", reference)
    addresses = fields.take_all("l3hv_addresses", address)
    path_addresses = _read_path_addresses(fields)
    management_sources = fields.take_all("l3hv_management_sources", address_or_network)
    if common is None or notes.problems or number is None:
        return None, notes.problems

    _check_kind(fields, kind, settings, notes)
    edge_domains = _edge_domains(kind, edge_domains, common, notes)
    host = HostIntent(
        name=name,
        kind=kind,
        id=number,
        settings=settings,
        uplinks=_resolve_uplinks(uplinks, kind, edge_domains, common, notes),
        edge_domains=edge_domains,
        addresses=tuple(map(str, addresses)),
        path_addresses=_path_addresses(path_addresses, common, notes),
        management_sources=tuple(map(str, management_sources)),
        bgp_keys=_bgp_keys(fields.raw.get("l3hv_bgp_key"), uplinks, common, notes),
        ecmp=_ecmp(fields, common),
        guests=(),
    )
    _check_uplinks(host, path, notes)
    _check_id(host, common, notes)
    _check_mtu(host, common, notes)
    _check_daemon(settings, kind, notes)
    _check_timers(host, notes)
    _check_name(name, common, notes)
    _check_addresses(addresses, common, notes)
    home = Home(notes, common, host.domains, mtu=settings.mtu, guest_mtu=settings.guest_mtu)
    host = dataclasses.replace(host, guests=resolve_guests(guests, home))
    _check_interfaces(host, guests, notes)
    return (None if notes.problems else host), notes.distinct()


# Shape.


def _read_settings(fields: Fields) -> Settings:
    uplink_mtu = fields.take("l3hv_mtu", mtu, DEFAULT_MTU)
    daemon = fields.take("l3hv_daemon", _daemon, DEFAULT_DAEMON)
    profile = fields.take("l3hv_failure_profile", OneOf[FailureProfile](*FAILURE_PROFILES), DEFAULT_PROFILE)
    return Settings(
        mtu=uplink_mtu,
        guest_mtu=fields.take("l3hv_guest_mtu", mtu, DEFAULT_MTU),
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


def _own_path(value: object) -> str:
    if isinstance(value, dict):
        raise Unfit("the name of one path", "The paths of the fabric are described in l3hv_paths.")
    return path_name(value)


def _daemon(value: object) -> DaemonName:
    return OneOf[DaemonName](*built_daemons())(value)


def _read_timers(fields: Fields, profile: FailureProfile, daemon: DaemonName) -> Timers:
    """Read the timers. Of two ends the shorter hold time counts: one without BFD asks for a short one."""
    defaults = {name: default for name, (_, default) in TIMERS.items()}
    if profile in REDUCED_HOLD_PROFILES or daemon in WITHOUT_BFD:
        defaults["hold_s"] = REDUCED_HOLD_S
    values = {name: fields.take(name, bounds, defaults[name]) for name, (bounds, _) in TIMERS.items()}
    # RFC 4271, section 4.4: a third of the hold time.
    return Timers(keepalive_s=values["hold_s"] // 3, **values)


def _read_uplinks(fields: Fields, name_of_interface: Text) -> dict[str, str | dict[str, str]]:
    """Return, by path, the NIC that carries all domains or an interface for each of them."""
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
                domain: domains.take(domain, name_of_interface, "") for domain, _ in domains.names(reference)
            }
        elif value is None or value == {}:
            fields.notes.add(nested.path(path), None, "is empty.", "Name its interface, or remove the path.")
        else:
            uplinks[path] = nested.take(path, name_of_interface, "")
    return uplinks


def _read_path_addresses(fields: Fields) -> dict[tuple[str, str], dict[Family, Address]]:
    """Return the addresses by path and domain, and there by family."""
    found: dict[tuple[str, str], dict[Family, Address]] = {}
    for path, domains in fields.mapping("l3hv_path_addresses").named(path_name):
        for domain, families in domains.named(reference, frozenset(FAMILIES)):
            here = found[path, domain] = {}
            if (ipv4 := families.take("ipv4", ipv4_address)) is not None:
                here["ipv4"] = ipv4
            if (ipv6 := families.take("ipv6", ipv6_address)) is not None:
                here["ipv6"] = ipv6
    return found


# Relations.


def _path_addresses(
    declared: Mapping[tuple[str, str], Mapping[Family, Address]], common: Common, notes: Notes
) -> tuple[PathAddress, ...]:
    """Return the addresses that do not follow from the host's id, in the order of paths and domains.

    A group may set them for paths that not all of its hosts are on.
    """
    found = []
    for (path, domain), families in declared.items():
        for family, own in families.items():
            where = f"l3hv_path_addresses.{path}.{domain}.{family}"
            network = common.network(path, domain, family)
            if network is None:
                notes.add(
                    where,
                    own,
                    f"{domain} has no {family} prefix on path {path}.",
                    "Remove the address, or add the prefix to l3hv_paths.",
                )
            elif not is_inside(own, network.prefix) or (
                int(own) - int(network.prefix.network_address) not in numbers_of(network.prefix)
            ):
                notes.add(
                    where,
                    own,
                    f"{own} is no host address of {network.prefix} (path {path}, {domain}).",
                    f"Choose an address of {network.prefix}.",
                )
            else:
                found.append(PathAddress(path, domain, str(own)))
    return tuple(sorted(found, key=lambda own: (natural_key(own.path), own.domain, ":" in own.address)))


def _check_kind(fields: Fields, kind: Kind, settings: Settings, notes: Notes) -> None:
    """Some variables make sense for one kind of host only."""
    for key, owner, plural in (
        ("l3hv_guests", "hypervisor", "hypervisors have guests"),
        ("l3hv_anycast", "hypervisor", "hypervisors have guests whose flows they spread"),
        ("l3hv_path", "route_reflector", "route reflectors have a path of their own"),
        ("l3hv_neighbors", "route_reflector", "route reflectors have clients"),
        ("l3hv_edge_domains", "edge_router", "edge routers announce default routes"),
        ("l3hv_addresses", "edge_router", "edge routers have such addresses"),
    ):
        value = fields.raw.get(key)
        if value and kind != owner:
            notes.add(key, value, f"Only {plural}.", "Remove it, or move the host to the other group.")
    if kind == "edge_router" and fields.raw.get("l3hv_management_sources"):
        notes.add(
            "l3hv_management_sources",
            fields.raw["l3hv_management_sources"],
            "The uplinks of an edge router are open to all but routing.",
            "Remove it: it is for hypervisors and route reflectors.",
        )
    if settings.managed and settings.daemon == JUNOS:
        notes.add(
            "l3hv_managed",
            True,
            "A router of Junos is not provisioned: its configuration is rendered.",
            "Remove it, and run playbooks/render_junos.yml.",
        )
    if settings.managed and not settings.ttl_security:
        notes.add(
            "l3hv_ttl_security",
            False,
            "A managed host sends BGP with a TTL of 255 (RFC 5082) and checks that of its neighbours.",
            "Remove it: it is for hosts with l3hv_managed: false whose daemon sends another TTL.",
        )


def _bgp_keys(
    value: object, paths: Collection[str], common: Common, notes: Notes
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a path and the name of its key: one name for all paths, or one for each.

    A group can name keys of paths that not all of its hosts are on.  What is written instead of the name of
    a path or a key may be a secret, so no problem repeats it.
    """
    if isinstance(value, Mapping):
        names = value
        for path, name in names.items():
            if path in common.paths:
                _check_key(f"l3hv_bgp_key.{path}", name, common, notes)
                continue
            key = f"The key {name} is" if name in common.bgp_keys else "There is a key"
            message = f"{key} for a path that the fabric has not."
            notes.add("l3hv_bgp_key", None, message, f"Choose of {', '.join(common.paths)}.")
    else:
        names = {} if value is None else dict.fromkeys(common.paths, value)
        if names:
            _check_key("l3hv_bgp_key", value, common, notes)
    return tuple((path, names[path]) for path in sorted(paths, key=natural_key) if path in names)


def _check_key(where: str, name: object, common: Common, notes: Notes) -> None:
    if name in common.bgp_keys:
        return
    remedy = "Name its key in l3hv_bgp_keys."
    if common.bgp_keys:
        close = get_close_matches(name, common.bgp_keys, n=1) if isinstance(name, str) else []
        meant = f"Did you mean '{close[0]}'? " if close else ""
        remedy = f"{meant}Choose one of {', '.join(common.bgp_keys)}."
    notes.add(where, None, "This is not the name of one of the fabric's keys.", remedy)


def _ecmp(fields: Fields, common: Common) -> tuple[tuple[str, Ecmp], ...]:
    """Return the pairs of a domain and which of its routes may have several next hops.

    One word is for all domains.  A group can speak of domains that not all of its hosts are in.
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
        here = common.domains_of_path(path)
        uplink = uplinks[path]
        if isinstance(uplink, str):
            served = [d for d in here if kind != "edge_router" or d.name in edge_domains]
            resolved += _vlan_uplinks(path, uplink, served, notes)
            continue
        resolved += [
            UplinkIntent(path, domain.name, uplink[domain.name], None)
            for domain in here
            if domain.name in uplink
        ]
        for name in uplink.keys() - {domain.name for domain in here}:
            notes.add(
                f"{where}.{name}",
                name,
                f"The path {path} has no domain {name}.",
                f"Choose one of {', '.join(domain.name for domain in here)}.",
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
            f"The VLAN interface {longest} would have {len(longest)} bytes in its name.",
            f"The kernel allows {LONGEST_INTERFACE}: give the NIC a shorter name with a systemd.link file.",
        )


def _check_uplinks(host: HostIntent, path: str | None, notes: Notes) -> None:
    paths = list(dict.fromkeys(uplink.path for uplink in host.uplinks))
    if host.kind == "route_reflector":
        if len(paths) > 1:
            notes.add(
                "l3hv_uplinks",
                paths,
                f"A reflector on {len(paths)} paths would hide those that it does not prefer.",
                "Give each path a reflector of its own.",
            )
        elif path is not None and paths and path != paths[0]:
            notes.add(
                "l3hv_path",
                path,
                f"The uplink is on path {paths[0]}.",
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
    """The id must be a host number in every prefix that it is added to."""
    prefixes = [
        (n.prefix, f"{n.prefix} (path {n.path}, {n.domain})")
        for n in _networks(host, common)
        if declared_address(n, host.path_addresses) is None
    ]
    if host.kind == "hypervisor":
        for domain in common.domains:
            if domain.name in host.domains:
                prefixes += [(p, f"{p} (loopbacks, {domain.name})") for p in domain.loopbacks]
    # Prefixes without room for any host are a problem of the fabric, and noted there.
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
    if guest > uplink:
        notes.add(
            "l3hv_guest_mtu",
            guest,
            f"Guests would have an MTU of {guest}, the uplinks {uplink}.",
            f"Choose at most {uplink}, or raise l3hv_mtu.",
        )
    has_ipv6 = any("ipv6" in domain.families for domain in common.domains)
    for key, value in (("l3hv_mtu", uplink), ("l3hv_guest_mtu", guest)):
        if has_ipv6 and value < LEAST_IPV6_MTU:
            notes.add(
                key, value, f"IPv6 does not work with an MTU of {value}.", f"Choose {LEAST_IPV6_MTU} or more."
            )


def _check_daemon(settings: Settings, kind: Kind, notes: Notes) -> None:
    if settings.daemon in REFLECTORS_ONLY and kind != "route_reflector" and settings.managed:
        usable = [daemon for daemon in built_daemons() if daemon not in REFLECTORS_ONLY]
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            f"{TITLES[settings.daemon]} only reflects here: it puts no routes into kernel tables.",
            f"Use {_one_of(usable)}, or make the host a route reflector.",
        )
    elif (settings.daemon, settings.system) not in DAEMONS:
        systems = systems_with(settings.daemon)
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            f"{SYSTEM_NAMES[settings.system]} has no {settings.daemon}.",
            f"Use {DEFAULT_DAEMON}, or one of the systems that have it: {', '.join(systems)} (l3hv_system).",
        )
    if settings.daemon in PER_FAMILY and settings.session_layout != "per_family":
        notes.add(
            "l3hv_session_layout",
            settings.session_layout,
            f"A session of {settings.daemon} carries one family: it is a process for each.",
            "Say per_family for this host, or nothing, or choose bird2.",
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
            f"{TITLES[daemon.name]} {daemon.version} has no control socket that only answers questions: "
            "its one socket allows changes as well.",
            f"Write null for this host, or choose {_one_of(readable)}.",
        )
    if kind == "route_reflector" and settings.origin_validation == "strict":
        _check_validation(settings, notes)
    if settings.daemon in WITHOUT_RANGES and settings.neighbors == "range":
        notes.add(
            "l3hv_neighbors",
            settings.neighbors,
            f"{TITLES[settings.daemon]} is given its neighbours one by one here.",
            "Use explicit, or choose bird2.",
        )


def _check_validation(settings: Settings, notes: Notes) -> None:
    if settings.daemon not in VALIDATING:
        notes.add(
            "l3hv_origin_validation",
            settings.origin_validation,
            f"{settings.daemon} is not told whose the guests' prefixes are.",
            f"Use pool for this host, or choose {_one_of(sorted(VALIDATING))}.",
        )
    elif settings.neighbors == "range":
        notes.add(
            "l3hv_origin_validation",
            settings.origin_validation,
            "The reflector takes clients from a range, and does not know who of them is who.",
            "Use pool for this host, or l3hv_neighbors: explicit.",
        )


def _check_timers(host: HostIntent, notes: Notes) -> None:
    """BFD's timers count where the host uses BFD; a reflector does what its clients do."""
    timers = host.settings.timers
    if host.settings.failure_profile not in BFD_PROFILES and host.kind != "route_reflector":
        return
    detection_ms = timers.bfd_interval_ms * timers.bfd_multiplier
    if detection_ms < LEAST_DETECTION_MS:
        notes.add(
            "l3hv_timers",
            detection_ms,
            f"A path that BFD hears nothing of for {detection_ms} ms may be alive: BIRD sends every "
            f"{LEAST_BFD_INTERVAL_MS} ms at best, and {LEAST_BFD_PACKETS} packets can be late.",
            f"Raise bfd_interval_ms or bfd_multiplier: {LEAST_DETECTION_MS} ms will do.",
        )
    daemon = DAEMONS.get((host.settings.daemon, host.settings.system))
    if daemon and daemon.version in WITHOUT_SINGLE_BFD_MISS and timers.bfd_multiplier == 1:
        message = f"{TITLES[daemon.name]} {daemon.version} takes 2 at least."
        notes.add("l3hv_timers.bfd_multiplier", 1, message, "Write 2, and halve bfd_interval_ms.")
    if detection_ms >= timers.hold_s * 1000:
        notes.add(
            "l3hv_timers",
            detection_ms,
            f"BFD would need {detection_ms} ms to see what the hold time of {timers.hold_s} s ends anyway.",
            "Lower bfd_interval_ms or bfd_multiplier, or raise hold_s.",
        )


def _check_name(name: str, common: Common, notes: Notes) -> None:
    """BIRD calls a session by the names of the host and the domain."""
    longest = max((len(domain.name) for domain in common.domains), default=0)
    room = LONGEST_SYMBOL - len("_") - longest
    if len(bird_symbol(name)) > room:
        notes.add(
            "inventory_hostname",
            name,
            f"{name} is too long for BIRD, which would add the domain to it.",
            f"Rename the host: {room} characters are left for it.",
        )


def _check_addresses(addresses: tuple[Address, ...], common: Common, notes: Notes) -> None:
    """What an edge router answers for itself is not part of the fabric, and named once."""
    for own in (own for own, times in Counter(addresses).items() if times > 1):
        notes.add("l3hv_addresses", own, f"{own} is listed twice.", "Keep one of them.")
    ours = [network.prefix for network in common.networks]
    ours += [prefix for domain in common.domains for prefix in domain.loopbacks]
    ours += [prefix for pool in common.pools for prefix in pool.prefixes]
    for own in addresses:
        for prefix in ours:
            if own.version == prefix.version and own in prefix:
                notes.add(
                    "l3hv_addresses",
                    own,
                    f"{own} is in {prefix} of the fabric.",
                    "Choose an address that is outside the fabric.",
                )


def _check_interfaces(host: HostIntent, guests: Iterable[Written], notes: Notes) -> None:
    """Each interface is used once: a NIC by its path, the others by their domain or guest."""
    places: dict[str, str] = {}
    used: dict[str, str] = {}
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
                f"The interface {interface} is that of {used[interface]} already.",
                "Choose another interface.",
            )
        used.setdefault(interface, field)


def _one_of(words: Collection[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"

"""The facts that all hosts of a fabric share: read, then checked against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import chain, count
from typing import Any

from l3hv.intent.igp import check_underlay
from l3hv.intent.shape import (
    Fields,
    Notes,
    OneOf,
    Text,
    Unfit,
    WholeNumber,
    address,
    ipv4_address,
    ipv4_network,
    ipv6_network,
    mac,
    network,
    yes_or_no,
)
from l3hv.model.addressing import (
    FAMILIES,
    GUEST_PREFIX_LENGTH,
    HOST_LENGTH,
    LINK_LOCAL4,
    LINK_LOCAL_GATEWAY4,
    METADATA_SERVICE,
    Network,
    family_of,
    family_of_text,
    is_inside,
    numbers_of,
)
from l3hv.model.choices import (
    ANNOUNCEMENTS,
    IGPS,
    LINKS,
    REFLECTIONS,
    UNDERLAYS,
    Announce,
    DomainKind,
    Family,
    Igp,
    Links,
    Reflection,
    Underlay,
)
from l3hv.model.errors import FABRIC, Problem
from l3hv.model.intent import Common, Domain, Encapsulation, PathNetwork, Pool
from l3hv.model.text import natural_key

COMMON_KEYS = frozenset(
    {
        "l3hv_announce",
        "l3hv_asn",
        "l3hv_bgp_keys",
        "l3hv_domains",
        "l3hv_encapsulation",
        "l3hv_fabric",
        "l3hv_gateway_mac",
        "l3hv_igp",
        "l3hv_links",
        "l3hv_local_out",
        "l3hv_paths",
        "l3hv_pools",
        "l3hv_reflection",
        "l3hv_rule_priority",
        "l3hv_underlay",
    }
)
"""The variables that must be the same for every host."""

SPREAD_TABLE_OFFSET = 1000
"""Default distance from a domain's kernel table to its table of spread anycast."""

DEFAULT_FABRIC = "l3hv"
DEFAULT_LOCAL_OUT_TABLE = 100
DEFAULT_GATEWAY_MAC = "02:6c:33:68:76:01"
"""Locally administered; bytes two to five spell "l3hv" in ASCII."""
DEFAULT_RULE_PRIORITY = 1000
DEFAULT_HOPS = 2
"""One router between two hosts, which are one hop from it each."""
MOST_PATHS = 4
LEAST_IPV6_MTU = 1280
"""RFC 8200, section 5."""
MOST_DNS_SERVERS = 16
"""The limit of l3hv for each family: a resolver asks the first three."""
OPTION_BYTES = 255
"""The size of an option of DHCPv4 (RFC 2132)."""
DNSMASQ_LINE = 1024
"""The characters in a line that dnsmasq 2.90 and 2.91 read. It uses only the last line for an option."""
LINK_LOCAL_WORD = "link_local"
"""The word in ``gateway`` that stands for the link-local gateway."""
BLOCK_OF_ADDRESSES: dict[Family, int] = {"ipv4": 26, "ipv6": 122}
"""The default lengths of the blocks of pools: 64 addresses, as in Calico."""
_FAMILY_KEYS = frozenset(FAMILIES)

# Names that no domain can have.  The first row has the kernel's own names (rt_tables(5)), and "all" and
# "cache", which are keywords of ip-route(8).  The second row, followed by "4" or "6", gives keywords or
# predefined tables of BIRD, or the tables of shared sessions or of an IGP.  A domain "spread" would give
# sessions that end in "_spread", as BIRD's tables of spread anycast do.
_RESERVED_DOMAINS = frozenset(
    {
        *("all", "cache", "default", "local", "main", "unspec"),
        *("as", "flow", "igp", "ipv", "master", "roa", "shared", "spread", "vpn"),
    }
)
_KERNEL_TABLES = {253: "default", 254: "main", 255: "local"}

fabric_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "a name of letters, digits, '.', '_' and '-' (at most 63)",
    "Choose a name of these characters, beginning with a letter or digit.",
)
domain_name = Text(
    r"[a-z][a-z0-9]{0,14}",
    "a domain's name of lower-case letters and digits (at most 15, a letter first) that the kernel does not"
    " use itself",
    "Choose a name such as public or private.",
    _RESERVED_DOMAINS,
    "the kernel or BIRD uses them itself",
)
link_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "the name of a host: letters, digits, '.', '_' and '-' (at most 63)",
    "Name the leaf, spine or host at the other end of the link.",
)
path_name = Text(
    r"[a-z0-9]{1,8}",
    "a path's name of lower-case letters and digits (at most 8)",
    "Choose a short name such as a or b.",
)
pool_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}",
    "a pool's name of letters, digits, '_' and '-' (at most 31)",
    "Choose a name of these characters, beginning with a letter or digit.",
)
key_name = Text(
    r"[a-z][a-z0-9]{0,14}",
    "a key's name of lower-case letters and digits (at most 15, a letter first)",
    "Choose a name such as fabric.",
)
dns_domain = Text(
    r"(?=.{1,253})[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    "a DNS domain",
    "Write it like example.net.",
)
asn = WholeNumber(1, 4294967294, "an AS number")
table_number = WholeNumber(1, 2**31 - 1, "a table number")
"""ip-route(8) accepts no names for tables with larger numbers."""
vlan_id = WholeNumber(1, 4094, "a VLAN id")
mtu = WholeNumber(576, 65535, "an MTU")
rule_priority = WholeNumber(1, 32765, "a rule priority")
hops = WholeNumber(1, 254, "a number of hops")


def parse_common(variables: Mapping[str, Any]) -> tuple[Common | None, list[Problem]]:
    """Read the fabric-wide variables (:data:`COMMON_KEYS`); return the facts and their problems.

    The facts are ``None`` if they are too incomplete to check hosts against them.
    """
    notes = Notes(FABRIC)
    fields = Fields(notes, "", {key: variables[key] for key in COMMON_KEYS if key in variables})
    local_out = fields.mapping("l3hv_local_out", {"table"})
    number = fields.need("l3hv_asn", asn, "Give the fabric an AS number, for example 65000.")
    underlay: Underlay = fields.take("l3hv_underlay", OneOf[Underlay](*UNDERLAYS), "l2")
    has_links = underlay == "leaf_spine"
    links: Links = fields.take("l3hv_links", OneOf[Links](*LINKS), "unnumbered")
    remedy = "Describe all paths of the fabric here; name the path of a reflector in l3hv_path."
    networks = _networks(fields.mapping("l3hv_paths", remedy=remedy), link_name if has_links else path_name)
    local_out_table = local_out.take("table", table_number, DEFAULT_LOCAL_OUT_TABLE)
    domains = _domains(
        fields.mapping("l3hv_domains"), networks, is_unnumbered=has_links and links == "unnumbered"
    )
    domains = _with_spread_tables(domains, local_out_table)
    pools = _pools(fields.mapping("l3hv_pools"), domains)
    common = Common(
        fabric=fields.take("l3hv_fabric", fabric_name, DEFAULT_FABRIC),
        asn=number or 0,
        domains=domains,
        local_out_table=local_out_table,
        paths=() if has_links else tuple(sorted({net.path for net in networks}, key=natural_key)),
        networks=() if has_links else _in_order(networks, domains),
        pools=pools,
        gateway_mac=fields.take("l3hv_gateway_mac", mac, DEFAULT_GATEWAY_MAC),
        rule_priority=fields.take("l3hv_rule_priority", rule_priority, DEFAULT_RULE_PRIORITY),
        bgp_keys=_bgp_keys(fields),
        announce=fields.take("l3hv_announce", OneOf[Announce](*ANNOUNCEMENTS), "guests"),
        reflection=fields.take("l3hv_reflection", OneOf[Reflection](*REFLECTIONS), "reflectors"),
        encapsulation=_encapsulation(fields),
        underlay=underlay,
        igp=fields.take("l3hv_igp", OneOf[Igp](*IGPS), "rip"),
        links=links,
        link_prefixes=_in_order(networks, domains) if has_links else (),
    )
    _check_links(fields, common, notes)
    _check_presence(fields, notes, has_paths=not common.is_unnumbered)
    if notes.problems:
        return None, notes.problems
    _check_domain_kinds(common, notes)
    if not notes.problems:
        _check_references(common, notes)
    if notes.problems:
        return None, notes.distinct()
    _check_domains(common, notes)
    if not common.has_links:
        _check_paths(common, notes)
    for pool in common.pools:
        _check_pool(common, pool, notes)
    _check_numbers(common, notes)
    _check_overlaps(common, notes)
    check_underlay(common, fields.raw.get("l3hv_igp"), notes)
    return common, notes.problems


# Shape.


def _encapsulation(fields: Fields) -> Encapsulation | None:
    """Return the tunnels between hosts: a word, or a mapping with the word as ``kind``."""
    key, word = "l3hv_encapsulation", OneOf("none", "ipip")
    chosen = fields
    if isinstance(fields.raw.get(key), dict):
        chosen = fields.mapping(key, {"hops", "kind", "only_other_subnets"})
        key = "kind"
        if chosen.raw.get(key) is None:
            chosen.notes.add(chosen.path(key), None, "is missing.", "Write ipip, or none.")
    is_mapping = chosen is not fields
    found = Encapsulation(
        only_other_subnets=is_mapping and chosen.take("only_other_subnets", yes_or_no, False),
        hops=chosen.take("hops", hops, DEFAULT_HOPS) if is_mapping else DEFAULT_HOPS,
    )
    return None if chosen.take(key, word, "none") == "none" else found


def all_networks(common: Common) -> tuple[PathNetwork, ...]:
    """Return the prefixes of all paths, or those from which the links of leaves and spines are cut."""
    return common.networks + common.link_prefixes


def _check_presence(fields: Fields, notes: Notes, *, has_paths: bool) -> None:
    if not fields.raw.get("l3hv_domains"):
        notes.add("l3hv_domains", None, "is missing.", "Describe at least the domain public.")
    paths = fields.raw.get("l3hv_paths")
    is_leaf_spine = fields.raw.get("l3hv_underlay") == "leaf_spine"
    if not paths and has_paths:
        message = (
            "Give each leaf and spine a prefix for its links."
            if is_leaf_spine
            else "Describe at least one path."
        )
        notes.add("l3hv_paths", None, "is missing.", message)
    elif isinstance(paths, dict) and len(paths) > MOST_PATHS and not is_leaf_spine:
        notes.add("l3hv_paths", paths, f"There are {len(paths)} paths.", f"Use at most {MOST_PATHS}.")


def _check_links(fields: Fields, common: Common, notes: Notes) -> None:
    """Note settings that leaves and spines do not have, or that only they have."""
    if not common.has_links:
        if fields.raw.get("l3hv_links") is not None:
            notes.add(
                "l3hv_links",
                common.links,
                "Only a fabric of leaves and spines has links; on L2 paths hosts share a prefix.",
                "Remove it, or set l3hv_underlay: leaf_spine.",
            )
        return
    if common.is_mesh:
        notes.add(
            "l3hv_reflection",
            common.reflection,
            "With leaves and spines a host has sessions with its leaves only.",
            "Remove it, or set l3hv_underlay: l2.",
        )
    if common.announce == "blocks":
        notes.add(
            "l3hv_announce",
            common.announce,
            "Leaves accept each guest by itself: blocks are not supported with leaves and spines.",
            "Remove it, or set l3hv_underlay: l2.",
        )
    if common.is_unnumbered and fields.raw.get("l3hv_paths"):
        notes.add(
            "l3hv_paths",
            ", ".join(map(str, fields.raw["l3hv_paths"])),
            "Unnumbered links have no prefixes.",
            "Remove it, or set l3hv_links: numbered.",
        )


def _bgp_keys(fields: Fields) -> tuple[str, ...]:
    """Return the names of the keys that sessions can use, all of the kind ``md5``.

    A wrong value may be a secret that was written in the wrong place, so no problem repeats it.
    """
    if not isinstance(fields.raw.get("l3hv_bgp_keys", {}), dict | None):
        message = "expected a mapping from each key's name to its kind."
        remedy = "Write it as 'fabric: md5'; put its secret into l3hv_bgp_secrets."
        fields.notes.add("l3hv_bgp_keys", None, message, remedy)
        return ()
    keys = fields.mapping("l3hv_bgp_keys")
    kinds = list(keys.names(key_name))
    for name, kind in kinds:
        if kind == "ao":
            message = "No kernel of Debian 12 or 13 is built with TCP-AO (CONFIG_TCP_AO)."
            keys.notes.add(keys.path(name), None, message, "Use md5.")
        elif kind != "md5":
            message = "expected the kind of the key, md5."
            keys.notes.add(keys.path(name), None, message, "Put its secret into l3hv_bgp_secrets.")
    return tuple(name for name, _ in kinds)


def _networks(paths: Fields, name: Text) -> tuple[PathNetwork, ...]:
    return tuple(
        PathNetwork(path, domain, prefix)
        for path, domains in paths.named(name)
        for domain, families in domains.named(domain_name, _FAMILY_KEYS)
        for prefix in _prefixes(families)
    )


def _prefixes(families: Fields) -> tuple[Network, ...]:
    """Return the prefixes of a mapping from family to prefix, which may not be empty."""
    if not families.raw:
        families.notes.add(
            families.where, None, "has no prefix.", "Give it a prefix for ipv4, for ipv6, or for both."
        )
    prefixes = (families.take("ipv4", ipv4_network), families.take("ipv6", ipv6_network))
    return tuple(prefix for prefix in prefixes if prefix is not None)


def _domains(
    domains: Fields, networks: tuple[PathNetwork, ...], *, is_unnumbered: bool
) -> tuple[Domain, ...]:
    known = {"accept", "families", "kind", "loopbacks", "spread_table", "table", "vlan"}
    parsed = [
        _domain(name, fields, networks, is_unnumbered=is_unnumbered)
        for name, fields in domains.named(domain_name, known)
    ]
    return tuple(sorted(parsed, key=lambda domain: (domain.kind != "public", domain.name)))


def _domain(name: str, fields: Fields, networks: tuple[PathNetwork, ...], *, is_unnumbered: bool) -> Domain:
    loopbacks = fields.mapping("loopbacks", _FAMILY_KEYS)
    path_families = {net.family for net in networks if net.domain == name}
    families = set(fields.take_all("families", OneOf[Family](*FAMILIES))) or path_families
    if not families and is_unnumbered:
        families = set(FAMILIES)
    table = fields.need("table", table_number, "Give the domain a kernel table, for example 90.") or 0
    return Domain(
        name=name,
        kind=_domain_kind(name, fields),
        table=table,
        spread_table=fields.take("spread_table", table_number) or 0,
        vlan=fields.take("vlan", vlan_id),
        families=tuple(family for family in FAMILIES if family in families),
        loopbacks=_prefixes(loopbacks) if fields.raw.get("loopbacks") is not None else (),
        accept=tuple(sorted(set(fields.take_all("accept", network)), key=_by_address)),
    )


def _with_spread_tables(domains: tuple[Domain, ...], local_out_table: int) -> tuple[Domain, ...]:
    """Assign a free table for spread anycast to each domain whose intent names none."""
    taken = {*_KERNEL_TABLES, local_out_table}
    taken.update(number for domain in domains for number in (domain.table, domain.spread_table))
    assigned = []
    for domain in domains:
        number = domain.spread_table
        if not number:
            above = range(domain.table + SPREAD_TABLE_OFFSET, table_number.high + 1)
            # Lower numbers are used only if every higher number is taken.
            number = next(free for free in chain(above, count(1)) if free not in taken)
            taken.add(number)
        assigned.append(replace(domain, spread_table=number))
    return tuple(assigned)


def _domain_kind(name: str, fields: Fields) -> DomainKind:
    kinds = OneOf[DomainKind]("public", "private")
    if fields.raw.get("kind") is None and name not in kinds.words:
        fields.need("kind", kinds, "Set it to public or private: it does not follow from the domain's name.")
    return fields.take("kind", kinds, "private" if name == "private" else "public")


def _pools(pools: Fields, domains: tuple[Domain, ...]) -> tuple[Pool, ...]:
    known = {"block", "dns", "domain", "gateway", "ipv4", "ipv6", "ipv6_mode", "mtu", "routes", "search"}
    public = next((domain.name for domain in domains if domain.kind == "public"), "public")
    parsed = (_pool(name, fields, public) for name, fields in pools.named(pool_name, known))
    return tuple(sorted(parsed, key=lambda pool: natural_key(pool.name)))


def _pool(name: str, fields: Fields, public: str) -> Pool:
    gateway = fields.take("gateway", _gateway)
    shared_ipv6 = fields.take("ipv6_mode", OneOf("prefix", "address"), "prefix") == "address"
    ipv4, ipv6 = fields.take("ipv4", ipv4_network), fields.take("ipv6", ipv6_network)
    return Pool(
        name=name,
        domain=fields.take("domain", domain_name, public),
        ipv4=ipv4,
        gateway=gateway,
        ipv6=ipv6,
        shared_ipv6=shared_ipv6,
        mtu=fields.take("mtu", mtu),
        dns=tuple(str(server) for server in fields.take_all("dns", address)),
        search=fields.take_all("search", dns_domain),
        routes=_pool_routes(fields, gateway),
        block_lengths=_block_lengths(fields, ipv4, ipv6, shared_ipv6=shared_ipv6),
    )


def _block_lengths(
    fields: Fields, ipv4: IPv4Network | None, ipv6: IPv6Network | None, *, shared_ipv6: bool
) -> dict[Family, int]:
    """Return the lengths of the blocks of a pool; a prefix that is smaller than a default block has none.

    A guest's /64 has the number of its IPv4 address, so by default both of its blocks have the same guests.
    """
    block = fields.mapping("block", _FAMILY_KEYS)
    length4 = block.take("ipv4", WholeNumber(1, 31, "a prefix length"), BLOCK_OF_ADDRESSES["ipv4"])
    of_prefixes = GUEST_PREFIX_LENGTH - (HOST_LENGTH["ipv4"] - length4)
    default6 = BLOCK_OF_ADDRESSES["ipv6"] if shared_ipv6 else of_prefixes
    length6 = block.take("ipv6", WholeNumber(1, 127, "a prefix length"), default6)
    lengths: dict[Family, int] = {}
    if ipv4 is not None and ("ipv4" in block.raw or ipv4.prefixlen <= length4):
        lengths["ipv4"] = length4
    if ipv6 is not None and ("ipv6" in block.raw or ipv6.prefixlen <= length6):
        lengths["ipv6"] = length6
    return lengths


def _gateway(value: object) -> IPv4Address:
    if value == LINK_LOCAL_WORD:
        return LINK_LOCAL_GATEWAY4
    try:
        return ipv4_address(value)
    except Unfit as unfit:
        raise Unfit(
            f"{unfit.expected} or {LINK_LOCAL_WORD}",
            f"{unfit.remedy} For a gateway in no subnet, write {LINK_LOCAL_WORD}.",
        ) from None


def _pool_routes(fields: Fields, gateway: IPv4Address | None) -> tuple[tuple[str, str], ...]:
    """Return (prefix, gateway) pairs of a mapping, or of a list whose routes all use the pool's gateway."""
    routes = fields.raw.get("routes")
    if isinstance(routes, (list, tuple)):
        pairs = [(prefix, gateway) for prefix in fields.take_all("routes", _route_prefix)]
    else:
        nested = fields.mapping("routes")
        pairs = [
            (_route_prefix(key), nested.take(key, ipv4_address, gateway))
            for key, _ in nested.names(_route_key)
        ]
    if pairs and gateway is None and any(via is None for _, via in pairs):
        fields.notes.add(
            fields.path("routes"),
            None,
            "The pool has no gateway for its routes.",
            "Give each route a gateway.",
        )
    return tuple((str(prefix), str(via)) for prefix, via in sorted(pairs, key=lambda p: _by_address(p[0])))


def _route_prefix(value: object) -> IPv4Network:
    """Convert to a prefix that DHCP hands out; unlike others it may be the default route."""
    return IPv4Network("0.0.0.0/0") if value == "0.0.0.0/0" else ipv4_network(value)


def _route_key(value: object) -> str:
    _route_prefix(value)
    return str(value)


def _by_address(prefix: Network) -> tuple[int, int, int]:
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)


def _in_order(networks: Iterable[PathNetwork], domains: tuple[Domain, ...]) -> tuple[PathNetwork, ...]:
    rank = {domain.name: index for index, domain in enumerate(domains)}
    return tuple(
        sorted(
            networks,
            key=lambda net: (
                natural_key(net.path),
                rank.get(net.domain, len(rank)),
                net.family,
            ),
        )
    )


# Relations.


def _check_domain_kinds(common: Common, notes: Notes) -> None:
    """Note a problem unless exactly one domain is public and at most one is private.

    All later checks depend on it.
    """
    for kind, least in (("public", 1), ("private", 0)):
        names = [domain.name for domain in common.domains if domain.kind == kind]
        if len(names) > 1:
            notes.add(
                "l3hv_domains",
                names,
                f"The domains {' and '.join(names)} are both {kind}.",
                f"Keep one {kind} domain.",
            )
        if len(names) < least:
            notes.add("l3hv_domains", None, f"No domain is {kind}.", f"Give one domain 'kind: {kind}'.")


def _check_references(common: Common, notes: Notes) -> None:
    known = [domain.name for domain in common.domains]
    for place, name in (
        *((f"l3hv_paths.{net.path}.{net.domain}", net.domain) for net in all_networks(common)),
        *((f"l3hv_pools.{pool.name}.domain", pool.domain) for pool in common.pools),
    ):
        if name not in known:
            notes.add(place, name, f"There is no domain {name}.", f"Choose one of {', '.join(known)}.")


def _check_domains(common: Common, notes: Notes) -> None:
    for domain in common.domains:
        where = f"l3hv_domains.{domain.name}"
        path_families = {net.family for net in all_networks(common) if net.domain == domain.name}
        if common.is_unnumbered:
            path_families = set(domain.families)
        if not path_families:
            notes.add(
                where,
                None,
                "The domain is on no path.",
                "Give it a prefix on a path in l3hv_paths.",
            )
        for family in domain.families:
            if path_families and family not in path_families:
                notes.add(
                    f"{where}.families",
                    family,
                    f"No path has an {family} prefix for {domain.name}.",
                    f"Add one in l3hv_paths, or remove {family} here.",
                )
        for prefix in domain.loopbacks + domain.accept:
            _check_family(domain, prefix, where, notes)


def _check_family(domain: Domain, prefix: Network, where: str, notes: Notes) -> None:
    family = family_of(prefix)
    if domain.families and family not in domain.families:
        notes.add(
            where,
            prefix,
            f"{prefix} is {family}, which {domain.name} does not have.",
            f"Add {family} to l3hv_domains.{domain.name}.families, or remove the prefix.",
        )


def _check_paths(common: Common, notes: Notes) -> None:
    for net in common.networks:
        where = f"l3hv_paths.{net.path}.{net.domain}"
        _check_family(common.domain(net.domain), net.prefix, where, notes)
        if not numbers_of(net.prefix):
            notes.add(
                f"{where}.{net.family}",
                net.prefix,
                f"{net.prefix} has no room for hosts.",
                "Choose a shorter prefix: each host gets the address with its l3hv_id.",
            )


def _check_pool(common: Common, pool: Pool, notes: Notes) -> None:
    where = f"l3hv_pools.{pool.name}"
    if not pool.prefixes:
        notes.add(where, None, "The pool has no prefix.", "Give it ipv4, ipv6, or both.")
    for prefix in pool.prefixes:
        _check_family(common.domain(pool.domain), prefix, where, notes)
    if pool.ipv6 is not None and pool.mtu is not None and pool.mtu < LEAST_IPV6_MTU:
        notes.add(
            f"{where}.mtu",
            pool.mtu,
            f"IPv6 does not work with an MTU of {pool.mtu}.",
            f"Choose {LEAST_IPV6_MTU} or more.",
        )
    if pool.shared_ipv6 and (pool.ipv6 is None or pool.ipv6.prefixlen != GUEST_PREFIX_LENGTH):
        notes.add(
            f"{where}.ipv6",
            pool.ipv6,
            "With ipv6_mode: address the guests of a pool share one /64.",
            "Give the pool an ipv6 of 64 bits, or remove ipv6_mode: then each guest has a /64 of its own.",
        )
    elif pool.ipv6 is not None and pool.ipv6.prefixlen > GUEST_PREFIX_LENGTH:
        notes.add(
            f"{where}.ipv6",
            pool.ipv6,
            f"{pool.ipv6} is too small: each guest gets a /64 of it.",
            "Choose a prefix of 64 bits or less.",
        )
    if pool.gateway is not None:
        _check_gateway(pool, pool.gateway, where, notes)
    _check_options(pool, where, notes)
    if common.announce == "blocks":
        _check_blocks(pool, where, notes)
    for destination, via in pool.routes:
        if pool.has_link_local_gateway:
            if via != str(pool.gateway):
                notes.add(
                    f"{where}.routes",
                    via,
                    f"The gateway {via} of {destination} is on no link of the guests: they have no subnet.",
                    f"List the prefixes without gateways: all routes use the pool's gateway {pool.gateway}.",
                )
        elif pool.ipv4 is None or int(IPv4Address(via)) - int(pool.ipv4[0]) not in numbers_of(pool.ipv4):
            notes.add(
                f"{where}.routes",
                via,
                f"The gateway {via} of {destination} is no host address of the pool.",
                "Choose a host address of the pool's IPv4 prefix: guests reach no other gateway.",
            )


def _check_blocks(pool: Pool, where: str, notes: Notes) -> None:
    """Note a length of blocks that no block of the pool can have."""
    for prefix in pool.prefixes:
        family = family_of(prefix)
        length = pool.block_lengths.get(family)
        longest = HOST_LENGTH[family] if family == "ipv4" or pool.shared_ipv6 else GUEST_PREFIX_LENGTH
        if length is not None and not prefix.prefixlen <= length < longest:
            notes.add(
                f"{where}.block.{family}",
                length,
                f"{prefix} cannot be cut into blocks of {length} bits for several guests each.",
                f"Choose a length from {prefix.prefixlen} to {longest - 1}.",
            )


def _check_options(pool: Pool, where: str, notes: Notes) -> None:
    """Note options that do not fit into DHCP (RFC 2132: 255 bytes) or into a router advertisement."""
    for family in FAMILIES:
        servers = [server for server in pool.dns if family_of_text(server) == family]
        if len(servers) > MOST_DNS_SERVERS:
            notes.add(
                f"{where}.dns",
                len(servers),
                f"The pool has {len(servers)} {family} addresses of name servers.",
                f"Keep at most {MOST_DNS_SERVERS}: resolvers ask the first three.",
            )
    # Each route has the length, the significant bytes of the prefix and the gateway (RFC 3442).
    routes = sum(1 + (IPv4Network(prefix).prefixlen + 7) // 8 + 4 for prefix, _ in pool.option_routes)
    route_line = _dnsmasq_line(pool, "classless-static-route", chain.from_iterable(pool.option_routes))
    search_line = _dnsmasq_line(pool, "domain-search", pool.search)
    if routes > OPTION_BYTES:
        beside = " and those of the link-local gateway" if pool.has_link_local_gateway else ""
        notes.add(
            f"{where}.routes",
            len(pool.routes),
            f"{len(pool.routes)} routes{beside} do not fit into the {OPTION_BYTES} bytes of DHCP option 121.",
            "Aggregate some of them, or remove routes that the default route includes.",
        )
    elif route_line > DNSMASQ_LINE:
        notes.add(
            f"{where}.routes",
            len(pool.routes),
            f"The routes make a line of {route_line} characters, and dnsmasq reads at most {DNSMASQ_LINE}.",
            "Aggregate some of them, or remove routes that the default route includes.",
        )
    if _search_bytes(pool.search) > OPTION_BYTES:
        notes.add(
            f"{where}.search",
            len(pool.search),
            f"The search domains do not fit into the {OPTION_BYTES} bytes of DHCP option 119.",
            "Keep fewer or shorter ones.",
        )
    elif search_line > DNSMASQ_LINE:
        notes.add(
            f"{where}.search",
            len(pool.search),
            f"The search domains make a line of {search_line} characters, and dnsmasq reads at most"
            f" {DNSMASQ_LINE}.",
            "Keep fewer or shorter ones.",
        )


def _dnsmasq_line(pool: Pool, option: str, values: Iterable[str]) -> int:
    """Return the length of an option's line in dnsmasq's configuration (``dhcp.conf.j2``)."""
    return len(f"dhcp-option=tag:pool/{pool.name},option:{option},{','.join(values)}")


def _search_bytes(domains: Iterable[str]) -> int:
    """Return the size of search domains in DHCP (RFC 3397): a repeated end is a pointer of two bytes.

    >>> _search_bytes(["a.example.net", "b.example.net"])
    19
    """
    ends: set[tuple[str, ...]] = set()
    size = 0
    for domain in domains:
        labels = tuple(domain.lower().split("."))
        for index, label in enumerate(labels):
            if labels[index:] in ends:
                size += 2
                break
            ends.add(labels[index:])
            size += 1 + len(label)
        else:
            size += 1
    return size


def _check_gateway(pool: Pool, gateway: IPv4Address, where: str, notes: Notes) -> None:
    if pool.ipv4 is None:
        notes.add(
            f"{where}.gateway", gateway, "The pool has a gateway but no IPv4.", "Add ipv4, or remove gateway."
        )
    elif pool.has_link_local_gateway:
        # RFC 3927 reserves the first and the last 256 addresses, but CloudStack's gateway is 169.254.0.1.
        uses = {
            METADATA_SERVICE: "the address of the metadata service of clouds",
            LINK_LOCAL4[0]: f"the network address of {LINK_LOCAL4}",
            LINK_LOCAL4[-1]: f"the broadcast address of {LINK_LOCAL4}",
        }
        if gateway in uses:
            notes.add(
                f"{where}.gateway",
                gateway,
                f"{gateway} cannot be a gateway: it is {uses[gateway]}.",
                f"Choose {LINK_LOCAL_WORD}, which is {LINK_LOCAL_GATEWAY4}, or another link-local address.",
            )
    elif not numbers_of(pool.ipv4):
        notes.add(
            f"{where}.ipv4",
            pool.ipv4,
            f"{pool.ipv4} has no room for a gateway and guests.",
            f"Choose a prefix of 30 bits or less, or gateway: {LINK_LOCAL_WORD}, or remove gateway.",
        )
    elif int(gateway) - int(pool.ipv4.network_address) not in numbers_of(pool.ipv4):
        usable = numbers_of(pool.ipv4)
        notes.add(
            f"{where}.gateway",
            gateway,
            f"{gateway} cannot be the gateway of {pool.ipv4}.",
            f"Choose one of {pool.ipv4[usable[0]]} to {pool.ipv4[usable[-1]]}, or {LINK_LOCAL_WORD}.",
        )


def _check_numbers(common: Common, notes: Notes) -> None:
    """Note a reserved AS number, and table numbers and VLANs that are used twice or by the kernel."""
    if common.asn in (23456, 65535):
        notes.add("l3hv_asn", common.asn, f"AS {common.asn} is reserved.", "Choose another, such as 65000.")
    tables = [(f"l3hv_domains.{domain.name}.table", domain.table) for domain in common.domains]
    tables.append(("l3hv_local_out.table", common.local_out_table))
    tables += [(f"l3hv_domains.{domain.name}.spread_table", domain.spread_table) for domain in common.domains]
    taken = {number: f"the kernel's table {name}" for number, name in _KERNEL_TABLES.items()}
    _check_unique(tables, taken, "a number that no other table has", notes)
    vlans = [
        (f"l3hv_domains.{domain.name}.vlan", domain.vlan)
        for domain in common.domains
        if domain.vlan is not None
    ]
    _check_unique(vlans, {}, "a VLAN that no other domain has", notes)


def _check_unique(
    numbers: Iterable[tuple[str, int]], taken: Mapping[int, str], choice: str, notes: Notes
) -> None:
    users = dict(taken)
    for field, number in numbers:
        if number in users:
            notes.add(field, number, f"{number} is already used by {users[number]}.", f"Choose {choice}.")
        users.setdefault(number, field)


def _check_overlaps(common: Common, notes: Notes) -> None:
    """Note prefixes of the fabric that overlap; only prefixes of ``accept`` may contain others."""
    places: list[tuple[Network, str, bool]] = []
    for net in all_networks(common):
        places.append((net.prefix, f"l3hv_paths.{net.path}.{net.domain}.{net.family}", False))
    for domain in common.domains:
        for prefix in domain.loopbacks:
            field = f"l3hv_domains.{domain.name}.loopbacks.{family_of(prefix)}"
            places.append((prefix, field, False))
        places += [(prefix, f"l3hv_domains.{domain.name}.accept", True) for prefix in domain.accept]
    for pool in common.pools:
        places += [(prefix, f"l3hv_pools.{pool.name}.{family_of(prefix)}", False) for prefix in pool.prefixes]
    enclosing: tuple[Network, str] | None = None
    for prefix, field, may_contain in sorted(places, key=lambda p: (*_by_address(p[0]), p[2], p[1])):
        if enclosing is not None and is_inside(prefix, enclosing[0]):
            notes.add(
                field,
                prefix,
                f"{prefix} overlaps with {enclosing[0]} of {enclosing[1]}.",
                "Choose a prefix that nothing else uses.",
            )
        elif not may_contain:
            enclosing = (prefix, field)

"""The links of hosts with their leaves, and of leaves with their spines: read and checked.

A link connects two hosts.  On both of them it has the name of the other one, takes the place of a path, and
has an interface for each domain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from l3hv.intent.fabric import link_name
from l3hv.intent.guests import LONGEST_INTERFACE, reference
from l3hv.intent.shape import Fields, Notes, Text, Unfit, WholeNumber
from l3hv.model.choices import SWITCHES, DaemonName, Kind
from l3hv.model.errors import Problem
from l3hv.model.intent import Common, Domain, HostIntent, Link, Member, UplinkIntent
from l3hv.model.text import natural_key

if TYPE_CHECKING:
    from l3hv.model.addressing import Network

Interfaces = dict[str, "str | dict[str, str] | None"]
"""By the neighbour: the NIC that carries all domains, the interface of each domain, or None for names that
follow from the neighbour's name."""

PRIVATE_ASNS = (range(64512, 65535), range(4200000000, 4294967295))
"""The AS numbers for private use (RFC 6996)."""

MOST_LINKED_ID = 0xFFFF
"""The highest id of a host with unnumbered links: it is one of the four groups of an interface identifier."""

SWITCH_DAEMONS: tuple[DaemonName, ...] = ("frr", "bird2", "bird3")
HOST_DAEMONS: tuple[DaemonName, ...] = ("bird2", "bird3")


def private_asn(value: object) -> int:
    """Convert to an AS number for private use."""
    number = WholeNumber(1, 4294967294, "an AS number")(value)
    if not any(number in numbers for numbers in PRIVATE_ASNS):
        raise Unfit("a private AS number", "Choose one of 64512 to 65534 or 4200000000 to 4294967294.")
    return number


def host_asn(common: Common, kind: Kind, number: int) -> int:
    """Return the AS number of a host: all spines share that of the fabric (RFC 7938, section 5.2.1).

    Without leaves and spines, all hosts have that of the fabric.
    """
    return common.asn + number if common.has_links and kind != "spine" else common.asn


def read_links(fields: Fields, key: str, name_of_interface: Text) -> Interfaces:
    """Return the interfaces of a host by the neighbour at the other end; a list has only the neighbours."""
    raw = fields.raw.get(key)
    if isinstance(raw, (list, tuple)):
        return dict.fromkeys(fields.take_all(key, link_name))
    nested = fields.mapping(key, remedy="List the names of the neighbours, or map each to its interfaces.")
    found: Interfaces = {}
    for name, value in nested.names(link_name):
        if isinstance(value, dict):
            domains = nested.nested(nested.path(name), value)
            found[name] = {
                domain: domains.need(domain, name_of_interface, "Name its interface, or remove the domain.")
                or ""
                for domain, _ in domains.names(reference)
            }
        else:
            found[name] = None if value is None else nested.take(name, name_of_interface, "")
    return found


def resolve_links(
    uplinks: Interfaces, downlinks: Interfaces, common: Common, served: Collection[str] | None, notes: Notes
) -> tuple[UplinkIntent, ...]:
    """Return one interface for each link and domain: those to hosts above first, each sorted by name.

    ``served`` are the domains of an edge router; other hosts have all domains.
    """
    domains = tuple(d for d in common.domains if served is None or d.name in served)
    resolved: list[UplinkIntent] = []
    for name in sorted(uplinks, key=natural_key):
        resolved += _resolve("up", name, uplinks[name], domains, common.domains, notes=notes)
    for name in sorted(downlinks, key=natural_key):
        resolved += _resolve("down", name, downlinks[name], domains, common.domains, notes=notes)
    return tuple(resolved)


def _resolve(
    link: Literal["up", "down"],
    name: str,
    interfaces: str | dict[str, str] | None,
    served: tuple[Domain, ...],
    known: tuple[Domain, ...],
    *,
    notes: Notes,
) -> Iterator[UplinkIntent]:
    """Yield the interfaces of one link; without names in the intent it has all ``served`` domains."""
    where = f"l3hv_{link}links.{name}"
    if isinstance(interfaces, str):
        for domain in served:
            interface = f"{interfaces}.{domain.vlan}"
            if domain.vlan is None:
                message = f"{interfaces} would carry {domain.name}, which has no VLAN."
                remedy = f"Set l3hv_domains.{domain.name}.vlan, or name one interface per domain."
                notes.add(where, interfaces, message, remedy)
            elif len(interface) > LONGEST_INTERFACE:
                message = f"The name of the VLAN interface {interface} would have {len(interface)} bytes."
                remedy = f"The kernel allows {LONGEST_INTERFACE}: rename the NIC with a systemd.link file."
                notes.add(where, interfaces, message, remedy)
            else:
                yield UplinkIntent(name, domain.name, interface, interfaces, link)
        return
    if interfaces is None:
        interfaces = {domain.name: default_interface(name, domain.name) for domain in served}
    for domain in known:
        if domain.name in interfaces:
            yield UplinkIntent(name, domain.name, interfaces[domain.name], None, link)
    names = [domain.name for domain in known]
    for unknown in interfaces.keys() - set(names):
        message = f"There is no domain {unknown}."
        notes.add(f"{where}.{unknown}", unknown, message, f"Choose one of {', '.join(names)}.")


def default_interface(neighbor: str, domain: str) -> str:
    """Return the name of an interface towards a neighbour: both names, cut to the kernel's 15 characters.

    >>> default_interface("hv1", "public"), default_interface("hypervisor12", "private")
    ('hv1-public', 'hypervi-private')
    """
    short = neighbor.partition(".")[0]
    return f"{short[: max(1, LONGEST_INTERFACE - len(domain) - 1)]}-{domain}"[:LONGEST_INTERFACE]


def check_links_of_host(fields: Fields, host: HostIntent, common: Common, notes: Notes) -> None:
    """Note settings that links, leaves and spines do not have, or that only they have."""
    if not common.has_links:
        for key in ("l3hv_downlinks", "l3hv_host_asn"):
            if fields.raw.get(key) is not None:
                message = "Only a fabric of leaves and spines has links between two hosts."
                notes.add(key, fields.raw[key], message, "Remove it, or set l3hv_underlay: leaf_spine.")
        if host.is_switch:
            message = "A fabric on L2 paths has no leaves and spines."
            notes.add("groups", f"{host.kind}", message, "Set l3hv_underlay: leaf_spine, or remove the host.")
        return
    settings = host.settings
    if host.kind == "route_reflector":
        message = "A fabric of leaves and spines has no route reflectors: leaves advertise all routes."
        notes.add("groups", "route_reflectors", message, "Remove the host, or set l3hv_underlay: l2.")
    if fields.raw.get("l3hv_downlinks") is not None and not host.is_switch:
        message = "Only leaves and spines have hosts below them."
        notes.add("l3hv_downlinks", fields.raw["l3hv_downlinks"], message, "Remove it, or use l3hv_uplinks.")
    if host.kind != "spine" and not any(uplink.link == "up" for uplink in host.uplinks):
        above = "spines" if host.kind == "leaf" else "leaves"
        notes.add("l3hv_uplinks", None, "is missing.", f"List the {above} that the host has links to.")
    if host.is_switch and not any(uplink.link == "down" for uplink in host.uplinks):
        message = f"is missing: a {host.kind} without hosts below it forwards nothing."
        notes.add("l3hv_downlinks", None, message, "List the hosts below it.")
    if not any(host.asn in numbers for numbers in PRIVATE_ASNS):
        message = f"The AS number {host.asn} (l3hv_asn plus l3hv_id) is not for private use (RFC 6996)."
        notes.add("l3hv_id", host.id, message, "Set l3hv_asn: 4200000000, or l3hv_host_asn for this host.")
    usable = SWITCH_DAEMONS if host.is_switch else HOST_DAEMONS
    if settings.managed and settings.daemon not in usable:
        message = f"l3hv does not configure {settings.daemon} on a host with links."
        notes.add("l3hv_daemon", settings.daemon, message, f"Choose {' or '.join(usable)}.")
    for key, value, ok, what in (
        (
            "l3hv_session_layout",
            settings.session_layout,
            "multiprotocol",
            "One session for each domain carries both families on a link",
        ),
        ("l3hv_data_plane", settings.data_plane, "rules", "VRFs are not supported on links"),
    ):
        if value != ok:
            notes.add(key, value, f"{what}.", f"Remove it, or set {ok}.")
    if choices := sorted({choice for _, choice in host.ecmp} - {"all"}):
        message = "A host with links uses all of its leaves for every route."
        notes.add("l3hv_ecmp", ", ".join(choices), message, "Remove it, or choose all.")
    if fields.raw.get("l3hv_path_addresses"):
        message = "The addresses of links follow from the ids of their ends."
        notes.add(
            "l3hv_path_addresses",
            ", ".join(map(str, fields.raw["l3hv_path_addresses"])),
            message,
            "Remove it.",
        )
    if common.is_unnumbered and host.id > MOST_LINKED_ID:
        message = f"{host.id} does not fit into the link-local address of an unnumbered link."
        notes.add("l3hv_id", host.id, message, f"Choose 1 to {MOST_LINKED_ID}.")
    for uplink in host.uplinks:
        if uplink.path == host.name:
            message = "The host would have a link to itself."
            notes.add(f"l3hv_{uplink.link}links", uplink.path, message, "Name the host at the other end.")


def link_problems(common: Common, members: Mapping[str, Member]) -> Iterator[Problem]:
    """Yield the problems between the two ends of links, between AS numbers, and with prefixes of links."""
    if not common.has_links:
        return
    for host in members.values():
        for link in host.links:
            yield from _problems_of_link(common, host, link, members)
    yield from _problems_of_numbers(members.values())
    yield from _problems_of_defaults(common, members.values())
    yield from _problems_of_bfd(common, members.values())


def _problems_of_link(
    common: Common, host: Member, link: Link, members: Mapping[str, Member]
) -> Iterator[Problem]:
    is_down = link.path in host.down
    field, other_field = ("l3hv_downlinks", "l3hv_uplinks") if is_down else ("l3hv_uplinks", "l3hv_downlinks")
    other = members.get(link.path)
    above, below = (host, other) if is_down else (other, host)
    if other is None:
        message = f"There is no host {link.path} in a group of the fabric."
        yield Problem(host.name, field, link.path, message, "Name a host of the inventory.")
        return
    if above is not None and above.kind not in SWITCHES:
        message = f"{above.name} is no leaf and no spine."
        yield Problem(host.name, field, link.path, message, "Move it to the group leaves, or name a leaf.")
        return
    if above is not None and below is not None:
        is_possible = below.kind in ("hypervisor", "edge_router") or (below.kind, above.kind) == (
            "leaf",
            "spine",
        )
        if not is_possible or (below.kind, above.kind) == ("hypervisor", "spine"):
            message = f"A {above.kind} cannot be above a {below.kind}."
            yield Problem(
                host.name, field, link.path, message, "Connect hypervisors to leaves, and leaves to spines."
            )
            return
    there = next((one for one in other.links if one.path == host.name), None)
    is_on_other_side = there is not None and (host.name in other.down) != is_down
    if there is None or not is_on_other_side:
        message = f"{other.name} has no {other_field[5:-1]} to {host.name}."
        remedy = f"Add {host.name} to {other_field} of {other.name}, or remove {other.name} here."
        yield Problem(host.name, field, link.path, message, remedy)
        return
    for domain in link.domains:
        if domain not in there.domains:
            message = f"{other.name} has no interface for {domain} on its link to {host.name}."
            remedy = f"Add it to {other_field} of {other.name}, or remove {domain} here."
            yield Problem(host.name, f"{field}.{link.path}.{domain}", domain, message, remedy)
    if common.is_unnumbered or not is_down:
        return
    for name in link.domains:
        prefixes = [net.prefix for net in common.link_prefixes if (net.path, net.domain) == (host.name, name)]
        families = common.domain(name).families
        if len(prefixes) < len(families):
            message = f"{host.name} has no prefix for each of {' and '.join(families)} in {name}."
            remedy = f"Add l3hv_paths.{host.name}.{name}: the links of {host.name} are cut from it."
            yield Problem(host.name, "l3hv_paths", "", message, remedy)
        for prefix in prefixes:
            if other.id >= links_of(prefix):
                number = f"{other.id}, the id of {other.name},"
                message = f"{number} does not fit in {prefix}: it has {links_of(prefix)} links."
                yield Problem(
                    host.name,
                    f"l3hv_paths.{host.name}.{name}",
                    str(prefix),
                    message,
                    "Choose a shorter prefix.",
                )


def links_of(prefix: Network) -> int:
    """Return the number of links whose prefixes (/31 or /127) fit into ``prefix``."""
    return 1 << max(0, prefix.max_prefixlen - 1 - prefix.prefixlen)


def _problems_of_numbers(members: Iterable[Member]) -> Iterator[Problem]:
    users: dict[int, Member] = {}
    for host in sorted(members, key=lambda member: natural_key(member.name)):
        other = users.setdefault(host.asn, host)
        if other is not host and not host.kind == other.kind == "spine":
            message = f"{host.asn} is also the AS number of {other.name}, which would refuse its routes."
            yield Problem(
                host.name, "l3hv_host_asn", str(host.asn), message, "Choose a number that no other host has."
            )


def _problems_of_defaults(common: Common, members: Iterable[Member]) -> Iterator[Problem]:
    """Yield a problem for each private default route beside switches whose daemon has one table for all."""
    hosts = list(members)
    single = next(
        (host.name for host in hosts if host.kind in SWITCHES and host.managed and host.daemon == "frr"), None
    )
    for host in hosts:
        for domain in host.edge_domains:
            if single is not None and domain != common.public.name:
                public = common.public.name
                message = f"FRR of {single} has one table for all domains: only {public} has a default route."
                yield Problem(
                    host.name,
                    "l3hv_edge_domains",
                    domain,
                    message,
                    f"Remove {domain}, or choose l3hv_daemon: bird2 for leaves and spines.",
                )


def _problems_of_bfd(common: Common, members: Iterable[Member]) -> Iterator[Problem]:
    """Yield a problem for each managed switch whose FRR would use BFD of several hops.

    FRR 8.4 and 10.3 use BFD of several hops (RFC 5883) for a neighbour of another AS with TTL security,
    except with a link-local address.
    """
    for host in members:
        if common.is_unnumbered or host.kind not in SWITCHES or not host.managed or host.daemon != "frr":
            continue
        message = "On numbered links FRR uses BFD of several hops, which other daemons do not use on a link."
        remedy = "Choose l3hv_links: unnumbered, or l3hv_daemon: bird2 for leaves and spines."
        yield Problem(host.name, "l3hv_daemon", host.daemon, message, remedy)


def link_addresses(
    common: Common, own: Member, link: Link, other: Member
) -> Iterator[tuple[str, Network, str, str]]:
    """Yield, for each domain of a link, its prefix, the own address and the neighbour's.

    An unnumbered link has the link-local addresses ``fe80::DOMAIN:OWN:OTHER``, with 1 for the public domain
    and 2 for the private one, and the ids of both ends: each is unique in the fabric.  Otherwise the upper
    end has the first address of the /31 or /127 with the number of the lower end's id.
    """
    from ipaddress import IPv6Network, ip_network

    is_down = link.path in own.down
    above, below = (own, other) if is_down else (other, own)
    for name in link.domains:
        domain = common.domain(name)
        if common.is_unnumbered:
            number = 1 if domain.kind == "public" else 2
            prefix = IPv6Network("fe80::/64")
            ends = [
                str(prefix[(number << 32) | (one.id << 16) | two.id])
                for one, two in ((own, other), (other, own))
            ]
            yield name, prefix, ends[0], ends[1]
            continue
        for network in common.link_prefixes:
            if (network.path, network.domain) == (above.name, name) and below.id < links_of(network.prefix):
                whole = network.prefix
                first = whole.network_address + 2 * below.id
                pair = ip_network(f"{first}/{whole.max_prefixlen - 1}")
                upper, lower = str(pair[0]), str(pair[1])
                yield (name, pair, upper, lower) if is_down else (name, pair, lower, upper)

"""The values that must be unique in a fabric: each host's claims, and the clashes between claims.

Claims are small and can be stored as JSON: a run that is limited to one host compares its claims with the
stored claims of the other hosts.  Everything here is linear in the number of claims, except the sorting of
prefixes.
"""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal

from l3hv.model.addressing import FAMILIES, brief, family_of_text
from l3hv.model.errors import FABRIC, Problem
from l3hv.model.intent import Common, GuestIntent, HostIntent, Largest
from l3hv.model.names import bird_symbol
from l3hv.model.plan import Owner
from l3hv.model.text import natural_key

ClaimKind = Literal[
    "symbol",
    "id",
    "address",
    "block",
    "guest",
    "mac",
    "prefix",
    "path",
    "reflector",
    "moves_from",
    "hypervisor",
]

_EVERYWHERE = "*"


@dataclass(frozen=True, slots=True)
class Claim:
    """One value that a host needs for itself, and the field of its intent that it comes from.

    Several hosts may claim the same ``shared`` prefix (anycast).  The value of the kinds ``path`` (needs a
    reflector there) and ``reflector`` (is one) is ``<path>.<domain>``; the value of ``moves_from`` (needs a
    hypervisor of that name) and ``hypervisor`` (is one) is a name.  These four kinds clash with nothing.  A
    ``block`` clashes with an equal one of another hypervisor.  An ``address`` on a path
    (``<path>.<domain>.<address>``) is claimed if it does not follow from the host's id.
    """

    kind: ClaimKind
    value: str
    field: str
    shared: bool = False


def claims(host: HostIntent) -> tuple[Claim, ...]:
    """Return everything that ``host`` claims."""
    return (*_host_claims(host), *(claim for guest in host.guests for claim in guest_claims(guest)))


def _host_claims(host: HostIntent) -> Iterator[Claim]:
    """Yield the claims of a host's name, ids and paths.

    A host's addresses on a path follow from its id, and so do a hypervisor's loopbacks and BGP identifier.
    The id of a reflector must therefore be unique on its path.  The ids of hypervisors and edge routers must
    also be unique among all of these in the fabric.  With an IGP all ids are unique in the fabric
    (:func:`clashes`).
    """
    yield Claim("symbol", bird_symbol(host.name), "inventory_hostname")
    if any(uplink.link is not None for uplink in host.uplinks):
        # On links addresses and BGP identifiers follow from the ids; l3hv.intent.links compares both ends.
        yield Claim("id", f"{_EVERYWHERE}.{host.id}", "l3hv_id")
        if host.kind == "hypervisor":
            yield Claim("hypervisor", host.name, "inventory_hostname")
        return
    for path in dict.fromkeys(uplink.path for uplink in host.uplinks):
        yield Claim("id", f"{path}.{host.id}", "l3hv_id")
    if host.kind == "hypervisor":
        yield Claim("hypervisor", host.name, "inventory_hostname")
    if host.kind != "route_reflector":
        yield Claim("id", f"{_EVERYWHERE}.{host.id}", "l3hv_id")
    for uplink in host.uplinks:
        place = f"{uplink.path}.{uplink.domain}"
        if host.kind == "route_reflector":
            yield Claim("reflector", place, "l3hv_uplinks")
        else:
            yield Claim("path", place, "l3hv_uplinks")
    for block in host.blocks:
        yield Claim("block", block, "l3hv_blocks")
    for declared in host.path_addresses:
        place = f"{declared.path}.{declared.domain}"
        where = f"l3hv_path_addresses.{place}.{family_of_text(declared.address)}"
        yield Claim("address", f"{place}.{declared.address}", where)


def guest_claims(guest: GuestIntent) -> Iterator[Claim]:
    """Yield the claims of a guest."""
    where = f"l3hv_guests[{guest.name}]"
    yield Claim("guest", guest.name, f"{where}.name")
    yield Claim("mac", guest.mac, f"{where}.mac")
    if guest.moves_from is not None:
        yield Claim("moves_from", guest.moves_from, f"{where}.moves_from")
    if guest.ipv4 is not None:
        yield Claim("prefix", f"{guest.ipv4}/32", f"{where}.ipv4")
    if guest.ipv6 is not None:
        yield Claim("prefix", guest.ipv6, f"{where}.ipv6")
    for prefix in guest.addresses:
        yield Claim("prefix", prefix, f"{where}.addresses")
    for prefix in guest.subnets:
        yield Claim("prefix", prefix, f"{where}.subnets")
    for address in guest.transparent:
        yield Claim("prefix", f"{address}/32", f"{where}.transparent")
    for prefix in guest.anycast:
        yield Claim("prefix", prefix, f"{where}.anycast", shared=True)


def clashes(claims_by_host: Mapping[str, Iterable[Claim]], common: Common) -> list[Problem]:
    """Return the problems between hosts: clashing claims, paths without neighbours, and impossible moves.

    A problem names one of the two claims: of nested prefixes the inner one; of equal prefixes the anycast
    one; otherwise the claim of the host whose name sorts later.
    """
    unique: dict[tuple[str, str], tuple[str, Claim]] = {}
    prefixes: list[_Place] = []
    blocks: list[_Place] = []
    places: dict[str, dict[str, list[str]]] = {"path": {}, "reflector": {}, "hypervisor": {}}
    moves: list[tuple[str, Claim]] = []
    problems: dict[tuple[str, str], Problem] = {}
    for rank, host in enumerate(sorted(claims_by_host, key=natural_key)):
        for claim in claims_by_host[host]:
            if claim.kind == "block":
                blocks.append(_place(host, rank, claim))
            if claim.kind == "prefix":
                prefixes.append(_place(host, rank, claim))
            elif claim.kind == "moves_from":
                moves.append((host, claim))
            elif claim.kind in places:
                places[claim.kind].setdefault(claim.value, []).append(host)
            else:
                own = _in_fabric(claim) if common.has_igp and claim.kind == "id" else claim
                first, other = unique.setdefault((own.kind, own.value), (host, own))
                if other is not own and (own is claim or first != host):
                    problems.setdefault((host, claim.field), _duplicate(host, own, first, other))
    uplinks = {
        (host, place)
        for kind in ("path", "reflector")
        for place, hosts in places[kind].items()
        for host in hosts
    }
    declared = {(host, claim.field) for (kind, _), (host, claim) in unique.items() if kind == "address"}
    for (kind, _), (host, claim) in unique.items():
        if kind == "address":
            problem = _taken_by_id(host, claim, unique, uplinks=uplinks, declared=declared, common=common)
            if problem is not None:
                problems.setdefault((host, claim.field), problem)
    return [
        *(
            _wrong_in_mesh(places["path"], places["reflector"])
            if common.is_mesh
            else _paths_without_reflector(places["path"], places["reflector"], common)
        ),
        *_impossible_moves(moves, places["hypervisor"]),
        *problems.values(),
        *_overlaps(prefixes),
        *_around_blocks(prefixes, blocks),
    ]


def _in_fabric(claim: Claim) -> Claim:
    """Return the claim of an id in the whole fabric: with an IGP all hosts have loopbacks."""
    return replace(claim, value=f"{_EVERYWHERE}.{claim.value.rpartition('.')[2]}")


def _taken_by_id(
    host: str,
    claim: Claim,
    unique: Mapping[tuple[str, str], tuple[str, Claim]],
    *,
    uplinks: Collection[tuple[str, str]],
    declared: Collection[tuple[str, str]],
    common: Common,
) -> Problem | None:
    """Return a problem where the address that ``host`` declares on a path follows from another host's id.

    The other host has that address unless it has no uplink there, or declares another one itself.
    ``uplinks`` has the host and the place (``<path>.<domain>``) of all uplinks, ``declared`` the host and the
    field of all declared addresses.
    """
    path, domain, address = claim.value.split(".", 2)
    family = family_of_text(address)
    network = common.network(path, domain, family)
    if network is None:
        return None
    number = int(ip_address(address)) - int(network.prefix.network_address)
    everywhere = unique.get(("id", f"{_EVERYWHERE}.{number}"), (host, claim))
    other, _ = unique.get(("id", f"{path}.{number}"), everywhere)
    if other == host:
        return None
    place = f"{path}.{domain}"
    if (other, place) not in uplinks or (other, f"l3hv_path_addresses.{place}.{family}") in declared:
        return None
    message = f"{address} has the host number {number} in {network.prefix}, the id of {other} (path {path})."
    remedy = f"Choose an address that no other host has, or another l3hv_id for {other}."
    return Problem(host, claim.field, address, message, remedy)


def _impossible_moves(moves: Iterable[tuple[str, Claim]], hypervisors: Collection[str]) -> Iterator[Problem]:
    """Yield a problem for each guest whose ``moves_from`` is no hypervisor, or is the guest's own host."""
    for host, claim in moves:
        if claim.value == host or claim.value not in hypervisors:
            message = f"There is no hypervisor {claim.value}."
            if claim.value == host:
                message = f"The guest is already on {host}."
            remedy = "Name the hypervisor that the guest is leaving, or remove moves_from."
            yield Problem(host, claim.field, claim.value, message, remedy)


def owners(claims_by_host: Mapping[str, Iterable[Claim]], ids: Mapping[str, int]) -> tuple[Owner, ...]:
    """Return the prefixes that each hypervisor may originate, of its guests and its blocks.

    ``ids`` has the id of every host.

    The prefixes of a guest with ``moves_from`` have two owners: its host and the hypervisor that it leaves.
    """
    owned: dict[str, dict[str, _Place]] = {}
    for host in claims_by_host:
        host_claims = tuple(claims_by_host[host])
        leaving = {_guest_of(claim): claim.value for claim in host_claims if claim.kind == "moves_from"}
        for claim in host_claims:
            if claim.kind in ("prefix", "block"):
                place = _place(host, 0, claim)
                owned.setdefault(host, {})[claim.value] = place
                if (other := leaving.get(_guest_of(claim))) is not None:
                    owned.setdefault(other, {})[claim.value] = place
    return tuple(
        Owner(ids[host], host, ipv4=_sorted_prefixes(owned[host], 4), ipv6=_sorted_prefixes(owned[host], 6))
        for host in sorted(owned, key=lambda host: ids[host])
    )


def _sorted_prefixes(places: Mapping[str, _Place], version: int) -> tuple[str, ...]:
    return tuple(sorted((p for p in places if places[p][0] == version), key=lambda p: places[p][1:3]))


def largest(claims_by_host: Mapping[str, Iterable[Claim]]) -> Largest:
    """Return the largest number of prefixes that any host has, in each family."""
    counts = [
        Counter(family_of_text(claim.value) for claim in host_claims if claim.kind in ("prefix", "block"))
        for host_claims in claims_by_host.values()
    ]
    return Largest(*(max((count[family] for count in counts), default=0) for family in FAMILIES))


def holders(claims_by_host: Mapping[str, Iterable[Claim]]) -> dict[str, int]:
    """Return the number of hypervisors that hold each anycast prefix."""
    return Counter(
        prefix
        for host_claims in claims_by_host.values()
        for prefix in {claim.value for claim in host_claims if claim.shared}
    )


def _guest_of(claim: Claim) -> str:
    """Return the guest that a claim like ``l3hv_guests[vm1].ipv4`` is about."""
    return claim.field.partition("[")[2].partition("]")[0]


def _duplicate(host: str, claim: Claim, other_host: str, other: Claim) -> Problem:
    value = claim.value
    match claim.kind:
        case "symbol":
            message = f"BIRD's name for the host would be {value}, as for {other_host}."
            remedy = "Rename one of them: BIRD's names can differ only in letters, digits and '_'."
        case "id":
            path, _, value = value.rpartition(".")
            where = "" if path == _EVERYWHERE else f" on path {path}"
            message = f"{value} is the id of {other_host}{where}."
            remedy = "Choose an id that no other host has."
        case "address":
            path, _, value = value.split(".", 2)
            message = f"{value} is the address of {other_host} on path {path}."
            remedy = "Choose an address that no other host has."
        case "block":
            message = f"{value} is a block of {other_host}."
            remedy = (
                "Choose another one in l3hv_blocks: a hypervisor without this list has the block with its id."
            )
        case "guest":
            message = f"{value} is the name of a guest of {other_host}."
            remedy = "Rename one: guests may move, so their names are unique in the fabric."
        case _:
            message = f"{value} is already used by {_user(other_host, other)}."
            remedy = "Choose a MAC that no other guest has."
    return Problem(host, claim.field, value, message, remedy)


def _user(host: str, claim: Claim) -> str:
    return f"{host} ({claim.field})"


# Prefixes.

_Place = tuple[int, int, int, bool, int, str, Claim]
"""Version, first address, length, shared, the host's rank, the host, and the claim."""


def _place(host: str, rank: int, claim: Claim) -> _Place:
    # A large fabric has 200,000 prefixes, and objects of ipaddress take ten times as long.
    address, _, length = claim.value.partition("/")
    version, family = (6, socket.AF_INET6) if ":" in address else (4, socket.AF_INET)
    first = int.from_bytes(socket.inet_pton(family, address))
    return (version, first, int(length), claim.shared, rank, host, claim)


def _overlaps(places: list[_Place]) -> Iterator[Problem]:
    """Yield a problem for each prefix that lies inside another, unless both are shared.

    In the order of their addresses prefixes form a tree.  ``chain`` holds the prefixes that enclose the
    current one, the innermost last.  Each is paired with the innermost unshared prefix up to it.
    """
    places.sort(key=lambda place: place[:5])
    chain: list[tuple[_Place, _Place | None]] = []
    same_ipv4: set[tuple[str, str, str, str]] = set()
    for place in places:
        while chain and not _encloses(chain[-1][0], place):
            chain.pop()
        innermost, unshared = chain[-1] if chain else (None, None)
        is_shared = place[3]
        chain.append((place, unshared if is_shared else place))
        other = unshared if is_shared else innermost
        if other is not None and not _follows_from_ipv4(place, other, same_ipv4):
            yield _overlap(place, other)


def _around_blocks(prefixes: Iterable[_Place], blocks: list[_Place]) -> Iterator[Problem]:
    """Yield a problem for each prefix of a guest that contains, or is, a block of another hypervisor.

    Both would advertise these addresses, and a route to a smaller block would be preferred.
    """
    blocks.sort(key=lambda block: block[:3])
    for place in prefixes if blocks else ():
        version, first, length = place[:3]
        beyond = first + (1 << ((32 if version == 4 else 128) - length))
        inside = (bisect_left(blocks, (version, end), key=lambda block: block[:2]) for end in (first, beyond))
        for block in blocks[slice(*inside)]:
            if block[5] != place[5] and _encloses(place, block):
                host, claim = place[5:]
                yield Problem(
                    host,
                    claim.field,
                    claim.value,
                    f"{claim.value} is a block of {block[5]}."
                    if claim.value == block[6].value
                    else f"{claim.value} contains {block[6].value}, a block of {block[5]}.",
                    "Choose a free one, or give the block to this hypervisor in l3hv_blocks.",
                )


def _follows_from_ipv4(place: _Place, other: _Place, same_ipv4: set[tuple[str, str, str, str]]) -> bool:
    """Tell whether two guests' /64s overlap only because the guests have the same IPv4 address.

    A guest's /64 follows from its IPv4 address, and one problem for both is enough.  IPv4 addresses come
    first in the order of places: their overlaps are added to ``same_ipv4``.
    """
    (host, claim), (other_host, other_claim) = place[5:], other[5:]
    if claim.field.endswith(".ipv4") and other_claim.field.endswith(".ipv4"):
        guest, other_guest = claim.field.removesuffix(".ipv4"), other_claim.field.removesuffix(".ipv4")
        same_ipv4.add((host, guest, other_host, other_guest))
        return False
    guest, other_guest = claim.field.removesuffix(".ipv6"), other_claim.field.removesuffix(".ipv6")
    return (host, guest, other_host, other_guest) in same_ipv4


def _encloses(outer: _Place, inner: _Place) -> bool:
    (version, first, length), (inner_version, inner_first, inner_length) = outer[:3], inner[:3]
    if version != inner_version or length > inner_length:
        return False
    shift = (32 if version == 4 else 128) - length
    return first >> shift == inner_first >> shift


def _overlap(place: _Place, other: _Place) -> Problem:
    (host, claim), (other_host, other_claim) = place[5:], other[5:]
    value, other_value = brief(claim.value), brief(other_claim.value)
    if value == other_value:
        message = f"{value} is already used by {_user(other_host, other_claim)}."
    else:
        message = f"{value} is in {other_value}, which {_user(other_host, other_claim)} uses."
    if claim.shared or other_claim.shared:
        remedy = "Choose a free one: guests may share a prefix only if all of them list it under anycast."
    else:
        remedy = "Choose a free one."
    return Problem(host, claim.field, value, message, remedy)


# Paths.


def _wrong_in_mesh(users: Mapping[str, list[str]], reflectors: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Yield a problem for each reflector of a mesh, and for each host that is alone on a path."""
    for place, hosts in users.items():
        if len(hosts) == 1:
            path, _, domain = place.partition(".")
            yield Problem(
                hosts[0],
                "l3hv_uplinks",
                path,
                f"No other host is on path {path} in {domain}: in a mesh, a host needs a neighbour there.",
                f"Give another host an uplink there, or remove path {path} from this host.",
            )
    for host in dict.fromkeys(host for hosts in reflectors.values() for host in hosts):
        yield Problem(
            host,
            "groups",
            "route_reflectors",
            "In a mesh (l3hv_reflection: mesh) hosts have sessions with each other, and no reflectors.",
            "Remove the host from route_reflectors, or set l3hv_reflection: reflectors.",
        )


def _paths_without_reflector(
    users: Mapping[str, list[str]], reflectors: Mapping[str, list[str]], common: Common
) -> Iterator[Problem]:
    """Yield a problem for each domain of a path that hosts use without a reflector there."""
    for path, domain in dict.fromkeys((network.path, network.domain) for network in common.networks):
        hosts = users.get(f"{path}.{domain}", [])
        if hosts and not reflectors.get(f"{path}.{domain}"):
            clients = hosts[0] if len(hosts) == 1 else f"{hosts[0]} and {len(hosts) - 1} more"
            yield Problem(
                FABRIC,
                f"l3hv_paths.{path}.{domain}",
                path,
                f"Path {path} has no reflector for {domain}, and {clients} would need one.",
                f"Add a host with an uplink there to the group route_reflectors, or remove path {path}.",
            )

"""The plan of a Junos route reflector in the terms of Junos's hierarchy, for the template that prints it.

Each domain is a routing instance (``virtual-router``).  Sessions that differ only in the neighbour form a
group.  Names begin with ``l3hv-``, so that they differ from the router's own names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from l3hv.model.addressing import brief, family_of_text
from l3hv.model.choices import FailureProfile, Family, LimitAction
from l3hv.model.plain import as_plain, from_plain
from l3hv.model.plan import CarriedDomain, HostPlan, ImportPolicy, PrefixLimit, PrefixMatch, Session, Uplink
from l3hv.model.profiles import LLGR_PROFILES

ETHERNET_BYTES = 18
"""Bytes of a frame besides its packet: two addresses, VLAN tag and type. Junos's MTU includes them."""

JunosFamily = Literal["inet", "inet6"]
JUNOS_FAMILIES: dict[Family, JunosFamily] = {"ipv4": "inet", "ipv6": "inet6"}

LEAST_RESTART_S = 1
"""Restart time (RFC 4724) with long-lived graceful restart (RFC 9494): the long-lived stale time begins after
it."""

LIMITS: dict[LimitAction, str | None] = {
    "warn": None,
    "block": "drop-excess",
    "restart": "teardown idle-timeout 1",
    "disable": "teardown idle-timeout forever",
}
"""The reactions to more prefixes than the limit of a session, in Junos's syntax; the time is in minutes."""


@dataclass(frozen=True)
class JunosAddress:
    """An address (``address/length``) of a unit in one family."""

    family: JunosFamily
    address: str


@dataclass(frozen=True)
class JunosUnit:
    """A logical interface; ``vlan`` is ``None`` where the router's own configuration sets it.

    ``mtu`` is the maximum size of its packets, in bytes.
    """

    number: str
    description: str
    vlan: int | None
    mtu: int
    addresses: tuple[JunosAddress, ...]


@dataclass(frozen=True)
class JunosInterface:
    """A physical interface.

    ``mtu`` (of frames, in bytes) is ``None`` where the router's own configuration sets it.
    """

    name: str
    mtu: int | None
    units: tuple[JunosUnit, ...]


@dataclass(frozen=True)
class JunosRoute:
    """One route filter: ``prefix`` and the kind of match (``exact``, ``prefix-length-range /24-/32``)."""

    prefix: str
    match: str
    why: str


@dataclass(frozen=True)
class JunosTerm:
    """The routes of one family that a policy accepts, if they have one of the next hops (empty: any).

    With ``only_original``, routes with an AS path are not accepted, and all attributes are reset.
    With ``rejects`` the routes are rejected instead, and later terms do not see them.
    """

    name: str
    family: JunosFamily
    routes: tuple[JunosRoute, ...]
    next_hops: tuple[str, ...] = ()
    only_original: bool = False
    rejects: bool = False


@dataclass(frozen=True)
class JunosPolicy:
    """A policy that rejects every route that none of its terms accepts."""

    name: str
    terms: tuple[JunosTerm, ...]


@dataclass(frozen=True)
class JunosNeighbor:
    """A BGP neighbour, the plan's name of the session, and the import policy of that session."""

    address: str
    description: str
    accept: JunosPolicy


@dataclass(frozen=True)
class JunosLimit:
    """The maximum numbers of accepted and of remembered prefixes, and the action on more (``None``: log it).

    ``teardown`` and ``drop-excess`` are statements of Junos (24.4).
    """

    accepted: int
    remembered: int
    action: str | None


@dataclass(frozen=True)
class JunosFamilyOfGroup:
    """An address family of a group's sessions."""

    name: JunosFamily
    limit: JunosLimit | None


@dataclass(frozen=True)
class JunosGroup:
    """Sessions that differ only in the neighbour.

    ``restart_s`` is ``None`` without graceful restart, ``stale_s`` without long-lived graceful restart.
    """

    name: str
    local: str
    passive: bool
    cluster: str | None
    bfd: bool
    restart_s: int | None
    stale_s: int | None
    receives_paths: bool
    families: tuple[JunosFamilyOfGroup, ...]
    neighbors: tuple[JunosNeighbor, ...]


@dataclass(frozen=True)
class JunosInstance:
    """A domain: its logical interfaces, its groups, and the export policy of all groups."""

    name: str
    interfaces: tuple[str, ...]
    announce: JunosPolicy
    groups: tuple[JunosGroup, ...]


@dataclass(frozen=True)
class JunosPath:
    """The allowed source of routing packets: a logical interface, and prefixes (a prefix list)."""

    name: str
    family: JunosFamily
    interface: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class JunosReflector:
    """The configuration of a reflector.

    ``management`` has, for each family, the prefixes that may reach the reflector by SSH.
    """

    host: str
    fabric: str
    asn: int
    router_id: str
    hold_s: int
    bfd_interval_ms: int
    bfd_multiplier: int
    interfaces: tuple[JunosInterface, ...]
    instances: tuple[JunosInstance, ...]
    paths: tuple[JunosPath, ...]
    management: tuple[tuple[JunosFamily, tuple[str, ...]], ...]


def junos_reflector(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the reflector of ``plan``; both are plain data."""
    result: dict[str, Any] = as_plain(_reflector(from_plain(HostPlan, plan)))
    return result


def _reflector(plan: HostPlan) -> JunosReflector:
    routing, packets = plan.routing, plan.packet_filter
    management: list[tuple[JunosFamily, tuple[str, ...]]] = []
    if packets.management4:
        management.append(("inet", packets.management4))
    if packets.management6:
        management.append(("inet6", packets.management6))
    return JunosReflector(
        host=plan.host,
        fabric=plan.fabric,
        asn=routing.asn,
        router_id=routing.router_id,
        hold_s=routing.timers.hold_s,
        bfd_interval_ms=routing.timers.bfd_interval_ms,
        bfd_multiplier=routing.timers.bfd_multiplier,
        interfaces=tuple(_interfaces(plan)),
        instances=tuple(_instance(plan, name) for name in dict.fromkeys(t.domain for t in routing.tables)),
        paths=tuple(_paths(plan)),
        management=tuple(management),
    )


def logical(interface: str) -> tuple[str, str]:
    """Return the physical interface and the unit of an interface name; the default unit is 0.

    >>> logical("ae0.90"), logical("xe-0/0/1")
    (('ae0', '90'), ('xe-0/0/1', '0'))
    """
    name, _, unit = interface.partition(".")
    return name, unit or "0"


def _interfaces(plan: HostPlan) -> Iterator[JunosInterface]:
    units: dict[str, list[JunosUnit]] = {}
    for uplink in plan.uplinks:
        name, number = logical(uplink.interface)
        units.setdefault(name, []).append(_unit(uplink, number))
    frame_mtus = {nic.interface: nic.mtu + ETHERNET_BYTES for nic in plan.nics}
    for name, units_of_nic in units.items():
        yield JunosInterface(name, frame_mtus.get(name), tuple(units_of_nic))


def _unit(uplink: Uplink, number: str) -> JunosUnit:
    return JunosUnit(
        number=number,
        description=f"{uplink.domain} on path {uplink.path}",
        vlan=uplink.vlan.id if uplink.vlan is not None else None,
        mtu=uplink.mtu,
        addresses=tuple(
            JunosAddress(JUNOS_FAMILIES[address.family], f"{address.address}/{address.length}")
            for address in uplink.addresses
        ),
    )


def _instance(plan: HostPlan, domain: str) -> JunosInstance:
    tables = [table for table in plan.routing.tables if table.domain == domain]
    return JunosInstance(
        name=domain,
        interfaces=tuple(".".join(logical(u.interface)) for u in plan.uplinks if u.domain == domain),
        announce=JunosPolicy(
            f"l3hv-announce-{domain}",
            tuple(
                JunosTerm(table.name, JUNOS_FAMILIES[table.family], _routes(table.announces))
                for table in tables
            ),
        ),
        groups=tuple(_groups(plan, domain)),
    )


def _routes(matches: Iterable[PrefixMatch]) -> tuple[JunosRoute, ...]:
    return tuple(JunosRoute(match.prefix, _match_words(match), match.why) for match in matches)


def _match_words(match: PrefixMatch) -> str:
    if match.prefix.endswith(f"/{match.low}") and match.low == match.high:
        return "exact"
    return f"prefix-length-range /{match.low}-/{match.high}"


def _groups(plan: HostPlan, domain: str) -> Iterator[JunosGroup]:
    by_group: dict[str, list[Session]] = {}
    policies = {policy.name: policy for policy in plan.routing.policies}
    for session in plan.routing.sessions:
        if session.domain == domain:
            families = (channel.family for channel in session.channels)
            announcer = policies[session.channels[0].carries[0].policy].neighbors.replace("_", "-")
            # The router itself opens these sessions, so they need a group without the statement "passive".
            neighbors = announcer + ("" if session.passive else "-called")
            name = "-".join(("l3hv", neighbors, session.failure_profile, *families))
            by_group.setdefault(name, []).append(session)
    for name, sessions in by_group.items():
        first = sessions[0]
        yield JunosGroup(
            name=name,
            local=first.local,
            passive=first.passive,
            cluster=plan.routing.cluster_id if first.relation == "client" else None,
            bfd=first.bfd,
            restart_s=_restart_s(first.failure_profile, plan.routing.timers.restart_s),
            stale_s=plan.routing.timers.stale_s if first.failure_profile in LLGR_PROFILES else None,
            receives_paths=first.relation == "reflector_of_path",
            families=tuple(
                JunosFamilyOfGroup(JUNOS_FAMILIES[channel.family], _limit(channel.limit))
                for channel in first.channels
            ),
            neighbors=tuple(
                JunosNeighbor(session.neighbor, session.name, _accept(session, policies))
                for session in sessions
            ),
        )


def _accept(session: Session, policies: Mapping[str, ImportPolicy]) -> JunosPolicy:
    """Return the import policy of one neighbour, without empty terms: a term without routes accepts all."""
    terms = (
        term
        for channel in session.channels
        for carried in channel.carries
        for term in (_reserved(policies[carried.policy]), _accepted(carried, policies[carried.policy]))
    )
    return JunosPolicy(f"l3hv-accept-{session.name}", tuple(term for term in terms if term.routes))


def _reserved(policy: ImportPolicy) -> JunosTerm:
    """Return the term that rejects the parts of a table's pools that no guest can have."""
    name = f"{policy.table}-reserved"
    return JunosTerm(name, JUNOS_FAMILIES[policy.family], _routes(policy.reserved), rejects=True)


def _accepted(carried: CarriedDomain, policy: ImportPolicy) -> JunosTerm:
    """Return the term that accepts one neighbour's routes in one table.

    Junos can compare next hops with addresses, but not with prefixes.
    """
    own_loopback = carried.loopback
    loopback = (JunosRoute(own_loopback, "exact", "its loopback"),) if own_loopback is not None else ()
    return JunosTerm(
        name=policy.table,
        family=JUNOS_FAMILIES[policy.family],
        routes=(*loopback, *_routes(policy.accepts)),
        next_hops=(brief(carried.accepted_next_hops),) if carried.accepted_next_hop_length is None else (),
        only_original=policy.only_original,
    )


def _limit(limit: PrefixLimit | None) -> JunosLimit | None:
    return JunosLimit(limit.accepted, limit.remembered, LIMITS[limit.action]) if limit is not None else None


def _restart_s(profile: FailureProfile, restart_s: int) -> int | None:
    if profile == "graceful_restart":
        return restart_s
    return LEAST_RESTART_S if profile in LLGR_PROFILES else None


def _paths(plan: HostPlan) -> Iterator[JunosPath]:
    with_sessions = {(session.interface, family_of_text(session.local)) for session in plan.routing.sessions}
    for uplink in plan.uplinks:
        for family in dict.fromkeys(address.family for address in uplink.addresses):
            if (uplink.interface, family) not in with_sessions:
                continue
            yield JunosPath(
                name=f"l3hv-{uplink.path}-{uplink.domain}-{JUNOS_FAMILIES[family]}",
                family=JUNOS_FAMILIES[family],
                interface=".".join(logical(uplink.interface)),
                prefixes=tuple(address.prefix for address in uplink.addresses if address.family == family),
            )

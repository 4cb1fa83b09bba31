"""A route reflector of Junos: its plan in the terms of Junos's hierarchy, which its template prints.

Each domain is a routing instance (``virtual-router``).  Sessions that differ in nothing but the neighbour are
a group.  Names begin with ``l3hv-``: a router has others of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from l3hv.addressing import family_of_text
from l3hv.model import (
    FailureProfile,
    Family,
    HostPlan,
    PrefixMatch,
    RoutingTable,
    Session,
    Uplink,
    as_plain,
    from_plain,
)
from l3hv.sessions import LLGR_PROFILES

ETHERNET_BYTES = 18
"""What a frame has beside its packet: two addresses, the VLAN and the type. Junos counts them as MTU."""

JunosFamily = Literal["inet", "inet6"]
JUNOS_FAMILIES: dict[Family, JunosFamily] = {"ipv4": "inet", "ipv6": "inet6"}

LEAST_RESTART_S = 1
"""RFC 4724's time, where stale routes are kept as a last resort (RFC 9494) and nothing is to wait for it."""

RELATIONS = {"client": "clients", "peer": "reflectors"}


@dataclass(frozen=True)
class JunosAddress:
    """An address (``address/length``) of a unit in one family."""

    family: JunosFamily
    address: str


@dataclass(frozen=True)
class JunosUnit:
    """A logical interface; ``vlan`` is ``None`` where somebody else says what it carries.

    ``mtu`` is that of its packets, in bytes.
    """

    number: str
    description: str
    vlan: int | None
    mtu: int
    addresses: tuple[JunosAddress, ...]


@dataclass(frozen=True)
class JunosInterface:
    """A physical interface; ``mtu`` (of frames, in bytes) is ``None`` where somebody else looks after it."""

    name: str
    mtu: int | None
    units: tuple[JunosUnit, ...]


@dataclass(frozen=True)
class JunosRoute:
    """One route filter: ``prefix`` and how routes match it (``exact``, ``prefix-length-range /24-/32``)."""

    prefix: str
    match: str
    why: str


@dataclass(frozen=True)
class JunosTerm:
    """The routes of one family that a policy accepts."""

    name: str
    family: JunosFamily
    routes: tuple[JunosRoute, ...]


@dataclass(frozen=True)
class JunosPolicy:
    """A policy that rejects what none of its terms accepts."""

    name: str
    terms: tuple[JunosTerm, ...]


@dataclass(frozen=True)
class JunosNeighbor:
    """A neighbour in BGP, and the name that the plan has for the session."""

    address: str
    description: str


@dataclass(frozen=True)
class JunosGroup:
    """Sessions that have everything in common but the neighbour.

    ``restart_s`` is ``None`` without graceful restart, ``stale_s`` without the long-lived one.
    """

    name: str
    local: str
    passive: bool
    cluster: str | None
    bfd: bool
    restart_s: int | None
    stale_s: int | None
    receives_paths: bool
    families: tuple[JunosFamily, ...]
    neighbors: tuple[JunosNeighbor, ...]


@dataclass(frozen=True)
class JunosInstance:
    """A domain: its logical interfaces and groups, and the policies that all of them have."""

    name: str
    interfaces: tuple[str, ...]
    accept: JunosPolicy
    announce: JunosPolicy
    groups: tuple[JunosGroup, ...]


@dataclass(frozen=True)
class JunosPath:
    """Where routing comes from: by this logical interface, from these prefixes (a prefix list)."""

    name: str
    family: JunosFamily
    interface: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class JunosReflector:
    """All that a reflector is given. ``management`` are (family, prefixes) that may reach it by SSH."""

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
    """Return, as plain data, what the reflector of ``plan`` (plain data, too) is given."""
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
    """Return the physical interface and the unit of a name; without one it is unit 0.

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
    of_frames = {nic.interface: nic.mtu + ETHERNET_BYTES for nic in plan.nics}
    for name, here in units.items():
        yield JunosInterface(name, of_frames.get(name), tuple(here))


def _unit(uplink: Uplink, number: str) -> JunosUnit:
    return JunosUnit(
        number=number,
        description=f"{uplink.domain} on path {uplink.path}",
        vlan=uplink.vlan.id if uplink.vlan is not None else None,
        mtu=uplink.mtu,
        addresses=tuple(
            JunosAddress(JUNOS_FAMILIES[own.family], f"{own.address}/{own.length}")
            for own in uplink.addresses
        ),
    )


def _instance(plan: HostPlan, domain: str) -> JunosInstance:
    tables = [table for table in plan.routing.tables if table.domain == domain]
    return JunosInstance(
        name=domain,
        interfaces=tuple(".".join(logical(u.interface)) for u in plan.uplinks if u.domain == domain),
        accept=JunosPolicy(f"l3hv-accept-{domain}", tuple(_term(table, table.accepts) for table in tables)),
        announce=JunosPolicy(
            f"l3hv-announce-{domain}", tuple(_term(table, table.announces) for table in tables)
        ),
        groups=tuple(_groups(plan, domain)),
    )


def _term(table: RoutingTable, matches: tuple[PrefixMatch, ...]) -> JunosTerm:
    return JunosTerm(
        name=table.name,
        family=JUNOS_FAMILIES[table.family],
        routes=tuple(JunosRoute(match.prefix, _match_words(match), match.why) for match in matches),
    )


def _match_words(match: PrefixMatch) -> str:
    if match.prefix.endswith(f"/{match.low}") and match.low == match.high:
        return "exact"
    return f"prefix-length-range /{match.low}-/{match.high}"


def _groups(plan: HostPlan, domain: str) -> Iterator[JunosGroup]:
    alike: dict[str, list[Session]] = {}
    for session in plan.routing.sessions:
        if session.domain == domain:
            families = (channel.family for channel in session.channels)
            relation = RELATIONS[session.relation] + ("" if session.passive else "-called")
            name = "-".join(("l3hv", relation, session.failure_profile, *families))
            alike.setdefault(name, []).append(session)
    for name, sessions in alike.items():
        first = sessions[0]
        yield JunosGroup(
            name=name,
            local=first.local,
            passive=first.passive,
            cluster=plan.routing.cluster_id if first.relation == "client" else None,
            bfd=first.bfd,
            restart_s=_restart_s(first.failure_profile, plan.routing.timers.restart_s),
            stale_s=plan.routing.timers.stale_s if first.failure_profile in LLGR_PROFILES else None,
            receives_paths=first.relation == "peer",
            families=tuple(JUNOS_FAMILIES[channel.family] for channel in first.channels),
            neighbors=tuple(JunosNeighbor(session.neighbor, session.name) for session in sessions),
        )


def _restart_s(profile: FailureProfile, restart_s: int) -> int | None:
    if profile == "graceful_restart":
        return restart_s
    return LEAST_RESTART_S if profile in LLGR_PROFILES else None


def _paths(plan: HostPlan) -> Iterator[JunosPath]:
    speaking = {(session.interface, family_of_text(session.local)) for session in plan.routing.sessions}
    for uplink in plan.uplinks:
        for family in dict.fromkeys(address.family for address in uplink.addresses):
            if (uplink.interface, family) not in speaking:
                continue
            yield JunosPath(
                name=f"l3hv-{uplink.path}-{uplink.domain}-{JUNOS_FAMILIES[family]}",
                family=JUNOS_FAMILIES[family],
                interface=".".join(logical(uplink.interface)),
                prefixes=tuple(own.prefix for own in uplink.addresses if own.family == family),
            )

"""The routing daemon of a host: its tables, policies and sessions."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.model.choices import DaemonName
from l3hv.model.daemons import DAEMONS, WITH_ROA_TABLES, WITHOUT_PATH_UPDATES, programs
from l3hv.model.intent import HostSlice
from l3hv.model.plan import GuestPlan, LoopbackAddress, Owner, PrefixOwner, Routing, Session
from l3hv.model.profiles import FAILURE_PROFILES
from l3hv.plan.anycast import DomainAnycast
from l3hv.plan.communities import domain_communities
from l3hv.plan.igp import igp_instances, igp_tables, path_neighbors
from l3hv.plan.policy import import_policies, refusals
from l3hv.plan.prefix_matches import policy_with_line_numbers, table_with_line_numbers
from l3hv.plan.sessions import router_id, session_digests
from l3hv.plan.tables import routing_tables, shared_tables
from l3hv.plan.tunnels import next_hop_tables, tunnels
from l3hv.plan.uplinks import awaited_interfaces

WITH_PREFIX_LISTS: frozenset[DaemonName] = frozenset({"frr"})
"""Daemons whose prefix lists have numbered lines."""


def routing(
    host_slice: HostSlice,
    *,
    named_sessions: tuple[Session, ...],
    ranges: tuple[Session, ...],
    loopbacks: tuple[LoopbackAddress, ...],
    guests: tuple[GuestPlan, ...],
    anycast: tuple[DomainAnycast, ...],
) -> Routing:
    """Return the plan of a host's routing daemon.

    ``named_sessions`` are its sessions with neighbours that the inventory names, ``ranges`` its sessions with
    any client of a prefix.
    """
    common, host, settings = host_slice.common, host_slice.host, host_slice.host.settings
    daemon = DAEMONS[settings.daemon, settings.system]
    identity = router_id(common, host)
    tables = routing_tables(common, host, loopbacks, guests, anycast)
    in_kernel = [table for table in tables if table.kernel_table is not None]
    policies = import_policies(host_slice, (*named_sessions, *ranges))
    if settings.daemon in WITH_PREFIX_LISTS:
        policies = tuple(map(policy_with_line_numbers, policies))
        tables = tuple(map(table_with_line_numbers, tables))
    profiles = {session.failure_profile for session in (*named_sessions, *ranges)}
    hops = None if common.encapsulation is None else common.encapsulation.hops
    is_shared = any(session.layout == "shared" for session in (*named_sessions, *ranges))
    return Routing(
        daemon=daemon,
        programs=programs(settings.daemon, (table.family for table in tables)),
        asn=host.asn or common.asn,
        router_id=identity,
        cluster_id=identity if host.kind == "route_reflector" else None,
        failure_profile=settings.failure_profile,
        failure_profiles=tuple(profile for profile in FAILURE_PROFILES if profile in profiles),
        timers=settings.timers,
        ecmp_limit=settings.ecmp_limit,
        rescans=daemon.version in WITHOUT_PATH_UPDATES and len(in_kernel) > 0,
        session_digests=session_digests(named_sessions, settings.timers, daemon, hops),
        session_keys=tuple(sorted({session.key for session in named_sessions if session.key is not None})),
        awaited_interfaces=awaited_interfaces(common, host),
        advertises_on=_advertises_on(host_slice, named_sessions),
        tables=tables,
        kernel_tables=tuple(dict.fromkeys(table.kernel_table for table in in_kernel if table.kernel_table)),
        multipath=tuple(dict.fromkeys(table.family for table in in_kernel if table.ecmp == "all")),
        communities=domain_communities(common, host.domains) if is_shared else (),
        shared_tables=shared_tables(host, tables) if is_shared else (),
        refusals=refusals(policies, is_shared=is_shared),
        policies=policies,
        owners=tuple(map(_prefix_owner, host_slice.owners)) if settings.daemon in WITH_ROA_TABLES else (),
        sessions=named_sessions,
        ranges=ranges,
        igp=igp_instances(common, host),
        igp_tables=igp_tables(common, host),
        path_neighbors=path_neighbors(common, host, host_slice.peers),
        monitoring_group=settings.monitoring_group,
        hops=hops,
        next_hop_tables=next_hop_tables(common, host),
        awaited_tunnels=tuple(tunnel.interface for tunnel in tunnels(common, host)),
    )


def _advertises_on(host_slice: HostSlice, sessions: tuple[Session, ...]) -> tuple[str, ...]:
    """Return the unnumbered links of a host with BIRD; FRR advertises itself on those of its sessions."""
    if not host_slice.common.is_unnumbered or host_slice.host.settings.daemon == "frr":
        return ()
    return tuple(dict.fromkeys(session.interface for session in sessions))


def _prefix_owner(owner: Owner) -> PrefixOwner:
    return PrefixOwner(owner.id, owner.host, _with_lengths(owner.ipv4), _with_lengths(owner.ipv6))


def _with_lengths(prefixes: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple((prefix, int(prefix.rpartition("/")[2])) for prefix in prefixes)

"""Failed checks in the order in which an operator repairs them: each cause before what follows from it.

A check follows from a cause if, by the plans, it cannot succeed before the cause is repaired.  Counts and
digests of routes depend on the advertisements of all hosts: while a session is down, they are never a cause,
nor while a guest's route is missing in their domain and family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from l3hv.model.choices import Family
from l3hv.model.plan import GuestPlan, GuestRoute, HostPlan, PathNeighbor, Session
from l3hv.plan.sessions import LOOPBACK
from l3hv.verify import subjects
from l3hv.verify.check import Check, Key, Kind, failures
from l3hv.verify.expect import HOST, bfd_of, bfd_of_neighbor, routing_units, unit_of
from l3hv.verify.fabric import Fabric, source_of

OFFERED_BY = {
    subjects.Unit("radvd"): {Kind.ADVERTISEMENT, Kind.LISTENERS},
    subjects.Unit("l3hv-dhcp"): {Kind.LEASE, Kind.LISTENERS},
    subjects.Unit("l3hv-dhcp-relay"): {Kind.LEASE, Kind.LISTENERS, Kind.SERVICE_CONFIGURATION},
    subjects.Unit("l3hv-dhcp-server"): {Kind.LISTENERS, Kind.SERVICE_CONFIGURATION},
    subjects.Unit("l3hv-ndp-proxy"): {Kind.SERVICE_CONFIGURATION},
    subjects.Unit("l3hv-nftables"): {Kind.PACKET_FILTER, Kind.DROPS, Kind.TRANSLATION},
    subjects.Unit("l3hv-tables"): {Kind.RULES, Kind.LAST_RESORT},
}
"""The checks of a host that fail if a unit does not run there; of its listeners, only the unit's own."""

COUNTS_OF_ROUTES = {Kind.RECEIVED, Kind.SENT, Kind.LEARNED, Kind.MORE_ROUTES, Kind.IGP_NEIGHBORS}


@dataclass
class Group:
    """A failed check, and the failed checks that follow from it.

    ``hosts`` have the cause, ``reached`` have lost a session because of it.  ``cut`` is true for a cause that
    ends BGP sessions.
    """

    check: Check
    hosts: frozenset[str]
    follows: list[Check] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    cut: bool = False


def groups(
    checks: Iterable[Check], plans: Mapping[str, HostPlan], fabric: Fabric, silent: Set[str]
) -> list[Group]:
    """Return every failed check once, the causes of the most checks first.

    ``silent`` are the hosts whose routing daemon does not answer.
    """
    return _Grouping(failures(checks), plans, fabric, silent).groups()


class _Grouping:
    """The grouping of the failed checks of one verification."""

    def __init__(
        self, failed: list[Check], plans: Mapping[str, HostPlan], fabric: Fabric, silent: Set[str]
    ) -> None:
        self._failed = failed
        self._plans = plans
        self._fabric = fabric
        self._silent = silent
        self._by_key = {(check.host, check.key): check for check in failed}
        self._group_of: dict[tuple[str, Key], Group] = {}
        self._cuts: list[Group] = []
        self._of_host: dict[str, Group] = {}
        # By hypervisor and prefix, by name or address of a ping's target, and by domain and family.
        self._group_of_route: dict[tuple[str, str], Group] = {}
        self._group_of_target: dict[tuple[str, Family], Group] = {}
        self._group_of_network: dict[tuple[str, Family], Group] = {}

    def groups(self) -> list[Group]:
        """Return the groups; the search for causes begins with hosts, and ends with single sessions."""
        for check in self._failed:
            if check.kind is Kind.OBSERVATION:
                self._of_host[check.host] = self._begin(check, is_cut=True)
        for host in sorted(self._silent & self._plans.keys()):
            self._begin_daemon(host)
        for check in self._failed:
            self._begin_service(check)
        self._join_sessions()
        for check in self._failed:
            self._begin_guest_route(check)
        for check in self._failed:
            if self._group(check) is None:
                cause = self._cause_of(check)
                if cause is not None:
                    self._add(cause, check)
        found = [self._group(check) or Group(check, frozenset({check.host})) for check in self._failed]
        unique = list({id(group): group for group in found}.values())
        return sorted(unique, key=lambda group: -len(group.follows))

    def _group(self, check: Check) -> Group | None:
        return self._group_of.get((check.host, check.key))

    def _begin(self, check: Check, *, is_cut: bool) -> Group:
        group = Group(check, frozenset({check.host}), cut=is_cut)
        self._group_of[check.host, check.key] = group
        if is_cut:
            self._cuts.append(group)
        return group

    def _add(self, group: Group, check: Check) -> None:
        group.follows.append(check)
        self._group_of[check.host, check.key] = group

    def _begin_daemon(self, host: str) -> None:
        """Begin a group for the daemon of ``host``: its failed unit, or its missing answer."""
        units = [unit_of(unit) for unit in routing_units(self._plans[host])]
        keys = [*(Key(Kind.UNIT, unit) for unit in units), Key(Kind.CONFIGURATION, HOST)]
        found = [check for key in keys if (check := self._by_key.get((host, key))) is not None]
        if found:
            group = self._of_host[host] = self._begin(found[0], is_cut=True)
            listeners = [self._by_key.get((host, Key(Kind.LISTENERS, unit))) for unit in units]
            for check in [*found[1:], *listeners]:
                if check is not None:
                    self._add(group, check)

    def _begin_service(self, check: Check) -> None:
        """Begin a group for a failed unit of a service other than routing, if checks of its service fail."""
        unit = check.subject
        if (
            check.kind is not Kind.UNIT
            or not isinstance(unit, subjects.Unit)
            or self._group(check) is not None
        ):
            return
        offered = OFFERED_BY.get(unit, set())
        following = [
            other
            for other in self._failed
            if other.host == check.host and other.kind in offered
            if other.kind is not Kind.LISTENERS or other.subject == unit
        ]
        if following:
            group = self._begin(check, is_cut=False)
            for other in following:
                self._add(group, other)

    def _begin_guest_route(self, check: Check) -> None:
        """Begin a group for a guest's route that its hypervisor lacks in the table of the guest's domain.

        The hypervisor does not advertise the guest then.  The same route in its table local-out is its own.
        """
        if check.kind is not Kind.ROUTE or not isinstance(check.subject, subjects.Route) or check.found:
            return
        own = (check.host, check.subject.prefix)
        guest, route = self._guest_by_route.get(own, (None, None))
        if guest is None or route is None or check.subject.table != guest.domain:
            return
        group = self._group_of_route[own] = self._begin(check, is_cut=False)
        target = guest.name if route.kind == "main" else route.prefix.partition("/")[0]
        self._group_of_target[target, route.family] = group
        self._group_of_network.setdefault((guest.domain, route.family), group)

    # Sessions.

    @cached_property
    def _sessions(self) -> dict[tuple[str, Key], Session | PathNeighbor]:
        """The BGP session of a check, or with an IGP the neighbour on a path, by the check's host and key."""
        of_igp = {
            (host, Key(Kind.BFD, bfd_of_neighbor(near))): near
            for host, plan in self._plans.items()
            for near in plan.routing.path_neighbors
        }
        return of_igp | {
            (host, key): session
            for host, plan in self._plans.items()
            for session in plan.routing.sessions
            for key in (
                Key(Kind.SESSION, subjects.Session(session.name)),
                *(() if plan.routing.igp else (Key(Kind.BFD, bfd_of(session)),)),
            )
        }

    def _join_sessions(self) -> None:
        """Add failed sessions and their BFD to the group of their cause.

        The cause is a host, a daemon or an interface at one end.  Without one it is the first failed session
        between the two hosts on the path.
        """
        pairs: dict[tuple[str, frozenset[str]], Group] = {}
        for check in self._failed:
            session = self._sessions.get((check.host, check.key))
            if session is None:
                continue
            group = self._of_machine(check.host, session) or self._of_link(check.host, session)
            pair = (session.path, frozenset({check.host, session.peer}))
            if group is None and pair not in pairs:
                pairs[pair] = self._begin(check, is_cut=True)
                pairs[pair].hosts = pair[1]
            elif self._group(check) is None:
                self._add(group or pairs[pair], check)
            if (cause := self._group(check)) is not None:
                cause.reached.add(check.host)

    def _of_machine(self, host: str, session: Session | PathNeighbor) -> Group | None:
        """Return the group of a machine or daemon at one end of a session."""
        return next((self._of_host[end] for end in (host, session.peer) if end in self._of_host), None)

    def _of_link(self, host: str, session: Session | PathNeighbor) -> Group | None:
        """Return the group of an interface that fails at one end of a session."""
        for end in (host, session.peer):
            for interface in self._interfaces(end, session):
                for kind in (Kind.LINK, Kind.ADDRESSES):
                    check = self._by_key.get((end, Key(kind, subjects.Interface(interface))))
                    if check is not None:
                        group = self._group(check) or self._begin(check, is_cut=True)
                        group.cut = True
                        return group
        return None

    def _interfaces(self, host: str, session: Session | PathNeighbor) -> list[str]:
        """Return the interfaces of a session at ``host``: the parent of a VLAN interface first.

        A session between loopbacks has none: it survives the loss of a path.
        """
        if session.interface == LOOPBACK:
            return []
        plan = self._plans.get(host)
        found = []
        for uplink in plan.uplinks if plan is not None else ():
            if (uplink.path, uplink.domain) == (session.path, session.domain):
                found += [*([uplink.vlan.parent] if uplink.vlan is not None else []), uplink.interface]
        return found

    # Other checks.

    def _cause_of(self, check: Check) -> Group | None:
        """Return the group that a check follows from; ``None`` for a check with a cause of its own."""
        here = [group for group in self._cuts if check.host in group.hosts or check.host in group.reached]
        if check.kind in COUNTS_OF_ROUTES:
            return next(iter(here), next(iter(self._cuts), self._of_missing_guest(check)))
        match check.key:
            case Key(Kind.LINK | Kind.NETWORKD | Kind.ADDRESSES, subjects.Interface(interface)):
                return self._of_interface(check.host, interface)
            case Key(Kind.PATH):
                return next(iter(here), None)
            case Key(Kind.ROUTE, subjects.Route(prefix, table)):
                return self._of_route(check.host, prefix, table, here)
            case Key(Kind.PING, subjects.EchoRequest(source, target, family)):
                ends = {check.host, self._hypervisor_of.get(target, target)}
                of_hosts = (group for group in self._cuts if group.hosts & ends)
                of_target = self._group_of_target.get((target, family))
                return next(of_hosts, of_target or self._group_of_target.get((source, family)))
        return None

    def _of_interface(self, host: str, interface: str) -> Group | None:
        """Return the group of the failed link of an interface, or of the parent of a VLAN interface."""
        plan = self._plans.get(host)
        below = [
            uplink.vlan.parent
            for uplink in (plan.uplinks if plan is not None else ())
            if uplink.interface == interface and uplink.vlan is not None
        ]
        return next(
            (
                group
                for name in (*below, interface)
                if (group := self._group_of.get((host, Key(Kind.LINK, subjects.Interface(name))))) is not None
                and group.cut
            ),
            None,
        )

    def _of_route(self, host: str, prefix: str, domain: str, here: list[Group]) -> Group | None:
        """Return the cause of a different learned route: at a host that advertises it, else at this host."""
        plan = self._plans.get(host)
        if plan is None or (host, prefix) in self._guest_by_route:
            return None
        owners = {
            owner
            for table in plan.routing.tables
            if table.domain == domain
            for owner in self._fabric.owners(source_of(plan, table).name, prefix)
        }
        of_owner = (group for group in self._cuts if group.hosts & owners)
        of_guest = (
            self._group_of_route[owner, prefix]
            for owner in sorted(owners)
            if (owner, prefix) in self._group_of_route
        )
        return next(of_owner, next(of_guest, next(iter(here), None))) if owners else None

    def _of_missing_guest(self, check: Check) -> Group | None:
        """Return the group of a guest's missing route that changes a count: of its domain and family."""
        plan = self._plans.get(check.host)
        if plan is None:
            return None
        match check.subject:
            case subjects.Table(domain, family):
                sources = {source_of(plan, t).domain for t in plan.routing.tables if t.domain == domain}
            case subjects.SessionFamily(session, family):
                sessions = (*plan.routing.sessions, *plan.routing.ranges)
                sources = {domain for s in sessions if s.name == session for domain in s.domains}
            case _:
                return None
        groups_of_sources = (self._group_of_network.get((domain, family)) for domain in sorted(sources))
        return next((group for group in groups_of_sources if group is not None), None)

    @cached_property
    def _guest_by_route(self) -> dict[tuple[str, str], tuple[GuestPlan, GuestRoute]]:
        """The guest of each guest's own route, and the route, by its hypervisor and prefix."""
        return {
            (host, route.prefix): (guest, route)
            for host, plan in self._plans.items()
            for guest in plan.guests
            for route in guest.routes
        }

    @cached_property
    def _hypervisor_of(self) -> dict[str, str]:
        """The hypervisor of each guest."""
        return {guest.name: plan.host for plan in self._plans.values() for guest in plan.guests}

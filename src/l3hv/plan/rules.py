"""The policy rules that select a packet's table: their number does not depend on the number of guests.

The kernel's rule of ``local`` (priority 0) stays; its rules of ``main`` and ``default`` (32766, 32767) are
removed.  Packets of private guests are recognised by their source address, not by a rule per port.  The
reverse-path check looks up the source with the interface that the packet would leave by as ``iif`` (Linux
3.15 and later), so the same rules select the same table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from l3hv.model.addressing import FAMILIES
from l3hv.model.choices import Family
from l3hv.model.errors import Problem
from l3hv.model.intent import Common, Domain, HostIntent, HostSlice
from l3hv.model.names import LOCAL_OUT, VRF_RULE_PRIORITY, spread_name
from l3hv.model.plan import Rule
from l3hv.plan.anycast import MARKS, DomainAnycast, spread_anycast
from l3hv.plan.igp import domains_of
from l3hv.plan.tunnels import tunnels

RULE_STEP = 10
"""The difference between the priorities of two rules that follow each other."""

ICMP, UDP = 1, 17
"""IANA's numbers of the protocols."""

DHCP_SERVER = 67
"""The UDP port of DHCP servers."""

MAIN_PRIORITY = 32766
"""Priority of the kernel's own rule of ``main``; the rules of l3hv come before it."""


def policy_rules(
    common: Common, host: HostIntent, anycast: Collection[DomainAnycast] = ()
) -> tuple[Rule, ...]:
    """Return the rules of a host that spreads ``anycast`` in the order of their priorities, IPv4 first.

    A reflector forwards nothing and has no rules.  A family that no domain of the host has, has none either.
    """
    if host.kind == "route_reflector":
        return ()
    if host.uses_vrfs:
        return tuple(
            rule for family in FAMILIES for rule in _rules_beside_vrfs(common, host, family, anycast)
        )
    return tuple(
        replace(rule, priority=common.rule_priority + index * RULE_STEP)
        for family in FAMILIES
        for index, rule in enumerate(_rules(common, host, family, anycast))
    )


def _rules_beside_vrfs(
    common: Common, host: HostIntent, family: Family, anycast: Collection[DomainAnycast]
) -> Iterator[Rule]:
    """Yield the rules of a host with VRFs.

    Their number depends neither on paths nor on prefixes.  Only the host's own traffic may have more: if
    ``main`` has a default route, one for each prefix of the fabric and one for each DHCP server of a relay;
    and one for each private prefix of IPv6, which has no ``local-out``.
    The kernel's rule ``l3mdev`` looks up packets of a VRF's interfaces, and the host's own packets that are
    bound to one: answers of DHCP, ICMP errors, BGP.  The marked flows of spread anycast come before it.
    """
    domains = [
        domain for domain in common.domains if domain.name in host.domains and family in domain.families
    ]
    if not domains:
        return
    before = [*_rules_of_spread(family, anycast)]
    for index, rule in enumerate(before):
        yield replace(rule, priority=VRF_RULE_PRIORITY - (len(before) - index) * RULE_STEP)
    yield replace(_rule(family, None, "packets of a VRF"), priority=VRF_RULE_PRIORITY)
    after = [*_rules_of_own_traffic(common, host, family, domains)]
    if family == "ipv6":
        public = next((domain for domain in domains if domain.kind == "public"), domains[0])
        after.append(_rule(family, public.name, "the host's own traffic", iif="lo"))
    for index, rule in enumerate(after, 1):
        yield replace(rule, priority=VRF_RULE_PRIORITY + index * RULE_STEP)


def rule_problems(host_slice: HostSlice) -> list[Problem]:
    """Return a problem if the last rule of a host would come after the kernel's own rules."""
    common, host = host_slice.common, host_slice.host
    rules = policy_rules(common, host, spread_anycast(common, host, dict(host_slice.holders)))
    highest = max((rule.priority for rule in rules), default=0)
    if highest < MAIN_PRIORITY:
        return []
    return [
        Problem(
            host.name,
            "l3hv_rule_priority",
            str(common.rule_priority),
            f"The last rule would have the priority {highest}; {MAIN_PRIORITY} is the kernel's rule of main.",
            f"Choose at most {MAIN_PRIORITY - 1 - (highest - common.rule_priority)}.",
        )
    ]


def _rules(
    common: Common, host: HostIntent, family: Family, anycast: Collection[DomainAnycast]
) -> Iterator[Rule]:
    domains = [
        domain for domain in common.domains if domain.name in host.domains and family in domain.families
    ]
    if not domains:
        return
    yield from _rules_of_own_traffic(common, host, family, domains)
    yield from _rules_of_spread(family, anycast)
    for domain in domains:
        if domain.kind == "private":
            yield from _rules_of_private(common, host, family, domain)
    for domain in domains:
        if domain.kind == "public":
            yield _rule(family, domain.name, f"all other traffic belongs to {domain.name}")


def _rules_of_spread(family: Family, anycast: Collection[DomainAnycast]) -> Iterator[Rule]:
    """Yield the rules of marked flows to holders of anycast prefixes on other hypervisors.

    If the table has no route, the lookup continues with the next rule.  The rule and the routes of its table
    can therefore appear in any order.
    """
    for one in anycast:
        if one.family == family:
            yield _rule(
                family,
                spread_name(one.domain.name),
                f"anycast of {one.domain.name} to holders on other hypervisors",
                mark=MARKS[one.domain.kind],
            )


def _rules_of_own_traffic(
    common: Common, host: HostIntent, family: Family, domains: list[Domain]
) -> Iterator[Rule]:
    """Yield the rules of the host's own traffic.

    ``main`` has the directly attached prefixes: the uplinks' prefixes, without which no next hop of BGP can
    be resolved, and the management network.  In IPv6 its rule comes first for all traffic, because there the
    kernel resolves next hops without ``iif``.
    """
    own = None if family == "ipv6" else "lo"
    yield from _rules_to_loopbacks(common, host, family)
    if host.settings.main_default_route:
        yield _rule(
            family,
            "main",
            "directly attached prefixes, without the default route of the management",
            iif=own,
            suppress_prefixlength=0,
        )
        yield from _rules_of_dhcp(common, host, family, domains)
        yield from _rules_of_errors(common, host, family)
        for domain in domains:
            yield from _rules_to(common, host, family, domain)
        yield from _rules_to_dhcp_servers(host, family)
        yield _rule(family, "main", "all other traffic of the host itself uses the management", iif="lo")
    else:
        yield _rule(family, "main", "directly attached prefixes", iif=own)
        yield from _rules_of_dhcp(common, host, family, domains)
        yield from _rules_of_errors(common, host, family)
        for domain in domains:
            if domain.kind == "private" and not _has_local_out(host, family):
                yield from _rules_to(common, host, family, domain)
    if _has_local_out(host, family):
        yield _rule(
            family,
            LOCAL_OUT,
            "the host's own traffic to its guests and to the private domain",
            iif="lo",
        )


def _rules_to_loopbacks(common: Common, host: HostIntent, family: Family) -> Iterator[Rule]:
    """Yield the rules to the loopbacks of an IGP.

    The default route is not used: ``main``, which is next, has routes to the loopbacks that the IGP does not
    reach (:func:`l3hv.plan.igp.fallbacks`).  In IPv6 the kernel resolves next hops without ``iif``, and finds
    these routes: ``suppress_prefixlength`` has no effect there (``fib6_rule_suppress``, Linux 6.12).
    """
    for domain, of_domain in domains_of(common, host):
        if of_domain == family:
            is_private = domain.kind == "private" and _has_local_out(host, family)
            yield _rule(
                family,
                LOCAL_OUT if is_private else domain.name,
                f"loopbacks of {domain.name}",
                iif="lo",
                destination=str(domain.loopback(family)),
                suppress_prefixlength=0,
            )


def _rules_of_dhcp(common: Common, host: HostIntent, family: Family, domains: list[Domain]) -> Iterator[Rule]:
    """Yield the rules of DHCP's answers to the guests.

    ``local-out`` would give the answers the private loopback as source.  In the domain's table the kernel
    uses the address of the port, which is the gateway's.  The rules apply only to destinations in the pools,
    because other programs of the host may serve DHCP, too.
    """
    if not _has_local_out(host, family) or host.uses_vrfs:
        return
    for domain in domains:
        for prefix in common.pool_prefixes(domain.name, family):
            yield _rule(
                family,
                domain.name,
                f"DHCP answers to guests of {domain.name} from their gateway",
                iif="lo",
                destination=str(prefix),
                ip_protocol=UDP,
                source_port=DHCP_SERVER,
            )


def _rules_of_errors(common: Common, host: HostIntent, family: Family) -> Iterator[Rule]:
    """Yield the rules of ICMP errors about public packets, which go to the senders of these packets.

    The source of an error is the address of the interface on which the packet arrived
    (``icmp_errors_use_inbound_ifaddr``).  It identifies the domain: it is a pool's gateway on a guest port,
    and the host's own address on a path.  A link-local gateway identifies none, but only the guest at the
    port gets errors from it, and local-out has that guest's route.  Other packets of the host have no source
    yet at their lookup; the packet filter drops pings that are bound to such a source.  Errors about private
    packets use local-out.
    In IPv6 the domains' own rules apply to errors, too.
    """
    public = common.public
    if not _has_local_out(host, family) or public.name not in host.domains or host.uses_vrfs:
        return
    networks = [
        common.network(uplink.path, public.name, family)
        for uplink in host.uplinks
        if uplink.domain == public.name
    ]
    subnets = [pool.subnet for pool in common.pools if pool.domain == public.name]
    sources = [str(subnet) for subnet in subnets if subnet is not None]
    sources += [str(network.prefix) for network in networks if network is not None]
    for source in sources:
        why = f"ICMP errors about packets of {public.name}"
        yield _rule(family, public.name, why, iif="lo", source=source, ip_protocol=ICMP)


def _rules_to(common: Common, host: HostIntent, family: Family, domain: Domain) -> Iterator[Rule]:
    table = LOCAL_OUT if _has_local_out(host, family) else domain.name
    why = f"the host's own traffic to {domain.name}"
    prefixes = common.fabric_prefixes(domain, family)
    if common.has_igp:  # loopbacks have a rule of their own
        prefixes = common.pool_prefixes(domain.name, family)
    for prefix in prefixes:
        yield _rule(family, table, why, iif="lo", destination=str(prefix))


def _rules_to_dhcp_servers(host: HostIntent, family: Family) -> Iterator[Rule]:
    """Yield the rules of a DHCP relay's messages, which the servers answer in the private domain."""
    if _has_local_out(host, family) and host.settings.dhcp == "relay":
        for server in host.settings.dhcp_servers:
            yield _rule(family, LOCAL_OUT, "DHCP servers", iif="lo", destination=f"{server}/32")


def _rules_of_private(common: Common, host: HostIntent, family: Family, domain: Domain) -> Iterator[Rule]:
    for uplink in host.uplinks:
        if uplink.domain == domain.name:
            yield _rule(family, domain.name, f"path {uplink.path} of {domain.name}", iif=uplink.interface)
    for tunnel in tunnels(common, host):
        if tunnel.domain == domain.name and tunnel.family == family:
            why = f"tunnels on path {tunnel.path} of {domain.name}"
            yield _rule(family, domain.name, why, iif=tunnel.interface)
    if host.kind == "hypervisor":
        for prefix in common.pool_prefixes(domain.name, family):
            yield _rule(family, domain.name, f"guests of {domain.name}", source=str(prefix))


def _has_local_out(host: HostIntent, family: Family) -> bool:
    """Tell whether the host's own traffic has a table: a hypervisor has one for IPv4.

    In IPv6 its own traffic uses the tables of the domains.
    """
    return host.kind == "hypervisor" and family == "ipv4"


def _rule(
    family: Family,
    table: str | None,
    why: str,
    *,
    iif: str | None = None,
    source: str | None = None,
    destination: str | None = None,
    suppress_prefixlength: int | None = None,
    mark: str | None = None,
    ip_protocol: int | None = None,
    source_port: int | None = None,
) -> Rule:
    """Return a rule with priority 0, which the caller replaces."""
    return Rule(
        family,
        0,
        table,
        why,
        iif,
        source,
        destination,
        suppress_prefixlength,
        mark,
        ip_protocol,
        source_port,
    )

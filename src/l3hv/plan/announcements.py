"""The announcements of one host: the facts from which verification expects its routes on other hosts."""

from __future__ import annotations

from typing import Any

from l3hv.model.choices import LINK_RELATIONS, Family
from l3hv.model.names import bird_table
from l3hv.model.plan import HostPlan
from l3hv.plan.tables import is_advertised


def announcements(plan: HostPlan) -> dict[str, Any]:
    """Return the announcements of ``plan``'s host as plain data.

    The shape is::

        {"kind": "hypervisor",
         "bfd": {"interval_ms": 100, "multiplier": 3},
         "calls": [["198.51.100.1", "198.51.100.126"]],
         "filtered": ["vm2"],
         "mtus": {"a public": 1500},
         "tables": {"public4": {"next_hops": {"a": "198.51.100.1", "b": "198.51.100.129"},
                                "prefixes": {"203.0.113.1/32": ["vm1"], "0.0.0.0/0": []}}}}

    ``tables`` has BIRD's table names.  A prefix names the guests that it leads to: the host advertises it
    while the port of one of these guests exists.  The host's own prefixes name no guest and are always
    advertised.
    ``calls`` are the addresses of its sessions with reflectors: its own and the reflector's.
    ``filtered`` are its guests whose ports drop some traffic of their domain (isolation, allowed sources).
    ``mtus`` are the MTUs of its interfaces in bytes, by path and domain.
    With leaves and spines, ``links`` has the next hops by neighbour and BIRD table.
    With an IGP ``next_hops`` are the addresses on all paths, and ``loopbacks`` has the host's own loopback in
    each table::

        {"public4": {"prefix": "192.0.2.129/32", "next_hops": {"a": "198.51.100.1", "b": "198.51.100.129"}}}

    ``bfd`` are the host's own timers: the two ends of a session agree on the slower interval.
    """
    kernel_names = {table.id: table.name for table in plan.table_names}
    tables: dict[str, Any] = {}
    for table in plan.routing.tables:
        prefixes: dict[str, list[str]] = {prefix: [] for prefix in table.originates}
        if table.learn and table.kernel_table is not None:
            name = kernel_names[table.kernel_table]
            for guest in plan.guests:
                for route in guest.routes:
                    is_here = route.family == table.family and name in route.tables
                    if is_here and is_advertised(route, table.originates):
                        prefixes.setdefault(route.prefix, []).append(guest.name)
        next_hops = {
            session.path: next_hop
            for session in plan.routing.sessions
            for channel in session.channels
            if (next_hop := channel.own_next_hops.get(table.name)) is not None
        }
        if plan.routing.igp and next_hops:
            next_hops = _addresses_on_paths(plan, table.domain, table.family)
        if next_hops and prefixes:
            tables[table.name] = {"next_hops": next_hops, "prefixes": prefixes}
    timers = plan.routing.timers
    bfd = {"interval_ms": timers.bfd_interval_ms, "multiplier": timers.bfd_multiplier}
    calls = [[s.local, s.neighbor] for s in plan.routing.sessions if s.relation == "reflector"]
    filtered_ports = {*plan.packet_filter.isolated, *plan.packet_filter.restricted}
    filtered = [guest.name for guest in plan.guests if guest.interface in filtered_ports]
    # The MTU of a host that l3hv does not configure is unknown.
    mtus = {f"{uplink.path} {uplink.domain}": uplink.mtu for uplink in plan.uplinks if plan.managed}
    loopbacks = {
        bird_table(igp.domain, igp.family): {
            "prefix": igp.loopback,
            "next_hops": _addresses_on_paths(plan, igp.domain, igp.family),
        }
        for igp in plan.routing.igp
    }
    return {
        "kind": plan.kind,
        "bfd": bfd,
        "calls": calls,
        **({"links": links} if (links := _links(plan)) else {}),
        "filtered": filtered,
        "mtus": mtus,
        "tables": tables,
        **({"loopbacks": loopbacks} if loopbacks else {}),
    }


def _links(plan: HostPlan) -> dict[str, dict[str, str]]:
    """Return the next hops of a host on its links, by neighbour and BIRD table."""
    links: dict[str, dict[str, str]] = {}
    for session in plan.routing.sessions:
        if session.relation in LINK_RELATIONS:
            for channel in session.channels:
                for part in channel.carries:
                    hop = part.accepted_next_hops.partition("/")[0]
                    links.setdefault(session.peer, {})[part.table] = session.neighbor if hop == "::" else hop
    return links


def _addresses_on_paths(plan: HostPlan, domain: str, family: Family) -> dict[str, str]:
    """Return the addresses of a host on the paths, in IPv6 link-local ones: the next hops of an IGP."""
    found = {}
    for uplink in plan.uplinks:
        own = next((one.address for one in uplink.addresses if one.family == family), None)
        if uplink.domain == domain and own is not None:
            found[uplink.path] = own if family == "ipv4" or uplink.link_local is None else uplink.link_local
    return found

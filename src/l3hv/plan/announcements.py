"""What one host announces to the fabric: all that the others have to know of it to expect its routes."""

from __future__ import annotations

from typing import Any

from l3hv.model.plan import HostPlan


def announcements(plan: HostPlan) -> dict[str, Any]:
    """Return what ``plan``'s host announces, as plain data.

    The shape is::

        {"kind": "hypervisor",
         "bfd": {"interval_ms": 100, "multiplier": 3},
         "calls": [["198.51.100.1", "198.51.100.126"]],
         "guarded": ["vm2"],
         "mtus": {"a public": 1500},
         "tables": {"public4": {"next_hops": {"a": "198.51.100.1", "b": "198.51.100.129"},
                                "prefixes": {"203.0.113.1/32": ["vm1"], "0.0.0.0/0": []}}}}

    ``tables`` has BIRD's table names. A prefix names the guests of the host that it leads to: it is announced
    while the port of one of them is there.  The host's own prefixes name nobody and are always announced.
    ``calls`` are the addresses of its sessions with reflectors: its own and the reflector's.
    ``guarded`` are its guests whose ports do not let everything through that the domain carries.
    ``mtus`` are those of its interfaces, by path and domain.
    ``bfd`` is what it asks of its neighbours: two ends agree on the slower interval.
    """
    kernel_names = {table.id: table.name for table in plan.table_names}
    tables: dict[str, Any] = {}
    for table in plan.routing.tables:
        prefixes: dict[str, list[str]] = {prefix: [] for prefix in table.originates}
        if table.learn and table.kernel_table is not None:
            name = kernel_names[table.kernel_table]
            for guest in plan.guests:
                for route in guest.routes:
                    if route.family == table.family and name in route.tables:
                        prefixes.setdefault(route.prefix, []).append(guest.name)
        next_hops = {
            session.path: next_hop
            for session in plan.routing.sessions
            for channel in session.channels
            if (next_hop := channel.next_hops.get(table.name)) is not None
        }
        if next_hops and prefixes:
            tables[table.name] = {"next_hops": next_hops, "prefixes": prefixes}
    timers = plan.routing.timers
    bfd = {"interval_ms": timers.bfd_interval_ms, "multiplier": timers.bfd_multiplier}
    calls = [[s.local, s.neighbor] for s in plan.routing.sessions if s.relation == "reflector"]
    closed = {*plan.packet_filter.isolated, *plan.packet_filter.restricted}
    guarded = [guest.name for guest in plan.guests if guest.interface in closed]
    # Of a host that is left alone the MTU is not known.
    mtus = {f"{uplink.path} {uplink.domain}": uplink.mtu for uplink in plan.uplinks if plan.managed}
    return {"kind": plan.kind, "bfd": bfd, "calls": calls, "guarded": guarded, "mtus": mtus, "tables": tables}

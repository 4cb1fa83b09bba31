"""The plan of one host, from its slice of the intent."""

from __future__ import annotations

from l3hv.model.intent import HostSlice
from l3hv.model.plan import HostPlan
from l3hv.plan.anycast import spread_anycast
from l3hv.plan.dhcp_server import dhcp_server
from l3hv.plan.guest_ports import dhcp_pools, guest_plans, guest_services
from l3hv.plan.kernel import sysctls
from l3hv.plan.packet_filter import packet_filter
from l3hv.plan.routing import routing
from l3hv.plan.rules import policy_rules
from l3hv.plan.sessions import ranges, sessions
from l3hv.plan.tables import last_resorts, table_names
from l3hv.plan.tunnels import tunnels
from l3hv.plan.uplinks import loopback_addresses, nics, preferred_source, uplinks, vrfs
from l3hv.plan.warnings import warnings


def host_plan(host_slice: HostSlice) -> HostPlan:
    """Return the plan of one host, computed from its slice of the intent."""
    common, host = host_slice.common, host_slice.host
    loopbacks = loopback_addresses(common, host)
    source = preferred_source(common, loopbacks)
    guests = guest_plans(common, host, source)
    anycast = spread_anycast(common, host, dict(host_slice.holders))
    named_sessions = sessions(common, host, host_slice.peers, host_slice.largest)
    return HostPlan(
        host=host.name,
        kind=host.kind,
        id=host.id,
        fabric=common.fabric,
        forwards=host.kind != "route_reflector",
        main_default_route=host.settings.main_default_route,
        vrfs=vrfs(common, host),
        nics=nics(host),
        uplinks=uplinks(common, host),
        loopbacks=loopbacks,
        table_names=table_names(common, host, anycast),
        rules=policy_rules(common, host, anycast),
        last_resorts=last_resorts(common, host),
        sysctls=sysctls(common, host),
        guests=guests,
        dhcp_pools=dhcp_pools(common, guests),
        guest_services=guest_services(common, host, guests, source),
        dhcp_server=dhcp_server(host_slice),
        packet_filter=packet_filter(common, host, guests, anycast, named_sessions),
        routing=routing(
            host_slice,
            named_sessions=named_sessions,
            ranges=ranges(common, host, host_slice.largest),
            loopbacks=loopbacks,
            guests=guests,
            anycast=anycast,
        ),
        tunnels=tunnels(common, host),
        warnings=warnings(host_slice),
        managed=host.settings.managed,
        after_clients=host.kind == "route_reflector"
        and (host.turn or host.uplinks[0].path) != common.paths[0],
    )

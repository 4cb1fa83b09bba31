"""Observations of the module ``l3hv_observe`` on a host that is exactly as planned."""

from __future__ import annotations

import signal
from typing import Any

from l3hv.model.addressing import HOST_LENGTH
from l3hv.model.plan import GuestPlan, HostPlan, PathNeighbor, RoutingTable
from l3hv.plan.units import settings_of
from l3hv.verify.expect import (
    LEARNED_METRIC,
    addresses_of,
    configured_interfaces,
    igp_links,
    measured,
    routing_units,
    units,
)
from l3hv.verify.fabric import EVERY_PATH, Fabric, Total, route_total
from l3hv.verify.sets import planned_sets

NETWORKD, TABLES_UNIT, KERNEL = 4, 107, 2
DHCP = ("l3hv-dhcp-relay.service", "l3hv-dhcp-server.service")
SERVICES = (*DHCP, "l3hv-ndp-proxy.service")


def observation(plan: HostPlan, fabric: Fabric, absent: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the observation of the host of ``plan``, without the ports of its guests in ``absent``."""
    guests = [guest for guest in plan.guests if guest.name not in absent]
    links = {uplink.interface: link(uplink.mtu, master=uplink.vrf) for uplink in plan.uplinks}
    links |= {guest.interface: link(guest.mtu, guest.gateway_mac, master=guest.vrf) for guest in guests}
    addresses = {
        uplink.interface: [address(each) for each in addresses_of(uplink)] for uplink in plan.uplinks
    }
    addresses |= {guest.interface: [address(gateway) for gateway in guest.gateways] for guest in guests}
    addresses["lo"] = [address(f"{loopback.address}/{loopback.length}") for loopback in plan.loopbacks]
    tables = {table.name: table for table in plan.routing.tables}
    return {
        "links": {"lo": link(65536), **links},
        "addresses": addresses,
        "settings": {
            guest.interface: {"ipv4 forwarding": "1", "ipv4 proxy_arp": "1", "ipv6 forwarding": "1"}
            for guest in guests
        },
        "networkd": dict.fromkeys(configured_interfaces(plan, guests), "configured"),
        "rules": {family: rules(plan, family) for family in ("ipv4", "ipv6")},
        "routes": routes(plan, guests),
        "learned": {
            table.name: learned(plan, fabric, table)
            for table in plan.routing.tables
            if table.kernel_table is not None
        },
        "sysctls": {sysctl.key: sysctl.value for sysctl in plan.sysctls},
        "is_container": False,
        "packet_filter": {
            "loaded": True,
            "differences": [],
            "sets": {name: sorted(elements) for name, elements in planned_sets(plan.packet_filter).items()},
            "drops": {
                reason.name: 0 for reason in (*plan.packet_filter.reasons, *plan.packet_filter.arp_reasons)
            },
            "foreign_macs": {},
            "unread": None,
        },
        "neighbors": [],
        "sizes": {
            f"{session.interface} {session.neighbor}": mtu
            for session in measured(plan)
            for mtu in [uplink.mtu for uplink in plan.uplinks if uplink.interface == session.interface]
        },
        "chains": [],
        "unknown_callers": {},
        "translations": dict(pair for guest in guests for pair in guest.transparent),
        "units": {unit: running_unit(unit) for unit in units(plan)},
        "silent": {},
        "listeners": listeners(plan),
        "services": {unit: "" for unit in units(plan) if unit in SERVICES},
        "routing": routing(plan, fabric, tables),
        "offers": {guest.name: offers(plan, guest) for guest in guests},
    }


def running_unit(unit: str) -> dict[str, str]:
    """Return systemd's properties of a unit that runs, starts at boot and has the settings of its files."""
    settings = {**settings_of(unit)}
    if "KillSignal" in settings:
        settings["KillSignal"] = str(int(signal.Signals[settings["KillSignal"]]))
    if "StartLimitIntervalSec" in settings:
        settings["StartLimitIntervalUSec"] = settings.pop("StartLimitIntervalSec")
    if "CapabilityBoundingSet" in settings:
        settings["CapabilityBoundingSet"] = settings["CapabilityBoundingSet"].lower()
    return {"ActiveState": "active", "UnitFileState": "enabled", "DropInPaths": "", **settings}


def listeners(plan: HostPlan) -> dict[str, list[str]]:
    """Return the sockets of the host's daemons, and one of another program."""
    needed = units(plan)
    return {
        **{unit: listened(plan, unit) for unit in routing_units(plan)},
        **{unit: ["udp 67"] for unit in ("l3hv-dhcp.service", *DHCP) if unit in needed},
        **({"radvd.service": ["raw ipv6 58"]} if "radvd.service" in needed else {}),
        "ssh.service": ["tcp 22"],
    }


def listened(plan: HostPlan, unit: str) -> list[str]:
    families = {family: program for program in plan.routing.programs for family in program.families}
    watched = {
        f"{families[channel.family].name}.service"
        for session in (*plan.routing.sessions, *plan.routing.ranges)
        if session.bfd and families
        for channel in session.channels
    }
    if plan.routing.igp:
        return ["tcp 179", "udp 3784", "udp 4784", "udp 520", *(["udp 521"] if "ipv6" in families else [])]
    return ["tcp 179", "udp 3784", "udp 4784"] if unit in watched else ["tcp 179"]


def link(mtu: int, mac: str = "02:00:00:00:00:01", master: str | None = None) -> dict[str, Any]:
    up = {"up": True, "carrier": True}
    return {"mac": mac, "mtu": mtu, **up, "kind": None, "vlan": None, "parent": None, "master": master}


def address(text: str) -> dict[str, Any]:
    return {"address": text, "is_link_scope": False, "trouble": ""}


def rule(priority: int, table: int | str, **selectors: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            *("iif", "oif", "source", "destination", "mark", "suppress_prefixlength"),
            *("ip_protocol", "source_port"),
        )
    )
    rest = {"action": "lookup", "inverted": False, "protocol": TABLES_UNIT, "mask": 0xFFFFFFFF}
    return {"priority": priority, "table": table, **nothing, **rest, **selectors}


def rules(plan: HostPlan, family: str) -> list[dict[str, Any]]:
    numbers = {"main": 254} | {table.name: table.id for table in plan.table_names}
    ours = [
        rule(
            each.priority,
            numbers[each.table] if each.table else "[l3mdev-table]",
            protocol=TABLES_UNIT if each.table else KERNEL,
            iif=each.iif,
            source=each.source,
            destination=each.destination,
            suppress_prefixlength=each.suppress_prefixlength,
            ip_protocol=each.ip_protocol,
            source_port=None if each.source_port is None else str(each.source_port),
            **(dict.fromkeys(("mark", "mask"), int(each.mark, 16)) if each.mark else {}),
        )
        for each in plan.rules
        if each.family == family
    ]
    return [rule(0, 255, protocol=KERNEL), *ours]


def route(prefix: str, device: str | None, **fields: Any) -> dict[str, Any]:
    hop = {"via": fields.pop("via", None), "dev": device, "is_onlink": False}
    plain = {"type": "unicast", "protocol": NETWORKD, "metric": 0, "prefsrc": None, "is_link_scope": True}
    return {"prefix": prefix, "next_hops": [hop], **plain, **fields}


def routes(plan: HostPlan, guests: list[GuestPlan]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {
        f"{table} {family}": []
        for table in ["main", *(table.name for table in plan.table_names)]
        for family in ("ipv4", "ipv6")
    }
    for uplink in plan.uplinks:
        for on_link in uplink.on_link:
            found[f"main {on_link.family}"].append(
                route(on_link.prefix, uplink.interface, metric=on_link.metric)
            )
        for each in uplink.addresses:
            own = {"prefsrc": each.address} if each.family == "ipv4" else {"metric": 256}
            here = found[f"{uplink.vrf or 'main'} {each.family}"]
            here.append(route(each.prefix, uplink.interface, **own, protocol=KERNEL))
            if uplink.vrf is not None:
                # The table of a VRF also has what the table local has otherwise.
                here.append(
                    route(
                        f"{each.address}/{HOST_LENGTH[each.family]}",
                        uplink.interface,
                        type="local",
                        protocol=KERNEL,
                    )
                )
            if uplink.vrf is not None and each.family == "ipv6":
                here += [
                    route(prefix, uplink.interface, metric=256, protocol=KERNEL)
                    for prefix in ("fe80::/64", "ff00::/8")
                ]
    for last in plan.last_resorts:
        default = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}[last.family]
        found[f"{last.table} {last.family}"].append(
            route(
                default if last.prefix == "default" else last.prefix,
                None,
                type=last.type,
                protocol=TABLES_UNIT,
                metric=last.metric,
            )
        )
    for guest in guests:
        for learned in guest.routes:
            for table in learned.tables:
                source = learned.prefsrc if table == "local-out" else None
                options = {"via": learned.via, "metric": learned.metric, "prefsrc": source}
                found[f"{table} {learned.family}"].append(route(learned.prefix, guest.interface, **options))
    return found


def learned(plan: HostPlan, fabric: Fabric, table: RoutingTable) -> dict[str, Any]:
    return learned_routes(fabric.routes(plan, table), table.prefsrc)


def learned_routes(found: dict[str, list[str]], prefsrc: str | None = None) -> dict[str, Any]:
    total = sum((route_total(prefix, hops) for prefix, hops in found.items()), Total())
    words = f"metric {LEARNED_METRIC}" + (f" src {prefsrc}" if prefsrc else "")
    return {
        "count": total.count,
        "digest": total.text,
        "attributes": {words: total.count} if found else {},
        "misdirected": [],
    }


def listed(found: dict[str, list[str]], prefsrc: str | None = None) -> dict[str, Any]:
    """Return learned routes as in a second observation, which lists the routes themselves."""
    each = [{"prefix": prefix, "next_hops": hops} for prefix, hops in found.items()]
    return {**learned_routes(found, prefsrc), "routes": each}


def routing(plan: HostPlan, fabric: Fabric, tables: dict[str, RoutingTable]) -> dict[str, Any]:
    sessions = {}
    for session in plan.routing.sessions:
        channels = {}
        for channel in session.channels:
            counts = {"imported": 0, "filtered": 0, "exported": 0}
            for table in (tables[name] for name in channel.own_next_hops):
                path = EVERY_PATH if plan.routing.igp else session.path
                from_all = fabric.received(plan, table, path)
                own = len(fabric.announced_by(plan.host, table.name))
                imported, exported = from_all, own
                if session.relation in ("client", "mesh"):
                    imported = fabric.sent(session.peer, table, path)
                if session.relation == "client":
                    exported = from_all - imported
                counts["imported"] += imported
                counts["exported"] += exported
            channels[channel.family] = {
                "state": "UP",
                "table": channel.table,
                "routes": counts,
                "limits": [],
                "refused": [],
            }
        sessions[session.name] = {
            "state": "Established",
            "info": "Established",
            "neighbor": session.neighbor,
            "local": session.local,
            "error": "",
            "channels": channels,
        }
    interval = plan.routing.timers.bfd_interval_ms / 1000
    timeout = interval * plan.routing.timers.bfd_multiplier
    return {
        "version": "2.17.5",
        "router_id": plan.routing.router_id,
        "configuration": {"running": "d1", "placed": "d1", "file": "d1"},
        "sessions": sessions,
        "bfd": [
            {
                "address": session.neighbor,
                "interface": session.interface,
                "state": "Up",
                "interval": f"{interval:.3f}",
                "timeout": f"{timeout:.3f}",
            }
            for session in (_of_igp(plan, fabric) if plan.routing.igp else plan.routing.sessions)
        ],
    }


def _of_igp(plan: HostPlan, fabric: Fabric) -> list[PathNeighbor]:
    """Return all neighbours of an IGP: those of the plan, and on each link the hosts without a session."""
    found = list(plan.routing.path_neighbors)
    for (interface, family), link in igp_links(plan).items():
        here = sum((near.interface, near.family) == (interface, family) for near in found)
        others = range(fabric.hosts_on(link.path, link.domain) - 1 - here)
        found += (
            PathNeighbor(
                "",
                link.path,
                link.domain,
                family,
                interface,
                "",
                "192.0.2.1" if family == "ipv4" else "fe80::9",
            )
            for _ in others
        )
    return found


def offers(plan: HostPlan, guest: GuestPlan) -> dict[str, Any]:
    pools = {pool.name: pool for pool in plan.dhcp_pools}
    lease = router = None
    if guest.lease is not None:
        pool = pools[guest.lease.pool]
        lease = {
            "address": guest.lease.address,
            "netmask": pool.guest_netmask or pool.netmask,
            "gateway": pool.gateway,
            "mtu": pool.mtu,
            "dns": list(pool.dns),
            "routes": [list(pair) for pair in pool.routes],
        }
    if guest.prefix is not None:
        prefix = {"prefix": guest.prefix.prefix, "on_link": guest.prefix.on_link}
        router = {
            "lifetime": 90,
            "mac": guest.gateway_mac,
            "mtu": guest.mtu,
            "prefixes": [
                {**prefix, "autonomous": guest.prefix.autonomous, "valid": 86400, "preferred": 14400}
            ],
            "dns": list(guest.prefix.dns),
        }
    return {"lease": lease, "router": router}

"""The kernel's routing tables: a digest of the routes that BIRD made, and a list of all other routes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Any

from ansible.module_utils.l3hv.observe.netlink import IPRoute, NetlinkError, nlmsg_base
from ansible.module_utils.l3hv.observe.plan import FAMILIES, Plan

ZERO = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}
BUILTIN_TABLES = {"main": 254, "local": 255, "default": 253}
PROTOCOL_BIRD = 12
PROTOCOL_FRR = 186
"""The protocol of the routes of FRR that it has learned by BGP."""
PROTOCOL_STAND_IN = 108
"""The protocol of copies of BIRD's routes, which the program bird31-routes adds while BIRD 3.1 scans."""
ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
ROUTE_IS_ONLINK = 0x4
SCOPE_LINK = 253
MISDIRECTED_SHOWN = 10


def next_hops_of(route: nlmsg_base, links: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the next hops of a route: gateway (or None), interface, and whether it has the flag onlink."""

    def hop(attributes: nlmsg_base, index: int | None, flags: int) -> dict[str, Any]:
        via = attributes.get_attr("RTA_GATEWAY")
        if via is None and attributes.get_attr("RTA_VIA"):
            via = attributes.get_attr("RTA_VIA")["addr"]
        device = links[index]["name"] if index in links else None
        return {"via": via, "dev": device, "is_onlink": bool(flags & ROUTE_IS_ONLINK)}

    several = route.get_attr("RTA_MULTIPATH")
    if several:
        return [hop(each, each["oif"], each["flags"]) for each in several]
    return [hop(route, route.get_attr("RTA_OIF"), route["flags"])]


def route_of(message: nlmsg_base, family: str, links: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return one route as plain data."""
    destination = message.get_attr("RTA_DST")
    return {
        "prefix": f"{destination}/{message['dst_len']}" if destination else ZERO[family],
        "type": ROUTE_TYPES.get(message["type"], str(message["type"])),
        "protocol": message["proto"],
        "metric": message.get_attr("RTA_PRIORITY") or 0,
        "prefsrc": message.get_attr("RTA_PREFSRC"),
        "is_link_scope": message["scope"] == SCOPE_LINK,
        "next_hops": next_hops_of(message, links),
    }


def route_digest(prefix: str, next_hops: list[str]) -> int:
    """Return the digest of one route; the digest of a table is their sum modulo 2**128."""
    text = f"{prefix}|{','.join(sorted(set(next_hops)))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


class LearnedRoutes:
    """The routes of BIRD in one kernel table: their number, their digest, and the routes themselves."""

    def __init__(self, on_link: dict[str, list[Any]]) -> None:
        self._on_link = on_link
        self._is_reachable: dict[tuple[str | None, str | None], bool] = {}
        self.routes: list[dict[str, Any]] = []
        self.digest = 0
        self.count = 0
        self.attributes: dict[str, int] = {}
        self.misdirected: list[str] = []

    def add(self, route: dict[str, Any]) -> None:
        """Count one route."""
        hops = [hop["via"] or hop["dev"] or route["type"] for hop in route["next_hops"]]
        self.count += 1
        self.digest = (self.digest + route_digest(route["prefix"], hops)) % 2**128
        attributes = f"metric {route['metric']}" + (f" src {route['prefsrc']}" if route["prefsrc"] else "")
        self.attributes[attributes] = self.attributes.get(attributes, 0) + 1
        self.routes.append({"prefix": route["prefix"], "next_hops": sorted(set(hops))})
        if len(self.misdirected) < MISDIRECTED_SHOWN:
            self.misdirected += [
                f"{route['prefix']} via {hop['via']} dev {hop['dev']}"
                for hop in route["next_hops"]
                if not self._is_on_link(hop["via"], hop["dev"])
            ]

    def _is_on_link(self, via: str | None, device: str | None) -> bool:
        """Tell whether ``via`` lies in a prefix of an address of its interface."""
        if via is None:
            return True
        key = (via, device)
        if key not in self._is_reachable:
            gateway = ip_interface(via).ip
            self._is_reachable[key] = any(gateway in prefix for prefix in self._on_link.get(device or "", ()))
        return self._is_reachable[key]

    def summary(self, expected: str | None) -> dict[str, Any]:
        """Return the totals, and all routes if their digest is not ``expected``."""
        digest = f"{self.digest:032x}"
        summary = {
            "count": self.count,
            "digest": digest,
            "attributes": self.attributes,
            "misdirected": self.misdirected[:MISDIRECTED_SHOWN],
        }
        if expected is not None and expected != digest:
            summary["routes"] = sorted(self.routes, key=lambda route: route["prefix"])
        return summary


def table_routes(netlink: IPRoute, family: str, table: int) -> Iterator[nlmsg_base]:
    """Yield the netlink messages of all routes of a table; the kernel has no table before its first route."""
    try:
        yield from netlink.get_routes(family=FAMILIES[family], table=table)
    except NetlinkError as error:
        if error.code != 2:  # ENOENT: "FIB table does not exist"
            raise


def read_tables(
    plan: Plan, links: dict[int, dict[str, Any]], on_link: dict[str, list[Any]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, LearnedRoutes]]:
    """Return the routes of the plan's kernel tables: routes that BIRD did not make, and routes of BIRD.

    The keys of the former are table and family (``public ipv4``), of the latter the BIRD table (``public4``).
    """
    own: dict[str, list[dict[str, Any]]] = {}
    learned_by = PROTOCOL_FRR if plan["routing"]["daemon"]["name"] == "frr" else PROTOCOL_BIRD
    learned = {}
    bird_tables = {
        (table["family"], table["kernel_table"]): table["name"] for table in plan["routing"]["tables"]
    }
    identifiers = {table["name"]: table["id"] for table in plan["table_names"]}
    # Only on a socket with strict checks does the kernel filter by table; pyroute2 takes 40 us per route.
    with IPRoute(strict_check=True) as netlink:
        for family in FAMILIES:
            for name, identifier in identifiers.items():
                here = own.setdefault(f"{name} {family}", [])
                by_bird = LearnedRoutes(on_link)
                for message in table_routes(netlink, family, identifier):
                    route = route_of(message, family, links)
                    if route["protocol"] == learned_by:
                        by_bird.add(route)
                    elif route["protocol"] != PROTOCOL_STAND_IN:
                        here.append(route)
                if (family, identifier) in bird_tables:
                    learned[bird_tables[family, identifier]] = by_bird
                else:
                    here += [dict(route, protocol=PROTOCOL_BIRD) for route in by_bird.routes]
            # From main, take only the routes of the plan's interfaces, and the default route.
            interfaces = {uplink["interface"] for uplink in (*plan["uplinks"], *plan["tunnels"])}
            own[f"main {family}"] = [
                route
                for route in (
                    route_of(message, family, links)
                    for message in table_routes(netlink, family, BUILTIN_TABLES["main"])
                )
                if route["prefix"] == ZERO[family] or interfaces & {hop["dev"] for hop in route["next_hops"]}
            ]
    return own, learned

#!/usr/bin/python
"""Reads what the kernel and the daemons of one host say, and changes nothing."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_interface
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib


def _without_its_databases() -> None:
    """Keep pyroute2 from importing all of itself: HTTP servers and databases, 0.2 s on every host."""
    specification = importlib.util.find_spec("pyroute2")
    if specification is not None and "pyroute2" not in sys.modules:
        package = types.ModuleType("pyroute2")
        package.__path__ = list(specification.submodule_search_locations or ())
        sys.modules["pyroute2"] = package


try:
    _without_its_databases()
    from pyroute2.iproute.linux import IPRoute
    from pyroute2.netlink import nlmsg_base
    from pyroute2.netlink.exceptions import NetlinkError
except ImportError:
    IPRoute = None

Plan = dict[str, Any]

DOCUMENTATION = r"""
module: l3hv_observe
short_description: Read what the kernel and the daemons of one host say
description:
  - Reads links, addresses, rules, routes and settings through netlink and C(/proc), and asks BIRD, systemd,
    the DHCP and the router advertisement daemon what they do. It compares nothing and changes nothing.
  - The DHCP server and the router advertisement daemon are asked on each guest port for what they offer, as
    the guest would ask them. The guest sees a DHCP offer and a router solicitation that it did not cause; no
    lease is made.
  - Routes that were learned by BGP can be 100,000. They are summarised per table as a count and a digest that
    does not depend on their order, and listed only where the digest is not the one of O(learned).
options:
  plan:
    description: The plan of this host. It says which tables, settings, ports and sessions are worth reading.
    type: dict
    required: true
  settle:
    description:
      - How many seconds to wait at most until the sessions of the plan are up, and what O(learned) and
        O(received) say has come true. It costs nothing where everything is as expected.
      - Where the sessions are up but not all is as expected, the wait ends when nothing changes any more.
    type: float
    default: 0
  learned:
    description: The digest of the learned routes that is expected, by BIRD table (V(public4)).
    type: dict
    default: {}
  received:
    description: The number of prefixes that is expected from a session, by session and family.
    type: dict
    default: {}
requirements:
  - python3-pyroute2 on the host
author: l3hv
"""

EXAMPLES = r"""
- name: Read the kernel and the daemons
  l3hv_observe:
    plan: "{{ l3hv_plan }}"
    settle: 30
  register: observed
"""

RETURN = r"""
observation:
  description: What was read, as plain data.
  returned: success
  type: dict
"""

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
ZERO = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}
BUILTIN_TABLES = {"main": 254, "local": 255, "default": 253}
PROTOCOL_BIRD = 12
ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
RULE_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
RULE_IS_INVERTED = 0x2
ROUTE_IS_ONLINK = 0x4
ADDRESS_IS_TENTATIVE = 0x40
ADDRESS_DAD_FAILED = 0x08
SCOPE_LINK = 253
HAS_SPOKEN = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, STALE, DELAY, PROBE
MISDIRECTED_SHOWN = 10
POLL_SECONDS = 0.2
REST_SECONDS = 2.0
YOUNG_SECONDS = 15.0
"""A BIRD that was started over takes what is left in the kernel away at its scan, every 10 s."""

IP_PKTINFO = 8  # the socket module has no name for it before Python 3.14
BIRD_SOCKET = "/run/bird/bird.ctl"
PACKET_FILTER = "/usr/local/lib/l3hv/packet-filter"
PACKET_FILTER_RULES = "/etc/l3hv/nftables.conf"
BIRD_CONFIGURATION = "/etc/bird/bird.conf"

# What must be on at a guest port, besides the sysctls of the plan.
PORT_SETTINGS = {"ipv4": ("forwarding", "proxy_arp"), "ipv6": ("forwarding",)}
UNITS = (
    "systemd-networkd.service",
    "l3hv-tables.service",
    "bird.service",
    "l3hv-dhcp.service",
    "radvd.service",
    "l3hv-nftables.service",
)


# --- kernel ----------------------------------------------------------------------------------------------


def read_links(netlink: IPRoute) -> dict[int, dict[str, Any]]:
    """Return all interfaces by index."""
    links = {}
    for link in netlink.get_links():
        info = link.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        links[link["index"]] = {
            "name": link.get_attr("IFLA_IFNAME"),
            "mac": link.get_attr("IFLA_ADDRESS"),
            "mtu": link.get_attr("IFLA_MTU"),
            "up": bool(link["flags"] & 1),
            "carrier": link.get_attr("IFLA_CARRIER") == 1,
            "kind": info.get_attr("IFLA_INFO_KIND") if info else None,
            "vlan": data.get_attr("IFLA_VLAN_ID") if hasattr(data, "get_attr") else None,
            "parent": link.get_attr("IFLA_LINK"),
        }
    for link in links.values():
        link["parent"] = links[link["parent"]]["name"] if link["parent"] in links else None
    return links


def read_addresses(netlink: IPRoute, links: dict[int, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the addresses of each interface, by its name."""
    addresses: dict[str, list[dict[str, Any]]] = {}
    for message in netlink.get_addr():
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        addresses.setdefault(links[message["index"]]["name"], []).append(
            {
                "address": f"{address}/{message['prefixlen']}",
                "is_link_scope": message["scope"] == SCOPE_LINK,
                "trouble": "duplicate" * bool(flags & ADDRESS_DAD_FAILED)
                or "tentative" * bool(flags & ADDRESS_IS_TENTATIVE),
            }
        )
    return addresses


def read_rules(netlink: IPRoute, family: int) -> list[dict[str, Any]]:
    """Return the policy rules of one family in the order in which they are looked at."""

    def prefix(message: nlmsg_base, end: str) -> str | None:
        address = message.get_attr(f"FRA_{end.upper()}")
        return f"{address}/{message[f'{end}_len']}" if address else None

    rules = []
    for message in netlink.get_rules(family=family):
        suppressed = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
        rules.append(
            {
                "priority": message.get_attr("FRA_PRIORITY") or 0,
                "action": RULE_ACTIONS.get(message["action"], str(message["action"])),
                "table": message.get_attr("FRA_TABLE") or message["table"],
                "iif": message.get_attr("FRA_IIFNAME"),
                "oif": message.get_attr("FRA_OIFNAME"),
                "source": prefix(message, "src"),
                "destination": prefix(message, "dst"),
                "mark": message.get_attr("FRA_FWMARK"),
                "suppress_prefixlength": None if suppressed in {None, 0xFFFFFFFF} else suppressed,
                "is_inverted": bool(message["flags"] & RULE_IS_INVERTED),
                "protocol": message.get_attr("FRA_PROTOCOL"),
            }
        )
    return sorted(rules, key=lambda rule: rule["priority"])


def next_hops_of(route: nlmsg_base, links: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return where a route leads: gateway (or None), interface and whether it is assumed on-link."""

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
    """Return the number that stands for one route; those of a table are added modulo 2**128."""
    text = f"{prefix}|{','.join(sorted(set(next_hops)))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


class LearnedRoutes:
    """The routes that BIRD put into one kernel table: their number and digest, and the routes themselves."""

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
                if not self._leads_somewhere(hop["via"], hop["dev"])
            ]

    def _leads_somewhere(self, via: str | None, device: str | None) -> bool:
        """Tell whether ``via`` lies in a prefix that its interface has an address of."""
        if via is None:
            return True
        key = (via, device)
        if key not in self._is_reachable:
            gateway = ip_interface(via).ip
            self._is_reachable[key] = any(gateway in prefix for prefix in self._on_link.get(device or "", ()))
        return self._is_reachable[key]

    def summary(self, expected: str | None) -> dict[str, Any]:
        """Return the totals, and all routes where they do not have the digest ``expected``."""
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
    """Yield the netlink messages of all routes of a table; a table that was never used has none."""
    try:
        yield from netlink.get_routes(family=FAMILIES[family], table=table)
    except NetlinkError as error:
        if error.code != 2:  # ENOENT: "FIB table does not exist"
            raise


def read_tables(
    plan: Plan, links: dict[int, dict[str, Any]], on_link: dict[str, list[Any]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, LearnedRoutes]]:
    """Return the routes of the plan's kernel tables: those that BIRD did not make, and those that it did.

    The first are keyed ``public ipv4``, the second by the BIRD table (``public4``).
    """
    own: dict[str, list[dict[str, Any]]] = {}
    learned = {}
    bird_tables = {
        (table["family"], table["kernel_table"]): table["name"] for table in plan["routing"]["tables"]
    }
    identifiers = {table["name"]: table["id"] for table in plan["table_names"]}
    # The kernel filters by table only on such a socket; pyroute2 takes some 40 us for each route it is given.
    with IPRoute(strict_check=True) as netlink:
        for family in FAMILIES:
            for name, identifier in identifiers.items():
                here = own.setdefault(f"{name} {family}", [])
                by_bird = LearnedRoutes(on_link)
                for message in table_routes(netlink, family, identifier):
                    route = route_of(message, family, links)
                    if route["protocol"] == PROTOCOL_BIRD:
                        by_bird.add(route)
                    else:
                        here.append(route)
                if (family, identifier) in bird_tables:
                    learned[bird_tables[family, identifier]] = by_bird
                else:
                    here += [dict(route, protocol=PROTOCOL_BIRD) for route in by_bird.routes]
            # Of main only what the plan speaks of: its own interfaces, and whether there is a default route.
            interfaces = {uplink["interface"] for uplink in plan["uplinks"]}
            own[f"main {family}"] = [
                route
                for route in (
                    route_of(message, family, links)
                    for message in table_routes(netlink, family, BUILTIN_TABLES["main"])
                )
                if route["prefix"] == ZERO[family] or interfaces & {hop["dev"] for hop in route["next_hops"]}
            ]
    return own, learned


def read_neighbours(
    netlink: IPRoute, links: dict[int, dict[str, Any]], interfaces: set[str]
) -> dict[str, dict[str, str]]:
    """Return the MACs that are known behind the guest ports: interface → address → MAC."""
    neighbours: dict[str, dict[str, str]] = {}
    for message in netlink.get_neighbours():
        name = links.get(message["ifindex"], {}).get("name")
        mac = message.get_attr("NDA_LLADDR")
        if name in interfaces and mac and message["state"] & HAS_SPOKEN:
            neighbours.setdefault(name, {})[message.get_attr("NDA_DST")] = mac
    return neighbours


def sysctl_path(key: str) -> str:
    """Return the file of a setting in the syntax of sysctl.d(5): ``/`` in a dotted key stands for a dot."""
    dot, slash = key.find("."), key.find("/")
    if slash == -1 or (dot != -1 and dot < slash):
        key = key.translate(str.maketrans("./", "/."))
    return f"/proc/sys/{key}"


def read_text(path: str) -> str | None:
    """Return what is in a small file, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def read_port_settings(interface: str) -> dict[str, str]:
    """Return the settings of a guest port, such as ``ipv4 forwarding``."""
    paths = {
        f"{family} {name}": f"/proc/sys/net/{family}/conf/{interface}/{name}"
        for family, names in PORT_SETTINGS.items()
        for name in names
    }
    return {name: value for name, path in paths.items() if (value := read_text(path)) is not None}


# --- daemons ---------------------------------------------------------------------------------------------


class BirdError(Exception):
    """BIRD gave no answer, or one that is an error."""


class Bird:
    """A conversation with a BIRD over its control socket (the protocol of birdc)."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._pending = b""
        try:
            self._socket.connect(path)
            self._reply()
        except OSError as error:
            self.close()
            raise BirdError(f"{path}: {error.strerror or error}") from None

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()

    def ask(self, command: str) -> list[tuple[int, str]]:
        """Return the lines of the reply with their codes; BirdError on a refusal."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._reply()
        except OSError as error:
            raise BirdError(f"{command}: {error}") from None

    def first_of(self, command: str) -> list[tuple[int, str]]:
        """Return the beginning of a reply that may be long. The conversation is of no use afterwards."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._reply(most=BEGINNING)
        except OSError as error:
            raise BirdError(f"{command}: {error}") from None

    def _reply(self, most: int | None = None) -> list[tuple[int, str]]:
        lines: list[tuple[int, str]] = []
        code = 0
        while True:
            while b"\n" not in self._pending:
                received = self._socket.recv(65536)
                if not received:
                    raise OSError("the daemon closed its socket")
                self._pending += received
            line, self._pending = self._pending.split(b"\n", 1)
            text = line.decode(errors="replace")
            is_last = False
            if text[:4].isdigit() and text[4:5] in {"-", " "}:
                code = int(text[:4])
                is_last = text[4] == " "
                text = text[5:]
            else:
                text = text[1:]  # a continuation: one space stands for the code of the line before
            lines.append((code, text))
            if len(lines) == most:
                return lines
            if is_last:
                if code >= 8000:
                    raise BirdError(text)
                return lines


ROUTE_LINE = 1007
ROUTE_ROW = re.compile(r"([0-9a-f.:]+/\d+) ")
REFUSAL = re.compile(r"fabric_refusal: (\d+)")
REFUSED_SHOWN = 10
BEGINNING = 300
"""Lines of a reply that are enough for that many routes with all their attributes."""
PROTOCOL_LINE = 1002
DETAIL_LINE = 1006
BFD_LINE = 1020
PROTOCOL_ROW = re.compile(
    r"(?P<name>\S+) +(?P<type>\S+) +(?P<table>\S+) +(?P<state>\S+) +[\d-]\S*(?: \d\d:\S+)? *(?P<info>.*?) *$"
)


def parse_status(lines: list[tuple[int, str]]) -> dict[str, str]:
    """Return what ``show status`` says, whatever the order in which a version says it."""
    text = "\n".join(line for _, line in lines)

    def find(pattern: str) -> str:
        match = re.search(pattern, text)
        return match[1].strip() if match else ""

    return {
        "version": find(r"BIRD v?(\d\S*)"),
        "router_id": find(r"Router ID is (\S+)"),
        "now": find(r"Current server time is (.+)"),
        "started": find(r"Last reboot on (.+)"),
        "reconfigured": find(r"Last reconfiguration on (.+)"),
        "state": next((line for code, line in lines if code in {13, 23}), ""),
    }


def parse_protocols(lines: list[tuple[int, str]]) -> dict[str, dict[str, Any]]:
    """Return the protocols of ``show protocols all``: type, state, info, addresses and channels."""
    protocols: dict[str, dict[str, Any]] = {}
    protocol: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for code, line in lines:
        if code == PROTOCOL_LINE and (row := PROTOCOL_ROW.match(line)):
            fields = {}
            protocol = {**row.groupdict(), "fields": fields, "channels": {}}
            protocols[protocol.pop("name")] = protocol
        elif code == DETAIL_LINE and protocol:
            key, colon, value = (part.strip() for part in line.partition(":"))
            if not colon and key.startswith("Channel "):
                fields = protocol["channels"].setdefault(key.split()[1], {})
            elif colon and value and key not in fields:
                fields[key] = value
    return protocols


def parse_bfd(lines: list[tuple[int, str]]) -> list[dict[str, str]]:
    """Return the sessions of ``show bfd sessions``; intervals in seconds.

    A line is: address, interface, state, since (one word or two), interval, timeout.
    """
    rows = [line.split() for code, line in lines if code == BFD_LINE]
    return [
        {"address": row[0], "interface": row[1], "state": row[2], "interval": row[-2], "timeout": row[-1]}
        for row in rows
        if len(row) >= 6 and row[0] != "IP"
    ]


def routes_of(channel: dict[str, str]) -> dict[str, int]:
    """Return the counters of a channel: imported, filtered, exported, preferred.

    >>> routes_of({"Routes": "7 imported, 0 filtered, 2 exported, 7 preferred"})
    {'imported': 7, 'filtered': 0, 'exported': 2, 'preferred': 7}
    """
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", channel.get("Routes", ""))}


def limits_hit(channel: dict[str, str]) -> list[str]:
    """Return the limits of a channel that it has reached.

    >>> limits_hit({"Import limit": "128 [HIT]", "Receive limit": "256"})
    ['import limit of 128']
    """
    return [
        f"{key.lower()} of {value.split()[0]}"
        for key, value in channel.items()
        if key.endswith(" limit") and value.endswith("[HIT]")
    ]


def parse_refused(lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Return the routes of ``show route all filtered``: prefix, and the number of the reason or ``None``."""
    refused: list[dict[str, Any]] = []
    for code, line in lines:
        if code == ROUTE_LINE and (row := ROUTE_ROW.match(line)):
            refused.append({"prefix": row[1], "reason": None})
        elif refused and (reason := REFUSAL.match(line.strip())):
            refused[-1]["reason"] = int(reason[1])
    return refused


def read_refused(path: str, session: str, table: str) -> list[dict[str, Any]]:
    """Return the first routes of a session that its filter refused, and that are kept nevertheless.

    The conversation ends after them: there may be as many as the session's limit allows.
    """
    bird = Bird(path)
    try:
        return parse_refused(bird.first_of(f"show route all filtered table {table} protocol {session}"))[
            :REFUSED_SHOWN
        ]
    finally:
        bird.close()


def configuration_digests(bird: Bird) -> dict[str, str | None]:
    """Return the digest of what BIRD runs, the one that its file carries, and the one that the file has.

    The file says ``define l3hv_config = "DIGEST";``, DIGEST being that of its text with ``@digest@`` instead.
    """
    try:
        running = bird.ask("eval l3hv_config")[-1][1].strip().strip('"')
    except BirdError as error:
        running = f"something else: {error}"
    placed = file = None
    with contextlib.suppress(OSError), open(BIRD_CONFIGURATION, encoding="utf-8", errors="replace") as text:
        configuration = text.read()
        if found := re.search(r'^define l3hv_config = "([^"]*)";$', configuration, re.MULTILINE):
            placed = found[1]
            configuration = configuration.replace(placed, "@digest@")
        file = hashlib.sha256(configuration.encode()).hexdigest()[: len(placed or "")]
    return {"running": running, "placed": placed, "file": file}


def read_translations() -> dict[str, str]:
    """Return the addresses that are translated on their way to a guest, and the guest's own."""
    command = ["nft", "--json", "list", "map", "inet", "l3hv", "transparent"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}  # no nft, or no table: then nothing is translated
    maps = [entry["map"] for entry in json.loads(listing)["nftables"] if "map" in entry]
    return dict(pair for each in maps for pair in each.get("elem", ()))


def read_packet_filter() -> dict[str, Any]:
    """Return whether the kernel has the rules that were placed, and what it dropped, by reason."""

    def output(*command: str) -> str | None:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    drops: dict[str, int] = {}
    for family in ("inet", "arp"):
        listing = output("nft", "--json", "list", "counters", "table", family, "l3hv")
        for entry in json.loads(listing)["nftables"] if listing else ():
            if "counter" in entry:
                drops[entry["counter"]["name"]] = entry["counter"]["packets"]
    return {
        "is_loaded": output("nft", "--terse", "list", "table", "inet", "l3hv") is not None,
        "is_in_force": output(PACKET_FILTER, "in-force", PACKET_FILTER_RULES) is not None,
        "drops": drops,
    }


def read_bird(path: str) -> dict[str, Any]:
    """Return what one BIRD says of itself, or ``{"error": …}``."""
    try:
        bird = Bird(path)
    except BirdError as error:
        return {"error": str(error)}
    try:
        status = parse_status(bird.ask("show status"))
        protocols = parse_protocols(bird.ask("show protocols all"))
        sessions = {
            name: {
                "state": protocol["fields"].get("BGP state", protocol["state"]),
                "info": protocol["info"],
                "neighbor": protocol["fields"].get("Neighbor address", ""),
                "local": protocol["fields"].get("Source address", ""),
                "error": protocol["fields"].get("Last error", ""),
                "channels": {
                    family: {
                        "state": fields.get("State", ""),
                        "table": fields.get("Table", ""),
                        "routes": routes_of(fields),
                        "limits": limits_hit(fields),
                    }
                    for family, fields in protocol["channels"].items()
                },
            }
            for name, protocol in protocols.items()
            if protocol["type"] == "BGP"
        }
        for name, session in sessions.items():
            for channel in session["channels"].values():
                kept = bool(channel["routes"].get("filtered")) and channel["table"]
                channel["refused"] = read_refused(path, name, kept) if kept else []
        has_bfd = any(protocol["type"] == "BFD" for protocol in protocols.values())
        return {
            **status,
            "configuration": configuration_digests(bird),
            "sessions": sessions,
            "protocols": {name: p["state"] for name, p in protocols.items() if p["type"] != "BGP"},
            "bfd": parse_bfd(bird.ask("show bfd sessions")) if has_bfd else [],
        }
    except BirdError as error:
        return {"error": str(error)}
    finally:
        bird.close()


def networkd_state(index: int) -> str | None:
    """Return what systemd-networkd says of an interface: ``configured``, ``configuring``, ``failed``, …"""
    state = read_text(f"/run/systemd/netif/links/{index}") or ""
    match = re.search(r"ADMIN_STATE=(\S+)", state)
    return match[1] if match else None


def read_units(names: list[str]) -> dict[str, dict[str, str]]:
    """Return what systemd says of units: whether they run, start at boot, and with which process."""
    properties = "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts"
    show = subprocess.run(
        ["systemctl", "show", "--property", properties, "--", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    units = {}
    for block in show.stdout.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit:
            units[unit.pop("Id")] = unit
    return units


# --- what guests are offered -----------------------------------------------------------------------------

DHCP_SERVER = 67
DHCP_CLIENT = 68
DHCP_MAGIC = b"\x63\x82\x53\x63"
DHCP_HEADER = struct.Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")
DHCP_WANTED = bytes((1, 3, 6, 15, 26, 51, 119, 121))
ICMP6_FILTER = 1
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
RA_HEADER = struct.Struct("!BBHBBHII")
RA_PREFIX = struct.Struct("!BBBBIII16s")
OFFER_SECONDS = 1.5
"""How long a daemon may take to answer. They need a millisecond; radvd answers a solicitation at once because
the reply goes to the one who asked, which is the host itself: the guest does not see it."""


def dhcp_discover(mac: str, transaction: bytes) -> bytes:
    """Return the DHCPDISCOVER of a client with this MAC; the reply is to be broadcast (RFC 2131)."""
    none = bytes(4)
    hardware = bytes.fromhex(mac.replace(":", ""))
    header = (1, 1, 6, 0, transaction, 0, 0x8000, none, none, none, none, hardware, b"", b"", DHCP_MAGIC)
    options = bytes((53, 1, 1, 55, len(DHCP_WANTED))) + DHCP_WANTED + b"\xff"
    return (DHCP_HEADER.pack(*header) + options).ljust(300, b"\0")


def dhcp_options(data: bytes) -> dict[int, bytes]:
    """Return the options of a DHCP message, those that are continued put together (RFC 3396)."""
    options: dict[int, bytes] = {}
    position = DHCP_HEADER.size
    while position + 1 < len(data) and data[position] != 255:
        code = data[position]
        if code == 0:
            position += 1
            continue
        length = data[position + 1]
        options[code] = options.get(code, b"") + data[position + 2 : position + 2 + length]
        position += 2 + length
    return options


def addresses_in(data: bytes) -> list[str]:
    """Return the IPv4 addresses of an option that is a list of them."""
    return [socket.inet_ntoa(data[at : at + 4]) for at in range(0, len(data) - 3, 4)]


def classless_routes(data: bytes) -> list[list[str]]:
    """Return the (prefix, gateway) pairs of option 121 (RFC 3442)."""
    routes = []
    position = 0
    while position < len(data):
        length = data[position]
        size = (length + 7) // 8
        prefix = data[position + 1 : position + 1 + size].ljust(4, b"\0")
        gateway = data[position + 1 + size : position + 5 + size]
        if len(gateway) != 4:
            break
        routes.append([f"{socket.inet_ntoa(prefix)}/{length}", socket.inet_ntoa(gateway)])
        position += 5 + size
    return routes


def parse_offer(data: bytes) -> dict[str, Any] | None:
    """Return what a DHCPOFFER offers, or None if ``data`` is something else."""
    if len(data) < DHCP_HEADER.size or data[0] != 2 or data[236:240] != DHCP_MAGIC:
        return None
    options = dhcp_options(data)
    if options.get(53) != b"\x02":
        return None
    return {
        "address": socket.inet_ntoa(data[16:20]),
        "server": next(iter(addresses_in(options.get(54, b""))), None),
        "netmask": next(iter(addresses_in(options.get(1, b""))), None),
        "gateway": next(iter(addresses_in(options.get(3, b""))), None),
        "dns": addresses_in(options.get(6, b"")),
        "mtu": int.from_bytes(options[26], "big") if 26 in options else None,
        "routes": classless_routes(options.get(121, b"")),
        "seconds": int.from_bytes(options.get(51, b""), "big"),
    }


def parse_advertisement(data: bytes) -> dict[str, Any] | None:
    """Return what a router advertisement offers (RFC 4861, RFC 8106), or None for something else."""
    if len(data) < RA_HEADER.size or data[0] != ROUTER_ADVERTISEMENT:
        return None
    found: dict[str, Any] = {
        "lifetime": RA_HEADER.unpack_from(data)[5],
        "mtu": None,
        "prefixes": [],
        "dns": [],
    }
    position = RA_HEADER.size
    while position + 8 <= len(data) and data[position + 1]:
        kind, length = data[position], data[position + 1] * 8
        option = data[position : position + length]
        if kind == 3 and len(option) >= RA_PREFIX.size:
            _, _, bits, flags, valid, preferred, _, prefix = RA_PREFIX.unpack_from(option)
            found["prefixes"].append(
                {
                    "prefix": f"{socket.inet_ntop(socket.AF_INET6, prefix)}/{bits}",
                    "on_link": bool(flags & 0x80),
                    "autonomous": bool(flags & 0x40),
                    "valid": valid,
                    "preferred": preferred,
                }
            )
        elif kind == 1:
            found["mac"] = option[2:8].hex(":")
        elif kind == 5:
            found["mtu"] = int.from_bytes(option[4:8], "big")
        elif kind == 25:
            found["dns"] += [
                socket.inet_ntop(socket.AF_INET6, option[at : at + 16])
                for at in range(8, len(option) - 15, 16)
            ]
        position += length
    return found


def solicit(guests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ask on every guest port for a lease and for a router, and return by guest what was offered.

    Multicasts and broadcasts come back to the host that sends them, on the interface that they leave by: the
    daemons cannot tell such a question from one of the guest.
    """
    offers: dict[str, dict[str, Any]] = {guest["name"]: {"lease": None, "router": None} for guest in guests}
    leases = {os.urandom(4): guest for guest in guests if guest["lease"]}
    routers = {socket.if_nametoindex(guest["interface"]): guest for guest in guests if guest["prefix"]}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dhcp,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp,
    ):
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        dhcp.bind(("", DHCP_CLIENT))
        only_advertisements = bytearray(b"\xff" * 32)
        only_advertisements[ROUTER_ADVERTISEMENT // 8] &= ~(1 << (ROUTER_ADVERTISEMENT % 8))
        icmp.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(only_advertisements))
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for transaction, guest in leases.items():
            through = struct.pack("@i4s4s", socket.if_nametoindex(guest["interface"]), bytes(4), bytes(4))
            with contextlib.suppress(OSError):  # a port that is down: nothing is offered on it
                dhcp.sendmsg(
                    [dhcp_discover(guest["mac"], transaction)],
                    [(socket.IPPROTO_IP, IP_PKTINFO, through)],
                    0,
                    ("255.255.255.255", DHCP_SERVER),
                )
        for index in routers:
            with contextlib.suppress(OSError):
                icmp.sendto(struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0), ("ff02::2", 0, 0, index))
        deadline = time.monotonic() + OFFER_SECONDS
        while (leases or routers) and (left := deadline - time.monotonic()) > 0:
            for ready in select.select([dhcp, icmp], [], [], left)[0]:
                data, sender = ready.recvfrom(2048)
                if ready is dhcp and (offer := parse_offer(data)) and data[4:8] in leases:
                    offers[leases.pop(data[4:8])["name"]]["lease"] = offer
                elif ready is icmp and sender[3] in routers and (router := parse_advertisement(data)):
                    offers[routers.pop(sender[3])["name"]]["router"] = {
                        **router,
                        "address": sender[0].split("%")[0],
                    }
    return offers


# --- waiting ---------------------------------------------------------------------------------------------


def is_young(bird: dict[str, Any]) -> bool:
    """Tell whether BIRD was started so recently that it has not yet cleaned up after its predecessor."""
    try:
        age = datetime.fromisoformat(bird["now"]) - datetime.fromisoformat(bird["started"])
    except (KeyError, ValueError):
        return False
    return age.total_seconds() < YOUNG_SECONDS


def has_sessions(bird: dict[str, Any], plan: Plan) -> bool:
    """Tell whether BIRD has every session of the plan up, and BFD with their neighbours."""
    if "error" in bird:
        return False
    states = {name: session["state"] for name, session in bird["sessions"].items()}
    down = {session["address"] for session in bird["bfd"] if session.get("state") != "Up"}
    return all(
        states.get(session["name"]) == "Established" and session["neighbor"] not in down
        for session in plan["routing"]["sessions"]
    )


def received_by(bird: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return how many prefixes have come by each session, by family."""
    return {
        name: {
            family: channel["routes"].get("imported", 0) for family, channel in session["channels"].items()
        }
        for name, session in bird.get("sessions", {}).items()
    }


def learned_by(plan: Plan) -> dict[str, str]:
    """Return the digests of the learned routes, by BIRD table."""
    with IPRoute() as netlink:
        links = read_links(netlink)
    return {name: f"{table.digest:032x}" for name, table in read_tables(plan, links, {})[1].items()}


def settle(
    plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Return BIRD's state once it is as expected, at the latest after ``seconds``.

    Once all sessions are up, what they brought is not waited for any longer than it keeps changing.
    """
    now = time.monotonic()
    deadline, changed, last = now + seconds, now, None
    while True:
        bird = read_bird(BIRD_SOCKET)
        is_up = has_sessions(bird, plan)
        counts = received_by(bird) if received else {}
        digests = learned_by(plan) if learned else {}
        is_as_expected = all(counts.get(name) == wanted for name, wanted in received.items()) and all(
            digests.get(table) == digest for table, digest in learned.items()
        )
        now = time.monotonic()
        if (counts, digests) != last:
            changed, last = now, (counts, digests)
        is_at_rest = is_up and now - changed > REST_SECONDS and not is_young(bird)
        if (is_up and is_as_expected) or is_at_rest or now >= deadline:
            return bird
        time.sleep(POLL_SECONDS)


def observe(plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, Any]) -> dict[str, Any]:
    """Return everything that can be read on the host of ``plan``."""
    bird = settle(plan, seconds, learned, received)
    with IPRoute() as netlink:
        links = read_links(netlink)
        addresses = read_addresses(netlink, links)
        rules = {family: read_rules(netlink, number) for family, number in FAMILIES.items()}
        ports = {guest["interface"] for guest in plan["guests"]}
        neighbours = read_neighbours(netlink, links, ports)
    on_link = {
        name: [ip_interface(address["address"]).network for address in here]
        for name, here in addresses.items()
    }
    own, by_bird = read_tables(plan, links, on_link)
    by_name = {link["name"]: link for link in links.values()}
    present = [guest for guest in plan["guests"] if guest["interface"] in by_name]
    watched = (
        {uplink["interface"] for uplink in plan["uplinks"]}
        | {nic["interface"] for nic in plan["nics"]}
        | ports
    )
    gateways = {
        address
        for guest in plan["guests"]
        for address in guest["gateways"]
        if not address.startswith("fe80:")
    }
    macs = {guest["gateway_mac"] for guest in plan["guests"]}
    like_ports = {
        name
        for name, link in by_name.items()
        if link["mac"] in macs or gateways & {address["address"] for address in addresses.get(name, ())}
    }
    shown = (watched | like_ports | {"lo"}) & set(by_name)
    return {
        "links": {name: by_name[name] for name in sorted(shown)},
        "addresses": {name: addresses.get(name, []) for name in sorted(shown)},
        "settings": {name: read_port_settings(name) for name in sorted(ports & set(by_name))},
        "networkd": {
            name: networkd_state(index) for index, link in links.items() if (name := link["name"]) in watched
        },
        "neighbours": neighbours,
        "rules": rules,
        "routes": own,
        "learned": {name: table.summary(learned.get(name)) for name, table in by_bird.items()},
        "is_container": os.path.exists("/run/systemd/container"),
        "sysctls": {sysctl["key"]: read_text(sysctl_path(sysctl["key"])) for sysctl in plan["sysctls"]},
        "bird": bird,
        "translations": read_translations() if plan["kind"] == "hypervisor" else {},
        "packet_filter": read_packet_filter(),
        "units": read_units(list(UNITS)),
        "offers": solicit(present),
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "settle": {"type": "float", "default": 0},
            "learned": {"type": "dict", "default": {}},
            "received": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if IPRoute is None:
        module.fail_json(msg=missing_required_lib("pyroute2 (Debian: python3-pyroute2)"))
    parameters = module.params
    started = time.monotonic()
    observation = observe(
        parameters["plan"], parameters["settle"], parameters["learned"], parameters["received"]
    )
    module.exit_json(changed=False, observation=observation, seconds=round(time.monotonic() - started, 3))


if __name__ == "__main__":
    main()

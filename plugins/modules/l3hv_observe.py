#!/usr/bin/python
"""Reads what the kernel and the daemons of one host say, and changes nothing."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import collections
import contextlib
import glob
import hashlib
import importlib.util
import json
import os
import re
import select
import shlex
import socket
import struct
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from datetime import datetime
from ipaddress import ip_interface
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib


def _without_its_databases() -> None:
    """Keep pyroute2 from importing all of itself: HTTP servers and databases, 0.2 s on every host."""
    if "pyroute2" in sys.modules:
        return
    specification = importlib.util.find_spec("pyroute2")
    if specification is not None:
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
  - Reads links, addresses, rules, routes and settings through netlink and C(/proc), and asks the routing
    daemon, systemd, the DHCP and the router advertisement daemon what they do. It compares and changes
    nothing.
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
  pings:
    description:
      - Whether each reflector of the plan is pinged with the largest packet that its path should carry, and
        with smaller ones where that gets no answer. Packets are not fragmented.
    type: bool
    default: true
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
PROTOCOL_STAND_IN = 108
"""Copies of BIRD's routes while BIRD 3.1 scans (bird31-routes): they lead where BIRD's own routes lead."""
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
NEIGHBOR_IS_FIXED = 0x80 | 0x40  # NUD_PERMANENT, NUD_NOARP: the kernel never asks again
LEGACY_TABLES = {"filter", "mangle", "nat", "raw", "security"}
MISDIRECTED_SHOWN = 10
POLL_SECONDS = 0.2
REST_SECONDS = 2.0
YOUNG_SECONDS = 15.0
"""A BIRD that was started or reconfigured takes what is left in the kernel away at its scan, every 10 s."""

IP_PKTINFO = 8  # the socket module has no name for it before Python 3.14
BIRD_SOCKET = "/run/bird/{}.ctl"
FRR_CONFIGURATION = "/etc/frr/frr.conf"
FRR_DIGEST_LINE = r"^! l3hv_config (\S+)$"
FRR_IN_FORCE = ["/usr/local/lib/l3hv/frr/configuration", "in-force"]
PACKET_FILTER = "/usr/local/lib/l3hv/packet-filter"
PACKET_FILTER_RULES = "/etc/l3hv/nftables.conf"
BIRD_CONFIGURATION = "/etc/bird/{}.conf"
GOBGP = "/usr/local/lib/l3hv/gobgp"
GOBGP_CONFIGURATION = "/etc/l3hv/gobgp/{}.toml"
GOBGP_RANGES = "/run/l3hv-gobgp-{}/ranges.json"
GOBGP_API = "unix:///run/l3hv-gobgp-{}/api"
GOBGP_DIGEST_LINE = r'^# l3hv_config = "([^"]*)"$'
GOBGP_STATES = {1: "Idle", 2: "Connect", 3: "Active", 4: "OpenSent", 5: "OpenConfirm", 6: "Established"}
GOBGP_FAMILIES = {1: "ipv4", 2: "ipv6"}
# The capability of a family (RFC 4760) as GoBGP shows it: AFI and SAFI in protobuf, in base64.
GOBGP_MULTIPROTOCOL = {"ipv4": "CgQIARAB", "ipv6": "CgQIAhAB"}
GOBGP_UNITS = "/etc/systemd/system/l3hv-gobgp-*.service"
BIRD_DIGEST_LINE = r'^define l3hv_config = "([^"]*)";$'

# What must be on at a guest port, besides the sysctls of the plan.
PORT_SETTINGS = {"ipv4": ("forwarding", "proxy_arp"), "ipv6": ("forwarding",)}
UNITS = (
    "systemd-networkd.service",
    "l3hv-tables.service",
    "bird.service",
    "bird6.service",
    "l3hv-bird-rescan.service",
    "l3hv-bird-watch.timer",
    "frr.service",
    "l3hv-dhcp.service",
    "l3hv-dhcp-checksums.service",
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
            "master": link.get_attr("IFLA_MASTER"),
        }
    for link in links.values():
        link["master"] = links[link["master"]]["name"] if link["master"] in links else None
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

    def port_range(message: nlmsg_base, end: str) -> str | None:
        found = message.get_attr(f"FRA_{end.upper()}_RANGE")
        if not found:
            return None
        first, last = found.split(":")
        return first if first == last else f"{first}-{last}"

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
                "mask": message.get_attr("FRA_FWMASK"),
                "suppress_prefixlength": None if suppressed in {None, 0xFFFFFFFF} else suppressed,
                "ip_protocol": message.get_attr("FRA_IP_PROTO"),
                "source_port": port_range(message, "sport"),
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
                    elif route["protocol"] != PROTOCOL_STAND_IN:
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


def read_lines(path: str) -> list[str]:
    """Return the lines of a file, or none where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def read_port_settings(interface: str) -> dict[str, str]:
    """Return the settings of a guest port, such as ``ipv4 forwarding``."""
    paths = {
        f"{family} {name}": f"/proc/sys/net/{family}/conf/{interface}/{name}"
        for family, names in PORT_SETTINGS.items()
        for name in names
    }
    return {name: value for name, path in paths.items() if (value := read_text(path)) is not None}


# --- daemons ---------------------------------------------------------------------------------------------


ANSWER_SECONDS = 10
"""How long a daemon may take to answer. One that hangs would otherwise never end the run."""


class Hangs(Exception):
    """A program or daemon did not answer in time."""


def asked(
    command: list[str], *, seconds: float | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command that asks a daemon something, for ``seconds`` at most (ANSWER_SECONDS)."""
    seconds = ANSWER_SECONDS if seconds is None else seconds
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=check)
    except subprocess.TimeoutExpired:
        raise Hangs(f"`{' '.join(command[:2])}` got no answer within {seconds:g} s") from None


class BirdError(Exception):
    """BIRD gave no answer, or one that is an error."""


class Bird:
    """A conversation with a BIRD over its control socket (the protocol of birdc)."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS)
        self._pending = b""
        try:
            self._connect(path)
            self._reply()
        except TimeoutError:
            self.close()
            raise Hangs(f"{path}: no answer within {ANSWER_SECONDS} s") from None
        except OSError as error:
            self.close()
            raise BirdError(f"{path}: {error.strerror or error}") from None

    def _connect(self, path: str) -> None:
        """Connect in time. The kernel refuses a client at once where too many wait to be accepted."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self._socket.connect(path)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()

    def ask(self, command: str) -> list[tuple[int, str]]:
        """Return the lines of the reply with their codes; BirdError on a refusal."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._reply()
        except TimeoutError:
            raise Hangs(f"{command}: no answer within {ANSWER_SECONDS} s") from None
        except OSError as error:
            raise BirdError(f"{command}: {error}") from None

    def first_of(self, command: str) -> list[tuple[int, str]]:
        """Return the beginning of a reply that may be long. The conversation is of no use afterwards."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._reply(most=BEGINNING)
        except TimeoutError:
            raise Hangs(f"{command}: no answer within {ANSWER_SECONDS} s") from None
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
        "reconfigured": find(r"Last reconfiguration on (.+)"),
        "state": next((line for code, line in lines if code in {13, 23, 24}), ""),
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
    """Return the limits of a channel that it has reached, each with the number that it has now.

    BIRD marks a limit for as long as it acts on it; BIRD 3 until the session ends, whatever became of it.

    >>> limits_hit({"Import limit": "128 [HIT]", "Routes": "128 imported, 2 filtered"})
    ['import limit of 128 (130 now)']
    """
    routes = routes_of(channel)
    now = routes.get("imported", 0) + routes.get("filtered", 0)
    return [
        f"{key.lower()} of {value.split()[0]} ({now} now)"
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


def configuration_digests(bird: Bird, path: str) -> dict[str, str | None]:
    """Return the digest of what BIRD runs, and those of its file at ``path``."""
    try:
        running = bird.ask("eval l3hv_config")[-1][1].strip().strip('"')
    except BirdError as error:
        running = f"something else: {error}"
    return {"running": running, **digests_of_file(path, BIRD_DIGEST_LINE)}


def digests_of_file(path: str, line: str) -> dict[str, str | None]:
    """Return the digest that a configuration carries (``placed``), and the one that it has (``file``).

    ``line`` is the pattern of the line that carries it: that of the text with ``@digest@`` instead.
    """
    placed = file = None
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as text:
        configuration = text.read()
        if found := re.search(line, configuration, re.MULTILINE):
            placed = found[1]
            configuration = configuration.replace(placed, "@digest@")
        file = hashlib.sha256(configuration.encode()).hexdigest()[: len(placed or "")]
    return {"placed": placed, "file": file}


def read_translations() -> dict[str, str]:
    """Return the addresses that are translated on their way to a guest, and the guest's own."""
    try:
        listing = nft_objects("list", "map", "inet", "l3hv", "transparent")
    except Hangs:  # as read_packet_filter reports
        return {}
    return dict(pair for kind, each in listing if kind == "map" for pair in each.get("elem", ()))


def read_packet_filter() -> dict[str, Any]:
    """Return the tables of the packet filter, or none of them and why where nft does not answer."""
    try:
        return {**packet_filter_tables(), "unread": None}
    except Hangs as error:
        nothing: dict[str, Any] = {"differences": [], "sets": {}, "drops": {}, "strangers": {}}
        return {**nothing, "is_loaded": False, "unread": str(error)}


def packet_filter_tables() -> dict[str, Any]:
    """Return the tables of the packet filter as they are, and in what they differ from what was placed.

    ``drops`` are the packets that each counter counts, ``sets`` the elements of the static sets, by family
    and name, and ``strangers`` the MACs, by port, whose frames were dropped there within the last minute.
    """
    drops: dict[str, int] = {}
    sets: dict[str, list[str]] = {}
    strangers: dict[str, list[str]] = {}
    is_loaded = True
    for family in ("inet", "arp"):
        listing = nft_objects("list", "table", family, "l3hv")
        is_loaded = is_loaded and (bool(listing) or family != "inet")
        for kind, entry in listing:
            if kind == "counter":
                drops[entry["name"]] = entry["packets"]
            elif kind == "set":
                elements = [element_words(element) for element in entry.get("elem", ())]
                if entry["name"] == "strangers":
                    for element in elements:
                        port, _, mac = element.rpartition(" . ")
                        strangers.setdefault(port, []).append(mac)
                # nft 1.0.6 does not print the flag "dynamic": only dynamic sets have a time-out.
                elif not {"dynamic", "timeout"} & {*entry.get("flags", ())}:
                    sets[f"{family} {entry['name']}"] = elements
    return {
        "is_loaded": is_loaded,
        "differences": filter_differences() if is_loaded else [],
        "sets": sets,
        "drops": drops,
        "strangers": {port: sorted(set(macs)) for port, macs in strangers.items()},
    }


def nft_objects(*words: str) -> list[tuple[str, dict[str, Any]]]:
    """Return what nft lists: kind and fields of each object; nothing where there is no such thing.

    Raises Hangs where nft does not answer.
    """
    try:
        listing = asked(["nft", "--json", *words], check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [item for entry in json.loads(listing)["nftables"] for item in entry.items()]


def element_words(element: Any) -> str:
    """Return an element of a set in nft's own words.

    >>> element_words({"concat": ["vm1", {"prefix": {"addr": "203.0.113.0", "len": 25}}]})
    'vm1 . 203.0.113.0/25'
    """
    if not isinstance(element, dict):
        return str(element)
    if "elem" in element:  # with its timeout
        return element_words(element["elem"]["val"])
    if "concat" in element:
        return " . ".join(map(element_words, element["concat"]))
    if "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    return "-".join(map(str, element["range"]))


def filter_differences() -> list[str]:
    """Return in what the kernel's tables differ from their file; elements of sets are read themselves."""
    try:
        done = asked([PACKET_FILTER, "in-force", "--without-set-elements", PACKET_FILTER_RULES])
    except OSError as error:
        return [f"{PACKET_FILTER}: {error.strerror}"]
    except Hangs as error:
        return [str(error)]
    return [*done.stdout.splitlines(), *done.stderr.splitlines()] if done.returncode else []


OWN_NFTABLES = {"l3hv", "l3hv_frr_gate"}
HOOKS_OF_GUESTS = {
    "inet": ("ingress", "prerouting", "forward", "postrouting"),
    "ip": ("prerouting", "forward", "postrouting"),
    "ip6": ("prerouting", "forward", "postrouting"),
    "arp": ("input", "output"),
    "netdev": ("ingress", "egress"),
}
"""The hooks, by family of table, at which another program's chain sees packets of guests."""
HOOKS_OF_SESSIONS = ("input", "output")
"""The hooks at which a chain of family inet, ip or ip6 sees packets of the host's own BGP sessions."""

VERDICTS = ("accept", "drop", "reject", "jump", "goto", "return", "queue")
REWRITES = ("dnat", "snat", "masquerade", "redirect", "netmap", "tproxy", "snpt", "dnpt")
"""The nft statements that rewrite addresses or ports. In capitals they are targets of iptables."""
ENDS_OF_PACKETS = {"drop", "reject", "queue"}
"""The verdicts that leave nothing of a rewrite before them in the same rule."""
REWRITTEN_FIELDS = {"saddr", "daddr", "sport", "dport"}
SELECTED_META = {"l4proto": "protocol", "protocol": "nfproto", "nfproto": "nfproto"}
SELECTED_FIELDS = {"saddr": "saddr", "daddr": "daddr", "sport": "sport", "dport": "dport"}
SELECTED_FIELDS |= {"protocol": "protocol", "nexthdr": "protocol"}
PORTS_OF_THE_HOST = {
    "DOCKER",
    "DOCKER-INGRESS",
    "NETAVARK-HOSTPORT-DNAT",
    "CNI-HOSTPORT-DNAT",
    "KUBE-NODEPORTS",
}
"""Chains for packets to the host's own addresses: what jumps there asks for ``--dst-type LOCAL``."""
ETHERTYPES = {"ip": "ipv4", "ip6": "ipv6"}
INTERFACE_KEYS = {"iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif"}
UNREAD = "unread"
"""The verdict of a rule that may do anything: nft has no JSON for what it does, or it is not understood."""
ODD_SHAPES = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""The exceptions that Python raises when a listing does not have the expected shape."""
ALTERNATIVES = 64
"""The most elements of a verdict map, or of a set of several fields, that are judged one by one."""
RULES_OF_OTHERS = 2000
"""How many rules of others are looked at: a host may have tens of thousands for its containers."""


def empty_rule() -> dict[str, Any]:
    """Return a rule that matches every packet and lets it go on."""
    nothing: dict[str, Any] = {"interfaces": [], "selects": [], "asks_more": False, "asks_unknown": False}
    return {**nothing, "verdict": None, "target": None}


def unread_rule() -> dict[str, Any]:
    """Return a rule of which nothing is known."""
    return {**empty_rule(), "asks_more": True, "asks_unknown": True, "verdict": UNREAD}


def rules_of_other(expressions: Any) -> list[dict[str, Any]]:
    """Return the effects of a rule, from nft's JSON: one for each element of a verdict map.

    Whatever the shape of the JSON is, it raises nothing: what is not understood is ``UNREAD``.
    """
    try:
        rules = [rule_of_other(each) for each in alternatives(expressions)]
    except ODD_SHAPES:
        return [unread_rule()]
    return [rule for rule in rules if rule is not None]


def alternatives(expressions: list[Any], most: int = ALTERNATIVES) -> list[list[Any]]:
    """Return the statements of a rule once for each element of a verdict map, or of a set of several fields.

    Maps and sets that have a name are left as they are, and those that would make more than ``most`` of it.
    """
    for position, expression in enumerate(expressions):
        if not isinstance(expression, dict):
            continue
        before, after = expressions[:position], expressions[position + 1 :]
        if isinstance(data := expression.get("vmap", {}).get("data"), dict):
            key, pairs = expression["vmap"]["key"], data["set"]
            each = [[equals(key, {"set": [one]}), verdict] for one, verdict in pairs]
        elif is_of_fields(match := expression.get("match")):
            fields, elements = match["left"]["concat"], map(inner_element, match["right"]["set"])
            each = [
                [equals(left, right) for left, right in zip(fields, element["concat"], strict=True)]
                for element in elements
            ]
        else:
            continue
        if len(each) > most:
            continue
        share = most // max(len(each), 1)
        return [rule for one in each for rule in alternatives([*before, *one, *after], share)]
    return [expressions]


def equals(left: Any, right: Any) -> dict[str, Any]:
    """Return the match of nft's JSON for what is equal, or in a set."""
    return {"match": {"op": "==", "left": left, "right": right}}


def is_of_fields(match: Any) -> bool:
    """Tell whether a match asks for several fields together, by a set in the rule itself."""
    if match is None or match["op"] != "==" or not isinstance(match["right"], dict):
        return False
    elements = match["right"].get("set")
    return isinstance(match["left"], dict) and "concat" in match["left"] and isinstance(elements, list)


def inner_element(element: Any) -> Any:
    """Return an element of a set without its comment or counter."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def rule_of_other(expressions: list[Any]) -> dict[str, Any] | None:
    """Return the effect of a rule, from nft's JSON: its verdict, its interfaces, whether it asks for more.

    ``selects`` is what it asks for of addresses, protocols and ports; ``asks_unknown`` where it asks for
    anything else, too. ``None`` where it lets every packet go on as it is.
    """
    rule = empty_rule()
    asks_type = is_unread = False
    for expression in expressions:
        if not isinstance(expression, dict) or len(expression) != 1:
            # The text of a statement: a jump to a chain without a name, for one.
            rule["asks_unknown"] = is_unread = True
            continue
        ((kind, value),) = expression.items()
        implied: list[list[Any]] = []
        if kind in VERDICTS:
            if rule["verdict"] is not None and kind not in ENDS_OF_PACKETS:
                continue  # what was rewritten goes on like that
            rule["verdict"] = kind
            rule["target"] = chain_jumped_to(value) if kind in {"jump", "goto"} else None
        elif kind in REWRITES:
            rule["verdict"] = kind
            family = value.get("family") if isinstance(value, dict) else None
            implied = implied_by(family)
        elif kind == "mangle":
            payload = value["key"].get("payload", {}) if isinstance(value["key"], dict) else {}
            payload = {} if "tunnel" in payload else payload
            if payload.get("field") in REWRITTEN_FIELDS and payload.get("protocol") != "ether":
                rule["verdict"] = rule["verdict"] or "rewrite"
                implied = implied_by(payload.get("protocol"))
        elif kind == "xt" and value and value.get("type") == "target":
            name = str(value.get("name")).lower()
            rule["verdict"] = name if name in (*REWRITES, "reject", "drop") else rule["verdict"]
        elif kind == "xt" and value and value.get("name") == "addrtype":
            asks_type = True
        elif kind == "match":
            add_selection(rule, value)
        elif kind not in {"counter", "log", "comment", "notrack"}:
            rule["asks_unknown"] = True
            is_unread = is_unread or kind == "vmap"
        rule["selects"] += [select for select in implied if select not in rule["selects"]]
    if asks_type and rule["verdict"] == "jump" and rule["target"] in PORTS_OF_THE_HOST:
        rule["selects"].append(["type", "==", ["local"]])
    elif asks_type:
        # nft does not say of which end it is, which type, and whether negated.
        rule["asks_unknown"] = True
    rule["asks_more"] = rule["asks_unknown"] or bool(rule["selects"])
    if is_unread and rule["verdict"] is None:
        rule["verdict"] = UNREAD
    return rule if rule["verdict"] else None


def chain_jumped_to(jump: dict[str, Any]) -> str:
    """Return the name of the chain of a jump."""
    if not isinstance(jump["target"], str):
        raise TypeError(jump)
    return jump["target"]


def implied_by(protocol: str | None) -> list[list[Any]]:
    """Return what a rule asks for by naming a field of a protocol.

    >>> implied_by("ip6"), implied_by("tcp")
    ([['nfproto', '==', ['ipv6']]], [['protocol', '==', ['tcp']]])
    """
    if protocol in ETHERTYPES:
        return [["nfproto", "==", [ETHERTYPES[protocol]]]]
    return [["protocol", "==", [protocol]]] if protocol in {"tcp", "udp", "sctp"} else []


def add_selection(rule: dict[str, Any], match: dict[str, Any]) -> None:
    """Add what one match of nft's JSON asks for to a rule."""
    left, right = match["left"], match["right"]
    operator = "==" if match["op"] == "in" else match["op"]
    left = left if isinstance(left, dict) and operator in {"==", "!="} else {}
    meta, payload, fib = left.get("meta", {}).get("key"), left.get("payload", {}), left.get("fib", {})
    if meta in INTERFACE_KEYS and (names := interface_names(right)):
        rule["interfaces"].append([INTERFACE_KEYS[meta], operator, names])
        return
    if "tunnel" in payload:  # a field of the packet inside
        rule["asks_unknown"] = True
        return
    rule["selects"] += implied_by(payload.get("protocol"))
    key = SELECTED_META.get(meta)
    if payload.get("protocol") not in {None, "ether", "arp", "vlan"}:
        key = SELECTED_FIELDS.get(payload.get("field"))
    if fib.get("result") == "type" and "daddr" in fib.get("flags", ()) and right == "local":
        key = "type"
    values = selected_values(right)
    if key is None or values is None:
        rule["asks_unknown"] = True
        return
    rule["selects"].append([key, operator, [ETHERTYPES.get(value, value) for value in values]])


def interface_names(right: Any) -> str | list[str] | None:
    """Return the name that a match is for, or those of a set; None where these are not in the rule itself."""
    if isinstance(right, str):
        return None if right.startswith("@") else right
    names = right.get("set") if isinstance(right, dict) else None
    names = [inner_element(name) for name in names] if isinstance(names, list) else []
    if not all(isinstance(name, str) and name != "*" and not name.startswith("@") for name in names):
        return None
    return names[0] if len(names) == 1 else names


def selected_values(right: Any) -> list[str] | None:
    """Return the values that a match is for, in nft's own words; None where these are not in the rule itself.

    >>> selected_values({"set": [{"prefix": {"addr": "203.0.113.0", "len": 25}}, {"range": [80, 90]}]})
    ['203.0.113.0/25', '80-90']
    """
    if isinstance(right, (str, int)):
        return None if str(right).startswith(("@", "*")) else [str(right)]
    parts = right.get("set", [right]) if isinstance(right, dict) else right
    parts = [inner_element(part) for part in parts] if isinstance(parts, list) else ["@"]
    if any(isinstance(part, str) and part.startswith(("@", "*")) for part in parts):
        return None
    if not all(not isinstance(part, dict) or {"prefix", "range"} & part.keys() for part in parts):
        return None
    return [element_words(part) for part in parts]


LEGACY_SELECTS = {"-s": "saddr", "-d": "daddr", "-p": "protocol"}
LEGACY_SELECTS |= {f"--{key}{plural}": key for key in ("sport", "dport") for plural in ("", "s")}
LEGACY_SELECTS |= {"--dst-type": "type"}
KNOWN_MATCHES = {"tcp", "udp", "multiport", "addrtype", "comment"}


def legacy_chains(listing: str) -> dict[str, dict[str, Any]]:
    """Return the chains of ``iptables-legacy -S`` in the shape of :func:`read_chains_of_others`."""
    chains: dict[str, dict[str, Any]] = {}
    for line in listing.splitlines():
        flag, name, *rest = line.split(maxsplit=2) if line.count(" ") else ("", "")
        if flag not in {"-P", "-N", "-A"}:
            continue
        chain = chains.setdefault(name, {"hook": None, "policy": None, "devices": None, "rules": []})
        if flag == "-P":
            chain["hook"], chain["policy"] = name.lower(), "".join(rest).split(" ")[0].lower()
        elif flag == "-A":
            try:
                rule = legacy_rule(shlex.split("".join(rest)))
            except ODD_SHAPES:
                rule = unread_rule()
            if rule["verdict"]:
                chain["rules"].append(rule)
    return chains


def legacy_rule(words: list[str]) -> dict[str, Any]:
    """Return the effect of a rule, from the words of ``iptables-legacy -S`` after the name of its chain."""
    rule = empty_rule()
    words = list(words)
    while words:
        word = words.pop(0)
        is_not = word == "!"
        word = words.pop(0) if is_not else word
        operator = "!=" if is_not else "=="
        if word in {"-i", "-o"}:
            rule["interfaces"].append([f"{word[1]}if", operator, words.pop(0).replace("+", "*")])
        elif word in {"-j", "-g"}:
            target = words.pop(0)
            is_chain = word == "-g" or target.lower() not in (*VERDICTS, *REWRITES)
            rule["verdict"] = {"-j": "jump", "-g": "goto"}[word] if is_chain else target.lower()
            rule["target"] = target if is_chain else None
            words = []
        elif word == "--comment":
            words.pop(0)
        elif word == "--dst-type" and words[0] != "LOCAL":
            rule["asks_unknown"] = True
            words.pop(0)
        elif word in LEGACY_SELECTS:
            values = words.pop(0).lower()
            values = values.replace(":", "-") if "port" in word else values
            rule["selects"].append([LEGACY_SELECTS[word], operator, values.split(",")])
        elif word == "-m":
            rule["asks_unknown"] = rule["asks_unknown"] or words[0] not in KNOWN_MATCHES
            words.pop(0)
        else:
            rule["asks_unknown"] = True
    rule["asks_more"] = rule["asks_unknown"] or bool(rule["selects"])
    return rule


def is_passed(chain: dict[str, Any]) -> bool:
    """Tell whether packets of guests or of sessions pass a chain of nft's."""
    is_of_sessions = chain["family"] in {"inet", "ip", "ip6"} and chain.get("hook") in HOOKS_OF_SESSIONS
    is_of_guests = chain.get("hook") in HOOKS_OF_GUESTS.get(chain["family"], ())
    return chain.get("type") in {"filter", "nat", "route"} and (is_of_guests or is_of_sessions)


def devices_of(chain: dict[str, Any]) -> list[str] | None:
    """Return the interfaces that a chain of nft's is for, which may be patterns; None where it is for all.

    The JSON of nft 1.0 leaves them out: they are taken from its text.
    """
    devices = chain.get("dev")
    if devices is None and chain.get("hook") in {"ingress", "egress"}:
        command = ["nft", "--terse", "list", "chain", chain["family"], chain["table"], chain["name"]]
        try:
            found = re.search(r" devices? (?:= \{ )?(.+?)(?: \})? priority ", asked(command).stdout)
        except (OSError, Hangs):
            return None
        devices = re.findall(r'[^\s,"]+', found[1]) if found else None
    return [devices] if isinstance(devices, str) else devices


def is_dormant(table: dict[str, Any]) -> bool:
    """Tell whether none of a table's rules works.

    The JSON of nft 1.0 shows that a table has flags, but not which: they are taken from its text.
    """
    if "flags" not in table:
        return False
    try:
        listing = asked(["nft", "--terse", "list", "table", table["family"], table["name"]]).stdout
    except (OSError, Hangs):
        return False
    found = re.search(r"^\s+flags (.+)$", listing, re.MULTILINE)
    return found is not None and "dormant" in re.split(r"[\s,;]+", found[1])


def read_table_of_other(family: str, table: str, most: int) -> tuple[dict[str, Any] | None, int]:
    """Return a table of others, and how many rules were read of it; no table where it is dormant."""
    chains: dict[str, dict[str, Any]] = {}
    unread, left = None, most
    try:
        listing = nft_objects("--terse", "list", "table", family, table)
        if any(kind == "table" and is_dormant(entry) for kind, entry in listing):
            return None, 0
        unread = None if listing else "`nft --json list` shows nothing of it"
        for kind, entry in listing:
            if kind == "chain":
                chains[entry["name"]] = {
                    "hook": entry["hook"] if is_passed(entry) else None,
                    "type": entry.get("type"),
                    "policy": entry.get("policy", "accept"),
                    "devices": devices_of(entry),
                    "rules": [],
                }
            elif kind == "rule" and not left:
                unread = f"not all rules were read: only the first {RULES_OF_OTHERS} of all tables are"
            elif kind == "rule":
                left -= 1
                chains[entry["chain"]]["rules"] += rules_of_other(entry.get("expr", []))
    except Hangs as error:
        unread = str(error)
    except ODD_SHAPES as error:
        unread = f"`nft --json list` was not understood ({type(error).__name__}: {error})"
    return {"family": family, "table": table, "chains": chains, "unread": unread}, most - left


def read_chains_of_others() -> list[dict[str, Any]]:
    """Return the tables of others with a chain that packets of guests or of sessions pass.

    The shape is::

        [{"family": "ip", "table": "filter",
          "chains": {"FORWARD": {"hook": "forward", "type": "filter", "policy": "drop", "devices": None,
                                 "rules": [{"interfaces": [["iif", "==", "docker0"]],
                                            "selects": [["daddr", "==", ["192.0.2.0/24"]]],
                                            "asks_more": True, "asks_unknown": False,
                                            "verdict": "jump", "target": "DOCKER"}]}},
          "unread": None}]

    ``unread`` is a sentence where a table, or a part of it, was not read.
    """
    passed: dict[tuple[str, str], bool] = {}
    try:
        for kind, chain in nft_objects("--terse", "list", "chains"):
            if kind == "chain" and is_passed(chain) and chain["table"] not in OWN_NFTABLES:
                key = chain["family"], chain["table"]
                is_of_guests = chain["hook"] in HOOKS_OF_GUESTS[chain["family"]]
                passed[key] = passed.get(key, False) or is_of_guests
    except Hangs as error:
        return [{"family": "nft", "table": "ruleset", "chains": {}, "unread": str(error)}]
    except ODD_SHAPES as error:
        unread = f"`nft --json list chains` was not understood ({type(error).__name__}: {error})"
        return [{"family": "nft", "table": "ruleset", "chains": {}, "unread": unread}]
    tables = []
    left = RULES_OF_OTHERS
    # First what guests pass: the rules of a host's own firewall must not use up the limit.
    for family, name in sorted(passed, key=lambda key: (not passed[key], key)):
        table_of_other, count = read_table_of_other(family, name, left)
        left -= count
        if table_of_other is not None:
            tables.append(table_of_other)
    for names, program in (
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ):
        # Asked only where the old tables are in use: the question itself would load them.
        for table in sorted(LEGACY_TABLES.intersection(read_lines(names))):
            chains: dict[str, dict[str, Any]] = {}
            unread = None
            try:
                done = asked([program, "-t", table, "-S"])
                chains = legacy_chains(done.stdout)
                unread = " ".join(done.stderr.split()) or "not listed" if done.returncode else None
            except (OSError, Hangs, UnicodeDecodeError) as error:
                unread = str(error)
            for name, chain in chains.items():
                chain["type"] = "nat" if table == "nat" else "filter"
                if name in {"INPUT", "OUTPUT"} and table != "nat":
                    chain["hook"] = None
            tables.append({"family": program, "table": table, "chains": chains, "unread": unread})
    return tables


def is_group_mac(mac: str | None) -> bool:
    """Whether a MAC is a broadcast or multicast: the lowest bit of its first byte."""
    return bool(mac) and bool(int(mac[:2], 16) & 1)


def read_wrong_neighbors(netlink: IPRoute, guests: dict[int, dict[str, Any]]) -> list[dict[str, str]]:
    """Return the fixed neighbours on guest ports that lead to another MAC than the guest's.

    ``guests`` are those whose port is there, by its index. What the kernel has learned it checks by itself,
    and what it sends to all is no neighbour.
    """
    return [
        {"guest": guest["name"], "address": str(address), "mac": mac or "no MAC"}
        for family in FAMILIES.values()
        for entry in netlink.get_neighbours(family=family)
        if entry["state"] & NEIGHBOR_IS_FIXED
        and (guest := guests.get(entry["ifindex"])) is not None
        and (mac := entry.get_attr("NDA_LLADDR")) != guest["mac"]
        and not is_group_mac(mac)
        and (address := entry.get_attr("NDA_DST")) is not None
        and not ip_interface(address).ip.is_multicast
    ]


def channels_of(protocol: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the channels of a BGP protocol by family; BIRD 1.6 has none, and says it of the protocol."""
    own = {"State": protocol["state"].upper(), "Table": protocol["table"], **protocol["fields"]}
    return {
        name: {
            "state": fields.get("State", ""),
            "table": fields.get("Table", ""),
            "routes": routes_of(fields),
            "limits": limits_hit(fields),
        }
        for name, fields in (protocol["channels"] or {family: own}).items()
    }


def read_bird(name: str, family: str) -> dict[str, Any]:
    """Return what one BIRD says of itself, or ``{"error": …}``; ``family`` is its only one, if it has one."""
    path = BIRD_SOCKET.format(name)
    try:
        bird = Bird(path)
    except Hangs as error:
        return {"error": str(error), "hangs": True}
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
                "channels": channels_of(protocol, family),
            }
            for name, protocol in protocols.items()
            if protocol["type"] == "BGP"
        }
        for session_name, session in sessions.items():
            for channel in session["channels"].values():
                kept = bool(channel["routes"].get("filtered")) and channel["table"]
                channel["refused"] = read_refused(path, session_name, kept) if kept else []
        has_bfd = any(protocol["type"] == "BFD" for protocol in protocols.values())
        return {
            **status,
            "configuration": configuration_digests(bird, BIRD_CONFIGURATION.format(name)),
            "sessions": sessions,
            "protocols": {name: p["state"] for name, p in protocols.items() if p["type"] != "BGP"},
            "bfd": parse_bfd(bird.ask("show bfd sessions")) if has_bfd else [],
        }
    except BirdError as error:
        return {"error": str(error)}
    finally:
        bird.close()


def read_birds(plan: Plan) -> dict[str, Any]:
    """Return what the BIRDs of a host say of themselves, as one: a family may have its own."""
    programs = plan["routing"]["programs"]
    several = [read_bird(program["name"], program["families"][0]) for program in programs]
    for program, bird in zip(programs, several, strict=True):
        if "error" in bird:
            return {**bird, "error": f"{program['name']}: {bird['error']}"}

    def together(values: list[str | None]) -> str | None:
        return None if None in values else " and ".join(dict.fromkeys(map(str, values)))

    return {
        **several[0],
        "router_id": together([bird["router_id"] for bird in several]),
        "reconfigured": max(bird["reconfigured"] for bird in several),
        "state": together(sorted({bird["state"] for bird in several})),
        "configuration": {
            key: together([bird["configuration"][key] for bird in several])
            for key in several[0]["configuration"]
        },
        "sessions": {name: session for bird in several for name, session in bird["sessions"].items()},
        "protocols": {
            f"{name} of {program['name']}" if program["name"] != "bird" else name: state
            for program, bird in zip(programs, several, strict=True)
            for name, state in bird["protocols"].items()
        },
        "bfd": [session for bird in several for session in bird["bfd"]],
    }


class GobgpError(Exception):
    """What GoBGP's own client could not do."""


def ask_gobgp(domain: str, *words: str) -> Any:
    """Return what the GoBGP of a domain answers, as JSON."""
    command = ["gobgp", "--target", GOBGP_API.format(domain), "--json", *words]
    try:
        return json.loads(asked(command, check=True).stdout)
    except subprocess.CalledProcessError as error:
        raise GobgpError((error.stderr or error.stdout).strip() or str(error)) from error
    except (OSError, json.JSONDecodeError) as error:
        raise GobgpError(f"gobgp {' '.join(words)}: {error}") from error


def taken_by_gobgp(domain: str) -> collections.Counter[tuple[str, str]]:
    """Return how many routes of each neighbour are in the table: (neighbour, family) → number.

    GoBGP itself counts what has arrived, before the policy that refuses.
    """
    taken: collections.Counter[tuple[str, str]] = collections.Counter()
    for family in FAMILIES:
        for paths in ask_gobgp(domain, "global", "rib", "-a", family).values():
            taken.update((path["neighbor-ip"], family) for path in paths)
    return taken


def gobgp_session(
    domain: str, neighbour: dict[str, Any], taken: collections.Counter[tuple[str, str]]
) -> dict[str, Any]:
    """Return one session in the shape of :func:`read_routing`. Zeros are left out of GoBGP's answers."""
    address = neighbour["state"]["neighbor_address"]
    state = GOBGP_STATES.get(neighbour["state"].get("session_state", 0), "Idle")
    if state == "Established":
        # What is sent is counted for one neighbour only.
        neighbour = ask_gobgp(domain, "neighbor", address)
    ends_of_rib = int(neighbour.get("graceful_restart", {}).get("enabled", False))
    channels = {}
    for family in neighbour.get("afi_safis", ()):
        name = GOBGP_FAMILIES[family["config"]["family"]["afi"]]
        counts = family.get("state", {})
        imported = taken[address, name]
        negotiated = any(
            capability.get("type_url", "").endswith("MultiProtocolCapability")
            and capability.get("value") == GOBGP_MULTIPROTOCOL[name]
            for capability in neighbour["state"].get("remote_cap", ())
        )
        channels[name] = {
            "state": "UP" if negotiated and state == "Established" else "DOWN",
            "routes": {
                "imported": imported,
                "filtered": counts.get("received", 0) - imported,
                # The end-of-RIB marker of graceful restart is counted as a route.
                "exported": counts.get("advertised", 0) - ends_of_rib,
            },
        }
    return {
        "state": state,
        "info": "",
        "error": "",
        "neighbor": address,
        "local": neighbour["transport"].get("local_address", ""),
        "channels": channels,
    }


def gobgp_ranges(domain: str) -> dict[str, Any]:
    """Return what clients can call by, as sessions: :data:`GOBGP` notes it when it starts one."""
    listening = {"state": "Passive", "info": "", "error": "", "neighbor": "", "local": "", "channels": {}}
    return dict.fromkeys(json.loads(read_text(GOBGP_RANGES.format(domain)) or "{}"), listening)


def read_gobgp(plan: Plan) -> dict[str, Any]:
    """Return the state of GoBGP: of all of its domains, each of which has a GoBGP of its own."""
    routing = plan["routing"]
    domains = list(dict.fromkeys(table["domain"] for table in routing["tables"]))
    names = {(session["domain"], session["neighbor"]): session["name"] for session in routing["sessions"]}
    identifiers, digests, sessions = set(), [], {}
    try:
        for domain in domains:
            identifiers.add(ask_gobgp(domain, "global").get("router_id"))
            digests.append(gobgp_digests(domain))
            taken = taken_by_gobgp(domain)
            sessions |= gobgp_ranges(domain)
            for neighbour in ask_gobgp(domain, "neighbor") or ():
                session = gobgp_session(domain, neighbour, taken)
                address = session["neighbor"]
                # Who called once, and did not come back, stays in the list.
                if "peer_group" not in neighbour["conf"] or session["state"] == "Established":
                    sessions[names.get((domain, address), f"{domain} {address}")] = session
    except GobgpError as error:
        return {"error": str(error)}
    return {
        "router_id": " ".join(sorted(map(str, identifiers))),
        "configuration": {
            key: None if any(one[key] is None for one in digests) else " ".join(one[key] for one in digests)
            for key in ("running", "placed", "file")
        },
        "sessions": sessions,
        "bfd": [],
    }


def gobgp_digests(domain: str) -> dict[str, Any]:
    """Return the digests of a domain's configuration; GoBGP runs that of the file when it answers alike."""
    path = GOBGP_CONFIGURATION.format(domain)
    digests = digests_of_file(path, GOBGP_DIGEST_LINE)
    done = asked([GOBGP, "in-force", path], seconds=3 * ANSWER_SECONDS)
    running = digests["placed"] if done.returncode == 0 else f"something else ({done.stderr.strip()})"
    return {"running": running, **digests}


class FrrError(Exception):
    """FRR gave no answer."""


def ask_frr(*commands: str) -> list[Any]:
    """Return what FRR answers to commands that ask for JSON; one without an answer is an empty object."""
    arguments = [word for command in commands for word in ("-c", command)]
    try:
        done = asked(["vtysh", *arguments])
    except OSError as error:
        raise FrrError(f"vtysh: {error.strerror}") from None
    if done.returncode != 0:
        raise FrrError((done.stderr or done.stdout).strip() or f"vtysh ended with {done.returncode}")
    return json_values(done.stdout)


def json_values(text: str) -> list[Any]:
    """Return the JSON values that follow each other in a text.

    >>> json_values('{"a": 1}\\n[]\\n')
    [{'a': 1}, []]
    """
    decoder, values, position = json.JSONDecoder(), [], 0
    text = text.strip()
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        values.append(value)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return values


FRR_FAMILIES = {"ipv4Unicast": "ipv4", "ipv6Unicast": "ipv6"}


def frr_session(neighbor: str, told: dict[str, Any]) -> dict[str, Any]:
    """Return a session as :func:`read_routing` has it, from ``show bgp … neighbors json``."""
    negotiated = told.get("neighborCapabilities", {}).get("multiprotocolExtensions", {})
    families = told.get("addressFamilyInfo", {})
    return {
        "state": told.get("bgpState", "?"),
        "info": "",
        "error": told.get("lastNotificationReason") or told.get("lastResetDueTo", ""),
        "neighbor": neighbor,
        "local": told.get("hostLocal", ""),
        "channels": {
            FRR_FAMILIES[name]: {
                "state": "UP" if negotiated.get(name, {}).get("advertisedAndReceived") else "DOWN",
                "routes": {
                    "imported": family.get("acceptedPrefixCounter", 0),
                    "exported": family.get("sentPrefixCounter", 0),
                },
            }
            for name, family in families.items()
            if name in FRR_FAMILIES
        },
    }


def frr_range(told: dict[str, Any]) -> dict[str, Any]:
    """Return a range as :func:`read_routing` has sessions, from a group of ``show bgp … peer-group json``."""
    ranges = [prefix for family in told.get("dynamicRanges", {}).values() for prefix in family["ranges"]]
    return {
        "state": "Passive" if ranges else "Idle",
        "info": "",
        "error": "",
        "neighbor": ", ".join(ranges),
        "local": "",
        "channels": {},
    }


def frr_bfd(told: dict[str, Any]) -> dict[str, str]:
    """Return a BFD session as :func:`read_routing` has it, from ``show bfd peers json`` (milliseconds)."""
    sends = max(told.get("transmit-interval", 0), told.get("remote-receive-interval", 0))
    expects = max(told.get("receive-interval", 0), told.get("remote-transmit-interval", 0))
    return {
        "address": told["peer"],
        "state": told["status"].capitalize(),
        "interval": f"{sends / 1000:.3f}",
        "timeout": f"{expects * told.get('remote-detect-multiplier', 0) / 1000:.3f}",
    }


def read_frr(plan: Plan) -> dict[str, Any]:
    """Return what FRR says of itself, or ``{"error": …}``. It has a BGP view for each domain."""
    views = sorted({table["domain"] for table in plan["routing"]["tables"]})
    try:
        bfd, *answers = ask_frr(
            "show bfd peers json",
            *(f"show bgp view {view} neighbors json" for view in views),
            *(f"show bgp view {view} peer-group json" for view in views if plan["routing"]["ranges"]),
        )
    except (FrrError, ValueError) as error:
        return {"error": str(error)}
    neighbors, groups = answers[: len(views)], answers[len(views) :]
    told = {
        address: neighbor
        for view in neighbors
        for address, neighbor in view.items()
        if isinstance(neighbor, dict)
    }
    names = {session["neighbor"]: session["name"] for session in plan["routing"]["sessions"]}
    return {
        "router_id": ", ".join(sorted({neighbor.get("localRouterId", "") for neighbor in told.values()})),
        "configuration": frr_configuration(),
        "sessions": {
            **{name: frr_range(group) for view in groups for name, group in view.items()},
            **{names.get(address, address): frr_session(address, each) for address, each in told.items()},
        },
        "bfd": [frr_bfd(peer) for peer in bfd],
    }


def frr_configuration() -> dict[str, str | None]:
    """Return the digests of FRR's file, and that of what runs: the file's, where FRR sees no difference."""
    digests = digests_of_file(FRR_CONFIGURATION, FRR_DIGEST_LINE)
    try:
        done = asked(FRR_IN_FORCE, seconds=6 * ANSWER_SECONDS)
    except OSError as error:
        return {"running": f"something else: {FRR_IN_FORCE[0]}: {error.strerror}", **digests}
    difference = " ".join(done.stderr.split()) or "something else"
    return {"running": digests["placed"] if done.returncode == 0 else difference, **digests}


def read_routing(plan: Plan) -> dict[str, Any]:
    """Return what the routing daemon of the plan says of itself, or ``{"error": …}``.

    The shape is the same for every daemon::

        {"router_id": "198.51.100.126",
         "configuration": {"running": DIGEST, "placed": DIGEST, "file": DIGEST},
         "sessions": {"hv1_public": {"state": "Established", "info": "", "error": "",
                                     "neighbor": "198.51.100.1", "local": "198.51.100.126",
                                     "channels": {"ipv4": {"state": "UP",
                                                           "routes": {"imported": 5, "filtered": 0,
                                                                      "exported": 7}}}}},
         "bfd": [{"address": "198.51.100.1", "state": "Up", "interval": "0.100", "timeout": "0.300"}]}

    ``configuration`` compares what runs with the file that was placed; sessions have the plan's names, or
    another one where the plan knows of none. ``now`` and ``started``, where there are any, tell of a daemon
    that is still taking over (:func:`is_young`). ``hangs`` beside an error: it does not answer, and is not
    waited for any longer.
    """
    try:
        return READERS[plan["routing"]["daemon"]["name"]](plan)
    except Hangs as error:
        return {"error": str(error), "hangs": True}


READERS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "bird1": read_birds,
    "bird2": read_birds,
    "bird3": read_birds,
    "gobgp": read_gobgp,
    "frr": read_frr,
}
"""What asks a routing daemon, by its name in the plan."""


def networkd_state(index: int) -> str | None:
    """Return what systemd-networkd says of an interface: ``configured``, ``configuring``, ``failed``, …"""
    state = read_text(f"/run/systemd/netif/links/{index}") or ""
    match = re.search(r"ADMIN_STATE=(\S+)", state)
    return match[1] if match else None


def silent_units() -> dict[str, str]:
    """Return the units of systemd that are asked for a sign of life and give none, and how long they had."""
    ping = ["org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.DBus.Peer", "Ping"]
    try:
        # One that is stopped is not started by the question.
        asked(["busctl", "--auto-start=no", "call", *ping])
    except OSError:
        pass
    except Hangs:
        return {"systemd-networkd.service": f"no answer within {ANSWER_SECONDS:g} s"}
    return {}


def read_units(names: list[str]) -> dict[str, dict[str, str]]:
    """Return what systemd says of units: state, start at boot, process, and the settings that matter."""
    properties = (
        "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,DropInPaths,"
        "KillSignal,Restart,StartLimitIntervalUSec,User,DynamicUser,CapabilityBoundingSet"
    )
    try:
        shown = asked(["systemctl", "show", "--property", properties, "--", *names]).stdout
    except Hangs:
        return {}
    units = {}
    for block in shown.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit:
            units[unit.pop("Id")] = unit
    return units


CALLS_SINCE = "-5min"
"""Longer than a daemon waits before it calls again."""
UNKNOWN_CALLER = re.compile(
    r"Unexpected connect from unknown address (?P<bird>[0-9a-f.:]+)"
    r"|Can't find configuration for a new passive connection\W.*?Key=\"?(?P<gobgp>[0-9a-f.:]+)"
    r"|\[Event\] (?P<frr>[0-9a-f.:]+) connection rejected"
)
"""The log of a call that no session is for: BIRD 1.6 to 3.1, GoBGP, FRR with `debug bgp neighbor-events`."""


def unknown_callers(messages: str) -> dict[str, int]:
    """Return the addresses that called and were refused, and how often.

    >>> unknown_callers("BGP: Unexpected connect from unknown address 198.51.100.9 (port 179)")
    {'198.51.100.9': 1}
    """
    return dict(
        collections.Counter(next(filter(None, match.groups())) for match in UNKNOWN_CALLER.finditer(messages))
    )


def read_strangers(plan: Plan) -> dict[str, int]:
    """Return who has called the daemon of a reflector of late without having a session there."""
    if plan["kind"] != "route_reflector":
        return {}
    units = [word for unit in ("bird*", "frr", "l3hv-gobgp-*") for word in ("--unit", f"{unit}.service")]
    words = ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--since", CALLS_SINCE, *units]
    try:
        return unknown_callers(asked([*words, "--grep", "connect|passive connection"]).stdout)
    except (OSError, Hangs):
        return {}


# --- who listens ----------------------------------------------------------------------------------------

LISTENING = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h, as /proc/net has it."""

SENDING_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
"""A UDP port without a peer that is in this range is one to send from."""


def listening_sockets() -> dict[str, str]:
    """Return what listens on this host: ``tcp 179`` or the like, by the number of the socket's inode."""
    found = {}
    first_to_send_from = int((read_text(SENDING_PORTS) or "32768").split()[0])
    for table, kind in (
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
        ("raw6", "raw ipv6"),
    ):
        for line in read_lines(f"/proc/net/{table}")[1:]:
            _, local, remote, state, *_ = fields = line.split()
            port, peer = (int(place.rpartition(":")[2], 16) for place in (local, remote))
            is_waiting = state == LISTENING if kind == "tcp" else peer == 0 and port < first_to_send_from
            if is_waiting:
                found[fields[9]] = f"{kind} {port}"
    return found


def read_listeners() -> dict[str, list[str]]:
    """Return what listens by the unit of its process, or by the name of a process that belongs to none."""
    sockets = listening_sockets()
    listeners: dict[str, set[str]] = {}
    for process in glob.glob("/proc/[0-9]*"):
        owned = set()
        for link in glob.glob(f"{process}/fd/*"):
            with contextlib.suppress(OSError):  # closed, or ended, meanwhile
                owned.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        if here := {sockets[inode] for inode in owned & sockets.keys()}:
            unit = re.search(r"/([^/\n]+\.(?:service|socket))", read_text(f"{process}/cgroup") or "")
            name = unit[1] if unit else (read_text(f"{process}/comm") or "?")
            listeners.setdefault(name, set()).update(here)
    return {name: sorted(here) for name, here in sorted(listeners.items())}


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


# --- paths -----------------------------------------------------------------------------------------------

ECHO_REQUEST = {"ipv4": 8, "ipv6": 128}
ECHO_REPLY = {"ipv4": 0, "ipv6": 129}
IP_HEADER = {"ipv4": 20, "ipv6": 40}
ECHO = struct.Struct("!BBHHH")
# What the socket module has no names for.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3
PING_TIMES = (0.0, 0.1, 0.25)
"""When a ping is sent, and sent again, in seconds: one that is lost says nothing of its size."""

PING_SECONDS = 0.4
SMALL_PING = 128
"""Bytes of a packet that every path carries: who does not answer it answers no ping."""


def checksum(data: bytes) -> int:
    """Return the Internet checksum of some bytes (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Far:
    """The far end of a path, which is pinged with packets of one size after the other, never fragmented."""

    def __init__(self, session: dict[str, Any], most: int) -> None:
        self.name = f"{session['interface']} {session['neighbor']}"
        self.passes, self.size, self._fails = 0, most, most + 1
        self.family = "ipv6" if ":" in session["neighbor"] else "ipv4"
        is_ipv4 = self.family == "ipv4"
        self._address = session["neighbor"]
        self.socket = socket.socket(
            FAMILIES[self.family],
            socket.SOCK_RAW,
            socket.IPPROTO_ICMP if is_ipv4 else socket.IPPROTO_ICMPV6,
        )
        level, option = (
            (socket.IPPROTO_IP, IP_MTU_DISCOVER) if is_ipv4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        )
        self.socket.setsockopt(level, option, PROBE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, session["interface"].encode())
        self.socket.bind((session["local"], 0))
        self.socket.setblocking(False)

    def send(self, identifier: int) -> None:
        """Send one echo request of the present size; its sequence number is the size."""
        payload = bytes(self.size - IP_HEADER[self.family] - ECHO.size)
        header = ECHO.pack(ECHO_REQUEST[self.family], 0, 0, identifier, self.size)
        if self.family == "ipv4":  # for ICMPv6 the kernel does it
            header = ECHO.pack(ECHO_REQUEST["ipv4"], 0, checksum(header + payload), identifier, self.size)
        with contextlib.suppress(OSError):  # the interface is down, or its MTU is smaller
            self.socket.sendto(header + payload, (self._address, 0))

    def is_answer(self, identifier: int) -> bool:
        """Read one packet and tell whether it answers an echo request of the present size."""
        data, sender = self.socket.recvfrom(65536)
        if self.family == "ipv4":
            data = data[(data[0] & 0x0F) * 4 :]
        if len(data) < ECHO.size or sender[0].partition("%")[0] != self._address:
            return False
        kind, _, _, theirs, size = ECHO.unpack_from(data)
        return (kind, theirs, size) == (ECHO_REPLY[self.family], identifier, self.size)

    def narrow(self, has_answered: bool) -> bool:
        """Choose the next size, and tell whether there is one: the largest, the smallest, then by halves."""
        if has_answered:
            self.passes = self.size
        else:
            self._fails = self.size
        if self.passes == 0:
            is_silent = self.size <= SMALL_PING
            self.size = SMALL_PING
            return not is_silent
        self.size = (self.passes + self._fails) // 2
        return self._fails - self.passes > 1


def ping_round(fars: list[Far], identifier: int) -> set[str]:
    """Send every far end a packet of its present size, and return the names of those that answer."""
    waiting = {far.socket: far for far in fars}
    begin = time.monotonic()
    times = list(PING_TIMES)
    while waiting and (now := time.monotonic() - begin) < PING_SECONDS:
        if times and now >= times[0]:
            del times[0]
            for far in waiting.values():
                far.send(identifier)
        until = times[0] if times else PING_SECONDS
        for ready in select.select(list(waiting), [], [], max(0.0, until - now))[0]:
            if waiting[ready].is_answer(identifier):
                del waiting[ready]
    return {far.name for far in fars} - {far.name for far in waiting.values()}


def path_sizes(plan: Plan, links: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return the largest packet (bytes) that reaches each reflector and comes back, by interface and address.

    0 where it answers no ping at all. Each path that carries everything costs two packets.
    """
    mtus = {uplink["interface"]: uplink["mtu"] for uplink in plan["uplinks"]}
    fars: dict[str, Far] = {}
    with contextlib.ExitStack() as stack:
        for session in plan["routing"]["sessions"]:
            link = links.get(session["interface"])
            if session["relation"] == "reflector" and link is not None and link["carrier"]:
                with contextlib.suppress(OSError):  # the address is not there: a failed check of its own
                    far = Far(session, min(link["mtu"], mtus[session["interface"]]))
                    stack.callback(far.socket.close)
                    fars[far.name] = far
        identifier = os.getpid() & 0xFFFF
        left = list(fars.values())
        while left:
            answered = ping_round(left, identifier)
            left = [far for far in left if far.narrow(far.name in answered)]
    return {name: far.passes for name, far in fars.items()}


# --- waiting ---------------------------------------------------------------------------------------------


def is_young(daemon: dict[str, Any]) -> bool:
    """Tell whether a daemon took its configuration so recently that it may not have cleaned up yet."""
    if "recovery" in daemon.get("state", ""):
        return True  # It waits for its neighbours, and announces nothing before.
    try:
        age = datetime.fromisoformat(daemon["now"]) - datetime.fromisoformat(daemon["reconfigured"])
    except (KeyError, ValueError):
        return False
    return age.total_seconds() < YOUNG_SECONDS


def has_sessions(daemon: dict[str, Any], plan: Plan) -> bool:
    """Tell whether the daemon has every session of the plan up, and BFD with their neighbours."""
    if "error" in daemon:
        return False
    states = {name: session["state"] for name, session in daemon["sessions"].items()}
    down = {session["address"] for session in daemon["bfd"] if session.get("state") != "Up"}
    return all(
        states.get(session["name"]) == "Established" and session["neighbor"] not in down
        for session in plan["routing"]["sessions"]
    )


def received_by(daemon: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return how many prefixes have come by each session, by family."""
    return {
        name: {
            family: channel["routes"].get("imported", 0) for family, channel in session["channels"].items()
        }
        for name, session in daemon.get("sessions", {}).items()
    }


def learned_by(plan: Plan) -> dict[str, str]:
    """Return the digests of the learned routes, by BIRD table."""
    with IPRoute() as netlink:
        links = read_links(netlink)
    return {name: f"{table.digest:032x}" for name, table in read_tables(plan, links, {})[1].items()}


def settle(
    plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Return the routing daemon's state once it is as expected, at the latest after ``seconds``.

    Once all sessions are up, what they brought is not waited for any longer than it keeps changing.
    """
    now = time.monotonic()
    deadline, changed, last = now + seconds, now, None
    while True:
        daemon = read_routing(plan)
        is_up = has_sessions(daemon, plan)
        counts = received_by(daemon) if received else {}
        digests = learned_by(plan) if learned else {}
        is_as_expected = all(counts.get(name) == wanted for name, wanted in received.items()) and all(
            digests.get(table) == digest for table, digest in learned.items()
        )
        now = time.monotonic()
        if (counts, digests) != last:
            changed, last = now, (counts, digests)
        is_at_rest = is_up and now - changed > REST_SECONDS and not is_young(daemon)
        if (is_up and is_as_expected) or is_at_rest or daemon.get("hangs") or now >= deadline:
            return daemon
        time.sleep(POLL_SECONDS)


def observe(
    plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, Any], sends_pings: bool = True
) -> dict[str, Any]:
    """Return everything that can be read on the host of ``plan``."""
    routing = settle(plan, seconds, learned, received)
    with IPRoute() as netlink:
        links = read_links(netlink)
        addresses = read_addresses(netlink, links)
        rules = {family: read_rules(netlink, number) for family, number in FAMILIES.items()}
        ports = {guest["interface"] for guest in plan["guests"]}
        indexes = {link["name"]: index for index, link in links.items()}
        plugged = {
            indexes[guest["interface"]]: guest for guest in plan["guests"] if guest["interface"] in indexes
        }
        neighbors = read_wrong_neighbors(netlink, plugged) if plugged else []
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
        "rules": rules,
        "routes": own,
        "learned": {name: table.summary(learned.get(name)) for name, table in by_bird.items()},
        "is_container": os.path.exists("/run/systemd/container"),
        "sysctls": {sysctl["key"]: read_text(sysctl_path(sysctl["key"])) for sysctl in plan["sysctls"]},
        "routing": routing,
        "translations": read_translations() if plan["kind"] == "hypervisor" else {},
        "neighbors": neighbors,
        "packet_filter": read_packet_filter(),
        "chains": read_chains_of_others(),
        "strangers": read_strangers(plan),
        "units": read_units([*UNITS, *map(os.path.basename, glob.glob(GOBGP_UNITS))]),
        "silent": silent_units(),
        "listeners": read_listeners(),
        "offers": solicit(present),
        "sizes": path_sizes(plan, by_name) if sends_pings else {},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "settle": {"type": "float", "default": 0},
            "learned": {"type": "dict", "default": {}},
            "received": {"type": "dict", "default": {}},
            "pings": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(
            msg="Only root can read the kernel's tables and the daemons: set ansible_become: true for this"
            " host, run with --become, or connect as root."
        )
    if IPRoute is None:
        module.fail_json(msg=missing_required_lib("pyroute2 (Debian: python3-pyroute2)"))
    parameters = module.params
    started = time.monotonic()
    observation = observe(
        parameters["plan"],
        parameters["settle"],
        parameters["learned"],
        parameters["received"],
        parameters["pings"],
    )
    module.exit_json(changed=False, observation=observation, seconds=round(time.monotonic() - started, 3))


if __name__ == "__main__":
    main()

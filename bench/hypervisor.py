"""A hypervisor of an inventory between a guest and the Internet, as three network namespaces with veth cables.

The hypervisor has the rules, tables, settings and packet filter that site.yml places on it, and the routes that
networkd and BIRD would add.  A sender fills one core, which processes each packet all the way.  The receiver drops
test packets at its first hook, so that nearly all of the time is the hypervisor's.

This module and ``vrf_rounds.py`` need only Python's standard library, ip(8) and nft(8): they also run in an emulated
machine.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FAMILIES = ("IPv4", "IPv6")
GUEST, ROUTER, INTERNET = "guest", "hv", "internet"
TARGETS = {"IPv4": "192.0.2.{}", "IPv6": "2001:db8:8888::{:x}"}
"""Addresses in the Internet: a number from 0 to 255 completes one."""
NETWORKS = {"IPv4": "192.0.2.0/24", "IPv6": "2001:db8:8888::/120"}
EDGE = 120
"""The id of the edge router, from which its addresses on the paths follow."""
BIRD = "protocol bird metric 32"
PORT = 9
SENDER = f"""
import os, socket, sys, time
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})  # one core processes a packet all the way
seconds, burst, targets = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
family = socket.AF_INET6 if ":" in targets[0] else socket.AF_INET
flows = [socket.socket(family, socket.SOCK_DGRAM) for _ in targets]
for flow, target in zip(flows, targets):
    flow.connect((target, {PORT}))
    flow.setsockopt(17, 103, 18)  # UDP_SEGMENT of udp(7): the kernel divides longer data into packets
flows = flows * (256 // len(flows))
data, sent, begun = bytes(18 * burst), 0, time.monotonic()
while (passed := time.monotonic() - begun) < seconds:
    for flow in flows:
        flow.send(data)
print(passed)
"""
SINK = f"""
table netdev bench {{
  chain sink {{ type filter hook ingress device "eth0" priority 0; udp dport {PORT} drop; }}
}}
"""
FILES = ("plan.json", "tables.conf", "nftables.conf", "sysctl.conf", "tables-sync", "packet-filter")
"""The files of a hypervisor's directory: its plan, and what site.yml places."""


class Hypervisor:
    """The namespaces of one hypervisor; ``directory`` has its ``FILES``."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name, self.directory = name, directory
        self.plan: dict[str, Any] = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
        self.guest: dict[str, Any] = self.plan["guests"][0]
        self._uplink: dict[str, Any] = self.plan["uplinks"][0]
        self._tables = dict(
            reversed(words.split()[1:3])
            for words in (directory / "tables.conf").read_text(encoding="utf-8").splitlines()
            if words.startswith("table ")
        )
        self.port: str = self.guest["interface"]

    def namespace(self, end: str) -> str:
        return f"l3hv-{self._name}-{end}"

    def ip(self, end: str, *lines: str) -> None:
        """Run commands of ip(8) in a namespace, in one process."""
        command = ["ip", "-n", self.namespace(end), "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True, stdout=subprocess.DEVNULL)

    def run(self, end: str, *command: str, text: str | None = None) -> str:
        """Run a command in a namespace, and return its output."""
        words = ["ip", "netns", "exec", self.namespace(end), *command]
        done = subprocess.run(words, check=False, capture_output=True, text=True, input=text)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)[:80]}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def built(self) -> Iterator[None]:
        """Build the namespaces, and remove them at the end."""
        ends = (GUEST, ROUTER, INTERNET)
        try:
            for end in ends:
                subprocess.run(["ip", "netns", "add", self.namespace(end)], check=True)
                self.ip(end, "link set lo up")
            self._add_interfaces()
            self._add_addresses_and_routes()
            self.run(ROUTER, str(self.directory / "tables-sync"), "apply", str(self.directory / "tables.conf"))
            self.load(self.directory / "nftables.conf")
            self._configure_guest()
            self._configure_internet()
            yield
        finally:
            for end in ends:
                command = ["ip", "netns", "del", self.namespace(end)]
                subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def load(self, rules: Path) -> None:
        """Load a file of nftables rules on the hypervisor."""
        self.run(ROUTER, str(self.directory / "packet-filter"), "apply", str(rules))

    def _add_interfaces(self) -> None:
        plan, uplink = self.plan, self._uplink["interface"]
        lines = [f"link add {vrf['name']} up type vrf table {vrf['table']}" for vrf in plan["vrfs"]]
        for number, entry in enumerate((*plan["uplinks"], *plan["guests"])):
            name = entry["interface"]
            ends = {self.port: GUEST, uplink: INTERNET}
            peer = f"eth0 netns {self.namespace(ends[name])}" if name in ends else f"beyond{number}"
            lines.append(f"link add {name} type veth peer name {peer}")
            if entry["vrf"] is not None:
                lines.append(f"link set {name} master {entry['vrf']}")
            lines.append(f"link set {name} up")
        self.ip(ROUTER, *lines, f"link set {self.port} address {self.guest['gateway_mac']}")
        settings = (self.directory / "sysctl.conf").read_text(encoding="utf-8").replace("\n-", "\n")
        # networkd sets these: IPv4Forwarding=, IPv4ReversePathFilter=, IPv4ProxyARP=.
        forwarding = [*(vrf["name"] for vrf in plan["vrfs"]), self.port, *(u["interface"] for u in plan["uplinks"])]
        settings += "".join(f"net.ipv4.conf.{name}.forwarding = 1\n" for name in forwarding)
        settings += f"net.ipv4.conf.{self.port}.proxy_arp = 1\n"
        self.run(ROUTER, "sysctl", "-qep", "-", text=settings)

    def _add_addresses_and_routes(self) -> None:
        guest, lines = self.guest, []
        for uplink in self.plan["uplinks"]:
            for address in uplink["addresses"]:
                nodad = " nodad" if address["family"] == "ipv6" else ""
                device = uplink["interface"]
                lines.append(f"address add {address['address']}/{address['length']} dev {device}{nodad}")
        for address in guest["addresses"]:
            options = " nodad" if address["family"] == "ipv6" else " scope link noprefixroute"
            lines.append(f"address add {address['address']}/{address['length']} dev {self.port}{options}")
        lines.append(f"neighbor replace {guest['link_local']} lladdr {guest['mac']} dev {self.port}")
        for route in guest["routes"]:
            way = f"dev {self.port} metric {route['metric']}"
            if route["via"] is not None:
                way = f"via {route['via']} {way} onlink"
            elif route["family"] == "ipv4":
                way += " scope link"
            lines += [f"route add {route['prefix']} {way} table {self._tables[table]}" for table in route["tables"]]
        for family in FAMILIES:
            via = f"via {self.next_hop(family)} dev {self._uplink['interface']}"
            lines.append(f"route add default {via} table {self._tables['public']} {BIRD}")
        self.ip(ROUTER, *lines)

    def _configure_guest(self) -> None:
        self.ip(
            GUEST,
            f"link set eth0 address {self.guest['mac']}",
            f"address add {self.address('IPv4')}/24 dev eth0",
            f"address add {self.address('IPv6')}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {self.guest['addresses'][0]['address']}",
            "route add default via fe80::1 dev eth0",
        )
        self.run(GUEST, "nft", "-f", "-", text=SINK)

    def _configure_internet(self) -> None:
        lines = ["link set eth0 up"]
        for family, address in zip(FAMILIES, self._uplink["addresses"], strict=True):
            nodad = " nodad" if family == "IPv6" else ""
            lines += [
                f"address add {self.next_hop(family)}/{address['length']} dev eth0{nodad}",
                f"route add local {NETWORKS[family]} dev lo",
                f"route add {self.address(family)} via {address['address']}",
            ]
        self.ip(INTERNET, *lines)
        self.run(INTERNET, "nft", "-f", "-", text=SINK)

    def address(self, family: str) -> str:
        """Return the guest's address."""
        routes = (route["prefix"].partition("/")[0] for route in self.guest["routes"])
        return next(f"{p}1" if ":" in p else p for p in routes if (":" in p) == (family == "IPv6"))

    def next_hop(self, family: str) -> str:
        """Return the address of the edge router on the first path."""
        own: str = self._uplink["addresses"][FAMILIES.index(family)]["address"]
        return f"{own.rpartition(':')[0]}:{EDGE:x}" if ":" in own else f"{own.rpartition('.')[0]}.{EDGE}"

    def warm_up(self) -> None:
        """Wait until both ends reach each other in both families."""
        for target in (TARGETS[family].format(8) for family in FAMILIES):
            self.run(GUEST, "ping", "-qc", "1", "-w", "20", target)

    def rate(self, source: str, targets: Sequence[str], seconds: float, burst: int = 1) -> float:
        """Return the packets per second from an end to ``targets`` at the other end.

        The sender passes ``burst`` packets at a time to its kernel, which divides them where they leave the sender.
        """
        target = INTERNET if source == GUEST else GUEST
        self.ip(source, "link set eth0 gso_max_segs 1")
        before = self._received(target)
        passed = float(self.run(source, sys.executable, "-c", SENDER, str(seconds), str(burst), *targets))
        received = self._received(target) - before
        if received < 100:
            raise RuntimeError(f"{self._name}: only {received} packets from {source} arrived at {target}")
        return received / passed

    def _received(self, end: str) -> int:
        return int(self.run(end, "cat", "/sys/class/net/eth0/statistics/rx_packets"))


@contextmanager
def all_built(hypervisors: Iterable[Hypervisor]) -> Iterator[None]:
    """Build several hypervisors."""
    with contextlib.ExitStack() as stack:
        for hypervisor in hypervisors:
            stack.enter_context(hypervisor.built())
        yield


def spread(values: Sequence[float]) -> str:
    """Return the median and the quartiles of ratios as text."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"

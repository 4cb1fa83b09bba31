"""Measures forwarding from guest to guest, on one hypervisor and over two, relative to plain bridges.

Hypervisors, switches and guests are network namespaces with veth cables.  The hypervisors have the rules that
site.yml places, or none.  A guest sends UDP packets of 18 bytes as fast as one process can, on one core; the
ways alternate.  A ratio compares the best rounds, because other load on the machine only slows packets down.
Two more rule sets of the first hypervisor show the cost of the parts: empty chains, and rules of the forward
chain with interface groups in place of names.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fabric import write_inventory  # beside this file
from filter import PORT, load, rendered  # beside this file

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import read_fabric

PREFIX = "l3hv-fwd-"
HYPERVISORS = ("hv00001", "hv00002")
SENDER = f"""
import os, socket, sys, time
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})  # one core processes a packet all the way
target, seconds, burst = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as wire:
    wire.setsockopt(17, 103, 18)  # UDP_SEGMENT of udp(7): the kernel divides longer data into packets
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(256 // burst):
            wire.sendto(bytes(18 * burst), (target, {PORT}))
"""
EMPTY_CHAINS = """
table inet l3hv
delete table inet l3hv
table inet l3hv {
  chain received { type filter hook prerouting priority raw; }
  chain forwarded { type filter hook forward priority filter; }
}
"""
BY_NAME = re.compile(r"oifname @open_guests_\w+ iifname @open_ports_\w+ accept")
BY_GROUP = "iifgroup 0 oifgroup 0 accept"
WAYS = {
    "one bridge": ("left1", "right1"),
    "one hypervisor": ("from", "beside"),
    "three bridges": ("left3", "right3"),
    "two hypervisors": ("from", "beyond"),
}
FAMILIES = {"IPv4": "ip", "IPv6": "ip6"}


def ip(namespace: str, *lines: str) -> None:
    """Run commands of ip(8) in a namespace, in one process."""
    text = "\n".join(lines)
    subprocess.run(["ip", "-n", PREFIX + namespace, "-batch", "-"], input=text, text=True, check=True)


def run(namespace: str, *command: str) -> str:
    words = ["ip", "netns", "exec", PREFIX + namespace, *command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def plans(directory: Path, guests: int) -> list[dict[str, Any]]:
    """Return the plans of two hypervisors with this many guests each."""
    inventory_path = directory / "inventory"
    inventory_path.mkdir()
    write_inventory(inventory_path, len(HYPERVISORS), guests)
    inventory = open_inventory(inventory_path)
    fabric = read_fabric(inventory, inventory.kinds()[0], directory / "fabric")
    return [json.loads((fabric.plans / f"{name}.json").read_text(encoding="utf-8")) for name in HYPERVISORS]


def connect(one: str, one_device: str, other: str, other_device: str) -> None:
    """Put a cable between two namespaces."""
    ip(one, f"link add {one_device} type veth peer name {other_device} netns {PREFIX}{other}")
    ip(one, f"link set {one_device} up")
    ip(other, f"link set {other_device} up")


def address_of(guest: dict[str, Any], family: str) -> str:
    """Return the address of a guest in one family."""
    prefixes = [
        route["prefix"] for route in guest["routes"] if (":" in route["prefix"]) == (family == "IPv6")
    ]
    address = prefixes[0].partition("/")[0]
    return f"{address}1" if family == "IPv6" else address


def plug(name: str, hypervisor: str, guest: dict[str, Any]) -> None:
    """Start a guest behind its port."""
    port, mac = guest["interface"], guest["gateway_mac"]
    connect(hypervisor, port, name, "eth0")
    ip(hypervisor, f"link set {port} address {mac}")
    ip(name, f"link set eth0 address {guest['mac']}")
    for family, options, gateway in (("IPv4", "", "198.18.0.1"), ("IPv6", " nodad", "fe80::1")):
        address = address_of(guest, family)
        ip(name, f"address add {address} dev eth0{options}")
        ip(name, f"neighbor replace {gateway} lladdr {mac} dev eth0")
        ip(name, f"route add default via {gateway} dev eth0 onlink")
        ip(
            hypervisor,
            f"route add {address} dev {port}",
            f"neighbor replace {address} lladdr {guest['mac']} dev {port}",
        )


def bridge(name: str, *ends: tuple[str, str]) -> None:
    """Make a namespace a switch between others; ``ends`` are pairs of a namespace and its device."""
    ip(name, "link add br0 type bridge", "link set br0 up")
    # Otherwise iptables' hooks see bridged packets.
    run(
        name,
        "sh",
        "-c",
        "for key in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 >$key; done 2>/dev/null || :",
    )
    for number, (end, device) in enumerate(ends):
        connect(name, f"port{number}", end, device)
        ip(name, f"link set port{number} master br0")


def end(name: str, number: int) -> None:
    """Configure the addresses of an end of a row of bridges."""
    ip(
        name,
        f"address add 198.18.1.{number}/24 dev eth0",
        f"address add 2001:db8:18::{number}/64 dev eth0 nodad",
    )


@contextmanager
def fabric(two: list[dict[str, Any]]) -> Iterator[dict[tuple[str, str], str]]:
    """Build all ways, and return the address at the end of each, by its namespace and the family."""
    names = [*HYPERVISORS, "path", "one", "a", "b", "c", *dict.fromkeys(sum(WAYS.values(), ()))]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", PREFIX + name], check=True)
            ip(name, "link set lo up")
        guests = {"from": (0, 0), "beside": (0, 1), "beyond": (1, 0)}
        for name, (hypervisor, number) in guests.items():
            plug(name, HYPERVISORS[hypervisor], two[hypervisor]["guests"][number])
        uplinks = [
            next(u for u in plan["uplinks"] if (u["path"], u["domain"]) == ("a", "public")) for plan in two
        ]
        bridge(
            "path", *((host, uplink["interface"]) for host, uplink in zip(HYPERVISORS, uplinks, strict=True))
        )
        for host, uplink in zip(HYPERVISORS, uplinks, strict=True):
            for address in uplink["addresses"]:
                nodad = " nodad" if ":" in address["address"] else ""
                device = uplink["interface"]
                ip(host, f"address add {address['address']}/{address['length']} dev {device}{nodad}")
            run(host, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for host, there, uplink in (
            (HYPERVISORS[0], two[1]["guests"][0], uplinks[1]),
            (HYPERVISORS[1], two[0]["guests"][0], uplinks[0]),
        ):
            for family in FAMILIES:
                via = next(
                    a["address"] for a in uplink["addresses"] if (":" in a["address"]) == (family == "IPv6")
                )
                ip(host, f"route add {address_of(there, family)} via {via}")
        bridge("one", ("left1", "eth0"), ("right1", "eth0"))
        bridge("a", ("left3", "eth0"))
        bridge("c", ("right3", "eth0"))
        bridge("b")
        for outer, number in (("a", 1), ("c", 2)):
            connect("b", f"port{number}", outer, "port9")
            ip("b", f"link set port{number} master br0")
            ip(outer, "link set port9 master br0")
        addresses: dict[tuple[str, str], str] = {}
        for name, number in (("left1", 1), ("right1", 2), ("left3", 1), ("right3", 2)):
            end(name, number)
            addresses |= {(name, "IPv4"): f"198.18.1.{number}", (name, "IPv6"): f"2001:db8:18::{number}"}
        for name, (hypervisor, number) in guests.items():
            for family in FAMILIES:
                addresses[name, family] = address_of(two[hypervisor]["guests"][number], family)
        yield addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", PREFIX + name], check=False, stderr=subprocess.DEVNULL)


def arrived(name: str, family: str) -> int:
    """Return the number of UDP datagrams that a guest has received (no socket listens on their port)."""
    if family == "IPv6":
        lines = run(name, "cat", "/proc/net/snmp6").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Udp6NoPorts "))
    names, values = (
        line.split() for line in run(name, "cat", "/proc/net/snmp").splitlines() if line[:4] == "Udp:"
    )
    return int(values[names.index("NoPorts")])


def rate(way: str, family: str, address: str, seconds: float, burst: int) -> float:
    """Return the packets per second that arrive at the other end of a way, which has ``address``."""
    source, target = WAYS[way]
    ip(source, "link set eth0 gso_max_segs 1")  # a burst is divided where it leaves the guest
    before = arrived(target, family)
    run(source, sys.executable, "-c", SENDER, address, str(seconds), str(burst))
    return (arrived(target, family) - before) / seconds


def filtered(files: list[Path] | None) -> None:
    """Load the rules of the hypervisors, or remove them."""
    loaded: Sequence[Path | None] = files or [None] * len(HYPERVISORS)
    for host, path in zip(HYPERVISORS, loaded, strict=True):
        if path is None:
            run(host, "nft", "flush", "ruleset")
        else:
            load(path, PREFIX + host)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--burst", type=int, default=1, help="packets that the sender hands over at once")
    parser.add_argument(
        "--variant", nargs="+", type=Path, default=[], help="files of rules for the first host"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        two = plans(Path(name), arguments.guests)
        files = []
        for host, plan in zip(HYPERVISORS, two, strict=True):
            files.append(Path(name) / f"{host}.nft")
            files[-1].write_text(rendered(plan["packet_filter"]), encoding="utf-8")
        rule_sets = {"with the filter": files, "without": None}
        text = files[0].read_text(encoding="utf-8")
        for words, rules in (("groups", BY_NAME.sub(BY_GROUP, text)), ("empty chains", EMPTY_CHAINS)):
            path = Path(name) / f"{words}.nft"
            path.write_text(rules, encoding="utf-8")
            rule_sets[words] = [path, files[1]]
        rule_sets |= {path.stem: [path, files[1]] for path in arguments.variant}
        cases = [(way, words) for way in WAYS for words in (rule_sets if "hyper" in way else [""])]
        rates: dict[tuple[str, str, str], list[float]] = {}
        with fabric(two) as addresses:
            for _ in range(arguments.rounds):
                for way, words in cases:
                    if words:
                        filtered(rule_sets[words])
                    for family in FAMILIES:
                        address = addresses[WAYS[way][1], family]
                        measured = rate(way, family, address, arguments.seconds, arguments.burst)
                        rates.setdefault((way, words, family), []).append(measured)
    print("from guest to guest       IPv4  IPv6")
    for (way, words), base in (
        (case, "one bridge" if "one" in case[0] else "three bridges") for case in cases
    ):
        of_bridges = [rates[base, "", family] for family in FAMILIES]
        of_way = [rates[way, words, family] for family in FAMILIES]
        if words:
            ratios = [max(routed) / max(bridged) for routed, bridged in zip(of_way, of_bridges, strict=True)]
            print(f"{way}, {words:20} {ratios[0]:.2f}  {ratios[1]:.2f}")
        else:
            print(f"{way:36} " + "  ".join(f"{max(each):,.0f}" for each in of_bridges) + " packets/s")


if __name__ == "__main__":
    main()

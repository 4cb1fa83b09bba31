"""Measures the packet filter: forwarding with 10 and with 1,000 guest ports, and packets lost by a reload.

A router and two hosts are three network namespaces with veth cables.  The router has the rules that site.yml
places on a hypervisor with that many guests, and as many ports.  One sender sends small UDP packets from a
guest to an uplink as fast as it can.  The rule sets alternate, so that other load affects both.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "src"))
sys.path.append(str(ROOT / "bench"))
sys.path.append(str(ROOT / "plugins" / "action"))

import yaml  # noqa: E402 - after the path is set
from config_files import template_at, texts  # noqa: E402 - the action plugin that renders in a run
from fabric import write_inventory  # noqa: E402 - beside this file
from jinja2.utils import missing  # noqa: E402 - after the path is set

from l3hv.inventory.ansible import open_inventory  # noqa: E402 - after the path is set
from l3hv.inventory.read import read_fabric  # noqa: E402 - after the path is set

ROLE = ROOT / "roles" / "packet_filter"
GUEST, ROUTER, BEYOND = (f"l3hv-bench-{name}" for name in ("guest", "router", "beyond"))
UPLINK, NEXT_HOP, TARGET, PORT = "eno1.90", "172.24.0.2", "192.0.2.8", 9
PAYLOAD = bytes(18)


def rules(guests: int, directory: Path) -> Path:
    """Return the file of rules of a hypervisor with this many guests."""
    inventory_path = directory / f"inventory-{guests}"
    inventory_path.mkdir()
    write_inventory(inventory_path, 1, guests)
    inventory = open_inventory(inventory_path)
    run = read_fabric(inventory, inventory.kinds()[0], directory / f"fabric-{guests}")
    plan = json.loads((run.plans / "hv00001.json").read_text(encoding="utf-8"))
    path = directory / f"{guests}.nft"
    path.write_text(rendered(plan["packet_filter"]), encoding="utf-8")
    return path


def rendered(intended: dict[str, Any]) -> str:
    """Return the text of the rules of a host whose plan has the packet filter ``intended``."""
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    values = {**variables, "packet_filter_intended": intended, "ansible_managed": "bench"}
    source = ROLE / "templates" / "nftables.conf.j2"
    template = template_at(str(source), str(source.parent), str(source.parent))
    return texts(template, "item", [{}], lambda key: values.get(key, missing))[0]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def load(path: Path, namespace: str = ROUTER) -> None:
    """Load a file of rules in the namespace of the router."""
    program = ROLE / "files" / "packet-filter"
    subprocess.run(["ip", "netns", "exec", namespace, str(program), "apply", str(path)], check=True)


@contextmanager
def router(ports: int) -> Iterator[None]:
    """Build the three namespaces, with ``ports`` guest ports on the router, and remove them at the end."""
    names = (GUEST, ROUTER, BEYOND)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", ROUTER, "link", "add", "vnet0", "type", "veth", "peer", "name", "eth0", "netns", GUEST)
        ip("-n", ROUTER, "link", "add", UPLINK, "type", "veth", "peer", "name", "eth0", "netns", BEYOND)
        ip("-n", GUEST, "link", "set", "eth0", "address", "52:54:00:00:00:00")
        more = "".join(f"link add vnet{n} type veth peer name other{n}\n" for n in range(1, ports))
        subprocess.run(["ip", "-n", ROUTER, "-batch", "-"], input=more, text=True, check=True)
        for name, device, address in (
            (GUEST, "eth0", "10.0.0.1/8"),
            (ROUTER, "vnet0", "10.255.255.254/8"),
            (ROUTER, UPLINK, "172.24.0.1/17"),
            (BEYOND, "eth0", f"{NEXT_HOP}/17"),
            (BEYOND, "eth0", f"{TARGET}/32"),
        ):
            ip("-n", name, "address", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("-n", GUEST, "route", "add", "default", "via", "10.255.255.254")
        ip("-n", ROUTER, "route", "add", "default", "via", NEXT_HOP)
        ip("-n", BEYOND, "route", "add", "default", "via", "172.24.0.1")
        enable = ["ip", "netns", "exec", ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(enable, check=True)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def sender(how: str, *arguments: float) -> list[str]:
    """Return the command that sends from the guest and prints the number of packets: it runs this file."""
    words = [sys.executable, str(Path(__file__)), "--send", how, *map(str, arguments)]
    return ["ip", "netns", "exec", GUEST, *words]


def flood(seconds: float) -> int:
    """Send packets as fast as one process can, and return their number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        sent, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(256):
                wire.sendto(PAYLOAD, (TARGET, PORT))
            sent += 256
        return sent


def pace(seconds: float, rate: float) -> int:
    """Send ``rate`` packets a second, and return their number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        sent, begun = 0, time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            while sent < passed * rate:
                wire.sendto(PAYLOAD, (TARGET, PORT))
                sent += 1
            time.sleep(0.001)
        return sent


def arrived() -> int:
    """Return the number of UDP datagrams that arrived behind the router (no socket listens on their port)."""
    command = ["ip", "netns", "exec", BEYOND, "cat", "/proc/net/snmp"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


def throughput(path: Path, seconds: float) -> float:
    """Return the packets per second that the router forwards with the rules of ``path``."""
    load(path)
    before = arrived()
    subprocess.run(sender("flood", seconds), check=True, stdout=subprocess.DEVNULL, timeout=seconds + 60)
    return (arrived() - before) / seconds


def lost_while_loading(path: Path, times: int, rate: int) -> tuple[int, int, float]:
    """Return the packets that were sent and lost during reloads of the rules, and the seconds of one load."""
    begun = time.monotonic()
    load(path)
    seconds = 1 + 2 * times * (time.monotonic() - begun)
    before = arrived()
    with subprocess.Popen(sender("pace", seconds, rate), stdout=subprocess.PIPE, text=True) as process:
        time.sleep(0.3)
        begun = time.monotonic()
        for _ in range(times):
            load(path)
        loading = (time.monotonic() - begun) / times
        sent = int(process.communicate(timeout=seconds + 60)[0])
    time.sleep(0.2)
    return sent, sent - (arrived() - before), loading


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--loads", type=int, default=50)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--send", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        how, *numbers = arguments.send
        senders: dict[str, Callable[..., object]] = {"flood": flood, "pace": pace}
        print(senders[how](*map(float, numbers)))
        return
    with tempfile.TemporaryDirectory() as name, router(arguments.many):
        sets = {guests: rules(guests, Path(name)) for guests in (arguments.few, arguments.many)}
        rates: dict[int, list[float]] = {guests: [] for guests in sets}
        for _ in range(arguments.rounds):
            for guests, path in sets.items():
                rates[guests].append(throughput(path, arguments.seconds))
        for guests, measured in rates.items():
            median = statistics.median(measured)
            print(f"{guests:5} guest ports: {median:9,.0f} packets/s (median of {len(measured)})")
        pairs = zip(rates[arguments.few], rates[arguments.many], strict=True)
        ratio = statistics.median(many / few for few, many in pairs)
        print(f"ratio: {ratio:.2f} (median of the rounds; required: 0.9)")
        loads = arguments.loads
        sent, lost, loading = lost_while_loading(sets[arguments.many], loads, arguments.rate)
        milliseconds = f"{1000 * loading:.0f} ms"
        print(f"loaded {loads} times under traffic, {milliseconds} each: {lost} of {sent:,} packets lost")


if __name__ == "__main__":
    main()

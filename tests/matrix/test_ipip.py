"""IP-in-IP: two hosts in subnets of their own, and a router between them that knows no guest.

The values are those of tests/golden/tunnel_of_two_hosts. The guests' MTU is larger than the tunnels'.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest
from changed_intents import copy_of, set_variable
from lab import Converged, Flows, Lab, booted, wait_for
from packets import IPV4, ethernet, icmp, ip

from l3hv.twin.network import NAMESPACES, entered
from l3hv.twin.state import Twin

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
PATH = IPv4Network("10.240.0.0/24")
HOSTS = {"host-a": "10.240.0.4", "host-b": "10.240.0.5"}
PODS = {"pod-a": "10.65.0.2", "pod-b": "10.65.0.3"}
DETECTION_MS = 500 * 5
IPIP = 4
LARGEST = 1480 - 20 - 8
"""The payload of the largest ping that fits into a tunnel: without the headers of IPv4 and ICMP."""
STRANGER = "192.0.2.66"


DAEMONS = {
    "bird2": {},
    "older-and-newer": {
        "host-a": ("l3hv_system", "debian12"),
        "host-b": ("l3hv_daemon", "bird3"),
    },
}
"""The variables of the hosts, by the name of a run: BIRD 2.17 on both, or BIRD 2.0.12 and 3.1."""


@pytest.fixture(scope="module", params=DAEMONS)
def fabric(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Boot and provision the two hosts; emulated machines are slow, so BFD waits for longer."""
    golden = REPOSITORY / "tests" / "golden" / "tunnel_of_two_hosts" / "intent"
    inventory = copy_of(golden, tmp_path_factory.mktemp("ipip"))
    file = inventory / "group_vars" / "all" / "fabric.yml"
    set_variable(file, "l3hv_timers", "{bfd_interval_ms: 500, bfd_multiplier: 5}")
    set_variable(file, "l3hv_guest_mtu", "1500")
    for host, (variable, value) in DAEMONS[request.param].items():
        set_variable(inventory / "host_vars" / f"{host}.yml", variable, value)
    remote = {
        "host-a": {(4, "public"): [PODS["pod-b"]]},
        "host-b": {(4, "public"): [PODS["pod-a"]]},
    }
    with booted("ipip", inventory, converged=Converged(remote, next_hops=1)) as made:
        made.provision()
        made.wait_until_converged(120)
        yield made


def in_router(fabric: Lab, *command: str) -> str:
    """Run a program of this host in the network of the router between the hosts."""
    namespace = Twin(fabric.name, print).router_namespace("a-public")
    inside = ["nsenter", f"--net={NAMESPACES / namespace}", *command]
    return subprocess.run(inside, capture_output=True, text=True, check=True).stdout


def ping(fabric: Lab, guest: str, address: str, size: int) -> str:
    """Send a ping that no router may fragment, and return what ping(8) prints."""
    return fabric.run_as_guest(guest, f"ping -n -c 1 -W 5 -M do -s {size} {address} 2>&1 || true")


def dropped(fabric: Lab, host: str, counter: str) -> int:
    shown = fabric.read_json(host, f"nft --json list counter inet l3hv {counter}")
    return next(entry["counter"]["packets"] for entry in shown["nftables"] if "counter" in entry)


def test_routes_lead_through_the_kernels_tunnel_device(fabric: Lab) -> None:
    for host, guest, other in (("host-a", "pod-b", "host-b"), ("host-b", "pod-a", "host-a")):
        (route,) = fabric.run(host, f"ip route show table public {PODS[guest]}").splitlines()
        wanted = f"{PODS[guest]} via {HOSTS[other]} dev tunl0 proto bird metric 32 onlink"
        assert route.split() == wanted.split()


def test_the_router_between_knows_no_guest(fabric: Lab) -> None:
    shown = in_router(fabric, "ip", "-4", "route", "show", "table", "all", "type", "unicast")
    destinations = [line.split()[0] for line in shown.splitlines()]
    assert destinations
    assert all(IPv4Network(destination).subnet_of(PATH) for destination in destinations), destinations
    assert in_router(fabric, "ip", "-6", "route", "show", "default") == ""


def test_guests_reach_each_other_in_outer_packets_of_their_hosts(fabric: Lab) -> None:
    namespace = Twin(fabric.name, print).router_namespace("a-public")
    with entered(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
    with wire:
        wire.setblocking(False)
        assert "1 received" in ping(fabric, "pod-a", PODS["pod-b"], 56)
        ends = set()
        while True:
            try:
                packet = wire.recv(65536)
            except BlockingIOError:
                break
            assert not {str(ip_address(packet[at : at + 4])) for at in (12, 16)} & set(PODS.values())
            if packet[9] == IPIP:
                inner = packet[20:]
                ends.add(tuple(str(ip_address(p[at : at + 4])) for p in (packet, inner) for at in (12, 16)))
    there = (HOSTS["host-a"], HOSTS["host-b"], PODS["pod-a"], PODS["pod-b"])
    back = (HOSTS["host-b"], HOSTS["host-a"], PODS["pod-b"], PODS["pod-a"])
    assert ends == {there, back}


@pytest.mark.parametrize(("guest", "other"), [("pod-a", "pod-b"), ("pod-b", "pod-a")])
def test_the_largest_packet_passes_and_a_larger_one_is_refused(fabric: Lab, guest: str, other: str) -> None:
    assert "1 received" in ping(fabric, guest, PODS[other], LARGEST)
    # The first one gets the error of the hypervisor; then the guest knows the MTU.
    assert "mtu = 1480" in ping(fabric, guest, PODS[other], LARGEST + 1)


def test_verification_finds_everything_as_planned(fabric: Lab) -> None:
    fabric.playbook("playbooks/verify.yml")


def test_another_run_changes_nothing(fabric: Lab) -> None:
    assert fabric.playbook("site.yml", "--check").changed_hosts() == {}
    assert fabric.provision() == {}


def test_bird_takes_its_routes_over_after_a_kill_without_loss(fabric: Lab) -> None:
    fabric.wait_until_converged()
    with fabric.traffic(Flows("pod-a", "pod-b", 4), seconds=15) as traffic:
        fabric.twin("kill", "host-b", "bird")
    print(f"\nkill host-b bird: {traffic.lost()}")
    assert traffic.lost() == {}
    fabric.wait_until_converged()


def test_bfd_detects_a_silent_cut_behind_the_router(fabric: Lab) -> None:
    fabric.wait_until_converged()
    down = fabric.moment("host-a", "birdc show bfd sessions | grep -q Down", 60)
    time.sleep(3)  # the moment is sought in the machine
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        fabric.twin("cut", "host-b", "a")
        after_ms = 1000 * (down.result() - before)
    finally:
        fabric.twin("heal", "host-b", "a")
    print(f"\ncut host-b a: BFD is down after {after_ms:.0f} ms")
    # The cut itself and the answer of the emulated machine take part of the second.
    assert after_ms <= 1.2 * DETECTION_MS + 1000
    fabric.wait_until_converged()


def send_from_router(fabric: Lab, packet: bytes, host: str) -> None:
    """Send a packet from the router's port to a host."""
    namespace = Twin(fabric.name, print).router_namespace("a-public")
    neighbor = in_router(fabric, "ip", "-4", "neighbour", "show", HOSTS[host]).split()
    port, mac = neighbor[neighbor.index("dev") + 1], neighbor[neighbor.index("lladdr") + 1]
    with entered(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind((port, 0))
        wire.send(ethernet("02:00:00:00:00:66", mac, IPV4, packet))


def echoes_at(fabric: Lab, guest: str, packet: bytes, sender: str) -> int:
    """Return the number of echo requests that a guest gets, once ``packet`` was sent to the hypervisor."""
    with entered(Twin(fabric.name, print).guest_namespace(guest)):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
    with wire:
        wire.settimeout(2)
        send_from_router(fabric, packet, sender)
        count = 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                seen = wire.recv(65536)
            except TimeoutError:
                break
            count += seen[9] == 1 and b"forged-by-a-test" in seen
        return count


def inner() -> bytes:
    return icmp(PODS["pod-b"], PODS["pod-a"], 8, struct.pack("!HH", 1, 1) + b"forged-by-a-test")


def test_outer_packets_of_a_stranger_are_dropped_and_counted(fabric: Lab) -> None:
    """The same packet arrives if its sender is a host of the path: the test would see it."""
    ping(fabric, "pod-a", PODS["pod-b"], 56)
    before = dropped(fabric, "host-a", "outer")
    forged = ip(STRANGER, HOSTS["host-a"], IPIP, inner())
    assert echoes_at(fabric, "pod-a", forged, "host-a") == 0
    assert dropped(fabric, "host-a", "outer") == before + 1
    from_a_host = ip(HOSTS["host-b"], HOSTS["host-a"], IPIP, inner())
    assert echoes_at(fabric, "pod-a", from_a_host, "host-a") == 1


@pytest.mark.parametrize("target", HOSTS)
def test_outer_packets_of_a_guest_are_dropped_and_counted(fabric: Lab, target: str) -> None:
    """A guest sends to its own hypervisor, and to another one by way of it."""
    counter = "to_host" if target == "host-a" else "fabric"
    before = dropped(fabric, "host-a", counter)
    forged = ip(PODS["pod-a"], HOSTS[target], IPIP, icmp(PODS["pod-b"], PODS["pod-a"], 8))
    with entered(Twin(fabric.name, print).guest_namespace("pod-a")):
        wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with wire:
        wire.sendto(forged, (HOSTS[target], 0))
    wait_for("the counter of the drop", lambda: dropped(fabric, "host-a", counter) > before, 10)


def test_a_tunnel_device_that_is_gone_is_named_and_restored(fabric: Lab) -> None:
    fabric.run("host-a", "ip link set tunl0 down; ip address flush dev tunl0")
    run = fabric.failing_playbook("playbooks/verify.yml", "--limit", "host-a")
    assert "tunl0" in run.output
    assert "host-a" in fabric.provision("--limit", "host-a")
    fabric.wait_until_converged(120)
    assert "1 received" in ping(fabric, "pod-a", PODS["pod-b"], 56)

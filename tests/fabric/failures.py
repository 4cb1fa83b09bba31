"""Failures of machines and changes by attackers, and the packets and flows that they cost.

A failure begins in a converged fabric (`Lab.converged`) and is repaired at the end of its block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab import Flows, Lab, Traffic, wait_for

BIRD = "/etc/bird/bird.conf"
BEHIND_A_ROUTER = """
table inet behind_a_router {
  chain out {
    type filter hook output priority 0;
    tcp dport 179 ip ttl set 254;
    tcp dport 179 ip6 hoplimit set 254;
  }
}
"""
"""nftables rules that send BGP with the TTL of a host behind a router."""


@contextmanager
def no_loss(fabric: Lab, *flows: Flows) -> Iterator[None]:
    """Assert that flows lose no packet while the block runs, and until the fabric has converged again."""
    fabric.wait_until_converged()
    with fabric.steady_traffic(*flows) as traffic:
        yield
        fabric.wait_until_converged()
    assert traffic.lost() == {}


def traffic_of_cut(
    fabric: Lab, machine: str, path: str, *flows: Flows, seconds: float, each: int = 32
) -> Traffic:
    """Cut a path of a machine silently under traffic, heal it, and return the traffic during the cut."""
    fabric.wait_until_converged()
    try:
        with fabric.traffic(*flows, seconds=seconds, each=each) as traffic:
            fabric.twin("cut", machine, path)
    finally:
        fabric.twin("heal", machine, path)
    print(f"\ncut {machine} {path}: {traffic.outages_ms()}")
    return traffic


def traffic_of_kill(
    fabric: Lab, machine: str, program: str, *flows: Flows, seconds: float, each: int = 32
) -> Traffic:
    """Kill a routing program of a machine under traffic, and return the traffic."""
    fabric.wait_until_converged()
    with fabric.traffic(*flows, seconds=seconds, each=each) as traffic:
        fabric.twin("kill", machine, program)
    print(f"\nkill {machine} {program}: {traffic.lost()}")
    return traffic


@contextmanager
def stopped_bird(fabric: Lab, machine: str) -> Iterator[None]:
    """Stop a machine's BIRD while the block runs: its neighbours keep its routes as stale ones."""
    fabric.wait_until_converged()
    fabric.run(machine, "systemctl stop bird")
    try:
        yield
    finally:
        fabric.run(machine, "systemctl start bird")
        fabric.wait_until_converged()


@contextmanager
def behind_a_router(fabric: Lab, machine: str) -> Iterator[None]:
    """Let a machine send BGP with a TTL of 254 while the block runs, and restart its sessions."""
    fabric.wait_until_converged()
    fabric.run(machine, f"nft -f - <<'EOF'\n{BEHIND_A_ROUTER}\nEOF")
    try:
        fabric.run(machine, "birdc restart all")
        yield
    finally:
        fabric.run(machine, "nft delete table inet behind_a_router")
        fabric.wait_until_converged()


@contextmanager
def edited_bird(fabric: Lab, machine: str, *edits: str) -> Iterator[None]:
    """Edit a machine's BIRD configuration as an attacker, and restore it afterwards."""
    fabric.run(machine, f"cp -p {BIRD} {BIRD}.kept")
    try:
        for edit in edits:
            fabric.run(machine, f"sed -i '{edit}' {BIRD}")
        fabric.run(machine, f"! cmp -s {BIRD} {BIRD}.kept && birdc configure")
        yield
    finally:
        fabric.run(machine, f"mv {BIRD}.kept {BIRD} && birdc configure")


def assert_forgery_is_refused(fabric: Lab, judge: str, table: str, session: str) -> None:
    """Let hv3 announce the address of vm1, a guest of hv1, and check that ``judge`` refuses it.

    ``session`` is the session of ``judge`` with hv3, and ``table`` the BIRD table of its routes.
    """
    forged = (
        "/^function announce_public4/a if net = 203.0.113.1/32 then accept;",
        "$a protocol static forged { ipv4 { table public4; }; route 203.0.113.1/32 blackhole; }",
    )
    fabric.wait_until_converged()
    had = fabric.run("hv2", "ip route show table public 203.0.113.1")
    with edited_bird(fabric, "hv3", *forged):
        refused = f"birdc show route filtered 203.0.113.1/32 table {table}"
        wait_for("the refusal", lambda: session in fabric.run(judge, f"{refused} || true"), 20)
        assert fabric.run("hv2", "ip route show table public 203.0.113.1") == had
        assert fabric.reached("vm3", ["203.0.113.1"]) == {"203.0.113.1"}
    fabric.wait_until_converged()

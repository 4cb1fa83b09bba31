"""The routing daemons: which system has which, in what version, and what that version has to be told."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.addressing import FAMILIES
from l3hv.model import Daemon, DaemonName, Family, Program, System

SYSTEM_NAMES: dict[System, str] = {"debian12": "Debian 12", "debian13": "Debian 13"}

PLANNED_DAEMONS = ("frr", "gobgp", "junos")
"""Routing daemons that have a name already, but no configuration."""

_BUILT = (
    Daemon(
        "bird1",
        "debian12",
        package="bird",
        version="1.6.8",
        device_scan_s=1,
        kernel_scan_s=10,
        asks_for_authentication=False,
    ),
    # BIRD before 2.14 goes to sleep, for 3 s at most, with work that a timer has left to be done, such as to
    # mark routes as stale. Any timer wakes it up; the cheapest is the one that looks at the interfaces.
    Daemon(
        "bird2",
        "debian12",
        package="bird2",
        version="2.0.12",
        device_scan_s=1,
        kernel_scan_s=10,
        asks_for_authentication=False,
    ),
    Daemon(
        "bird2",
        "debian13",
        package="bird2",
        version="2.17",
        device_scan_s=10,
        kernel_scan_s=10,
        asks_for_authentication=True,
    ),
    # BIRD 3.1 ends a graceful recovery without telling the kernel protocols: they install at their next scan.
    Daemon(
        "bird3",
        "debian13",
        package="bird3",
        version="3.1",
        device_scan_s=10,
        kernel_scan_s=2,
        asks_for_authentication=True,
    ),
)
DAEMONS: dict[tuple[DaemonName, System], Daemon] = {(daemon.name, daemon.system): daemon for daemon in _BUILT}

PER_FAMILY: frozenset[DaemonName] = frozenset({"bird1"})
"""Daemons that are a process for each family, so that none of their sessions can carry both."""

SLEEPY = frozenset({"1.6.8", "2.0.12"})
"""Versions that finish late what a timer has left to be done."""


def systems_with(daemon: DaemonName) -> list[System]:
    """Return the systems that have a daemon.

    >>> systems_with("bird3")
    ['debian13']
    """
    return [system for name, system in DAEMONS if name == daemon]


def programs(daemon: DaemonName, families: Iterable[Family]) -> tuple[Program, ...]:
    """Return the processes of a daemon on a host that routes these families.

    >>> [program.name for program in programs("bird1", ["ipv4", "ipv6"])]
    ['bird', 'bird6']
    """
    wanted = set(families)
    used = tuple(family for family in FAMILIES if family in wanted)
    if daemon not in PER_FAMILY:
        return (Program("bird", "birdc", used),)
    return tuple(_PROGRAMS[family] for family in used)


_PROGRAMS: dict[Family, Program] = {
    "ipv4": Program("bird", "birdc", ("ipv4",)),
    "ipv6": Program("bird6", "birdc6", ("ipv6",)),
}

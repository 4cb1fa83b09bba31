"""The routing daemons: which system has which, in what version, and what that version has to be told."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.addressing import FAMILIES
from l3hv.model import Daemon, DaemonName, Family, Program, System

SYSTEM_NAMES: dict[System, str] = {"debian12": "Debian 12", "debian13": "Debian 13", "junos": "Junos"}

_BUILT = (
    Daemon(
        "bird1",
        "debian12",
        package="bird",
        version="1.6.8",
        device_scan_s=1,
        kernel_scan_s=10,
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
    ),
    Daemon(
        "bird2",
        "debian13",
        package="bird2",
        version="2.17",
        device_scan_s=10,
        kernel_scan_s=10,
        asks_for_authentication=True,
        bounds_restart=True,
        reading_socket="restrict",
    ),
    Daemon(
        "bird3",
        "debian13",
        package="bird3",
        version="3.1",
        device_scan_s=10,
        kernel_scan_s=30,  # bird31-routes asks for a scan after each change
        asks_for_authentication=True,
        bounds_restart=True,
        reading_socket="restrict;",
    ),
    Daemon("frr", "debian12", package="frr", version="8.4"),
    Daemon("frr", "debian13", package="frr", version="10.3"),
    Daemon("gobgp", "debian12", package="gobgpd", version="3.10"),
    # 3.36 serves figures to everybody on the host unless it is told not to; 3.10 does not know the option.
    Daemon("gobgp", "debian13", package="gobgpd", version="3.36", options=("--metrics-path=",)),
    # What is rendered is in the grammar of this version; nothing is installed.
    Daemon("junos", "junos", package="", version="24.4"),
)
DAEMONS: dict[tuple[DaemonName, System], Daemon] = {(daemon.name, daemon.system): daemon for daemon in _BUILT}

TITLES: dict[DaemonName, str] = {
    "bird1": "BIRD",
    "bird2": "BIRD",
    "bird3": "BIRD",
    "frr": "FRR",
    "gobgp": "GoBGP",
    "junos": "Junos",
}
"""What people call them."""

UNITS: dict[DaemonName, str] = {"frr": "frr.service", "gobgp": "l3hv-gobgp-{domain}.service"}
"""The units of those that are no BIRD; where one cannot keep domains apart it runs once for each."""

REFLECTORS_ONLY: frozenset[DaemonName] = frozenset({"frr", "gobgp", "junos"})
"""Daemons that reflect, and are not made to put routes into the kernel's tables.

They keep domains apart by an instance for each: no session carries several.
"""

PER_FAMILY: frozenset[DaemonName] = frozenset({"bird1"})
"""Daemons that are a process for each family, so that none of their sessions can carry both."""

WITHOUT_BFD: frozenset[DaemonName] = frozenset({"gobgp"})
"""Daemons that have no BFD: nothing but the hold time shows them that a neighbour is gone."""

VALIDATING: frozenset[DaemonName] = frozenset({"bird2", "bird3", "frr", "gobgp", "junos"})
"""Daemons that are told whose the guests' prefixes are."""

WITH_OWNERS: frozenset[DaemonName] = frozenset({"bird2", "bird3"})
"""Of these, those that have a table of owners to ask (RFC 6482); the others get a list for each neighbour."""

WITHOUT_RANGES: frozenset[DaemonName] = frozenset({"junos"})
"""Daemons that are given their neighbours one by one: they take no clients from a range."""

WITHOUT_KEYS: frozenset[DaemonName] = frozenset({"junos"})
"""Daemons that get no keys: whoever sees what changes in their configuration would see them."""

KEYS_WITHOUT_SPACES: frozenset[DaemonName] = frozenset({"frr"})
"""Daemons that take a secret to be one word."""

ECHOING: frozenset[DaemonName] = frozenset({"frr"})
"""Reflectors that tell clients of one kind the same, what came from themselves included: the client drops it
(RFC 4456, section 8). So how many prefixes are sent to a client depends on the others."""

SLEEPY = frozenset({"1.6.8", "2.0.12"})
"""Versions that finish late what a timer has left to be done."""

WITHOUT_PEER_ADDRESS = frozenset({"3.10"})
"""Versions that can see that a next hop is a neighbour's own only where they know the neighbour."""

WITHOUT_SINGLE_BFD_MISS = frozenset({"8.4"})
"""Versions that do not give a path up after one missed BFD packet (a multiplier of 1)."""

OVERLOOKING = frozenset({"3.1"})
"""Versions that leave a route in the kernel as it is when other paths to its prefix than the best one change.

They see that when they scan the kernel's table, and can be asked to.
"""

DELETING = frozenset({"1.6.8"})
"""Versions that replace a route in the kernel by deleting it and adding it again.

For the moment between, a packet takes the next best route.
"""


def built_daemons() -> list[DaemonName]:
    """Return the daemons that there is a configuration for.

    >>> built_daemons()
    ['bird1', 'bird2', 'bird3', 'frr', 'gobgp', 'junos']
    """
    return list(dict.fromkeys(name for name, _ in DAEMONS))


def systems_with(daemon: DaemonName) -> list[System]:
    """Return the systems that have a daemon.

    >>> systems_with("bird3")
    ['debian13']
    """
    return [system for name, system in DAEMONS if name == daemon]


def programs(daemon: DaemonName, families: Iterable[Family]) -> tuple[Program, ...]:
    """Return the processes of a BIRD on a host that routes these families; other daemons look after theirs.

    >>> [program.name for program in programs("bird1", ["ipv4", "ipv6"])]
    ['bird', 'bird6']
    """
    if daemon in REFLECTORS_ONLY:
        return ()
    wanted = set(families)
    used = tuple(family for family in FAMILIES if family in wanted)
    if daemon not in PER_FAMILY:
        return (Program("bird", "birdc", used),)
    return tuple(_PROGRAMS[family] for family in used)


_PROGRAMS: dict[Family, Program] = {
    "ipv4": Program("bird", "birdc", ("ipv4",)),
    "ipv6": Program("bird6", "birdc6", ("ipv6",)),
}

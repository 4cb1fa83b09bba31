"""The routing daemons: package and version on each system, and the limits of each daemon and version."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.model.addressing import FAMILIES
from l3hv.model.choices import DaemonName, Family, System
from l3hv.model.plan import Daemon, Program

SYSTEM_NAMES: dict[System, str] = {"debian12": "Debian 12", "debian13": "Debian 13", "junos": "Junos"}

_SUPPORTED = (
    Daemon(
        "bird1",
        "debian12",
        package="bird",
        version="1.6.8",
        device_scan_s=1,
        kernel_scan_s=10,
    ),
    # BIRD before 2.14 can sleep for up to 3 s before it finishes work that a timer started, such as marking
    # routes as stale. Any timer wakes it up. The scan of interfaces is the cheapest, so it runs every 1 s.
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
        kernel_scan_s=30,  # the role's program bird31-routes requests further scans
        asks_for_authentication=True,
        bounds_restart=True,
        reading_socket="restrict;",
    ),
    Daemon("frr", "debian12", package="frr", version="8.4"),
    Daemon("frr", "debian13", package="frr", version="10.3"),
    Daemon("gobgp", "debian12", package="gobgpd", version="3.10"),
    # GoBGP 3.36 serves metrics to every user of the host unless this path is empty; 3.10 has no such option.
    Daemon("gobgp", "debian13", package="gobgpd", version="3.36", options=("--metrics-path=",)),
    # l3hv renders the configuration in the grammar of this version and installs no package.
    Daemon("junos", "junos", package="", version="24.4"),
)
DAEMONS: dict[tuple[DaemonName, System], Daemon] = {
    (daemon.name, daemon.system): daemon for daemon in _SUPPORTED
}

TITLES: dict[DaemonName, str] = {
    "bird1": "BIRD",
    "bird2": "BIRD",
    "bird3": "BIRD",
    "frr": "FRR",
    "gobgp": "GoBGP",
    "junos": "Junos",
}
"""The name of each daemon in sentences for operators."""

UNITS: dict[DaemonName, str] = {"frr": "frr.service", "gobgp": "l3hv-gobgp-{domain}.service"}
"""The systemd units of daemons other than BIRD; a daemon that cannot separate domains runs once for each."""

REFLECTORS_ONLY: frozenset[DaemonName] = frozenset({"frr", "gobgp", "junos"})
"""Daemons that l3hv uses only on route reflectors: they export no routes to the kernel's tables.

They separate domains by one instance per domain, so no session carries several domains.
"""

PER_FAMILY: frozenset[DaemonName] = frozenset({"bird1"})
"""Daemons with one process per address family: none of their sessions can carry both families."""

WITHOUT_BFD: frozenset[DaemonName] = frozenset({"gobgp"})
"""Daemons without BFD: they detect a lost neighbour only when the hold time expires."""

VALIDATING: frozenset[DaemonName] = frozenset({"bird2", "bird3", "frr", "gobgp", "junos"})
"""Daemons whose configuration can contain the owner of each guest prefix (strict origin validation)."""

WITH_ROA_TABLES: frozenset[DaemonName] = frozenset({"bird2", "bird3"})
"""Validating daemons with a ROA table (RFC 6482) for owners; the others get a prefix list per neighbour."""

WITHOUT_RANGES: frozenset[DaemonName] = frozenset({"bird1", "junos"})
"""Daemons whose neighbours are configured one by one: BIRD has dynamic neighbours from 2.0.6 on."""

WITHOUT_KEYS: frozenset[DaemonName] = frozenset({"junos"})
"""Daemons that get no keys: every diff of their configuration would show the keys."""

KEYS_WITHOUT_SPACES: frozenset[DaemonName] = frozenset({"frr"})
"""Daemons that read a secret up to the first space."""

ADVERTISING_BACK: frozenset[DaemonName] = frozenset({"frr"})
"""Reflectors that advertise the same routes to all clients of one kind, including each client's own routes.

The client drops its own routes (RFC 4456, section 8).  The number of prefixes that a reflector sends to one
client therefore depends on the other clients.
"""

WITH_IGP: frozenset[DaemonName] = frozenset({"bird2"})
"""Daemons with which the next hops of BGP follow an IGP (``l3hv_underlay: igp``).

BIRD 3.1 leaves the next hops of a dead path in the kernel for seconds.
"""

WITH_LATE_TIMERS = frozenset({"1.6.8", "2.0.12"})
"""Versions that finish work that a timer started up to 3 s late (BIRD before 2.14)."""

WITHOUT_PEER_ADDRESS = frozenset({"3.10"})
"""Versions that can compare a next hop with the neighbour's address only if that address is configured."""

WITHOUT_SINGLE_BFD_MISS = frozenset({"8.4"})
"""Versions that cannot declare a path down after one missed BFD packet (a multiplier of 1)."""

WITHOUT_PATH_UPDATES = frozenset({"3.1"})
"""Versions that do not update a route in the kernel if only a path other than the best path changes.

They update the route at the next scan of the kernel's table, and a scan can be requested.
"""

REPLACING_BY_DELETION = frozenset({"1.6.8"})
"""Versions that replace a route in the kernel by deleting it and adding it again.

Between the two steps, packets follow the next less specific route.
"""


def supported_daemons() -> list[DaemonName]:
    """Return the daemons that l3hv has a configuration for.

    >>> supported_daemons()
    ['bird1', 'bird2', 'bird3', 'frr', 'gobgp', 'junos']
    """
    return list(dict.fromkeys(name for name, _ in DAEMONS))


def systems_with(daemon: DaemonName) -> list[System]:
    """Return the systems that offer ``daemon``.

    >>> systems_with("bird3")
    ['debian13']
    """
    return [system for name, system in DAEMONS if name == daemon]


def programs(daemon: DaemonName, families: Iterable[Family]) -> tuple[Program, ...]:
    """Return the BIRD processes of a host that routes ``families``; none for daemons other than BIRD.

    >>> [program.name for program in programs("bird1", ["ipv4", "ipv6"])]
    ['bird', 'bird6']
    """
    if daemon in REFLECTORS_ONLY:
        return ()
    given = set(families)
    routed = tuple(family for family in FAMILIES if family in given)
    if daemon not in PER_FAMILY:
        return (Program("bird", "birdc", routed),)
    return tuple(_PROGRAMS[family] for family in routed)


_PROGRAMS: dict[Family, Program] = {
    "ipv4": Program("bird", "birdc", ("ipv4",)),
    "ipv6": Program("bird6", "birdc6", ("ipv6",)),
}

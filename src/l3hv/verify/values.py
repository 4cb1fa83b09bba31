"""Values: states that a plan expects and that an observation finds on a host; ``==`` compares them.

Lists whose order has no meaning are sorted.  :mod:`l3hv.verify.report.words` puts values into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, TypeVar

from l3hv.model.choices import DaemonName, LimitAction

T = TypeVar("T")


class Unread(Enum):
    """The reason why no value was read."""

    NOT_IN_KERNEL = auto()
    OF_THE_MACHINE = auto()
    """The setting belongs to the whole machine, and is not visible in a container."""
    NO_PING = auto()
    """The far end of a path does not have to answer pings."""
    NO_REPLY = auto()


class Presence(Enum):
    """The presence of a guest on its hypervisor: its interface is there or not, or has no carrier."""

    PRESENT = auto()
    ABSENT = auto()
    WITHOUT_CARRIER = auto()


@dataclass(frozen=True)
class AtLeast:
    """A number that may be larger."""

    count: int


@dataclass(frozen=True)
class UnitState:
    """The state of a unit; ``at_boot`` is ``None`` if it is not installed.

    ``silence`` is the reason if the daemon does not answer.
    """

    active: str
    at_boot: str | None
    silence: str | None = None


@dataclass(frozen=True)
class UnitSettings:
    """Settings of a unit, each with its words in order; ``drop_ins`` are files that are not from l3hv."""

    settings: tuple[tuple[str, tuple[str, ...]], ...]
    drop_ins: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> UnitSettings:
        """Return settings as systemd has them, in which the order of words has no meaning.

        >>> UnitSettings.of({"CapabilityBoundingSet": "CAP_NET_RAW CAP_NET_ADMIN"}).settings
        (('CapabilityBoundingSet', ('CAP_NET_ADMIN', 'CAP_NET_RAW')),)
        """
        return cls(tuple((key, tuple(sorted(settings[key].split()))) for key in sorted(settings)))


Listeners = tuple[str, ...]
"""The ports that a unit listens on."""

ListenersOfUnits = tuple[tuple[str, Listeners], ...]


@dataclass(frozen=True)
class Link:
    """The state of an interface; ``parent`` carries its ``vlan``, ``master`` is its bridge, bond or VRF."""

    state: Literal["up", "no carrier", "down"]
    mtu: int
    vlan: int | None = None
    parent: str | None = None
    master: str | None = None


@dataclass(frozen=True)
class Addresses:
    """The addresses of an interface, IPv4 first; ``trouble`` are pairs of an address and its fault."""

    addresses: tuple[str, ...]
    trouble: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, addresses: Iterable[str], trouble: Iterable[tuple[str, str]] = ()) -> Addresses:
        """Return addresses in their order.

        >>> Addresses.of(["fe80::1/64", "203.0.113.254/32"]).addresses
        ('203.0.113.254/32', 'fe80::1/64')
        """
        in_order = sorted(addresses, key=lambda address: (":" in address, address))
        return cls(tuple(in_order), tuple(sorted(set(trouble))))


@dataclass(frozen=True)
class StrayPort:
    """An interface that has the MAC or an address of a guest port, but is not in the plan."""

    mac: str
    addresses: Addresses


VRF_TABLE = "[l3mdev-table]"
"""The table of the rule of VRFs, as ip-rule(8) prints it: that of the packet's VRF.

``observe/kernel.py`` and ``tables-sync`` have the same name: they run on the host, without this package."""


@dataclass(frozen=True)
class PolicyRule:
    """A policy rule of the kernel. ``action`` is ``lookup`` (in ``table``) or another one.

    ``mark`` is a value and a mask, ``source_port`` a port or ``FIRST-LAST``.
    """

    priority: int
    action: str
    table: str | None = None
    iif: str | None = None
    source: str | None = None
    destination: str | None = None
    mark: tuple[int, int] | None = None
    ip_protocol: int | None = None
    source_port: str | None = None
    suppress_prefixlength: int | None = None
    oif: str | None = None
    inverted: bool = False


@dataclass(frozen=True)
class Hop:
    """One next hop of a route of the kernel."""

    via: str | None
    device: str | None


@dataclass(frozen=True)
class KernelRoute:
    """A route of the kernel without its prefix; ``type`` is ``unicast`` for a route with next hops.

    ``maker`` is the number of the routing protocol that made it (rt_protos).
    """

    type: str
    hops: tuple[Hop, ...]
    maker: int
    metric: int
    prefsrc: str | None


KernelRoutes = tuple[KernelRoute, ...]


def in_order(values: Iterable[T]) -> tuple[T, ...]:
    """Return routes or next hops in an order that depends only on their values."""
    several = tuple(values)
    return tuple(sorted(several, key=repr)) if len(several) > 1 else several


@dataclass(frozen=True)
class Destination:
    """The destination of a default route: its next hops, or its type if it has none."""

    type: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class LearnedHops:
    """The next hops of a learned route; with ``most`` the route has only that number of them."""

    hops: tuple[str, ...]
    most: int | None = None


@dataclass(frozen=True)
class Learned:
    """All learned routes of one table: their number, and the first 16 digits of their digest.

    ``attributes`` have the form of an observation, each with the number of its routes, or ``None`` if all
    routes have it. ``misdirected`` are routes over an interface that does not lead to their next hop.
    """

    count: int
    digest: str
    attributes: tuple[tuple[str, int | None], ...]
    misdirected: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilterState:
    """The packet filter: whether it is loaded, why it was not read, and its differences from its file."""

    loaded: bool = True
    unread: str | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetDifference:
    """The missing and the surplus elements of a set of the packet filter."""

    lacks: tuple[str, ...] = ()
    too_much: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drops:
    """The packets that another program's chain drops in ``hook``; a rule for all packets has ``verdict``."""

    hook: str
    extent: Literal["unaccepted", "everything", "ports", "some", "unread"]
    verdict: str | None = None


class FlowName(Enum):
    """The packets that rules of other programs must not rewrite."""

    FROM_GUESTS = auto()
    TO_GUESTS = auto()
    RECEIVED_BGP = auto()
    SENT_BGP = auto()


Condition = tuple[str, str, tuple[str, ...]]
"""A condition of a rule: a key, an operator and values."""


@dataclass(frozen=True)
class OtherRule:
    """The understood part of another program's rule in the packet filter.

    ``asks_unknown`` is true if it has further conditions.
    """

    interfaces: tuple[Condition, ...]
    selects: tuple[Condition, ...]
    asks_unknown: bool
    verdict: str


@dataclass(frozen=True)
class Rewrite:
    """A rule of another program that rewrites packets in ``hook``.

    ``chain`` is the chain that contains it, if that is reached by a jump.
    """

    flow: FlowName
    hook: str
    chain: str | None
    rule: OtherRule


@dataclass(frozen=True)
class Rewrites:
    """The rules of another program's base chain that rewrite packets; rules that certainly do come first."""

    rules: tuple[Rewrite, ...]


Effects = tuple[Drops | Rewrites, ...]
"""The effects of another program's base chain on packets of the fabric."""


@dataclass(frozen=True)
class SeenMac:
    """A MAC behind a guest's port; ``own_dropped`` is true if the filter drops the guest's own MAC."""

    mac: str
    own_dropped: bool = False


class Configuration(Enum):
    """The state of a configuration that needs no further facts."""

    INTENDED = auto()
    WITHOUT_DIGEST = auto()
    NO_FILE = auto()


@dataclass(frozen=True)
class ChangedFile:
    """A configuration file that was changed after it was placed.

    ``running`` is the digest of the configuration that the daemon runs.
    """

    running: str | None


@dataclass(frozen=True)
class OtherRunning:
    """A daemon that runs another configuration (``running``) than the ``placed`` file, both as digests."""

    running: str | None
    placed: str


@dataclass(frozen=True)
class NoAnswer:
    """A routing daemon that does not answer, and the error of the question."""

    daemon: DaemonName
    error: str


ESTABLISHED = "Established"
"""The state of a BGP session that is up (RFC 4271)."""


@dataclass(frozen=True)
class SessionState:
    """The state of a BGP session: both addresses if it is established, else the reason, if known."""

    state: str
    local: str | None = None
    neighbor: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class BfdState:
    """The state of a BFD session, with interval and multiplier if it is up.

    ``bgp_up`` is true if it is down although the BGP session is up.
    """

    state: str
    interval_ms: int | None = None
    multiplier: int | None = None
    bgp_up: bool = False


@dataclass(frozen=True)
class Prefixes:
    """The number of prefixes on a session, and the number of refused ones."""

    count: int
    refused: int = 0


@dataclass(frozen=True)
class Limit:
    """A reached prefix limit in the daemon's words, and the reaction to more prefixes."""

    text: str
    action: LimitAction | None


@dataclass(frozen=True)
class Refused:
    """A refused announcement; ``why`` is the sentence of the refusal, ``None`` if it is not known."""

    why: str | None


@dataclass(frozen=True)
class Lease:
    """The offer of DHCP. ``routes`` are pairs of a prefix and a gateway."""

    address: str
    netmask: str | None
    gateway: str | None
    mtu: int | None
    dns: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LeasedAddress:
    """The address that a DHCP server elsewhere offers; its other options are not in the plan."""

    address: str


@dataclass(frozen=True)
class Advertisement:
    """The offer of a router advertisement.

    ``prefixes`` are pairs of a prefix for SLAAC and whether it is on link.  ``router`` is true if the sender
    is a default router (its lifetime is not 0).
    """

    prefixes: tuple[tuple[str, bool], ...]
    mac: str | None
    mtu: int | None
    dns: tuple[str, ...]
    router: bool = True


Value = (
    bool
    | int
    | str
    | Unread
    | Presence
    | AtLeast
    | UnitState
    | UnitSettings
    | Listeners
    | ListenersOfUnits
    | Link
    | Addresses
    | StrayPort
    | tuple[PolicyRule, ...]
    | KernelRoutes
    | tuple[Destination, ...]
    | LearnedHops
    | Learned
    | FilterState
    | SetDifference
    | Effects
    | tuple[SeenMac, ...]
    | Configuration
    | ChangedFile
    | OtherRunning
    | NoAnswer
    | SessionState
    | BfdState
    | Prefixes
    | Limit
    | Refused
    | Lease
    | LeasedAddress
    | Advertisement
)

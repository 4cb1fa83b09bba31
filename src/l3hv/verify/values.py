"""Values: the states of things on a host that a plan expects and an observation finds, compared with ``==``.

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
    """The state of a unit: ``at_boot`` is ``None`` where it is not installed.

    ``silence`` is the reason where the daemon gives no answer.
    """

    active: str
    at_boot: str | None
    silence: str | None = None


@dataclass(frozen=True)
class UnitSettings:
    """Settings of a unit, each with its words in order; ``drop_ins`` are the files of others."""

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
    """The state of an interface; ``vlan`` is on ``parent``, ``master`` is its bridge or bond."""

    state: Literal["up", "no carrier", "down"]
    mtu: int
    vlan: int | None = None
    parent: str | None = None
    master: str | None = None


@dataclass(frozen=True)
class Addresses:
    """The addresses of an interface, IPv4 first; ``trouble`` pairs some of them with what is wrong."""

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
    """An interface that looks like a guest's port and is none in the plan."""

    mac: str
    addresses: Addresses


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
    """A route of the kernel without its prefix: ``type`` is ``unicast`` where it has next hops.

    ``maker`` is the number of the routing protocol that made it (rt_protos).
    """

    type: str
    hops: tuple[Hop, ...]
    maker: int
    metric: int
    prefsrc: str | None


KernelRoutes = tuple[KernelRoute, ...]


def in_order(values: Iterable[T]) -> tuple[T, ...]:
    """Return routes or next hops in an order that does not depend on where they were read."""
    several = tuple(values)
    return tuple(sorted(several, key=repr)) if len(several) > 1 else several


@dataclass(frozen=True)
class Destination:
    """The destination of a default route: its next hops, or its type where it has none."""

    type: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class LearnedHops:
    """The next hops of a learned route; ``most``: of more than these it has so many."""

    hops: tuple[str, ...]
    most: int | None = None


@dataclass(frozen=True)
class Learned:
    """All learned routes of one table: their number, and the first 16 digits of their digest.

    ``attributes`` are as the observation has them, each with the number of its routes where it is not that
    of all. ``misdirected`` are routes over an interface that does not lead to their next hop.
    """

    count: int
    digest: str
    attributes: tuple[tuple[str, int | None], ...]
    misdirected: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilterState:
    """The packet filter: whether it is there, why it was not read, and in what it differs from its file."""

    loaded: bool = True
    unread: str | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetDifference:
    """The elements that a set of the packet filter lacks, and those that are too much in it."""

    lacks: tuple[str, ...] = ()
    too_much: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drops:
    """The packets that a chain of others drops in ``hook``; ``verdict`` is that of a rule for all packets."""

    hook: str
    extent: Literal["unaccepted", "everything", "ports", "some", "unread"]
    verdict: str | None = None


class FlowName(Enum):
    """The packets that rules of others must leave as they are."""

    FROM_GUESTS = auto()
    TO_GUESTS = auto()
    RECEIVED_BGP = auto()
    SENT_BGP = auto()


Condition = tuple[str, str, tuple[str, ...]]
"""A key, an operator and the values that a rule of others asks for."""


@dataclass(frozen=True)
class OtherRule:
    """A rule of others in the packet filter, as far as it is understood."""

    interfaces: tuple[Condition, ...]
    selects: tuple[Condition, ...]
    asks_unknown: bool
    verdict: str


@dataclass(frozen=True)
class Rewrite:
    """A rule of others that rewrites packets in ``hook``; ``chain`` is the one that it was jumped to."""

    flow: FlowName
    hook: str
    chain: str | None
    rule: OtherRule


@dataclass(frozen=True)
class Rewrites:
    """The rules of a base chain of others that rewrite packets, those that surely do first."""

    rules: tuple[Rewrite, ...]


Effects = tuple[Drops | Rewrites, ...]
"""The effects of a base chain of others on packets of the fabric."""


@dataclass(frozen=True)
class SeenMac:
    """A MAC behind a guest's port; ``own_dropped`` where it is the guest's and the filter drops it."""

    mac: str
    own_dropped: bool = False


class Configuration(Enum):
    """The state of a configuration that nothing more is known of."""

    INTENDED = auto()
    WITHOUT_DIGEST = auto()
    NO_FILE = auto()


@dataclass(frozen=True)
class ChangedFile:
    """A configuration file that was changed after it was placed; ``running`` is what the daemon runs."""

    running: str | None


@dataclass(frozen=True)
class OtherRunning:
    """A daemon that runs something else (``running``) than the file that was ``placed``."""

    running: str | None
    placed: str


@dataclass(frozen=True)
class NoAnswer:
    """A routing daemon that gives no answer."""

    daemon: DaemonName
    error: str


ESTABLISHED = "Established"
"""The state of a BGP session that is up (RFC 4271)."""


@dataclass(frozen=True)
class SessionState:
    """The state of a BGP session: both addresses where it is established, otherwise the reason if known."""

    state: str
    local: str | None = None
    neighbor: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class BfdState:
    """The state of a BFD session: interval and multiplier where it is up.

    ``bgp_up``: it is down, and the BGP session beside it is not.
    """

    state: str
    interval_ms: int | None = None
    multiplier: int | None = None
    bgp_up: bool = False


@dataclass(frozen=True)
class Prefixes:
    """The prefixes on a session, and how many of others were refused."""

    count: int
    refused: int = 0


@dataclass(frozen=True)
class Limit:
    """A limit of prefixes that is reached, in the daemon's words, and what it does about more."""

    text: str
    action: LimitAction | None


@dataclass(frozen=True)
class Refused:
    """An announcement that was refused; ``why`` is a refusal's sentence, ``None`` where it is not known."""

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
class Advertisement:
    """The offer of a router advertisement.

    ``prefixes`` are those that guests make addresses of, each with whether it is on link; ``router``:
    it has a lifetime as a default router.
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
    | Advertisement
)

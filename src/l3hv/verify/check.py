"""Checks: comparisons of an expected value with the value that was found on a host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal, NamedTuple

from l3hv.model.choices import DaemonName
from l3hv.verify.subjects import Subject
from l3hv.verify.values import Value

State = Literal["ok", "warning", "failed"]


class Kind(StrEnum):
    """The kinds of checks: each compares one property of its subject (docs/verification.md)."""

    SESSION = auto()
    PATH = auto()
    UNKNOWN_CALLER = auto()
    BFD = auto()
    IGP_NEIGHBORS = auto()
    RECEIVED = auto()
    SENT = auto()
    ANNOUNCEMENT = auto()
    LIMIT = auto()
    LEARNED = auto()
    ROUTE = auto()
    MORE_ROUTES = auto()
    LAST_RESORT = auto()
    DEFAULT_ROUTE = auto()
    RULES = auto()
    FOREIGN_RULES = auto()
    FOREIGN_CHAIN = auto()
    FOREIGN_TABLE = auto()
    PACKET_FILTER = auto()
    CHAIN = auto()
    SET = auto()
    DROPS = auto()
    SYSCTL = auto()
    UNIT = auto()
    UNIT_SETTINGS = auto()
    LISTENERS = auto()
    OTHER_LISTENERS = auto()
    CONFIGURATION = auto()
    SERVICE_CONFIGURATION = auto()
    ROUTER_ID = auto()
    LINK = auto()
    SIZE = auto()
    NETWORKD = auto()
    ADDRESSES = auto()
    LOOPBACK = auto()
    GUEST = auto()
    PORT_LINK = auto()
    PORT_MAC = auto()
    PORT_ADDRESSES = auto()
    PORT_SETTING = auto()
    STRAY_PORT = auto()
    MAC = auto()
    NEIGHBOR = auto()
    TRANSLATION = auto()
    LEASE = auto()
    ADVERTISEMENT = auto()
    PING = auto()
    SILENCE = auto()
    GUEST_ADDRESS = auto()
    OBSERVATION = auto()


class Key(NamedTuple):
    """The identity of a check on its host."""

    kind: Kind
    subject: Subject


@dataclass(frozen=True)
class Unanswered:
    """The daemon of ``unit`` does not answer."""

    unit: str


@dataclass(frozen=True)
class OfUnseenGuests:
    """Guests of hosts that were not observed can explain the difference."""


@dataclass(frozen=True)
class AnnouncedBy:
    """The hosts that advertise a learned route.

    ``unseen`` is true if guests of hosts that were not observed can explain the difference.
    """

    owners: tuple[str, ...]
    unseen: bool


@dataclass(frozen=True)
class SentTo:
    """The address that a ping was sent to."""

    address: str


@dataclass(frozen=True)
class InTwin:
    """The twin that a guest runs in."""

    twin: str


Context = Unanswered | OfUnseenGuests | AnnouncedBy | SentTo | InTwin
"""A further fact about a check, which its remedy depends on."""


@dataclass(frozen=True)
class Check:
    """One comparison: ``kind`` and ``subject`` are unique on the host.

    ``expected`` is ``None`` if no plan expects the subject, ``found`` if the host does not have it.  A
    ``warning`` is a difference that is no error: a guest that was not started has no routes.  ``daemon`` is
    the host's routing daemon, ``None`` for a check that does not depend on it.
    """

    host: str
    kind: Kind
    subject: Subject
    expected: Value | None
    found: Value | None
    state: State
    daemon: DaemonName | None = None
    context: Context | None = None

    @property
    def passes(self) -> bool:
        """Whether the verification succeeds with this result: a warning passes, too."""
        return self.state != "failed"

    @property
    def key(self) -> Key:
        return Key(self.kind, self.subject)


def failures(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that make a verification fail."""
    return [check for check in checks if not check.passes]

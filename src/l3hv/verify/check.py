"""One thing that was expected of a host, and what was found."""

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
    STRANGER = auto()
    BFD = auto()
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
    """The daemon of ``unit`` gives no answer."""

    unit: str


@dataclass(frozen=True)
class OfUnseenGuests:
    """Guests of hosts that were not looked at can explain the difference."""


@dataclass(frozen=True)
class AnnouncedBy:
    """The hosts that announce a learned route; ``unseen`` where unseen guests can explain it."""

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
"""A fact beside the comparison that the remedy of a check depends on."""


@dataclass(frozen=True)
class Check:
    """One comparison: ``kind`` and ``subject`` are unique on the host.

    ``expected`` or ``found`` is ``None`` where there is nothing. A ``warning`` is a difference that is no
    error: a guest that is not started has no routes. ``daemon`` is the host's routing
    daemon, ``None`` where nothing of it is compared.
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
    def ok(self) -> bool:
        return self.state != "failed"

    @property
    def key(self) -> Key:
        return Key(self.kind, self.subject)


def failures(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that make a verification fail."""
    return [check for check in checks if not check.ok]

"""The name of each kind of check in reports, its topic, and the text of its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from l3hv.verify import subjects
from l3hv.verify.check import Kind
from l3hv.verify.report import words
from l3hv.verify.subjects import Subject
from l3hv.verify.values import Value


@dataclass(frozen=True)
class Wording:
    """The words for checks of one kind.

    ``name`` is a format with the subject's fields, or a function of the subject. ``value`` returns a value of
    this kind as text.
    """

    topic: str
    name: str | Callable[[Any], str]
    value: Callable[[Any], str]


def _bfd(subject: subjects.Bfd | subjects.Address) -> str:
    if isinstance(subject, subjects.Address):
        return f"bfd {subject.address}"
    family = f" {subject.family}" if subject.family is not None else ""
    return f"bfd {subject.peer} {subject.path} {subject.domain}{family}"


def _announcement(subject: subjects.Announcement) -> str:
    domain = f" {subject.domain}" if subject.domain is not None else ""
    return f"announcement {subject.announcer}{domain} {subject.prefix}"


def _last_resort(subject: subjects.LastResort) -> str:
    part = "" if subject.prefix == "default" else f" for {subject.prefix}"
    return f"last resort of {subject.table} {subject.family}{part}"


def _set(subject: subjects.FilterSet) -> str:
    """Return the name of a set; sets of ``table inet l3hv`` are named without the family."""
    return f"set {subject.name.removeprefix('inet ')}"


WORDING: dict[Kind, Wording] = {
    Kind.SESSION: Wording("sessions", "session {name}", words.session),
    Kind.PATH: Wording("sessions", "path {path} has a session for {domain}", words.yes_or_no),
    Kind.UNKNOWN_CALLER: Wording("sessions", "stranger {address}", words.calls),
    Kind.BFD: Wording("bfd", _bfd, words.bfd),
    Kind.IGP_NEIGHBORS: Wording("bfd", "igp {path} {domain} {family}", words.igp_neighbors),
    Kind.RECEIVED: Wording("prefixes", "received {session} {family}", words.prefixes),
    Kind.SENT: Wording("prefixes", "sent {session} {family}", words.prefixes),
    Kind.ANNOUNCEMENT: Wording("prefixes", _announcement, words.refused),
    Kind.LIMIT: Wording("prefixes", "limit {session} {family}", words.limit),
    Kind.LEARNED: Wording("routes", "learned routes in {domain} {family}", words.learned),
    Kind.ROUTE: Wording("routes", "route {prefix} in {table}", words.routes),
    Kind.MORE_ROUTES: Wording("routes", "more routes in {domain} {family}", words.more_routes),
    Kind.LAST_RESORT: Wording("routes", _last_resort, words.routes),
    Kind.DEFAULT_ROUTE: Wording("routes", "default route in main {family}", words.default_routes),
    Kind.RULES: Wording("rules", "rules {family}", words.rules),
    Kind.FOREIGN_RULES: Wording("rules", "foreign rules {family}", words.rules),
    Kind.FOREIGN_CHAIN: Wording("rules", "foreign chain {family} {table} {chain}", words.effects),
    Kind.FOREIGN_TABLE: Wording("rules", "foreign nftables {family} {table}", words.plain_text),
    Kind.PACKET_FILTER: Wording("filter", "packet filter", words.filter_state),
    Kind.CHAIN: Wording("filter", "chain {family} {table} {chain}", words.effects),
    Kind.SET: Wording("filter", _set, words.set_difference),
    Kind.DROPS: Wording("filter", "drops {name}", words.dropped),
    Kind.SYSCTL: Wording("sysctls", "sysctl {key}", words.setting),
    Kind.UNIT: Wording("units", "unit {name}", words.unit_state),
    Kind.UNIT_SETTINGS: Wording("units", "unit {name} settings", words.unit_settings),
    Kind.LISTENERS: Wording("units", "listeners {name}", words.listeners),
    Kind.OTHER_LISTENERS: Wording("units", "listeners of others", words.listeners_of_units),
    Kind.CONFIGURATION: Wording("configuration", "running configuration", words.configuration),
    Kind.SERVICE_CONFIGURATION: Wording("configuration", "configuration of {name}", words.difference),
    Kind.ROUTER_ID: Wording("configuration", "router id", words.plain_text),
    Kind.LINK: Wording("links", "link {name}", words.link),
    Kind.SIZE: Wording("links", "size {path} to {peer} {domain} {family}", words.size),
    Kind.NETWORKD: Wording("links", "networkd {name}", words.plain_text),
    Kind.ADDRESSES: Wording("links", "addresses {name}", words.addresses),
    Kind.LOOPBACK: Wording("links", "loopback {address}", words.on_loopback),
    Kind.GUEST: Wording("ports", "guest {name}", words.presence),
    Kind.PORT_LINK: Wording("ports", "port {name} link", words.link),
    Kind.PORT_MAC: Wording("ports", "port {name} mac", words.plain_text),
    Kind.PORT_ADDRESSES: Wording("ports", "port {name} addresses", words.addresses),
    Kind.PORT_SETTING: Wording("ports", "port {guest} {family} {setting}", words.plain_text),
    Kind.STRAY_PORT: Wording("ports", "port {name}", words.stray_port),
    Kind.MAC: Wording("ports", "mac {name}", words.macs),
    Kind.NEIGHBOR: Wording("ports", "neighbor {guest} {address}", words.permanent_neighbor),
    Kind.TRANSLATION: Wording("ports", "translation {address}", words.translation),
    Kind.LEASE: Wording("offers", "lease {name}", words.lease),
    Kind.ADVERTISEMENT: Wording("offers", "ra {name}", words.advertisement),
    Kind.PING: Wording("packets", "ping {source} → {target} {family}", words.answer),
    Kind.SILENCE: Wording("packets", "silence {source} → {target} {family}", words.answer),
    Kind.GUEST_ADDRESS: Wording("packets", "address {guest} {family}", words.held),
    Kind.OBSERVATION: Wording("observation", "observation", words.plain_text),
}

TOPICS = tuple(dict.fromkeys(wording.topic for wording in WORDING.values()))
"""The headings under which checks are counted, in the order in which they are shown."""


def name_of(kind: Kind, subject: Subject) -> str:
    """Return the name of a check, which is unique on a host; scripts depend on it.

    >>> name_of(Kind.ROUTE, subjects.Route("203.0.113.3/32", "public"))
    'route 203.0.113.3/32 in public'
    """
    name = WORDING[kind].name
    return name.format(**vars(subject)) if isinstance(name, str) else name(subject)


def value_in_words(kind: Kind, value: Value | None) -> str:
    """Return a value of a check of this kind as text."""
    return words.NOTHING if value is None else WORDING[kind].value(value)

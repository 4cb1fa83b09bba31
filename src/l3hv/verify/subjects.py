"""Subjects of checks: things of a host, each with the fields that identify it."""

from __future__ import annotations

from dataclasses import dataclass

from l3hv.model.choices import Family


@dataclass(frozen=True)
class Host:
    """The host itself, for kinds of checks that a host has once."""


@dataclass(frozen=True)
class Unit:
    """A unit of systemd; the name of a service is without its suffix."""

    name: str


@dataclass(frozen=True)
class Interface:
    """A network interface."""

    name: str


@dataclass(frozen=True)
class Address:
    """An address or a prefix of this host, or the address of another router."""

    address: str


@dataclass(frozen=True)
class InFamily:
    """The part of the host's network in one address family."""

    family: Family


@dataclass(frozen=True)
class Table:
    """The routes of a domain (or of local-out) in one family."""

    domain: str
    family: Family


@dataclass(frozen=True)
class Route:
    """The routes to one prefix in the kernel table ``table``."""

    prefix: str
    table: str


@dataclass(frozen=True)
class LastResort:
    """The route that ends a table, or the part of it in ``prefix``."""

    table: str
    family: Family
    prefix: str


@dataclass(frozen=True)
class FilterSet:
    """A set of the packet filter; ``name`` has its table's family and its own name (``inet macs``)."""

    name: str


@dataclass(frozen=True)
class Counter:
    """A counter of packets that the packet filter drops."""

    name: str


@dataclass(frozen=True)
class FilterTable:
    """A table of another program in the packet filter; ``family`` is nft's, or ``iptables-legacy``."""

    family: str
    table: str


@dataclass(frozen=True)
class Chain:
    """A base chain of another program in the packet filter."""

    family: str
    table: str
    chain: str


@dataclass(frozen=True)
class Sysctl:
    """A setting of the kernel, in the syntax of sysctl.d."""

    key: str


@dataclass(frozen=True)
class Guest:
    """A guest of a hypervisor, and its port."""

    name: str


@dataclass(frozen=True)
class PortSetting:
    """A setting of the kernel at a guest's port, in one family."""

    guest: str
    family: Family
    setting: str


@dataclass(frozen=True)
class Neighbor:
    """A permanent neighbour at a guest's port."""

    guest: str
    address: str


@dataclass(frozen=True)
class GuestFamily:
    """A guest's own address of one family."""

    guest: str
    family: Family


@dataclass(frozen=True)
class Session:
    """A BGP session, by its name."""

    name: str


@dataclass(frozen=True)
class SessionFamily:
    """The prefixes that a BGP session carries in one address family."""

    session: str
    family: Family


@dataclass(frozen=True)
class Bfd:
    """The BFD session of a BGP session; ``family`` is ``None`` if it watches both families."""

    peer: str
    path: str
    domain: str
    family: Family | None


@dataclass(frozen=True)
class Announcement:
    """A prefix that a neighbour advertises; ``domain`` is ``None`` if only its session's name is known."""

    announcer: str
    domain: str | None
    prefix: str


@dataclass(frozen=True)
class Path:
    """A path as one domain uses it."""

    path: str
    domain: str


@dataclass(frozen=True)
class IgpLink:
    """A path on which an IGP runs in one domain and family."""

    path: str
    domain: str
    family: Family


@dataclass(frozen=True)
class PathToPeer:
    """The path to the address of a neighbour, in one domain and family."""

    path: str
    peer: str
    domain: str
    family: Family


@dataclass(frozen=True)
class EchoRequest:
    """An echo request from a guest or host to an address; ``target`` is its name in reports."""

    source: str
    target: str
    family: Family


Subject = (
    Host
    | Unit
    | Interface
    | Address
    | InFamily
    | Table
    | Route
    | LastResort
    | FilterSet
    | Counter
    | FilterTable
    | Chain
    | Sysctl
    | Guest
    | PortSetting
    | Neighbor
    | GuestFamily
    | Session
    | SessionFamily
    | Bfd
    | Announcement
    | Path
    | IgpLink
    | PathToPeer
    | EchoRequest
)

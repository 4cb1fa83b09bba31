"""The allowed values of fields in the intent and the plan."""

from __future__ import annotations

from typing import Literal

Family = Literal["ipv4", "ipv6"]
Kind = Literal["hypervisor", "route_reflector", "edge_router"]
System = Literal["debian12", "debian13", "junos"]
DaemonName = Literal["bird1", "bird2", "bird3", "frr", "gobgp", "junos"]
FailureProfile = Literal["bfd_llgr", "bfd", "llgr", "graceful_restart", "link", "none"]
SessionLayout = Literal["per_family", "multiprotocol", "shared"]
Neighbors = Literal["explicit", "range"]
Ecmp = Literal["all", "without_default", "none"]
Anycast = Literal["local", "spread"]
DataPlane = Literal["rules", "vrf"]
Dhcp = Literal["server", "relay", "none"]
Announce = Literal["guests", "blocks"]
Reflection = Literal["reflectors", "mesh"]
Underlay = Literal["l2", "igp"]
Igp = Literal["rip", "ospf"]
LimitAction = Literal["warn", "block", "restart", "disable"]
Announcer = Literal["hypervisors", "edge_routers", "reflectors", "clients"]

DomainKind = Literal["public", "private"]
OriginValidation = Literal["pool", "strict"]

KINDS: dict[str, Kind] = {
    "hypervisors": "hypervisor",
    "route_reflectors": "route_reflector",
    "edge_routers": "edge_router",
}
"""The kind of a host, by the inventory group that it is in."""

ANNOUNCEMENTS: tuple[Announce, ...] = ("guests", "blocks")
REFLECTIONS: tuple[Reflection, ...] = ("reflectors", "mesh")
"""The choices of l3hv_announce and l3hv_reflection."""

UNDERLAYS: tuple[Underlay, ...] = ("l2", "igp")
IGPS: tuple[Igp, ...] = ("rip", "ospf")
"""The choices of l3hv_underlay and l3hv_igp."""

Relation = Literal["reflector", "client", "reflector_of_path", "mesh"]

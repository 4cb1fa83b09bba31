"""The allowed values of fields in the intent and the plan."""

from __future__ import annotations

from typing import Literal

Family = Literal["ipv4", "ipv6"]
Kind = Literal["hypervisor", "route_reflector", "edge_router", "leaf", "spine"]
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
TunnelKind = Literal["ipip", "ip6tnl"]
Underlay = Literal["l2", "igp", "leaf_spine"]
Igp = Literal["rip", "ospf"]
Links = Literal["unnumbered", "numbered"]
LimitAction = Literal["warn", "block", "restart", "disable"]
Announcer = Literal["hypervisors", "edge_routers", "reflectors", "clients", "switches"]

DomainKind = Literal["public", "private"]
OriginValidation = Literal["pool", "strict"]

KINDS: dict[str, Kind] = {
    "hypervisors": "hypervisor",
    "route_reflectors": "route_reflector",
    "edge_routers": "edge_router",
    "leaves": "leaf",
    "spines": "spine",
}
"""The kind of a host, by the inventory group that it is in."""

ANNOUNCEMENTS: tuple[Announce, ...] = ("guests", "blocks")
REFLECTIONS: tuple[Reflection, ...] = ("reflectors", "mesh")
"""The choices of l3hv_announce and l3hv_reflection."""

UNDERLAYS: tuple[Underlay, ...] = ("l2", "igp", "leaf_spine")
IGPS: tuple[Igp, ...] = ("rip", "ospf")
LINKS: tuple[Links, ...] = ("unnumbered", "numbered")
"""The choices of l3hv_underlay, l3hv_igp and l3hv_links."""

SWITCHES: frozenset[Kind] = frozenset({"leaf", "spine"})
"""The kinds of hosts that forward between links, and advertise the routes of their neighbours to others."""

Relation = Literal["reflector", "client", "reflector_of_path", "mesh", "switch", "attached"]

LINK_RELATIONS: frozenset[Relation] = frozenset({"switch", "attached"})
"""The relations of neighbours at the ends of a link of leaves and spines."""

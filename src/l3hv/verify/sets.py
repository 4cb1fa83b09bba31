"""The packet filter's static sets: their elements in the plan, and differences from those in the kernel."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.model.plan import PacketFilter
from l3hv.model.text import natural_key
from l3hv.verify.values import SetDifference

AS_PLANNED = SetDifference()

IN_BOTH_TABLES = ("guests", "macs", "source_prefixes4")
"""Fields of the plan that are sets of the same name in the tables ``inet l3hv`` and ``arp l3hv``."""

VALUES = (
    "uplinks",
    "closed_uplinks",
    "fabric4",
    "fabric6",
    "management4",
    "management6",
    "guests",
    "on_link6",
    "isolated",
    "restricted",
    "tracked4",
)
"""Fields of the plan that are sets of the same name in the table ``inet l3hv``, with single values."""

CONCATENATED = (
    "neighbours4",
    "neighbours6",
    "macs",
    "senders4",
    "sender_networks6",
    "source_prefixes4",
    "sources6",
    "source_prefixes6",
    "gateways4",
    "allowed4",
    "allowed6",
)
"""Fields of the plan that are sets of the same name in the table ``inet l3hv``, with pairs or triples."""

FOR_CLOSED_UPLINKS: tuple[str, ...] = ("management4", "management6")
"""Sets that only hosts with closed uplinks have."""

FOR_HYPERVISORS: tuple[str, ...] = ("fabric4", "fabric6")
"""Sets that hosts with closed uplinks and all hypervisors have."""


def planned_sets(planned: PacketFilter) -> dict[str, frozenset[str]]:
    """Return the elements of the static sets in nft's syntax, by family and name (``inet macs``).

    The translation of addresses is a map and has a check of its own (``translation``).
    """
    unused = () if planned.closed_uplinks else FOR_CLOSED_UPLINKS
    unused += () if planned.closed_uplinks or planned.domains else FOR_HYPERVISORS
    sets: dict[str, Iterable[str]] = {name: getattr(planned, name) for name in VALUES if name not in unused}
    sets |= {name: map(" . ".join, getattr(planned, name)) for name in CONCATENATED}
    if planned.outer4 or planned.outer6:
        sets |= {name: map(" . ".join, getattr(planned, name)) for name in ("outer4", "outer6")}
    for domain in planned.domains:
        sets[f"ports_{domain.name}"] = domain.interfaces
        if planned.arp_reasons:
            sets[f"open_ports_{domain.name}"] = domain.open_interfaces
            sets[f"open_guests_{domain.name}"] = domain.open_guests
    for anycast in planned.anycast:
        sets[f"guests_{anycast.name}"] = anycast.guests
        for share in anycast.shares:
            for prefixes in share.lengths:
                name = f"anycast_{anycast.name}_{share.family}_{share.holders}_{prefixes.length}"
                sets[name] = prefixes.addresses
    elements = {f"inet {name}": frozenset(map(_listed, values)) for name, values in sets.items()}
    if planned.arp_reasons:
        elements |= {f"arp {name}": elements[f"inet {name}"] for name in IN_BOTH_TABLES}
        elements["arp sources4"] = frozenset(map(" . ".join, planned.sources4))
        for domain in planned.domains:
            elements[f"arp ports_{domain.name}"] = elements[f"inet ports_{domain.name}"]
            elements[f"arp pools_{domain.name}"] = frozenset(map(_listed, domain.pools4))
    return elements


def _listed(element: str) -> str:
    """Return an element in the form in which nft lists it: a single address without its length."""
    value = element.rpartition(" ")[2]
    return element.removesuffix("/128" if ":" in value else "/32")


def difference(planned: frozenset[str], found: Iterable[str]) -> SetDifference:
    """Return the differences of a set's elements from the plan.

    >>> difference(frozenset({"vm1 . 203.0.113.1", "vm2 . 203.0.113.2"}),
    ...            ["vm1 . 203.0.113.1", "vm2 . 192.0.2.66"])
    SetDifference(lacks=('vm2 . 203.0.113.2',), too_much=('vm2 . 192.0.2.66',))
    """
    there = frozenset(found)
    return SetDifference(
        tuple(sorted(planned - there, key=natural_key)), tuple(sorted(there - planned, key=natural_key))
    )

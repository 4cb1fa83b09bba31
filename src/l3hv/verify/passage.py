"""The packets to guests that the packet filters of the fabric accept.

The model has the rules of ``roles/packet_filter`` that depend on the intent: ``allowed_sources`` and
``port_isolation``.  A packet is filtered at the port of the guest that it goes to, and the answer at the port
of the guest that gets it: a ping is answered only if both pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from l3hv.model.plan import HostPlan


@dataclass(frozen=True)
class PortFilter:
    """The filter at the port of one guest; ``allowed`` is ``None`` if every source may send to the guest."""

    isolated: bool
    allowed: tuple[str, ...] | None

    def takes(self, source: str) -> bool:
        """Tell whether the filter accepts packets from the address ``source`` to the guest.

        >>> PortFilter(False, ("203.0.113.0/29",)).takes("203.0.113.9")
        False
        """
        return self.allowed is None or any(_contains(prefix, source) for prefix in self.allowed)


OPEN = PortFilter(isolated=False, allowed=None)


class Passage:
    """The filters at the ports of all guests of ``plans``, by hypervisor and guest.

    For hosts without a plan here, ``announced`` names the guests whose ports drop some packets.
    """

    def __init__(self, plans: Iterable[HostPlan], announced: Mapping[str, Mapping[str, Any]]) -> None:
        self._filtered = {(host, guest) for host, part in announced.items() for guest in part["filtered"]}
        self._filters: dict[tuple[str, str], PortFilter] = {}
        for plan in plans:
            intended = plan.packet_filter
            allowed: dict[str, list[str]] = {interface: [] for interface in intended.restricted}
            for interface, prefix in (*intended.allowed4, *intended.allowed6):
                allowed[interface].append(prefix)
            isolated = set(intended.isolated)
            for guest in plan.guests:
                limits = allowed.get(guest.interface)
                self._filters[plan.host, guest.name] = PortFilter(
                    guest.interface in isolated, None if limits is None else tuple(limits)
                )

    def is_known(self, host: str, guest: str) -> bool:
        """Tell whether the filter at the port of ``guest`` on ``host`` is known."""
        return (host, guest) in self._filters or (host, guest) not in self._filtered

    def port_filter(self, host: str, guest: str) -> PortFilter:
        """Return the filter at the port of ``guest`` on the hypervisor ``host``."""
        return self._filters.get((host, guest), OPEN)

    def is_open(self, source: tuple[str, str], own: str, target: tuple[str, str], answering: str) -> bool:
        """Tell whether a ping between two guests, given as (hypervisor, guest), is answered.

        ``own`` is the source address of the request, ``answering`` the source address of the answer at the
        port of ``source``.
        """
        near, far = self.port_filter(*source), self.port_filter(*target)
        is_local = source[0] == target[0]
        if is_local and (near.isolated or far.isolated):
            return False
        return far.takes(own) and near.takes(answering)


@functools.lru_cache(maxsize=2**16)
def _contains(prefix: str, address: str) -> bool:
    return ip_address(address) in ip_network(prefix)

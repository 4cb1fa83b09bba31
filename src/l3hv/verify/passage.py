"""Which packets the packet filters of the fabric let pass between guests, and to guests from elsewhere.

The rules of ``roles/packet_filter`` that depend on the intent: ``allowed_sources`` and ``port_isolation``.  A
packet is filtered where it leaves for the guest, and the answer where it comes back: an echo needs both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from l3hv.model.plan import HostPlan


@dataclass(frozen=True)
class Port:
    """The filter at the port of one guest. ``allowed`` is ``None`` where every source may send to it."""

    isolated: bool
    allowed: tuple[str, ...] | None

    def takes(self, source: str) -> bool:
        """Tell whether a packet from the address ``source`` is let through to the guest.

        >>> Port(False, ("203.0.113.0/29",)).takes("203.0.113.9")
        False
        """
        return self.allowed is None or any(_contains(prefix, source) for prefix in self.allowed)


OPEN = Port(isolated=False, allowed=None)


class Passage:
    """The ports of all guests of ``plans``, by hypervisor and guest.

    ``announced`` names the guests of hosts without a plan here that are filtered in a way that is not known.
    """

    def __init__(self, plans: Iterable[HostPlan], announced: Mapping[str, Mapping[str, Any]]) -> None:
        self._guarded = {(host, guest) for host, part in announced.items() for guest in part["guarded"]}
        self._ports: dict[tuple[str, str], Port] = {}
        for plan in plans:
            intended = plan.packet_filter
            allowed: dict[str, list[str]] = {interface: [] for interface in intended.restricted}
            for interface, prefix in (*intended.allowed4, *intended.allowed6):
                allowed[interface].append(prefix)
            isolated = set(intended.isolated)
            for guest in plan.guests:
                limits = allowed.get(guest.interface)
                self._ports[plan.host, guest.name] = Port(
                    guest.interface in isolated, None if limits is None else tuple(limits)
                )

    def is_known(self, host: str, guest: str) -> bool:
        """Tell whether it is known what the port of ``guest`` on ``host`` lets through."""
        return (host, guest) in self._ports or (host, guest) not in self._guarded

    def port(self, host: str, guest: str) -> Port:
        """Return the port of ``guest`` on the hypervisor ``host``."""
        return self._ports.get((host, guest), OPEN)

    def is_open(self, source: tuple[str, str], own: str, target: tuple[str, str], answering: str) -> bool:
        """Tell whether an echo passes between two guests, each given as its hypervisor and its name.

        ``own`` is the address that is sent from, ``answering`` the one that the answer comes from where it
        leaves for ``source``.
        """
        near, far = self.port(*source), self.port(*target)
        is_local = source[0] == target[0]
        if is_local and (near.isolated or far.isolated):
            return False
        return far.takes(own) and near.takes(answering)


@functools.lru_cache(maxsize=2**16)
def _contains(prefix: str, address: str) -> bool:
    return ip_address(address) in ip_network(prefix)

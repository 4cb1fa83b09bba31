"""All hosts of a fabric: the problems between hosts, and the facts that a host's plan needs about others."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from l3hv.intent.claims import Claim, claims, clashes, holders, largest, owners
from l3hv.intent.keys import key_problems
from l3hv.intent.links import link_problems
from l3hv.intent.neighbors import Roster, edges, member, neighbor_names, peers
from l3hv.intent.ranges import range_problems
from l3hv.intent.slices import host_slice
from l3hv.model.errors import Problem
from l3hv.model.intent import Common, HostIntent, HostSlice, Largest, Member
from l3hv.model.plan import Owner


class Remembered(Protocol):
    """The facts of an earlier run about a host that this run did not read."""

    @property
    def member(self) -> Member: ...

    @property
    def claims(self) -> tuple[Claim, ...]: ...


@dataclass(frozen=True)
class AllHosts:
    """All hosts of an inventory.

    ``hosts`` has the intent of the hosts that were read; ``members`` and ``claims`` have every host.
    """

    common: Common
    hosts: Mapping[str, HostIntent]
    members: Mapping[str, Member]
    claims: Mapping[str, tuple[Claim, ...]]

    @classmethod
    def of(
        cls,
        common: Common,
        hosts: Mapping[str, HostIntent],
        remembered: Mapping[str, Remembered] = MappingProxyType({}),
    ) -> AllHosts:
        """Return the hosts that were read together with the hosts that an earlier run ``remembered``."""
        return cls(
            common=common,
            hosts=hosts,
            members={host: member(intent) for host, intent in hosts.items()}
            | {host: entry.member for host, entry in remembered.items()},
            claims={host: claims(intent) for host, intent in hosts.items()}
            | {host: entry.claims for host, entry in remembered.items()},
        )

    @functools.cached_property
    def guests(self) -> set[str]:
        every_claim = (claim for host_claims in self.claims.values() for claim in host_claims)
        return {claim.value for claim in every_claim if claim.kind == "guest"}

    @functools.cached_property
    def _roster(self) -> Roster:
        return Roster(self.members.values(), self.common)

    @functools.cached_property
    def _largest(self) -> Largest:
        return largest(self.claims)

    @functools.cached_property
    def _owners(self) -> tuple[Owner, ...]:
        return owners(self.claims, {host: entry.id for host, entry in self.members.items()})

    @functools.cached_property
    def _holders(self) -> dict[str, int]:
        return holders(self.claims)

    def problems(self) -> list[Problem]:
        """Return the problems between hosts."""
        members = self.members.values()
        return [
            *clashes(self.claims, self.common),
            *range_problems(members),
            *key_problems(members),
            *link_problems(self.common, self.members),
            *self._public_servers(),
        ]

    def _public_servers(self) -> Iterator[Problem]:
        """Yield a problem for each DHCP server that is an edge router outside of the private domain.

        Only the hosts that were read are compared.
        """
        private = self.common.private
        outside = {
            address: edge.name
            for edge in self.hosts.values()
            if edge.kind == "edge_router" and (private is None or private.name not in edge.edge_domains)
            for address in edge.addresses
        }
        for host in self.hosts.values():
            if host.kind == "hypervisor" and host.settings.dhcp == "relay":
                for server in sorted(outside.keys() & set(host.settings.dhcp_servers)):
                    message = (
                        f"{server} is an address of {outside[server]}, which is not in the private domain."
                    )
                    remedy = "Choose a server that relays reach in the private domain."
                    yield Problem(host.name, "l3hv_dhcp_servers", server, message, remedy)

    def slice_of(self, intent: HostIntent, *, is_written: bool = True) -> HostSlice:
        """Return the slice of a host.

        The owners of prefixes and the relays to a DHCP server are left out if its plan is not written.
        """
        common, intent = self._roster.with_links(self.common, intent)
        return host_slice(
            common,
            intent,
            peers(intent, self._roster),
            self._largest,
            (lambda: self.owners_for(intent)) if is_written else tuple,
            edges=edges(intent, self._roster),
            holders=lambda: self._holders,
            relays=self._relays if is_written else lambda _: (),
        )

    def _relays(self, server: str) -> tuple[HostIntent, ...]:
        """Return the hypervisors that relay DHCP to a server; all of them have been read."""
        return tuple(
            host
            for host in self.hosts.values()
            if host.kind == "hypervisor"
            and host.settings.dhcp == "relay"
            and server in host.settings.dhcp_servers
        )

    def owners_for(self, intent: HostIntent) -> tuple[Owner, ...]:
        """Return the owners that a host compares announcements with; none without strict validation.

        A leaf has those of the hypervisors below it: a guest changes no other leaf.
        """
        if intent.settings.origin_validation != "strict" or not self.common.checks_announcements(intent):
            return ()
        if intent.kind != "leaf":
            return self._owners
        below = set(neighbor_names(intent, self._roster))
        return tuple(owner for owner in self._owners if owner.host in below)

    def state_after_run(self, touched: Collection[str]) -> dict[str, dict[str, list[str]]]:
        """Return the guests and neighbours that each host in ``touched`` has after the run, as plain data."""
        return {
            host: {
                "guests": [guest.name for guest in intent.guests],
                "neighbors": neighbor_names(intent, self._roster),
            }
            for host, intent in self.hosts.items()
            if host in touched
        }

"""All hosts of a fabric: the problems between them, and what the plan of each needs of the others."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from l3hv.intent.claims import Claim, claims, clashes, holders, largest, owners
from l3hv.intent.keys import key_problems
from l3hv.intent.neighbors import Roster, edges, member, neighbors, peers
from l3hv.intent.ranges import range_problems
from l3hv.intent.slices import host_slice
from l3hv.model.errors import Problem
from l3hv.model.intent import Common, HostIntent, HostSlice, Largest, Member
from l3hv.model.plan import Owner


class Remembered(Protocol):
    """What is known of a host that was not read in this run."""

    @property
    def member(self) -> Member: ...

    @property
    def claims(self) -> tuple[Claim, ...]: ...


@dataclass(frozen=True)
class AllHosts:
    """All hosts of an inventory; the intent of those that were read, and of each what the others need."""

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
        """Return the hosts that were read together with those that are ``remembered`` of an earlier run."""
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
        return {claim.value for several in self.claims.values() for claim in several if claim.kind == "guest"}

    @functools.cached_property
    def _roster(self) -> Roster:
        return Roster(self.members.values())

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
        return [*clashes(self.claims, self.common), *range_problems(members), *key_problems(members)]

    def slice_of(self, intent: HostIntent, *, is_written: bool = True) -> HostSlice:
        """Return the slice of a host; without the owners of prefixes where its plan is not written."""
        return host_slice(
            self.common,
            intent,
            peers(intent, self._roster),
            self._largest,
            (lambda: self._owners) if is_written else tuple,
            edges=edges(intent, self._roster),
            holders=lambda: self._holders,
        )

    def left_by(self, touched: Collection[str]) -> dict[str, dict[str, list[str]]]:
        """Return what the run leaves on each host that it touches, as plain data."""
        return {
            host: {
                "guests": [guest.name for guest in intent.guests],
                "neighbors": neighbors(intent, self._roster),
            }
            for host, intent in self.hosts.items()
            if host in touched
        }

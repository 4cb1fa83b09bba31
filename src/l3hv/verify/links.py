"""The routes in a fabric of leaves and spines: each host uses the neighbours with the shortest AS path.

Leaves and spines advertise the routes of their neighbours; other hosts advertise only their own.  Each host
adds its AS number.  All spines have the same one, so no route passes two of them (RFC 4271, section 9.1.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from l3hv.model.choices import SWITCHES


class Links:
    """The links of a fabric, by BIRD table, with the distances of all hosts from the owner of a route."""

    def __init__(self, announced: Mapping[str, Mapping[str, Any]]) -> None:
        self._kinds = {host: part["kind"] for host, part in announced.items()}
        self._links = {host: part.get("links", {}) for host, part in announced.items()}
        self._distances: dict[tuple[str, str], dict[str, tuple[int, bool]]] = {}

    def __bool__(self) -> bool:
        return any(self._links.values())

    def next_hops(self, host: str, table: str, owners: Iterable[str]) -> list[str]:
        """Return the next hops of ``host`` to the nearest of ``owners``."""
        others = [self._paths(owner, table) for owner in owners if owner != host]
        is_spine = self._kinds.get(host) == "spine"
        hops: dict[int, list[str]] = {}
        for neighbor, tables in self._links.get(host, {}).items():
            paths = [found[neighbor] for found in others if neighbor in found]
            lengths = [length for length, has_spine in paths if not (is_spine and has_spine)]
            if table in tables and lengths:
                hops.setdefault(min(lengths), []).append(tables[table])
        return sorted(hops[min(hops)]) if hops else []

    def _paths(self, owner: str, table: str) -> dict[str, tuple[int, bool]]:
        """Return the length of the AS path that each host advertises, and whether it has a spine."""
        key = (owner, table)
        if key not in self._distances:
            found = {owner: (1, self._kinds.get(owner) == "spine")}
            queue = deque([owner])
            while queue:
                host = queue.popleft()
                length, has_spine = found[host]
                for neighbor, tables in self._links.get(host, {}).items():
                    kind = self._kinds.get(neighbor)
                    is_loop = has_spine and kind == "spine"
                    if table in tables and neighbor not in found and kind in SWITCHES and not is_loop:
                        found[neighbor] = (length + 1, has_spine or kind == "spine")
                        queue.append(neighbor)
            self._distances[key] = found
        return self._distances[key]

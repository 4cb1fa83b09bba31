"""The slice of the intent from which the plan of one host is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from l3hv.model.intent import Common, HostIntent, HostSlice, Largest, Peer
from l3hv.model.plan import Owner


def host_slice(
    common: Common,
    host: HostIntent,
    neighbors: Iterable[Peer],
    largest: Largest = Largest(),  # noqa: B008 - frozen
    owners: Callable[[], tuple[Owner, ...]] = tuple,
    *,
    edges: Iterable[Peer] = (),
    holders: Callable[[], Mapping[str, int]] = dict,
    relays: Callable[[str], tuple[HostIntent, ...]] = lambda _: (),
) -> HostSlice:
    """Return all facts from which the plan of ``host`` is computed (:func:`l3hv.plan.host.host_plan`).

    ``largest``, ``owners`` and ``holders`` are results of :mod:`l3hv.intent.claims`, ``edges`` of
    :func:`l3hv.intent.neighbors.edges`.  Only hosts that check the announcements of hypervisors get
    ``largest`` (reflectors, leaves, or all hosts of a mesh), and of these only those with strict origin
    validation have ``owners``: guests on other hosts change the slice of no other host.  Only
    hypervisors that spread their guests' anycast prefixes get ``holders``: their slices change with the
    number of other holders.  Only DHCP servers get ``relays``, the hypervisors that relay to an address.
    """
    is_checking = common.checks_announcements(host)
    served = host.settings.serves_dhcp_at
    counts = holders() if host.settings.anycast == "spread" and host.anycast else {}
    return HostSlice(
        common=common,
        host=host,
        peers=tuple(neighbors),
        largest=largest if is_checking else Largest(),
        owners=owners(),
        edges=tuple(edges),
        holders=tuple((prefix, counts[prefix]) for prefix in host.anycast if counts.get(prefix, 1) > 1),
        relays=relays(served) if served is not None else (),
    )

"""The slice of the intent that the plan of one host is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from l3hv.model.intent import Common, HostIntent, HostSlice, Largest, Peer
from l3hv.model.plan import Owner


def host_slice(
    common: Common,
    host: HostIntent,
    neighbours: Iterable[Peer],
    largest: Largest = Largest(),  # noqa: B008 - frozen
    owners: Callable[[], tuple[Owner, ...]] = tuple,
    *,
    edges: Iterable[Peer] = (),
    holders: Callable[[], Mapping[str, int]] = dict,
) -> HostSlice:
    """Return everything that the plan of ``host`` is made of (:func:`l3hv.plan.host.host_plan`).

    The functions of :mod:`l3hv.intent.claims` tell what other hypervisors have.  ``largest`` and ``owners``
    are for reflectors, the latter only where they validate strictly: the slice of no other host changes with
    guests elsewhere.  ``holders`` is for hypervisors that spread the anycast prefixes of their own guests:
    their slices change with the number of other holders.  ``edges`` are those of
    :func:`l3hv.intent.neighbors.edges`.
    """
    is_reflector = host.kind == "route_reflector"
    is_strict = is_reflector and host.settings.origin_validation == "strict"
    counts = holders() if host.settings.anycast == "spread" and host.anycast else {}
    return HostSlice(
        common=common,
        host=host,
        peers=tuple(neighbours),
        largest=largest if is_reflector else Largest(),
        owners=owners() if is_strict else (),
        edges=tuple(edges),
        holders=tuple((prefix, counts[prefix]) for prefix in host.anycast if counts.get(prefix, 1) > 1),
    )

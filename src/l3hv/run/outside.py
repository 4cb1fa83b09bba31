"""The hosts outside of a run that have to change with it: reflectors, leaves, and all hosts of a mesh.

Such a host has the sessions of its neighbours in its configuration, and with strict origin validation their
prefixes.  A run records a digest of these for each neighbour (:class:`l3hv.run.removals.Applied`).  A later
run that leaves the host out compares them with its plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from l3hv.model.plan import HostPlan, Owner
from l3hv.model.text import first_of, natural_key

_MOST_NAMED = 8


def peer_digests(
    plan: HostPlan, owners: Iterable[Owner], only: Collection[str] | None = None
) -> dict[str, str]:
    """Return a digest of the sessions with each neighbour and of its prefixes; with ``only``, of some.

    ``owners`` are the hypervisors whose announcements the host compares with their prefixes.
    """
    found: dict[str, list[str]] = {}
    for session in plan.routing.sessions:
        if only is None or session.peer in only:
            found.setdefault(session.peer, []).append(repr(session))
    for owner in owners:
        if owner.host != plan.host and (only is None or owner.host in only):
            found.setdefault(owner.host, []).append(repr(owner))
    return {peer: sha256("\n".join(texts).encode()).hexdigest()[:16] for peer, texts in found.items()}


def outdated(
    before: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    touched: Collection[str],
    hosts: Collection[str],
) -> dict[str, list[str]]:
    """Return the hosts outside of the run that have to change, each with the neighbours that have changed.

    ``before`` and ``now`` have :func:`peer_digests` of hosts outside of the run.  Neighbours are hosts in
    ``touched``, and hosts that are no longer in ``hosts``.  A host without a record is left out.
    """
    found = {}
    for host in sorted(now.keys() - set(touched), key=natural_key):
        if not (recorded := before.get(host)):
            continue
        changed = {peer for peer in touched if now[host].get(peer) != recorded.get(peer)}
        changed |= {peer for peer in recorded if peer not in hosts}
        if changed:
            found[host] = sorted(changed, key=natural_key)
    return found


def outdated_sentences(found: Mapping[str, Collection[str]]) -> list[str]:
    """Return a sentence that names these hosts and their neighbours, or none."""
    if not found:
        return []
    peers = sorted({peer for changed in found.values() for peer in changed}, key=natural_key)
    them = "it" if len(found) == 1 else "them"
    return [
        f"This run leaves out {first_of(list(found), _MOST_NAMED)}, which must change too: sessions with "
        f"{first_of(peers, _MOST_NAMED)}, or the prefixes accepted from there, are new, different or gone. "
        f"Run site.yml for {them} too, or without --limit."
    ]

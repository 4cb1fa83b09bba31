"""Reflectors that take their clients from a range of addresses, and what they cannot tell apart.

Such a reflector has one configuration for all of its clients and knows none of them, so a new one changes
nothing on it.  What a client could otherwise choose is then the reflector's choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.errors import Problem
from l3hv.model.intent import Link, Member
from l3hv.model.profiles import layout_between, profile_between


def range_problems(members: Iterable[Member]) -> list[Problem]:
    """Return a problem for each choice of a client that a reflector with a range does not share."""
    hosts = tuple(members)
    reflectors: dict[str, list[Member]] = {}
    for host in hosts:
        if host.neighbors == "range":
            reflectors.setdefault(host.links[0].path, []).append(host)
    return [
        problem
        for host in hosts
        if host.kind != "route_reflector"
        for link in host.links
        for reflector in reflectors.get(link.path, ())
        for problem in _differences(host, link, reflector)
    ]


def _differences(client: Member, link: Link, reflector: Member) -> Iterator[Problem]:
    if link.bgp_key is not None:
        yield Problem(
            client.name,
            "l3hv_bgp_key",
            link.bgp_key,
            f"The reflector {reflector.name} takes clients from a range, in which none can have a key.",
            f"Remove it, or write l3hv_neighbors: explicit for {reflector.name}.",
        )
    # Not what is said counts, but what becomes of it between these daemons.
    ends = {client.daemon, reflector.daemon}
    profiles = [profile_between(member.failure_profile, ends) for member in (client, reflector)]
    layouts = (
        layout_between(client.session_layout, ends),
        layout_between(reflector.session_layout, {reflector.daemon}),
    )
    for field, own, common, (theirs, ours) in (
        ("l3hv_failure_profile", client.failure_profile, reflector.failure_profile, profiles),
        ("l3hv_session_layout", client.session_layout, reflector.session_layout, layouts),
    ):
        if theirs != ours:
            yield Problem(
                client.name,
                field,
                own,
                f"{own} is not what the reflector {reflector.name} has for its whole range, {common}.",
                f"Give both the same, or write l3hv_neighbors: explicit for {reflector.name}.",
            )
    missing = [name for name in reflector.links[0].domains if name not in link.domains]
    if set(layouts) == {"shared"} and missing:
        yield Problem(
            client.name,
            "l3hv_session_layout",
            client.session_layout,
            f"The reflector {reflector.name} would tell it the routes of {', '.join(missing)} too, "
            "like everybody in its range.",
            f"Choose another layout for both, or write l3hv_neighbors: explicit for {reflector.name}.",
        )

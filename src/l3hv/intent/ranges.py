"""Clients of reflectors that accept any client of a range of addresses: their settings must be equal.

Such a reflector has one configuration for all clients and lists none: a new client changes nothing on it.
Its settings apply to every client, also settings that a client could otherwise choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from l3hv.model.errors import Problem
from l3hv.model.intent import Link, Member
from l3hv.model.profiles import layout_between, profile_between


def range_problems(members: Iterable[Member]) -> list[Problem]:
    """Return a problem for each setting of a client that its reflector with a range does not share."""
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
            f"The reflector {reflector.name} accepts clients from a range, and these cannot have keys.",
            f"Remove the key, or set l3hv_neighbors: explicit for {reflector.name}.",
        )
    if reflector.ttl_security and not client.ttl_security:
        yield Problem(
            client.name,
            "l3hv_ttl_security",
            "false",
            f"The reflector {reflector.name} accepts clients from a range, all with TTL security.",
            f"Remove it, or set l3hv_neighbors: explicit for {reflector.name}.",
        )
    if client.prefix_limit not in (None, reflector.prefix_limit):
        yield Problem(
            client.name,
            "l3hv_prefix_limit",
            str(client.prefix_limit),
            f"The reflector {reflector.name} accepts clients from a range, all with the same limit.",
            f"Set the limit for {reflector.name} instead, or set l3hv_neighbors: explicit there.",
        )
    # Compare the values that these two daemons agree on, not the configured ones.
    ends = {client.daemon, reflector.daemon}
    profiles = [profile_between(member.failure_profile, ends) for member in (client, reflector)]
    layouts = (
        layout_between(client.session_layout, ends),
        layout_between(reflector.session_layout, {reflector.daemon}),
    )
    for field, client_value, reflector_value, (client_result, reflector_result) in (
        ("l3hv_failure_profile", client.failure_profile, reflector.failure_profile, profiles),
        ("l3hv_session_layout", client.session_layout, reflector.session_layout, layouts),
    ):
        if client_result != reflector_result:
            yield Problem(
                client.name,
                field,
                client_value,
                f"{client_value} differs from {reflector_value}, which {reflector.name} has for its range.",
                f"Set the same for both, or set l3hv_neighbors: explicit for {reflector.name}.",
            )
    missing = [name for name in reflector.links[0].domains if name not in link.domains]
    if set(layouts) == {"shared"} and missing:
        yield Problem(
            client.name,
            "l3hv_session_layout",
            client.session_layout,
            f"The reflector {reflector.name} would also advertise the routes of {', '.join(missing)} to this "
            "host, as to every client in its range.",
            f"Choose another layout for both, or set l3hv_neighbors: explicit for {reflector.name}.",
        )

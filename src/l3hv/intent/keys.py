"""Keys of sessions (TCP MD5, RFC 2385) with reflectors that use no keys."""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.model.daemons import TITLES, WITHOUT_KEYS
from l3hv.model.errors import Problem
from l3hv.model.intent import Member


def key_problems(members: Iterable[Member]) -> list[Problem]:
    """Return a problem for each key on a path with a reflector that uses no keys."""
    hosts = tuple(members)
    without: dict[str, list[Member]] = {}
    for host in hosts:
        if host.kind == "route_reflector" and host.daemon in WITHOUT_KEYS:
            without.setdefault(host.links[0].path, []).append(host)
    return [
        Problem(
            host.name,
            "l3hv_bgp_key",
            link.bgp_key,
            f"The reflector {reflector.name} runs {TITLES[reflector.daemon]}, which gets no keys from l3hv.",
            f"Remove the key of path {link.path}, or choose another l3hv_daemon for {reflector.name}.",
        )
        for host in hosts
        for link in host.links
        if link.bgp_key is not None
        for reflector in without.get(link.path, ())
    ]

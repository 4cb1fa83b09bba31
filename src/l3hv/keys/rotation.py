"""The rotation of session keys: one path after the other gets the keys of the inventory.

TCP MD5 (RFC 2385) has no time in which two keys are good, and daemons start a session over when its key
changes.  So each path changes while the others carry the traffic.  What has which key is read from the
configuration that runs, not remembered: a rotation that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from l3hv.keys.secrets import secret_problems
from l3hv.model.choices import DaemonName
from l3hv.model.daemons import TITLES

Plain = Mapping[str, Any]
InUse = Mapping[str, str | None]
"""The key of each session by the session's name, ``None`` where it has none."""

_SESSION = re.compile(r"^protocol bgp (\w+) from [^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^  password key_(\w+);", re.MULTILINE)
_SECRET = re.compile(r'^define key_(\w+) = ("[^"\n]*");$', re.MULTILINE)
_FRR_SESSION = re.compile(
    r"^ neighbor (\S+) description (\w+)\n(?: neighbor \1 password key_(\w+)\n)?", re.MULTILINE
)
_FRR_RANGE = re.compile(r"^ neighbor (\w+) peer-group$", re.MULTILINE)
_FRR_OURS = re.compile(r"^! l3hv_config ", re.MULTILINE)
"""A comment of the role's.  What FRR writes itself (``write memory``) has none, and secrets for names."""
_FRR_SECRET = re.compile(r'^(\w+) = ("[^"\n]*")$', re.MULTILINE)

ROTATED: frozenset[DaemonName] = frozenset({"bird1", "bird2", "bird3", "frr"})
"""Daemons whose configuration is changed path by path."""


def keys_in_use(files: Iterable[str]) -> dict[str, str | None]:
    """Return the keys of the sessions that configurations describe, as the roles bird and frr print them.

    >>> keys_in_use(["protocol bgp rr1 from fabric_bfd {\\n  password key_rack7;\\n}\\n"])
    {'rr1': 'rack7'}
    """
    found: dict[str, str | None] = {}
    for text in files:
        for session, body in _SESSION.findall(text):
            key = _KEY.search(body)
            found[session] = key[1] if key else None
        found |= {session: name or None for _, session, name in _FRR_SESSION.findall(text)}
        found |= dict.fromkeys(_FRR_RANGE.findall(text))
    return found


def _secrets_in(placed: str) -> Iterator[tuple[str, str]]:
    """Yield the names and secrets of a host's file of secrets: BIRD's take them as they are."""
    for name, quoted in _SECRET.findall(placed):
        yield name, quoted[1:-1]
    for name, quoted in _FRR_SECRET.findall(placed):
        yield name, json.loads(quoted)


def key_changes(routing: Plain, in_use: InUse) -> dict[str, list[str]]:
    """Return, by path, the sessions of ``routing`` (a plan's, as plain data) that have another key yet."""
    found: dict[str, list[str]] = {}
    for session in routing["sessions"]:
        if in_use.get(session["name"], session["key"]) != session["key"]:
            found.setdefault(session["path"], []).append(session["name"])
    return found


def routing_until(routing: Plain, in_use: InUse, paths: Collection[str]) -> dict[str, Any]:
    """Return ``routing`` as it is when only ``paths`` have the keys of the plan; other paths keep theirs."""
    sessions = [
        session
        if session["path"] in paths
        else {**session, "key": in_use.get(session["name"], session["key"])}
        for session in routing["sessions"]
    ]
    keys = sorted({session["key"] for session in sessions if session["key"] is not None})
    return {**routing, "sessions": sessions, "session_keys": keys}


def rotation_problems(
    plan: Plain,
    in_use: InUse,
    *,
    told: Iterable[str],
    secrets: Mapping[str, str],
    placed: str,
    unmanaged: Collection[str],
    may_cut: bool,
) -> Iterator[str]:
    """Yield a sentence for each reason not to rotate the keys of one host.

    ``told`` are the files that ``in_use`` was read from, ``placed`` is the host's file of secrets; no
    sentence repeats one.  ``unmanaged`` are the hosts of others, ``may_cut`` allows to cut a host that is on
    one path alone.
    """
    routing = plan["routing"]
    is_rotated = routing["daemon"]["name"] in ROTATED
    if not is_rotated and any(session["key"] is not None for session in routing["sessions"]):
        title = TITLES[routing["daemon"]["name"]]
        yield (
            f"{plan['host']} runs {title}, and its sessions have keys: only BIRD's and FRR's are rotated."
            " Change these by site.yml, while traffic takes the other paths."
        )
    if routing["daemon"]["name"] == "frr" and in_use and not all(map(_FRR_OURS.search, told)):
        # Its sessions look as if they had no keys, and would lose them, all at once.
        yield (
            f"FRR has written /etc/frr/frr.conf of {plan['host']} itself (`write memory`), and keys have"
            " no names there: run site.yml with the keys that are in use (l3hv_bgp_key), then rotate."
        )
        return
    planned = {session["name"] for session in (*routing["sessions"], *routing["ranges"])}
    if is_rotated and planned != in_use.keys():
        yield (
            f"{plan['host']} has other sessions than its plan:"
            " run site.yml with the keys that are in use (l3hv_bgp_key), then rotate."
        )
        return
    changes = key_changes(routing, in_use)
    if not changes:
        return
    old = sorted({key for key in in_use.values() if key is not None})
    for problem in secret_problems(old, secrets):
        yield f"{problem} It is in use on {plan['host']} until its last path has another."
    for name, secret in _secrets_in(placed):
        if name in secrets and secrets[name] != secret:
            yield (
                f"The secret of the key {name} is not the one that {plan['host']} uses:"
                " give back the old one, and the new one a name of its own."
            )
    changed = {name for names in changes.values() for name in names}
    for session in routing["sessions"]:
        if session["name"] in changed and session["peer"] in unmanaged:
            yield (
                f"{session['peer']} is managed by somebody else, and the session {session['name']} of"
                f" {plan['host']} needs another key: it would be down until both ends have it."
                " Leave that key as it is (l3hv_bgp_key), or change it by site.yml when they do."
            )
    if plan["kind"] != "route_reflector" and not may_cut:
        yield from _cuts(plan, changed)


def _cuts(plan: Plain, changed: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each domain in which a session has no other path beside it."""
    paths: dict[str, set[str]] = {}
    for session in plan["routing"]["sessions"]:
        for domain in session["domains"]:
            paths.setdefault(domain, set()).add(session["path"])
    hit = {
        domain
        for session in plan["routing"]["sessions"]
        if session["name"] in changed
        for domain in session["domains"]
        if len(paths[domain]) == 1
    }
    for domain in sorted(hit):
        yield (
            f"{plan['host']} is on path {min(paths[domain])} alone in {domain}, and would be cut for some"
            " seconds. Give it another path, or say -e rotation_may_cut=true."
        )


def sessions_missed(routing: Plain, seen: Mapping[str, Plain], path: str) -> list[str]:
    """Return the sessions that are needed while ``path`` changes, and are not up.

    ``seen`` is what :mod:`l3hv_observe` found of them, by name.
    """
    return [
        session["name"]
        for session in routing["sessions"]
        if session["path"] != path and seen.get(session["name"], {}).get("state") != "Established"
    ]

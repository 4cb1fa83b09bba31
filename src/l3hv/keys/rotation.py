"""The rotation of session keys: one path after the other gets the keys of the inventory.

TCP MD5 (RFC 2385) accepts only one key at a time, and daemons restart a session when its key changes.
Therefore each path changes while the other paths carry the traffic.  The keys in use are read from the
running configuration and not stored: an interrupted rotation continues where it stopped.
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
"""The key of each session by the session's name; ``None`` for a session without a key."""

_SESSION = re.compile(r"^protocol bgp (\w+) from [^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^  password key_(\w+);", re.MULTILINE)
_SECRET = re.compile(r'^define key_(\w+) = ("[^"\n]*");$', re.MULTILINE)
_FRR_SESSION = re.compile(
    r"^ neighbor (\S+) description (\w+)\n(?: neighbor \1 password key_(\w+)\n)?", re.MULTILINE
)
_FRR_RANGE = re.compile(r"^ neighbor (\w+) peer-group$", re.MULTILINE)
_FRR_OURS = re.compile(r"^! l3hv_config ", re.MULTILINE)
"""A comment that the role prints.  A file that FRR wrote itself (``write memory``) lacks it, and has secrets
instead of the names of keys."""
_FRR_SECRET = re.compile(r'^(\w+) = ("[^"\n]*")$', re.MULTILINE)

ROTATED: frozenset[DaemonName] = frozenset({"bird1", "bird2", "bird3", "frr"})
"""Daemons whose keys are rotated path by path."""


def keys_in_use(files: Iterable[str]) -> dict[str, str | None]:
    """Return the key of each session in ``files``, configurations that the roles bird and frr printed.

    >>> keys_in_use(["protocol bgp rr1 from fabric_bfd {\\n  password key_rack7;\\n}\\n"])
    {'rr1': 'rack7'}
    """
    keys: dict[str, str | None] = {}
    for text in files:
        for session, body in _SESSION.findall(text):
            key = _KEY.search(body)
            keys[session] = key[1] if key else None
        keys |= {session: name or None for _, session, name in _FRR_SESSION.findall(text)}
        keys |= dict.fromkeys(_FRR_RANGE.findall(text))
    return keys


def _secrets_in(placed: str) -> Iterator[tuple[str, str]]:
    """Yield the names and secrets in a host's file of secrets: BIRD's file has no escapes, FRR's is JSON."""
    for name, quoted in _SECRET.findall(placed):
        yield name, quoted[1:-1]
    for name, quoted in _FRR_SECRET.findall(placed):
        yield name, json.loads(quoted)


def key_changes(routing: Plain, in_use: InUse) -> dict[str, list[str]]:
    """Return, by path, the sessions of ``routing`` (a plan's, as plain data) that still use another key."""
    changes: dict[str, list[str]] = {}
    for session in routing["sessions"]:
        if in_use.get(session["name"], session["key"]) != session["key"]:
            changes.setdefault(session["path"], []).append(session["name"])
    return changes


def routing_until(routing: Plain, in_use: InUse, paths: Collection[str]) -> dict[str, Any]:
    """Return ``routing`` with the keys of the plan on ``paths``, and the keys in use on all other paths."""
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
    configurations: Iterable[str],
    secrets: Mapping[str, str],
    placed: str,
    unmanaged: Collection[str],
    may_cut: bool,
) -> Iterator[str]:
    """Yield a sentence for each reason not to rotate the keys of one host.

    ``configurations`` are the configurations from which ``in_use`` was read.  ``placed`` is the host's file
    of secrets; no sentence repeats a secret.  ``unmanaged`` are the hosts that l3hv does not configure.
    ``may_cut`` allows the rotation to cut off a host with a single path.
    """
    routing = plan["routing"]
    is_rotated = routing["daemon"]["name"] in ROTATED
    if not is_rotated and any(session["key"] is not None for session in routing["sessions"]):
        title = TITLES[routing["daemon"]["name"]]
        yield (
            f"{plan['host']} runs {title}, and its sessions have keys: only BIRD's and FRR's are rotated."
            " Change these keys with site.yml while traffic uses the other paths."
        )
    if routing["daemon"]["name"] == "frr" and in_use and not all(map(_FRR_OURS.search, configurations)):
        # All sessions seem to have no key: the rotation would restart them all at the same time.
        yield (
            f"FRR has written /etc/frr/frr.conf of {plan['host']} itself (`write memory`), without the names"
            " of keys: run site.yml with the keys that are in use (l3hv_bgp_key), then rotate."
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
        yield f"{problem} {plan['host']} uses this key until its last path has another."
    for name, secret in _secrets_in(placed):
        if name in secrets and secrets[name] != secret:
            yield (
                f"The secret of the key {name} is not the one that {plan['host']} uses:"
                " restore the old secret, and add the new one as another key."
            )
    changed = {name for names in changes.values() for name in names}
    for session in routing["sessions"]:
        if session["name"] in changed and session["peer"] in unmanaged:
            yield (
                f"{session['peer']} is managed by another team, and the session {session['name']} of"
                f" {plan['host']} needs another key: it would be down until both ends have that key."
                " Leave the key as it is (l3hv_bgp_key), or change it with site.yml at the same time."
            )
    if plan["kind"] != "route_reflector" and not may_cut:
        yield from _cuts(plan, changed)


def _cuts(plan: Plain, changed: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each domain in which the only path of the host changes its keys."""
    paths: dict[str, set[str]] = {}
    for session in plan["routing"]["sessions"]:
        for domain in session["domains"]:
            paths.setdefault(domain, set()).add(session["path"])
    affected = {
        domain
        for session in plan["routing"]["sessions"]
        if session["name"] in changed
        for domain in session["domains"]
        if len(paths[domain]) == 1
    }
    for domain in sorted(affected):
        yield (
            f"{plan['host']} is on path {min(paths[domain])} alone in {domain}, and would be cut off for some"
            " seconds. Give it another path, or allow this with -e rotation_may_cut=true."
        )


def sessions_missed(routing: Plain, seen: Mapping[str, Plain], path: str) -> list[str]:
    """Return the sessions of other paths that are not established: they are needed while ``path`` changes.

    ``seen`` has the sessions that :mod:`l3hv_observe` found, by name.
    """
    return [
        session["name"]
        for session in routing["sessions"]
        if session["path"] != path and seen.get(session["name"], {}).get("state") != "Established"
    ]

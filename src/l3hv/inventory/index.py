"""The index: stored facts about hosts that a run does not touch, valid until one of their files changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l3hv.intent.claims import Claim
from l3hv.inventory.files import Files, Stamp
from l3hv.model.choices import Kind
from l3hv.model.intent import Member
from l3hv.model.plain import as_plain, from_plain
from l3hv.run.files import write_json


@dataclass
class Known:
    """The stored facts about one host: its files when it was read, its claims, the facts for its neighbours.

    ``guests`` is their number; ``announcements`` is the result of
    :func:`l3hv.plan.announcements.announcements` for its plan.
    """

    files: Files
    kind: Kind
    guests: int
    member: Member
    claims: tuple[Claim, ...]
    announcements: dict[str, Any]

    def is_fresh(self, kind: Kind, files: Files | None) -> bool:
        """Tell whether the host still has the same kind, and its files have not changed."""
        return self.kind == kind and self.files == (files or {})


@dataclass
class Index:
    """The facts that earlier runs stored about an inventory.

    ``others`` are hosts outside the fabric's groups, with their files.  ``basis`` is the digest
    :attr:`l3hv.inventory.hosts.Reading.basis`.
    """

    hosts: dict[str, Known] = field(default_factory=dict)
    others: dict[str, Files] = field(default_factory=dict)
    basis: str = ""


def digest(value: Any) -> str:
    """Return a short digest of ``value``, which consists of plain data."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def _code_stamp() -> list[list[Any]]:
    """Return the state of the package's files: the facts of another version may have another meaning."""
    package = Path(__file__).parents[1]
    return [[path.name, path.stat().st_mtime_ns] for path in sorted(package.rglob("*.py"))]


def load_index(place: Path, seen: Stamp) -> Index:
    """Return the index that is stored in ``place``; an empty one if a file of all hosts has changed."""
    if not seen.static:
        return Index()
    try:
        basis = json.loads((place / "basis.json").read_text(encoding="utf-8"))
        if basis["shared"] != seen.shared or basis["code"] != _code_stamp():
            return Index()
        announced = json.loads((place / "announcements.json").read_text(encoding="utf-8"))
        index = Index(others=dict(basis["others"]), basis=str(basis["basis"]))
        for path in (place / "known").glob("*.json"):
            entry = json.loads(path.read_text(encoding="utf-8"))
            index.hosts[path.stem] = Known(
                files=entry["files"],
                kind=entry["kind"],
                guests=entry["guests"],
                member=from_plain(Member, entry["member"]),
                claims=tuple(Claim(*claim) for claim in entry["claims"]),
                announcements=announced[path.stem],
            )
    except (OSError, ValueError, KeyError, TypeError):
        return Index()  # Another version wrote it, or it is incomplete: the run reads all hosts instead.
    return index


def save_index(
    place: Path, seen: Stamp, index: Index, before: Mapping[str, Known], templated: Collection[str]
) -> None:
    """Store the entries of ``index`` that differ from those stored ``before``.

    The hosts in ``templated`` are not stored, because the result of a template depends on more than files.
    For the same reason no host of an inventory that is a program is stored.
    """
    if index.hosts != before or not (place / "announcements.json").exists():
        announced = {host: entry.announcements for host, entry in index.hosts.items()}
        write_json(place / "announcements.json", announced)
    kept = {host: entry for host, entry in index.hosts.items() if seen.static and host not in templated}
    for path in (place / "known").glob("*.json"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    for host, entry in kept.items():
        if entry != before.get(host):
            write_json(place / "known" / f"{host}.json", _as_json(entry))
    write_json(
        place / "basis.json",
        {"code": _code_stamp(), "shared": seen.shared, "basis": index.basis, "others": index.others},
    )


def _as_json(entry: Known) -> dict[str, Any]:
    return {
        "files": entry.files,
        "kind": entry.kind,
        "guests": entry.guests,
        "member": as_plain(entry.member),
        "claims": [[claim.kind, claim.value, claim.field, claim.shared] for claim in entry.claims],
    }

"""From an inventory to the plans of the hosts that a run touches.

Ansible resolves a host's variables in about 10 ms when its file has a hundred guests, so a thousand hosts
take some ten seconds: right for a run that touches them all, far too long for the dozen runs a day that
touch one.  What a run needs to know of the hosts that it does *not* touch is small (the claims that must be
unique, and who peers with whom), so it is kept in an index (:mod:`l3hv.inventory.index`), host by host.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l3hv.intent.all_hosts import AllHosts
from l3hv.intent.claims import claims, clashes
from l3hv.inventory.ansible import Inventory, Options, open_inventory
from l3hv.inventory.files import MOST_STRAYS, Stamp, stamp, stray_problems, stray_sentences, strays
from l3hv.inventory.hosts import Reading, read_hosts, with_remedies
from l3hv.inventory.index import Index, Known, digest, load_index, save_index
from l3hv.model.choices import KINDS, Kind
from l3hv.model.errors import IntentError, Problem
from l3hv.model.plain import as_plain
from l3hv.model.text import natural_key
from l3hv.model.topology import Topology
from l3hv.plan.announcements import announcements
from l3hv.plan.host import host_plan
from l3hv.plan.machines import topology
from l3hv.plan.rules import rule_problems
from l3hv.run.files import write_json
from l3hv.run.removals import Removals, load_applied, removals

KEEP_RUNS_S = 24 * 3600


@dataclass(frozen=True)
class Run:
    """What :func:`read_fabric` left on disk, how large the fabric is, and what is worth a warning.

    ``plans`` is the directory of the plans, one JSON file for each host that the run touches.  ``applied`` is
    what :func:`l3hv.run.removals.record_applied` keeps in ``memory`` when the run has been applied;
    ``removals`` is what the run takes out of service.
    """

    plans: Path
    announcements: Path
    applied: Path
    memory: Path
    fabric: str
    hosts: int
    guests: int
    warnings: tuple[str, ...]
    removals: Removals


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for cyclic garbage: among the millions of objects of a large fabric each look takes longer.

    One host of 1,000 with 100 guests each took 2.6 s, and takes 1.2 s without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage()
def read_fabric(
    inventory: Inventory,
    touched: Collection[str],
    directory: Path,
    beside: Sequence[Path] = (),
    *,
    variant: str = "",
) -> Run:
    """Read and check the intent of the whole fabric, and write the plans of the hosts in ``touched``.

    ``directory`` keeps what belongs to each inventory, and to each ``variant`` of it (a twin, other extra
    variables), in a folder of its own; ``beside`` are the directories of playbooks, whose group_vars count
    too.  Raises IntentError with all problems before it writes anything.
    """
    place = directory / digest([*map(str, inventory.sources), *([variant] * bool(variant))])
    seen = stamp(inventory.sources, beside)
    unread = strays(seen, inventory.sources, inventory.groups["all"], inventory.groups)
    index = load_index(place, seen)

    kinds, problems = inventory.kinds()
    others, misplaced = inventory.others(kinds, seen.hosts, index.others)
    is_idle = kinds.keys().isdisjoint(touched)
    if is_idle:
        problems.append(_nothing_to_do(inventory, kinds, touched))
    if is_idle or misplaced:
        raise IntentError([*problems, *misplaced, *stray_problems(unread)])

    reading = _read(inventory, kinds, touched, seen, index)
    problems += with_remedies(reading.problems, inventory)
    if reading.common is None or problems:
        raise IntentError([*problems, *stray_problems(unread)])

    remembered = {
        host: entry for host, entry in index.hosts.items() if host in kinds and host not in reading.hosts
    }
    fabric = AllHosts.of(reading.common, reading.hosts, remembered)
    slices = {
        host: fabric.slice_of(intent, is_written=host in touched) for host, intent in reading.hosts.items()
    }
    problems += fabric.problems()
    problems += (problem for part in slices.values() for problem in rule_problems(part))
    before = load_applied(place / "applied")
    removed = removals(before, touched, kinds, fabric.guests)
    if problems or (unread and _lacks_something(kinds, before)):
        raise IntentError([*problems, *stray_problems(unread)])

    run = _run_directory(place)
    known = dict(remembered)
    for host, part in slices.items():
        plan = host_plan(part)
        if host in touched:
            write_json(run / "plans" / f"{host}.json", as_plain(plan))
        known[host] = Known(
            files=seen.hosts.get(host, {}),
            kind=plan.kind,
            guests=len(part.host.guests),
            member=fabric.members[host],
            claims=fabric.claims[host],
            announcements=announcements(plan),
        )
    save_index(place, seen, Index(known, others, reading.basis), index.hosts, reading.templated)
    write_json(run / "applied.json", fabric.left_by(touched))
    os.link(place / "announcements.json", run / "announcements.json")
    return Run(
        plans=run / "plans",
        announcements=run / "announcements.json",
        applied=run / "applied.json",
        memory=place / "applied",
        fabric=fabric.common.fabric,
        hosts=len(known),
        guests=sum(host.guests for host in known.values()),
        warnings=tuple(stray_sentences(unread)),
        removals=removed,
    )


def read_topology(
    *sources: Path, options: Options | None = None, override: Mapping[str, object] | None = None
) -> Topology:
    """Read an inventory whole and return the machines and guests to cable.

    ``override`` are variables of the intent that all hosts have whatever the inventory says.  Raises
    IntentError with every problem of the intent.
    """
    inventory = open_inventory(*sources, options=options)
    kinds, problems = inventory.kinds()
    if not kinds:
        problems.append(_nothing_to_do(inventory, kinds, ()))
    problems += inventory.others(kinds, {}, {})[1]
    reading = read_hosts(inventory, kinds, kinds, override)
    problems += reading.problems
    if reading.common is not None and not problems:
        claimed = {host: claims(intent) for host, intent in reading.hosts.items()}
        problems += clashes(claimed, reading.common)
    if problems:
        raise IntentError(problems)
    return topology(reading.hosts.values())


def _read(
    inventory: Inventory, kinds: Mapping[str, Kind], touched: Collection[str], seen: Stamp, index: Index
) -> Reading:
    """Read the hosts that the run touches, those that have changed, and the reflectors.

    Reflectors are few, and the announcements of all others depend on them: where these have changed, all
    hosts are read.
    """
    wanted = [
        host
        for host, kind in kinds.items()
        if host in touched
        or kind == "route_reflector"
        or host not in index.hosts
        or not index.hosts[host].is_fresh(kind, seen.hosts.get(host))
    ]
    reading = read_hosts(inventory, kinds, wanted)
    rest = [host for host in kinds if host not in reading.seen]
    if rest and reading.basis != index.basis:
        return read_hosts(inventory, kinds, [*wanted, *rest])
    return reading


def _nothing_to_do(inventory: Inventory, kinds: Collection[str], touched: Collection[str]) -> Problem:
    """Return why a run would do nothing: the inventory has no fabric, or --limit leaves nothing of it."""
    if kinds:
        hosts = sorted(set(touched) & set(inventory.groups["all"]), key=natural_key)
        return Problem(
            "inventory",
            "--limit",
            "",
            f"{', '.join(hosts[:MOST_STRAYS]) or 'None of the hosts'} is not in {', '.join(KINDS)}.",
            "Limit the run to hosts of the fabric.",
        )
    close = [
        f"{group} for {near[0]}"
        for group in sorted(set(inventory.groups) - {"all", "ungrouped"})
        if (near := difflib.get_close_matches(group, KINDS, n=1))
    ]
    named = f" The inventory has {', '.join(close)}." if close else ""
    sources = ", ".join(map(str, inventory.sources)) or "no inventory"
    return Problem(
        "inventory",
        "groups",
        "",
        f"No host of {sources} is in a group of the fabric.{named}",
        f"Put hosts into {', '.join(KINDS)}, or name another inventory with -i.",
    )


def _lacks_something(kinds: Mapping[str, Kind], before: Collection[str]) -> bool:
    """Tell whether the fabric has no hypervisor or reflector, or lost a host since the last run."""
    return any(host not in kinds for host in before) or not {"hypervisor", "route_reflector"} <= set(
        kinds.values()
    )


def _run_directory(place: Path) -> Path:
    """Return a directory of this run's own: another one, with other extra variables, may be under way.

    Those of runs that ended long ago are removed.
    """
    runs = place / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > KEEP_RUNS_S:
                shutil.rmtree(old, ignore_errors=True)  # another run may remove it as well
    return Path(tempfile.mkdtemp(dir=runs))

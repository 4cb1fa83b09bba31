"""The steps from an inventory to the plans of the hosts that a run touches.

Ansible resolves the variables of a host with a hundred guests in about 10 ms, so a thousand hosts take about
ten seconds.  That is acceptable for a run that touches all hosts, and too long for the many runs that touch
one.  A run needs few facts about the hosts that it does *not* touch (their claims, which must be unique, and
their part in BGP sessions): an index (:mod:`l3hv.inventory.index`) stores these facts for each host.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l3hv.intent.all_hosts import AllHosts
from l3hv.intent.claims import claims, clashes
from l3hv.intent.links import link_problems
from l3hv.intent.neighbors import member
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
from l3hv.run.memory import without_garbage_collection
from l3hv.run.outside import outdated, outdated_sentences, peer_digests
from l3hv.run.removals import Removals, load_applied, removals

KEEP_RUNS_S = 24 * 3600


@dataclass(frozen=True)
class Run:
    """The result of :func:`read_fabric`: the files that it wrote, the size of the fabric, and warnings.

    ``plans`` is the directory of the plans, one JSON file for each host that the run touches.  ``applied`` is
    the file that :func:`l3hv.run.removals.record_applied` copies to the directory ``memory`` once the run has
    been applied.  ``removals`` are the hosts and guests that the run takes out of service, and ``outdated``
    are sentences about hosts outside of the run that have to change with it.
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
    outdated: tuple[str, ...]


@without_garbage_collection()
def read_fabric(
    inventory: Inventory,
    touched: Collection[str],
    directory: Path,
    beside: Sequence[Path] = (),
    *,
    variant: str = "",
) -> Run:
    """Read and check the intent of the whole fabric, and write the plans of the hosts in ``touched``.

    ``directory`` has a folder for each inventory, and for each ``variant`` of it (a twin, other extra
    variables).  ``beside`` are the directories of playbooks, whose group_vars and host_vars apply too.

    Raises IntentError with all problems before it writes anything.
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
    problems += (problem for host_slice in slices.values() for problem in rule_problems(host_slice))
    before = load_applied(place / "applied")
    removed = removals(before, touched, kinds, fabric.guests)
    needed = (
        {"hypervisor"}
        if reading.common.is_mesh or reading.common.has_links
        else {"hypervisor", "route_reflector"}
    )
    if problems or (unread and _is_incomplete(kinds, before, needed)):
        raise IntentError([*problems, *stray_problems(unread)])

    run = _run_directory(place)
    known = dict(remembered)
    digests = {}
    for host, host_slice in slices.items():
        plan = host_plan(host_slice)
        if plan.managed and reading.common.checks_announcements(host_slice.host):
            only = None if host in touched else touched
            digests[host] = peer_digests(plan, fabric.owners_for(host_slice.host), only)
        if host in touched:
            write_json(run / "plans" / f"{host}.json", as_plain(plan))
        known[host] = Known(
            files=seen.hosts.get(host, {}),
            kind=plan.kind,
            guests=len(host_slice.host.guests),
            member=fabric.members[host],
            claims=fabric.claims[host],
            announcements=announcements(plan),
        )
    save_index(place, seen, Index(known, others, reading.basis), index.hosts, reading.templated)
    state = fabric.state_after_run(touched)
    with_peers = {host: {**entry, "peers": digests.get(host, {})} for host, entry in state.items()}
    write_json(run / "applied.json", with_peers)
    recorded = {host: applied.peers for host, applied in before.items()}
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
        outdated=tuple(outdated_sentences(outdated(recorded, digests, touched, kinds))),
    )


def read_topology(
    *sources: Path, options: Options | None = None, override: Mapping[str, object] | None = None
) -> Topology:
    """Read a whole inventory and return the machines and guests to cable.

    ``override`` replaces variables of the inventory on all hosts.  Raises IntentError with every problem of
    the intent.
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
        members = {host: member(intent) for host, intent in reading.hosts.items()}
        problems += link_problems(reading.common, members)
    if problems:
        raise IntentError(problems)
    return topology(reading.hosts.values(), reading.common)


def _read(
    inventory: Inventory, kinds: Mapping[str, Kind], touched: Collection[str], seen: Stamp, index: Index
) -> Reading:
    """Read the hosts that the run touches, the hosts that have changed, and the reflectors.

    Reflectors are few, and the announcements of all other hosts depend on them: if a reflector or a common
    fact has changed, all hosts are read.  They are read, too, in a mesh, where each host depends on all
    others, and if the run touches a DHCP server, whose configuration has the guests of all hypervisors.
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
    serves_dhcp = any(
        intent.settings.serves_dhcp_at is not None
        for host, intent in reading.hosts.items()
        if host in touched
    )
    is_mesh = reading.common is not None and (reading.common.is_mesh or reading.common.has_links)
    if rest and (serves_dhcp or is_mesh or reading.basis != index.basis):
        return read_hosts(inventory, kinds, [*wanted, *rest])
    return reading


def _nothing_to_do(inventory: Inventory, kinds: Collection[str], touched: Collection[str]) -> Problem:
    """Return the problem of a run without hosts: the inventory has no fabric, or --limit excludes it."""
    if kinds:
        hosts = sorted(set(touched) & set(inventory.groups["all"]), key=natural_key)
        selected = f": it selects {', '.join(hosts[:MOST_STRAYS])}" if hosts else ""
        return Problem(
            "inventory",
            "--limit",
            "",
            f"The run has no host of {', '.join(KINDS)}{selected}.",
            "Limit the run to hosts of the fabric.",
        )
    similar = [
        f" It has the group {group}: did you mean {close[0]}?"
        for group in sorted(set(inventory.groups) - {"all", "ungrouped"})
        if (close := difflib.get_close_matches(group, KINDS, n=1))
    ]
    sources = ", ".join(map(str, inventory.sources)) or "no inventory"
    return Problem(
        "inventory",
        "groups",
        "",
        f"No host of {sources} is in a group of the fabric.{''.join(similar)}",
        f"Put hosts into {', '.join(KINDS)}, or name another inventory with -i.",
    )


def _is_incomplete(kinds: Mapping[str, Kind], before: Collection[str], needed: set[str]) -> bool:
    """Tell whether the fabric has no host of a kind that it needs, or has lost a host since the last run."""
    return any(host not in kinds for host in before) or not needed <= set(kinds.values())


def _run_directory(place: Path) -> Path:
    """Return a new directory for this run: another run, with other extra variables, may be in progress.

    Directories of runs that are older than :data:`KEEP_RUNS_S` seconds are removed.
    """
    runs = place / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > KEEP_RUNS_S:
                shutil.rmtree(old, ignore_errors=True)  # another run may remove it at the same time
    return Path(tempfile.mkdtemp(dir=runs))

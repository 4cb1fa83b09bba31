"""Measures planning: from the intent of a whole fabric to its plans and every file that site.yml would place.

It runs the code of a real run without the machines: the reader of inventories, the planner, and the roles'
templates as site.yml calls them, with two workers.  It compares the cost per hypervisor with the cost in a
fabric of a tenth of the size, measured at the same time.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.plugins.filter import core, mathstuff
from jinja2.nativetypes import NativeEnvironment
from jinja2.utils import missing

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "src"))
sys.path.append(str(ROOT / "bench"))
sys.path.append(str(ROOT / "plugins" / "action"))

from config_files import ASK, Context, template_at, texts  # noqa: E402 - the action plugin that renders in a run
from fabric import write_inventory  # noqa: E402 - beside this file

from l3hv.inventory.ansible import open_inventory  # noqa: E402 - after the path is set
from l3hv.inventory.read import Run, read_fabric  # noqa: E402 - after the path is set

WORKERS = 2


@dataclass(frozen=True)
class Figures:
    """The cost of one fabric, in seconds of wall time, MiB and bytes."""

    hypervisors: int
    guests: int
    read_s: float
    render_s: float
    files: int
    size: int
    limited_s: float
    peak_mib: float

    @property
    def total_s(self) -> float:
        return self.read_s + self.render_s

    @property
    def per_hypervisor_ms(self) -> float:
        return 1000 * self.total_s / self.hypervisors


def file_sets(kind: str) -> list[tuple[Path, dict[str, Any], Any]]:
    """Return the file sets that site.yml places on a host of ``kind``: role, variables, entries."""
    import yaml

    plays = yaml.safe_load((ROOT / "site.yml").read_text(encoding="utf-8"))
    bound = yaml.safe_load((ROOT / "playbooks/vars/roles.yml").read_text(encoding="utf-8"))
    group = {
        "hypervisor": "hypervisors",
        "route_reflector": "route_reflectors",
        "edge_router": "edge_routers",
    }[kind]
    sets = []
    for play in plays:
        if group not in str(play.get("hosts", "")):
            continue
        for entry in play.get("roles", ()):
            call = {"role": entry} if isinstance(entry, str) else entry
            role = ROOT / "roles" / call["role"]
            variables: dict[str, Any] = {}
            for part in ("defaults", "vars"):
                path = role / part / "main.yml"
                if path.exists():
                    variables.update(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            variables.update(bound)
            for task in yaml.safe_load((role / "tasks" / "main.yml").read_text(encoding="utf-8")):
                if "config_files" in task and (kind == "hypervisor" or "when" not in call):
                    sets.append((role, variables, task["config_files"].get("files", [])))
    return sets


def render(plan: dict[str, Any], sets: list[tuple[Path, dict[str, Any], Any]]) -> tuple[int, int]:
    """Render every file of one host and return their number and their size in bytes."""
    files = size = 0
    for role, variables, entries in sets:
        values = {**variables, "l3hv_plan": plan, "l3hv_routing": plan["routing"]}
        values["ansible_managed"] = "bench"

        def ask(key: str, values: dict[str, Any] = values) -> Any:
            return resolved(values[key], ask) if key in values else missing

        for entry in resolved(entries, ask):
            source = str(entry["src"])
            if not source.endswith(".j2") or not entry.get("when", True):
                continue
            path = role / "templates" / source
            template = template_at(str(path), str(role / "templates"), str(path.parent))
            printed = texts(template, str(entry.get("as", "item")), entry.get("each", [{}]), ask)
            files += len(printed)
            size += sum(map(len, printed))
    return files, size


@functools.cache
def expression(text: str) -> Any:
    """Return the compiled form of a role's variable that is an expression."""
    environment = NativeEnvironment()
    environment.context_class = Context
    environment.filters.update({**core.FilterModule().filters(), **mathstuff.FilterModule().filters()})
    return environment.from_string(text)


def resolved(value: Any, ask: Any) -> Any:
    """Resolve a role's variable. The benchmark leaves out Ansible's own resolution."""
    if isinstance(value, str):
        return expression(value).render({ASK: ask}) if "{{" in value else value
    if isinstance(value, list):
        return [resolved(item, ask) for item in value]
    if isinstance(value, dict) and "host" not in value:  # a plan has no expressions
        return {key: resolved(item, ask) for key, item in value.items()}
    return value


def plan_and_render(arguments: tuple[Path, list[str]]) -> tuple[int, int]:
    """Render the files of a worker's hosts from their plans; return their number and their size in bytes."""
    plans, hosts = arguments
    sets: dict[str, Any] = {}
    files = size = 0
    for host in hosts:
        plan = json.loads((plans / f"{host}.json").read_text(encoding="utf-8"))
        kind = plan["kind"]
        if kind not in sets:
            sets[kind] = file_sets(kind)
        count, length = render(plan, sets[kind])
        files, size = files + count, size + length
    return files, size


def measure(directory: Path, hypervisors: int, guests: int) -> Figures:
    """Plan a fabric of this size without an index, and then one host of it with the index."""
    inventory_path = directory / f"inventory-{hypervisors}"
    inventory_path.mkdir()
    write_inventory(inventory_path, hypervisors, guests)
    started = time.monotonic()
    inventory = open_inventory(inventory_path)
    kinds, _ = inventory.kinds()
    run: Run = read_fabric(inventory, kinds, directory / "fabric")
    read = time.monotonic() - started

    hosts = list(kinds)
    shares = [(run.plans, hosts[start::WORKERS]) for start in range(WORKERS)]
    started = time.monotonic()
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        results = pool.map(plan_and_render, shares)
    rendered = time.monotonic() - started

    # A limited run: it reads the variables of one host, and the others from the index.
    inventory = open_inventory(inventory_path)
    started = time.monotonic()
    run = read_fabric(inventory, {hosts[len(hosts) // 2]}, directory / "fabric")
    plan_and_render((run.plans, [hosts[len(hosts) // 2]]))
    limited = time.monotonic() - started
    this_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Figures(
        hypervisors=hypervisors,
        guests=guests,
        read_s=read,
        render_s=rendered,
        files=sum(count for count, _ in results),
        size=sum(length for _, length in results),
        limited_s=limited,
        peak_mib=max(this_process, workers) / 1024,
    )


def main() -> None:
    """Measure two sizes, each in a process of its own, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hypervisors", type=int, default=1000)
    parser.add_argument("--guests", type=int, default=100)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        with tempfile.TemporaryDirectory() as directory:
            figures = measure(Path(directory), arguments.only, arguments.guests)
        print(json.dumps(figures.__dict__))
        return

    sizes = [max(arguments.hypervisors // 10, 1), arguments.hypervisors]
    figures_by_size = []
    for size in sizes:
        print(f"planning {size} hypervisors with {arguments.guests} guests each ...", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, __file__, "--only", str(size), "--guests", str(arguments.guests)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        figures_by_size.append(Figures(**json.loads(done.stdout)))
    small, large = figures_by_size
    print(
        "| hypervisors | guests each | read, check (s) | plan, render (s) "
        "| files | MiB written | one host (s) | peak MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in figures_by_size:
        print(
            f"| {row.hypervisors} | {row.guests} | {row.read_s:.1f} | {row.render_s:.1f} | {row.files} "
            f"| {row.size / 2**20:.1f} | {row.limited_s:.2f} | {row.peak_mib:.0f} |"
        )
    ratio = large.per_hypervisor_ms / small.per_hypervisor_ms
    print(
        f"\nPer hypervisor: {large.per_hypervisor_ms:.1f} ms, {ratio:.2f} × the cost at {small.hypervisors}; "
        f"{large.total_s:.0f} s in all."
    )


if __name__ == "__main__":
    main()

"""Reads and checks the intent of a fabric on the controller, and writes the plan of each host."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.template import Templar
from ansible.utils.vars import load_extra_vars

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.inventory.ansible import OPTIONS, PREFIX, Inventory, plain
from l3hv.inventory.read import Run, read_fabric
from l3hv.model.choices import KINDS
from l3hv.model.errors import IntentError
from l3hv.run.actions import ControllerAction
from l3hv.run.identity import describe_run, environment, lease_seconds
from l3hv.run.removals import Removals

# The reactions of a run that would take hosts and guests out of service.
IGNORE, REPORT, REFUSE = "ignore", "report", "refuse"


def build_directories(tree: Path, chosen: str) -> Iterator[Path]:
    """Yield the directories for a run's files on the controller, the best one first.

    The project's tree may be read-only (an execution environment), and then the home directory may be, too.
    """
    if chosen:
        yield Path(chosen).expanduser()
        return
    yield tree / "build"
    yield Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "l3hv"
    yield Path(tempfile.gettempdir()) / f"l3hv-{os.getuid()}"


def build_directory(tree: Path, chosen: str) -> Path:
    """Return the first of :func:`build_directories` that this user can write to."""
    reasons = []
    for directory in build_directories(tree, chosen):
        try:
            directory.mkdir(mode=0o755 if directory.parent == tree else 0o700, parents=True, exist_ok=True)
            # Refuse a directory of another user in /tmp.
            if directory.parent == Path(tempfile.gettempdir()) and directory.lstat().st_uid != os.getuid():
                raise PermissionError(1, f"it belongs to the user {directory.lstat().st_uid}")
            with tempfile.TemporaryFile(dir=directory):
                return directory
        except OSError as error:
            reasons.append(f"{directory} ({error.strerror})")
    raise AnsibleActionFail(
        f"No directory for the plans can be written: {', '.join(reasons)}."
        " Name one with -e l3hv_build=DIRECTORY."
    )


class ActionModule(ControllerAction):
    """Run once for a play; ``removals`` is the reaction to hosts and guests that the run would remove."""

    def act(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the paths of the written files, or fail with all problems of the intent together."""
        hostvars = task_vars["hostvars"]
        given = plain(load_extra_vars(self._loader))
        inventory = Inventory(
            groups=task_vars["groups"],
            raw=hostvars.raw_get,
            template=lambda raw, value: Templar(
                loader=self._loader, variables={**raw, "hostvars": hostvars}
            ).template(value),
            sources=tuple(Path(str(source)) for source in task_vars["ansible_inventory_sources"] or ()),
            extra=frozenset(given),
        )
        build = build_directory(Path(__file__).resolve().parents[2], str(given.get("l3hv_build") or ""))
        # A twin or extra variables change the intent of an inventory: such runs have files of their own.
        variant = {key: given[key] for key in sorted(given) if key.startswith(PREFIX) and key not in OPTIONS}
        touched = [str(host) for host in task_vars["ansible_play_hosts_all"]]
        try:
            run = read_fabric(
                inventory,
                touched=touched,
                directory=build / "fabric",
                beside=(Path(str(task_vars["playbook_dir"])),),
                variant=json.dumps(variant) if variant else "",
            )
        except IntentError as error:
            # The output names the intent in its summary, not the host that reads it for all.
            raise AnsibleActionFail(str(error), result={"intent_is_refused": True}) from None
        policy = str(self._task.args.get("removals", IGNORE))
        result = {**self._facts(run, build), "warnings": list(run.warnings)}
        # The parent of this worker is ansible-playbook.
        result["run"] = describe_run(
            command(inventory), os.getppid(), self._lease(task_vars["groups"], touched)
        )
        result["environment"] = environment(run.fabric, result["run"])
        if policy != IGNORE:
            result["warnings"] += [*run.removals.sentences(), *run.outdated]
        if policy == REFUSE and run.removals.needs_consent:
            refusal = refusal_of(run.removals, given.get("l3hv_removals"))
            if refusal and not context.CLIARGS.get("check"):
                raise AnsibleActionFail("\n".join([refusal, *run.removals.sentences()]))
            if refusal:
                result["warnings"].append(refusal)
        return result

    @staticmethod
    def _lease(groups: Mapping[str, Iterable[str]], touched: Collection[str]) -> int:
        """Return the lease of this run's locks in seconds, by the number of hosts that it may change."""
        numbers = {kind: len(set(touched).intersection(groups.get(kind, ()))) for kind in KINDS}
        return lease_seconds(
            reflectors=numbers.pop("route_reflectors"),
            clients=sum(numbers.values()),
            forks=int(context.CLIARGS.get("forks") or 1),
        )

    @staticmethod
    def _facts(run: Run, build: Path) -> dict[str, Any]:
        return {
            "changed": False,
            "plans": str(run.plans),
            "announcements": str(run.announcements),
            "applied": str(run.applied),
            "memory": str(run.memory),
            "build": str(build),
            "fabric": run.fabric,
            "hosts": run.hosts,
            "guests": run.guests,
        }


def command(inventory: Inventory) -> str:
    """Return the text by which an operator recognises this run: playbooks, inventories and --limit."""
    playbooks = [Path(str(name)).name for name in context.CLIARGS.get("args") or ()]
    words = [*playbooks, *(f"-i {source}" for source in inventory.sources)]
    limit = context.CLIARGS.get("subset")
    return " ".join([*words, *([f"--limit {limit}"] if limit else [])])


def refusal_of(removals: Removals, consent: object) -> str:
    """Return the refusal of a run that removes too much; "" if ``consent`` is the number of removals."""
    if str(consent) == str(removals.count):
        return ""
    given = "" if consent is None else f" l3hv_removals is {consent}."
    return (
        f"This run removes {removals.totals()}: more than a fifth of the"
        f" {' and of the '.join(removals.exceeding())} that the last run left.{given}"
        f" To confirm this, add -e l3hv_removals={removals.count}."
    )

"""Compares the observations of a play's hosts with their plans, and reports the differences."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.utils.color import stringc
from ansible.utils.display import Display

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.inventory.ansible import plain
from l3hv.model.plain import from_plain
from l3hv.model.plan import HostPlan
from l3hv.run.actions import ControllerAction
from l3hv.run.memory import without_garbage_collection
from l3hv.verify import subjects
from l3hv.verify.causes import Group, groups
from l3hv.verify.check import Check, Kind, failures
from l3hv.verify.compare import compare, wait_conditions
from l3hv.verify.fabric import Fabric
from l3hv.verify.find import absent_guests
from l3hv.verify.packets import check_packets, standing_twin
from l3hv.verify.ranges import with_clients, with_names
from l3hv.verify.report import Report
from l3hv.verify.report.entry import entry_of
from l3hv.verify.report.files import write_reports
from l3hv.verify.report.table import table

NAMED = 3
REASON_WIDTH = 160
SETTLE_SECONDS = 20


class ActionModule(ControllerAction):
    """Run once for a play, after ``l3hv_observe`` on each of its hosts.

    The fact ``l3hv_plan`` of each host is its plan, which its observation has read, too.
    ``announcements`` is the file with the announcements of all hosts.  ``observed`` names the variables in
    which the hosts' observations are registered, the latest first.  Without ``is_final`` hosts that differ
    are returned as ``again``, with the conditions that the next observation should wait for.  ``report`` is
    the directory for reports (none if it is empty), and ``report_name`` a directory in it for this fabric.
    With ``packets`` guests send packets if the hosts are machines of a twin.
    """

    _supports_check_mode = True

    @without_garbage_collection()
    def act(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``again``; if it is empty, also the counts, and a line for each host that differs."""
        started = time.monotonic()
        arguments = self._task.args
        results = PlayResults(task_vars, arguments["observed"])
        announced = json.loads(Path(str(arguments["announcements"])).read_text(encoding="utf-8"))
        seen = results.observations()
        plans = {host: from_plain(HostPlan, results.variable(host, "l3hv_plan")) for host in seen}
        absent = {host: absent_guests(plans[host], observation) for host, observation in seen.items()}
        fabric = Fabric(announced, absent)
        plans = {host: with_clients(plan, fabric) for host, plan in plans.items()}
        seen = {host: with_names(plans[host], observation) for host, observation in seen.items()}
        least = fabric.without_guests_of(announced.keys() - seen.keys())
        checks = results.failed_checks()
        for host, observation in seen.items():
            checks += compare(plans[host], observation, fabric, least)
        differing = [check for check in failures(checks) if check.host in seen]
        if differing and not arguments.get("is_final", False):
            return {
                "changed": False,
                "again": hosts_to_observe_again(differing, plans, fabric, silent_daemons(seen)),
                "different": {},
            }

        inventory = [str(source) for source in task_vars["ansible_inventory_sources"]]
        if arguments.get("packets", False):
            twin = standing_twin(*results.twin())
            if twin is not None:
                checks += check_packets(*twin, plans, announced)
        report = Report(
            inventory=", ".join(inventory),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started + results.longest_seconds(), 1),
            checks=tuple(checks),
            groups=tuple(groups(checks, plans, fabric, silent_daemons(seen))),
        )
        Display().display(table(report, stringc, is_verbose=Display().verbosity > 0))
        if arguments.get("report"):
            write_reports(
                report, plans.values(), Path(str(arguments["report"])), str(arguments.get("report_name", ""))
            )
        different = results.by_host(report.groups)
        return {"changed": False, "again": {}, "counts": report.counts(), "different": different}


def hosts_to_observe_again(
    differing: Iterable[Check], plans: Mapping[str, HostPlan], fabric: Fabric, silent: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the hosts that differ, each with the conditions and times that its next observation waits for.

    The first observation has waited for sessions: if one is still down, more waiting does not help.
    """
    has_session_down: dict[str, bool] = dict.fromkeys(silent, True)
    for check in differing:
        is_down = check.kind is Kind.SESSION
        has_session_down[check.host] = has_session_down.get(check.host, False) or is_down
    return {
        host: {**wait_conditions(plans[host], fabric), "settle": 0 if is_down else SETTLE_SECONDS}
        for host, is_down in has_session_down.items()
    }


def silent_daemons(seen: Mapping[str, Any]) -> set[str]:
    """Return the hosts whose routing daemon does not answer."""
    return {host for host, observation in seen.items() if "error" in observation["routing"]}


class PlayResults:
    """The results of ``l3hv_observe`` that the hosts of the running play have registered."""

    def __init__(self, variables: Mapping[str, Any], names: list[str]) -> None:
        self._hostvars = variables["hostvars"]
        self._names = [str(name) for name in names]
        self._hosts = [str(host) for host in variables["ansible_play_hosts_all"]]

    def variable(self, host: str, name: str) -> Any:
        """Return a variable of a host as plain data."""
        return plain(self._hostvars[host][name])

    def twin(self) -> tuple[str | None, str]:
        """Return the twin's name, if the twin started the run, and the SSH arguments of the first host."""
        variables = self._hostvars[self._hosts[0]]
        return variables.get("l3hv_twin"), str(variables.get("ansible_ssh_common_args", ""))

    def observations(self) -> dict[str, Any]:
        """Return the latest observation of each host that was observed."""
        return {
            host: latest["observation"] for host in self._hosts if (latest := self._latest(host)) is not None
        }

    def longest_seconds(self) -> float:
        """Return the seconds that the slowest observation took."""
        return max((latest["seconds"] for host in self._hosts if (latest := self._latest(host))), default=0.0)

    def failed_checks(self) -> list[Check]:
        """Return a failed check for each host that could not be observed."""
        return [
            Check(host, Kind.OBSERVATION, subjects.Host(), "possible", self._reason(host), "failed")
            for host in self._hosts
            if self._latest(host) is None
        ]

    def by_host(self, found: Iterable[Group]) -> dict[str, str]:
        """Return one line for each host of the play that is not as planned; the table has the details."""
        names: dict[str, list[str]] = {}
        causes: dict[str, Check] = {}
        for group in found:
            names.setdefault(group.check.host, []).append(entry_of(group.check).what)
            for check in group.follows:
                causes.setdefault(check.host, group.check)
        lines = {
            host: f"{host} is not as planned: {', '.join(what[:NAMED])}"
            + (f" and {len(what) - NAMED} more" if len(what) > NAMED else "")
            for host, what in names.items()
        }
        followed = {
            host: f"{host} is not as planned: this follows from {cause.host}: {entry_of(cause).what}"
            for host, cause in causes.items()
        }
        return followed | lines

    def _latest(self, host: str) -> dict[str, Any] | None:
        """Return the latest observation of a host and its duration, or None."""
        for name in self._names:
            result = self._hostvars[host].get(name, {})
            if "observation" in result:
                return {"observation": plain(result["observation"]), "seconds": float(result["seconds"])}
        return None

    def _reason(self, host: str) -> str:
        """Return the reason why a host has no observation."""
        results = (self._hostvars[host].get(name, {}) for name in self._names)
        reason = next(
            (str(result["msg"]) for result in results if "msg" in result),
            "a task of this run failed on this host; its error is above",
        )
        return textwrap.shorten(reason.removeprefix("Task failed: "), REASON_WIDTH, placeholder=" …")

"""Prints the output of a run: the tasks that change something or fail, and a summary at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as DefaultOutput

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))

from l3hv.model.text import counted, first_of, natural_key

DOCUMENTATION = r"""
name: l3hv_output
type: stdout
short_description: Print tasks with changes or failures, and a summary
description:
  - Prints what P(ansible.builtin.default#callback) prints, but no line for a host
    on which a task changes nothing.
  - At the end it prints a summary of hosts, changes, verification and time instead of one line for each host.
  - With C(-v) it prints everything that P(ansible.builtin.default#callback) does.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

VERIFYING_PLAYBOOK = "site.yml"
"""The playbook that ends with the verification of its hosts, unless it stops before."""

MOST_HOSTS = 20
"""Maximum number of hosts in a list."""

UNCHANGED = "l3hv_left_unchanged"
"""The statistic (`set_stats`) of a host that a run left unchanged: the clients that could not be updated."""

CHECKED_ARGUMENTS = "ansible.builtin.validate_argument_spec"


class CallbackModule(DefaultOutput):
    """Print the tasks that change something or fail, and a summary."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "l3hv_output"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._changes: dict[str, dict[str, None]] = {}
        self._failures: dict[str, str] = {}
        self._counts: Mapping[str, int] | None = None
        self._should_verify = False
        self._is_intent_refused = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._should_verify = Path(playbook._file_name).name == VERIFYING_PLAYBOOK
        super().v2_playbook_on_start(playbook)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._task_start(task, prefix="WOULD RUN HANDLER" if _is_check() else "RUNNING HANDLER")

    def v2_runner_on_ok(self, result: Any) -> None:
        host = result.host.get_name()
        if result.result.get("changed"):
            self._changes.setdefault(host, {})[_place(result.task)] = None
        counts = result.result.get("counts")
        if result.task.action == "l3hv_verify" and counts:
            self._counts = counts
        if self._is_worth_a_line(result):
            reasons = result.result.get("reasons") or []
            super().v2_runner_on_ok(result)
            if self._display.verbosity == 0:
                for reason in reasons:
                    self._display.display(f"  {reason}", color=C.COLOR_CHANGED)
        elif result.task.action != CHECKED_ARGUMENTS and self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._is_worth_a_line(result):
            super().v2_runner_item_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        host = result.host.get_name()
        # A loop that fails may have changed something before.
        if any(item.get("changed") and not item.get("failed") for item in result.result.get("results", ())):
            self._changes.setdefault(host, {})[_place(result.task)] = None
        if not ignore_errors:
            self._failures[host] = result.task.get_name()
        if result.result.get("intent_is_refused"):
            self._is_intent_refused = True
            # Ansible would print the problems a second time, with the line of the playbook. The problems name
            # the host and the field themselves.
            result.result.pop("exception", None)
        super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._failures[result.host.get_name()] = "unreachable"
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._display.verbosity > 0:
            super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._display.verbosity > 0:
            super().v2_playbook_on_stats(stats)
        self._display.banner("SUMMARY")
        for subject, words, colour in self._summary(stats):
            self._display.display(f"{subject:<14}{words}", color=colour)

    def _is_worth_a_line(self, result: Any) -> bool:
        """Tell whether a result has more to show than that the host did not change."""
        return bool(
            self._display.verbosity > 0
            or result.result.get("changed")
            or result.result.get("warnings")
            or result.result.get("deprecations")
            or result.task.action in C._ACTION_DEBUG
        )

    def _summary(self, stats: Any) -> Iterable[tuple[str, str, str | None]]:
        hosts = sorted(stats.processed, key=natural_key)
        failed = [host for host in hosts if host in self._failures and _has_failed(stats.summarize(host))]
        changed = [host for host in hosts if self._changes.get(host)]
        numbers = [f"{len(changed)} {'would change' if _is_check() else 'changed'}"]
        # If the intent is refused, the host that has read it for all is not to blame.
        listed = [] if self._is_intent_refused else failed
        numbers += [f"{len(listed)} failed"] * bool(listed)
        yield "hosts", f"{len(hosts)}: {', '.join(numbers)}", C.COLOR_ERROR if failed else None
        for host in changed[:MOST_HOSTS]:
            yield f"  {host}", f"changes by {', '.join(self._changes[host])}", C.COLOR_CHANGED
        if len(changed) > MOST_HOSTS:
            more = changed[MOST_HOSTS:]
            yield (
                "",
                f"changes on {counted(len(more), 'more host')}: {first_of(more, MOST_HOSTS)}",
                C.COLOR_CHANGED,
            )
        for host in hosts:
            if clients := stats.custom.get(host, {}).get(UNCHANGED):
                clients = first_of(clients, MOST_HOSTS)
                yield f"  {host}", f"left unchanged: {clients} could not be updated", C.COLOR_WARN
        if self._is_intent_refused:
            yield "intent", "refused: its problems are listed above", C.COLOR_ERROR
        for host in listed[:MOST_HOSTS]:
            yield f"  {host}", f"failed: {self._failures[host]}", C.COLOR_ERROR
        if len(listed) > MOST_HOSTS:
            more = listed[MOST_HOSTS:]
            yield "", f"{counted(len(more), 'more host')} failed: {first_of(more, MOST_HOSTS)}", C.COLOR_ERROR
        if self._counts is not None:
            bad = self._counts.get("failed", 0)
            words = f"{counted(self._counts.get('ok', 0), 'check')} ok, {bad or 'none'} failed"
            if warnings := self._counts.get("warning", 0):
                words += f", {counted(warnings, 'warning')}"
            yield "verification", words, C.COLOR_ERROR if bad else C.COLOR_OK
        elif self._should_verify:
            yield "verification", f"not done: {_reason_without_verification(bool(failed))}", C.COLOR_WARN
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        yield "time", f"{minutes} min {seconds} s" if minutes else f"{seconds} s", None


def _is_check() -> bool:
    return bool(context.CLIARGS.get("check"))


def _reason_without_verification(has_failed: bool) -> str:
    """Return the reason why a run of the playbook did not verify its hosts."""
    if _is_check():
        return "this is check mode"
    if has_failed:
        return "the run failed before"
    if list(context.CLIARGS.get("tags") or ["all"]) != ["all"] or context.CLIARGS.get("skip_tags"):
        return "--tags or --skip-tags leaves it out"
    return "no host of the run is managed by l3hv"


def _place(task: Any) -> str:
    """Return the role of a task, or the name of a task without a role."""
    role = task._role
    return str(role.get_name()) if role else str(task.get_name())


def _has_failed(counts: Mapping[str, int]) -> bool:
    return bool(counts["failures"] or counts["unreachable"])

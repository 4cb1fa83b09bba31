#!/usr/bin/python
"""Takes or releases the lock of a fabric on one of its hosts: two simultaneous runs would undo each other."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.l3hv.write_errors import unwritable

DOCUMENTATION = r"""
module: l3hv_lock
short_description: Take or release the lock of a fabric on a host
description:
  - One run at a time may change a host. Its lock is a file in C(/run/l3hv) that names the run.
    A reboot removes it.
  - The module P(config_files#module) renews the lock of its run. Nothing else shows that a run on another
    controller is alive, so a lock lapses if it is not renewed for C(lease) seconds. The lease is part of the
    lock, because the number of hosts of a run decides how long it may work on other hosts.
  - The action plugin of the same name takes the lock of a run on this controller that has ended.
  - Without root the module refuses before it changes anything.
options:
  run:
    description: The run, as P(l3hv_intent#module) describes it.
    type: dict
    required: true
  fabric:
    description: The name of the fabric.
    type: str
    required: true
  state:
    description: V(released) removes the lock if it is this run's.
    type: str
    choices: [held, released]
    default: held
  instead_of:
    description: The id of a run that has ended and whose lock is taken over.
    type: str
  force:
    description: Take the lock even if another run holds it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: The lock is read, and neither taken nor released.
author: [l3hv]
"""

EXAMPLES = r"""
- name: Take the lock of the host
  l3hv_lock:
    fabric: "{{ l3hv_run.fabric }}"
    run: "{{ l3hv_run.run }}"
"""

RETURN = r"""
holder:
  description: The run that holds the lock, if it is another one.
  returned: always
  type: dict
l3hv_lock:
  description: The lock, for the callback plugin that releases the locks of a failed run.
  returned: if it was taken or released
  type: dict
refusal:
  description: The reason why the run may not change this host; empty if it may.
  returned: always
  type: str
"""

DIRECTORY = "/run/l3hv"
GUARD = ".guard"
"""The file that a process locks while it reads and changes the lock files. Only root can open it."""
GUARD_S = 30
"""The maximum wait for the guard: another process needs it for milliseconds."""
LEASE_S = 1800
"""The lease of a lock that names none."""
TEXTS = ("id", "owner", "host", "since", "command")
"""The fields that identify a run. A file without one of them is not from this module."""


class Busy(Exception):
    """Another process holds the guard. str() is the message for the operator."""


class Unwritable(Exception):
    """A lock file or the guard cannot be written. str() is the message for the operator."""


@contextlib.contextmanager
def reporting_write_errors(path: str, done: str = "written") -> Iterator[None]:
    """Raise Unwritable if ``path`` cannot be ``done`` (written or removed)."""
    try:
        yield
    except OSError as error:
        raise Unwritable(f"{unwritable(path, error, done)}.") from error


@contextlib.contextmanager
def guarded(directory: str, wait: float = GUARD_S) -> Iterator[None]:
    """Hold the guard: no other process reads or changes the lock files of this host meanwhile.

    Other accounts cannot open the guard.  Otherwise they could lock it: flock(2) needs no write permission.
    """
    path = os.path.join(directory, GUARD)
    deadline = time.monotonic() + wait
    with reporting_write_errors(path):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(
                        f"A process of root has kept {path} locked for {wait:.0f} s. It is another run"
                        " of l3hv that hangs on this host, or a program that is not of l3hv:"
                        f" `fuser -v {path}` names it. End it, and run again."
                    ) from None
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


class Lock:
    """The lock file of a fabric, which names the run that may change this host."""

    def __init__(self, fabric: str, directory: str = DIRECTORY) -> None:
        self.directory = directory
        self.path = os.path.join(directory, f"{fabric}.lock")

    def holder(self) -> dict[str, Any] | None:
        """Return the run that holds the lock, with ``idle``, the seconds since its last renewal."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                run = json.load(stream)
                idle = time.time() - os.fstat(stream.fileno()).st_mtime
        except FileNotFoundError:
            return None
        except ValueError:
            run = None
        if not isinstance(run, dict) or not all(isinstance(run.get(key), str) for key in TEXTS):
            return None  # The file identifies no run, so it is no lock.
        lease = run.get("lease")
        return {
            **run,
            "idle": max(0, int(idle)),
            "lease": lease if isinstance(lease, int) and not isinstance(lease, bool) else LEASE_S,
        }

    def write(self, run: dict[str, Any]) -> None:
        with reporting_write_errors(self.path):
            descriptor, staged = tempfile.mkstemp(dir=self.directory)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(run, stream)
                    os.fchmod(stream.fileno(), 0o644)
                os.rename(staged, self.path)
            except BaseException:
                os.unlink(staged)
                raise

    def living_holder(self) -> dict[str, Any] | None:
        """Return the run that holds the lock, unless the lock has lapsed."""
        holder = self.holder()
        return None if holder is None or holder["idle"] > holder["lease"] else holder

    def take(
        self, run: dict[str, Any], instead_of: str | None = None, force: bool = False
    ) -> dict[str, Any] | None:
        """Give the lock to ``run``, or return the other run that holds a lock that has not lapsed."""
        with guarded(self.directory):
            holder = self.living_holder()
            if holder is None or force or holder["id"] in (run["id"], instead_of):
                self.write(run)
                return None
            return holder

    def release(self, run: dict[str, Any]) -> None:
        with guarded(self.directory):
            holder = self.holder()
            if holder is not None and holder["id"] == run["id"]:
                with reporting_write_errors(self.path, "removed"):
                    os.unlink(self.path)


def refusal(holder: dict[str, Any]) -> str:
    """Return the sentence for a host that is locked by ``holder``."""
    return (
        f"The host is locked: {holder['owner']} on {holder['host']} runs {holder['command']} since"
        f" {holder['since']}, and was active here {holder['idle']} s ago. Wait for that run. If it has died,"
        f" its lock lapses {holder['lease'] // 60} minutes after its last task; to break it now, run again"
        " with -e l3hv_break_lock=true."
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run": {"type": "dict", "required": True},
            "fabric": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
            "instead_of": {"type": "str"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    answer: dict[str, Any] = {"changed": False, "holder": None, "refusal": ""}
    if os.geteuid() != 0:
        user = pwd.getpwuid(os.geteuid()).pw_name
        answer["refusal"] = (
            f"The roles need root, and this run is {user} on the host. Set ansible_become: true for it"
            " (group_vars/all/connection.yml), run with --become, or connect as root."
        )
        module.exit_json(**answer)
    lock = Lock(parameters["fabric"])
    run = parameters["run"]
    if module.check_mode:
        answer["holder"] = lock.living_holder()
    elif parameters["state"] == "released":
        try:
            lock.release(run)
        except (Busy, Unwritable) as reason:
            module.fail_json(msg=str(reason))
        answer["l3hv_lock"] = {"fabric": parameters["fabric"], "id": run["id"], "is_held": False}
    else:
        try:
            answer["holder"] = lock.take(run, parameters["instead_of"], parameters["force"])
        except (Busy, Unwritable) as reason:
            module.exit_json(**{**answer, "refusal": str(reason)})
        if answer["holder"] is not None:
            answer["refusal"] = refusal(answer["holder"])
        else:
            answer["l3hv_lock"] = {"fabric": parameters["fabric"], "id": run["id"], "is_held": True}
    module.exit_json(**answer)


if __name__ == "__main__":
    main()

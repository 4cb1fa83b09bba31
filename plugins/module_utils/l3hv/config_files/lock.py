"""The lock of the run on this host, which each set of files renews."""

from __future__ import annotations

import contextlib
import glob
import json
import os

from ansible.module_utils.l3hv.config_files.refused import Refused

LOCKS = "/run/l3hv/*.lock"
"""The locks of the module l3hv_lock. Each names the run that may change this host."""

LOCK_TEXTS = ("id", "owner", "host", "command")
"""The texts of a lock that are read here."""


def renew_lock(run: str) -> None:
    """Show that ``run`` is alive where it has the lock of this host. Raises Refused where another run has it.

    Without a run (a role used alone) or without a lock (the host was rebooted) there is nothing to renew.
    """
    for path in glob.glob(LOCKS) if run else []:
        try:
            with open(path, encoding="utf-8") as stream:
                holder = json.load(stream)
        except (FileNotFoundError, ValueError):
            continue
        if not isinstance(holder, dict) or not all(isinstance(holder.get(key), str) for key in LOCK_TEXTS):
            continue  # The module l3hv_lock takes such a file for no lock, too.
        fabric = os.path.basename(path).removesuffix(".lock")
        if holder["id"] == run:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
        elif fabric == os.environ.get("L3HV_FABRIC"):
            raise Refused(
                f"this run has lost the lock of the host to {holder['owner']} on {holder['host']},"
                f" who runs {holder['command']}. Run again when that has ended."
            )

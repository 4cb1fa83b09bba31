"""The lock of the run on this host, which each set of files renews."""

from __future__ import annotations

import contextlib
import glob
import json
import os

from ansible.module_utils.l3hv.config_files.refused import Refused

LOCKS = "/run/l3hv/*.lock"
"""The lock files of the module l3hv_lock. Each names the run that may change this host."""

LOCK_TEXTS = ("id", "owner", "host", "command")
"""The fields of a lock that this module reads; all are texts."""


def renew_lock(run: str) -> None:
    """Renew the lock of this host if ``run`` holds it. Raises Refused if another run holds it.

    Without a run (a role used alone) or without a lock (after a reboot of the host) nothing is renewed.
    """
    for path in glob.glob(LOCKS) if run else []:
        try:
            with open(path, encoding="utf-8") as stream:
                holder = json.load(stream)
        except (FileNotFoundError, ValueError):
            continue
        if not isinstance(holder, dict) or not all(isinstance(holder.get(key), str) for key in LOCK_TEXTS):
            continue  # The module l3hv_lock ignores such a file, too.
        fabric = os.path.basename(path).removesuffix(".lock")
        if holder["id"] == run:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
        elif fabric == os.environ.get("L3HV_FABRIC"):
            raise Refused(
                f"this run has lost the lock of the host to {holder['owner']} on {holder['host']},"
                f" who runs {holder['command']}. Run again when that has ended."
            )

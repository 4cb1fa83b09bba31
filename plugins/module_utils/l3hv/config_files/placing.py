"""The placing of a set of files: ``state: present``."""

from __future__ import annotations

import glob
import os
from typing import Any

from ansible.module_utils.l3hv.config_files.config_set import ConfigSet
from ansible.module_utils.l3hv.config_files.diffs import diff
from ansible.module_utils.l3hv.config_files.files import File, Found, write_file
from ansible.module_utils.l3hv.config_files.refused import Refused
from ansible.module_utils.l3hv.config_files.validation import validate


def wanted_files(config: ConfigSet) -> dict[str, File]:
    """Return the files of the set by their paths. Raises Refused if one of them cannot be placed."""
    files: dict[str, File] = {}
    for given in config.module.params["files"]:
        file = File(given)
        if not os.path.isabs(file.dest) or os.path.normpath(file.dest) != file.dest:
            raise Refused(f"{file.dest} is not an absolute path in its plain form")
        if file.dest in files:
            raise Refused(f"{file.dest} is in the set {config.name} twice")
        if file.uid is None and not config.module.check_mode:
            raise Refused(
                f"{file.dest}: there is no user {file.owner} or no group {file.group} on this machine"
            )
        files[file.dest] = file
    return files


def place(config: ConfigSet) -> dict[str, Any]:
    """Check the files of the set, write the files that differ, and remove owned files that are not wanted."""
    wanted = wanted_files(config)
    owned = {
        path
        for pattern in config.module.params["owned"]
        for path in glob.glob(pattern)
        if not os.path.isdir(path)
    }
    found = {path: Found(path) for path in [*wanted, *sorted(owned - set(wanted))]}
    changed = [path for path in wanted if not found[path].equals(wanted[path])]
    removed = [path for path in found if path not in wanted]

    validate(
        [wanted[path] for path in changed if found[path].content != wanted[path].content],
        wanted,
        config.commands,
    )
    shown = [*changed, *removed] if config.module._diff else []
    diffs = [diff(path, found[path], wanted.get(path), config.commands.hide) for path in shown]

    reasons = []
    if config.transaction.broken:
        reasons.append(f"{config.transaction.record} cannot be read: the set is activated again")
    elif config.transaction.pending:
        reasons.append("an earlier change was not activated")
    if not (changed or removed or reasons):
        reasons += [f"{unit} is {state}" for unit, state in config.units.down().items()]
        if not reasons and (difference := config.running_difference()):
            reasons.append(difference)

    if not config.module.check_mode and (changed or removed or reasons):
        # If the record is lost, it is not known which files of the set are active.
        kept = [*wanted, *removed] if config.transaction.broken else [*changed, *removed]
        config.transaction.begin({path: found[path] for path in kept})
        try:
            for path in removed:
                config.remove(path)
            for path in changed:
                file = wanted[path]
                write_file(path, file.content, file.mode, file.uid, file.gid)
        except Refused as refusal:
            config.restore()
            raise Refused(f"{refusal}. The previous files are back.") from refusal
    return {
        "changed": bool(changed or removed or reasons),
        "changed_files": changed,
        "removed_files": removed,
        "reasons": reasons,
        "pending": bool(changed or removed or reasons),
        "diff": diffs,
    }

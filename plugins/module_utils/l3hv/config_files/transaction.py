"""The record of a change until it is active, with the previous files."""

from __future__ import annotations

import json
import os
import shutil

from ansible.module_utils.l3hv.config_files.files import Found, reporting_write_errors, write_file


class Transaction:
    """The files that have changed since the set was last active, and their previous content.

    ``files`` maps each path to its previous mode, uid and gid, or to ``None`` if there was no such file.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.record = os.path.join(directory, "transaction.json")
        self.pending = False
        self.broken = False
        self.files: dict[str, list[int] | None] = {}
        try:
            with open(self.record, encoding="utf-8") as stream:
                data = json.load(stream)
            self.pending, self.files = bool(data["pending"]), dict(data["files"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            # The record is lost: a change may wait for its activation.
            self.pending = self.broken = True

    def save(self) -> None:
        content = json.dumps({"pending": self.pending, "files": self.files}, indent=1, sort_keys=True)
        write_file(self.record, content.encode("utf-8"), 0o600, None, None)

    def begin(self, found: dict[str, Found]) -> None:
        """Keep the present files, or those before an earlier change that is not active yet."""
        with reporting_write_errors(self.directory):
            if not self.pending or self.broken:
                self.files = {}
                if found and os.path.isdir(self.directory):
                    shutil.rmtree(self.directory)
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        for path, state in found.items():
            if path in self.files:
                continue
            if state.exists and state.mode is not None:
                write_file(self.backup(path), state.content, 0o600, None, None)
                self.files[path] = [state.mode, state.uid, state.gid]
            else:
                self.files[path] = None
        self.pending, self.broken = True, False
        self.save()

    def backup(self, path: str) -> str:
        """Return the path of the previous content of a file."""
        return os.path.join(self.directory, path.lstrip("/"))

    def restore(self, path: str) -> None:
        """Write the previous file unless it is in place: a full file system may refuse every write."""
        with open(self.backup(path), "rb") as stream:
            content = stream.read()
        now, before = Found(path), self.files[path]
        assert before is not None, f"{path} did not exist"
        mode, uid, gid = before
        if (now.content, now.mode, now.uid, now.gid) != (content, mode, uid, gid):
            write_file(path, content, mode, uid, gid)

    def end(self) -> None:
        self.pending = False
        if os.path.isdir(self.directory):
            self.save()

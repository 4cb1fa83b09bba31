#!/usr/bin/python
"""Converges a set of configuration files and the units that read them, as one transaction."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import glob
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: config_files
short_description: Converge a set of configuration files as one transaction
description:
  - Renders templates on the controller and converges all files of a set in one remote task.
  - All files are checked before any is replaced. A file is replaced by a rename in its own directory.
    Files that match O(owned) and are no longer wanted are removed.
  - What was there before is kept below O(state_dir) until the next change, so that an activation that
    fails can go back.
  - O(state=present) places the files and reports a change. A handler with O(state=active) then runs
    the commands of O(activate). When one of them fails, the previous files are put back and activated, and
    the handler fails.
  - A change that was never activated, because the run was interrupted, is reported again by the next run.
options:
  set:
    description: The name of the set. It names the directory below O(state_dir).
    type: str
    required: true
  state:
    description:
      - V(present) places the files.
      - V(active) activates what V(present) placed, or goes back.
    type: str
    choices: [present, active]
    default: present
  files:
    description: The files of the set.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - A template in the role's C(templates) when the name ends in C(.j2), otherwise a file in its
            C(files), taken as it is.
          - Templates are rendered by Jinja itself, with the filter P(ansible.builtin.comment#filter) and the
            host's variables. They print, and decide nothing. What is undefined is an error. C(@digest@) in
            the result becomes a digest of the result, which a daemon can be asked for later.
        type: str
        required: true
      dest:
        description:
          - The absolute path on the machine. Missing parent directories are made with mode C(0755).
          - With O(files[].each), C({field}) is replaced by the field of the element.
        type: path
        required: true
      each:
        description: There is one file for each element of this list, and none where it is empty.
        type: list
        elements: dict
      as:
        description: The name of the element in the template.
        type: str
        default: item
      mode:
        description: The permission bits, as a quoted octal number.
        type: str
        default: '0644'
      owner:
        description: The user's name.
        type: str
        default: root
      group:
        description: The group's name.
        type: str
        default: root
      validate:
        description:
          - A command that refuses a bad file by its exit status. C(%s) is the path of the new content.
          - The other files of the set that belong into the same directory lie beside it, under their names.
          - With O(files[].each), C({field}) is replaced as in O(files[].dest).
          - In check mode it is left out where the program is not installed yet.
        type: str
      sensitive:
        description:
          - Neither a diff nor any other output shows what is, was or will be in the file.
          - Give it the mode C(0600): when it is removed that is what tells that it is not to be shown.
        type: bool
        default: false
  owned:
    description:
      - Glob patterns. Files that match one of them and are not in O(files) are removed.
      - Units among them are stopped first.
    type: list
    elements: str
    default: []
  units:
    description:
      - Units that must be enabled and active.
      - One that is not is a change, and is enabled and started by O(state=active).
    type: list
    elements: str
    default: []
  running:
    description:
      - A command that exits with 0 when what runs is what the files say. Asked when all files are in place.
      - After O(activate) it must come true within O(timeout).
    type: str
  activate:
    description:
      - Commands that make the files take effect, in this order, with O(state=active).
      - They find the paths that changed and those that were removed, one per line, in the environment
        variables E(CONFIG_FILES_CHANGED) and E(CONFIG_FILES_REMOVED).
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: The command.
        type: str
        required: true
      changed:
        description:
          - Glob patterns.
          - The command is left out when no path that changed or was removed matches one of them.
        type: list
        elements: str
      early:
        description: Run it before O(units) are enabled and started, for what has to make room for them.
        type: bool
        default: false
  timeout:
    description: How many seconds O(units) may take to be up, and O(running) to come true.
    type: int
    default: 15
  secrets:
    description: Values that are replaced by asterisks in diffs and messages.
    type: list
    elements: str
    default: []
  hidden:
    description:
      - A regular expression. What matches it in a line is not shown by any diff of the set, be the file ours,
        written by somebody else in the meantime, or removed.
      - For secrets that others put into files that have none of ours; see O(files[].sensitive) for those.
    type: str
  state_dir:
    description: Where the previous content of each set is kept. Only root can read it.
    type: path
    default: /var/lib/l3hv/previous
attributes:
  check_mode:
    support: full
    description: Files are rendered, compared and checked; nothing is changed.
  diff_mode:
    support: full
    description: One diff per file; a change of mode or owner is shown in its header.
author: [l3hv]
"""

EXAMPLES = r"""
- name: Describe the guest ports
  config_files:
    set: guest_ports
    files:
      - src: port.network.j2
        dest: /etc/systemd/network/05-l3hv-port-{interface}.network
        each: "{{ guest_ports_guests }}"
        as: guest
    owned: [/etc/systemd/network/05-l3hv-port-*.network]
    units: [systemd-networkd.service]
  notify: Apply the guest ports

# handlers/main.yml
- name: Apply the guest ports
  config_files:
    set: guest_ports
    state: active
    units: [systemd-networkd.service]
    activate:
      - command: networkctl reload
"""

RETURN = r"""
changed_files:
  description: Paths that were or would be written, or get another mode or owner.
  returned: always
  type: list
  elements: str
removed_files:
  description: Paths that were or would be removed.
  returned: always
  type: list
  elements: str
pending:
  description: Whether something waits for a handler with O(state=active).
  returned: always
  type: bool
reasons:
  description: Why the set is reported as changed, where it is not a file that differs.
  returned: always
  type: list
  elements: str
"""

UNIT_DIRECTORY = "/etc/systemd/system/"
UP = ("active", "reloading")
STARTS_AT_BOOT = ("enabled", "enabled-runtime", "static", "indirect", "generated")
COMMAND_SECONDS = 300
"""How long a command may take: a daemon that hangs must not hang the run. The roles' programs wait less."""

UNIT_SUFFIXES = (".service", ".socket", ".target", ".timer", ".path")
STAGED = ".config_files"
"""What the name of a file ends in until it replaces another one."""
MOST_OF_NAME = 200
"""How many characters of a file's name its temporary name has: 255 bytes are the limit."""
LEFT_OVER_S = 3600
LOCKS = "/run/l3hv/*.lock"
"""Where the module l3hv_lock keeps which run may change this host."""
LOCK_TEXTS = ("id", "owner", "host", "command")
"""What is read of a lock here."""


class Refused(Exception):
    """A sentence for the operator, and what the program that refused said."""

    def __init__(self, sentence: str, output: str = "") -> None:
        super().__init__(sentence)
        self.output = output


class File:
    """One file as it is wanted."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.dest: str = given["dest"]
        self.is_sensitive: bool = given["content"] is None
        self.content: bytes = given["secret_content" if self.is_sensitive else "content"].encode("utf-8")
        self.validate: str | None = given["validate"]
        self.mode = int(given["mode"], 8)
        self.owner, self.group = given["owner"], given["group"]
        self.uid: int | None
        self.gid: int | None
        try:
            self.uid, self.gid = pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError:
            # In check mode on a bare machine the package that brings the user is not installed.
            self.uid = self.gid = None


class Found:
    """One file as it is: ``None`` fields when it is not there."""

    def __init__(self, path: str) -> None:
        self.content: bytes | None
        self.mode: int | None
        self.uid: int | None
        self.gid: int | None
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.content = self.mode = self.uid = self.gid = None
            return
        self.mode, self.uid, self.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                self.content = stream.read()
        else:  # a link, say to /dev/null: replaced by a file, never followed
            self.content = b""
            self.mode = None

    @property
    def exists(self) -> bool:
        return self.content is not None

    def attributes(self) -> str:
        return f"{'-' if self.mode is None else format(self.mode, '04o')} {self.uid}:{self.gid}"

    def is_as(self, wanted: File) -> bool:
        return (
            self.content == wanted.content
            and self.mode == wanted.mode
            and wanted.uid in (None, self.uid)
            and wanted.gid in (None, self.gid)
        )


def unwritable(path: str, error: OSError, done: str) -> str:
    """Return which file cannot be ``done`` (written, removed) on which host, why, and what to do.

    l3hv_lock.py and config_files.py have the same function: each module is sent to the host as one file.
    """
    sentence = f"{path} cannot be {done} on {os.uname().nodename}: {error.strerror}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return sentence
    directory = path
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    show = f"`findmnt --target {directory}`, `df -h {directory}` and `df -i {directory}` show its file system"
    remedy = "make room"
    if error.errno == errno.EROFS:
        remedy = "look at `journalctl -k` for errors of the disk before it is mounted writable"
    return f"{sentence}. {show}: {remedy}, and run again"


@contextlib.contextmanager
def reporting_write_errors(path: str, done: str = "written") -> Iterator[None]:
    """Raise Refused where ``path`` cannot be ``done``: written, or removed."""
    try:
        yield
    except OSError as error:
        raise Refused(unwritable(path, error, done)) from error


def write_file(path: str, content: bytes, mode: int, uid: int | None, gid: int | None) -> None:
    """Replace ``path`` by a rename, so that a reader sees the old or the new content and nothing else."""
    directory, name = os.path.split(path)
    with reporting_write_errors(path):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        remove_left_over(directory)
        # A hidden name: systemd, sysctl.d, rt_tables.d and dnsmasq's directories ignore those. Each process
        # has one of its own: two that shared it would put each other's unfinished file in place.
        descriptor, staged = tempfile.mkstemp(dir=directory, prefix=f".{name[:MOST_OF_NAME]}.", suffix=STAGED)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchown(stream.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.rename(staged, path)
        except BaseException:
            if os.path.lexists(staged):
                os.unlink(staged)
            raise


@functools.cache
def remove_left_over(directory: str) -> None:
    """Remove what processes that were killed while they wrote have left, once for each directory."""
    for staged in glob.glob(os.path.join(glob.escape(directory), f".*{STAGED}")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(staged).st_mtime > LEFT_OVER_S:
                os.unlink(staged)


def matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def is_of_started_units(command: str, started: list[str]) -> bool:
    """Whether a command restarts or reloads units that were just started, with the files as they are now.

    A second start would only cost what the first has done meanwhile, such as a lease given by dnsmasq.
    """
    words = shlex.split(command)
    units = {*words[2:]}
    return (
        words[:2] in (["systemctl", "restart"], ["systemctl", "reload"])
        and units != set()
        and units <= {*started}
    )


class Transaction:
    """What changed since the set was last active, and what was there before.

    ``files`` maps each path to the mode, uid and gid it had, or to ``None`` when there was no such file.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.record = os.path.join(directory, "transaction.json")
        self.pending = False
        self.is_broken = False
        self.files: dict[str, list[int] | None] = {}
        try:
            with open(self.record, encoding="utf-8") as stream:
                data = json.load(stream)
            self.pending, self.files = bool(data["pending"]), dict(data["files"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            # Whether something waits for its activation, and what was there before it, is lost.
            self.pending = self.is_broken = True

    def save(self) -> None:
        content = json.dumps({"pending": self.pending, "files": self.files}, indent=1, sort_keys=True)
        write_file(self.record, content.encode("utf-8"), 0o600, None, None)

    def begin(self, found: dict[str, Found]) -> None:
        """Keep what is there now; while a change waits for its activation, what was there before *that*."""
        with reporting_write_errors(self.directory):
            if not self.pending or self.is_broken:
                self.files = {}
                if found and os.path.isdir(self.directory):
                    shutil.rmtree(self.directory)
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        for path, state in found.items():
            if path in self.files:
                continue
            if state.exists and state.mode is not None:
                write_file(self.kept(path), state.content, 0o600, None, None)
                self.files[path] = [state.mode, state.uid, state.gid]
            else:
                self.files[path] = None
        self.pending, self.is_broken = True, False
        self.save()

    def kept(self, path: str) -> str:
        return os.path.join(self.directory, path.lstrip("/"))

    def put_back(self, path: str) -> None:
        """Write what was there before, unless it still is: that needs room, which may be lacking."""
        with open(self.kept(path), "rb") as stream:
            content = stream.read()
        now = Found(path)
        if (now.content, now.mode, now.uid, now.gid) != (content, *self.files[path]):
            write_file(path, content, *self.files[path])

    def end(self) -> None:
        self.pending = False
        if os.path.isdir(self.directory):
            self.save()


class ConfigFiles:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        parameters = module.params
        self.name = parameters["set"]
        self.units = parameters["units"]
        self.running = parameters["running"]
        self.hidden = re.compile(parameters["hidden"], re.MULTILINE) if parameters["hidden"] else None
        self.secrets = sorted(filter(None, parameters["secrets"]), key=len, reverse=True)
        self.transaction = Transaction(os.path.join(parameters["state_dir"], self.name))

    # -- what both states share ---------------------------------------------------------------

    def scrub(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "********")
        return text

    def hide(self, text: str) -> str:
        return self.scrub(self.hidden.sub("(not shown)", text) if self.hidden else text)

    def run(self, command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        code, out, err = self.limited(shlex.split(command), environment)
        return code, self.scrub((out + err).strip())

    def limited(self, words: list[str], environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Run a command for COMMAND_SECONDS at most; a sentence precedes the output of one that was ended."""
        began = time.monotonic()
        code, out, err = self.module.run_command(
            ["timeout", "--kill-after=10", str(COMMAND_SECONDS), *words], environ_update=environment or {}
        )
        # The exit status does not tell: a command may end with 124 itself, and SIGKILL gives another one.
        if code != 0 and time.monotonic() - began >= COMMAND_SECONDS:
            out = f"it did not end within {COMMAND_SECONDS} s on {os.uname().nodename}. {out}"
        return code, out, err

    def unit_states(self) -> dict[str, tuple[str, str]]:
        """Return, by unit, what systemd says of it now (`active` ...) and at boot (`enabled` ...)."""
        if not self.units:
            return {}
        code, out, err = self.limited(
            ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *self.units]
        )
        if code != 0:
            raise Refused(f"systemctl show {shlex.join(self.units)}: {(out + err).strip()}")
        states = {}
        for unit, block in zip(self.units, out.strip().split("\n\n"), strict=True):
            facts = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            states[unit] = (
                facts.get("ActiveState") or "missing",
                facts.get("UnitFileState") or "not enabled",
            )
        return states

    def units_down(self) -> dict[str, str]:
        """Return each unit that is not enabled or not active, with what it is instead."""
        return {
            unit: now if now not in UP else boot
            for unit, (now, boot) in self.unit_states().items()
            if now not in UP or boot not in STARTS_AT_BOOT
        }

    # -- present ------------------------------------------------------------------------------

    def wanted(self) -> dict[str, File]:
        files: dict[str, File] = {}
        for given in self.module.params["files"]:
            file = File(given)
            if not os.path.isabs(file.dest) or os.path.normpath(file.dest) != file.dest:
                raise Refused(f"{file.dest} is not an absolute path in its plain form")
            if file.dest in files:
                raise Refused(f"{file.dest} is in the set {self.name} twice")
            if file.uid is None and not self.module.check_mode:
                raise Refused(
                    f"{file.dest}: there is no user {file.owner} or no group {file.group} on this machine"
                )
            files[file.dest] = file
        return files

    def validate(self, files: list[File], wanted: dict[str, File]) -> None:
        """Check ``files``, each beside its neighbours among the ``wanted``, which it may include."""
        with reporting_write_errors(self.module.tmpdir):
            directory = tempfile.mkdtemp(prefix="config_files.", dir=self.module.tmpdir)
        try:
            for number, file in enumerate(files):
                if not file.validate:
                    continue
                if "%s" not in file.validate:
                    raise Refused(f"{file.dest}: validate has no %s for the path of the new content")
                words = shlex.split(file.validate)
                if self.module.check_mode and shutil.which(words[0]) is None:
                    continue
                beside = os.path.join(directory, str(number))
                for path, other in wanted.items():
                    if os.path.dirname(path) == os.path.dirname(file.dest):
                        write_file(
                            os.path.join(beside, os.path.basename(path)), other.content, 0o600, None, None
                        )
                staged = os.path.join(beside, os.path.basename(file.dest))
                code, out, err = self.limited([word.replace("%s", staged) for word in words])
                if code != 0:
                    output = self.scrub((out + err).strip().replace(staged, file.dest))
                    raise Refused(
                        f"{words[0]} refuses the new {file.dest}; nothing was changed: {output}", output
                    )
        finally:
            shutil.rmtree(directory)

    def diff(self, path: str, found: Found, file: File | None) -> dict[str, str]:
        def side(content: bytes | None) -> str:
            return self.hide(content.decode("utf-8", "replace")) if content is not None else ""

        # Of a file that is removed nobody says any more that it is sensitive, but its mode does.
        if file.is_sensitive if file else found.mode is not None and not found.mode & 0o077:
            became = "removed" if file is None else "changed" if found.exists else "new"
            return {"prepared": f"--- {path}\n+++ {path} ({became}; it holds secrets and is not shown)\n"}
        if file is None:
            return {
                "before_header": path,
                "after_header": f"{path} (removed)",
                "before": side(found.content),
                "after": "",
            }
        headers = [path, path]
        if found.exists and (
            found.mode != file.mode or file.uid not in (None, found.uid) or file.gid not in (None, found.gid)
        ):
            headers = [f"{path} ({found.attributes()})", f"{path} ({file.mode:04o} {file.uid}:{file.gid})"]
            if found.content == file.content:
                return {"prepared": f"--- {headers[0]}\n+++ {headers[1]}\n"}
        elif not found.exists:
            headers[1] = f"{path} (new)"
        return {
            "before_header": headers[0],
            "after_header": headers[1],
            "before": side(found.content),
            "after": side(file.content),
        }

    def remove(self, path: str) -> None:
        """Remove a file of ours; a unit is stopped and disabled while systemd still knows how."""
        if (
            path.startswith(UNIT_DIRECTORY)
            and os.path.dirname(path) + "/" == UNIT_DIRECTORY
            and path.endswith(UNIT_SUFFIXES)
        ):
            self.limited(["systemctl", "disable", "--now", os.path.basename(path)])
        if os.path.lexists(path):
            with reporting_write_errors(path, "removed"):
                os.unlink(path)

    def present(self) -> dict[str, Any]:
        wanted = self.wanted()
        owned = {
            path
            for pattern in self.module.params["owned"]
            for path in glob.glob(pattern)
            if not os.path.isdir(path)
        }
        found = {path: Found(path) for path in [*wanted, *sorted(owned - set(wanted))]}
        changed = [path for path in wanted if not found[path].is_as(wanted[path])]
        removed = [path for path in found if path not in wanted]

        self.validate(
            [wanted[path] for path in changed if found[path].content != wanted[path].content], wanted
        )
        shown = [*changed, *removed] if self.module._diff else []
        diff = [self.diff(path, found[path], wanted.get(path)) for path in shown]

        reasons = []
        if self.transaction.is_broken:
            reasons.append(f"{self.transaction.record} cannot be read: the set is activated again")
        elif self.transaction.pending:
            reasons.append("an earlier change was not activated")
        if not (changed or removed or reasons):
            reasons += [f"{unit} is {state}" for unit, state in self.units_down().items()]
            if not reasons and (difference := self.difference_from_what_runs()):
                reasons.append(difference)

        if not self.module.check_mode and (changed or removed or reasons):
            # Where the record is lost, no file of the set is known to be in force.
            kept = [*wanted, *removed] if self.transaction.is_broken else [*changed, *removed]
            self.transaction.begin({path: found[path] for path in kept})
            try:
                for path in removed:
                    self.remove(path)
                for path in changed:
                    file = wanted[path]
                    write_file(path, file.content, file.mode, file.uid, file.gid)
            except Refused as refusal:
                self.put_back()
                raise Refused(f"{refusal}. The previous files are back.") from refusal
        return {
            "changed": bool(changed or removed or reasons),
            "changed_files": changed,
            "removed_files": removed,
            "reasons": reasons,
            "pending": bool(changed or removed or reasons),
            "diff": diff,
        }

    # -- active -------------------------------------------------------------------------------

    def activation(self) -> None:
        """Make the files take effect. Raises Refused with the first thing that does not work."""
        changed = [path for path in self.transaction.files if os.path.lexists(path)]
        removed = [path for path in self.transaction.files if not os.path.lexists(path)]
        environment = {
            "CONFIG_FILES_CHANGED": "\n".join(changed),
            "CONFIG_FILES_REMOVED": "\n".join(removed),
        }
        commands = {
            early: [
                given["command"]
                for given in self.module.params["activate"]
                if given["early"] == early
                and (
                    given["changed"] is None
                    or any(matches(path, given["changed"]) for path in self.transaction.files)
                )
            ]
            for early in (True, False)
        }
        if any(path.startswith(UNIT_DIRECTORY) for path in self.transaction.files):
            self.perform("systemctl daemon-reload", environment)
        for command in commands[True]:
            self.perform(command, environment)
        states = self.unit_states()
        masked = [unit for unit, (_, boot) in states.items() if boot.startswith("masked")]
        if masked:
            self.perform(f"systemctl unmask --quiet {shlex.join(masked)}", environment)
            self.perform(f"systemctl unmask --quiet --runtime {shlex.join(masked)}", environment)
            states = self.unit_states()
        # One that failed too often is not started before that is forgotten.
        failed = [unit for unit, (now, _) in states.items() if now == "failed"]
        if failed:
            self.perform(f"systemctl reset-failed {shlex.join(failed)}", environment)
        # Only those that need it: `enable` enables what a unit names in Also=, too.
        started = [unit for unit, (now, _) in states.items() if now not in UP]
        for verb, units in (
            ("enable --quiet", [unit for unit, (_, boot) in states.items() if boot not in STARTS_AT_BOOT]),
            ("start", started),
        ):
            if units:
                self.perform(f"systemctl {verb} {shlex.join(units)}", environment)
        for command in commands[False]:
            if not is_of_started_units(command, started):
                self.perform(command, environment)
        self.wait_for(self.units_that_do_not_stay_up)
        self.wait_for(self.difference_from_what_runs)

    def perform(self, command: str, environment: dict[str, str]) -> None:
        code, output = self.run(command, environment)
        if code != 0:
            raise Refused(f"`{command}` failed: {output}{self.journal(command)}", output)

    def wait_for(self, complaint: Callable[[], str]) -> None:
        """Wait until there is no complaint any more. Raises Refused with it when it takes too long."""
        deadline = time.monotonic() + self.module.params["timeout"]
        while text := complaint():
            if time.monotonic() > deadline:
                raise Refused(text, text)
            time.sleep(0.1)

    def units_that_do_not_stay_up(self) -> str:
        if not self.units:
            return ""
        if not self.units_down():
            # A daemon that ends while it reads its configuration is up for a moment, too.
            time.sleep(0.3)
        states = ", ".join(f"{unit} is {state}" for unit, state in self.units_down().items())
        return f"{states}{self.journal()}" if states else ""

    def difference_from_what_runs(self) -> str:
        if not self.running:
            return ""
        code, output = self.run(self.running)
        return "" if code == 0 else f"what runs is not what the files say: {output}"

    def journal(self, command: str = "") -> str:
        """Return the last lines of units that are down, and of those that a command of systemctl names."""
        program, *words = shlex.split(command) or [""]
        told = [word for word in words if word.endswith(UNIT_SUFFIXES)] if program == "systemctl" else []
        lines = []
        for unit in dict.fromkeys([*told, *self.units_down()]):
            out = self.limited(
                ["journalctl", "--unit", unit, "--lines", "8", "--no-pager", "--output", "cat"]
            )[1]
            lines.append(f"\n{unit}:\n{self.scrub(out.strip())}")
        return "".join(lines)

    def put_back(self) -> None:
        for path, attributes in self.transaction.files.items():
            if attributes is None:
                self.remove(path)
            else:
                self.transaction.put_back(path)

    def outcome_of_going_back(self) -> str:
        """Activate the previous files; tell what came of it."""
        if not any(self.transaction.files.values()):
            return "There was nothing before them, and there is nothing now"
        try:
            self.activation()
        except Refused as second:
            return f"The previous files are back, but {second}"
        return "The previous files are back and active"

    def active(self) -> dict[str, Any]:
        nothing = {
            "changed": False,
            "changed_files": [],
            "removed_files": [],
            "reasons": [],
            "pending": self.transaction.pending,
        }
        if not self.transaction.pending or self.module.check_mode:
            return {**nothing, "changed": self.transaction.pending}
        try:
            self.activation()
        except Refused as refusal:
            if not self.transaction.files:
                raise Refused(
                    f"The set {self.name} is as it should be, but {refusal}", refusal.output
                ) from refusal
            self.put_back()
            outcome = self.outcome_of_going_back()
            self.transaction.end()
            raise Refused(
                f"The new files of the set {self.name} were refused: {refusal}. {outcome}.", refusal.output
            ) from refusal
        self.transaction.end()
        return {**nothing, "changed": True, "changed_files": list(self.transaction.files), "pending": False}


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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "set": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "active"], "default": "present"},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    # The action plugin renders `src`, `each` and `as` into `dest` and `content`.
                    "dest": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "secret_content": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0644"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "validate": {"type": "str"},
                },
            },
            "owned": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "running": {"type": "str"},
            "activate": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "str", "required": True},
                    "changed": {"type": "list", "elements": "str"},
                    "early": {"type": "bool", "default": False},
                },
            },
            "timeout": {"type": "int", "default": 15},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "hidden": {"type": "str"},
            "state_dir": {"type": "path", "default": "/var/lib/l3hv/previous"},
        },
        supports_check_mode=True,
    )
    try:
        if not module.check_mode:
            renew_lock(os.environ.get("L3HV_RUN", ""))
        files = ConfigFiles(module)
        result = files.present() if module.params["state"] == "present" else files.active()
    except Refused as refusal:
        module.fail_json(msg=str(refusal), output=refusal.output, changed=False)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

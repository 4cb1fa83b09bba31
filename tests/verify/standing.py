"""A standing twin of the lab, which the tests verify without Ansible, because that is faster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrics import lab

from l3hv.model.plain import as_plain
from l3hv.model.plan import HostPlan
from l3hv.plan.announcements import announcements
from l3hv.twin import power
from l3hv.twin.state import Twin
from l3hv.verify.check import Check, Kind
from l3hv.verify.compare import compare, wait_conditions
from l3hv.verify.fabric import Fabric
from l3hv.verify.find import absent_guests
from l3hv.verify.report.entry import Entry, entry_of

REPOSITORY = Path(__file__).resolve().parents[2]
WITH_RECAP = {"ANSIBLE_STDOUT_CALLBACK": "default"}
"""Ansible's own output, which has a line for each host at the end."""
LEARNED = {Kind.LEARNED, Kind.RECEIVED, Kind.SENT}
PLUGINS = REPOSITORY / "plugins"

# Runs the code of the module without Ansible, of which only main() uses imports.
# The first line of the input has the module's files; the directory is removed after the imports.
# Each further line is a request: a Python process with finished imports answers ten times faster.
RUNNER = """
import json, pathlib, sys, tempfile, types
basic = types.ModuleType("ansible.module_utils.basic")
basic.AnsibleModule = basic.missing_required_lib = None
for name in ("ansible", "ansible.module_utils"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[basic.__name__] = basic
module = types.ModuleType("l3hv_observe")
with tempfile.TemporaryDirectory() as directory:
    for path, text in json.loads(sys.stdin.readline()).items():
        file = pathlib.Path(directory, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    sys.modules["ansible.module_utils"].__path__ = [f"{directory}/module_utils"]
    text = pathlib.Path(directory, "modules/l3hv_observe.py").read_text(encoding="utf-8")
    exec(compile(text, "l3hv_observe.py", "exec"), module.__dict__)
for line in sys.stdin:
    print(json.dumps(module.observe(*json.loads(line))), flush=True)
"""


def module_files() -> dict[str, str]:
    """Return the texts of the module and of its imports, by their paths below ``plugins``."""
    paths = [PLUGINS / "modules/l3hv_observe.py", *PLUGINS.glob("module_utils/**/*.py")]
    return {str(path.relative_to(PLUGINS)): path.read_text(encoding="utf-8") for path in paths}


@dataclass
class Standing:
    """The lab in the twin ``name``, and the plans that it was provisioned from."""

    name: str

    def __post_init__(self) -> None:
        self.twin = Twin(self.name, print)
        self._observers: dict[str, Observer] = {}
        self.plans: dict[str, HostPlan] = lab()
        self.announced = {host: announcements(plan) for host, plan in self.plans.items()}

    def run(self, machine: str, script: str) -> str:
        """Run a shell script in a machine; it must succeed."""
        command = power.inside(power.leader(self.twin, machine), ["sh", "-c", script])
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{machine}: {script}: {done.stdout}{done.stderr}"
        return done.stdout

    def verb(self, *words: str) -> None:
        """Run one verb of ``./twin``; it must succeed."""
        verb, *rest = words
        subprocess.run(
            [str(REPOSITORY / "twin"), verb, "--name", self.name, *rest], check=True, capture_output=True
        )

    def playbook(self, name: str, *options: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a playbook against the standing twin; return its result, also if it fails."""
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(REPOSITORY / "inventories" / "lab")),
            *("-e", f"@{self.twin.directory / 'vars.json'}"),
            *options,
            name,
        ]
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=os.environ | WITH_RECAP,
        )

    def observe(self, host: str, seconds: float = 0, **wait: Any) -> dict[str, Any]:
        """Return the observation of the module on ``host``."""
        arguments = [as_plain(self.plans[host]), seconds, wait.get("learned", {}), wait.get("received", {})]
        return dict(json.loads(self._observer(host).ask(arguments)))

    def close(self) -> None:
        """End the observing processes."""
        for observer in self._observers.values():
            observer.process.kill()
            observer.process.communicate()

    def _observer(self, host: str) -> Observer:
        leader = power.leader(self.twin, host)
        known = self._observers.get(host)
        if known is None or known.leader != leader:
            command = power.inside(leader, ["python3", "-c", RUNNER])
            pipes = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            known = self._observers[host] = Observer(leader, pipes)
            known.send(module_files())
        return known

    def look(self, host: str) -> list[Entry]:
        """Return the checks of one host with their texts, as a run with ``--limit`` does."""
        return [entry_of(check) for check in self._checks(host)]

    def _checks(self, host: str) -> list[Check]:
        """Return the checks of one host; failed checks of routes are repeated once."""
        plan = self.plans[host]
        seen = self.observe(host)
        fabric = Fabric(self.announced, {host: absent_guests(plan, seen)})
        least = fabric.without_guests_of(self.announced.keys() - {host})
        checks = compare(plan, seen, fabric, least)
        if all(check.passes or check.kind not in LEARNED for check in checks):
            return checks
        return compare(plan, self.observe(host, **wait_conditions(plan, fabric)), fabric, least)

    def failing(self, host: str) -> set[str]:
        """Return the names of the checks of ``host`` that fail."""
        return {check.what for check in self.look(host) if not check.passes}

    def wait_until_failing(self, host: str, wanted: set[str], seconds: float = 15) -> set[str]:
        """Return the failed checks of ``host`` once they include ``wanted``, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (wanted <= (failing := self.failing(host))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return failing

    def await_whole(self, *hosts: str, seconds: float = 30) -> None:
        """Wait until no check of ``hosts`` fails."""
        deadline = time.monotonic() + seconds
        while failing := self.all_failing(*hosts):
            assert time.monotonic() < deadline, failing
            time.sleep(0.1)

    def all_failing(self, *hosts: str) -> dict[str, set[str]]:
        """Return the failed checks of each of ``hosts`` that has one."""
        with ThreadPoolExecutor(len(hosts)) as pool:
            found = dict(zip(hosts, pool.map(self.failing, hosts), strict=True))
        return {host: failing for host, failing in found.items() if failing}


@dataclass
class Observer:
    """A Python process in a machine that has loaded the module; ``leader`` is the machine's first process."""

    leader: int
    process: subprocess.Popen[str]

    def send(self, request: Any) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def ask(self, request: Any) -> str:
        """Send one line and return the line that answers it."""
        assert self.process.stdout is not None
        self.send(request)
        return self.process.stdout.readline()

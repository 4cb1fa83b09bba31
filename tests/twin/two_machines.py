"""Twins for the tests, and a check for their remains on the host."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "twin"


class Lab:
    """A twin, used through its command line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, verb: str, *arguments: str) -> list[str]:
        return [str(PROGRAM), verb, "--name", self.name, *arguments]

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(verb, *arguments), capture_output=True, text=True, check=False, timeout=120
        )

    def do(self, verb: str, *arguments: str) -> str:
        """Run a verb and return its output; it must succeed."""
        done = self.run(verb, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, verb: str, *arguments: str) -> Any:
        return json.loads(self.do(verb, *arguments, "--json"))

    def sh(self, machine: str, script: str) -> str:
        """Run a shell script in a machine until a command fails, and return its output."""
        return self.do("exec", machine, "--", "sh", "-ec", script)

    def machine(self, name: str) -> dict[str, Any]:
        return next(found for found in self.json("status")["machines"] if found["name"] == name)

    def guest(self, name: str) -> dict[str, Any]:
        return next(found for found in self.json("status")["guests"] if found["name"] == name)

    def leader(self, name: str) -> int:
        stored = json.loads(Path(f"/run/l3hv/{self.name}/machines/{name}/running.json").read_text())
        return int(stored["leader"])

    def pings(self, machine: str, address: str) -> bool:
        done = self.run("exec", machine, "--", "ping", "-c1", "-W1", address)
        return done.returncode == 0

    def leftovers(self) -> list[str]:
        """Return the remains of this twin on the host."""
        mark = f"l3hv-{self.name}-"
        found = [f"namespace {path}" for path in Path("/run/netns").glob(f"{mark}*")]
        found += [str(path) for top in ("run", "var/lib") for path in Path("/", top, "l3hv").glob(self.name)]
        # os.walk skips groups that an ending machine removes meanwhile; glob of Python 3.11 raises an error.
        found += [
            f"group {path}" for path, *_ in os.walk("/sys/fs/cgroup") if path.endswith(f"/l3hv/{self.name}")
        ]
        mounts = Path("/proc/mounts").read_text().splitlines()
        found += [mount for mount in mounts if mark in mount or f"/l3hv/{self.name}/" in mount]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if any(name in words for name in (mark, f"/l3hv/{self.name}/", f"/twin up --name {self.name}")):
                found.append(f"process {process.name}: {words}")
        return found


def eventually(check: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for a condition; fail with its last value."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.1)


def new_lab(purpose: str) -> Lab:
    """Return a twin whose name no other run of the tests uses; ``purpose`` has up to four letters."""
    if os.geteuid() != 0:
        pytest.fail("these tests boot machines: run pytest as root (sudo make test)")
    return Lab(f"tw{purpose}{os.getpid():x}")


def port(path: str, domain: str = "public") -> dict[str, Any]:
    number = "ab".index(path)
    return {"interface": f"eno{number}.90", "path": path, "domain": domain, "mtu": 1500}


def guest(number: int, machine: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"vm{number}",
        "hypervisor": machine,
        "interface": f"vm-{number}",
        "mac": f"52:54:00:00:00:{number:02x}",
        "domain": "public",
        "mtu": 1500,
        "ipv4": f"192.0.2.{number}",
        "ipv6_prefix": f"2001:db8:{number}::/64",
        **more,
    }


TOPOLOGY = {
    "machines": [
        {"name": "m1", "kind": "hypervisor", "system": "debian13", "ports": [port("a"), port("b")]},
        {"name": "m2", "kind": "hypervisor", "system": "debian13", "ports": [port("a")]},
    ],
    "guests": [guest(1, "m1", addresses=["198.51.100.7/32"]), guest(2, "m2")],
}

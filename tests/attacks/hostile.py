"""Victims of the attack tests, which exchange packets, and the logs of daemons."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import INTERNET, Lab, wait_for
from machines import GUESTS

from l3hv.twin.network import NAMESPACES
from l3hv.twin.power import inside, leader
from l3hv.twin.state import Twin

STEADY = Path(__file__).with_name("steady.py")
FLOWS, INTERVAL_S = 4, 0.01
"""The number of parallel flows of each pair and family (they use both paths), and their packet interval."""
ANSWER_S = 30
PAIRS = (("vm1", "vm3"), ("vm1", "internet"))
UNITS = ("bird", "bird6")
"""BIRD 1.6 has two daemons."""


def namespace(lab: Lab, name: str) -> str:
    """Return the name of a guest's or machine's network namespace."""
    twin = Twin(lab.name, print)
    return twin.guest_namespace(name) if name in GUESTS else twin.machine_namespace(name)


def in_namespace(lab: Lab, name: str, *command: str) -> list[str]:
    """Return the command line that runs a program of the host in the network of a guest or machine."""
    return ["nsenter", f"--net={NAMESPACES / namespace(lab, name)}", *command]


class Victims:
    """Guests that exchange packets with each other and with the Internet during the attacks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def lost(self) -> dict[str, int]:
        """Return the pairs that lost packets since the last call, each with the number."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return {pair: counted["lost"] for pair, counted in self.answer().items() if counted["lost"]}

    def answer(self) -> dict[str, dict[str, int]]:
        """Return the next answer; packets of all flows were sent since the last one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the packets have ended"
        found: dict[str, dict[str, int]] = json.loads(line)
        assert all(counted["sent"] for counted in found.values()), found
        return found


@contextmanager
def exchanging(lab: Lab) -> Iterator[Victims]:
    """Let the victims exchange packets while the block runs."""

    def end(name: str, family: int) -> tuple[str, str]:
        address = lab.guest_address(name, family) if name in GUESTS else INTERNET[family]
        return namespace(lab, name), address

    pairs = [
        {"name": f"{one} and {other}, IPv{family}", "flows": FLOWS}
        | {"source": end(one, family), "target": end(other, family)}
        for one, other in PAIRS
        for family in (4, 6)
    ]
    command = [sys.executable, str(STEADY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"interval": INTERVAL_S, "pairs": pairs}) + "\n")
            process.stdin.flush()
            victims = Victims(process)
            victims.answer()
            wait_for("packets that flow", lambda: victims.lost() == {}, ANSWER_S)
            yield victims
        finally:
            process.kill()


@dataclass
class Log:
    """The log of a machine's routing daemon, from now on."""

    lines: list[str]

    def mark(self) -> int:
        """Return a mark of the present end of the log."""
        return len(self.lines)

    def since(self, mark: int) -> list[str]:
        """Return the lines after a mark."""
        return self.lines[mark:]


@contextmanager
def following(lab: Lab, machines: Iterable[str]) -> Iterator[dict[str, Log]]:
    """Follow the logs of these machines' routing daemons while the block runs."""
    logs, processes = {}, []

    def follow(log: Log, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        log.lines.extend(line.rstrip("\n") for line in process.stdout)

    units = " ".join(f"--unit={unit}" for unit in UNITS)
    # The program ends when its standard input is closed.
    script = f"journalctl --quiet --follow --lines=1 --output=cat {units} & read -r _; kill $!"
    try:
        for machine in machines:
            command = inside(leader(Twin(lab.name, print), machine), ["sh", "-c", script])
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            logs[machine] = log = Log([])
            threading.Thread(target=follow, args=(log, process), daemon=True).start()
        wait_for("the last log lines", lambda: all(log.lines for log in logs.values()))
        yield logs
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)

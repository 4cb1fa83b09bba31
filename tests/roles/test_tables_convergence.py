"""Changes between any two sets of rules, in a real kernel: meanwhile each packet has its old or new route."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/tables/files/tables-sync"
GOLDENS = sorted((ROOT / "tests/golden").glob("*/expected/*/etc/l3hv/tables.conf"))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

TABLES = {"main": 254, "public": 90, "private": 20, "local-out": 100, "public-spread": 130}
"""The tables of random plans; each has a default route that identifies it."""
NO_ANSWER = 77
"""The table for packets that match no rule of a plan."""
PREFIXES = ("10.0.0.0/8", "10.20.0.0/16", "192.0.2.0/24")
ADDRESSES = ("10.20.0.1", "10.9.0.1", "192.0.2.9", "203.0.113.9")
INTERFACES = ("eth7", "eth8")
ROUNDS = 40


@dataclass(frozen=True)
class Rules:
    """The rules of one family in a file, without comments, and the numbers of their tables."""

    family: str
    lines: tuple[str, ...]
    tables: tuple[str, ...]

    @property
    def text(self) -> str:
        rules = (f"rule {self.family} {line}" for line in self.lines)
        return "\n".join([*(f"table {table}" for table in self.tables), *rules, ""])


def read(path: Path, family: str) -> Rules:
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    tables = tuple(line.removeprefix("table ") for line in lines if line.startswith("table "))
    start = f"rule {family} "
    return Rules(family, tuple(line.removeprefix(start) for line in lines if line.startswith(start)), tables)


@cache
def sets_of_goldens() -> list[Rules]:
    """Return the different sets of rules of all golden hosts, in both families."""
    found = [read(path, family) for path in GOLDENS for family in ("ipv4", "ipv6")]
    return [rules for rules in dict.fromkeys(found) if rules.lines]


def some_rules(dice: random.Random) -> Rules:
    """Return random rules at few priorities, so that many have the same priority."""
    lines = []
    for priority in sorted(dice.sample(range(1000, 1008), dice.randint(1, 6))):
        words = []
        for name, values in (("from", PREFIXES), ("to", PREFIXES), ("iif", ("lo", *INTERFACES))):
            if dice.random() < 0.4:
                words += [name, dice.choice(values)]
        words += ["table", dice.choice([*TABLES])]
        if dice.random() < 0.3:
            words += ["suppress_prefixlength", "0"]
        lines.append(" ".join([str(priority), *words]))
    # The last rule leads all other packets to public, as in every plan.
    return Rules("ipv4", (*lines, "1010 table public"), tuple(f"{n} {t}" for t, n in TABLES.items()))


class Kernel:
    """A network namespace in which each table has another default route."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, script: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-ec", script],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{stdin}\n{done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, old: Rules, new: Rules) -> None:
        """Delete all rules but the kernel's own; add a default route to each table, and the interfaces."""
        flag = "-4" if old.family == "ipv4" else "-6"
        numbers = {NO_ANSWER, *TABLES.values()} | {
            int(table.split()[0]) for table in (*old.tables, *new.tables)
        }
        self(
            f"ip {flag} rule flush; ip {flag} rule add priority 32766 table main protocol kernel;"
            f" ip {flag} rule add priority 32767 table {NO_ANSWER} protocol static"
        )
        interfaces = {
            name for rules in (old, new) for line in rules.lines for name in re.findall(r"iif (\S+)", line)
        }
        for interface in sorted(interfaces - {"lo"}):
            self(
                f"[ -e /sys/class/net/{interface} ] ||"
                f" {{ ip link add {interface} type veth; ip link set {interface} up; }}"
            )
        # The gateway contains the number of its table.
        is_ipv4 = old.family == "ipv4"
        lines = [
            "route replace default via"
            f" {f'192.168.{number >> 8}.{number & 255}' if is_ipv4 else f'fd00::{number}'}"
            f" dev out table {number} metric 5000 onlink"
            for number in sorted(numbers)
        ]
        self(f"ip {flag} -batch -", "\n".join(lines))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = Kernel(f"rules-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made(
            "ip link set lo up; ip link add out type veth peer in; ip link set in up; ip link set out up;"
            " ip address add 192.168.0.253/24 dev out; ip address add fd00::fe/64 dev out nodad;"
            " sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0"
            " net.ipv4.conf.default.rp_filter=0"
        )
        for interface in INTERFACES:
            made(f"ip link add {interface} type veth; ip link set {interface} up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=True)


def questions(old: Rules, new: Rules) -> list[str]:
    """Return `ip route get` arguments for one packet of each class that the two sets of rules distinguish."""
    text = old.text + new.text
    interfaces = sorted({*re.findall(r"iif (\S+)", text)} - {"lo"})
    marks = sorted({*re.findall(r"fwmark ([^/ ]+)", text)})
    if old.family == "ipv4":
        addresses = [*ADDRESSES]
        addresses += [f"{p.rsplit('.', 1)[0]}.99" for p in re.findall(r"(?:from|to) ([0-9.]+)/", text)]
    else:
        addresses = ["2001:db8:8888::8"]
        addresses += [f"{p}99" for p in re.findall(r"(?:from|to) ([0-9a-f:]+::)/", text)]
    addresses = sorted({*addresses})
    asked = [f"{to} {mark}".strip() for to in addresses for mark in ("", *(f"mark {m}" for m in marks))]
    asked += [
        f"{to} from {source} iif {interface}"
        for interface in (*interfaces, "in")
        for source in addresses
        for to in addresses
        if source != to
    ]
    return asked


def converge(kernel: Kernel, directory: Path, old: Rules, new: Rules) -> None:
    """Change the rules from ``old`` to ``new``; look up the route of each class of packets at each step."""
    (directory / "old").write_text(old.text)
    (directory / "new").write_text(new.text)
    flag = "-4" if old.family == "ipv4" else "-6"
    kernel.begin(old, new)
    kernel(f"{PROGRAM} apply {directory / 'old'}")
    steps = [
        line.removeprefix("ip ").replace("protocol l3hv", "protocol 107")
        for line in kernel(f"{PROGRAM} in-force {directory / 'new'} || true").splitlines()
        if line.startswith("ip ")
    ]
    names = {t.split()[1]: t.split()[0] for t in (*old.tables, *new.tables)}
    steps = [re.sub(r"table (\S+)", lambda m: f"table {names.get(m[1], m[1])}", step) for step in steps]
    assert all(step.startswith(f"{flag} ") for step in steps)
    asked = [f"route get {question}" for question in questions(old, new)]
    batch = [*asked]
    for step in steps:
        batch += [step.removeprefix(f"{flag} "), *asked]
    printed = kernel(f"ip {flag} -oneline -batch -", "\n".join(batch))
    ways = [match[1] for match in re.finditer(r" via (\S+)", printed)]
    assert len(ways) == len(asked) * (len(steps) + 1)
    moments = [ways[at : at + len(asked)] for at in range(0, len(ways), len(asked))]
    for number, moment in enumerate(moments):
        for question, before, now, after in zip(asked, moments[0], moment, moments[-1], strict=True):
            assert now in (before, after), (question, before, now, after, steps[:number], old, new)
    assert kernel(f"{PROGRAM} in-force {directory / 'new'}") == ""
    found = [line for line in kernel(f"ip {flag} -N rule").splitlines() if line.endswith("proto 107")]
    # The rule of all VRFs has the kernel's protocol: the kernel makes the same one with the first VRF.
    assert len(found) == len([line for line in new.lines if "l3mdev" not in line])


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_goldens_follow_each_other(kernel: Kernel, tmp_path: Path, family: str) -> None:
    sets = [rules for rules in sets_of_goldens() if rules.family == family]
    assert len(sets) > 3
    dice = random.Random(family)
    pairs = [(old, new) for old in sets for new in sets if old != new]
    for old, new in dice.sample(pairs, min(ROUNDS, len(pairs))):
        converge(kernel, tmp_path, old, new)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_sets_follow_each_other(kernel: Kernel, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    converge(kernel, tmp_path, some_rules(dice), some_rules(dice))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_rules_of_interrupted_runs_are_removed(kernel: Kernel, tmp_path: Path, seed: int) -> None:
    """The kernel has rules of two sets at the same priorities, in any order."""
    dice = random.Random(seed)
    first, second, new = some_rules(dice), some_rules(dice), some_rules(dice)
    kernel.begin(first, new)
    for line in dice.sample([*first.lines, *second.lines], len(first.lines) + len(second.lines)):
        # Skip rules that the kernel refuses: no run leaves such rules.
        words = re.sub(r"table (\S+)", lambda match: f"table {TABLES[match[1]]}", line)
        kernel(f"ip rule add priority {words} protocol 107 2>/dev/null || true")
    (tmp_path / "new").write_text(new.text)
    kernel(f"{PROGRAM} apply {tmp_path / 'new'}")
    assert kernel(f"{PROGRAM} in-force {tmp_path / 'new'}") == ""
    found = [line for line in kernel("ip -N rule").splitlines() if line.endswith("proto 107")]
    assert len(found) == len(new.lines)

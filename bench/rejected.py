"""Measures the designs that were rejected beside the chosen one: see docs/rejected-designs.md.

The hypervisor is hv1 of ``inventories/lab``, as network namespaces with the files that site.yml places
(hypervisor.py).  A rejected design is the same hypervisor with other rules.  Rates of designs alternate, and
a ratio is the median of the rounds.  The packet filter is not loaded for rates: its cost would hide that of
the rules.  BIRD is the one in the twin's image; nothing is installed or started on this host.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import (  # beside this file
    FAMILIES,
    GUEST,
    ROUTER,
    TARGETS,
    Hypervisor,
    all_built,
    exit_on_signals,
    namespaces,
    spread,
)
from placed_files import INVENTORIES, plan_of, write_files  # beside this file

from l3hv.twin import image

OPTIONS = {"IPv4": "-4", "IPv6": "-6"}
CHOSEN, PER_GUEST, LAST_RULES = "chosen", "guests", "last"
FLOWS = {"one flow": (1, 60), "256 destinations in turn": (256, 1)}
"""The number of destinations, and of packets that the sender passes to its kernel at a time."""
GUESTS = 1000
LAST_RESORT_METRIC = 4294967294
MARKS = {"public": 90, "private": 20}
"""The mark of each domain: the number of its table."""
ELSEWHERE, OTHER_HYPERVISOR = "203.0.113.3", "198.51.100.2"
"""A guest of another hypervisor, and that hypervisor on path a."""
ASK = r"""
import socket, struct, sys, time
mac, own, asked = bytes.fromhex(sys.argv[1].replace(":", "")), *map(socket.inet_aton, sys.argv[2:])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
wire.bind(("eth0", 0x0806))
request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + asked
deadline, is_answered = time.monotonic() + 1, False
wire.send(b"\xff" * 6 + mac + b"\x08\x06" + request)
while not is_answered and (left := deadline - time.monotonic()) > 0:
    wire.settimeout(left)
    try:
        frame = wire.recv(2048)
    except TimeoutError:
        break
    is_answered = frame[20:22] == b"\x00\x02" and frame[28:32] == asked
print(int(is_answered))
"""
"""Sends an ARP request from the guest, and prints 1 if an answer arrives within a second, else 0."""


@dataclass(frozen=True)
class Result:
    """A figure of a rejected design, the same of the chosen one, and the reason of the difference."""

    design: str
    figure: str
    rejected: str
    chosen: str
    ratio: str
    reason: str


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def rules_of(hypervisor: Hypervisor, family: str) -> list[dict[str, Any]]:
    """Return the policy rules of a family; tables are numbers."""
    text = hypervisor.run(ROUTER, "ip", "-N", "-json", OPTIONS[family], "rule", "show")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def change_rules(hypervisor: Hypervisor, family: str, lines: Sequence[str]) -> None:
    """Run ``ip rule`` with each of ``lines``, in one process."""
    text = "".join(f"rule {line}\n" for line in lines)
    hypervisor.run(ROUTER, "ip", OPTIONS[family], "-batch", "-", text=text)


# -- The number of rules ---------------------------------------------------------------------------------


def add_rule_per_guest(hypervisor: Hypervisor) -> None:
    """Replace the rule of all other traffic by a rule for each public uplink and guest.

    The rule of the guest that sends is the middle one.
    """
    uplinks = [u["interface"] for u in hypervisor.plan["uplinks"] if u["domain"] == "public"]
    guests = [f"vnet{number}" for number in range(GUESTS)]
    guests[GUESTS // 2] = hypervisor.port
    for family in FAMILIES:
        last = max(rule["priority"] for rule in rules_of(hypervisor, family))
        change_rules(
            hypervisor,
            family,
            [
                *(
                    f"add priority {last + number} iif {name} table {MARKS['public']}"
                    for number, name in enumerate((*uplinks, *guests), 1)
                ),
                f"delete priority {last}",
            ],
        )


def replace_last_resorts(hypervisor: Hypervisor) -> None:
    """Replace each table's default route of last resort by a rule after each rule of the table."""
    tables = {"20": "blackhole", "90": "blackhole", "100": "unreachable"}
    added = []
    for rule in rules_of(hypervisor, "IPv4"):
        if (action := tables.get(rule["table"])) and "ipproto" not in rule:
            selector = f"iif {rule['iif']} " if "iif" in rule else ""
            added.append(f"add priority {rule['priority'] + 1} {selector}{action}")
    change_rules(hypervisor, "IPv4", added)
    hypervisor.ip(
        ROUTER,
        *(f"route delete {tables[t]} default table {t} metric {LAST_RESORT_METRIC}" for t in tables),
    )


def rules_before(hypervisor: Hypervisor) -> int:
    """Return the number of IPv4 rules up to the one that selects the table of the guest's packets."""
    rules = rules_of(hypervisor, "IPv4")
    mine = (rule for rule in rules if rule.get("iif", hypervisor.port) == hypervisor.port)
    return 1 + rules.index(
        next(r for r in mine if r.get("table") == str(MARKS["public"]) and "ipproto" not in r)
    )


def compare_rules(directory: Path, rounds: int, seconds: float) -> Iterator[Result]:
    """Measure forwarding with a rule per guest, and with rules of last resort."""
    all_three = {name: Hypervisor(name, directory) for name in (CHOSEN, PER_GUEST, LAST_RULES)}
    rates: dict[tuple[str, str, str], list[float]] = {}
    with all_built(all_three.values()):
        add_rule_per_guest(all_three[PER_GUEST])
        replace_last_resorts(all_three[LAST_RULES])
        for hypervisor in all_three.values():
            hypervisor.warm_up()
            hypervisor.run(ROUTER, "nft", "flush", "ruleset")
        passed = {name: rules_before(hypervisor) for name, hypervisor in all_three.items()}
        for number in range(rounds):
            say(f"rules: round {number + 1} of {rounds}")
            for family in FAMILIES:
                for flow, (targets, burst) in FLOWS.items():
                    addresses = [TARGETS[family].format(target) for target in range(targets)]
                    # The order alternates, so that a load that grows or shrinks steadily affects all equally.
                    for name, hypervisor in list(all_three.items())[:: 1 if number % 2 else -1]:
                        rate = hypervisor.rate(GUEST, addresses, seconds, burst)
                        rates.setdefault((name, family, flow), []).append(rate)
    for design, name, reason in (
        (
            f"a rule for each of {GUESTS:,} guests",
            PER_GUEST,
            f"a lookup passes {passed[PER_GUEST]} rules instead of {passed[CHOSEN]}",
        ),
        (
            "rules of last resort",
            LAST_RULES,
            f"a lookup passes {passed[LAST_RULES]} rules instead of {passed[CHOSEN]}",
        ),
    ):
        # In IPv6 the rule of last resort comes after the only table, so that no forwarded packet passes it.
        for family in FAMILIES if name == PER_GUEST else FAMILIES[:1]:
            for flow in FLOWS:
                measured, beside = rates[name, family, flow], rates[CHOSEN, family, flow]
                ratios = [rate / chosen for rate, chosen in zip(measured, beside, strict=True)]
                one, other = (f"{statistics.median(values):,.0f}" for values in (measured, beside))
                yield Result(design, f"{family} packets/s, {flow}", one, other, spread(ratios), reason)


# -- Firewall marks --------------------------------------------------------------------------------------


def select_by_mark(hypervisor: Hypervisor) -> None:
    """Mark packets by their interface, and replace the rules of forwarded packets by one for each mark."""
    of_interfaces = [
        rule for rule in rules_of(hypervisor, "IPv4") if rule["priority"] and rule.get("iif") != "lo"
    ]
    lines = [f"delete priority {rule['priority']}" for rule in of_interfaces]
    lines += [f"add priority {1500 + mark} fwmark {mark} table {mark}" for mark in MARKS.values()]
    change_rules(hypervisor, "IPv4", lines)
    chain = ["type filter hook prerouting priority mangle;"]
    for entry in (*hypervisor.plan["uplinks"], *hypervisor.plan["guests"]):
        chain.append(f'iifname "{entry["interface"]}" meta mark set {MARKS[entry["domain"]]}')
    text = "\n".join(["table ip marks {", "chain received {", *chain, "}", "}", ""])
    hypervisor.run(ROUTER, "nft", "-f", "-", text=text)


def compare_marks(directory: Path) -> Iterator[Result]:
    """Send ARP requests and pings from the guest, with the rules of l3hv and with marks."""
    both = {CHOSEN: Hypervisor(CHOSEN, directory), "marks": Hypervisor("marks", directory)}
    with all_built(both.values()):
        for hypervisor in both.values():
            gateway = hypervisor.guest["addresses"][0]["address"]
            table = f"table {MARKS['public']}"
            hypervisor.ip(ROUTER, f"route add {ELSEWHERE} via {OTHER_HYPERVISOR} dev a-public {table}")
        select_by_mark(both["marks"])
        set_reverse_path_check(both.values(), 0)
        say("marks: ARP requests and pings")
        for figure, verdict, reason in (
            ("ARP request for the gateway", asks(gateway), "the table local needs no mark"),
            (
                "ARP request for a guest of another hypervisor",
                asks(ELSEWHERE),
                "proxy ARP looks up the guest, and its lookup has no mark",
            ),
            ("ping of the Internet", pings, "forwarded packets have a mark"),
        ):
            yield answers(figure, verdict, both, reason)
        set_reverse_path_check(both.values(), 1)
        figure = "ping of the Internet, with the kernel's strict reverse-path check"
        yield answers(figure, pings, both, "the check looks up the sender, and its lookup has no mark")


Verdict = Callable[[Hypervisor], bool]


def answers(figure: str, verdict: Verdict, both: dict[str, Hypervisor], reason: str) -> Result:
    """Return the verdicts about both designs as a result."""
    marks, chosen = ("answered" if verdict(both[name]) else "no answer" for name in ("marks", CHOSEN))
    return Result("a firewall mark per interface", figure, marks, chosen, "-", reason)


def asks(address: str) -> Verdict:
    """Return a test whether the guest's ARP request for an address is answered."""

    def is_answered(hypervisor: Hypervisor) -> bool:
        words = [sys.executable, "-c", ASK, hypervisor.guest["mac"], hypervisor.address("IPv4"), address]
        return hypervisor.run(GUEST, *words).strip() == "1"

    return is_answered


def pings(hypervisor: Hypervisor) -> bool:
    """Tell whether the guest gets answers to its pings of the Internet."""
    try:
        hypervisor.run(GUEST, "ping", "-qc", "2", "-i", "0.2", "-W", "1", TARGETS["IPv4"].format(8))
    except RuntimeError:
        return False
    return True


def set_reverse_path_check(hypervisors: Iterable[Hypervisor], mode: int) -> None:
    """Set rp_filter of the guest's port: 1 is strict, 0 is off."""
    for hypervisor in hypervisors:
        hypervisor.run(ROUTER, "sysctl", "-qw", f"net.ipv4.conf.{hypervisor.port}.rp_filter={mode}")


# -- Network namespaces ----------------------------------------------------------------------------------

BIRD_PREFIX = "l3hv-bird-"
REFLECTORS, HYPERVISOR, PRIVATE_ONLY = "reflectors", "hv", "hv-private"
ROUTES = 5000
NETWORKS = {
    ("a", "public"): "198.51.100.",
    ("b", "public"): "198.51.100.",
    ("a", "private"): "172.22.15.",
    ("b", "private"): "172.22.15.",
}
IDS = {"a": (1, 126), "b": (129, 254)}
"""The last octets of the hypervisor and of the reflector on each path."""
SESSIONS = "BGP sessions at least"
FIRST_OCTETS = {"public": 10, "private": 11}


class Bird:
    """A BIRD of the image ``root`` in a network namespace; ``directory`` has its files."""

    def __init__(self, root: Path, directory: Path, namespace: str, configuration: str) -> None:
        self._root, self._socket = root, directory / f"{namespace}.ctl"
        path = directory / f"{namespace}.conf"
        path.write_text(configuration, encoding="utf-8")
        command = self._program("bird", "-f", "-c", str(path), "-s", str(self._socket))
        self.process = subprocess.Popen(["ip", "netns", "exec", BIRD_PREFIX + namespace, *command])

    def _program(self, name: str, *words: str) -> list[str]:
        """Return the command that runs a program of the image with the libraries of the image."""
        libraries = ["--library-path", str(self._root / "usr/lib/x86_64-linux-gnu")]
        return [
            str(self._root / "lib64/ld-linux-x86-64.so.2"),
            *libraries,
            str(self._root / "usr/sbin" / name),
            *words,
        ]

    def sessions(self) -> int:
        """Return the number of established sessions."""
        command = self._program("birdc", "-s", str(self._socket), "show", "protocols")
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return len(re.findall(r" BGP .* Established", shown))

    def memory_kib(self) -> int:
        """Return the proportional set size: shared pages count for each of their users in part."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="utf-8")
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def hypervisor_configuration(domains: Sequence[str]) -> str:
    """Return BIRD's configuration for these domains: a table and a session on each path for each."""
    text = "router id 198.51.100.1;\nprotocol device {}\n"
    for domain in domains:
        text += f"ipv4 table {domain}4;\nprotocol kernel kernel_{domain} {{\n  merge paths on;\n"
        text += (
            f"  kernel table {MARKS[domain]};\n  ipv4 {{ table {domain}4; import none; export all; }};\n}}\n"
        )
    return text + "".join(session(path, domain, 0) for path, domain in NETWORKS if domain in domains)


def reflector_configuration() -> str:
    """Return the configuration of a BIRD that is both reflectors, with ``ROUTES`` routes of each domain."""
    text = "router id 198.51.100.126;\nprotocol device {}\n"
    for domain, octet in FIRST_OCTETS.items():
        text += f"ipv4 table {domain}4;\nprotocol static routes_{domain} {{\n  ipv4 {{ table {domain}4; }};\n"
        text += (
            "".join(f"  route {octet}.0.{n >> 8}.{n & 255}/32 blackhole;\n" for n in range(ROUTES)) + "}\n"
        )
    return text + "".join(session(path, domain, 1) for path, domain in NETWORKS)


def session(path: str, domain: str, own: int) -> str:
    """Return a session of the hypervisor (``own`` is 0) or of the reflector (1)."""
    network, numbers = NETWORKS[path, domain], IDS[path]
    policy = "import all; export none;" if own == 0 else "import none; export all; next hop self;"
    return (
        f"protocol bgp {path}_{domain} {{\n"
        f"  local {network}{numbers[own]} as 65000;\n  neighbor {network}{numbers[1 - own]} as 65000;\n"
        f"  connect delay time 1;\n{'  rr client;' if own else ''}\n"
        f"  ipv4 {{ table {domain}4; {policy} }};\n}}\n"
    )


@contextmanager
def birds(root: Path, directory: Path, places: dict[str, tuple[str, ...]]) -> Iterator[list[Bird]]:
    """Run a BIRD in each of ``places`` (namespace: its domains) until all have all routes; yield them."""
    ends = {domain: place for place, domains in places.items() for domain in domains}
    with contextlib.ExitStack() as stack:
        stack.enter_context(namespaces(*(BIRD_PREFIX + name for name in (REFLECTORS, *places))))
        for (path, domain), network in NETWORKS.items():
            name = f"{path}-{domain}"
            peer = f"peer name {name} netns {BIRD_PREFIX}{REFLECTORS}"
            command = [
                "ip",
                "-n",
                BIRD_PREFIX + ends[domain],
                "link",
                "add",
                name,
                "type",
                "veth",
                *peer.split(),
            ]
            subprocess.run(command, check=True)
            for place, number in zip((ends[domain], REFLECTORS), IDS[path], strict=True):
                text = f"address add {network}{number}/25 dev {name}\nlink set {name} up\n"
                command = ["ip", "-n", BIRD_PREFIX + place, "-batch", "-"]
                subprocess.run(command, input=text, text=True, check=True)
        wanted = [(REFLECTORS, reflector_configuration())]
        wanted += [(place, hypervisor_configuration(domains)) for place, domains in places.items()]
        running = []
        for place, configuration in wanted:
            running.append(Bird(root, directory, place, configuration))
            stack.callback(running[-1].stop)
        deadline = time.monotonic() + 60
        while any(learned(ends[domain], domain) < ROUTES for domain in ends) or running[0].sessions() < len(
            NETWORKS
        ):
            if time.monotonic() > deadline:
                raise RuntimeError("BIRD has not learned all routes within 60 s")
            time.sleep(0.2)
        yield running[1:]


def learned(place: str, domain: str) -> int:
    """Return the number of routes of a domain in the kernel."""
    command = ["ip", "-n", BIRD_PREFIX + place, "route", "show", "table", str(MARKS[domain])]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return sum(not line.startswith("\t") for line in shown.splitlines())


def visible_interfaces() -> int:
    """Return the number of interfaces of paths in the namespace of the hypervisor itself."""
    command = ["ip", "-n", BIRD_PREFIX + HYPERVISOR, "-brief", "link", "show", "type", "veth"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def least_sessions(directory: Path) -> int:
    """Return the number of sessions of hv1 if one BIRD shares sessions between the domains."""
    inventory = directory / "shared"
    shutil.copytree(INVENTORIES / "lab", inventory)
    with (inventory / "group_vars/all/fabric.yml").open("a", encoding="utf-8") as file:
        file.write("\nl3hv_session_layout: shared\n")
    return len(plan_of(inventory, "hv1")["routing"]["sessions"])


def compare_namespaces(directory: Path) -> Iterator[Result]:
    """Compare one BIRD with two tables with a BIRD in each of two namespaces, with the same routes."""
    root = image.ensure_image(image.recipe("debian13"), say)
    ways: dict[str, dict[str, tuple[str, ...]]] = {
        CHOSEN: {HYPERVISOR: ("public", "private")},
        "namespaces": {HYPERVISOR: ("public",), PRIVATE_ONLY: ("private",)},
    }
    found: dict[str, dict[str, int]] = {}
    for way, places in ways.items():
        say(f"namespaces: {len(places)} BIRD")
        with birds(root, directory, places) as running:
            found[way] = {
                "processes": len(running),
                f"KiB of memory (PSS), {ROUTES:,} routes in each domain": sum(
                    b.memory_kib() for b in running
                ),
                SESSIONS: sum(bird.sessions() for bird in running),
                "interfaces of the paths that libvirt's namespace shows": visible_interfaces(),
            }
    found[CHOSEN][SESSIONS] = least_sessions(directory)
    reasons = (
        "a BIRD runs in one namespace",
        "each BIRD has its own heap",
        "two BIRDs share no session",
        "a namespace shows only its own",
    )
    for (figure, value), reason in zip(found["namespaces"].items(), reasons, strict=True):
        beside = found[CHOSEN][figure]
        yield Result(
            "a namespace per domain", figure, f"{value:,}", f"{beside:,}", f"{value / beside:.2f}", reason
        )


def main() -> None:
    """Print each figure as soon as its part has been measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.1, help="the time of each measurement")
    options = parser.parse_args()
    exit_on_signals()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        placed = write_files(plan_of(INVENTORIES / "lab", "hv1"), directory / "hv1")
        print("| Design | Figure | It | Chosen | Ratio (quartiles) | Reason |\n|---|---|---|---|---|---|")
        for part in (
            compare_marks(placed),
            compare_namespaces(directory),
            compare_rules(placed, options.rounds, options.seconds),
        ):
            for result in part:
                print(f"| {' | '.join(vars(result).values())} |", flush=True)


if __name__ == "__main__":
    main()

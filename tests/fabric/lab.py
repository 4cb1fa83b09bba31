"""The lab of the tests: a thin layer over `./twin`, which makes all changes to machines.

Tests read state many times a second while they wait, so reads run without a new Python process.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from addresses import advertised_prefix, anycast_address, as_shown
from machines import GUESTS, HYPERVISORS, INVENTORY, MACHINES, PATHS, sessions

from l3hv.twin import TwinError
from l3hv.twin.network import NAMESPACES
from l3hv.twin.power import command_in
from l3hv.twin.state import Twin

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
WITH_RECAP = {"ANSIBLE_STDOUT_CALLBACK": "default"}
"""Ansible's own output, which has a line for each host at the end."""

TWIN = REPOSITORY / "twin"
INTERNET = {4: "192.0.2.8", 6: "2001:db8:8888::8"}
ANYCAST = {family: anycast_address(family) for family in INTERNET}
PROTOCOLS = "birdc show protocols; if systemctl --quiet is-active bird6; then birdc6 show protocols; fi"
"""BIRD 1.6 has two daemons."""
TRANSPARENT = "203.0.113.11"  # translated to vm4's address

SESSION_STATES = f"""
if pidof -q gobgpd; then
    for api in /run/l3hv-gobgp-*/api; do gobgp --target unix://$api neighbor | sed -n '2,$p'; done
elif pidof -q bgpd; then
    vtysh -c 'show bgp vrf all neighbors' | grep 'BGP state ='
else
    ({PROTOCOLS}) | grep -w BGP
    ({PROTOCOLS.replace("show protocols", "show protocols all")}) | grep 'Neighbor graceful restart active'
fi | sed -E '/ Establ|= Establ/!s/.*/down/; s/.*Establ.*/Established/' | tr '\\n' ' '; echo
"""
"""A script that prints the states of a machine's BGP sessions on one line, for every daemon.

While a neighbour that has restarted has not advertised all routes again, BIRD shows an active graceful
restart of an established session; the script prints such a session as down.
"""

GOBGP_NEIGHBORS = "for api in /run/l3hv-gobgp-*/api; do gobgp -j --target unix://$api neighbor; echo; done"
REFLECTED_ROUTES = """
if pidof -q gobgpd; then
    for api in /run/l3hv-gobgp-*/api; do
        gobgp --target unix://$api global rib -a ipv4; gobgp --target unix://$api global rib -a ipv6
    done
elif pidof -q bgpd; then
    vtysh -c 'show bgp vrf all'
else
    birdc show route all
fi
"""
"""A script that prints the routes of a reflector."""


@dataclass(frozen=True)
class Flows:
    """Parallel UDP echo flows from one end to another."""

    source: str
    target: str
    family: int

    def __str__(self) -> str:
        return f"{self.source} to {self.target}, IPv{self.family}"


def both_families(source: str, target: str) -> tuple[Flows, Flows]:
    """Return flows between two guests, in IPv4 and in IPv6."""
    return Flows(source, target, 4), Flows(source, target, 6)


class EndedEarly(AssertionError):
    """Traffic of a fixed length ended before the event that it should measure: the host was too busy."""


LATE_PARTIES = 3
"""The number of processes that act one after the other after a failure: BFD, BGP and the kernel."""
MOST_ALLOWED_MS = 300
"""The limit of the allowance for the host's lateness: one detection time of BFD."""
DAY_S = 24 * 3600
SAME_MOMENT_S = 1.5
MOMENT = re.compile(r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?:[.]\d+)?")


class HostLateness:
    """A measurement of the delay of due processes on the host, which other load or stolen cores cause.

    A bound of milliseconds assumes that processes run when they are due. The delay is measured during the
    test, and the bound is wider by the delay, up to ``MOST_ALLOWED_MS``.
    """

    STEP_S = 0.005

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> HostLateness:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _measure(self) -> None:
        while not self._done.is_set():
            due = time.monotonic() + self.STEP_S
            time.sleep(self.STEP_S)
            self._worst_s = max(self._worst_s, time.monotonic() - due)

    @property
    def allowance_ms(self) -> float:
        """Return the allowance on a bound, in milliseconds."""
        return min(LATE_PARTIES * 1000 * self._worst_s, MOST_ALLOWED_MS)


@dataclass
class Traffic:
    """The results of traffic: `./twin probe --json` per flows. Empty until the traffic has ended.

    ``allowance_ms`` is the allowance on bounds for the host's lateness meanwhile.
    """

    results: dict[Flows, dict[str, float]] = field(default_factory=dict)
    allowance_ms: float = 0

    def add(self, flows: Flows, result: dict[str, float]) -> None:
        """Add another probe of the same flows."""
        before = self.results.get(flows, dict.fromkeys(result, 0))
        sums = {key: before[key] + result[key] for key in ("sent", "lost")}
        worst = {key: max(before[key], result[key]) for key in result if key not in sums}
        self.results[flows] = sums | worst

    def lost(self) -> dict[str, str]:
        """Return the flows that lost packets, each with the number of packets and flows and the outage."""
        found = {}
        for flows, result in self.results.items():
            sent, lost, hit, outage = (
                result[key] for key in ("sent", "lost", "flows_hit", "worst_outage_ms")
            )
            if lost:
                found[str(flows)] = (
                    f"{lost:g} of {sent:g} packets, in {hit:g} flows at once, for {outage:g} ms"
                )
        return found

    def outages_ms(self) -> dict[str, float]:
        """Return the outage of the worst flow."""
        return {str(flows): result["worst_outage_ms"] for flows, result in self.results.items()}

    def flows_hit(self) -> dict[str, float]:
        """Return the number of flows that lost packets."""
        return {str(flows): result["flows_hit"] for flows, result in self.results.items()}


def is_same_state(one: str, other: str) -> bool:
    """Return whether two states of a session are the same, since the same moment.

    BIRD computes the time of day of a change from the present time, and prints it to the second or
    millisecond: if the host's clock is slewed, the printed time changes.

    >>> is_same_state("up 23:59:59.999 Established", "up 00:00:00.001 Established")
    True
    >>> is_same_state("up 2026-01-31 23:59:59 Established", "up 2026-02-01 00:00:00 Established")
    True
    >>> is_same_state("up 16:00:00.000 Established", "up 16:00:05.000 Established")
    False
    """
    if MOMENT.sub("", one) != MOMENT.sub("", other):
        return False
    moments = zip(MOMENT.findall(one), MOMENT.findall(other), strict=True)
    gaps = (abs((_read(first) - _read(second)).total_seconds()) for first, second in moments)
    return all(min(gap, abs(DAY_S - gap)) < SAME_MOMENT_S for gap in gaps)


def _read(moment: str) -> datetime:
    return datetime.fromisoformat(moment if "-" in moment else f"2000-01-01 {moment}")


def wait_for(what: str, condition: Callable[[], T], seconds: float = 30) -> T:
    """Return the first true value of `condition`; fail with the description `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s (last seen: {value!r})")
        time.sleep(0.1)
    return value


def _has_begun(begun: Path, process: subprocess.Popen[str]) -> bool:
    """Return whether a probe has sent its first packets, or has ended."""
    return begun.exists() or process.poll() is not None


def _output(command: list[str], seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def _next_hops(routes: Iterable[dict[str, Any]]) -> dict[str, int]:
    return {route["dst"]: len(route.get("nexthops", [0])) for route in routes}


Prefixes = Mapping[tuple[int, str], Collection[str]]
"""Prefixes by family and routing table."""


@dataclass(frozen=True)
class Converged:
    """The converged state of a fabric, in which all BGP sessions of its machines are established.

    ``remote`` has the prefixes that each machine reaches through other machines, and ``next_hops`` is the
    number of next hops of each such route.
    """

    remote: Mapping[str, Prefixes]
    next_hops: int = 2


def remote_guests(machine: str, guests: Mapping[str, str], *others: str) -> Prefixes:
    """Return the prefixes of the guests on other hypervisors, and other prefixes of both families.

    ``guests`` has the hypervisor of each guest; the number of a guest in its name is part of its addresses.
    """
    numbers = [guest[2:] for guest, hypervisor in guests.items() if hypervisor != machine]
    return {
        (4, "public"): [*(f"203.0.113.{number}" for number in numbers), *others],
        (6, "public"): [*(f"2001:db8:cb00:710{number}::/64" for number in numbers), *others],
    }


def converged(
    guests: Mapping[str, str], others: Iterable[str], *prefixes: str, next_hops: int = 2
) -> Converged:
    """Return the converged state of a fabric: hypervisors have routes to remote guests and other prefixes.

    ``guests`` has the hypervisor of each guest; of the machines ``others`` only the sessions count.
    """
    remote = {machine: remote_guests(machine, guests, *prefixes) for machine in guests.values()}
    return Converged({**remote, **{machine: {} for machine in others}}, next_hops)


def converged_with(prefix_of: Callable[[str, int], str]) -> Converged:
    """Return the converged state of a fabric whose guests have the names and hypervisors of those of the lab.

    ``prefix_of`` returns the prefix of a guest in a family, as `ip` prints it.
    """

    def remote(machine: str, *others: str) -> Prefixes:
        elsewhere = [guest for guest, hypervisor in GUESTS.items() if hypervisor != machine]
        return {
            (family, "public"): [*(prefix_of(guest, family) for guest in elsewhere), *others]
            for family in INTERNET
        }

    return Converged(
        {
            **{machine: {} for machine in MACHINES},  # of reflectors only the sessions count
            **{hypervisor: remote(hypervisor, "default") for hypervisor in HYPERVISORS},
            "internet": remote("internet"),
        },
        next_hops=len(PATHS),
    )


LAB_CONVERGED = converged_with(lambda guest, family: as_shown(advertised_prefix(guest, family)))
"""The converged state of the inventory under test."""


@dataclass(frozen=True)
class Lab:
    """A running twin of `inventories/lab`, or of the inventory of `booted`."""

    name: str
    inventory: Path = INVENTORY
    converged: Converged = field(default=LAB_CONVERGED, compare=False)

    # --- verbs of the twin ---------------------------------------------------------------------

    def twin(self, verb: str, *arguments: str, seconds: float = 60) -> str:
        """Run one verb of `./twin` and return what it prints; it must succeed."""
        return _output(self._command(verb, *arguments), seconds)

    def run(self, machine: str, script: str, seconds: float = 60) -> str:
        """Run a shell script in a machine; it must succeed."""
        return _output(command_in(self._twin, machine, ["sh", "-c", script]), seconds)

    def run_as_guest(self, guest: str, script: str) -> str:
        """Run a shell script as a guest, with the host's programs; it must succeed."""
        return _output(self.as_guest(guest, "sh", "-c", script), 60)

    def as_guest(self, guest: str, *command: str) -> list[str]:
        """Return the command line that runs a command as a guest, with the host's programs."""
        return ["nsenter", f"--net={NAMESPACES / self._twin.guest_namespace(guest)}", *command]

    @property
    def _twin(self) -> Twin:
        return Twin(self.name, print)

    @property
    def is_emulated(self) -> bool:
        """Return whether some machines are emulated, and so much slower than containers."""
        return any(machine.emulated for machine in self._twin.standing().topology.machines)

    def read_json(self, machine: str, command: str) -> Any:
        return json.loads(self.run(machine, command) or "[]")

    def on_each(self, machines: Iterable[str], action: Callable[[str], T]) -> dict[str, T]:
        """Run `action` for all machines at the same time, and return the results."""
        names = list(machines)
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(action, names), strict=True))

    def logged(self, since: float) -> str:
        """Return the last log lines of the daemons of each machine since a moment (seconds since 1970)."""
        journal = (
            "journalctl --quiet --no-hostname --output=short-iso-precise --facility=daemon "
            f"--since=@{since:.0f} --lines=40"
        )
        found = self.on_each(MACHINES, lambda machine: self.run(machine, f"{journal} 2>&1 || true"))
        return "\n".join(f"{machine}:\n{lines}" for machine, lines in found.items())

    def status(self) -> dict[str, Any]:
        return json.loads(self.twin("status", "--json"))

    def guest_addresses(self, guest: str) -> list[str]:
        """Return the global addresses of a guest: of DHCP and SLAAC, and the one that it sets itself.

        The last is its address of a shared /64, if the inventory gives it one. The guest has it on lo.
        """
        shown = json.loads(self.run_as_guest(guest, "ip -json address show"))
        planned = self._twin.standing().guest(guest).ipv6_prefix
        return [
            entry["local"]
            for interface in shown
            for entry in interface["addr_info"]
            if entry["scope"] == "global"
            and not entry.get("tentative")
            and (interface["ifname"] == "eth0" or f"{entry['local']}/128" == planned)
        ]

    def has_addresses(self, guest: str) -> bool:
        """Return whether a guest has its lease and an address of its /64."""
        return {":" in found for found in self.guest_addresses(guest)} == {False, True}

    def has_default_routes(self, guest: str) -> bool:
        """Return whether a guest has default routes in both families."""
        return all(self.run_as_guest(guest, f"ip -{family} route show default") for family in INTERNET)

    def guest_address(self, guest: str, family: int) -> str:
        return next(found for found in self.guest_addresses(guest) if (":" in found) == (family == 6))

    def reached(self, source: str, addresses: Iterable[str], patience: int = 2) -> set[str]:
        """Ping `addresses` from a guest or machine at the same time, and return those that answer."""
        ping, run = ("busybox ping", self.run_as_guest) if source in GUESTS else ("ping -n", self.run)
        pings = (f"({ping} -c 1 -W {patience} {address} >&2 && echo {address}) &" for address in addresses)
        return set(run(source, f"{' '.join(pings)} wait").split())

    # --- traffic -------------------------------------------------------------------------------

    @contextmanager
    def traffic(
        self, *flows: Flows, seconds: float, interval_ms: float = 10, each: int = 32
    ) -> Iterator[Traffic]:
        """Send `each` times `flows` for `seconds` while the block runs; it begins when packets flow.

        If machines are emulated there are fewer packets, or they alone would keep these machines busy.
        """
        if self.is_emulated:
            each, interval_ms = max(1, each // 4), interval_ms * 4
        seen = Traffic()
        with TemporaryDirectory() as directory, HostLateness() as lateness:
            probes = {}
            for number, wanted in enumerate(flows):
                begun = Path(directory, str(number))
                arguments = [
                    *(wanted.source, wanted.target, "--family", str(wanted.family), "--json"),
                    *("--flows", str(each), "--interval-ms", str(interval_ms), "--seconds", str(seconds)),
                    *("--at", "0.3", "--event", f"! touch {begun}"),
                ]
                probes[wanted] = (
                    begun,
                    subprocess.Popen(
                        self._command("probe", *arguments),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    ),
                )
            try:
                for wanted, (begun, process) in probes.items():
                    wait_for(f"flows from {wanted}", partial(_has_begun, begun, process), 60)
                yield seen
                ended = [str(wanted) for wanted, (_, process) in probes.items() if process.poll() is not None]
                for wanted, (_, process) in probes.items():
                    out, errors = process.communicate(timeout=seconds + 30)
                    assert process.returncode == 0, f"the probe from {wanted} failed: {errors}"
                    seen.results[wanted] = json.loads(out)
                seen.allowance_ms = lateness.allowance_ms
                if ended:
                    raise EndedEarly(f"flows ended before the event that they measure: {', '.join(ended)}")
            finally:
                for _, process in probes.values():
                    process.kill()

    @contextmanager
    def steady_traffic(self, *flows: Flows) -> Iterator[Traffic]:
        """Send flows while the block runs, which begins when packets flow.

        The length of a probe is fixed when it starts. In each direction one probe follows another, and the
        directions are half a probe apart, so that one direction sends while the other starts its next probe.
        """
        seen = Traffic()
        flowing, done = threading.Event(), threading.Event()

        def follow(directed: list[Flows], pause: float) -> None:
            done.wait(pause)
            while not done.is_set():
                # On a busy host one probe may end before another begins: its result counts all the same.
                with suppress(EndedEarly), self.traffic(*directed, seconds=5, interval_ms=20) as probes:
                    flowing.set()
                seen.allowance_ms = max(seen.allowance_ms, probes.allowance_ms)
                for wanted, result in probes.results.items():
                    seen.add(wanted, result)

        back = [Flows(wanted.target, wanted.source, wanted.family) for wanted in flows]
        with ThreadPoolExecutor(2) as pool:
            streams = [pool.submit(follow, list(flows), 0), pool.submit(follow, back, 3)]
            try:
                assert flowing.wait(60), "no packet has arrived"
                yield seen
            finally:
                done.set()
            for stream in streams:
                stream.result()

    # --- the state of machines -------------------------------------------------------------------

    def moment(self, machine: str, condition: str, seconds: int = 120) -> Future[float]:
        """Return the moment (in seconds, to 10 ms) at which a shell condition becomes true in a machine."""
        # Use the time since the host's boot, which containers share: the time of day may change meanwhile.
        script = f"until {condition}; do sleep 0.005; done; cut -d ' ' -f 1 /proc/uptime"
        is_emulated = self._twin.standing().machine(machine).emulated

        def found() -> float:
            uptime = float(self.run(machine, f"timeout {seconds} sh -c {shlex.quote(script)}", seconds + 10))
            # An emulated machine has a clock of its own. Its answer takes some milliseconds more.
            return time.clock_gettime(time.CLOCK_BOOTTIME) if is_emulated else uptime

        pool = ThreadPoolExecutor(1)
        future = pool.submit(found)
        pool.shutdown(wait=False)
        return future

    def routes(self, machine: str, family: int, table: str = "public") -> dict[str, int]:
        """Return the unicast routes of a kernel table: prefix → number of next hops."""
        shown = self.read_json(machine, f"ip -{family} -json route show table {table} type unicast")
        return _next_hops(shown)

    def protocols(self, machine: str) -> dict[str, str]:
        """Return the BGP sessions of the routing daemon: name → state and time of its last change."""
        if self.routing_program(machine) == "gobgpd":
            neighbors = self.run(machine, GOBGP_NEIGHBORS).splitlines()
            return {
                neighbor["conf"]["description"]: f"{neighbor['state'].get('session_state')}"
                f" {neighbor['timers'].get('state', {}).get('uptime')}"
                for domain in neighbors
                for neighbor in json.loads(domain) or ()
            }
        lines = (line.split(maxsplit=5) for line in self.run(machine, PROTOCOLS).splitlines())
        return {words[0]: " ".join(words[3:]) for words in lines if len(words) > 4 and words[1] == "BGP"}

    def restarted(self, machine: str, before: Mapping[str, str]) -> set[str]:
        """Return the sessions that differ from `before`: removed, in another state, or restarted."""
        now = self.protocols(machine)
        return {
            name for name, state in before.items() if name not in now or not is_same_state(now[name], state)
        } | (now.keys() - before.keys())

    def established(self, machine: str) -> bool:
        """Return whether the routing daemon runs and all its sessions are established."""
        return not self._unconverged(machine, {}, 0)

    def routing_program(self, machine: str) -> str:
        """Return the name of the BGP process."""
        return self.run(machine, "ps -C bird,bgpd,gobgpd -o comm= | sort -u").strip()

    def detection_ms(self, path: str = "b") -> float:
        """Return the time in which a hypervisor detects that a path is dead, from its running sessions.

        With BFD it is interval times multiplier. With a neighbour without BFD it is the hold time plus one
        second, in which the routes of a lost neighbour stay in use.
        """
        rows = [line.split() for line in self.run("hv1", "birdc show bfd sessions").splitlines()]
        found = [
            1000 * float(row[-1])
            for row in rows
            if len(row) >= 6 and row[2] == "Up" and row[1].startswith(f"{path}-")
        ]
        if found:
            return max(found)
        names = [session["name"] for session in sessions("hv1", path=path)]
        shown = self.run("hv1", "; ".join(f"birdc show protocols all {name}" for name in names))
        return max(1000 * (1 + int(hold)) for hold in re.findall(r"Hold timer: +[0-9.]+/(\d+)", shown))

    def wait_until_sessions(self, machines: Iterable[str] = MACHINES, seconds: float = 45) -> None:
        """Wait until all BGP sessions of these machines are up."""
        wait_for("all BGP sessions", lambda: all(self.on_each(machines, self.established).values()), seconds)

    def wait_until_converged(self, seconds: float = 60) -> None:
        """Wait until all sessions are established and all routes have all next hops."""
        seen: dict[str, str] = {}

        def has_converged() -> bool:
            seen.clear()
            seen.update(self.unconverged())
            return not seen

        try:
            wait_for("all sessions and all next hops of all routes", has_converged, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; not converged: {seen}") from None

    def wait_until_whole(self, seconds: float = 45) -> None:
        """Wait until the lab has converged and its guests have addresses and default routes."""
        self.wait_until_converged(seconds)

        def unready() -> list[str]:
            return [
                guest
                for guest in GUESTS
                if not (self.has_addresses(guest) and self.has_default_routes(guest))
            ]

        try:
            wait_for("the guests' addresses and default routes", lambda: not unready(), seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; not ready: {', '.join(unready())}") from None

    def unconverged(self) -> dict[str, str]:
        """Return the machines that have not converged, each with its sessions or routes that are missing."""

        def reason(machine: str) -> str:
            return self._unconverged(machine, self.converged.remote[machine], self.converged.next_hops)

        return {
            machine: found for machine, found in self.on_each(self.converged.remote, reason).items() if found
        }

    def _unconverged(self, machine: str, remote: Prefixes, next_hops: int) -> str:
        show = "".join(
            f"; ip -{family} -json route show table {table} type unicast" for family, table in remote
        )
        try:
            states_line, *tables = self.run(machine, SESSION_STATES + show.removeprefix("; ")).splitlines()
        except (AssertionError, TwinError):
            return "starting"
        if set(states_line.split()) != {"Established"}:
            return f"sessions: {states_line or 'none'}"
        routes = [_next_hops(json.loads(table or "[]")) for table in tables]
        found = {
            f"{prefix} in {table} (IPv{family})": routes[at].get(prefix, 0)
            for at, ((family, table), prefixes) in enumerate(remote.items())
            for prefix in prefixes
        }
        short = {prefix: hops for prefix, hops in found.items() if hops != next_hops}
        return f"next hops: {short}" if short else ""

    # --- Ansible ---------------------------------------------------------------------------------

    def playbook(
        self,
        *arguments: str,
        inventory: Path | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> Run:
        """Run ansible-playbook against the twin's machines, with their inventory or with another one.

        ``variables`` are extra variables, which override the inventory.
        """
        extra = ("-e", json.dumps(variables)) if variables else ()
        return self._ansible("ansible-playbook", inventory or self.inventory, *arguments, *extra)

    def provision(
        self,
        *arguments: str,
        inventory: Path | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> Mapping[str, int]:
        """Run site.yml, which verifies the fabric; return the changed hosts."""
        run = self.playbook("site.yml", *arguments, inventory=inventory, variables=variables)
        return run.changed_hosts()

    def failing_playbook(self, *arguments: str) -> Run:
        """Run ansible-playbook against the twin's machines; it must fail."""
        run, status = self._finished("ansible-playbook", self.inventory, *arguments)
        assert status != 0, run.output[-6000:]
        return run

    def ping(self) -> Run:
        """Run Ansible's ping on all machines."""
        return self._ansible("ansible", self.inventory, "all", "-m", "ping")

    def ansible_command(self, program: str, inventory: Path, *arguments: str) -> list[str]:
        """Return the command line of an Ansible program against the twin's machines."""
        path = Path(sys.executable).with_name(program)
        return [str(path), "-i", str(inventory), "-e", f"@/run/l3hv/{self.name}/vars.json", *arguments]

    def _ansible(self, program: str, inventory: Path, *arguments: str) -> Run:
        run, status = self._finished(program, inventory, *arguments)
        assert status == 0, f"{program} {' '.join(arguments)}:\n{run.output[-6000:]}{run.warnings}"
        return run

    def _finished(self, program: str, inventory: Path, *arguments: str) -> tuple[Run, int]:
        command = self.ansible_command(program, inventory, *arguments)
        begin = time.monotonic()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            timeout=600,
            env=os.environ | WITH_RECAP,
        )
        return Run(done.stdout, time.monotonic() - begin, done.stderr), done.returncode

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return [sys.executable, str(TWIN), verb, "--name", self.name, *arguments]


@dataclass(frozen=True)
class Run:
    """A run of ansible-playbook: its output, its duration in seconds, and its warnings."""

    output: str
    seconds: float
    warnings: str = ""

    def recap(self) -> dict[str, dict[str, int]]:
        """Return the counts of each host: ok, changed, failed, …"""
        counted = {}
        for line in self.output.partition("PLAY RECAP")[2].splitlines():
            host, colon, counts = line.partition(":")
            if colon and "=" in counts:
                pairs = (pair.split("=") for pair in counts.split())
                counted[host.strip()] = {key: int(value) for key, value in pairs}
        return counted

    def said(self) -> str:
        """Return output and warnings on one line: Ansible wraps long lines."""
        return " ".join(f"{self.output} {self.warnings}".split())

    def changed_hosts(self) -> Mapping[str, int]:
        return {host: counts["changed"] for host, counts in self.recap().items() if counts["changed"]}

    def changes(self) -> set[tuple[str, str]]:
        """Return (task, host) of each change, also in check mode, except of handlers, which it skips."""
        found, task = set(), ""
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.partition("[")[2].rpartition("]")[0] if line.startswith("TASK") else ""
            elif line.startswith("changed: [") and task:
                found.add((task, line.partition("[")[2].partition("]")[0]))
        return found

    def differences(self) -> list[str]:
        """Return the removed and added lines of `--diff`, sorted (hosts report in any order)."""
        return sorted(
            line
            for line in self.output.splitlines()
            if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))
        )


@contextmanager
def booted(name: str, inventory: Path, *options: str, converged: Converged = LAB_CONVERGED) -> Iterator[Lab]:
    """Boot the machines of an inventory in a twin of their own, without provisioning them.

    ``converged`` is the state of the fabric after it is provisioned. L3HV_KEPT_TWIN sets
    another name of the twin, which then keeps running afterwards.
    """
    kept = os.environ.get("L3HV_KEPT_TWIN")
    made = Lab(kept or f"{name[:7]}{os.getpid() % 100000}", inventory, converged)
    made.twin("down")
    made.twin("up", *options, "-i", str(inventory), seconds=900)
    try:
        yield made
    finally:
        if not kept:
            made.twin("down")

"""An attacker on a hypervisor: a BIRD with the attacker's configuration, and hand-made BGP sessions.

The attacker's BIRD is that of Debian 13, for any daemon of the hypervisor: it runs in the image of such a
machine, in the network namespace of the hypervisor.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import bgp
from addresses import prefix_of, transparent_prefix
from hostile import in_namespace
from lab import Lab, wait_for

from l3hv.twin.image import ensure_image, recipe

SPEAKER = Path(__file__).with_name("speaker.py")
NAME, ASN, OWN_ID = "hv3", 65000, "172.22.2.3"

Table = tuple[str, int]
"""A domain and a family."""

OWN: dict[Table, list[str]] = {
    ("public", 4): [prefix_of("vm4", 4), transparent_prefix()],
    ("public", 6): [prefix_of("vm4", 6)],
    ("private", 4): ["172.22.2.3/32"],
}
"""The prefixes that hv3 may announce."""

ADDRESSES: dict[Table, dict[str, str]] = {
    ("public", 4): {"a": "198.51.100.3", "b": "198.51.100.131"},
    ("public", 6): {"a": "2001:db8:c633:6400::3", "b": "2001:db8:c633:6401::3"},
    ("private", 4): {"a": "172.22.15.3", "b": "172.22.15.131"},
}
REFLECTOR_ADDRESSES: dict[Table, dict[str, str]] = {
    ("public", 4): {"a": "198.51.100.126", "b": "198.51.100.254"},
    ("public", 6): {"a": "2001:db8:c633:6400::7e", "b": "2001:db8:c633:6401::7e"},
    ("private", 4): {"a": "172.22.15.126", "b": "172.22.15.254"},
}


@dataclass(frozen=True)
class Attack:
    """Announcements of the attacker's BIRD beside its own prefixes, or attributes of these, and the refusal.

    ``statements`` are part of the export filter. Without a ``reason`` reflectors accept the announcement and
    remove its forged attributes.
    """

    name: str
    reason: str | None
    routes: dict[Table, list[str]] = field(default_factory=dict)
    statements: str = ""
    next_hop: dict[Table, dict[str, str]] = field(default_factory=dict)
    router_id: str = OWN_ID

    @property
    def prefixes(self) -> list[str]:
        """Return the refused prefixes: the added ones, or else its own prefixes with forged attributes."""
        added = [prefix for prefixes in self.routes.values() for prefix in prefixes]
        return added or [prefix for key in self.next_hop or OWN for prefix in OWN[key]]


NO_ATTACK = Attack("nothing", None)


def configuration(attack: Attack, *, per_family: bool) -> str:
    """Return the configuration of the attacker's BIRD, with sessions per family or per domain."""
    lines = ["log stderr all;", f"router id {attack.router_id};", "protocol device {}"]
    for (domain, family), own in OWN.items():
        table, routes = f"{domain}{family}", [*own, *attack.routes.get((domain, family), ())]
        lines += [
            f"ipv{family} table {table};",
            f"protocol static s_{table} {{ ipv{family} {{ table {table}; }};",
        ]
        lines += [f"route {prefix} blackhole;" for prefix in dict.fromkeys(routes)]
        lines.append("}")
    for tables in carried(per_family=per_family):
        domain, family = tables[0]
        for path, neighbor in REFLECTOR_ADDRESSES[tables[0]].items():
            lines += [
                f"protocol bgp {domain}{family}_{path} {{",
                f"local {ADDRESSES[tables[0]][path]} as {ASN}; neighbor {neighbor} as {ASN}; direct;",
                "ttl security on; connect delay time 1; connect retry time 1; error wait time 1, 1;",
            ]
            for table in tables:
                hop = f"bgp_next_hop = {attack.next_hop[table][path]};" if table in attack.next_hop else ""
                lines += [
                    f"ipv{table[1]} {{ table {table[0]}{table[1]}; import none;",
                    f"export filter {{ {hop} {attack.statements} accept; }};",
                    f"next hop address {ADDRESSES[table][path]}; }};",
                ]
            lines.append("}")
    return "\n".join(lines) + "\n"


def carried(*, per_family: bool) -> list[list[Table]]:
    """Return the domains and families of each session of a path."""
    if per_family:
        return [[table] for table in OWN]
    return [
        [table for table in OWN if table[0] == domain] for domain in dict.fromkeys(name for name, _ in OWN)
    ]


class OwnBird:
    """The attacker's BIRD, running or not."""

    def __init__(self, lab: Lab, directory: Path, *, per_family: bool) -> None:
        self._lab = lab
        self._directory = directory
        self._control = directory / "bird.ctl"
        self._per_family = per_family
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until its sessions are up."""
        if self._process is None:
            image = ensure_image(recipe("debian13", "bird2"), print)
            self._write(NO_ATTACK)
            self._control.unlink(missing_ok=True)
            script = (
                'mount --bind "$1" "$2/mnt" && exec chroot "$2" bird -f -c /mnt/bird.conf -s /mnt/bird.ctl'
            )
            command = ["unshare", "--mount", "sh", "-c", script, "sh", str(self._directory), str(image)]
            with (self._directory / "log").open("ab") as log:
                self._process = subprocess.Popen(in_namespace(self._lab, NAME, *command), stderr=log)
            wait_for("the attacker's BIRD", self._control.exists)
            time.sleep(0.1)  # until it listens
        wait_for("the attacker's sessions", self.is_up)

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def announce(self, attack: Attack) -> None:
        """Reconfigure it with another attack."""
        self._write(attack)
        reply = self._ask("configure")
        assert "Reconfigur" in reply, reply

    def is_up(self) -> bool:
        """Return whether it has all sessions of hv3."""
        sessions = sum(len(REFLECTOR_ADDRESSES[tables[0]]) for tables in carried(per_family=self._per_family))
        return self._ask("show protocols").count("Established") == sessions

    def _write(self, attack: Attack) -> None:
        text = configuration(attack, per_family=self._per_family)
        (self._directory / "bird.conf").write_text(text)

    def _ask(self, command: str) -> str:
        """Return its reply: as for birdc, the last line has a space after its number."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self._control))
            replies = control.makefile("rw")

            def reply() -> str:
                lines = [replies.readline()]
                while not (lines[-1][:4].isdigit() and lines[-1][4:5] == " "):
                    assert lines[-1], f"the attacker's BIRD ended: {lines}"
                    lines.append(replies.readline())
                return "".join(lines)

            reply()
            replies.write(f"{command}\n")
            replies.flush()
            return reply()


@dataclass
class Speaker:
    """A hand-made BGP session with a reflector."""

    process: subprocess.Popen[str]
    printed: list[str]

    def send(self, data: bytes, count: int = 1, hertz: float = 1000) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {hertz} {data.hex()}\n")
        self.process.stdin.flush()

    def wait_until_printed(self, *words: str, seconds: float = 30) -> None:
        wait_for(f"one of {words}", lambda: any(line.startswith(words) for line in self.printed), seconds)


@contextmanager
def speaking(
    lab: Lab,
    *,
    family: int = 4,
    source: str | None = None,
    ttl: int = 255,
    router_id: str = OWN_ID,
    asn: int = ASN,
    patience_s: float = 15,
) -> Iterator[Speaker]:
    """Open a hand-made BGP session with rr1, by default as hv3 does."""
    process = subprocess.Popen(
        in_namespace(lab, NAME, sys.executable, str(SPEAKER)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed: list[str] = []

    def follow() -> None:
        assert process.stdout is not None
        printed.extend(line.strip() for line in process.stdout)

    threading.Thread(target=follow, daemon=True).start()
    assert process.stdin is not None
    ends = f"{source or ADDRESSES['public', family]['a']} {REFLECTOR_ADDRESSES['public', family]['a']}"
    process.stdin.write(f"{ends} {ttl} {patience_s} {bgp.open_message(asn, router_id).hex()}\n")
    process.stdin.flush()
    try:
        yield Speaker(process, printed)
    finally:
        process.kill()
        process.wait()

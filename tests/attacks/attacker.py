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
from addresses import advertised_prefixes
from hostile import in_namespace
from lab import Lab, wait_for
from machines import host_plans, sessions

from l3hv.twin.image import ensure_image, recipe

SPEAKER = Path(__file__).with_name("speaker.py")
NAME = "hv3"
PLAN = host_plans()[NAME]
ASN, OWN_ID = PLAN["routing"]["asn"], PLAN["routing"]["router_id"]

Table = tuple[str, int]
"""A domain and a family."""

OWN: dict[Table, list[str]] = {
    (domain, family): advertised_prefixes(NAME, domain, family)
    for domain, family in (("public", 4), ("public", 6), ("private", 4))
}
"""The prefixes that hv3 may announce."""

ADDRESSES: dict[Table, dict[str, str]] = {
    (domain, family): {
        uplink["path"]: address["address"]
        for uplink in PLAN["uplinks"]
        for address in uplink["addresses"]
        if (uplink["domain"], address["family"]) == (domain, f"ipv{family}")
    }
    for domain, family in OWN
}
"""The addresses of hv3 on each path."""

SESSIONS = sessions(NAME)
TARGET: str = SESSIONS[0]["peer"]
"""The neighbour of the hand-made sessions: a reflector of the first path, or in a mesh another host there."""

TARGET_ADDRESSES: dict[Table, str] = {
    (uplink["domain"], int(address["family"][-1])): address["address"]
    for uplink in host_plans()[TARGET]["uplinks"]
    for address in uplink["addresses"]
    if uplink["path"] == SESSIONS[0]["path"]
}
"""The addresses of this neighbour on the first path."""


@dataclass(frozen=True)
class Attack:
    """Announcements of the attacker's BIRD beside its own prefixes, or attributes of these, and the refusal.

    ``statements`` are part of the export filter. Without a ``reason`` the neighbours accept the announcement
    and remove its forged attributes.
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
        return self.prefixes_for(NAME)

    @property
    def next_hops(self) -> set[str]:
        """Return the forged next hops."""
        return {address for hops in self.next_hop.values() for address in hops.values()}

    def prefixes_for(self, machine: str) -> list[str]:
        """Return the refused prefixes in the domains of a machine."""
        domains = {uplink["domain"] for uplink in host_plans()[machine]["uplinks"]}
        forged = {key: OWN[key] for key in self.next_hop or OWN}
        return [
            prefix
            for (domain, _), prefixes in (self.routes or forged).items()
            for prefix in prefixes
            if domain in domains
        ]


NO_ATTACK = Attack("nothing", None)


def configuration(attack: Attack) -> str:
    """Return the configuration of the attacker's BIRD, with all sessions of hv3."""
    lines = ["log stderr all;", f"router id {attack.router_id};", "protocol device {}"]
    for (domain, family), own in OWN.items():
        table, routes = f"{domain}{family}", [*own, *attack.routes.get((domain, family), ())]
        lines += [
            f"ipv{family} table {table};",
            f"protocol static s_{table} {{ ipv{family} {{ table {table}; }};",
        ]
        lines += [f"route {prefix} blackhole;" for prefix in dict.fromkeys(routes)]
        lines.append("}")
    for session in SESSIONS:
        lines += [
            f"protocol bgp {session['name']} {{",
            f"local {session['local']} as {ASN}; neighbor {session['neighbor']} as {ASN}; direct;",
            "ttl security on; connect delay time 1; connect retry time 1; error wait time 1, 1;",
        ]
        for channel in session["channels"]:
            family, path = int(channel["family"][-1]), session["path"]
            carried = (session["domain"], family)
            hop = f"bgp_next_hop = {attack.next_hop[carried][path]};" if carried in attack.next_hop else ""
            lines += [
                f"ipv{family} {{ table {session['domain']}{family}; import none;",
                f"export filter {{ {hop} {attack.statements} accept; }};",
                f"next hop address {ADDRESSES[carried][path]}; }};",
            ]
        lines.append("}")
    return "\n".join(lines) + "\n"


class OwnBird:
    """The attacker's BIRD, running or not."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._control = directory / "bird.ctl"
        self._router_id = OWN_ID
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
        """Return whether it has all sessions of hv3, except with a neighbour that has the same router id."""
        ids = {name: plan["routing"]["router_id"] for name, plan in host_plans().items()}
        possible = [session for session in SESSIONS if ids[session["peer"]] != self._router_id]
        return self._ask("show protocols").count("Established") == len(possible)

    def _write(self, attack: Attack) -> None:
        self._router_id = attack.router_id
        (self._directory / "bird.conf").write_text(configuration(attack))

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
    """A hand-made BGP session with a neighbour of hv3."""

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
    """Open a hand-made BGP session with a neighbour of hv3, by default as hv3 does."""
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
    own = ADDRESSES["public", family][SESSIONS[0]["path"]]
    ends = f"{source or own} {TARGET_ADDRESSES['public', family]}"
    process.stdin.write(f"{ends} {ttl} {patience_s} {bgp.open_message(asn, router_id).hex()}\n")
    process.stdin.flush()
    try:
        yield Speaker(process, printed)
    finally:
        process.kill()
        process.wait()

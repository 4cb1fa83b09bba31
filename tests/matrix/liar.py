"""Attacks of hv2 on the reflectors of two of three paths.

An attacker's BIRD takes the place of hv2's own.  The routes of hv1 and the edge router must not change, their
sessions must stay up, and vm1 must lose no packet to or from the Internet.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from changed_intents import copy_of
from lab import Lab, both_families, wait_for

UNIT, SOCKET = "l3hv-attacker", "/run/attacker.ctl"
ATTACKER, ATTACKER_ID = "hv2", 2
WITNESSES = ("hv1", "gw")
FLOWS = both_families("vm1", "gw")
LIED_TO = {"rr1": "a", "rr3": "c"}

OWN = {
    "public4": ["203.0.113.2/32", "203.0.113.10/32"],
    "public6": ["2001:db8:cb00:7102::/64", "2001:db8:cb00:710a::/64"],
    "private4": ["172.22.2.2/32"],
}
"""The prefixes that hv2 may announce, by table."""

NETWORKS = {
    "a": {"public4": "198.51.100.{}", "public6": "2001:db8:c633:6400::{:x}", "private4": "172.22.15.{}"},
    "c": {"public4": "198.51.100.{}", "public6": "2001:db8:c633:6402::{:x}", "private4": "172.22.15.{}"},
}
OFFSETS = {"a": 0, "c": 128}


def address(path: str, table: str, number: int) -> str:
    """Return the address on a path of the host with a number."""
    offset = 0 if table.endswith("6") else OFFSETS[path]
    return NETWORKS[path][table].format(number + offset)


@dataclass(frozen=True)
class Lie:
    """Announcements of the attacker beside its own prefixes, by table, or attributes of its own prefixes.

    ``next_hop_of`` is the number of the host whose addresses it sends as next hops; ``statements`` are part
    of its export filter.
    """

    name: str
    routes: dict[str, list[str]] = field(default_factory=dict)
    statements: str = ""
    next_hop_of: int = ATTACKER_ID


HONESTY = Lie("nothing")
LIES = (
    Lie(
        "prefixes that no hypervisor has",
        {
            "public4": [
                *("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"),  # the default route, and its halves
                *("203.0.113.0/24", "203.0.112.0/20"),  # the whole pool, and more
                *(
                    "198.51.100.0/26",
                    "198.51.100.62/32",
                    "192.0.2.8/32",
                ),  # the fabric's, a reflector's, outside
                *("172.22.2.2/32", "172.22.15.0/26"),  # private ones, its own loopback among them
            ],
            "public6": ["::/0", "2000::/3", "2001:db8:cb00:7100::/56", "2001:db8:c633:6400::/120"],
            "private4": ["0.0.0.0/0", "172.22.2.0/24", "172.22.15.0/26", "203.0.113.2/32"],
        },
    ),
    Lie("another's loopback", {"private4": ["172.22.2.1/32"]}),
    Lie("another hypervisor's next hop", next_hop_of=1),
    Lie("an edge router as its next hop", next_hop_of=60),
    Lie("an AS path", statements="bgp_path.prepend(65009);"),
)
"""Announcements that every reflector refuses."""

OWNERS_LIE = Lie(
    "prefixes of other guests, or of no guest",
    {
        "public4": ["203.0.113.1/32", "203.0.113.0/31", "203.0.113.99/32"],
        "public6": [
            *("2001:db8:cb00:7101::/64", "2001:db8:cb00:7100::/63"),
            "2001:db8:cb00:7101:5254:33ff:fe00:1/128",
        ],
    },
)
"""Announcements that reflectors with `strict` refuse."""

FORGERY = Lie(
    "forged attributes",
    statements="bgp_local_pref = 4294967295; bgp_med = 77; bgp_community.add((65535, 65281)); "
    "bgp_community.add((65535, 7)); bgp_community.add((65000, 1)); bgp_large_community.add((65000, 1, 2));",
)


def configuration(lie: Lie, *, has_bfd: bool) -> str:
    """Return the configuration of the attacker's BIRD."""
    lines = ["log stderr all;", "router id 172.22.2.2;", "protocol device {}"]
    if has_bfd:
        lines.append('protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }')
    for table, own in OWN.items():
        lines += [f"ipv{table[-1]} table {table};", f"protocol static s_{table} {{"]
        lines.append(f"ipv{table[-1]} {{ table {table}; }};")
        lines += [
            f"route {prefix} blackhole;" for prefix in dict.fromkeys([*own, *lie.routes.get(table, ())])
        ]
        lines += ["}", f"filter out_{table} {{ {lie.statements} accept; }}"]
    for path in LIED_TO.values():
        for domain in ("public", "private"):
            lines += [
                f"protocol bgp {domain}_{path} {{",
                f"local {address(path, f'{domain}4', ATTACKER_ID)} as 65000;",
                f"neighbor {address(path, f'{domain}4', 62)} as 65000;",
                "direct; ttl security on; connect delay time 1; connect retry time 1; error wait time 1, 1;",
                *(["bfd on;"] if has_bfd else []),
            ]
            for table in OWN:
                if table.startswith(domain):
                    hop = address(path, table, lie.next_hop_of)
                    lines.append(
                        f"ipv{table[-1]} {{ table {table}; import none; export filter out_{table};"
                        f" next hop address {hop}; next hop self; }};"
                    )
            lines.append("}")
    return "\n".join(lines) + "\n"


@dataclass
class Attacker:
    """hv2 with the attacker's BIRD."""

    lab: Lab
    has_bfd: bool

    def tell(self, lie: Lie) -> None:
        """Restart or reconfigure the attacker's BIRD with other announcements."""
        text = shlex.quote(configuration(lie, has_bfd=self.has_bfd))
        start = f"systemd-run --quiet --unit {UNIT} bird -f -c /run/attacker.conf -s {SOCKET}"
        self.lab.run(
            ATTACKER,
            f"printf %s {text} >/run/attacker.conf; if systemctl is-active --quiet {UNIT};"
            f" then birdc -s {SOCKET} configure | grep -q Reconfig; else {start}; fi",
        )

    def await_sessions(self) -> None:
        wait_for("the attacker's sessions", lambda: self._show("protocols").count("Established") == 4)

    def sent(self) -> int:
        """Return the number of announcements in all sessions."""
        lines = self._show("protocols all").splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.strip().startswith("Export updates:"))

    def _show(self, what: str) -> str:
        return self.lab.run(ATTACKER, f"birdc -s {SOCKET} show {what} 2>&1 || true")


@contextmanager
def taken_over(lab: Lab, *, has_bfd: bool) -> Iterator[Attacker]:
    """Replace hv2's BIRD by the attacker's while the block runs."""
    lab.wait_until_converged()
    lab.run(ATTACKER, "systemctl stop bird")
    attacker = Attacker(lab, has_bfd)
    try:
        attacker.tell(HONESTY)
        attacker.await_sessions()
        yield attacker
    finally:
        lab.run(ATTACKER, f"systemctl stop {UNIT} 2>/dev/null || true; systemctl start bird")
        lab.wait_until_converged()


def known(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """Return the BGP routes in the witnesses' kernels, except hv2's own: prefix → next hops."""
    own = {prefix.removesuffix("/32") for prefixes in OWN.values() for prefix in prefixes}

    def ask(machine: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for family, table in ((4, "public"), (6, "public"), (4, "private")):
            shown = lab.read_json(
                machine, f"ip -{family} -json route show table {table} proto bird 2>/dev/null || true"
            )
            for route in shown:
                hops = sorted(hop["gateway"] for hop in route.get("nexthops", [route]))
                found[f"{route['dst']} in {table} {family}"] = hops
        return {what: hops for what, hops in found.items() if what.partition(" ")[0] not in own}

    return lab.on_each(WITNESSES, ask)


def believed_of_hv2(lab: Lab) -> set[str]:
    """Return hv1's next hops to hv2's guest, in both families, on the paths of the attacked reflectors.

    The other reflector keeps the routes of hv2's own BIRD as a last resort.
    """
    shown = [
        *lab.read_json("hv1", "ip -4 -json route show table public proto bird 203.0.113.2"),
        *lab.read_json("hv1", "ip -6 -json route show table public proto bird 2001:db8:cb00:7102::/64"),
    ]
    hops = {hop["gateway"] for route in shown for hop in route.get("nexthops", [route])}
    return hops & {
        address(path, f"public{family}", ATTACKER_ID) for path in LIED_TO.values() for family in "46"
    }


def sessions_of_others(lab: Lab) -> dict[str, str]:
    """Return the witnesses' sessions with the reflectors, and the times of their last changes."""
    found = lab.on_each(WITNESSES, lab.protocols)
    return {f"{machine} {name}": state for machine, of in found.items() for name, state in of.items()}


def believe_strictly(lab: Lab, intent: Path) -> None:
    """Set l3hv_origin_validation to `strict` on the attacked reflectors."""
    limit = ("--limit", ",".join(LIED_TO), "--skip-tags", "verify")
    lab.playbook("site.yml", *limit, inventory=intent, variables={"l3hv_origin_validation": "strict"})


def assert_unbelieved(attacker: Attacker, lie: Lie) -> None:
    """Announce it, and assert that no host has a route, that no session ended and no packet was lost."""
    lab = attacker.lab
    before, sessions, sent = known(lab), sessions_of_others(lab), attacker.sent()
    with lab.traffic(*FLOWS, seconds=6 if lie.routes else 12, each=4) as traffic:
        attacker.tell(lie)
        if lie.routes:
            said = len(LIED_TO) * sum(map(len, lie.routes.values()))
            wait_for("the lie to be sent", lambda: attacker.sent() >= sent + said, 3)
            time.sleep(1)
        else:
            wait_for("hv2's own to be refused", lambda: not believed_of_hv2(lab), 8)
        after = known(lab)
    attacker.tell(HONESTY)
    assert after == before
    assert sessions_of_others(lab) == sessions
    assert traffic.lost() == {}, traffic.lost()
    wait_for("hv2's own to be believed", lambda: len(believed_of_hv2(lab)) == 2 * len(LIED_TO), 20)


def assert_forgery_is_dropped(attacker: Attacker) -> None:
    """Assert that reflectors accept its own prefixes, and remove their forged attributes."""
    lab = attacker.lab
    attacker.tell(FORGERY)
    try:
        time.sleep(2)
        shown = "birdc show route 203.0.113.2/32 all table public4 protocol {}_public"
        shown_routes = "".join(lab.run("hv1", shown.format(reflector)) for reflector in LIED_TO).lower()
    finally:
        attacker.tell(HONESTY)
    lines = [line.strip().replace("bgp.", "bgp_") for line in shown_routes.splitlines()]
    marks = ("bgp_community", "bgp_large_community", "bgp_local_pref", "bgp_med")
    said = {line for line in lines if line.startswith(marks)}
    assert shown_routes.count("next_hop") == len(LIED_TO)
    assert said <= {"bgp_local_pref: 100", "bgp_med: 0"}


def assert_owners_are_believed(attacker: Attacker, directory: Path) -> None:
    """Enable `strict` on reflectors, then move a guest, and assert that no session ends."""
    lab = attacker.lab
    before, sessions = known(lab), sessions_of_others(lab)
    attacker.tell(OWNERS_LIE)
    wait_for("it to be believed in the pools", lambda: known(lab) != before, 5)
    attacker.tell(HONESTY)
    wait_for("it to be forgotten", lambda: known(lab) == before, 5)
    # Send in one direction only: guests do not answer probes of the edge router.
    with lab.traffic(*FLOWS, seconds=150, interval_ms=20, each=8) as traffic:
        believe_strictly(lab, lab.inventory)
        sent = attacker.sent()
        attacker.tell(OWNERS_LIE)
        said = len(LIED_TO) * sum(map(len, OWNERS_LIE.routes.values()))
        wait_for("the lie to be sent", lambda: attacker.sent() >= sent + said, 3)
        time.sleep(1)
        assert known(lab) == before
        attacker.tell(HONESTY)
        moved = copy_of(lab.inventory, directory)
        leave(moved / "host_vars" / "hv2.yml", moved / "host_vars" / "hv1.yml")
        believe_strictly(lab, moved)
        time.sleep(6)  # FRR applies changed lists after 5 s
    assert traffic.lost() == {}, traffic.lost()
    assert known(lab) == before
    assert len(believed_of_hv2(lab)) == 2 * len(LIED_TO)
    assert sessions_of_others(lab) == sessions


def leave(old: Path, new: Path) -> None:
    """Move vm2 from hv2 to hv1 in the intent, with moves_from: both may announce it."""
    guest = next(line for line in old.read_text().splitlines() if "name: vm2" in line)
    old.write_text(old.read_text().replace("l3hv_guests:\n", "").replace(f"{guest}\n", ""))
    new.write_text(f"{new.read_text()}{guest.replace('}', ', moves_from: hv2}')}\n")


class ForgedRoutes:
    """The attacks on reflectors of every daemon; the module of a fabric has the fixture ``attacker``."""

    @pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name.replace(" ", "-"))
    def test_forged_routes_are_refused(self, attacker: Attacker, lie: Lie) -> None:
        assert_unbelieved(attacker, lie)

    def test_forged_attributes_reach_no_other_host(self, attacker: Attacker) -> None:
        assert_forgery_is_dropped(attacker)

    def test_strict_is_enabled_without_ending_a_session(self, attacker: Attacker, tmp_path: Path) -> None:
        assert_owners_are_believed(attacker, tmp_path)

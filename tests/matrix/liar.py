"""Attacks of hv2 on the reflectors of two of three paths.

An attacker's BIRD takes the place of hv2's own. The routes of hv1 and the edge router must not change, their
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
ATTACKED = {"rr1": "a", "rr3": "c"}

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
class Forgery:
    """Announcements of the attacker beside its own prefixes, by table, or attributes of its own prefixes.

    ``next_hop_of`` is the number of the host whose addresses it sends as next hops; ``statements`` are part
    of its export filter.
    """

    name: str
    routes: dict[str, list[str]] = field(default_factory=dict)
    statements: str = ""
    next_hop_of: int = ATTACKER_ID


NO_FORGERY = Forgery("nothing")
FORGERIES = (
    Forgery(
        "prefixes that no hypervisor has",
        {
            "public4": [
                *("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"),  # the default route, and its halves
                *("203.0.113.0/24", "203.0.112.0/20"),  # the whole pool, and a larger prefix
                *(
                    "198.51.100.0/26",
                    "198.51.100.62/32",
                    "192.0.2.8/32",
                ),  # a path, a reflector, the Internet
                *("172.22.2.2/32", "172.22.15.0/26"),  # prefixes of private, one of them its own loopback
            ],
            "public6": ["::/0", "2000::/3", "2001:db8:cb00:7100::/56", "2001:db8:c633:6400::/120"],
            "private4": ["0.0.0.0/0", "172.22.2.0/24", "172.22.15.0/26", "203.0.113.2/32"],
        },
    ),
    Forgery("another's loopback", {"private4": ["172.22.2.1/32"]}),
    Forgery("another hypervisor's next hop", next_hop_of=1),
    Forgery("an edge router as its next hop", next_hop_of=60),
    Forgery("an AS path", statements="bgp_path.prepend(65009);"),
)
"""Announcements that every reflector refuses."""

FORGED_OWNERS = Forgery(
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

FORGED_ATTRIBUTES = Forgery(
    "forged attributes",
    statements="bgp_local_pref = 4294967295; bgp_med = 77; bgp_community.add((65535, 65281)); "
    "bgp_community.add((65535, 7)); bgp_community.add((65000, 1)); bgp_large_community.add((65000, 1, 2));",
)


def configuration(forgery: Forgery, *, has_bfd: bool) -> str:
    """Return the configuration of the attacker's BIRD."""
    lines = ["log stderr all;", "router id 172.22.2.2;", "protocol device {}"]
    if has_bfd:
        lines.append('protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }')
    for table, own in OWN.items():
        lines += [f"ipv{table[-1]} table {table};", f"protocol static s_{table} {{"]
        lines.append(f"ipv{table[-1]} {{ table {table}; }};")
        lines += [
            f"route {prefix} blackhole;" for prefix in dict.fromkeys([*own, *forgery.routes.get(table, ())])
        ]
        lines += ["}", f"filter out_{table} {{ {forgery.statements} accept; }}"]
    for path in ATTACKED.values():
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
                    hop = address(path, table, forgery.next_hop_of)
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

    def announce(self, forgery: Forgery) -> None:
        """Restart or reconfigure the attacker's BIRD with other announcements."""
        text = shlex.quote(configuration(forgery, has_bfd=self.has_bfd))
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
        attacker.announce(NO_FORGERY)
        attacker.await_sessions()
        yield attacker
    finally:
        lab.run(ATTACKER, f"systemctl stop {UNIT} 2>/dev/null || true; systemctl start bird")
        lab.wait_until_converged()


def routes_of_witnesses(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """Return the BGP routes in the witnesses' kernels, without hv2's own prefixes: prefix → next hops."""
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


def accepted_from_hv2(lab: Lab) -> set[str]:
    """Return hv1's next hops to hv2's guest, in both families, on the paths of the attacked reflectors.

    The other reflector keeps the routes of hv2's own BIRD as a last resort.
    """
    shown = [
        *lab.read_json("hv1", "ip -4 -json route show table public proto bird 203.0.113.2"),
        *lab.read_json("hv1", "ip -6 -json route show table public proto bird 2001:db8:cb00:7102::/64"),
    ]
    hops = {hop["gateway"] for route in shown for hop in route.get("nexthops", [route])}
    return hops & {
        address(path, f"public{family}", ATTACKER_ID) for path in ATTACKED.values() for family in "46"
    }


def sessions_of_others(lab: Lab) -> dict[str, str]:
    """Return the witnesses' sessions with the reflectors, and the times of their last changes."""
    found = lab.on_each(WITNESSES, lab.protocols)
    return {f"{machine} {name}": state for machine, of in found.items() for name, state in of.items()}


def enable_strict(lab: Lab, intent: Path) -> None:
    """Set l3hv_origin_validation to `strict` on the attacked reflectors."""
    limit = ("--limit", ",".join(ATTACKED), "--skip-tags", "verify")
    lab.playbook("site.yml", *limit, inventory=intent, variables={"l3hv_origin_validation": "strict"})


def assert_refused(attacker: Attacker, forgery: Forgery) -> None:
    """Announce forged routes, and assert that no host has them, no session ends and no packet is lost."""
    lab = attacker.lab
    before, sessions, sent = routes_of_witnesses(lab), sessions_of_others(lab), attacker.sent()
    with lab.traffic(*FLOWS, seconds=6 if forgery.routes else 12, each=4) as traffic:
        attacker.announce(forgery)
        if forgery.routes:
            count = len(ATTACKED) * sum(map(len, forgery.routes.values()))
            wait_for("the forged routes to be sent", lambda: attacker.sent() >= sent + count, 3)
            time.sleep(1)
        else:
            wait_for("all reflectors to refuse hv2's own prefixes", lambda: not accepted_from_hv2(lab), 8)
        after = routes_of_witnesses(lab)
    attacker.announce(NO_FORGERY)
    assert after == before
    assert sessions_of_others(lab) == sessions
    assert traffic.lost() == {}, traffic.lost()
    wait_for(
        "all reflectors to accept hv2's own prefixes",
        lambda: len(accepted_from_hv2(lab)) == 2 * len(ATTACKED),
        20,
    )


def assert_attributes_are_removed(attacker: Attacker) -> None:
    """Assert that reflectors accept the attacker's own prefixes and remove their forged attributes."""
    lab = attacker.lab
    attacker.announce(FORGED_ATTRIBUTES)
    try:
        time.sleep(2)
        shown = "birdc show route 203.0.113.2/32 all table public4 protocol {}_public"
        shown_routes = "".join(lab.run("hv1", shown.format(reflector)) for reflector in ATTACKED).lower()
    finally:
        attacker.announce(NO_FORGERY)
    lines = [line.strip().replace("bgp.", "bgp_") for line in shown_routes.splitlines()]
    marks = ("bgp_community", "bgp_large_community", "bgp_local_pref", "bgp_med")
    found = {line for line in lines if line.startswith(marks)}
    assert shown_routes.count("next_hop") == len(ATTACKED)
    assert found <= {"bgp_local_pref: 100", "bgp_med: 0"}


def assert_strict_ends_no_session(attacker: Attacker, directory: Path) -> None:
    """Enable `strict` on reflectors, then move a guest, and assert that no session ends."""
    lab = attacker.lab
    before, sessions = routes_of_witnesses(lab), sessions_of_others(lab)
    attacker.announce(FORGED_OWNERS)
    wait_for(
        "reflectors without `strict` to accept prefixes inside pools",
        lambda: routes_of_witnesses(lab) != before,
        5,
    )
    attacker.announce(NO_FORGERY)
    wait_for("the forged routes to be withdrawn", lambda: routes_of_witnesses(lab) == before, 5)
    # Send in one direction only: guests do not answer probes of the edge router.
    with lab.traffic(*FLOWS, seconds=150, interval_ms=20, each=8) as traffic:
        enable_strict(lab, lab.inventory)
        sent = attacker.sent()
        attacker.announce(FORGED_OWNERS)
        count = len(ATTACKED) * sum(map(len, FORGED_OWNERS.routes.values()))
        wait_for("the forged routes to be sent", lambda: attacker.sent() >= sent + count, 3)
        time.sleep(1)
        assert routes_of_witnesses(lab) == before
        attacker.announce(NO_FORGERY)
        moved = copy_of(lab.inventory, directory)
        move_guest(moved / "host_vars" / "hv2.yml", moved / "host_vars" / "hv1.yml")
        enable_strict(lab, moved)
        time.sleep(6)  # FRR applies changed lists after 5 s
    assert traffic.lost() == {}, traffic.lost()
    assert routes_of_witnesses(lab) == before
    assert len(accepted_from_hv2(lab)) == 2 * len(ATTACKED)
    assert sessions_of_others(lab) == sessions


def move_guest(old: Path, new: Path) -> None:
    """Move vm2 from hv2 to hv1 in the intent, with moves_from, so that both may announce it."""
    guest = next(line for line in old.read_text().splitlines() if "name: vm2" in line)
    old.write_text(old.read_text().replace("l3hv_guests:\n", "").replace(f"{guest}\n", ""))
    new.write_text(f"{new.read_text()}{guest.replace('}', ', moves_from: hv2}')}\n")


class ForgedRoutes:
    """Attacks on reflectors of any daemon; the test module has the fixture ``attacker``."""

    @pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name.replace(" ", "-"))
    def test_forged_routes_are_refused(self, attacker: Attacker, forgery: Forgery) -> None:
        assert_refused(attacker, forgery)

    def test_forged_attributes_reach_no_other_host(self, attacker: Attacker) -> None:
        assert_attributes_are_removed(attacker)

    def test_strict_is_enabled_without_ending_a_session(self, attacker: Attacker, tmp_path: Path) -> None:
        assert_strict_ends_no_session(attacker, tmp_path)

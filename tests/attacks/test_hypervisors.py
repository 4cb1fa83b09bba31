"""A hypervisor that was taken over lies to the reflectors: nobody believes it, and others lose nothing.

The attacker is hv3.  Its BIRD is stopped, and another one with a configuration of the attacker's takes its
place, or a session that is spoken by hand where a BIRD would be too honest.  While it attacks, vm1 on hv1 and
vm3 on hv2 exchange packets in both families, none of which may get lost, and what hv1, hv2 and the edge
router know of the fabric must stay as it was.  Why an announcement was refused is in the reflectors' logs.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import bgp
import pytest
from lab import REFLECTORS, Lab, both_families, wait_for

from l3hv.policy import REFUSALS
from l3hv.twin.network import NAMESPACES
from l3hv.twin.state import Twin

pytestmark = [pytest.mark.fabric, pytest.mark.attacks]

SPEAKER = Path(__file__).with_name("speaker.py")
ATTACKER, UNIT, SOCKET = "hv3", "l3hv-attacker", "/run/attacker.ctl"
STOP = f"systemctl stop {UNIT} 2>/dev/null || true"
WITNESSES = ("hv1", "hv2", "internet")
ASN, OWN_ID = 65000, "172.22.2.3"
FLOWS = both_families("vm1", "vm3")
WHY = {refusal.name: refusal.why for refusal in REFUSALS}

OWN = {
    ("public", 4): ["203.0.113.4/32", "203.0.113.11/32"],
    ("public", 6): ["2001:db8:cb00:7104::/64"],
    ("private", 4): ["172.22.2.3/32"],
}
"""What hv3 announces rightly."""

OWN_PREFIXES = {prefix for prefixes in OWN.values() for prefix in prefixes}
ADDRESSES = {
    ("public", 4): {"a": "198.51.100.3", "b": "198.51.100.131"},
    ("public", 6): {"a": "2001:db8:c633:6400::3", "b": "2001:db8:c633:6401::3"},
    ("private", 4): {"a": "172.22.15.3", "b": "172.22.15.131"},
}
REFLECTOR_ADDRESSES = {
    "public": {"a": "198.51.100.126", "b": "198.51.100.254"},
    "private": {"a": "172.22.15.126", "b": "172.22.15.254"},
}


@dataclass(frozen=True)
class Attack:
    """What the attacker's BIRD announces beside what is its own, or says of it; and why it is refused.

    ``statements`` are of an export filter.  Without a ``reason`` the announcement is taken, and what is wrong
    with it is not.
    """

    name: str
    reason: str | None
    routes: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    statements: str = ""
    next_hop: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    router_id: str = OWN_ID

    @property
    def prefixes(self) -> list[str]:
        """What is refused: what it adds, or else what is its own, said in a way that is not."""
        added = [prefix for prefixes in self.routes.values() for prefix in prefixes]
        return added or [prefix for key in self.next_hop or OWN for prefix in OWN[key]]


def public(name: str, reason: str, *prefixes: str) -> Attack:
    families = {
        ("public", 4): [p for p in prefixes if ":" not in p],
        ("public", 6): [p for p in prefixes if ":" in p],
    }
    return Attack(name, reason, {key: found for key, found in families.items() if found})


ATTACKS = (
    public("another guest's addresses", "owner", "203.0.113.3/32", "2001:db8:cb00:7103::/64"),
    public("an anycast address that it does not share", "owner", "203.0.113.10/32"),
    public("a more specific of another guest's /64", "owner", "2001:db8:cb00:7103:5254:33ff:fe00:f/128"),
    public("half of another guest's neighbourhood", "owner", "203.0.113.2/31", "2001:db8:cb00:7102::/63"),
    public("an address that nobody has", "owner", "203.0.113.99/32"),
    public("the gateway", "owner", "203.0.113.254/32"),
    public("the default route", "prefix", "0.0.0.0/0", "::/0"),
    public("halves of the default route", "prefix", "0.0.0.0/1", "128.0.0.0/1", "2000::/3"),
    public("the whole pool", "prefix", "203.0.113.0/24", "2001:db8:cb00:7100::/56"),
    public("more than the pool", "prefix", "203.0.112.0/20", "2001:db8:cb00::/40"),
    public("the fabric's prefixes", "prefix", "198.51.100.0/25", "2001:db8:c633:6400::/120"),
    public("a reflector's address", "prefix", "198.51.100.126/32", "2001:db8:c633:6400::7e/128"),
    public("the Internet", "prefix", "192.0.2.8/32", "2001:db8:8888::8/128"),
    public("private prefixes in the public domain", "prefix", "172.22.2.1/32", "10.0.0.0/8"),
    public("its own loopback in the public domain", "prefix", "172.22.2.3/32"),
    Attack("another's loopback", "loopback", {("private", 4): ["172.22.2.1/32"]}),
    Attack("all loopbacks", "loopback", {("private", 4): ["172.22.2.0/24"]}),
    Attack("public prefixes in the private domain", "prefix", {("private", 4): ["203.0.113.3/32"]}),
    Attack("its own guest in the private domain", "prefix", {("private", 4): ["203.0.113.4/32"]}),
    Attack("the default route of the private domain", "prefix", {("private", 4): ["0.0.0.0/0"]}),
    Attack("a path's prefix in the private domain", "prefix", {("private", 4): ["172.22.15.0/25"]}),
    Attack(
        "another hypervisor's next hop",
        "next_hop",
        next_hop={("public", 4): {"a": "198.51.100.1", "b": "198.51.100.129"}},
    ),
    Attack(
        "another's IPv6 next hop",
        "next_hop",
        next_hop={("public", 6): {"a": "2001:db8:c633:6400::2", "b": "2001:db8:c633:6401::2"}},
    ),
    Attack(
        "another's private next hop",
        "next_hop",
        next_hop={("private", 4): {"a": "172.22.15.2", "b": "172.22.15.130"}},
    ),
    Attack(
        "an edge router as its next hop",
        "next_hop",
        next_hop={("public", 4): {"a": "198.51.100.120", "b": "198.51.100.248"}},
    ),
    Attack("an AS path", "path", statements="bgp_path.prepend(65009);"),
    Attack(
        "forged preference",
        None,
        statements="bgp_local_pref = 4294967295; bgp_med = 0; bgp_origin = ORIGIN_IGP;",
    ),
    Attack(
        "forged communities",
        None,
        statements="bgp_community.add((65535, 65281)); bgp_community.add((65535, 6)); "
        "bgp_community.add((65000, 1)); bgp_ext_community.add((rt, 65000, 20)); "
        "bgp_large_community.add((65000, 1, 20));",
    ),
    Attack("another hypervisor's router id", None, router_id="172.22.2.1"),
)


# --- what is looked at ---------------------------------------------------------------------------------


def known(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """Return the routes that the witnesses' kernels have by BGP, but for those to hv3: prefix → next hops."""

    def ask(machine: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for family, table in ((4, "public"), (6, "public"), (4, "private"), (4, "local-out")):
            if machine == "internet" and table != "public":
                continue
            for route in lab.read_json(machine, f"ip -{family} -json route show table {table} proto bird"):
                hops = route.get("nexthops", [route])
                found[f"{route['dst']} in {table} {family}"] = sorted(hop["gateway"] for hop in hops)
        return {what: hops for what, hops in found.items() if prefix_of(what) not in OWN_PREFIXES}

    return lab.on_each(WITNESSES, ask)


def prefix_of(what: str) -> str:
    dst = what.partition(" ")[0]
    return dst if "/" in dst else f"{dst}/{128 if ':' in dst else 32}"


def now(lab: Lab, machine: str) -> str:
    return lab.run(machine, "date '+%F %T'").strip()


def said_since(lab: Lab, machine: str, begin: str) -> str:
    return lab.run(machine, f"journalctl --quiet --output cat --unit bird --since '{begin}'")


def sessions_of_others(lab: Lab) -> dict[str, str]:
    """Return the state of the sessions of all but hv3, and since when they are in it."""
    found = lab.on_each([*REFLECTORS.values(), *WITNESSES], lab.protocols)
    return {
        f"{machine} {name}": state
        for machine, protocols in found.items()
        for name, state in protocols.items()
        if not name.startswith(ATTACKER)
    }


@dataclass
class Unharmed:
    """What others must still have after an attack."""

    lab: Lab
    routes: dict[str, dict[str, list[str]]]
    sessions: dict[str, str]

    def check(self) -> None:
        assert known(self.lab) == self.routes
        assert sessions_of_others(self.lab) == self.sessions


@pytest.fixture
def unharmed(hostile: Lab) -> Unharmed:
    return Unharmed(hostile, known(hostile), sessions_of_others(hostile))


# --- the attacker --------------------------------------------------------------------------------------


def configuration(attack: Attack) -> str:
    """Return what the attacker's BIRD is told."""
    lines = ["log stderr all;", f"router id {attack.router_id};", "protocol device {}"]
    for (domain, family), own in OWN.items():
        table, routes = f"{domain}{family}", [*own, *attack.routes.get((domain, family), ())]
        lines += [
            f"ipv{family} table {table};",
            f"protocol static s_{table} {{ ipv{family} {{ table {table}; }};",
        ]
        lines += [f"route {prefix} blackhole;" for prefix in dict.fromkeys(routes)]
        lines += ["}", f"filter out_{table} {{ {attack.statements} accept; }}"]
    for domain, reflectors in REFLECTOR_ADDRESSES.items():
        for path, neighbor in reflectors.items():
            lines += [
                f"protocol bgp {domain}_{path} {{",
                f"local {ADDRESSES[domain, 4][path]} as {ASN}; neighbor {neighbor} as {ASN}; direct;",
                "ttl security on; connect delay time 1; connect retry time 1; error wait time 1, 1;",
            ]
            for of, family in OWN:
                if of == domain:
                    hop = (attack.next_hop.get((domain, family)) or ADDRESSES[domain, family])[path]
                    lines += [
                        f"ipv{family} {{ table {domain}{family}; import none;",
                        f"export filter out_{domain}{family};",
                        f"next hop address {hop}; next hop self; }};",
                    ]
            lines.append("}")
    return "\n".join(lines) + "\n"


def tell(lab: Lab, attack: Attack) -> None:
    """Let the attacker's BIRD do something else."""
    text = shlex.quote(configuration(attack))
    lab.run(
        ATTACKER, f"printf %s {text} >/run/attacker.conf && birdc -s {SOCKET} configure | grep -q Reconfig"
    )


HONEST = Attack("nothing", None)


@pytest.fixture(scope="module")
def hostile(standing: Lab) -> Iterator[Lab]:
    """The lab after somebody took over hv3: its BIRD is stopped."""
    standing.wait_until_whole()
    standing.run(ATTACKER, "systemctl stop bird")
    for reflector in REFLECTORS.values():
        wait_until_noticed(standing, reflector)
    try:
        yield standing
    finally:
        standing.run(ATTACKER, f"{STOP}; systemctl start bird")
        standing.wait_until_whole()


def wait_until_noticed(lab: Lab, reflector: str) -> None:
    """Wait until BFD has told a reflector too, which ends whatever session there is then."""
    bfd = (
        f"birdc show bfd sessions | grep -w -e {ADDRESSES['public', 4]['a']} -e {ADDRESSES['public', 4]['b']}"
    )
    wait_for(f"{reflector} to miss {ATTACKER}", lambda: " Up " not in lab.run(reflector, bfd), 10)


@pytest.fixture(scope="module")
def strict(hostile: Lab) -> Iterator[Lab]:
    """The same where reflectors know whose prefixes are whose. No session notices the change."""
    before = sessions_of_others(hostile)
    with hostile.steady_traffic(*FLOWS) as traffic:
        with_owners(hostile, "strict")
    assert traffic.lost() == {}
    assert sessions_of_others(hostile) == before
    yield hostile
    with_owners(hostile, "pool")


def with_owners(lab: Lab, validation: str) -> None:
    lab.playbook(
        "site.yml",
        "--limit",
        "route_reflectors",
        "--skip-tags",
        "verify",
        "-e",
        f"l3hv_origin_validation={validation}",
    )


@pytest.fixture
def own_bird(strict: Lab) -> Lab:
    """The same with the attacker's BIRD on hv3, which has all of hv3's sessions."""
    if not is_up(strict):
        text = shlex.quote(configuration(HONEST))
        start = f"systemd-run --quiet --unit {UNIT} bird -f -c /run/attacker.conf -s {SOCKET}"
        strict.run(
            ATTACKER,
            f"systemctl is-active --quiet {UNIT} || {{ printf %s {text} >/run/attacker.conf && {start}; }}",
        )
        wait_for("the attacker's sessions", lambda: is_up(strict))
    return strict


def is_up(lab: Lab) -> bool:
    protocols = lab.run(ATTACKER, f"birdc -s {SOCKET} show protocols 2>&1 || true")
    return protocols.count("Established") == sum(map(len, REFLECTOR_ADDRESSES.values()))


@dataclass
class Speaker:
    """A session that is spoken by hand with a reflector."""

    process: subprocess.Popen[str]
    said: list[str]

    def send(self, data: bytes, count: int = 1, hertz: float = 1000) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {hertz} {data.hex()}\n")
        self.process.stdin.flush()

    def wait_until_said(self, *words: str, seconds: float = 30) -> None:
        wait_for(f"one of {words}", lambda: any(line.startswith(words) for line in self.said), seconds)


@contextmanager
def speaker(
    lab: Lab,
    *,
    source: str = ADDRESSES["public", 4]["a"],
    ttl: int = 255,
    router_id: str = OWN_ID,
    asn: int = ASN,
) -> Iterator[Speaker]:
    """Speak BGP by hand with rr1, as hv3 would or otherwise, instead of the attacker's BIRD."""
    lab.run(ATTACKER, STOP)
    place = NAMESPACES / Twin(lab.name, print).machine_namespace(ATTACKER)
    process = subprocess.Popen(
        ["nsenter", f"--net={place}", sys.executable, str(SPEAKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []

    def follow() -> None:
        assert process.stdout is not None
        said.extend(line.strip() for line in process.stdout)

    threading.Thread(target=follow, daemon=True).start()
    assert process.stdin is not None
    target = REFLECTOR_ADDRESSES["public"]["a"]
    process.stdin.write(f"{source} {target} {ttl} {bgp.open_message(asn, router_id).hex()}\n")
    process.stdin.flush()
    try:
        yield Speaker(process, said)
    finally:
        process.kill()
        process.wait()


def usual(next_hop: str = ADDRESSES["public", 4]["a"]) -> bytes:
    return bgp.usual() + bgp.address(bgp.NEXT_HOP, next_hop)


# --- too much ------------------------------------------------------------------------------------------


MANY = [f"2001:db8:cb00:7199:1::{n >> 16:x}:{n & 0xFFFF:x}/128" for n in range(1, 100_001)]


def flood(lab: Lab) -> tuple[str, dict[str, float], int]:
    """Announce 100,000 prefixes; return rr1's log, what was lost meanwhile, and how many hv1 believes."""
    begin = now(lab, "rr1")
    with speaker(lab) as session:
        session.wait_until_said("established")
        with lab.traffic(*FLOWS, seconds=10, each=4) as traffic:
            for data in bgp.updates(ADDRESSES["public", 6]["a"], MANY):
                session.send(data, hertz=100_000)
            wait_for("rr1 to have read them", lambda: read_by(lab) >= len(MANY), 8)
            time.sleep(0.5)
            believed = sum(what.startswith("2001:db8:cb00:7199:") for what in known(lab)["hv1"])
    return said_since(lab, "rr1", begin), traffic.lost(), believed


def counted(lab: Lab, what: str) -> list[int]:
    """Return the numbers of a line of rr1's IPv6 channel with hv3."""
    text = lab.run("rr1", f"birdc show protocols all {ATTACKER}_public").partition("Channel ipv6")[2]
    line = next((line for line in text.splitlines() if line.strip().startswith(what)), "")
    return [int(word) for word in line.replace(",", " ").split() if word.isdigit()]


def read_by(lab: Lab) -> int:
    return (counted(lab, "Import updates:") or [0])[0]


def test_100000_prefixes_of_the_pool_are_limited(hostile: Lab, unharmed: Unharmed) -> None:
    """Reflectors that know nothing of guests take as many as fit; these must come before they know better."""
    log, lost, believed = flood(hostile)
    assert lost == {}
    assert 0 < believed <= 128
    assert f"Protocol {ATTACKER}_public hits route import limit" in log
    wait_for("its routes to go", lambda: known(hostile) == unharmed.routes)
    unharmed.check()


# --- with a BIRD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_announcement_is_refused(own_bird: Lab, unharmed: Unharmed, attack: Attack) -> None:
    lab = own_bird
    begins = lab.on_each(REFLECTORS.values(), lambda machine: now(lab, machine))
    # Another next hop or router id makes the attacker's BIRD begin anew.
    patience = 3 if not attack.next_hop and attack.router_id == OWN_ID else 12
    with lab.traffic(*FLOWS, seconds=patience + 3, each=4) as traffic:
        tell(lab, attack)
        if attack.reason is not None:
            words = [f"refused {prefix} from {ATTACKER}_" for prefix in attack.prefixes]
            for reflector in begins:
                wait_until_refused(
                    lab, reflector, begins[reflector], words, WHY[attack.reason], seconds=patience
                )
        else:
            time.sleep(1)
            wait_for("the attacker's sessions", lambda: is_up(lab))
    tell(lab, HONEST)
    assert traffic.lost() == {}
    unharmed.check()


def wait_until_refused(
    lab: Lab, reflector: str, begin: str, words: Sequence[str], why: str, *, seconds: float = 3
) -> None:
    wait_for(
        f"the reason in the log of {reflector}",
        lambda: is_refused(said_since(lab, reflector, begin), words, why),
        seconds,
    )


def is_refused(log: str, words: Sequence[str], why: str) -> bool:
    lines = [line for line in log.splitlines() if line.endswith(why)]
    return all(any(line.startswith(word) for line in lines) for word in words)


@pytest.mark.parametrize("name", ["forged preference", "forged communities"])
def test_what_is_forged_reaches_nobody(own_bird: Lab, name: str) -> None:
    attack = next(attack for attack in ATTACKS if attack.name == name)
    prefix = OWN["public", 4][0]
    tell(own_bird, attack)
    try:
        heard = wait_for(
            "what is forged",
            lambda: forged(shown(own_bird, "rr1", f"{prefix} all import table hv3_public.ipv4")),
            5,
        )
        time.sleep(1)
        text = shown(own_bird, "hv1", f"{prefix} all table public4")
    finally:
        tell(own_bird, HONEST)
    assert heard
    assert text.lower().count("next_hop") == 2
    assert forged(text) == []


def shown(lab: Lab, machine: str, what: str) -> str:
    return lab.run(machine, f"birdc show route {what}")


def forged(text: str) -> list[str]:
    """Return the attributes of a route that it would not have if only its prefix counted."""
    marks = ("bgp_med", "bgp_community", "bgp_ext_community", "bgp_large_community", "bgp_local_pref")
    lines = [line.strip().lower().replace("bgp.", "bgp_") for line in text.splitlines()]
    return [line for line in lines if line.startswith(marks) and line != "bgp_local_pref: 100"]


def test_verify_names_host_prefix_and_reason(own_bird: Lab) -> None:
    tell(own_bird, public("another guest's address", "owner", "203.0.113.3/32"))
    try:
        time.sleep(1)
        with pytest.raises(AssertionError) as raised:
            own_bird.playbook("playbooks/verify.yml", "--limit", "rr1", "-e", "l3hv_origin_validation=strict")
    finally:
        tell(own_bird, HONEST)
    assert f"rr1: announcement {ATTACKER} public 203.0.113.3/32" in str(raised.value)
    assert f"refused: {WHY['owner']}" in str(raised.value)


# --- by hand -----------------------------------------------------------------------------------------------


BAD_ATTRIBUTES = {
    "an origin that there is not": bgp.attribute(bgp.ORIGIN, b"\x09")
    + bgp.path()
    + bgp.number(bgp.LOCAL_PREF, 100),
    "a path that ends too early": bgp.attribute(bgp.ORIGIN, b"\0")
    + bgp.attribute(bgp.AS_PATH, b"\x02\x05\0\0")
    + bgp.number(bgp.LOCAL_PREF, 100),
    "no origin": bgp.path() + bgp.number(bgp.LOCAL_PREF, 100),
    "two origins": bgp.attribute(bgp.ORIGIN, b"\0") * 2 + bgp.path() + bgp.number(bgp.LOCAL_PREF, 100),
    "half a preference": bgp.attribute(bgp.ORIGIN, b"\0")
    + bgp.path()
    + bgp.attribute(bgp.LOCAL_PREF, b"\0\1"),
    "a length that lies": bgp.usual() + b"\x40\x63\xff",
    "an unknown one that is well known": bgp.usual() + bgp.attribute(99, b"?"),
    "an aggregator of two bytes": bgp.usual() + bgp.attribute(7, b"\0\1", bgp.OPTIONAL | bgp.TRANSITIVE),
    "half an IPv6 prefix": bgp.usual()
    + bgp.attribute(bgp.MP_REACH, bytes.fromhex("00020110") + bytes(16) + b"\0\x80\x20", bgp.OPTIONAL),
    "an unknown one for everybody": bgp.usual()
    + bgp.attribute(200, b"\xff" * 300, bgp.OPTIONAL | bgp.TRANSITIVE),
}


@pytest.mark.parametrize("name", BAD_ATTRIBUTES, ids=lambda name: name.replace(" ", "-"))
def test_bad_attributes_harm_no_other_session(strict: Lab, unharmed: Unharmed, name: str) -> None:
    with speaker(strict) as session:
        session.wait_until_said("established")
        with strict.traffic(*FLOWS, seconds=3, each=4) as traffic:
            hop = bgp.address(bgp.NEXT_HOP, ADDRESSES["public", 4]["a"])
            session.send(bgp.update(BAD_ATTRIBUTES[name] + hop, OWN["public", 4]))
            session.wait_until_said("sent")
            time.sleep(1)
    assert traffic.lost() == {}
    unharmed.check()


REFLECTED = {
    "another's originator id": bgp.address(bgp.ORIGINATOR_ID, "172.22.2.1", bgp.OPTIONAL),
    "a cluster list": bgp.address(bgp.CLUSTER_LIST, "198.51.100.254", bgp.OPTIONAL),
}


@pytest.mark.parametrize("name", REFLECTED, ids=lambda name: name.replace(" ", "-"))
def test_what_was_reflected_is_refused(strict: Lab, unharmed: Unharmed, name: str) -> None:
    begin = now(strict, "rr1")
    with speaker(strict) as session:
        session.wait_until_said("established")
        with strict.traffic(*FLOWS, seconds=3, each=4) as traffic:
            session.send(bgp.update(usual() + REFLECTED[name], OWN["public", 4]))
            words = [f"refused {prefix} from {ATTACKER}_public" for prefix in OWN["public", 4]]
            wait_until_refused(strict, "rr1", begin, words, WHY["reflected"])
    assert traffic.lost() == {}
    unharmed.check()


def test_100000_prefixes_are_refused(strict: Lab, unharmed: Unharmed) -> None:
    log, lost, believed = flood(strict)
    assert (lost, believed) == ({}, 0)
    assert f"Protocol {ATTACKER}_public hits route receive limit" in log
    assert is_refused(log, [f"refused {MANY[0].partition('/')[0][:20]}"], WHY["owner"])
    assert len(log.splitlines()) < len(MANY) / 10
    unharmed.check()


@pytest.mark.parametrize(
    "next_hop", ["198.51.100.126", "198.51.100.129", "0.0.0.0", "127.0.0.1"], ids="of-{}".format
)
def test_next_hops_that_lead_nowhere_are_refused(strict: Lab, unharmed: Unharmed, next_hop: str) -> None:
    """The reflector's own, one of another path, none: BIRD refuses these before the filter."""
    begin = now(strict, "rr1")
    with speaker(strict) as session:
        session.wait_until_said("established")
        with strict.traffic(*FLOWS, seconds=3, each=4) as traffic:
            session.send(bgp.update(usual(next_hop), OWN["public", 4]))
            wait_for(
                "the reason in the log",
                lambda: "hv3_public: Invalid NEXT_HOP attribute" in said_since(strict, "rr1", begin),
                2,
            )
    assert traffic.lost() == {}
    unharmed.check()


@pytest.mark.parametrize("prefix", ["203.0.113.4/32", "203.0.113.3/32"], ids=["its own", "another's"])
def test_flapping_at_100_hz_costs_others_nothing(strict: Lab, unharmed: Unharmed, prefix: str) -> None:
    with speaker(strict) as session:
        session.wait_until_said("established")
        with strict.traffic(*FLOWS, seconds=6, each=4) as traffic:
            session.send(
                bgp.update(usual(), [prefix]) + bgp.update(b"", withdrawn=[prefix]), count=400, hertz=100
            )
            session.wait_until_said("sent")
    assert traffic.lost() == {}
    unharmed.check()


def test_a_router_id_of_the_reflector_gets_no_session(strict: Lab, unharmed: Unharmed) -> None:
    with speaker(strict, router_id=REFLECTOR_ADDRESSES["public"]["a"]) as session:
        session.wait_until_said("notification 2 3", "refused")
        assert "established" not in session.said
    unharmed.check()


def test_another_as_gets_no_session(strict: Lab, unharmed: Unharmed) -> None:
    with speaker(strict, asn=65009) as session:
        session.wait_until_said("notification 2 2")
        assert "established" not in session.said
    unharmed.check()


def test_an_address_of_nobody_gets_no_session(strict: Lab, unharmed: Unharmed) -> None:
    begin = now(strict, "rr1")
    strict.run(ATTACKER, "ip address add 198.51.100.77/25 dev a-public")
    try:
        with speaker(strict, source="198.51.100.77") as session:
            session.wait_until_said("refused", "established")
            assert "established" not in session.said
    finally:
        strict.run(ATTACKER, "ip address delete 198.51.100.77/25 dev a-public")
    assert "198.51.100.77" in said_since(strict, "rr1", begin)
    unharmed.check()


def test_from_ttl_254_there_is_no_session(strict: Lab, unharmed: Unharmed) -> None:
    def dropped() -> int:
        shown = json.loads(strict.run("rr1", "nft --json list counter inet l3hv routing"))
        return int(next(entry["counter"]["packets"] for entry in shown["nftables"] if "counter" in entry))

    before = dropped()
    with speaker(strict, ttl=254) as session:
        session.wait_until_said("refused", "established")
        assert "established" not in session.said
    assert dropped() > before
    unharmed.check()


def test_after_all_this_hv3_is_one_of_us_again(strict: Lab) -> None:
    """With its own BIRD it has all of its sessions, and everybody its routes."""
    strict.run(ATTACKER, f"{STOP}; systemctl start bird")
    strict.wait_until_whole()

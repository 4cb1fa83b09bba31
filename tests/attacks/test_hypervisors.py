"""Attacks of a hypervisor on its neighbours: they refuse its forged routes, and other hosts lose no packet.

The attacker is hv3.  Its BIRD is stopped, and a BIRD with the attacker's configuration takes its place, or
a hand-made session for messages that no BIRD sends.  Meanwhile vm1 on hv1 exchanges packets with vm3 on hv2
and with the Internet in both families, and no packet may be lost.  During an attack the routes of hv1, hv2
and the edge router and the sessions of all other hosts must not change.  The neighbours (reflectors, or in a
mesh all other hosts) must log the reason of each refusal.

Reflectors with BIRD 1.6 have no table of owners: they accept the attacker's announcements inside a pool,
and no others.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Network, ip_network

import bgp
import pytest
from addresses import (
    address_of,
    anycast_prefix,
    blocks,
    gateway_of,
    has_shared_prefix,
    prefix_of,
    unused_subnet,
)
from attacker import (
    ADDRESSES,
    NO_ATTACK,
    OWN,
    OWN_ID,
    SESSIONS,
    TARGET,
    TARGET_ADDRESSES,
    Attack,
    OwnBird,
    Speaker,
    speaking,
)
from attacker import NAME as ATTACKER
from hostile import Log, Victims, following
from lab import PROTOCOLS, Lab, wait_for
from machines import HYPERVISORS, MACHINES, VALIDATORS, addresses, host_plans
from machines import sessions as planned_sessions

from l3hv.plan.policy import REFUSALS

pytestmark = [pytest.mark.fabric, pytest.mark.attacks]

WITNESSES = {"hv1": ("public", "private"), "hv2": ("public", "private"), "internet": ("public",)}
"""Machines whose routes must not change, and the domains of these routes."""
TABLES = {"public": ((4, "public"), (6, "public")), "private": ((4, "private"), (4, "local-out"))}
NEIGHBORS = tuple(machine for machine in VALIDATORS if machine != ATTACKER)
"""The hosts that check the attacker's announcements."""
NEIGHBOR_ADDRESSES = {session["neighbor"] for session in SESSIONS}
FIRST_PATH = SESSIONS[0]["path"]
WHY = {refusal.name: refusal.why for refusal in REFUSALS}
OWN_PREFIXES = {prefix for prefixes in OWN.values() for prefix in prefixes}
WATCHED_S = 0.7
"""The time for which an attack continues after its detection, before the victims' losses are read."""


def public(name: str, reason: str, *prefixes: str) -> Attack:
    families = {
        ("public", 4): [p for p in prefixes if ":" not in p],
        ("public", 6): [p for p in prefixes if ":" in p],
    }
    return Attack(name, reason, {key: found for key, found in families.items() if found})


def around(guest: str, family: int) -> str:
    """Return the prefix that is twice as large as a guest's."""
    return str(ip_network(prefix_of(guest, family)).supernet())


def halves(hypervisor: str) -> list[str]:
    """Return the first half of each block of a hypervisor."""
    found = (ip_network(block) for family in (4, 6) for block in blocks(hypervisor, family))
    return [str(next(block.subnets())) for block in found]


BLOCKS: tuple[Attack, ...] = (
    public("another hypervisor's block", "owner", *blocks("hv2", 4), *blocks("hv2", 6)),
    public("half of another hypervisor's block", "owner", *halves("hv2")),
)
if not blocks("hv2", 4):
    BLOCKS = ()  # Each guest is advertised by itself.

RESERVED: tuple[Attack, ...] = (
    public("the gateway", "reserved", "203.0.113.254/32"),
    public("the network address of the pool", "reserved", "203.0.113.0/32"),
    public("the broadcast address of the pool", "reserved", "203.0.113.255/32"),
    public("a prefix around the gateway", "reserved", "203.0.113.252/30"),
)
"""The addresses of a pool that no guest has; a pool with a link-local gateway has none."""
if gateway_of("vm2", 4) != "203.0.113.254":
    RESERVED = (public("the gateway", "prefix", f"{gateway_of('vm2', 4)}/32"),)

ATTACKS = (
    public("another guest's addresses", "owner", prefix_of("vm3", 4), prefix_of("vm3", 6)),
    public("an anycast address that it does not share", "owner", anycast_prefix(4)),
    public("an address of another guest", "owner", f"{address_of('vm3', 6)}/128"),
    public("another guest's neighbourhood", "owner", around("vm2", 4)),
    # No guest of a shared /64 has a prefix of this length.
    public(
        "another guest's IPv6 neighbourhood",
        "prefix" if has_shared_prefix("vm2") else "owner",
        around("vm2", 6),
    ),
    *BLOCKS,
    public("an address that no guest has", "owner", "203.0.113.99/32"),
    *RESERVED,
    public("the default route", "prefix", "0.0.0.0/0", "::/0"),
    public("halves of the default route", "prefix", "0.0.0.0/1", "128.0.0.0/1", "2000::/3"),
    public("the whole pool", "prefix", "203.0.113.0/24", "2001:db8:cb00:7100::/56"),
    public("more than the pool", "prefix", "203.0.112.0/20", "2001:db8:cb00::/40"),
    public("the fabric's prefixes", "prefix", "198.51.100.0/25", "2001:db8:c633:6400::/120"),
    public(
        "its neighbour's address",
        "prefix",
        f"{TARGET_ADDRESSES['public', 4]}/32",
        f"{TARGET_ADDRESSES['public', 6]}/128",
    ),
    public("the Internet", "prefix", "192.0.2.8/32", "2001:db8:8888::8/128"),
    public("private prefixes in the public domain", "prefix", "172.22.2.1/32", "10.0.0.0/8"),
    public("its own loopback in the public domain", "prefix", "172.22.2.3/32"),
    Attack("another hypervisor's loopback", "loopback", {("private", 4): ["172.22.2.1/32"]}),
    Attack("all loopbacks", "loopback", {("private", 4): ["172.22.2.0/24"]}),
    Attack("public prefixes in the private domain", "prefix", {("private", 4): [prefix_of("vm3", 4)]}),
    Attack("its own guest in the private domain", "prefix", {("private", 4): [prefix_of("vm4", 4)]}),
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
        statements="bgp_local_pref = 4294967295; bgp_med = 7; bgp_origin = ORIGIN_IGP;",
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


# --- observation of other hosts ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reflection:
    """The hosts that check hv3's announcements: their version of BIRD."""

    version: str

    @property
    def is_bird1(self) -> bool:
        """Return whether they run BIRD 1.6: a daemon for each family, and no table of owners."""
        return self.version.startswith("1.")

    def session(self, family: int) -> str:
        """Return the name of hv3's session of the public domain on its first path."""
        return next(
            str(session["name"])
            for session in planned_sessions(TARGET, path=FIRST_PATH, peer=ATTACKER)
            if session["domain"] == "public"
            and f"ipv{family}" in (channel["family"] for channel in session["channels"])
        )

    @property
    def per_family(self) -> bool:
        """Return whether hv3 has a session for each family."""
        return self.session(4) != self.session(6)

    def birdc(self, family: int) -> str:
        """Return the client program of the daemon of this family."""
        return "birdc6" if self.is_bird1 and family == 6 else "birdc"


@pytest.fixture(scope="module")
def reflection(standing: Lab) -> Reflection:
    versions = standing.on_each(NEIGHBORS, lambda machine: version_of(standing, machine))
    (version,) = set(versions.values())
    return Reflection(version)


def version_of(lab: Lab, machine: str) -> str:
    return lab.run(machine, "bird --version 2>&1").split()[-1]


@dataclass
class Seen:
    """BGP routes of other hosts, except routes to hv3 (prefix → next hops), and their sessions.

    A session has its state, and the time (Unix time) of its last change.
    """

    routes: dict[str, dict[str, list[str]]]
    sessions: dict[str, tuple[str, float]]


def look(lab: Lab) -> Seen:
    """Read the state of all other hosts at the same time, each with one command."""

    def asked(machine: str) -> list[tuple[int, str]]:
        return [table for domain in WITNESSES.get(machine, ()) for table in TABLES[domain]]

    def ask(machine: str) -> list[str]:
        show = [f"ip -{family} -json route show table {table} proto bird" for family, table in asked(machine)]
        return lab.run(machine, "; echo ---; ".join([*show, PROTOCOLS])).split("---\n")

    answers = lab.on_each([machine for machine in MACHINES if machine != ATTACKER], ask)
    seen = Seen({machine: {} for machine in WITNESSES}, {})
    for machine, (*tables, sessions) in answers.items():
        for (family, table), text in zip(asked(machine), tables, strict=True):
            for route in json.loads(text.strip() or "[]"):
                if with_length(route["dst"]) not in OWN_PREFIXES:
                    hops = sorted(hop["gateway"] for hop in route.get("nexthops", [route]))
                    seen.routes[machine][f"{with_length(route['dst'])} in {table} {family}"] = hops
        for words in (line.split(maxsplit=5) for line in sessions.splitlines()):
            if len(words) > 5 and words[1] == "BGP" and not words[0].startswith(ATTACKER):
                since = datetime.fromisoformat(f"{words[4]} {words[5].split()[0]}").timestamp()
                seen.sessions[f"{machine} {words[0]}"] = words[3], since
    return seen


def ended(had: Seen, has: Seen) -> set[str]:
    """Return the sessions that have changed or restarted.  Times of BIRD 1.6 have an error of a second."""
    return {
        name
        for name, (state, since) in had.sessions.items()
        if name not in has.sessions
        or has.sessions[name][0] != state
        or abs(has.sessions[name][1] - since) > 2
    }


def without(
    routes: dict[str, dict[str, list[str]]], prefixes: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """Return the routes except those to some prefixes."""
    return {
        machine: {what: hops for what, hops in found.items() if what.partition(" ")[0] not in prefixes}
        for machine, found in routes.items()
    }


def with_length(dst: str) -> str:
    dst = {"default": "0.0.0.0/0"}.get(dst, dst)
    return dst if "/" in dst else f"{dst}/{128 if ':' in dst else 32}"


@dataclass
class Others:
    """The other hosts, which an attack must not affect, and their state before it."""

    lab: Lab
    victims: Victims
    had: Seen

    def are_unharmed(self, *, accepted: Sequence[str] = ()) -> None:
        """Assert that only the guests are affected whose prefixes the neighbours accept from the attacker."""
        has, had = look(self.lab), self.had
        if not accepted:
            self.had = has  # The next attack is compared with the present state.
        lost = self.victims.lost()
        assert without(has.routes, accepted) == without(had.routes, accepted)
        assert not accepted or has.routes != had.routes
        assert ended(had, has) == set()
        assert {pair: count for pair, count in lost.items() if not accepted or "internet" in pair} == {}

    def recover(self) -> None:
        """Wait until the other hosts have all their routes again."""
        wait_for("the routes of others", lambda: look(self.lab).routes == self.had.routes, 60)

    def survive(self, command: str) -> None:
        """Run a command that ends all sessions of the target; wait for their return without packet loss."""
        self.lab.run(TARGET, command)

        def are_up() -> bool:
            sessions = look(self.lab).sessions
            known = sessions.keys() == self.had.sessions.keys()
            return known and all(state == "up" for state, _ in sessions.values())

        wait_for(f"the sessions of {TARGET}", are_up, 60)
        self.recover()
        self.had = look(self.lab)
        assert self.victims.lost() == {}


@pytest.fixture
def others(hostile: Lab, all_others: Others) -> Others:
    """Return the other hosts; packets that were lost between two attacks are failures too."""
    assert all_others.victims.lost() == {}
    return all_others


@pytest.fixture(scope="module")
def all_others(hostile: Lab, victims: Victims) -> Others:
    return Others(hostile, victims, look(hostile))


@pytest.fixture(scope="module")
def logs(standing: Lab) -> Iterator[dict[str, Log]]:
    with following(standing, NEIGHBORS) as found:
        yield found


# --- the attacker --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(standing: Lab, victims: Victims) -> Iterator[Lab]:
    """Yield the lab with the attacker on hv3, whose own BIRD is stopped."""
    assert victims.lost() == {}
    standing.run(ATTACKER, "systemctl stop 'bird*.service'")
    for neighbor in NEIGHBORS:
        wait_until_bfd_is_down(standing, neighbor)
    try:
        yield standing
    finally:
        restore_bird(standing)


def restore_bird(lab: Lab) -> None:
    """Start hv3's own BIRD again."""
    lab.run(
        ATTACKER, "for unit in bird bird6; do ! systemctl -q is-enabled $unit || systemctl start $unit; done"
    )
    lab.wait_until_whole()


def wait_until_bfd_is_down(lab: Lab, neighbor: str) -> None:
    """Wait until BFD on a neighbour has detected it too, which ends any session at that moment."""
    ends = " ".join(f"-e {address}" for address in ADDRESSES["public", 4].values())
    bfd = f"birdc show bfd sessions | grep -w {ends}"
    wait_for(f"{neighbor} to miss {ATTACKER}", lambda: " Up " not in lab.run(neighbor, bfd), 10)


@pytest.fixture(scope="module")
def owners(hostile: Lab, all_others: Others, reflection: Reflection) -> Iterator[None]:
    """Enable `strict` on neighbours that support it, without an effect on other hosts."""
    if reflection.is_bird1:
        yield
        return
    with_owners(hostile, "strict")
    try:
        all_others.recover()  # BIRD 3 filters routes before it knows all owners, and again after.
        all_others.are_unharmed()
        yield
    finally:
        with_owners(hostile, "pool")


def with_owners(lab: Lab, validation: str) -> None:
    lab.playbook(
        "site.yml",
        "--limit",
        ":".join(NEIGHBORS),
        "--skip-tags",
        "verify",
        "-e",
        f"l3hv_origin_validation={validation}",
    )


@pytest.fixture(scope="module")
def installed(hostile: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBird]:
    """Install the attacker's BIRD on hv3, without starting it."""
    bird = OwnBird(hostile, tmp_path_factory.mktemp("attacker"))
    yield bird
    bird.stop()


@pytest.fixture
def own_bird(installed: OwnBird, owners: None) -> OwnBird:
    """Start the attacker's BIRD, which has all of hv3's sessions."""
    installed.start()
    return installed


@pytest.fixture
def no_bird(installed: OwnBird) -> None:
    """Stop all BIRDs of hv3, so that only hand-made sessions remain."""
    installed.stop()


def usual(next_hop: str = ADDRESSES["public", 4][FIRST_PATH]) -> bytes:
    return bgp.usual() + bgp.address(bgp.NEXT_HOP, next_hop)


# --- too many prefixes ---------------------------------------------------------------------------------


UNUSED = unused_subnet()
MANY = [f"{UNUSED[n]}/128" for n in range(1, 100_001)]


def counted(lab: Lab, reflection: Reflection, what: str) -> list[int]:
    """Return the numbers in a line of the target's output about hv3's IPv6."""
    text = lab.run(TARGET, f"{reflection.birdc(6)} show protocols all {reflection.session(6)}")
    text = text.partition("Channel ipv6")[2] or text
    line = next((line for line in text.splitlines() if line.strip().startswith(what)), "")
    return [int(word) for word in line.replace(",", " ").split() if word.isdigit()]


def is_in(subnet: IPv6Network, route: str) -> bool:
    """Return whether a route (`PREFIX ...`) is inside a subnet."""
    destination = route.split(maxsplit=1)[0]
    return ":" in destination and IPv6Network(destination).subnet_of(subnet)


def has_reached(log: Sequence[str], reflection: Reflection, limit: str) -> bool:
    """Return whether hv3's session has reached a limit, in the log of any version of BIRD."""
    pattern = re.compile(rf"(Protocol|Channel) {reflection.session(6)}(\.ipv6)? hits route {limit} limit")
    return any(pattern.search(line) for line in log)


@contextmanager
def flood(lab: Lab, reflection: Reflection, prefixes: list[str]) -> Iterator[None]:
    """Announce 100,000 prefixes, wait until the target has read them, and keep them while the block runs."""
    with speaking(lab, family=6 if reflection.per_family else 4) as session:
        session.wait_until_printed("established")
        for data in bgp.updates(ADDRESSES["public", 6][FIRST_PATH], prefixes):
            session.send(data, hertz=100_000)

        def read() -> bool:
            return (counted(lab, reflection, "Import updates:") or [0])[0] >= len(prefixes)

        wait_for(f"{TARGET} to have read them", read, 20)
        time.sleep(WATCHED_S)
        yield


@pytest.mark.usefixtures("no_bird")
def test_100000_prefixes_of_the_pool_are_limited(
    hostile: Lab, others: Others, logs: dict[str, Log], reflection: Reflection
) -> None:
    """Run before `strict` is enabled: with `pool`, the neighbours accept prefixes up to the limit."""
    mark = logs[TARGET].mark()
    with flood(hostile, reflection, MANY):
        accepted = [what for what in look(hostile).routes["hv1"] if is_in(UNUSED, what)]
    assert 0 < len(accepted) <= 128
    assert has_reached(logs[TARGET].since(mark), reflection, "import")
    others.recover()
    others.are_unharmed()


# --- with a BIRD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_announcement_is_refused(
    own_bird: OwnBird, others: Others, logs: dict[str, Log], reflection: Reflection, attack: Attack
) -> None:
    marks = {machine: log.mark() for machine, log in logs.items()}
    accepted = attack.prefixes if attack.reason == "owner" and reflection.is_bird1 else ()
    own_bird.announce(attack)
    try:
        if attack.router_id != OWN_ID:
            own_bird.start()  # It has all its sessions again.
        elif attack.reason is not None and not accepted:
            for machine, log in logs.items():
                own = attack.next_hops & addresses(machine)
                if own & NEIGHBOR_ADDRESSES:
                    continue  # BIRD replaces a next hop that is the address of the session's other end
                if own:
                    wait_until_own_address_is_refused(machine, log, marks[machine])
                    continue
                prefixes = attack.prefixes_for(machine)
                wait_until_refused(machine, log, marks[machine], prefixes, WHY[attack.reason])
        if accepted:
            wait_for(
                "the accepted prefixes at the edge router", lambda: is_accepted(others.lab, accepted), 10
            )
        time.sleep(WATCHED_S)
        others.are_unharmed(accepted=accepted)
    finally:
        own_bird.announce(NO_ATTACK)
    if accepted:
        others.recover()
        others.victims.lost()


def is_accepted(lab: Lab, prefixes: Sequence[str]) -> bool:
    """Return whether the edge router would send packets to any of these prefixes to the attacker."""
    routes = look(lab).routes["internet"]
    attackers = {address for addresses in ADDRESSES.values() for address in addresses.values()}
    return all(
        attackers & set(routes.get(f"{prefix} in public {6 if ':' in prefix else 4}", ()))
        for prefix in prefixes
    )


def wait_until_refused(machine: str, log: Log, mark: int, prefixes: Sequence[str], why: str) -> None:
    words = [f"refused {prefix} from {ATTACKER}_" for prefix in prefixes]
    wait_for(f"the reason in the log of {machine}", lambda: is_refused(log.since(mark), words, why), 10)


def wait_until_own_address_is_refused(machine: str, log: Log, mark: int) -> None:
    """Wait until BIRD has refused a next hop that is an address of its machine, before the filter."""
    words = "Invalid NEXT_HOP attribute"
    wait_for(
        f"the reason in the log of {machine}", lambda: any(words in line for line in log.since(mark)), 10
    )


def is_refused(log: Sequence[str], words: Sequence[str], why: str) -> bool:
    lines = [line for line in log if line.endswith(why)]
    return all(any(line.startswith(word) for line in lines) for word in words)


@pytest.mark.parametrize("name", ["forged preference", "forged communities"])
def test_forged_attributes_reach_no_other_host(
    own_bird: OwnBird, others: Others, reflection: Reflection, name: str
) -> None:
    prefix = OWN["public", 4][0]
    kept = f"all import table {reflection.session(4)}.ipv4" if not reflection.is_bird1 else ""
    own_bird.announce(next(attack for attack in ATTACKS if attack.name == name))
    try:
        if kept:
            asked = f"{prefix} {kept}"
            wait_for("routes with forged attributes", lambda: forged(shown(others.lab, TARGET, asked)), 5)
        time.sleep(WATCHED_S)
        text = shown(others.lab, "hv1", f"{prefix} all table public4")
    finally:
        own_bird.announce(NO_ATTACK)
    assert text.lower().count("next_hop") == 2
    assert forged(text) == []


def shown(lab: Lab, machine: str, what: str) -> str:
    return lab.run(machine, f"birdc show route {what} || true")


def forged(text: str) -> list[str]:
    """Return the attributes of a route that the neighbours should have removed."""
    marks = ("bgp_med", "bgp_community", "bgp_ext_community", "bgp_large_community", "bgp_local_pref")
    lines = [line.strip().lower().replace("bgp.", "bgp_") for line in text.splitlines()]
    worthless = ("bgp_local_pref: 100", "bgp_med: 0")
    return [line for line in lines if line.startswith(marks) and line not in worthless]


def test_verify_names_host_prefix_and_reason(
    own_bird: OwnBird, others: Others, reflection: Reflection
) -> None:
    if reflection.is_bird1:
        pytest.skip("BIRD 1.6 does not keep the reason: its log has it")
    own_bird.announce(public("another guest's address", "owner", prefix_of("vm3", 4)))
    try:
        time.sleep(1)
        with pytest.raises(AssertionError) as raised:
            others.lab.playbook(
                "playbooks/verify.yml", "--limit", TARGET, "-e", "l3hv_origin_validation=strict"
            )
    finally:
        own_bird.announce(NO_ATTACK)
    assert f"{TARGET}: announcement {ATTACKER} public {prefix_of('vm3', 4)}" in str(raised.value)
    assert f"refused: {WHY['owner']}" in str(raised.value)


# --- with hand-made sessions -------------------------------------------------------------------------------


BAD_ATTRIBUTES = {
    "an unknown origin": bgp.attribute(bgp.ORIGIN, b"\x09") + bgp.path() + bgp.number(bgp.LOCAL_PREF, 100),
    "a path that ends too early": bgp.attribute(bgp.ORIGIN, b"\0")
    + bgp.attribute(bgp.AS_PATH, b"\x02\x05\0\0")
    + bgp.number(bgp.LOCAL_PREF, 100),
    "no origin": bgp.path() + bgp.number(bgp.LOCAL_PREF, 100),
    "two origins": bgp.attribute(bgp.ORIGIN, b"\0") * 2 + bgp.path() + bgp.number(bgp.LOCAL_PREF, 100),
    "half a preference": bgp.attribute(bgp.ORIGIN, b"\0")
    + bgp.path()
    + bgp.attribute(bgp.LOCAL_PREF, b"\0\1"),
    "a wrong length": bgp.usual() + b"\x40\x63\xff",
    "an unknown well-known attribute": bgp.usual() + bgp.attribute(99, b"?"),
    "an aggregator of two bytes": bgp.usual() + bgp.attribute(7, b"\0\1", bgp.OPTIONAL | bgp.TRANSITIVE),
    "half an IPv6 prefix": bgp.usual()
    + bgp.attribute(bgp.MP_REACH, bytes.fromhex("00020110") + bytes(16) + b"\0\x80\x20", bgp.OPTIONAL),
    "an unknown optional transitive attribute": bgp.usual()
    + bgp.attribute(200, b"\xff" * 300, bgp.OPTIONAL | bgp.TRANSITIVE),
}


@pytest.fixture
def session(hostile: Lab, owners: None, no_bird: None) -> Iterator[Speaker]:
    """Yield a hand-made session of hv3 that is up."""
    with speaking(hostile) as speaker:
        speaker.wait_until_printed("established")
        yield speaker


@pytest.mark.parametrize("name", BAD_ATTRIBUTES, ids=lambda name: name.replace(" ", "-"))
def test_bad_attributes_harm_no_other_session(
    session: Speaker, others: Others, reflection: Reflection, name: str
) -> None:
    hop = bgp.address(bgp.NEXT_HOP, ADDRESSES["public", 4][FIRST_PATH])
    session.send(bgp.update(BAD_ATTRIBUTES[name] + hop, OWN["public", 4]))
    session.wait_until_printed("sent")
    time.sleep(WATCHED_S)
    others.are_unharmed()
    if is_stuck(others.lab, reflection):
        others.survive("systemctl restart bird")


def is_stuck(lab: Lab, reflection: Reflection) -> bool:
    """Return whether the attacker's own session cannot return, because BIRD 3.1.7 does not remove it."""
    state = lab.protocols(TARGET)[reflection.session(4)]
    assert reflection.version.startswith("3.") or not state.startswith("flush"), state
    return state.startswith("flush")


ANOTHER = next(host for host in HYPERVISORS if host not in (TARGET, ATTACKER))
REFLECTED = {
    "another host's originator id": bgp.address(
        bgp.ORIGINATOR_ID, host_plans()[ANOTHER]["routing"]["router_id"], bgp.OPTIONAL
    ),
    "a cluster list": bgp.address(bgp.CLUSTER_LIST, "198.51.100.254", bgp.OPTIONAL),
}


@pytest.mark.parametrize("name", REFLECTED, ids=lambda name: name.replace(" ", "-"))
def test_reflected_routes_are_refused(
    session: Speaker, others: Others, logs: dict[str, Log], name: str
) -> None:
    mark = logs[TARGET].mark()
    session.send(bgp.update(usual() + REFLECTED[name], OWN["public", 4]))
    wait_until_refused(TARGET, logs[TARGET], mark, OWN["public", 4], WHY["reflected"])
    time.sleep(WATCHED_S)
    others.are_unharmed()


@pytest.mark.usefixtures("owners", "no_bird")
def test_100000_prefixes_are_refused(
    hostile: Lab, others: Others, logs: dict[str, Log], reflection: Reflection
) -> None:
    if reflection.is_bird1:
        prefixes, reason = [prefix.replace(":cb00:", ":bad:") for prefix in MANY], "prefix"
    else:
        prefixes, reason = MANY, "owner"
    mark = logs[TARGET].mark()
    with flood(hostile, reflection, prefixes):
        others.are_unharmed()
    log = logs[TARGET].since(mark)
    assert has_reached(log, reflection, "receive")
    assert is_refused(log, [f"refused {prefixes[0].partition('::')[0]}"], WHY[reason])
    assert len(log) < len(prefixes) / 10


@pytest.mark.parametrize(
    "next_hop", [TARGET_ADDRESSES["public", 4], "198.51.100.129", "0.0.0.0", "127.0.0.1"], ids="of-{}".format
)
def test_unreachable_next_hops_are_refused(
    session: Speaker, others: Others, logs: dict[str, Log], reflection: Reflection, next_hop: str
) -> None:
    """BIRD refuses the neighbour's own address, one of another path and none before the filter.

    BIRD 1.6 refuses them without a log line, in the filter, or by ending the session.
    """
    mark = logs[TARGET].mark()
    session.send(bgp.update(usual(next_hop), OWN["public", 4]))
    session.wait_until_printed("sent")
    if not reflection.is_bird1:
        words = f"{reflection.session(4)}: Invalid NEXT_HOP attribute"
        wait_for("the reason in the log", lambda: any(words in line for line in logs[TARGET].since(mark)), 5)
    time.sleep(WATCHED_S)
    others.are_unharmed()
    for prefix in OWN["public", 4]:
        assert f"next_hop: {next_hop}" not in shown(others.lab, "hv1", f"{prefix} all table public4")


@pytest.mark.parametrize("prefix", [prefix_of("vm4", 4), prefix_of("vm3", 4)], ids=["its own", "another's"])
def test_flapping_at_100_hz_costs_other_hosts_nothing(
    session: Speaker, others: Others, reflection: Reflection, prefix: str
) -> None:
    if prefix not in OWN_PREFIXES and reflection.is_bird1:
        prefix = "203.0.113.99/32"  # Reflectors with BIRD 1.6 would accept another guest's prefix.
    session.send(bgp.update(usual(), [prefix]) + bgp.update(b"", withdrawn=[prefix]), count=400, hertz=100)
    session.wait_until_printed("sent")
    others.are_unharmed()


@pytest.mark.usefixtures("no_bird")
def test_a_router_id_of_the_neighbor_gets_no_session(hostile: Lab, others: Others) -> None:
    with speaking(hostile, router_id=host_plans()[TARGET]["routing"]["router_id"]) as session:
        session.wait_until_printed("notification 2 3", "refused")
        assert "established" not in session.printed
    others.are_unharmed()


@pytest.mark.usefixtures("no_bird")
def test_another_as_gets_no_session(hostile: Lab, others: Others) -> None:
    with speaking(hostile, asn=65009) as session:
        session.wait_until_printed("notification 2 2")
        assert "established" not in session.printed
    others.are_unharmed()


@pytest.mark.usefixtures("no_bird")
def test_an_address_without_a_host_gets_no_session(
    hostile: Lab, others: Others, logs: dict[str, Log]
) -> None:
    mark = logs[TARGET].mark()
    hostile.run(ATTACKER, "ip address add 198.51.100.77/25 dev a-public")
    try:
        with speaking(hostile, source="198.51.100.77", patience_s=4) as session:
            session.wait_until_printed("refused", "established")
            assert "established" not in session.printed
    finally:
        hostile.run(ATTACKER, "ip address delete 198.51.100.77/25 dev a-public")
    assert any("198.51.100.77" in line for line in logs[TARGET].since(mark))
    others.are_unharmed()


@pytest.mark.usefixtures("no_bird")
def test_packets_with_ttl_254_get_no_session(hostile: Lab, others: Others) -> None:
    def dropped() -> int:
        shown = json.loads(hostile.run(TARGET, "nft --json list counter inet l3hv routing"))
        return int(next(entry["counter"]["packets"] for entry in shown["nftables"] if "counter" in entry))

    before = dropped()
    with speaking(hostile, ttl=254, patience_s=4) as session:
        session.wait_until_printed("refused", "established")
        assert "established" not in session.printed
    assert dropped() > before
    others.are_unharmed()


@pytest.mark.usefixtures("no_bird")
def test_hv3_recovers_after_all_attacks(hostile: Lab, others: Others) -> None:
    """With its own BIRD it has all of its sessions, and all hosts have its routes."""
    restore_bird(hostile)
    others.are_unharmed()

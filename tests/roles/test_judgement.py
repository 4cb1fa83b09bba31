"""Announcements of a hypervisor that reflectors of FRR and GoBGP accept, with the files of a golden plan.

Each daemon of each distribution runs in namespaces. An announcer in hv2's place announces hv2's own prefixes
and forged ones in one session; the tests compare the reflector's table afterwards.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from rendered import ROOT, files_of_plan, read_plan

sys.path.append(str(ROOT / "tests/attacks"))

import bgp

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter a machine's file system")

ANNOUNCER = Path(__file__).with_name("announcer.py")
EXPECTED = ROOT / "tests/golden/owned/expected"
OF_A_RANGE = ROOT / "tests/golden/range_frr/expected"
HOSTS = {"frr": "rr1", "gobgp": "rr2"}
OWN, SHARED = "203.0.113.3/32", "203.0.113.10/32"
KEYS = {"frr": "for-tests-<only>", "gobgp": "for tests < only >"}
KEY_NAMES = {"frr": "key_fabric", "gobgp": "@fabric@"}
"""The placeholders for secrets in the files of the daemons."""
OWN6 = "2001:db8:cb00:7103::/64"

FRR = """
    mkdir -p /run/frr /var/log/frr
    chown frr:frr /run/frr
    grep -v -e ' bfd' -e ' password $' /mnt/frr.conf >/etc/frr/frr.conf
    chown frr:frr /etc/frr/frr.conf
    for daemon in zebra bgpd; do /usr/lib/frr/$daemon -d -A 127.0.0.1 -P 0; done
    vtysh -b >/dev/null 2>&1
"""
FRR_TABLES = """
    for family in ipv4 ipv6; do vtysh -c "show bgp view DOMAIN $family unicast json"; echo; done
    vtysh -c "show bgp view DOMAIN ipv4 unicast 203.0.113.3/32 json" >/mnt/own
    kill -9 $(pidof zebra bgpd)
"""
GOBGP = """
    gobgpd --config-file=/mnt/DOMAIN.toml --pprof-disable --api-hosts=unix:///run/api >/mnt/log 2>&1 &
    until gobgp --target unix:///run/api global 2>/dev/null | grep -q Router-ID; do sleep 0.1; done
"""
GOBGP_TABLES = """
    for family in ipv4 ipv6; do gobgp --target unix:///run/api global rib -a $family --json; echo; done
    gobgp --target unix:///run/api global rib 203.0.113.3/32 --json >/mnt/own
    kill -9 $(pidof gobgpd)
"""


def network(plan: dict[str, Any], domain: str = "public") -> tuple[str, str, str, str]:
    """Return the reflector's address and hv2's, and hv2's next hops in both families of a domain."""
    sessions = (*plan["routing"]["sessions"], *plan["routing"]["ranges"])
    session = next(s for s in sessions if s["name"] in (f"hv2_{domain}", f"clients_{domain}"))
    hops = {c["family"]: hv2_in(c["carries"][0]["accepted_next_hops"]) for c in session["channels"]}
    return session["local"], hv2_in(session["neighbor"]), hops["ipv4"], hops.get("ipv6", "")


def hv2_in(prefix: str) -> str:
    """Return the address of hv2: number 2 in the network of a path, or the declared address."""
    network = ip_network(prefix)
    return str(network[2] if network.num_addresses > 1 else network[0])


def messages_of_hv2(hop: str, hop6: str) -> list[bytes]:
    """Return UPDATEs with hv2's own prefixes and forged attributes, then with prefixes of other owners."""
    right, wrong = bgp.address(bgp.NEXT_HOP, hop), bgp.address(bgp.NEXT_HOP, hop.rpartition(".")[0] + ".99")
    forged = (
        bgp.attribute(bgp.ORIGIN, b"\0")
        + bgp.path()
        + bgp.number(bgp.MED, 77, bgp.OPTIONAL)
        + bgp.number(bgp.LOCAL_PREF, 4_000_000)
        + bgp.attribute(bgp.COMMUNITIES, bytes.fromhex("fde80001ffff0007"), bgp.OPTIONAL | bgp.TRANSITIVE)
        + bgp.attribute(bgp.LARGE_COMMUNITIES, bytes.fromhex("0000fde8" * 3), bgp.OPTIONAL | bgp.TRANSITIVE)
    )
    others = [
        *("203.0.113.1/32", "203.0.113.2/31", "203.0.113.99/32"),  # of hv1, too large, of no guest
        *("0.0.0.0/0", "203.0.113.0/24", "198.51.100.0/26", "192.0.2.8/32", "172.22.2.2/32"),
    ]
    others6 = ["2001:db8:cb00:7101::/64", "2001:db8:cb00:7103::/65", "2001:db8:cb00:7102::/63", "::/0"]
    return [
        bgp.update(forged + right, [OWN]),
        bgp.update(bgp.usual() + wrong, [SHARED]),
        bgp.update(bgp.usual() + right, others),
        bgp.update(bgp.usual() + bgp.reach(hop6, [OWN6, *others6])),
    ]


def accepted_routes(
    tmp_path: Path,
    system: str,
    daemon: str,
    updates: list[bytes],
    domain: str = "public",
    *,
    key: str = "",
    announced: str = "",
    expected: Path = EXPECTED,
    host: str = "",
) -> dict[str, Any]:
    """Return the reflector's table of a domain by prefix, after hv2 has sent ``updates``."""
    plan = read_plan(expected / (host or HOSTS[daemon]) / "plan.yml")
    for name, text in files_of_plan(plan).items():
        if name.endswith(("/frr.conf", f"/{domain}.toml")):
            (tmp_path / Path(name).name).write_text(text.replace(KEY_NAMES[daemon], key))
    own, neighbor, hop, _ = network(plan, domain)
    image = [str(ROOT / "twin"), "image", "--system", system, "--daemon", daemon]
    done = subprocess.run(image, capture_output=True, text=True, check=True, cwd=ROOT)
    root = done.stdout.split()[-1]
    start, tables = (FRR, FRR_TABLES) if daemon == "frr" else (GOBGP, GOBGP_TABLES)
    for name, script in (("start", start), ("tables", tables)):
        (tmp_path / name).write_text(script.replace("DOMAIN", domain))
    # A test may call this again: the loop below must not read what the announcer before it has printed.
    (tmp_path / "announced").write_text("")
    messages = " ".join(update.hex() for update in updates)
    script = f"""
        mount -t tmpfs tmpfs {root}/run
        mount -t tmpfs tmpfs {root}/etc/frr 2>/dev/null || true
        mount -t proc proc {root}/proc
        mount --bind {tmp_path} {root}/mnt
        ip link set lo up
        unshare --net sleep 100 & beside=$!
        until [ "$(readlink /proc/$beside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
        ip link add here type veth peer name there netns $beside
        ip address add {own}/24 dev here
        ip link set here up
        nsenter --target $beside --net sh -c 'ip address add {hop}/24 dev there; ip link set there up'
        chroot {root} sh -e /mnt/start >&2
        nsenter --target $beside --net \\
            {sys.executable} {ANNOUNCER} '{announced}' {neighbor} {own} {messages} >{tmp_path}/announced &
        announcer=$!
        until grep -q sent {tmp_path}/announced; do kill -0 $announcer || break; sleep 0.1; done
        chroot {root} sh /mnt/tables
        kill -9 $beside
    """
    command = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-ec",
        script,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert "sent" in (tmp_path / "announced").read_text(), done.stdout + done.stderr
    tables_found = [json.loads(line) for line in joined(done.stdout)]
    return {
        prefix: paths
        for table in tables_found
        for prefix, paths in table.get("routes", table).items()
        if isinstance(paths, list)
    }


def joined(text: str) -> list[str]:
    """Return the JSON documents of a text."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        _, end = decoder.raw_decode(rest)
        found.append(rest[:end])
        rest = rest[end:].lstrip()
    return found


@pytest.mark.parametrize("daemon", HOSTS)
@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_a_hypervisors_own_prefixes_are_accepted_and_no_others(
    tmp_path: Path, system: str, daemon: str
) -> None:
    plan = read_plan(EXPECTED / HOSTS[daemon] / "plan.yml")
    table = accepted_routes(tmp_path, system, daemon, messages_of_hv2(*network(plan)[2:]))
    assert sorted(table) == [OWN6, OWN]
    own = (tmp_path / "own").read_text()
    assert network(plan)[2] in own
    assert re.findall(r"\b77\b|4000000|communit", own.lower()) == []


@pytest.mark.parametrize("daemon", HOSTS)
def test_a_route_with_an_as_path_is_refused(tmp_path: Path, daemon: str) -> None:
    plan = read_plan(EXPECTED / HOSTS[daemon] / "plan.yml")
    hop = bgp.address(bgp.NEXT_HOP, network(plan)[2])
    beyond = bgp.attribute(bgp.ORIGIN, b"\0") + bgp.path(65009) + bgp.number(bgp.LOCAL_PREF, 100) + hop
    updates = [bgp.update(beyond, [OWN]), bgp.update(bgp.usual() + hop, [SHARED])]
    assert list(accepted_routes(tmp_path, "debian13", daemon, updates)) == [SHARED]


@pytest.mark.parametrize("daemon", HOSTS)
def test_only_the_hypervisors_own_loopback_is_accepted(tmp_path: Path, daemon: str) -> None:
    plan = read_plan(EXPECTED / HOSTS[daemon] / "plan.yml")
    hop = bgp.address(bgp.NEXT_HOP, network(plan, "private")[2])
    others = ["172.22.2.1/32", "172.22.2.0/24", "10.20.0.2/32", "0.0.0.0/0", OWN]
    updates = [bgp.update(bgp.usual() + hop, ["172.22.2.2/32", *others])]
    assert list(accepted_routes(tmp_path, "debian13", daemon, updates, "private")) == ["172.22.2.2/32"]


@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_routes_from_clients_of_a_range_have_the_client_as_next_hop(tmp_path: Path, system: str) -> None:
    """The reflector accepts prefixes in the pools and the default route, with the client as next hop."""
    plan = read_plan(OF_A_RANGE / HOSTS["frr"] / "plan.yml")
    _, speaker, hop, hop6 = network(plan)
    others = [bgp.address(bgp.NEXT_HOP, address) for address in ("198.51.100.99", "192.0.2.99")]
    updates = [
        bgp.update(bgp.usual() + bgp.address(bgp.NEXT_HOP, hop), [OWN, "0.0.0.0/0"]),
        bgp.update(bgp.usual() + others[0], [SHARED]),
        bgp.update(bgp.usual() + others[1], ["203.0.113.11/32"]),
        bgp.update(bgp.usual() + bgp.address(bgp.NEXT_HOP, hop), ["203.0.113.0/24", "198.51.100.0/26"]),
        bgp.update(bgp.usual() + bgp.reach(hop6, [OWN6, "2001:db8:cb00:7100::/56", "2001:db8::/32"])),
        bgp.update(bgp.usual() + bgp.reach("2001:db8::99", ["2001:db8:cb00:7104::/64"])),
    ]
    table = accepted_routes(tmp_path, system, "frr", updates, expected=OF_A_RANGE)
    assert sorted(table) == ["0.0.0.0/0", OWN6, SHARED, OWN]
    assert {hop["ip"] for path in table[SHARED] for hop in path["nexthops"]} == {speaker}


@pytest.mark.parametrize(
    ("case", "daemon", "host", "system"),
    [
        ("reflectors", "frr", "rr1", "debian13"),
        ("reflectors", "frr", "rr3", "debian12"),
        ("gobgp", "gobgp", "rr1", "debian13"),
        ("gobgp", "gobgp", "rr3", "debian12"),
        ("range_gobgp", "gobgp", "rr1", "debian13"),
    ],
)
def test_addresses_of_a_pool_that_no_guest_can_have_are_refused(
    tmp_path: Path, case: str, daemon: str, host: str, system: str
) -> None:
    """Test the gateway, network and broadcast addresses, and prefixes that contain one of them."""
    expected = ROOT / "tests/golden" / case / "expected"
    hop = bgp.address(bgp.NEXT_HOP, network(read_plan(expected / host / "plan.yml"))[2])
    unusable = [
        "203.0.113.254/32",
        "203.0.113.0/32",
        "203.0.113.255/32",
        "203.0.113.252/30",
        "203.0.113.0/25",
    ]
    updates = [bgp.update(bgp.usual() + hop, [*unusable, OWN])]
    assert list(accepted_routes(tmp_path, system, daemon, updates, expected=expected, host=host)) == [OWN]


@pytest.mark.parametrize("daemon", HOSTS)
def test_without_the_key_there_is_no_session(tmp_path: Path, daemon: str) -> None:
    plan = read_plan(EXPECTED / HOSTS[daemon] / "plan.yml")
    updates = [bgp.update(bgp.usual() + bgp.address(bgp.NEXT_HOP, network(plan)[2]), [OWN])]
    key = KEYS[daemon]
    for announced, answer in ((key, [OWN]), ("", None), (f"{key}!", None)):
        keys: dict[str, Any] = {"key": key, "announced": announced}
        if answer is not None:
            assert list(accepted_routes(tmp_path, "debian13", daemon, updates, **keys)) == answer
        else:
            with pytest.raises(AssertionError, match="timed out"):
                accepted_routes(tmp_path, "debian13", daemon, updates, **keys)

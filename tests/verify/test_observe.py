"""The observation of daemons' answers and of packets; tests in the twin observe netlink."""

from __future__ import annotations

import contextlib
import doctest
import errno
import hashlib
import importlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.l3hv.observe.bird import (
    REFUSED_SHOWN,
    Bird,
    BirdError,
    configuration_digests,
    parse_bfd,
    parse_protocols,
    parse_status,
    read_bird,
    read_birds,
    read_refused,
    routes_of,
)
from ansible.module_utils.l3hv.observe.callers import unknown_callers
from ansible.module_utils.l3hv.observe.foreign_chains import devices_of, read_chains_of_others
from ansible.module_utils.l3hv.observe.foreign_rules import (
    legacy_chains,
    legacy_rule,
    rule_of_other,
    rules_of_other,
)
from ansible.module_utils.l3hv.observe.kernel import sysctl_path
from ansible.module_utils.l3hv.observe.offers import (
    DHCP_HEADER,
    dhcp_discover,
    parse_advertisement,
    parse_offer,
)
from ansible.module_utils.l3hv.observe.packet_filter import read_packet_filter, read_translations
from ansible.module_utils.l3hv.observe.programs import NoAnswerInTime, run_query
from ansible.module_utils.l3hv.observe.routes import route_digest
from ansible.module_utils.l3hv.observe.routing import is_young
from ansible.module_utils.l3hv.observe.units import UNITS
from ansible_modules import FINDING, MODULES

from l3hv.model.plain import from_plain
from l3hv.model.plan import HostPlan
from l3hv.plan.units import REQUIRED_SETTINGS
from l3hv.twin.image import ensure_image, recipe
from l3hv.verify.expect import units
from l3hv.verify.fabric import route_total
from l3hv.verify.foreign import blocked
from l3hv.verify.rewriting import flows_of, rewritten

ROOT = Path(__file__).parents[2]
OBSERVE = "ansible.module_utils.l3hv.observe"
FILES = sorted((ROOT / "plugins/module_utils/l3hv/observe").glob("[a-z]*.py"))
PLANS = sorted((ROOT / "tests" / "golden").glob("*/expected/*/plan.yml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_in_the_documentation_are_true(path: Path) -> None:
    assert doctest.testmod(importlib.import_module(f"{OBSERVE}.{path.stem}")).failed == 0


def test_all_units_that_a_plan_expects_are_read() -> None:
    plans = [from_plain(HostPlan, yaml.load(path.read_text(), yaml.CSafeLoader)) for path in PLANS]
    expected = {unit for plan in plans if plan.managed for unit in units(plan)} | REQUIRED_SETTINGS.keys()
    missing = {unit for unit in expected - {*UNITS} if not unit.startswith("l3hv-gobgp")}
    assert missing == set()


PROTOCOLS = """\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     2026-11-21 03:26:01.408
1006-
1002-kernel_public4 Kernel     public4    up     2026-11-21 03:26:01.408
1006-  Channel ipv4
     State:          UP
     Table:          public4
     Routes:         3 imported, 4 exported, 3 preferred

1002-rr1_public BGP        ---        up     2026-11-21 03:26:03.100  Established
1006-  Description:    rr1, path a, public
   BGP state:          Established
     Neighbor address: 198.51.100.126
     Source address:   198.51.100.1
     Hold timer:       69.115/90
   Channel ipv4
     State:          UP
     Table:          public4
     Routes:         5 imported, 3 exported, 3 preferred
   Channel ipv6
     State:          UP
     Table:          public6
     Routes:         4 imported, 1 filtered, 3 exported, 3 preferred

1002-rr2_public BGP        ---        start  03:26:03.100  Active        Socket: Connection refused
1006-  BGP state:          Active
     Neighbor address: 198.51.100.254
     Last error:       Socket: Connection refused
   Channel ipv4
     State:          DOWN
     Table:          public4

0000 OK
"""
BFD = """\
1020-bfd1:
 IP address                Interface  State      Since                      Interval  Timeout
 198.51.100.126            a-public   Up         2026-11-21 03:26:03.100    0.100    0.300
 198.51.100.254            b-public   Down       03:26:03.100    1.000    0.000
0000 OK
"""
PROTOCOLS_OF_1_6 = """\
2002-name     proto    table    state  since       info
1002-bfd1     BFD      master   up     2026-11-21 05:37:33
1006-  Preference:     0
   Routes:         0 imported, 0 exported, 0 preferred

1002-rr1_public{0} BGP      public{0}  up     2026-11-21 05:37:33  Established
1006-  Preference:     100
   Input filter:   accept_public{0}
   Routes:         7 imported, 2 exported, 5 preferred
   BGP state:          Established
     Neighbor address: neighbour{0}
     Source address:   own{0}

0000 OK
"""
STATUS = """\
1000-BIRD 2.17.5
1011-Router ID is 172.22.2.1
 Hostname is hv1
 Current server time is 2026-11-21 03:26:31.408
 Last reboot on 2026-11-21 03:25:51.408
 Last reconfiguration on 2026-11-21 03:26:01.408
0013 Daemon is up and running
"""


class Daemon(threading.Thread):
    """A control socket that answers like BIRD."""

    def __init__(self, path: str, replies: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.replies = replies
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()

    def run(self) -> None:
        client, _ = self.socket.accept()
        client.sendall(b"0001 BIRD 2.17.5 ready.\n")
        with contextlib.suppress(ConnectionError):  # the client may close the connection early
            while command := client.recv(1024).decode().strip():
                reply = self.replies.get(command, "9001 syntax error\n")
                half = len(reply) // 2  # replies arrive in pieces
                client.sendall(reply[:half].encode())
                client.sendall(reply[half:].encode())


@pytest.fixture
def control(tmp_path: Path) -> str:
    path = str(tmp_path / "bird.ctl")
    replies = {"show protocols all": PROTOCOLS, "show bfd sessions": BFD, "show status": STATUS}
    Daemon(path, {**replies, "eval l3hv_config": '0023 "0123456789abcdef"\n'}).start()
    return path


def test_protocols_and_their_channels(control: str) -> None:
    bird = Bird(control)
    protocols = parse_protocols(bird.ask("show protocols all"))
    bird.close()
    assert list(protocols) == ["device1", "kernel_public4", "rr1_public", "rr2_public"]
    session = protocols["rr1_public"]
    assert (session["type"], session["state"], session["info"]) == ("BGP", "up", "Established")
    assert session["fields"]["Neighbor address"] == "198.51.100.126"
    assert routes_of(session["channels"]["ipv6"]) == {
        "imported": 4,
        "filtered": 1,
        "exported": 3,
        "preferred": 3,
    }
    assert protocols["rr2_public"]["info"] == "Active        Socket: Connection refused"
    assert protocols["rr2_public"]["fields"]["Last error"] == "Socket: Connection refused"


REFUSED = """\
1007-Table public4:
 203.0.113.3/32       unicast [hv3_public 05:42:50.444] * (100) [i]
1008-\tvia 198.51.100.3 on a-public
1012-\tBGP.next_hop: 198.51.100.3
\tfabric_refusal: 5
1007-2001:db8:cb00:7103::/64 unicast [hv3_public 05:42:50.444] * (100) [i]
1012-\tbgp_local_pref: 100
0000 OK
"""


def test_refused_routes_and_why(tmp_path: Path) -> None:
    path = str(tmp_path / "bird.ctl")
    Daemon(path, {"show route all filtered table public4 protocol hv3_public": REFUSED}).start()
    assert read_refused(path, "hv3_public", "public4") == [
        {"prefix": "203.0.113.3/32", "reason": 5},
        {"prefix": "2001:db8:cb00:7103::/64", "reason": None},
    ]


def test_only_the_first_of_many_refused_routes_are_read(tmp_path: Path) -> None:
    path = str(tmp_path / "bird.ctl")
    rows = "".join(f"1007-10.0.{n >> 8}.{n & 255}/32 unicast [x]\n" for n in range(2000))
    Daemon(path, {"show route all filtered table public4 protocol hv3_public": f"{rows}0000 OK\n"}).start()
    assert len(read_refused(path, "hv3_public", "public4")) == REFUSED_SHOWN


def test_bfd_sessions_are_read_with_every_time_format(control: str) -> None:
    bird = Bird(control)
    up, down = parse_bfd(bird.ask("show bfd sessions"))
    bird.close()
    assert (up["address"], up["state"], up["interval"], up["timeout"]) == (
        "198.51.100.126",
        "Up",
        "0.100",
        "0.300",
    )
    assert (down["state"], down["interval"]) == ("Down", "1.000")


def test_a_refused_command_is_an_error_and_later_commands_work(control: str) -> None:
    bird = Bird(control)
    with pytest.raises(BirdError, match="syntax error"):
        bird.ask("show nonsense")
    assert parse_status(bird.ask("show status")) == {
        "version": "2.17.5",
        "router_id": "172.22.2.1",
        "now": "2026-11-21 03:26:31.408",
        "reconfigured": "2026-11-21 03:26:01.408",
        "state": "Daemon is up and running",
    }
    bird.close()


def test_both_daemons_of_bird_1_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BIRD 1.6 has no channels, and a process for each family."""
    monkeypatch.setattr(f"{OBSERVE}.bird.BIRD_SOCKET", str(tmp_path / "{}.ctl"))
    monkeypatch.setattr(f"{OBSERVE}.bird.BIRD_CONFIGURATION", str(tmp_path / "{}.conf"))
    status = STATUS.replace("2.17.5", "1.6.8")
    for number, name in (("4", "bird"), ("6", "bird6")):
        replies = {
            "show protocols all": PROTOCOLS_OF_1_6.format(number),
            "show bfd sessions": BFD,
            "show status": status,
            "eval l3hv_config": f"0023 digest{number}\n",
        }
        Daemon(str(tmp_path / f"{name}.ctl"), replies).start()
    programs = [{"name": "bird", "families": ["ipv4"]}, {"name": "bird6", "families": ["ipv6"]}]
    bird = read_birds({"routing": {"programs": programs}})
    assert bird["configuration"]["running"] == "digest4 and digest6"
    assert bird["router_id"] == "172.22.2.1"
    assert bird["protocols"] == {"bfd1": "up", "bfd1 of bird6": "up"}
    assert len(bird["bfd"]) == 4
    assert bird["sessions"]["rr1_public6"] == {
        "state": "Established",
        "info": "Established",
        "neighbor": "neighbour6",
        "local": "own6",
        "error": "",
        "channels": {
            "ipv6": {
                "state": "UP",
                "table": "public6",
                "routes": {"imported": 7, "exported": 2, "preferred": 5},
                "limits": [],
                "refused": [],
            }
        },
    }
    assert read_birds({"routing": {"programs": [{"name": "none", "families": ["ipv6"]}]}})[
        "error"
    ].startswith("none: ")


@pytest.mark.parametrize(
    ("reconfigured", "expected"),
    [("2026-11-21 03:26:20.1", True), ("2026-11-21 03:25:51.408", False), ("", False), ("yesterday", False)],
)
def test_a_newly_reconfigured_bird_is_young(reconfigured: str, expected: bool) -> None:
    now = "2026-11-21 03:26:31.408"
    assert is_young({"now": now, "reconfigured": reconfigured}) is expected


def test_a_missing_socket_of_bird_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{OBSERVE}.bird.BIRD_SOCKET", str(tmp_path / "{}.ctl"))
    assert "No such file" in read_bird("none", "ipv4")["error"]


def test_the_configuration_is_identified_by_its_digest(control: str, tmp_path: Path) -> None:
    text = 'router id 1.1.1.1;\ndefine l3hv_config = "@digest@";\n'
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = tmp_path / "bird.conf"
    bird = Bird(control)
    file.write_text(text.replace("@digest@", digest))
    assert configuration_digests(bird, str(file)) == {
        "running": "0123456789abcdef",
        "placed": digest,
        "file": digest,
    }
    file.write_text(text.replace("@digest@", digest) + "# changed\n")
    assert configuration_digests(bird, str(file))["file"] != digest
    file.unlink()
    assert configuration_digests(bird, str(file))["placed"] is None
    bird.close()


def test_observation_and_expectation_have_the_same_digest_of_a_route() -> None:
    for prefix, hops in (("203.0.113.1/32", ["198.51.100.2", "198.51.100.130"]), ("::/0", ["2001:db8::1"])):
        assert route_digest(prefix, hops) == route_total(prefix, hops).digest
        assert route_digest(prefix, [*reversed(hops), hops[0]]) == route_total(prefix, hops).digest


def test_a_dhcp_offer_is_parsed() -> None:
    transaction = os.urandom(4)
    discover = dhcp_discover("50:54:33:00:00:07", transaction)
    assert len(discover) == 300
    assert discover[4:8] == transaction
    assert discover[28:34] == bytes.fromhex("505433000007")
    header = list(DHCP_HEADER.unpack(discover[: DHCP_HEADER.size]))
    header[0], header[8] = 2, socket.inet_aton("203.0.113.1")
    options = [
        (53, b"\x02"),
        (1, socket.inet_aton("255.255.255.0")),
        (3, socket.inet_aton("203.0.113.254")),
        (6, socket.inet_aton("192.0.2.8") + socket.inet_aton("192.0.2.9")),
        (26, struct.pack("!H", 1400)),
        (121, bytes((0,)) + socket.inet_aton("203.0.113.254")),
        (121, bytes((22, 10, 0, 4)) + socket.inet_aton("203.0.113.253")),
        (51, struct.pack("!I", 3600)),
    ]
    data = DHCP_HEADER.pack(*header) + b"".join(bytes((c, len(v))) + v for c, v in options) + b"\xff"
    assert parse_offer(data) == {
        "address": "203.0.113.1",
        "server": None,
        "netmask": "255.255.255.0",
        "gateway": "203.0.113.254",
        "dns": ["192.0.2.8", "192.0.2.9"],
        "mtu": 1400,
        "routes": [["0.0.0.0/0", "203.0.113.254"], ["10.0.4.0/22", "203.0.113.253"]],
        "seconds": 3600,
    }


@pytest.mark.parametrize("cut", [0, 1, 10, 239, 240, 243, 250])
def test_a_truncated_message_is_no_offer(cut: int) -> None:
    discover = dhcp_discover("50:54:33:00:00:07", b"abcd")
    assert parse_offer(discover[:cut]) is None
    assert parse_offer(b"\x02" + discover[1:cut]) is None


ADVERTISEMENT = bytes.fromhex(
    "86009dc74000070800000000000000000304404000015180000038400000000020010db8cb00710100000000000000001903"
    "00000000025820010db888880000000000000000000805010000000005dc0101505433000001"
)


def test_a_router_advertisement_is_parsed() -> None:
    assert parse_advertisement(ADVERTISEMENT) == {
        "lifetime": 1800,
        "mac": "50:54:33:00:00:01",
        "mtu": 1500,
        "prefixes": [
            {
                "prefix": "2001:db8:cb00:7101::/64",
                "on_link": False,
                "autonomous": True,
                "valid": 86400,
                "preferred": 14400,
            }
        ],
        "dns": ["2001:db8:8888::8"],
    }


@pytest.mark.parametrize("cut", range(0, len(ADVERTISEMENT), 7))
def test_a_truncated_or_other_packet_is_no_error(cut: int) -> None:
    parse_advertisement(ADVERTISEMENT[:cut])
    assert parse_advertisement(b"\x85" + ADVERTISEMENT[1:]) is None


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eno1/90.forwarding", "/proc/sys/net/ipv4/conf/eno1.90/forwarding"),
        ("net/ipv4/conf/eno1.90/forwarding", "/proc/sys/net/ipv4/conf/eno1.90/forwarding"),
    ],
)
def test_settings_are_read_from_the_file_of_the_sysctl_key(key: str, path: str) -> None:
    assert sysctl_path(key) == path


def meta(key: str, operator: str, value: object) -> dict[str, object]:
    return {"match": {"op": operator, "left": {"meta": {"key": key}}, "right": value}}


def test_interfaces_and_verdicts_of_foreign_rules_are_read() -> None:
    docker = [
        meta("iifname", "!=", "docker0"),
        meta("oifname", "==", "docker0"),
        {"counter": {}},
        {"drop": None},
    ]
    assert rule_of_other(docker) == {
        "interfaces": [["iif", "!=", "docker0"], ["oif", "==", "docker0"]],
        "selects": [],
        "asks_more": False,
        "asks_unknown": False,
        "verdict": "drop",
        "target": None,
    }
    jump = rule_of_other([{"counter": {}}, {"jump": {"target": "DOCKER-USER"}}])
    assert (jump["verdict"], jump["target"], jump["asks_more"]) == ("jump", "DOCKER-USER", False)
    state = [{"xt": {"type": "match", "name": "conntrack"}}, {"accept": None}]
    assert rule_of_other(state)["asks_more"] is True
    reject = rule_of_other([{"xt": {"type": "target", "name": "REJECT"}}])
    assert reject["verdict"] == "reject"
    assert rule_of_other([{"counter": {}}]) is None


def field(protocol: str, name: str, right: Any, operator: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": name}}
    return {"match": {"op": operator, "left": left, "right": right}}


ADDRESS_TYPE = {"xt": {"type": "match", "name": "addrtype"}}

SELECTS: dict[str, tuple[list[dict[str, Any]], list[list[Any]] | None]] = {
    "a prefix": (
        [field("ip", "saddr", {"prefix": {"addr": "172.17.0.0", "len": 16}})],
        [["nfproto", "==", ["ipv4"]], ["saddr", "==", ["172.17.0.0/16"]]],
    ),
    "all but a prefix": (
        [field("ip6", "daddr", {"prefix": {"addr": "ff00::", "len": 8}}, "!=")],
        [["nfproto", "==", ["ipv6"]], ["daddr", "!=", ["ff00::/8"]]],
    ),
    "ports": (
        [field("tcp", "dport", {"set": [80, {"range": [443, 445]}]})],
        [["protocol", "==", ["tcp"]], ["dport", "==", ["80", "443-445"]]],
    ),
    "protocols": (
        [meta("l4proto", "==", {"set": ["tcp", "udp"]}), meta("nfproto", "==", "ipv4")],
        [["protocol", "==", ["tcp", "udp"]], ["nfproto", "==", ["ipv4"]]],
    ),
    "the host's addresses": (
        [{"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}],
        [["type", "==", ["local"]]],
    ),
    "an address type of iptables, which may be any": ([ADDRESS_TYPE], None),
    "a set": ([field("th", "dport", "@some")], None),
    "a mark": ([meta("mark", "==", 1)], None),
    "interfaces of a set": ([meta("iifname", "==", "@some")], None),
    "another match of iptables": ([{"xt": {"type": "match", "name": "statistic"}}], None),
}


@pytest.mark.parametrize(("matches", "selects"), SELECTS.values(), ids=SELECTS)
def test_addresses_and_ports_of_foreign_rules_are_read(
    matches: list[dict[str, Any]], selects: list[list[Any]] | None
) -> None:
    rule = rule_of_other([*matches, {"masquerade": None}])
    assert (rule["verdict"], rule["selects"]) == ("masquerade", selects or [])
    assert rule["asks_unknown"] is (selects is None)
    assert rule["asks_more"] is True


@pytest.mark.parametrize(("target", "is_known"), [("DOCKER", True), ("MY-CHAIN", False)])
def test_a_jump_to_the_chain_docker_is_for_local_addresses(target: str, is_known: bool) -> None:
    """nft does not list the arguments of iptables' addrtype."""
    rule = rule_of_other([ADDRESS_TYPE, {"jump": {"target": target}}])
    assert rule["selects"] == ([["type", "==", ["local"]]] if is_known else [])
    assert rule["asks_unknown"] is not is_known
    rule = rule_of_other([ADDRESS_TYPE, {"masquerade": None}])
    assert (rule["selects"], rule["asks_unknown"]) == ([], True)


SET_DESTINATION = {"mangle": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "value": "192.0.2.1"}}
TPROXY = {"tproxy": {"family": "ip", "port": 50080}}
MARK = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}


@pytest.mark.parametrize(
    ("statements", "verdict"),
    [
        ([TPROXY, MARK, {"accept": None}], "tproxy"),
        ([SET_DESTINATION, {"accept": None}], "rewrite"),
        ([SET_DESTINATION, {"return": None}], "rewrite"),
        ([SET_DESTINATION, {"drop": None}], "drop"),
        ([SET_DESTINATION, {"reject": {"type": "tcp reset"}}], "reject"),
        ([MARK, {"accept": None}], "accept"),
    ],
)
def test_an_accepted_packet_stays_rewritten(statements: list[dict[str, Any]], verdict: str) -> None:
    assert rule_of_other(statements)["verdict"] == verdict


@pytest.mark.parametrize(
    "statement", [TPROXY, SET_DESTINATION, {"dnat": {"family": "ip", "addr": "1.2.3.4"}}]
)
def test_a_rule_that_rewrites_ipv4_selects_only_ipv4(statement: dict[str, Any]) -> None:
    for several in ([statement], [meta("nfproto", "==", "ipv4"), statement]):
        assert rule_of_other(several)["selects"] == [["nfproto", "==", ["ipv4"]]]


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ({"dnat": {"addr": "192.0.2.1", "port": 80}}, "dnat"),
        ({"redirect": {"port": 3128}}, "redirect"),
        ({"tproxy": {"port": 3128}}, "tproxy"),
        ({"xt": {"type": "target", "name": "MASQUERADE"}}, "masquerade"),
        (
            {"mangle": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "value": "192.0.2.1"}},
            "rewrite",
        ),
        ({"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": 0}}, None),
        ({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}, None),
    ],
)
def test_only_rewriting_statements_have_a_verdict(statement: dict[str, Any], verdict: str | None) -> None:
    rule = rule_of_other([statement])
    assert (rule and rule["verdict"]) == verdict


def redirects(*statements: Any) -> list[Any]:
    return [*statements, {"redirect": {"port": 3128}}]


FIELDS = [
    {"payload": {"protocol": "ip", "field": "saddr"}},
    {"payload": {"protocol": "tcp", "field": "dport"}},
]
SADDR, DPORT = ["saddr", "=="], ["dport", "=="]


def of_fields(fields: list[Any], *elements: list[Any]) -> dict[str, Any]:
    right = {"set": [{"concat": element} for element in elements]}
    return {"match": {"op": "==", "left": {"concat": fields}, "right": right}}


IFNAME = {"meta": {"key": "iifname"}}
VM1 = [["iif", "==", "vm1"]]
TCP = ["protocol", "==", ["tcp"]]
OF_IPV4 = ["nfproto", "==", ["ipv4"]]
TUNNEL = {"payload": {"tunnel": "gre", "protocol": "ip", "field": "saddr"}}

READ_WHOLE: dict[str, tuple[list[Any], list[tuple[str, list[Any], list[Any], bool]]]] = {
    "a jump to a chain without a name": (
        [meta("iifname", "==", "vm1"), "jump {\n\t\ttcp dport 80 redirect to :3128\n\t}"],
        [("unread", VM1, [], True)],
    ),
    "a text that is no jump": (["some match", {"drop": None}], [("drop", [], [], True)]),
    "a set of interfaces": (
        redirects(meta("iifname", "==", {"set": ["vm1", "vm2*"]})),
        [("redirect", [["iif", "==", ["vm1", "vm2*"]]], [], False)],
    ),
    "a set of one interface": (
        redirects(meta("iifname", "!=", {"set": ["vm1"]})),
        [("redirect", [["iif", "!=", "vm1"]], [], False)],
    ),
    "addresses and ports together": (
        redirects(of_fields(FIELDS, ["203.0.113.1", 80], ["203.0.113.2", {"range": [90, 91]}])),
        [
            ("redirect", [], [OF_IPV4, [*SADDR, ["203.0.113.1"]], TCP, [*DPORT, ["80"]]], False),
            ("redirect", [], [OF_IPV4, [*SADDR, ["203.0.113.2"]], TCP, [*DPORT, ["90-91"]]], False),
        ],
    ),
    "interfaces and addresses together": (
        redirects(of_fields([IFNAME, FIELDS[0]], ["vm1", "203.0.113.1"])),
        [("redirect", VM1, [OF_IPV4, [*SADDR, ["203.0.113.1"]]], False)],
    ),
    "more of them than are told apart": (
        redirects(of_fields(FIELDS, *(["203.0.113.1", port] for port in range(65)))),
        [("redirect", [], [], True)],
    ),
    "a verdict map": (
        [
            {
                "vmap": {
                    "key": FIELDS[1],
                    "data": {"set": [[80, {"drop": None}], [90, {"jump": {"target": "M"}}]]},
                }
            }
        ],
        [("drop", [], [TCP, [*DPORT, ["80"]]], False), ("jump", [], [TCP, [*DPORT, ["90"]]], False)],
    ),
    "a verdict map with a name": ([{"vmap": {"key": FIELDS[1], "data": "@m"}}], [("unread", [], [], True)]),
    "an address inside a tunnel": (
        redirects({"match": {"op": "==", "left": TUNNEL, "right": "203.0.113.1"}}),
        [("redirect", [], [], True)],
    ),
    "an address that is set inside a tunnel": ([{"mangle": {"key": TUNNEL, "value": "192.0.2.1"}}], []),
    "any other element": (
        redirects(meta("iifname", "==", {"set": ["*"]})),
        [("redirect", [], [], True)],
    ),
    "translation of a prefix": (
        [{"xt": {"type": "target", "name": "SNPT"}}],
        [("snpt", [], [], False)],
    ),
}


@pytest.mark.parametrize(("statements", "effects"), READ_WHOLE.values(), ids=READ_WHOLE)
def test_all_effects_of_a_foreign_rule_are_read(
    statements: list[Any], effects: list[tuple[str, list[Any], list[Any], bool]]
) -> None:
    keys = ("verdict", "interfaces", "selects", "asks_unknown")
    rules = rules_of_other(statements)
    assert [tuple(rule[key] for key in keys) for rule in rules] == effects


ODD: list[Any] = [None, True, 7, "text", "@named", "*", [], {}, [None], {"set": None}]
ODD += [{"set": [None, {}, ["a"]]}]
ODD += [{"concat": "a"}, {"prefix": "a"}, {"prefix": {"addr": 7}}, {"range": [1]}, {"elem": {}}, {"map": {}}]
KINDS = ["match", "vmap", "mangle", "xt", "jump", "goto", "accept", "drop", "dnat", "redirect", "tproxy"]
KINDS += [
    "counter",
    "set",
    "limit",
    "fwd",
    "ct helper",
    "meta",
    "payload",
    "fib",
    "key",
    "left",
    "right",
    "op",
]
KINDS += ["data", "concat", "target"]


def odd_value(chance: random.Random, depth: int = 0) -> Any:
    """Return JSON that resembles a listing of nft."""
    if depth > 4 or chance.random() < 0.3:
        return chance.choice(
            [*ODD, "==", "!=", "iifname", "saddr", "ip", "vm1", "203.0.113.1", "10.0.0.1/255.0.1.0"]
        )
    if chance.random() < 0.3:
        return [odd_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(KINDS): odd_value(chance, depth + 1) for _ in range(chance.randrange(1, 4))}


def broken(value: Any, chance: random.Random) -> Any:
    """Return statements with a random part replaced."""
    if chance.random() < 0.08:
        return odd_value(chance)
    if isinstance(value, list):
        return [broken(one, chance) for one in value]
    if isinstance(value, dict):
        return {key: broken(one, chance) for key, one in value.items() if chance.random() > 0.03}
    return value


@pytest.mark.parametrize("seed", range(3))
def test_no_foreign_rule_ends_the_verification(seed: int) -> None:
    """Test the observation and the comparison of such a rule."""
    chance = random.Random(seed)
    usual = [statements for statements, _ in READ_WHOLE.values()]
    usual += [[*matches, {"masquerade": None}] for matches, _ in SELECTS.values()]
    path = next(path for path in PLANS if path.parent.name == "hv1")
    plan = from_plain(HostPlan, yaml.load(path.read_text(), yaml.CSafeLoader))
    flows = flows_of(plan)
    for _ in range(1500):
        rules = rules_of_other(broken(chance.choice(usual), chance))
        chain = {"hook": "prerouting", "type": "nat", "policy": "accept", "devices": None, "rules": rules}
        table = json.loads(json.dumps({"family": "inet", "table": "t", "chains": {"C": chain}}))
        list(rewritten(table, flows))
        list(blocked(table, ["vm1"]))


@pytest.mark.parametrize(
    "listing",
    [
        "[]",
        "no JSON",
        '{"nftables": [7]}',
        '{"nftables": [{"chain": {"name": "c"}}]}',
        '{"nftables": [{"chain": {"family": "ip", "table": [], "hook": "forward", "type": "nat"}}]}',
        '{"nftables": [{"chain": {"family": "ip", "table": "t", "hook": "forward", "type": "nat"}}]}',
    ],
)
def test_an_invalid_listing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str
) -> None:
    nft_that(f"echo '{listing}'", tmp_path, monkeypatch)
    tables = read_chains_of_others()
    assert [table["unread"] for table in tables if table["family"] in {"nft", "ip"} and table["unread"]]


@pytest.mark.parametrize(
    "words", ["-A", "-A C", "-A C -j", '-A C --comment "a', "-A C -s", "-A C !", "", "-P"]
)
def test_no_rule_of_iptables_legacy_ends_the_verification(words: str) -> None:
    legacy_chains(f"{words}\n-A D -j DROP\n")["D"]


def test_a_prefix_that_iptables_legacy_translates_is_named() -> None:
    words = "-s 2001:db8:1::/48 -j SNPT --src-pfx 2001:db8:1::/48 --dst-pfx fd00::/48"
    assert legacy_rule(words.split())["verdict"] == "snpt"


LEGACY_NAT = """\
-P PREROUTING ACCEPT
-P POSTROUTING ACCEPT
-N DOCKER
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -m comment --comment "two words -j DROP" -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080:8081 -j DNAT --to-destination 172.17.0.2:80
-A POSTROUTING -m mark --mark 0x1/0x1 -j MASQUERADE --random
"""


def test_translations_of_iptables_legacy_have_the_same_shape() -> None:
    chains = legacy_chains(LEGACY_NAT)
    containers, marked = chains["POSTROUTING"]["rules"]
    assert (containers["verdict"], containers["asks_unknown"]) == ("masquerade", False)
    assert containers["selects"] == [["saddr", "==", ["172.17.0.0/16"]]]
    assert (marked["verdict"], marked["asks_unknown"]) == ("masquerade", True)
    assert chains["PREROUTING"]["rules"][0]["selects"] == [["type", "==", ["local"]]]
    (port,) = chains["DOCKER"]["rules"]
    assert port["selects"] == [["protocol", "==", ["tcp"]], ["dport", "==", ["8080-8081"]]]


@pytest.mark.parametrize(
    ("words", "verdict"), [("-j DOCKER", "jump"), ("-g DOCKER", "goto"), ("-g MASQUERADE", "goto")]
)
def test_goto_and_jump_of_iptables_legacy_are_distinguished(words: str, verdict: str) -> None:
    rule = legacy_rule(words.split())
    assert (rule["verdict"], rule["target"]) == (verdict, words.split()[1])


@pytest.mark.parametrize(
    ("words", "selects", "asks_unknown"),
    [
        ("-m addrtype --dst-type LOCAL", [["type", "==", ["local"]]], False),
        ("-m addrtype ! --dst-type LOCAL", [["type", "!=", ["local"]]], False),
        ("-m addrtype --dst-type BROADCAST", [], True),
        ("-m addrtype --src-type LOCAL", [], True),
    ],
)
def test_local_address_types_of_iptables_legacy_are_read(
    words: str, selects: list[list[Any]], asks_unknown: bool
) -> None:
    rule = legacy_rule([*words.split(), "-j", "DOCKER"])
    assert (rule["selects"], rule["asks_unknown"]) == (selects, asks_unknown)


LEGACY = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i vm+ -j ACCEPT
-A FORWARD ! -i docker0 -j DOCKER
-A DOCKER -j DROP
"""


def test_chains_of_iptables_legacy_have_the_same_shape() -> None:
    chains = legacy_chains(LEGACY)
    assert (chains["FORWARD"]["hook"], chains["FORWARD"]["policy"]) == ("forward", "drop")
    known = ("interfaces", "asks_more", "verdict", "target")
    assert [{key: rule[key] for key in known} for rule in chains["FORWARD"]["rules"]] == [
        {"interfaces": [["oif", "==", "docker0"]], "asks_more": True, "verdict": "accept", "target": None},
        {"interfaces": [["iif", "==", "vm*"]], "asks_more": False, "verdict": "accept", "target": None},
        {"interfaces": [["iif", "!=", "docker0"]], "asks_more": False, "verdict": "jump", "target": "DOCKER"},
    ]
    assert chains["DOCKER"]["rules"][0]["verdict"] == "drop"


def test_unknown_callers_are_counted_by_address() -> None:
    messages = """\
hv1_public: Received: Connection collision resolution
BGP: Unexpected connect from unknown address 198.51.100.9 (port 41234)
BGP: Unexpected connect from unknown address 198.51.100.9 (port 41236)
BGP: Unexpected connect from unknown address 2001:db8:1::9 (port 41238)
level=info msg="Can't find configuration for a new passive connection" Key=198.51.100.10 Topic=Peer
"""
    assert unknown_callers(messages) == {
        "198.51.100.9": 2,
        "2001:db8:1::9": 1,
        "198.51.100.10": 1,
    }


def test_observation_does_not_wait_for_a_silent_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket accepts the connection, like that of a stopped process, and never answers."""
    monkeypatch.setattr(f"{OBSERVE}.bird.ANSWER_SECONDS", 0.2)
    path = str(tmp_path / "bird.ctl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with pytest.raises(NoAnswerInTime, match="no answer within"):
            Bird(path)
    with pytest.raises(NoAnswerInTime, match="no answer within"):
        run_query(["sleep", "10"], seconds=0.1)


def test_a_daemon_that_accepts_no_connection_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses connections at once if the queue of a stopped process is full."""
    monkeypatch.setattr(f"{OBSERVE}.bird.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(f"{OBSERVE}.bird.BIRD_SOCKET", str(tmp_path / "{}.ctl"))
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as callers:
        listening.bind(str(tmp_path / "bird.ctl"))
        listening.listen(1)
        is_full = False
        while not is_full:
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            is_full = caller.connect_ex(str(tmp_path / "bird.ctl")) == errno.EAGAIN
        seen = read_bird("bird", "")
    assert seen["hangs"]
    assert "no answer within" in seen["error"]


def nft_that(does: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "nft").write_text(f"#!/bin/sh\n{does}\n")
    (directory / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


def test_a_hanging_nft_is_not_reported_as_no_packet_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft_that("exec sleep 10", tmp_path, monkeypatch)
    monkeypatch.setattr(f"{OBSERVE}.programs.ANSWER_SECONDS", 0.1)
    seen = read_packet_filter()
    assert not seen["loaded"]
    assert "got no answer within 0.1 s" in seen["unread"]
    (table,) = read_chains_of_others()
    assert "got no answer within 0.1 s" in table["unread"]
    assert read_translations() == {}


def test_a_limit_on_foreign_rules_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD"}
    base = {"chain": {**chain, "type": "filter", "hook": "forward", "policy": "accept"}}
    rule = {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [{"accept": None}]}}
    (tmp_path / "listing").write_text(json.dumps({"nftables": [base, rule, rule, rule]}))
    nft_that(f"cat {tmp_path}/listing", tmp_path, monkeypatch)
    for most, is_whole in ((2, False), (3, True)):
        monkeypatch.setattr(f"{OBSERVE}.foreign_chains.RULES_OF_OTHERS", most)
        table = read_chains_of_others()[0]
        assert len(table["chains"]["FORWARD"]["rules"]) == most
        assert (table["unread"] is None) is is_whole


READING = f"""
import json
{FINDING.format(str(MODULES.parent / "module_utils"))}
from {OBSERVE}.foreign_chains import read_chains_of_others
print(json.dumps(read_chains_of_others()))
"""
IN_A_NAMESPACE = """
nft -f - <<END
table ip fabric {
    chain forward { type filter hook forward priority 0; accept; }
}
table inet a_firewall {
    chain input { type filter hook input priority 0; policy drop; tcp dport 179 tcp dport set 1179; }
    chain output { type route hook output priority 0; ip daddr set 192.0.2.1 accept; }
}
table netdev on_devices {
    chain one { type filter hook ingress device "lo" priority 0; ip saddr set 192.0.2.1; }
}
END
exec %s -c "$READING"
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="needs nft and a network namespace of its own"
)
def test_chains_on_the_way_of_sessions_are_read_last() -> None:
    """Devices of a chain are read too, which the JSON of nft 1.0 lacks."""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", IN_A_NAMESPACE % sys.executable],
        env={**os.environ, "READING": READING},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    tables = {table["table"]: table["chains"] for table in json.loads(done.stdout)}
    assert list(tables) == ["fabric", "on_devices", "a_firewall"]
    firewall = tables["a_firewall"]
    assert [(chain["hook"], chain["type"]) for chain in firewall.values()] == [
        ("input", "filter"),
        ("output", "route"),
    ]
    assert [chain["rules"][0]["verdict"] for chain in firewall.values()] == ["rewrite", "rewrite"]
    assert tables["on_devices"]["one"]["devices"] == ["lo"]
    assert firewall["input"]["devices"] is None


OF_NFT = """
nft -f - <<END
table inet jumps {
    chain pre {
        type nat hook prerouting priority -100;
        iifname "vm1" jump {
            tcp dport 80 redirect to :3128
        }
        iifname { "vm1", "vm2" } tcp dport 80 redirect
        ip saddr . tcp dport { 203.0.113.1 . 80 } redirect
    }
}
table ip sleeping {
    flags dormant
    chain pre { type nat hook prerouting priority -100; redirect; }
}
END
exec %s -c "$READING"
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="needs nft and a network namespace of its own"
)
@pytest.mark.parametrize("system", [None, "debian12", "debian13"])
def test_real_listings_of_nft_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str | None
) -> None:
    """Test the nft of this machine, and those of the machines of the twin."""
    if system is not None:
        image = ensure_image(recipe(system), print)
        nft_that(f'exec chroot {image} /usr/sbin/nft "$@"', tmp_path, monkeypatch)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", OF_NFT % sys.executable],
        env={**os.environ, "READING": READING},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (table,) = json.loads(done.stdout)
    assert (table["table"], table["unread"]) == ("jumps", None)
    rules = table["chains"]["pre"]["rules"]
    assert [(rule["verdict"], rule["interfaces"], rule["asks_unknown"]) for rule in rules] == [
        ("unread", VM1, True),
        ("redirect", [["iif", "==", ["vm1", "vm2"]]], False),
        ("redirect", [], False),
    ]


@pytest.mark.parametrize(
    ("header", "devices"),
    [
        ('hook ingress device "lo" priority 0; policy', ["lo"]),
        ("hook egress devices = { d2, lo } priority filter; policy", ["d2", "lo"]),
        ('hook ingress devices = { "eth*", "lo" } priority filter; policy', ["eth*", "lo"]),
        ("hook ingress priority filter; policy", None),
    ],
)
def test_devices_of_a_chain_are_read_from_text_if_the_json_lacks_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    devices: list[str] | None,
) -> None:
    (tmp_path / "listing").write_text(header)
    nft_that(f"cat {tmp_path}/listing", tmp_path, monkeypatch)
    chain = {"family": "netdev", "table": "n", "name": "c", "hook": "ingress"}
    assert devices_of(chain) == devices
    assert devices_of({**chain, "dev": "lo"}) == ["lo"]
    assert devices_of({**chain, "dev": ["lo", "d2"]}) == ["lo", "d2"]


READING_ROUTES = f"""
import json
{FINDING.format(str(MODULES.parent / "module_utils"))}
from {OBSERVE}.routes import read_tables
plan = {{"uplinks": [], "tunnels": [], "table_names": [{{"name": "public", "id": 90}}],
        "routing": {{"daemon": {{"name": "bird2"}},
                     "tables": [{{"family": "ipv4", "kernel_table": 90, "name": "public4"}}]}}}}
own, learned = read_tables(plan, {{}}, {{}})
print(json.dumps([[route["prefix"] for route in own["public ipv4"]], learned["public4"].count]))
"""
ROUTES = """
ip link add name vm1 type veth peer name vm1-guest
ip link set vm1 up
ip route add 203.0.113.1/32 dev vm1 table 90 proto bird metric 32
ip route add 203.0.113.1/32 dev vm1 table 90 proto 108 metric 34
ip route add 203.0.113.2/32 dev vm1 table 90 proto static
exec "$0" -c "$READING"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace of its own")
def test_temporary_copies_of_routes_are_not_reported() -> None:
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", ROUTES, sys.executable],
        env={**os.environ, "READING": READING_ROUTES},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [["203.0.113.2/32"], 1]

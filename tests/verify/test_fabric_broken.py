"""Breaks in the standing lab, one after the other, which verification must name.

The host of a break is verified as with ``--limit``, by the module's code and the comparison, without Ansible.
One break is verified by ``playbooks/verify.yml`` and its reports.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from standing import Standing

from l3hv.verify.find import absent_guests

pytestmark = pytest.mark.fabric

BIRD = "/etc/bird/bird.conf"
FILTER = "/etc/l3hv/nftables.conf"
PATHS = {f"path {path} has a session for {domain}" for path in "ab" for domain in ("public", "private")}


@dataclass(frozen=True)
class Break:
    """A shell script that breaks something on ``host``, the checks that must fail, and the repair."""

    script: str
    fails: set[str]
    heal: str
    host: str = "hv1"


BREAKS = {
    "a rule is deleted": Break(
        "ip rule delete priority 1040", {"rules ipv4"}, "systemctl reload l3hv-tables"
    ),
    "a rule is added": Break(
        "ip rule add priority 500 lookup main", {"rules ipv4"}, "ip rule delete priority 500"
    ),
    "the kernel's default rule is back": Break(
        "ip -6 rule add priority 32767 lookup default",
        {"rules ipv6"},
        "ip -6 rule delete priority 32767",
    ),
    "a guest's route is deleted": Break(
        "ip route delete 203.0.113.2 table public",
        {"route 203.0.113.2/32 in public", "sent rr1_public ipv4", "sent rr2_public ipv4"},
        "networkctl reconfigure vm2",
    ),
    "the hypervisor's own route to a guest is deleted": Break(
        "ip route delete 203.0.113.2 table local-out",
        {"route 203.0.113.2/32 in local-out"},
        "networkctl reconfigure vm2",
    ),
    "a last resort is deleted": Break(
        "ip route delete blackhole default table public metric 4294967294",
        {"last resort of public ipv4"},
        "systemctl reload l3hv-tables",
    ),
    "main gets a default route": Break(
        "ip route add default dev a-public",
        {"default route in main ipv4"},
        "ip route delete default dev a-public",
    ),
    "a route of our protocol is added": Break(
        "ip route add 203.0.113.77 dev vm1 proto static table public",
        {"route 203.0.113.77/32 in public"},
        "ip route delete 203.0.113.77 dev vm1 table public",
    ),
    "a port's MAC is changed": Break(
        "ip link set vm2 address 02:00:00:00:00:99",
        {"port vm2 mac"},
        "ip link set vm2 address 02:6c:33:68:76:01",
    ),
    "a port's MTU is changed": Break(
        "ip link set vm2 mtu 1400", {"port vm2 link"}, "ip link set vm2 mtu 1500"
    ),
    "an uplink's MTU is changed": Break(
        "ip link set a-private mtu 1400", {"link a-private"}, "ip link set a-private mtu 1500"
    ),
    "a gateway's address is removed": Break(
        "ip address delete fe80::1/64 dev vm2", {"port vm2 addresses"}, "networkctl reconfigure vm2"
    ),
    "an address is added": Break(
        "ip address add 198.51.100.77/25 dev a-public",
        {"addresses a-public"},
        "ip address delete 198.51.100.77/25 dev a-public",
    ),
    "a loopback is removed": Break(
        "ip address delete 192.0.2.8/32 dev lo",
        {"loopback 192.0.2.8/32"},
        "networkctl reconfigure lo",
        host="internet",
    ),
    "a port is in a bridge": Break(
        "ip link add br9 type bridge && ip link set vm2 master br9",
        {"port vm2 link"},
        "ip link delete br9",
    ),
    "a permanent neighbour is not the guest": Break(
        "ip neighbor replace 203.0.113.2 lladdr 02:00:00:00:00:99 dev vm2 nud permanent",
        {"neighbor vm2 203.0.113.2"},
        "ip neighbor delete 203.0.113.2 dev vm2",
    ),
    "a permanent IPv6 neighbour is not the guest": Break(
        "ip neighbor replace fe80::5254:33ff:fe00:9 lladdr 02:00:00:00:00:99 dev vm2 nud permanent",
        {"neighbor vm2 fe80::5254:33ff:fe00:9"},
        "ip neighbor replace fe80::5254:33ff:fe00:9 lladdr 50:54:33:00:00:09 dev vm2 nud permanent",
    ),
    # `iptables -P FORWARD DROP` of Docker creates this table and chain with iptables-nft.
    "a foreign policy drops what is forwarded": Break(
        "nft 'table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }'",
        {"chain ip filter FORWARD"},
        "nft delete table ip filter",
    ),
    "a foreign rule drops a guest's packets": Break(
        "nft 'table inet other { chain pre { type filter hook prerouting priority 0; iifname vm2 drop; }; }'",
        {"chain inet other pre", "lease vm2", "ra vm2"},
        "nft delete table inet other",
    ),
    # An administrator gives containers Internet access, and does not limit the rule to their addresses.
    "a foreign rule hides guests behind the hypervisor": Break(
        "nft 'table ip other { chain post { type nat hook postrouting priority srcnat;"
        " oifname a-public masquerade; }; }'",
        {"chain ip other post"},
        "nft delete table ip other",
    ),
    "a foreign rule takes what is a guest's": Break(
        "nft 'table inet other { chain pre { type nat hook prerouting priority dstnat;"
        " iifname vm1 udp dport 53 redirect to :5353; }; }'",
        {"chain inet other pre"},
        "nft delete table inet other",
    ),
    "a foreign rule answers for BGP": Break(
        "nft 'table inet other { chain pre { type nat hook prerouting priority dstnat; fib daddr type local"
        " tcp dport 179 redirect to :1179; }; }'",
        {"chain inet other pre"},
        "nft delete table inet other",
    ),
    "a port has no guest": Break(
        "ip link add left type bridge && ip link set left address 02:6c:33:68:76:01",
        {"port left"},
        "ip link delete left",
    ),
    "a sysctl is changed": Break(
        "sysctl -qw net.ipv4.fib_multipath_hash_policy=0",
        {"sysctl net.ipv4.fib_multipath_hash_policy"},
        "sysctl -qw net.ipv4.fib_multipath_hash_policy=1",
    ),
    **{
        f"{key} is {value}": Break(
            f"sysctl -qw {key}={value}", {f"sysctl {key}"}, f"sysctl -qw {key}='{planned}'"
        )
        for key, value, planned in (
            ("net.ipv4.conf.vm1.arp_ignore", 2, 0),
            ("net.ipv4.conf.all.arp_filter", 1, 0),
            ("net.ipv4.conf.a-public.arp_ignore", 8, 0),
            ("net.ipv4.conf.all.accept_source_route", 1, 0),
            ("net.ipv4.icmp_ratelimit", 100000, 1000),
            ("net.ipv4.icmp_ratemask", 6169, 6168),
            ("net.ipv6.icmp.ratemask", "0-127", "0-1,3-127"),
            ("net.ipv6.icmp.echo_ignore_all", 1, 0),
        )
    },
    "proxy ARP is off": Break(
        "sysctl -qw net.ipv4.conf.vm1.proxy_arp=0",
        {"port vm1 ipv4 proxy_arp"},
        "sysctl -qw net.ipv4.conf.vm1.proxy_arp=1",
    ),
    "guests may spoof": Break(
        "sysctl -qw net.ipv4.conf.vm1.rp_filter=0",
        {"sysctl net.ipv4.conf.vm1.rp_filter"},
        "sysctl -qw net.ipv4.conf.vm1.rp_filter=1",
    ),
    "radvd is stopped": Break(
        "systemctl stop radvd",
        {"unit radvd", "listeners radvd", "ra vm1", "ra vm2"},
        "systemctl start radvd",
    ),
    "the DHCP server is stopped": Break(
        "systemctl stop l3hv-dhcp",
        {"unit l3hv-dhcp", "listeners l3hv-dhcp", "lease vm1", "lease vm2"},
        "systemctl start l3hv-dhcp",
    ),
    "systemd-networkd hangs": Break(
        "systemctl kill --signal=STOP systemd-networkd",
        {"unit systemd-networkd"},
        "systemctl kill --signal=CONT systemd-networkd",
    ),
    "a unit does not start at boot": Break(
        "systemctl -q disable radvd", {"unit radvd"}, "systemctl -q enable radvd"
    ),
    "an address is no longer translated": Break(
        "nft delete element inet l3hv transparent '{ 203.0.113.11 : 203.0.113.4 }'",
        {"translation 203.0.113.11", "packet filter"},
        "nft add element inet l3hv transparent '{ 203.0.113.11 : 203.0.113.4 }'",
        host="hv3",
    ),
    "a guest's MAC is deleted from the filter": Break(
        "nft delete element inet l3hv macs '{ \"vm2\" . 50:54:33:00:00:09 }'",
        {"set macs"},
        "nft add element inet l3hv macs '{ \"vm2\" . 50:54:33:00:00:09 }'",
    ),
    "a guest may spoof by the filter": Break(
        "nft add element inet l3hv senders4 '{ \"vm2\" . 50:54:33:00:00:09 . 192.0.2.66 }'",
        {"set senders4"},
        "nft delete element inet l3hv senders4 '{ \"vm2\" . 50:54:33:00:00:09 . 192.0.2.66 }'",
    ),
    "a rule is added to the filter": Break(
        "nft insert rule inet l3hv forwarded accept", {"packet filter"}, "systemctl reload l3hv-nftables"
    ),
    "a guest has a limit of its own": Break(
        "nft add element inet l3hv nd_rate '{ \"vm2\" limit rate over 1/day burst 9 packets }'",
        {"packet filter"},
        "systemctl reload l3hv-nftables",
    ),
    "a chain of the filter is emptied": Break(
        "nft flush chain inet l3hv from_guest6", {"packet filter"}, "systemctl reload l3hv-nftables"
    ),
    "the filter's file is edited and loaded": Break(
        f"cp -p {FILTER} /root/kept && sed -i '/ goto drop_source$/d' {FILTER}"
        " && systemctl reload l3hv-nftables",
        {"packet filter"},
        f"cp -p /root/kept {FILTER}; systemctl reload l3hv-nftables",
    ),
    "no process keeps the filter": Break(
        "systemctl stop l3hv-nftables", {"unit l3hv-nftables"}, "systemctl start l3hv-nftables"
    ),
    "BIRD's file is edited and BIRD refuses it": Break(
        f"cp -p {BIRD} /root/kept && echo nonsense >> {BIRD} && ! birdc configure",
        {"running configuration"},
        f"cp -p /root/kept {BIRD}",
    ),
    "BIRD runs another file": Break(
        f"sed 's/^define l3hv_config = .*/define l3hv_config = \"0\";/' {BIRD} > /etc/bird/other.conf"
        " && chmod 644 /etc/bird/other.conf && birdc 'configure \"/etc/bird/other.conf\"'",
        {"running configuration"},
        "birdc configure; rm /etc/bird/other.conf",
    ),
    "BFD packets are lost": Break(
        "nft 'table inet lost { chain in { type filter hook input priority -400; udp dport 3784 drop; }; }'",
        {"bfd rr1 a public", "bfd rr1 a private", "bfd rr2 b public", "bfd rr2 b private"},
        "nft delete table inet lost",
    ),
    "a session is disabled": Break(
        "birdc disable rr2_private",
        {"session rr2_private", "path b has a session for private", "learned routes in private ipv4"}
        | {
            f"route 172.22.2.{number}/32 in {table}"
            for number in (2, 3)
            for table in ("private", "local-out")
        },
        "birdc enable rr2_private",
    ),
    "a reflector's session is disabled": Break(
        "birdc disable hv2_public", {"session hv2_public"}, "birdc enable hv2_public", host="rr1"
    ),
}

# Checks that may fail in addition, because they observe the same break.
BESIDE = {
    "BFD packets are lost": PATHS
    | {f"session rr{number}_{domain}" for number in (1, 2) for domain in ("public", "private")},
    # The bridge takes the MAC of its first port, which is the gateway's MAC.
    "a port is in a bridge": {"port br9", "lease vm2", "ra vm2"},
    "a port's MAC is changed": {"ra vm2"},
    "a port's MTU is changed": {"ra vm2"},
    "a gateway's address is removed": {"ra vm2"},
    "a session is disabled": {"bfd rr2 b private", "learned routes in local-out ipv4"},
    "a reflector's session is disabled": {"bfd hv2 a public"},
}


DOCKER = """
table ip docker {
    chain PRE { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }
    chain OUT {
        type nat hook output priority -100
        ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER
    }
    chain POST {
        type nat hook postrouting priority srcnat
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
        ip saddr 172.17.0.2 ip daddr 172.17.0.2 tcp dport 80 masquerade
    }
    chain DOCKER { iifname docker0 return; iifname != "docker0" tcp dport 8080 dnat to 172.17.0.2:80; }
}
"""


def test_translation_for_docker_containers_is_no_difference(lab: Standing) -> None:
    lab.run("hv1", f"nft '{DOCKER}'")
    try:
        assert [check.sentence for check in lab.look("hv1") if check.state != "ok"] == []
    finally:
        lab.run("hv1", "nft delete table ip docker")


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_named_and_no_other_check_fails(lab: Standing, name: str) -> None:
    what = BREAKS[name]
    lab.run(what.host, what.script)
    try:
        failing = lab.wait_until_failing(what.host, what.fails)
    finally:
        lab.run(what.host, what.heal)
        lab.await_whole(what.host)
    assert what.fails <= failing <= what.fails | BESIDE.get(name, set())


def test_a_stopped_bird_is_named(lab: Standing) -> None:
    lab.run("hv1", "systemctl stop bird")
    try:
        failing = lab.wait_until_failing("hv1", {"unit bird"})
    finally:
        lab.run("hv1", "systemctl start bird")
        lab.await_whole("hv1")
    assert failing == {"unit bird", "listeners bird", "running configuration", *PATHS}


def test_a_cut_path_is_named(lab: Standing) -> None:
    named = {"bfd rr1 a public", "bfd rr1 a private"}
    lab.verb("cut", "hv1", "a")
    try:
        failing = lab.wait_until_failing("hv1", named)
    finally:
        lab.verb("heal", "hv1", "a")
        lab.await_whole("hv1")
    assert named <= failing
    assert not any("rr2" in what for what in failing)


def test_a_path_with_a_smaller_mtu_is_named_with_the_size_that_passes(lab: Standing) -> None:
    """A switch has a smaller MTU, which BGP and BFD do not detect."""
    switch = ["ip", "-n", lab.twin.switch_namespace, "link", "set", "hv1~a-public", "mtu"]
    # A veth interface accepts four more bytes, for the tag of a VLAN.
    subprocess.run([*switch, "1396"], check=True)
    try:
        checks = [check for check in lab.look("hv1") if not check.passes]
    finally:
        subprocess.run([*switch, "1500"], check=True)
        lab.await_whole("hv1")
    assert [(check.what, check.found) for check in checks] == [("size a to rr1 public ipv4", "1400 bytes")]


CALL = """python3 -c '
import socket
caller = socket.socket()
caller.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
caller.settimeout(5)
caller.bind(("198.51.100.99", 0))
caller.connect(("198.51.100.126", 179))
'"""


def test_a_caller_without_a_session_is_named(lab: Standing) -> None:
    """A hypervisor that was removed from the inventory connects while it runs."""
    lab.run("hv3", f"ip address add 198.51.100.99/25 dev a-public; {CALL}")
    try:
        lab.run("hv3", "ip address delete 198.51.100.99/25 dev a-public")
        deadline = time.monotonic() + 10
        while not (found := [c.what for c in lab.look("rr1") if c.state == "warning"]):
            assert time.monotonic() < deadline
    finally:
        lab.run("rr1", "journalctl --quiet --rotate --vacuum-time=1s 2>/dev/null")
    assert found == ["stranger 198.51.100.99"]


def test_a_neighbor_without_bfd_is_named(lab: Standing) -> None:
    """The session comes up without BFD, and only its hold time would detect a dead path."""
    lab.run("rr1", f"cp -p {BIRD} /tmp/bird.conf")
    lab.run("rr1", f"sed -i '/^protocol bgp hv1_public /a bfd off;' {BIRD} && birdc configure")
    try:
        lab.wait_until_failing("hv1", {"bfd rr1 a public"})
        lab.run("rr1", "birdc restart hv1_public")
        deadline = time.monotonic() + 30
        while not any("BGP session is up" in check.found for check in lab.look("hv1")):
            assert time.monotonic() < deadline, lab.failing("hv1")
    finally:
        lab.run("rr1", f"cp -p /tmp/bird.conf {BIRD} && birdc configure")
        lab.await_whole("hv1", "rr1")


def test_routes_without_an_announcement_are_named_one_by_one(lab: Standing) -> None:
    """BIRD removes the route at its next scan, so the observation follows at once."""
    route = "172.22.2.77 via 172.22.15.2 proto bird metric 32 table private"
    for _ in range(5):
        lab.run("hv1", f"ip route replace {route}")
        if failing := lab.failing("hv1"):
            break
    lab.run("hv1", f"ip route delete {route} || true")
    lab.await_whole("hv1")
    assert failing == {"learned routes in private ipv4", "route 172.22.2.77/32 in private"}


def test_a_stopped_guest_is_a_warning(lab: Standing) -> None:
    lab.verb("unplug", "vm2")
    try:
        lab.await_whole("hv1", "hv2")
        assert absent_guests(lab.plans["hv1"], lab.observe("hv1")) == {"vm2"}
        warnings = {host: {c.what for c in lab.look(host) if c.state == "warning"} for host in ("hv1", "hv2")}
    finally:
        lab.verb("plug", "vm2")
        lab.await_whole("hv1")
    assert "guest vm2" in warnings["hv1"]
    # Only hv2 was observed: vm2 on hv1 may be stopped.
    assert "route 203.0.113.2/32 in public" in warnings["hv2"]


def test_a_guest_with_another_mac_is_named(lab: Standing) -> None:
    script = "ip link set eth0 address {}; ping -c 1 -W 1 203.0.113.254 || true"
    namespace = f"/run/netns/{lab.twin.guest_namespace('vm2')}"

    def as_guest(mac: str) -> None:
        subprocess.run(
            ["nsenter", f"--net={namespace}", "sh", "-c", script.format(mac)], check=True, capture_output=True
        )

    as_guest("50:54:33:00:00:99")
    try:
        failing = lab.wait_until_failing("hv1", {"mac vm2"})
    finally:
        as_guest("50:54:33:00:00:09")
        lab.run("hv1", "nft flush set inet l3hv strangers; nft flush set arp l3hv strangers")
        lab.await_whole("hv1")
    assert failing == {"mac vm2"}


def test_the_playbook_fails_and_its_reports_name_the_differences(lab: Standing, tmp_path: Path) -> None:
    lab.run("hv1", "ip rule add priority 500 lookup main")
    try:
        done = verify_playbook(lab, tmp_path)
    finally:
        lab.run("hv1", "ip rule delete priority 500")
    assert done.returncode != 0
    assert "hv1 is not as planned: rules ipv4" in done.stdout
    assert "hv2 is not as planned" not in done.stdout
    recap = {
        line.split()[0]: "failed=1" in line
        for line in done.stdout.rpartition("PLAY RECAP")[2].splitlines()[1:]
        if line
    }
    assert [host for host, has_failed in recap.items() if has_failed] == ["hv1"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is False
    assert [(c["host"], c["what"]) for c in report["checks"] if not c["ok"]] == [("hv1", "rules ipv4")]
    junit = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert [case.get("name") for case in junit.iter("testcase") if case.find("failure") is not None] == [
        "rules ipv4"
    ]
    assert "The fabric has 1 difference" in (tmp_path / "report.html").read_text()


def test_the_playbook_passes_on_a_fabric_as_planned(lab: Standing, tmp_path: Path) -> None:
    done = verify_playbook(lab, tmp_path)
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is True
    assert report["counts"]["failed"] == report["counts"]["warning"] == 0
    names = {(check["host"], check["what"]) for check in report["checks"]}
    # Test packets are sent only if the inventory's own twin stands.
    assert ("hv1", "ping vm1 → vm3 ipv6") in names
    assert ("hv3", "address vm4 ipv4") in names


def verify_playbook(lab: Standing, reports: Path) -> subprocess.CompletedProcess[str]:
    """Run ``playbooks/verify.yml`` against the standing twin."""
    variables = {"verify_report_directory": str(reports), "verify_settle_seconds": 5}
    return lab.playbook("playbooks/verify.yml", "-e", json.dumps(variables), seconds=120)

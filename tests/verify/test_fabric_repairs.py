"""Breaks of everything that verification compares, which one run of ``site.yml`` must repair.

A run does not repair things outside the plan (docs/verification.md, "What a run repairs"): rules, routes and
ports of other programs, a disabled session, a guest with another MAC, a cut cable.
"""

from __future__ import annotations

import re

import pytest
from standing import Standing

pytestmark = pytest.mark.fabric

OTHER_FILE = (
    "sed 's/^define l3hv_config = .*/define l3hv_config = \"0\";/' /etc/bird/bird.conf > /etc/bird/other.conf"
    " && chmod 644 /etc/bird/other.conf && birdc 'configure \"/etc/bird/other.conf\"' >&2"
    " && rm /etc/bird/other.conf"
)

BREAKS: dict[str, tuple[tuple[str, set[str]], ...]] = {
    "hv1": (
        # Changes by Docker, libvirt and hardening tools.
        (
            "sysctl -qw net.ipv4.ip_forward=1 && sysctl -qw net.ipv4.ip_forward=0",
            {
                "port vm1 ipv4 forwarding",
                "port vm2 ipv4 forwarding",
                "sysctl net.ipv4.conf.a-public.forwarding",
            },
        ),
        ("sysctl -qw net.ipv6.conf.vm1.forwarding=0", {"port vm1 ipv6 forwarding"}),
        (
            "sysctl -qw net.ipv4.fib_multipath_hash_policy=0",
            {"sysctl net.ipv4.fib_multipath_hash_policy"},
        ),
        *(
            (f"sysctl -qw {key}={value}", {f"sysctl {key}"})
            for key, value in (
                ("net.ipv4.conf.all.arp_ignore", 8),
                ("net.ipv4.conf.all.accept_source_route", 1),
                ("net.ipv4.icmp_echo_ignore_all", 1),
                ("net.ipv4.icmp_ratelimit", 100000),
                ("net.ipv6.icmp.ratemask", "0-127"),
            )
        ),
        ("sysctl -qw net.ipv4.conf.vm1.rp_filter=0", {"sysctl net.ipv4.conf.vm1.rp_filter"}),
        (
            "ip rule delete priority $(ip rule | sed -n 's/^\\([0-9]*\\):.*iif a-private.*/\\1/p')",
            {"rules ipv4"},
        ),
        ("ip -6 rule add priority 32767 lookup default", {"rules ipv6"}),
        (
            "ip route delete blackhole default table public metric 4294967294",
            {"last resort of public ipv4"},
        ),
        (
            "nft add element inet l3hv ping_rate"
            " '{ \"vm2\" limit rate over 1/day burst 9 packets timeout 1h }'",
            {"packet filter"},
        ),
        ("ip route delete 203.0.113.2 table public", {"route 203.0.113.2/32 in public"}),
        ("ip address delete fe80::1/64 dev vm2", {"port vm2 addresses"}),
        ("ip address add 192.0.2.77/32 dev vm1", {"port vm1 addresses"}),
        ("ip link set vm2 mtu 1400", {"port vm2 link"}),
        ("systemctl -q disable --now l3hv-dhcp", {"unit l3hv-dhcp", "listeners l3hv-dhcp", "lease vm1"}),
        ("systemctl -q mask --now radvd", {"unit radvd", "listeners radvd", "ra vm1"}),
    ),
    "hv2": (
        ("ip address add 198.51.100.77/25 dev a-public", {"addresses a-public"}),
        ("ip link set b-private mtu 1400", {"link b-private"}),
        (
            "ip route add 203.0.113.77 dev vm3 proto static table public",
            {"route 203.0.113.77/32 in public"},
        ),
        ("ip link set vm3 address 02:00:00:00:00:99", {"port vm3 mac"}),
        (
            "rm /etc/systemd/system/bird.service.d/zz-l3hv.conf && systemctl daemon-reload",
            {"unit bird settings"},
        ),
        (
            "rm /etc/systemd/system/radvd.service.d/zz-l3hv.conf && systemctl daemon-reload",
            {"unit radvd settings"},
        ),
    ),
    "hv3": (
        ("ip address delete 172.22.2.3/32 dev lo", {"loopback 172.22.2.3/32"}),
        ("ip link set vm4 down", {"port vm4 link"}),
        (OTHER_FILE, {"running configuration"}),
        ("systemctl -q mask l3hv-tables --runtime && systemctl -q disable l3hv-tables", {"unit l3hv-tables"}),
    ),
    "internet": (
        ("ip address delete 192.0.2.8/32 dev lo", {"loopback 192.0.2.8/32"}),
        ("systemctl -q disable systemd-networkd", {"unit systemd-networkd"}),
        ("ip -6 rule delete priority 1000", {"rules ipv6"}),
    ),
    "rr1": (
        ("ip address delete 198.51.100.126/25 dev a-public", {"addresses a-public"}),
        ("systemctl -q mask --now bird", {"unit bird"}),
    ),
}
"""The breaks on each host, and the names of the checks that must fail there."""


def playbook(lab: Standing) -> str:
    """Run ``site.yml`` against the standing twin; it must succeed."""
    done = lab.playbook("site.yml", seconds=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def changed_hosts(output: str) -> set[str]:
    recap = output.rpartition("PLAY RECAP")[2]
    return set(re.findall(r"^(\S+) .*changed=[1-9]", recap, re.MULTILINE))


@pytest.fixture(scope="module")
def repaired(lab: Standing) -> tuple[dict[str, set[str]], str]:
    """Return the failed checks of each host after the breaks, and the output of the run."""
    named = {}
    try:
        for host, breaks in BREAKS.items():
            for script, _ in breaks:
                lab.run(host, script)
        for host, breaks in BREAKS.items():
            named[host] = lab.wait_until_failing(host, set().union(*(fails for _, fails in breaks)))
    finally:
        output = playbook(lab)
    return named, output


@pytest.mark.parametrize("host", BREAKS)
def test_verification_names_the_breaks_of_each_host(
    repaired: tuple[dict[str, set[str]], str], host: str
) -> None:
    named, _ = repaired
    missing = {script: fails - named[host] for script, fails in BREAKS[host] if fails - named[host]}
    assert missing == {}


def test_one_run_repairs_all_breaks(lab: Standing, repaired: tuple[dict[str, set[str]], str]) -> None:
    _, output = repaired
    assert changed_hosts(output) == set(BREAKS)
    lab.await_whole(*lab.plans)
    assert changed_hosts(playbook(lab)) == set()


def test_a_bridge_port_and_a_wrong_neighbor_are_repaired_and_named(lab: Standing) -> None:
    """`pve-bridge` adds a new tap to a bridge, and leaves it there."""
    wrong = "neighbour replace 203.0.113.1 lladdr 02:00:00:00:00:98 nud noarp dev vm1"
    lab.run("hv1", f"ip link add br0 type bridge && ip link set vm2 master br0 && ip {wrong}")
    try:
        printed = lab.run("hv1", "/usr/local/lib/l3hv/networkd-sync in-force ports || true").splitlines()
        assert printed == [
            "vm1 has a permanent neighbour 203.0.113.1 with the MAC 02:00:00:00:00:98",
            "vm2 is in br0: its guest gets past the hypervisor's routes and filter",
        ]
        lab.run("hv1", "/usr/local/lib/l3hv/networkd-sync apply ports")
        assert "master" not in lab.run("hv1", "ip -oneline link show vm2")
        assert "02:00:00:00:00:98" not in lab.run("hv1", "ip neighbour show dev vm1")
    finally:
        lab.run("hv1", "ip link delete br0; ip neighbour delete 203.0.113.1 dev vm1 2>/dev/null || true")
        lab.await_whole("hv1")


def test_an_operators_drop_in_does_not_override_the_settings_of_a_unit(lab: Standing) -> None:
    """`systemctl edit bird` creates such a drop-in."""
    directory = "/etc/systemd/system/bird.service.d"
    text = "[Service]\\nKillSignal=SIGTERM\\nRestart=no\\nUser=root\\nCapabilityBoundingSet=CAP_SYS_ADMIN\\n"
    show = "systemctl show --property KillSignal,Restart,User,CapabilityBoundingSet bird"
    before = lab.run("hv1", show)
    try:
        for name in ("override", "zzz"):
            lab.run("hv1", f"printf '{text}' > {directory}/{name}.conf && systemctl daemon-reload")
            if name == "override":
                assert lab.run("hv1", show) == before
                assert "unit bird settings" not in lab.failing("hv1")
            else:
                check = next(one for one in lab.look("hv1") if one.what == "unit bird settings")
                assert check.state == "failed"
                assert f"{directory}/zzz.conf" in check.found
    finally:
        lab.run("hv1", f"rm -f {directory}/override.conf {directory}/zzz.conf && systemctl daemon-reload")
    assert "unit bird settings" not in lab.failing("hv1")


def test_another_name_of_a_table_does_not_break_a_run(lab: Standing) -> None:
    file = "/etc/iproute2/rt_tables.d/aa-other.conf"
    lab.run("hv1", f"printf '90 customers\\n100 own\\n' > {file}; cp {file} {file.replace('aa-', 'zz-')}")
    try:
        lab.run("hv1", "/usr/local/lib/l3hv/tables-sync in-force /etc/l3hv/tables.conf")
        lab.run("hv1", "/usr/local/lib/l3hv/networkd-sync in-force ports")
        lab.run("hv1", "ip rule delete priority 1000 && systemctl reload l3hv-tables")
        assert lab.failing("hv1") == set()
    finally:
        lab.run("hv1", f"rm {file} {file.replace('aa-', 'zz-')}")

"""The program that applies policy rules and last resorts, in network namespaces."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from images import loaded

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/tables/files/tables-sync"
PROTOCOLS = ROOT / "roles/tables/files/rt_protos.conf"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

INTENT = """\
table 90 public
table 100 local-out
route ipv4 blackhole default table public metric 4294967294
route ipv6 blackhole default table public metric 4294967294
route ipv4 unreachable default table local-out metric 4294967294
rule ipv4 1000 iif lo table main suppress_prefixlength 0  # what is directly attached
rule ipv4 1010 to 172.22.2.0/24 iif lo table local-out
rule ipv4 1020 from 203.0.113.7/32 table local-out
rule ipv4 1030 table public
rule ipv6 1000 table main
rule ipv6 1010 table public
"""

Sh = Callable[[str], str]


@pytest.fixture
def sh(tmp_path: Path) -> Iterator[Sh]:
    """Return a function that runs shell commands in a network namespace with names of tables and protocol."""
    name = f"tables-{os.getpid()}"
    etc = tmp_path / "iproute2"
    for directory, text in (
        ("rt_tables.d", "90 public\n100 local-out\n"),
        ("rt_protos.d", PROTOCOLS.read_text()),
    ):
        (etc / directory).mkdir(parents=True)
        (etc / directory / "l3hv.conf").write_text(text)
    # The namespace needs only the kernel's own names of the host.
    (etc / "rt_tables").write_text("255 local\n254 main\n253 default\n")
    (etc / "rt_protos").write_text("2 kernel\n3 boot\n4 static\n")
    subprocess.run(["ip", "netns", "add", name], check=True)

    def run(command: str) -> str:
        script = f"mkdir -p /etc/iproute2 && mount --bind {etc} /etc/iproute2; cd {tmp_path}; {command}"
        done = subprocess.run(
            ["ip", "netns", "exec", name, "sh", "-ec", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "tables.conf").write_text(INTENT)
    try:
        run("ip link set lo up")
        yield run
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def rules(sh: Sh) -> list[str]:
    return [" ".join(line.split()) for line in (sh("ip rule") + sh("ip -6 rule")).splitlines()]


def test_the_kernel_has_the_rules_of_the_file(sh: Sh) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    assert rules(sh) == [
        "0: from all lookup local",
        "1000: from all iif lo lookup main suppress_prefixlength 0 proto l3hv",
        "1010: from all to 172.22.2.0/24 iif lo lookup local-out proto l3hv",
        "1020: from 203.0.113.7 lookup local-out proto l3hv",
        "1030: from all lookup public proto l3hv",
        "0: from all lookup local",
        "1000: from all lookup main proto l3hv",
        "1010: from all lookup public proto l3hv",
    ]
    assert sh("ip route show table public").startswith("blackhole default proto l3hv metric 4294967294")
    assert sh("ip route show table local-out").startswith("unreachable default proto l3hv")
    assert "blackhole default dev lo proto l3hv metric 4294967294" in sh("ip -6 route show table public")


def test_a_second_run_sends_nothing_to_the_kernel(sh: Sh) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    assert sh(f"{PROGRAM} in-force tables.conf") == ""
    events = sh(
        f"ip monitor rule route > events & sleep 0.2; {PROGRAM} apply tables.conf;"
        " sleep 0.2; kill $!; cat events"
    )
    assert events == ""


def test_removed_rules_are_removed_and_rules_of_others_stay(sh: Sh, tmp_path: Path) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    sh("ip rule add priority 500 to 192.0.2.0/24 lookup main protocol static")
    sh("ip route add 192.0.2.0/24 dev lo table public protocol static")
    gone = [line for line in INTENT.splitlines() if "1020" not in line and "ipv6 blackhole" not in line]
    (tmp_path / "tables.conf").write_text("\n".join(gone))
    printed = sh(f"{PROGRAM} apply tables.conf").splitlines()
    assert printed == [
        "ip -4 rule delete priority 1020 from 203.0.113.7/32 table local-out protocol l3hv",
        "ip -6 route delete blackhole default table public metric 4294967294 protocol l3hv",
    ]
    assert "500: from all to 192.0.2.0/24 lookup main proto static" in rules(sh)
    assert "192.0.2.0/24 dev lo proto static" in sh("ip route show table public")


def test_a_mark_is_part_of_a_rule(sh: Sh, tmp_path: Path) -> None:
    marked = "rule ipv4 1025 fwmark 0x20000000/0x20000000 table local-out\n"
    (tmp_path / "tables.conf").write_text(INTENT + marked)
    sh(f"{PROGRAM} apply tables.conf")
    assert "1025: from all fwmark 0x20000000/0x20000000 lookup local-out proto l3hv" in rules(sh)
    assert sh(f"{PROGRAM} in-force tables.conf") == ""
    (tmp_path / "tables.conf").write_text(INTENT)
    assert sh(f"{PROGRAM} apply tables.conf").splitlines() == [
        "ip -4 rule delete priority 1025 fwmark 0x20000000/0x20000000 table local-out protocol l3hv"
    ]


@pytest.mark.parametrize("protocols", ["icmp 1 ICMP\nudp 17 UDP\n", ""], ids=["names", "numbers"])
def test_protocol_and_source_port_are_part_of_a_rule(sh: Sh, tmp_path: Path, protocols: str) -> None:
    """Without names in /etc/protocols ip(8) shows numbers."""
    icmp = "rule ipv4 1003 from 203.0.113.0/24 iif lo ipproto 1 table public\n"
    dhcp = "rule ipv4 1005 iif lo ipproto 17 sport 67 table public\n"
    (tmp_path / "tables.conf").write_text(INTENT + icmp + dhcp)
    (tmp_path / "protocols").write_text(protocols)
    names = "unshare -m sh -ec 'mount --bind protocols /etc/protocols; {}'"
    program = names.replace("{}", f"{PROGRAM} apply tables.conf")
    sh(program)
    icmp_name, udp_name = ("icmp", "udp") if protocols else ("ipproto-1", "ipproto-17")
    assert {
        f"1003: from 203.0.113.0/24 iif lo ipproto {icmp_name} lookup public proto l3hv",
        f"1005: from all iif lo ipproto {udp_name} sport 67 lookup public proto l3hv",
    } <= {" ".join(line.split()) for line in sh(names.replace("{}", "ip rule")).splitlines()}
    assert sh(names.replace("{}", f"{PROGRAM} in-force tables.conf")) == ""
    (tmp_path / "tables.conf").write_text(INTENT + dhcp)
    assert sh(program).splitlines() == [
        "ip -4 rule delete priority 1003 from 203.0.113.0/24 iif lo ipproto 1 table public protocol l3hv"
    ]


def test_the_last_rule_stays_last_while_priorities_change(sh: Sh, tmp_path: Path) -> None:
    """An additional rule moves later rules: the last rule, which matches all packets, is removed first."""
    sh(f"{PROGRAM} apply tables.conf")
    moved = INTENT.replace("rule ipv4 1030", "rule ipv4 1040").replace("rule ipv4 1020", "rule ipv4 1030")
    (tmp_path / "tables.conf").write_text(moved + "rule ipv4 1020 to 192.0.2.0/24 table public\n")
    printed = sh(f"{PROGRAM} apply tables.conf").splitlines()
    assert [line for line in printed if "delete" in line] == [
        "ip -4 rule delete priority 1030 table public protocol l3hv",
        "ip -4 rule delete priority 1020 from 203.0.113.7/32 table local-out protocol l3hv",
    ]


def test_a_changed_priority_is_added_before_the_old_one_is_removed(sh: Sh, tmp_path: Path) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    (tmp_path / "tables.conf").write_text(INTENT.replace("rule ipv4 1030", "rule ipv4 2030"))
    assert sh(f"{PROGRAM} apply tables.conf").splitlines() == [
        "ip -4 rule add priority 2030 table public protocol l3hv",
        "ip -4 rule delete priority 1030 table public protocol l3hv",
    ]


def test_rules_deleted_by_hand_are_restored(sh: Sh) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    sh("ip rule delete priority 1030; ip route delete blackhole default table public metric 4294967294")
    assert "ip -4 rule add priority 1030 table public" in sh(f"! {PROGRAM} in-force tables.conf")
    sh(f"{PROGRAM} apply tables.conf")
    assert sh(f"{PROGRAM} in-force tables.conf") == ""


def test_a_family_without_rules_keeps_the_kernels_own(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "tables.conf").write_text("rule ipv4 1000 table main\n")
    sh(f"{PROGRAM} apply tables.conf")
    assert rules(sh) == [
        "0: from all lookup local",
        "1000: from all lookup main proto l3hv",
        "0: from all lookup local",
        "32766: from all lookup main",
    ]


def test_rules_with_different_destinations_replace_each_other_at_one_priority(sh: Sh, tmp_path: Path) -> None:
    """The kernel refuses the wider rule with "File exists", and deletes the first rule that matches."""
    narrow = "rule ipv4 1000 to 192.0.2.0/24 iif lo table main\nrule ipv4 1010 table public\n"
    wide = "rule ipv4 1000 iif lo table main\nrule ipv4 1010 table public\n"
    for text in (narrow, wide, narrow):
        (tmp_path / "tables.conf").write_text("table 90 public\n" + text)
        sh(f"{PROGRAM} apply tables.conf")
        assert sh(f"{PROGRAM} in-force tables.conf") == ""
        destination = "to 192.0.2.0/24 " if text == narrow else ""
        assert rules(sh)[1] == f"1000: from all {destination}iif lo lookup main proto l3hv"


def test_deleting_a_rule_does_not_delete_a_more_specific_one(sh: Sh, tmp_path: Path) -> None:
    """An interrupted run has left a rule behind a remaining rule at the same priority."""
    stays = "1000 to 192.0.2.0/24 iif lo table main suppress_prefixlength 0"
    for rule in (stays, "1000 iif lo table main"):
        sh(f"ip rule add priority {rule} protocol 107")
    (tmp_path / "tables.conf").write_text(f"rule ipv4 {stays}\n")
    printed = sh(f"{PROGRAM} apply tables.conf").splitlines()
    assert f"ip -4 rule add priority {stays.replace('1000', '999')} protocol l3hv" in printed
    assert rules(sh)[:2] == [
        "0: from all lookup local",
        "1000: from all to 192.0.2.0/24 iif lo lookup main suppress_prefixlength 0 proto l3hv",
    ]
    assert sh(f"{PROGRAM} in-force tables.conf") == ""


def test_two_rules_at_one_priority_are_refused(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "tables.conf").write_text("rule ipv4 1000 iif lo table main\nrule ipv4 1000 table main\n")
    assert (
        sh(f"! {PROGRAM} apply tables.conf 2>&1").strip()
        == "tables.conf: two rules of ipv4 have the priority 1000"
    )


def test_another_name_of_a_table_is_no_difference(sh: Sh, tmp_path: Path) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    (tmp_path / "iproute2/rt_tables.d/zz.conf").write_text("90 customers\n100 hypervisor\n90 uplink\n")
    assert "lookup uplink" in sh("ip rule") or "lookup customers" in sh("ip rule")
    assert sh(f"{PROGRAM} in-force tables.conf") == ""
    sh("ip rule delete priority 1030; ip route delete blackhole default table 90 metric 4294967294")
    sh(f"{PROGRAM} apply tables.conf")
    assert "1030:\tfrom all lookup 90 proto 107" in sh("ip -N rule")
    assert sh(f"{PROGRAM} in-force tables.conf") == ""


def test_an_equal_rule_of_another_protocol_stays(sh: Sh, tmp_path: Path) -> None:
    sh("ip rule add priority 1030 table 90 protocol static")
    sh(f"{PROGRAM} apply tables.conf")
    assert "1030: from all lookup public proto l3hv" in rules(sh)
    (tmp_path / "tables.conf").write_text(INTENT.replace("rule ipv4 1030 table public\n", ""))
    sh(f"{PROGRAM} apply tables.conf")
    assert [rule for rule in rules(sh) if rule.startswith("1030:")] == [
        "1030: from all lookup public proto static"
    ]


def test_a_family_that_the_plan_no_longer_has_gets_the_kernels_rules_back(sh: Sh, tmp_path: Path) -> None:
    sh(f"{PROGRAM} apply tables.conf")
    (tmp_path / "tables.conf").write_text(
        "\n".join(line for line in INTENT.splitlines() if not line.startswith("rule ipv6"))
    )
    sh(f"{PROGRAM} apply tables.conf")
    assert rules(sh)[-2:] == ["0: from all lookup local", "32766: from all lookup main"]
    assert sh(f"{PROGRAM} in-force tables.conf") == ""


def test_a_rule_without_a_protocol_in_place_of_the_kernels_own_is_removed(sh: Sh) -> None:
    """`ip -6 rule add priority 32767 lookup default` adds a rule that is not the kernel's own."""
    again = "ip -6 rule add priority 32767 table default; ip rule add priority 32766 table main"
    sh(f"{PROGRAM} apply tables.conf; {again}")
    sh(f"{PROGRAM} apply tables.conf")
    assert not any(rule.startswith(("32766:", "32767:")) for rule in rules(sh))


@pytest.fixture
def program() -> ModuleType:
    return loaded(PROGRAM)


def test_many_rules_cost_no_more_than_the_square_of_their_number(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    describes = program.Rule.describes

    def comparisons(pools: int) -> int:
        count = 0

        def counted(rule: object, other: object) -> bool:
            nonlocal count
            count += 1
            return bool(describes(rule, other))

        monkeypatch.setattr(program.Rule, "describes", counted)
        old, new = (
            [program.Rule(first + n, (("from", f"10.0.0.{n}/32"), ("table", "public"))) for n in range(pools)]
            for first in (1000, 3000)
        )
        assert len(program.rule_changes("ipv4", old, new)) == 2 * pools
        return count

    assert comparisons(80) < 5 * comparisons(40)

"""The program that loads, restores and compares the packet filter, with the nft of each distribution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.l3hv.observe.nft import element_words
from images import ROOT, in_an_image
from rendered import PLANS, read_plan, rendered_files

from l3hv.model.plain import from_plain
from l3hv.model.plan import HostPlan
from l3hv.verify.sets import planned_sets

PROGRAM = ROOT / "roles/packet_filter/files/packet-filter"
FILE = "/etc/l3hv/nftables.conf"
SYSTEMS = ("debian12", "debian13")
# These fabrics have all kinds of hosts and all sets.
FABRICS = ("bird1", "ipv6_only_guests", "lab", "one_path", "pairs", "strict", "vlans")


def filters() -> dict[Path, str]:
    """Return the filters of all golden plans."""
    files = {path: rendered_files(path) for path in PLANS if path.parts[-4] in FABRICS}
    return {path: placed[FILE] for path, placed in files.items() if FILE in placed}


# Turns the namespace into a machine with program and files; `in-force` creates another namespace there.
MACHINE = """
cp "$2" /mnt/root/packet-filter
mkdir /mnt/root/files
cp "$3"/*.nft /mnt/root/files
mount -t sysfs none /mnt/root/sys
run() {
    chroot /mnt/root "$@"
}
await() {
    for try in $(seq 200); do
        ! run sh -c "$1" >/dev/null 2>&1 || return 0
        sleep 0.01
    done
    echo "not within two seconds: $1" >&2
    exit 1
}
"""


def outcome(system: str, script: str, directory: Path) -> str:
    done = in_an_image(system, "bird2", MACHINE + script, PROGRAM, directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the filters of golden plans to files with the names of fabric and host."""
    directory = tmp_path_factory.mktemp("filters")
    for path, text in filters().items():
        (directory / f"{name(path)}.nft").write_text(text)
    return directory


def name(path: Path) -> str:
    return f"{path.parts[-4]}-{path.parts[-2]}"


# Waits after each removal until the file is in force again.
KEEPS = """
run /packet-filter keep /files/lab-hv1.nft &
await '/packet-filter in-force /files/lab-hv1.nft'
for removal in 'flush ruleset' 'delete table inet l3hv' 'delete table arp l3hv' 'flush table inet l3hv'; do
    run nft "$removal"
    await '/packet-filter in-force /files/lab-hv1.nft'
done
kill %1
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_rules_that_another_program_removes_are_restored(system: str, files: Path) -> None:
    printed = outcome(system, KEEPS, files).splitlines()
    removed = [line.partition(" removed ")[2] for line in printed if " removed " in line]
    assert removed == [
        "what belongs to inet l3hv, arp l3hv: loading it again",
        "what belongs to inet l3hv: loading it again",
        "what belongs to arp l3hv: loading it again",
        "what belongs to inet l3hv: loading it again",
    ]
    assert all(line.startswith("nft (process ") for line in printed if " removed " in line)


# The program ignores changes, and does not take loads for removals.
LEAVES = """
run /packet-filter keep /files/lab-hv1.nft &
await '/packet-filter in-force /files/lab-hv1.nft'
run /packet-filter apply /files/lab-hv2.nft
run /packet-filter apply /files/lab-hv1.nft
run nft add table inet other
run nft flush table inet other
run nft insert rule inet l3hv forwarded accept
run nft delete table inet other
run /packet-filter in-force /files/lab-hv1.nft || true
run nft delete table inet l3hv
await '/packet-filter in-force /files/lab-hv1.nft'
kill %1
"""


def test_existing_rules_are_not_loaded_again(files: Path) -> None:
    assert [
        line.partition(" removed ")[2] or line for line in outcome("debian13", LEAVES, files).splitlines()
    ] == [
        "inet chain forwarded: has too much: accept",
        "what belongs to inet l3hv: loading it again",
        "inet l3hv: in force again",
    ]


# A public guest on a hypervisor that also has private guests, which have another gateway.
PINGS = """
run nft --file /files/one_path-alpha.nft
unshare --net sleep 60 & guest=$!
# /proc is still that of the namespace outside.
as_guest() {
    nsenter --net=/mnt/root/proc/$guest/ns/net "$@"
}
network_of() {
    readlink "/mnt/root/proc/$1/ns/net"
}
until [ "$(network_of $guest)" != "$(network_of self)" ]; do sleep 0.01; done
ip link add web type veth peer name eth0 address 52:54:00:00:00:01
ip link set eth0 netns $guest
ip address add 203.0.113.1/32 dev web
ip address add 10.2.1.254/32 dev lo
ip link set web up
ip route add 203.0.113.10/32 dev web
as_guest ip address add 203.0.113.10/24 dev eth0
as_guest ip link set eth0 up
as_guest ip route add default via 203.0.113.1
for gateway in 203.0.113.1 10.2.1.254; do
    as_guest ping -c 1 -W 1 $gateway >/dev/null && echo "$gateway answers" || echo "$gateway does not answer"
done
run nft list counter inet l3hv to_host | grep -o 'packets [0-9]*'
kill $guest
"""


def test_a_guest_reaches_the_gateway_of_its_own_domain_only(files: Path) -> None:
    assert outcome("debian12", PINGS, files).splitlines() == [
        "203.0.113.1 answers",
        "10.2.1.254 does not answer",
        "packets 1",
    ]


DIFFERENCES = {
    "delete element inet l3hv macs { vm2 . 50:54:33:00:00:09 }": (
        "inet set macs: lacks element vm2 . 50:54:33:00:00:09"
    ),
    "add element inet l3hv senders4 { vm2 . 50:54:33:00:00:09 . 192.0.2.66 }": (
        "inet set senders4: has too much: element vm2 . 50:54:33:00:00:09 . 192.0.2.66"
    ),
    "add element inet l3hv fabric4 { 192.0.2.0/24 }": "inet set fabric4: has too much: element 192.0.2.0/24",
    "delete element arp l3hv macs { vm2 . 50:54:33:00:00:09 }": (
        "arp set macs: lacks element vm2 . 50:54:33:00:00:09"
    ),
    "add element inet l3hv nd_rate { vm2 limit rate over 1/day burst 9 packets }": (
        "inet set nd_rate: dynamic element vm2 has 'limit rate over 1/day burst 9 packets'"
        "; the rules give 'limit rate over 20/second burst 60 packets'"
    ),
    "add element inet l3hv ping_rate { vm2 }": (
        "inet set ping_rate: dynamic element vm2 has no limit or timeout;"
        " the rules give 'limit rate over 100/second burst 200 packets'"
    ),
    "add element inet l3hv dhcp_rate { vm2 counter }": (
        "inet set dhcp_rate: dynamic element vm2 has 'counter'"
        "; the rules give 'limit rate over 10/second burst 20 packets'"
    ),
    "add element inet l3hv strangers { vm2 . 02:00:00:00:00:66 timeout 30d }": (
        "inet set strangers: dynamic element vm2 . 02:00:00:00:00:66 has 'timeout 30d'"
        "; the rules give no limit or timeout"
    ),
    'add element arp l3hv arp_rate { vm2 limit rate over 9/day burst 9 packets comment "a, b" }': (
        "arp set arp_rate: dynamic element vm2 has 'limit rate over 9/day burst 9 packets comment a, b'"
        "; the rules give 'limit rate over 50/second burst 300 packets'"
    ),
    "insert rule inet l3hv forwarded accept": "inet chain forwarded: has too much: accept",
    "flush chain inet l3hv routing": "inet chain routing: lacks goto drop_routing",
    "add chain inet l3hv more": "inet chain more: not in the file",
    "add set inet l3hv more { type ipv4_addr; }": "inet set more: not in the file",
    "add counter inet l3hv more": "inet counter more: not in the file",
    "delete table arp l3hv": "table arp l3hv: missing",
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_difference_is_named(system: str, files: Path) -> None:
    script = [
        f"run /packet-filter apply /files/lab-hv1.nft\n"
        f"run nft '{change}'\n"
        f"echo '# {change}'\n"
        f"! run /packet-filter in-force /files/lab-hv1.nft\n"
        "run /packet-filter in-force --without-set-elements /files/lab-hv1.nft | sed 's/^/rules: /'\n"
        for change in DIFFERENCES
    ]
    printed = outcome(system, "".join(script), files)
    for each in printed.split("# ")[1:]:
        change, *lines = each.splitlines()
        assert DIFFERENCES[change] in lines
        of_all = [line for line in lines if not line.startswith("rules: ")]
        of_rules = [line.removeprefix("rules: ") for line in lines if line.startswith("rules: ")]
        is_of_elements = " element" in DIFFERENCES[change].replace("dynamic element", "")
        assert of_rules == ([] if is_of_elements else of_all)


# A refused file is retried after seconds, not as fast as systemd restarts programs.
REFUSED = """
echo 'table inet l3hv { nonsense }' >/mnt/root/files/refused.nft
code=0
began=$(date +%s)
run /packet-filter keep /files/refused.nft 2>&1 || code=$?
echo "exit status $code after $(($(date +%s) - began)) s"
began=$(date +%s)
run /packet-filter apply /files/refused.nft 2>/dev/null || echo "apply: exit status $?"
[ $(($(date +%s) - began)) -lt 4 ]
"""


def test_a_refused_file_is_not_retried_without_pause(files: Path) -> None:
    *_, sentence, kept, loaded = outcome("debian13", REFUSED, files).splitlines()
    assert sentence == "packet-filter: nft refuses /files/refused.nft: the kernel keeps what it has"
    assert kept.startswith("exit status 1 after ")
    assert int(kept.split()[-2]) >= 5
    assert loaded == "apply: exit status 1"


# Elements that packets have added to rate sets, and counters, are no difference.
COUNTS = """
run /packet-filter apply /files/lab-hv1.nft
run nft 'add element inet l3hv strangers { "vm2" . 02:00:00:00:00:66 }'
run nft 'add element inet l3hv nd_rate { "vm2" limit rate over 20/second burst 60 packets }'
run /packet-filter in-force /files/lab-hv1.nft
run nft 'delete counter inet l3hv nd_rate' 2>/dev/null || true
run nft 'add rule inet l3hv to_host counter name nd_rate'
ip addr add 192.0.2.1/32 dev lo
ping -q -c 3 -i 0.01 192.0.2.1 >/dev/null
run /packet-filter apply /files/lab-hv1.nft
run /packet-filter in-force /files/lab-hv1.nft
run nft list counter inet l3hv nd_rate
"""


def test_counters_continue_and_are_no_difference(files: Path) -> None:
    assert "packets 6 bytes" in outcome("debian13", COUNTS, files)


# Loads each file, and prints the elements of its sets in the kernel.
LOAD_ALL = """
for file in /mnt/root/files/*.nft; do
    name=${file##*/}
    run /packet-filter apply "/files/$name"
    run /packet-filter in-force "/files/$name"
    echo "# ${name%.nft}"
    run nft --json list ruleset
done
"""


def listed_sets(ruleset: dict[str, Any]) -> dict[str, frozenset[str]]:
    return {
        f"{each['family']} {each['name']}": frozenset(map(element_words, each.get("elem", ())))
        for each in (entry["set"] for entry in ruleset["nftables"] if "set" in entry)
        if "dynamic" not in each.get("flags", ())
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_kernel_has_the_sets_of_the_plan(system: str, files: Path) -> None:
    """The template prints the same sets that verification expects."""
    listed = {
        fabric: listed_sets(json.loads(ruleset))
        for fabric, _, ruleset in (
            part.partition("\n") for part in outcome(system, LOAD_ALL, files).split("# ")[1:]
        )
    }
    for path in filters():
        planned = planned_sets(from_plain(HostPlan, read_plan(path)).packet_filter)
        found = listed.pop(name(path))
        assert {key: value for key, value in found.items() if value} == {
            key: value for key, value in planned.items() if value
        }, name(path)
    assert not listed


# The guest behind web2 answers neighbour solicitations for its /64 itself; others are behind the uplink eth1.
SCAN = """
run /packet-filter apply /files/one_path-alpha.nft
for name in beyond guest; do run ip netns add $name; done
run ip link add eth1 type veth peer name eth0 netns beyond
run ip link add web2 type veth peer name eth0 netns guest
for device in eth1 web2; do run ip link set $device up; done
for name in beyond guest; do run ip -n $name link set eth0 up; done
run sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
run ip address add 2001:db8:1::1/64 dev eth1 nodad
run ip -6 route add 2001:db8:2::/64 dev eth1
run ip -6 route add 2001:db8:d000:14::/64 dev web2
for one in 1 2; do run ip -n beyond address add 2001:db8:$one::2/64 dev eth0 nodad; done
await 'ip -n beyond -6 route add default via 2001:db8:1::1'
send() {
    run ip netns exec beyond python3 -c "
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
    wire.bind(('$1', 0))
    for number in range($3):
        wire.sendto(b'', (f'2001:db8:d000:14:$2::{number:x}', 4000))
"
}
reached() {
    run nft list set inet l3hv reached6 | grep -c ":$1::" || true
}
send 2001:db8:1::2 5ca 2000
echo "scanned $(reached 5ca)"
send 2001:db8:2::2 600d 5
echo "others $(reached 600d)"
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_scan_of_an_on_link_guest_blocks_no_other_sender(system: str, files: Path) -> None:
    scanned, others = outcome(system, SCAN, files).split("\n")[-3:-1]
    assert 200 <= int(scanned.removeprefix("scanned ")) < 1000
    assert others == "others 5"

"""BIRD 3.1 in a network namespace, and the programs that correct its treatment of routes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from images import ROOT, in_an_image

PROGRAMS = ROOT / "roles" / "bird" / "files"
PROTOCOLS = ROOT / "roles" / "tables" / "files" / "rt_protos.conf"

# BIRD scans at its start and on request.
CONFIGURATION = """
log stderr { error, fatal, bug };
log udp 127.0.0.1 port 3179 { trace };
router id 192.0.2.1;
ipv4 table t4 { export settle time 0 ms 0 ms; };
ipv6 table t6 { export settle time 0 ms 0 ms; };
protocol device {}
protocol kernel kernel_t4 {
  kernel table 90; learn; persist; scan time 3600; merge paths on limit 16;
  ipv4 { table t4; import none; export where source = RTS_STATIC; };
}
protocol kernel kernel_t6 {
  kernel table 90; learn; persist; scan time 3600; merge paths on limit 16;
  ipv6 { table t6; import none; export where source = RTS_STATIC; };
}
protocol static one { debug { routes }; ipv4 { table t4; }; route 203.0.113.1/32 via 198.51.100.9; }
protocol static two { debug { routes }; ipv4 { table t4; }; route 203.0.113.1/32 via 198.51.100.137; }
protocol static one6 { ipv6 { table t6; }; route 2001:db8:cb00:7101::/64 via 2001:db8:c633:6400::9; }
protocol static two6 { ipv6 { table t6; }; route 2001:db8:cb00:7101::/64 via 2001:db8:c633:6401::9; }
"""

# Turns the namespace into a machine with two links.
MACHINE = """
printf '%s' "$2" > /mnt/root/bird.conf
cp "$3"/* /mnt/root
mkdir -p /mnt/root/etc/iproute2/rt_protos.d
cp "$4" /mnt/root/etc/iproute2/rt_protos.d
ip link add name one0 type veth peer name one1
ip link add name two0 type veth peer name two1
for end in one0 one1 two0 two1; do ip link set $end up; done
ip address add 198.51.100.1/25 dev one0
ip address add 198.51.100.129/25 dev two0
ip address add 2001:db8:c633:6400::1/64 dev one0 nodad
ip address add 2001:db8:c633:6401::1/64 dev two0 nodad
bird() {
    exec chroot /mnt/root bird -c /bird.conf -s /run/bird/bird.ctl -f -R
}
hops() {
    for try in $(seq 100); do
        found=$(ip -oneline route show table 90 | grep -o 'via [0-9.]*' | xargs)
        [ "$found" != "$1" ] || break
        sleep 0.02
    done
    echo "$found"
}
"""

# Prints the kernel's next hops after each change of a path.
RESCANS = """
chroot /mnt/root python3 -I /bird31-routes scan 90 20 &
bird &
hops 'via 198.51.100.9 via 198.51.100.137'
chroot /mnt/root birdc 'reload filters in kernel_t4' >/dev/null  # what is seen now passes for installed
sleep 1
for name in two one; do
    for verb in disable enable; do
        chroot /mnt/root birdc $verb $name >/dev/null
        case "$verb $name" in
        'disable two') hops 'via 198.51.100.9' ;;
        'disable one') hops 'via 198.51.100.137' ;;
        *) hops 'via 198.51.100.9 via 198.51.100.137' ;;
        esac
        sleep 1
    done
done
kill %1 %2
"""

# Prints the changes of routes while BIRD is killed and restarts; a fifth argument starts the program too.
RESTARTS = """
bird &
hops 'via 198.51.100.9 via 198.51.100.137' >&2
chroot /mnt/root python3 -I /bird31-routes wait
kill -KILL %1
wait %1 || true
chroot /mnt/root ip -oneline monitor route &
sleep 0.5
[ -z "$5" ] || chroot /mnt/root python3 -I /bird31-routes put start 90 20
bird &
[ -z "$5" ] || chroot /mnt/root python3 -I /bird31-routes wait
sleep 3
[ -z "$5" ] || chroot /mnt/root python3 -I /bird31-routes remove start
sleep 0.5
chroot /mnt/root ip route show table 90 >&2
chroot /mnt/root ip -6 route show table 90 >&2
kill %2 %3
"""

# Prints the changes of routes while the best path changes continuously, so that scans coincide with changes.
# A fifth argument starts the program too. Without the program scans have no copies of routes, and the script
# ends when a scan deletes a route.
FLOOD = """
bird &
hops 'via 198.51.100.9 via 198.51.100.137' >&2
if [ -n "$5" ]; then
    chroot /mnt/root python3 -I /bird31-routes scan 90 20 &
else
    while sleep 0.005; do chroot /mnt/root birdc 'reload filters in "kernel_*"' >/dev/null; done &
fi
sleep 1
chroot /mnt/root ip -oneline monitor route | tee /mnt/root/monitored &
sleep 0.5
for round in $(seq $([ -n "$5" ] && echo 60 || echo 600)); do
    [ -n "$5" ] || ! grep -q '^Deleted.*metric 32' /mnt/root/monitored || break
    for name in one one6 two two6; do
        chroot /mnt/root birdc disable $name >/dev/null
        chroot /mnt/root birdc enable $name >/dev/null
        sleep 0.02
    done
done
sleep 1
kill %2 %1
pkill -P $$ ip
"""

BOTH = "via 198.51.100.9 via 198.51.100.137"
PREFIXES = {"203.0.113.1", "2001:db8:cb00:7101::/64"}


def in_a_machine(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    given: list[str | Path] = [CONFIGURATION, PROGRAMS, PROTOCOLS, *arguments]
    return in_an_image("debian13", "bird3", MACHINE + script, *given)


def without_a_route(monitored: str) -> set[str]:
    """Return the prefixes that had no route for a moment, from the output of `ip -oneline monitor route`."""
    metrics = {prefix: {"32"} for prefix in PREFIXES}
    empty = set()
    for gone, prefix, metric in re.findall(r"^(Deleted )?(\S+) .*metric (\d+)", monitored, re.MULTILINE):
        if prefix in PREFIXES:
            (metrics[prefix].discard if gone else metrics[prefix].add)(metric)
            empty |= {prefix} if not metrics[prefix] else set()
    return empty


def test_the_kernel_follows_each_path() -> None:
    done = in_a_machine(RESCANS)
    alone = "via 198.51.100.9", "via 198.51.100.137"
    assert done.stdout.splitlines() == [BOTH, alone[0], BOTH, alone[1], BOTH], done.stderr


def test_a_scan_amid_changes_leaves_no_prefix_without_a_route() -> None:
    done = in_a_machine(FLOOD, "beside the program")
    assert without_a_route(done.stdout) == set(), done.stdout
    assert done.stdout.count("l3hv-stand-in metric 34") >= 2 * len(PREFIXES), done.stderr


def test_without_copies_a_scan_amid_changes_deletes_a_route() -> None:
    """The copies exist for this reason; if this test fails, BIRD no longer needs them."""
    assert without_a_route(in_a_machine(FLOOD, "").stdout)


def test_a_start_leaves_no_prefix_without_a_route() -> None:
    done = in_a_machine(RESTARTS, "beside the program")
    assert done.returncode == 0, done.stderr
    assert without_a_route(done.stdout) == set(), done.stdout
    assert done.stdout.count("l3hv-stand-in") >= 2 * len(PREFIXES)
    assert "l3hv-stand-in" not in done.stderr
    assert all(f"{prefix} proto bird" in done.stderr for prefix in PREFIXES), done.stderr


def test_without_the_program_a_start_deletes_routes() -> None:
    """The program exists for this reason; if this test fails, BIRD no longer needs it."""
    assert without_a_route(in_a_machine(RESTARTS, "").stdout) == PREFIXES


# Adds copies of routes, one with a dead next hop, and removes them; a route of another protocol stays.
COPIES = """
of_bird() {
    chroot /mnt/root ip route add proto bird metric 32 table 90 "$@"
}
of_bird 203.0.113.1/32 via 198.51.100.9
of_bird default nexthop via 198.51.100.9 nexthop via 198.51.100.137
of_bird 2001:db8:cb00:7101::/64 via 2001:db8:c633:6400::9
of_bird ::/0 nexthop via 2001:db8:c633:6400::9 nexthop via 2001:db8:c633:6401::9
chroot /mnt/root ip route add 203.0.113.99/32 proto static metric 34 table 90 via 198.51.100.9
ip link set two0 down
chroot /mnt/root python3 -I /bird31-routes put scans 90 20
echo put
chroot /mnt/root ip -oneline route show table 90 proto l3hv-stand-in
chroot /mnt/root ip -6 -oneline route show table 90 proto l3hv-stand-in
chroot /mnt/root python3 -I /bird31-routes remove scans
echo removed
chroot /mnt/root ip -oneline route show table 90 metric 34
chroot /mnt/root ip -6 -oneline route show table 90 metric 34
"""


def test_copies_have_only_live_next_hops_and_are_removed_completely() -> None:
    done = in_a_machine(COPIES)
    assert done.returncode == 0, done.stderr
    put, removed = (part.splitlines() for part in done.stdout.partition("put\n")[2].split("removed\n"))
    copied = {line.split()[0] for line in put}
    assert {"default", "203.0.113.1", "2001:db8:cb00:7101::/64"} <= copied, done.stdout
    assert len(put) == 4
    assert all("metric 34" in line and "two0" not in line for line in put), put
    assert [line.split()[0] for line in removed] == ["203.0.113.99"]


def test_an_unknown_verb_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAMS / "bird31-routes", "scans"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("usage: bird31-routes ")

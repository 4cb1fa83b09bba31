"""BIRD 3.1 in a namespace of its own: beside the program the kernel follows each path to a prefix at once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles" / "bird" / "files" / "bird-rescan"

# No scan but the first, and those that are asked for.
CONFIGURATION = """
log stderr { error, fatal, bug };
log udp 127.0.0.1 port 3179 { trace };
router id 192.0.2.1;
ipv4 table t4 { export settle time 0 ms 0 ms; };
protocol device {}
protocol kernel kernel_t4 {
  kernel table 90; learn; persist; scan time 3600; merge paths on limit 16;
  ipv4 { table t4; import none; export where source = RTS_STATIC; };
}
protocol static one { debug { routes }; ipv4 { table t4; }; route 203.0.113.1/32 via 198.51.100.9; }
protocol static two { debug { routes }; ipv4 { table t4; }; route 203.0.113.1/32 via 198.51.100.137; }
"""

# Takes the image; prints the next hops that the kernel has after each change of a path.
SCRIPT = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc
mount -t tmpfs none /mnt/root/run
mkdir /mnt/root/run/bird
printf '%s' "$2" > /mnt/root/bird.conf
cp "$3" /mnt/root/bird-rescan
ip link set lo up
ip link add name one0 type veth peer name one1
ip link add name two0 type veth peer name two1
for end in one0 one1 two0 two1; do ip link set $end up; done
ip address add 198.51.100.1/25 dev one0
ip address add 198.51.100.129/25 dev two0
chroot /mnt/root python3 -I /bird-rescan &
chroot /mnt/root bird -c /bird.conf -s /run/bird/bird.ctl -f &
hops() {
    for try in $(seq 100); do
        found=$(ip -oneline route show table 90 | grep -o 'via [0-9.]*' | xargs)
        [ "$found" != "$1" ] || break
        sleep 0.02
    done
    echo "$found"
}
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


def test_the_kernel_follows_each_path() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can enter a machine's file system")
    command = [ROOT / "twin", "image", "--system", "debian13", "--daemon", "bird3"]
    image = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1]
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    inside = ["bash", "-c", SCRIPT, "bash", image, CONFIGURATION, str(PROGRAM)]
    done = subprocess.run([*alone, *inside], capture_output=True, text=True, check=False, timeout=60)
    both = "via 198.51.100.9 via 198.51.100.137"
    assert done.stdout.splitlines() == [both, "via 198.51.100.9", both, "via 198.51.100.137", both], (
        done.stderr
    )

"""What brings a running BIRD to its file, against the BIRD of each distribution."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles" / "bird" / "files" / "birds"

OWN = """
define l3hv_config = "0123456789abcdef";
define l3hv_sessions = "a=01234567";
router id 192.0.2.1;
protocol device {}
protocol bgp reflector {
  local 127.0.0.1 as 65000;
  neighbor 127.0.0.2 as 65000;
  multihop;
  strict bind;
  connect delay time 1;
  error wait time 1, 2;
  long lived graceful restart on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
"""

NEIGHBOR = """
router id 192.0.2.2;
protocol device {}
protocol bgp hypervisor {
  local 127.0.0.2 as 65000;
  neighbor 127.0.0.1 as 65000;
  multihop;
  strict bind;
  passive;
  long lived graceful restart on;
  ipv4 { import none; export all; };
  ipv6 { import none; export all; };
}
"""

SYSTEMCTL = """#!/bin/sh
case "$*" in
show*bird.service) cat /run/pid ;;
show*) echo 0 ;;
restart*) touch /run/restarted; kill -KILL $(cat /run/pid); start ;;
esac
"""

START = """#!/bin/sh
bird -f -R & echo $! >/run/pid
"""

# Takes the image, becomes a machine of it, and runs a BIRD as roles do, beside a neighbour.
MACHINE = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc
mount -t tmpfs none /mnt/root/run
mkdir /mnt/root/run/bird
printf '%s' "$2" >/mnt/root/etc/bird/bird.conf
printf '%s' "$3" >/mnt/root/neighbor.conf
for program in systemctl start; do
    printf '%s' "$4" >/mnt/root/usr/local/bin/$program
    chmod 0755 /mnt/root/usr/local/bin/$program
    shift
done
install -m 0755 "$4" /mnt/root/birds
ip link set lo up
export PATH=/usr/local/bin:$PATH
exec chroot /mnt/root bash -ec "$5"
"""

BEGIN = """
neighbor() {
    bird -f -c /neighbor.conf -s /run/neighbor.ctl & neighbor=$!
}
reads() {
    for try in $(seq 100); do
        ! birdc show protocols reflector | grep -q "$1" || return 0
        sleep 0.1
    done
    birdc show protocols all reflector
    exit 1
}
neighbor
start
reads Established
"""

END = "\nkill -KILL $neighbor $(cat /run/pid)\n"

# The neighbour is gone without a word, and what it said is kept. It comes back without a family, and goes.
HANG = """
kill -KILL $neighbor
reads start
sed -i '/ipv6/d' /neighbor.conf
neighbor
reads Established
birdc -s /run/neighbor.ctl disable hypervisor
reads flush
"""


@pytest.fixture(params=["debian12 bird2", "debian13 bird2", "debian13 bird3"])
def image(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can enter a machine's file system")
    system, daemon = request.param.split()
    command = [ROOT / "twin", "image", "--system", system, "--daemon", daemon]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1]


def in_a_machine(image: str, script: str) -> subprocess.CompletedProcess[str]:
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    given = [image, OWN, NEIGHBOR, SYSTEMCTL, START, str(PROGRAM), BEGIN + script + END]
    inside = ["bash", "-c", MACHINE, "bash", *given]
    return subprocess.run([*alone, *inside], capture_output=True, text=True, check=False, timeout=60)


def test_a_session_that_does_not_end_is_named_and_started_over(image: str) -> None:
    """And nothing is while all sessions do what they shall; what has begun just now may hang once more."""
    whole = """
        /birds in-force bird
        /birds configure bird
        test ! -e /run/restarted
    """
    mended = """
        /birds in-force bird
        touch -d '2 minutes ago' /run/bird/bird.ctl
        ! /birds in-force bird
        /birds configure bird
        test -e /run/restarted
        birdc -s /run/neighbor.ctl enable hypervisor
        reads Established
        /birds in-force bird
    """
    done = in_a_machine(image, whole + HANG + mended)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bird has a session that does not end" in done.stdout

"""What brings a running BIRD to its file, against the BIRD of each distribution."""

from __future__ import annotations

import pytest
from images import ROOT, in_an_image

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

# Becomes a machine, and runs a BIRD as roles do, beside a neighbour.
MACHINE = """
printf '%s' "$2" >/mnt/root/etc/bird/bird.conf
printf '%s' "$3" >/mnt/root/neighbor.conf
for program in systemctl start; do
    printf '%s' "$4" >/mnt/root/usr/local/bin/$program
    chmod 0755 /mnt/root/usr/local/bin/$program
    shift
done
install -m 0755 "$4" /mnt/root/birds
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


@pytest.mark.parametrize(
    ("system", "daemon"), [("debian12", "bird2"), ("debian13", "bird2"), ("debian13", "bird3")]
)
def test_a_session_that_does_not_end_is_named_and_started_over(system: str, daemon: str) -> None:
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
    script = BEGIN + whole + HANG + mended + END
    done = in_an_image(system, daemon, MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bird has a session that does not end" in done.stdout

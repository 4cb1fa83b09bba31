"""The program that reconfigures a running BIRD to its file, with the BIRD of each distribution."""

from __future__ import annotations

import pytest
from images import ROOT, in_an_image

PROGRAM = ROOT / "roles" / "bird" / "files" / "bird-control"

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
restart*)
    touch /run/restarted
    kill -KILL $(cat /run/pid)
    # As systemd does, wait until all threads are gone: the next BIRD refuses to start beside this socket.
    while birdc -r show status >/dev/null 2>&1; do sleep 0.01; done
    start
    ;;
esac
"""

START = """#!/bin/sh
bird -f -R & echo $! >/run/pid
"""

# Turns the namespace into a machine that runs BIRD as the roles do, and a neighbour.
MACHINE = """
printf '%s' "$2" >/mnt/root/etc/bird/bird.conf
printf '%s' "$3" >/mnt/root/neighbor.conf
for program in systemctl start; do
    printf '%s' "$4" >/mnt/root/usr/local/bin/$program
    chmod 0755 /mnt/root/usr/local/bin/$program
    shift
done
install -m 0755 "$4" /mnt/root/bird-control
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

# The neighbour dies silently, and its routes are kept. It restarts without one family, and stops.
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
def test_a_hanging_session_is_named_and_restarted(system: str, daemon: str) -> None:
    """No session is restarted while all work; a session that has just been restarted may hang once more."""
    whole = """
        /bird-control in-force bird
        /bird-control apply bird
        test ! -e /run/restarted
    """
    mended = """
        /bird-control in-force bird
        touch -d '2 minutes ago' /run/bird/bird.ctl
        ! /bird-control in-force bird
        /bird-control apply bird
        test -e /run/restarted
        birdc -s /run/neighbor.ctl enable hypervisor
        reads Established
        /bird-control in-force bird
    """
    script = BEGIN + whole + HANG + mended + END
    done = in_an_image(system, daemon, MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bird has a session that does not end" in done.stdout


@pytest.mark.parametrize(
    ("system", "daemon"), [("debian12", "bird2"), ("debian13", "bird2"), ("debian13", "bird3")]
)
def test_a_hanging_session_is_restarted_between_two_runs(system: str, daemon: str) -> None:
    """The timer restarts no working session, and not the same session again at once."""
    mended = """
        /bird-control mend bird
        test -e /run/restarted
        rm /run/restarted
        birdc -s /run/neighbor.ctl enable hypervisor
        reads Established
        test ! -e /run/l3hv-bird-took-over
    """
    again = """
        sed -i '/ipv4 { import none/a ipv6 { import none; export all; };' /neighbor.conf
        birdc -s /run/neighbor.ctl configure
        reads Established
    """
    script = BEGIN + "/bird-control mend bird; test ! -e /run/restarted" + HANG + mended
    script += again + HANG + "/bird-control mend bird; test ! -e /run/restarted" + END
    done = in_an_image(system, daemon, MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("bird: a session does not end (flush): bird is restarted") == 1


@pytest.mark.parametrize("daemon", ["bird2", "bird3"])
def test_a_bird_that_hangs_during_reconfiguration_is_named(daemon: str) -> None:
    """The exit status is not 124, which the caller would take for its own time-out."""
    stops = """
        mv /usr/sbin/birdc /usr/sbin/real-birdc
        printf '%s\n' '#!/bin/sh' 'case "$*" in configure) kill -STOP $(cat /run/pid) ;; esac' \
            'exec /usr/sbin/real-birdc "$@"' >/usr/sbin/birdc
        chmod 0755 /usr/sbin/birdc
        /bird-control apply bird && code=0 || code=$?
        echo "exit status $code"
    """
    done = in_an_image(
        "debian13", daemon, MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, BEGIN + stops + END
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not answer within 10 s" in done.stdout
    assert done.stdout.splitlines()[-1] == "exit status 1"


def test_a_long_held_lock_is_named_and_only_root_can_hold_it() -> None:
    held = """
        /bird-control mend bird
        stat -c 'mode %a' /run/l3hv-bird.lock
        exec 8>/run/l3hv-bird.lock
        flock 8
        /bird-control mend bird 8>&-
        echo "gave way"
        touch -d '10 minutes ago' /run/l3hv-bird-mended/locked
        ! /bird-control mend bird 8>&-
        exec 8>&-
        /bird-control mend bird
        test ! -e /run/l3hv-bird-mended/locked
    """
    done = in_an_image(
        "debian13", "bird2", MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, BEGIN + held + END
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mode 600" in done.stdout
    assert "is held for more than five minutes" in done.stdout.partition("gave way")[2]


def test_an_unconfigured_control_socket_is_removed() -> None:
    asked = """
        install -d -o bird -m 2750 /run/bird-monitoring
        printf '%s\n' 'cli "/run/bird-monitoring/bird.ctl" { restrict };' >>/etc/bird/bird.conf
        /bird-control apply bird
        test -d /run/bird-monitoring
        sed -i /bird-monitoring/d /etc/bird/bird.conf
        /bird-control apply bird
        test ! -e /run/bird-monitoring
    """
    done = in_an_image(
        "debian13", "bird2", MACHINE, OWN, NEIGHBOR, SYSTEMCTL, START, PROGRAM, BEGIN + asked + END
    )
    assert done.returncode == 0, done.stdout + done.stderr


# A reflector that accepts 4 prefixes and keeps 8. Its hypervisor announces different prefixes over time.
LIMITED = """
router id 192.0.2.1;
protocol device {}
protocol bgp hypervisor {
  local 127.0.0.1 as 65000;
  neighbor 127.0.0.2 as 65000;
  multihop;
  strict bind;
  passive;
  connect delay time 1;
  error wait time 1, 2;
  CHANNEL
    import keep filtered on;
    import limit 4 action block;
    receive limit 8 action block;
    import all;
    export none;
  END
}
"""

ANNOUNCING = """
router id 192.0.2.2;
protocol device {}
include "/prefixes.conf";
protocol bgp reflector {
  local 127.0.0.2 as 65000;
  neighbor 127.0.0.1 as 65000;
  multihop;
  strict bind;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  CHANNEL import none; export all; END
}
"""

LIMITS = """
announces() {
    { echo "protocol static own { $OWN"
      for number; do echo "route 203.0.113.$number/32 blackhole;"; done
      echo "}"; } >/prefixes.conf
    [ -z "$neighbor" ] || birdc -s /run/neighbor.ctl configure >/dev/null
}
takes() {
    for try in $(seq 100); do
        now=$(birdc show route protocol hypervisor | grep -oE '203[.]0[.]113[.][0-9]+' | cut -d. -f4 |
            sort -n | xargs)
        [ "$now" != "$1" ] || return 0
        sleep 0.1
    done
    echo "takes $now, not $1"; birdc show protocols all hypervisor
    exit 1
}
# What is mended may come in again, however often that is looked at.
mends() {
    /bird-control mend bird
    takes "$1"
    /bird-control mend bird
}
OWN='FAMILY'
announces 1 2 3
bird -f -c /neighbor.conf -s /run/neighbor.ctl & neighbor=$!
bird -f & echo $! >/run/pid
takes "1 2 3"
/bird-control mend bird
announces 1 2 3 4 5 6
takes "1 2 3 4"
/bird-control mend bird  # the cause is there still
takes "1 2 3 4"
announces 4 5 6
takes "4"
mends "4 5 6"
announces 1 2 3 4 5 6 7 8 9 10 11 12
takes "TOO_MANY"
announces 9 10 11 12
takes ""
mends "9 10 11 12"
kill -KILL $neighbor $(cat /run/pid)
"""


@pytest.mark.parametrize(
    ("system", "daemon"),
    [("debian12", "bird1"), ("debian12", "bird2"), ("debian13", "bird2"), ("debian13", "bird3")],
)
def test_a_blocking_prefix_limit_is_lifted_after_its_cause_is_gone(system: str, daemon: str) -> None:
    """BIRD before 3 would continue to block, and every version lacks the prefixes that it did not keep."""
    is_one = daemon == "bird1"
    channel = ("", "") if is_one else ("ipv4 {", "};")
    own, neighbor = (
        text.replace("CHANNEL", channel[0]).replace("END", channel[1]) for text in (LIMITED, ANNOUNCING)
    )
    if is_one:
        own = own.replace("strict bind;", "") + "listen bgp address 127.0.0.1;"
        neighbor = neighbor.replace("strict bind;", "") + "listen bgp address 127.0.0.2;"
    else:
        own = own.replace("import keep", "import table on; import keep")
    script = LIMITS.replace("FAMILY", "" if is_one else "ipv4;")
    script = script.replace("TOO_MANY", "1 4 5 6")
    done = in_an_image(system, daemon, MACHINE, own, neighbor, SYSTEMCTL, START, PROGRAM, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hypervisor: the limit of 4 prefixes (import) is not reached any more" in done.stdout
    is_new_session = "the session is restarted" in done.stdout
    assert is_new_session != is_one

"""The read-only control socket of the role, with each BIRD that supports it."""

from __future__ import annotations

import re

import pytest
from images import in_an_image
from rendered import ROOT, rendered_files

from l3hv.model.daemons import DAEMONS

PLAN = ROOT / "tests/golden/foreign/expected/hv2/plan.yml"
WITH_SOCKET = [(d.system, d.name) for d in DAEMONS.values() if d.reading_socket is not None]

# Takes the configuration and the commands that the unit runs before BIRD.
SCRIPT = r"""
printf '%s' "$2" >/mnt/root/bird.conf
printf '%s\n' "$3" >/mnt/root/before
exec chroot /mnt/root bash -ec '
groupadd --system exporters
useradd --gid exporters monitor
chown bird:bird /run/bird
chmod 0700 /run/bird
. /before
umask 0077
setpriv --reuid bird --regid bird --clear-groups bird -f -c /bird.conf -s /run/bird/bird.ctl & bird=$!
as() { user=$1 group=$2; shift 2; setpriv --reuid $user --regid $group --clear-groups birdc -s "$@"; }
for try in $(seq 50); do [ ! -S /run/bird-monitoring/bird.ctl ] || break; sleep 0.1; done
stat -c "%U %G %a" /run/bird-monitoring /run/bird-monitoring/bird.ctl
as monitor exporters /run/bird-monitoring/bird.ctl show protocols
as monitor exporters /run/bird-monitoring/bird.ctl disable device1 || true
as monitor exporters /run/bird/bird.ctl show status 2>&1 || echo "main socket: refused"
as nobody nogroup /run/bird-monitoring/bird.ctl show status 2>&1 || echo "nobody: refused"
birdc -s /run/bird/bird.ctl disable device1
kill -KILL $bird
'
"""


@pytest.mark.parametrize(("system", "daemon"), WITH_SOCKET)
def test_the_group_can_read_and_not_change(system: str, daemon: str) -> None:
    files = rendered_files(PLAN)
    declared = re.search(r"^cli .*$", files["/etc/bird/bird.conf"], re.MULTILINE)
    unit = files["/etc/systemd/system/bird.service.d/zz-l3hv.conf"]
    (before,) = re.findall(r"^ExecStartPre=\+(.*)$", unit, re.MULTILINE)
    assert declared
    words = [DAEMONS[key].reading_socket or "" for key in (("bird2", "debian13"), (daemon, system))]
    socket = declared[0].replace(f"{{ {words[0]} }}", f"{{ {words[1]} }}")
    configuration = f"router id 192.0.2.1; protocol device {{ }} {socket}"
    done = in_an_image(system, daemon, SCRIPT, configuration, before)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bird exporters 2750\n" in done.stdout
    assert re.search(r"^device1 +Device", done.stdout, re.MULTILINE)
    assert "Access denied" in done.stdout
    assert "main socket: refused" in done.stdout
    assert "nobody: refused" in done.stdout
    assert done.stdout.count("device1: disabled") == 1

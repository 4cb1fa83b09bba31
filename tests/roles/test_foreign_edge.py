"""The default route of an unmanaged edge router, which is withdrawn with the router for any restart time.

The reflector's BIRD runs the file of a golden plan. The edge router runs FRR or BIRD with a restart time of
120 s, and without long-lived graceful restart.
"""

from __future__ import annotations

import subprocess

import pytest
from images import ROOT, in_an_image
from rendered import rendered_files

PLAN = ROOT / "tests/golden/foreign/expected/rr1/plan.yml"
GONE_WITHIN_S = 5
ASKED_FOR_S = 120

FRR = f"""
frr defaults traditional
router bgp 65000
 bgp router-id 198.51.100.121
 bgp graceful-restart
 bgp graceful-restart restart-time {ASKED_FOR_S}
 bgp graceful-restart preserve-fw-state
 neighbor 198.51.100.126 remote-as 65000
 neighbor 198.51.100.126 ttl-security hops 1
 neighbor 198.51.100.126 timers connect 1
 neighbor 198.51.100.126 bfd
 neighbor 198.51.100.126 bfd profile fast
 address-family ipv4 unicast
  neighbor 198.51.100.126 default-originate
 exit-address-family
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
"""

BIRD = f"""
router id 198.51.100.121;
protocol device {{}}
protocol static {{ ipv4; route 0.0.0.0/0 blackhole; }}
protocol bfd {{ interface "*" {{ interval 100 ms; multiplier 3; }}; }}
protocol bgp reflector {{
  local 198.51.100.121 as 65000;
  neighbor 198.51.100.126 as 65000;
  direct;
  ttl security on;
  connect delay time 1;
  connect retry time 1;
  bfd graceful;
  graceful restart on;
  graceful restart time {ASKED_FOR_S};
  ipv4 {{ import none; export all; next hop self; }};
}}
"""

# Takes the reflector's file, the edge router's image and configuration, and the event that ends the router.
SCRIPT = """
mount -t proc proc /proc
printf '%s' "$2" >/mnt/root/etc/bird/bird.conf
mkdir /mnt/edge /mnt/edgeupper /mnt/edgework
mount -t overlay overlay -o "lowerdir=$3,upperdir=/mnt/edgeupper,workdir=/mnt/edgework" /mnt/edge
mount -t proc proc /mnt/edge/proc
mount -t tmpfs none /mnt/edge/run
mkdir -p /mnt/edge/run/bird /mnt/edge/run/frr /mnt/edge/etc/frr
printf '%s' "$4" >/mnt/edge/etc/frr/frr.conf
printf '%s' "$4" >/mnt/edge/etc/bird.conf
place() {
    unshare --net sleep 100 & at=$!
    until [ "$(readlink /proc/$at/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add "$1" type veth peer name eth0 netns $at
    ip link set "$1" master path
    ip link set "$1" up
    nsenter --target $at --net sh -c "ip link set lo up; ip address add $2/25 dev eth0; ip link set eth0 up"
}
ip link add path type bridge
ip link set path up
place rr 198.51.100.126; rr=$at
place edge 198.51.100.121; edge=$at
nsenter --target $rr --net chroot /mnt/root bird -f -s /run/bird/bird.ctl 2>/mnt/log &
nsenter --target $edge --net chroot /mnt/edge sh -c '
    if [ -x /usr/lib/frr/bgpd ]; then
        chown frr:frr /run/frr
        for daemon in zebra staticd bfdd bgpd; do /usr/lib/frr/$daemon -d -A 127.0.0.1 -P 0; done
        vtysh -b
    else
        bird -c /etc/bird.conf -s /run/bird/bird.ctl
    fi' >&2
routes() { chroot /mnt/root birdc -s /run/bird/bird.ctl show route table public4 protocol edge1_public 2>&1; }
for try in $(seq 200); do ! routes | grep -q 0.0.0.0/0 || break; sleep 0.1; done
for try in $(seq 100); do
    ! chroot /mnt/root birdc -s /run/bird/bird.ctl show bfd sessions | grep -q 'Up' || break
    sleep 0.1
done
routes | grep 0.0.0.0/0 || chroot /mnt/edge vtysh -c 'show bgp neighbors' | head -50
chroot /mnt/root birdc -s /run/bird/bird.ctl show protocols all edge1_public | grep 'Restart time' || true
case "$5" in
kill) kill -KILL $(pgrep --ns $edge --nslist net 'bgpd|bird') ;;
cut) ip link set edge down ;;
esac
begin=$(date +%s%N)
for try in $(seq 300); do
    routes | grep -q 0.0.0.0/0 || { echo "gone after $((($(date +%s%N) - begin) / 1000000)) ms"; break; }
    sleep 0.05
done
routes | grep 0.0.0.0/0 || true
kill -KILL $(pgrep 'bgpd|bird|zebra|staticd|bfdd') $rr $edge
"""


@pytest.mark.parametrize("event", ["kill", "cut"])
@pytest.mark.parametrize(("daemon", "configuration"), [("frr", FRR), ("bird2", BIRD)])
def test_the_default_route_is_withdrawn_with_its_router(daemon: str, configuration: str, event: str) -> None:
    command = [str(ROOT / "twin"), "image", "--system", "debian13", "--daemon", daemon]
    image = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1]
    reflector = rendered_files(PLAN)["/etc/bird/bird.conf"]
    done = in_an_image("debian13", "bird2", SCRIPT, reflector, image, configuration, event)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Restart time: {ASKED_FOR_S}" in done.stdout, done.stdout + done.stderr
    gone = [line for line in done.stdout.splitlines() if line.startswith("gone after ")]
    assert len(gone) == 1, done.stdout + done.stderr
    print(f"{daemon}, {event}: {gone[0]}")
    assert int(gone[0].split()[2]) < GONE_WITHIN_S * 1000

"""Leases of pools with a link-local gateway, from the configuration of a hypervisor and a real dnsmasq."""

from __future__ import annotations

from pathlib import Path

from changed_intents import copy_of
from golden_cases import plans
from images import ROOT, in_an_image
from rendered import files_of_plan

NEW_POOL = """\
  other:
    domain: public
    ipv4: 192.0.2.128/25
    gateway: link_local
"""
NEW_GUESTS = """\
  - name: vm5
    mac: "50:54:33:00:00:17"
    ipv4: 203.0.113.1
  - name: vm6
    mac: "50:54:33:00:00:19"
    ipv4: 192.0.2.128
"""
SERVE = """
mount -t tmpfs none /run
cp "$2" /mnt/root/tmp/dhcp.conf
mkdir /mnt/root/run/l3hv-dhcp
add_port() { # guest gateway mac
    [ -e /run/netns/$1 ] || ip netns add $1
    ip link add $1 type veth peer name eth0 netns $1 address $3
    ip -n $1 link set eth0 up
    ip link set $1 up
    ip address add $2/32 dev $1
}
cat >/run/show <<'END'
#!/bin/sh
[ "$1" != bound ] || echo "$ip $mask ${broadcast:-none} $staticroutes" >/run/lease
END
chmod +x /run/show
lease() { # guest
    rm -f /run/lease
    options='-O staticroutes -O broadcast'
    ip netns exec $1 busybox udhcpc -f -n -q -t 10 -T 1 -i eth0 -s /run/show $options >&2 || :
    echo "$1 $(cat /run/lease)"
}
chroot /mnt/root dnsmasq --keep-in-foreground --user=root --conf-file=/tmp/dhcp.conf >&2 &
server=$!
until grep -q ':0043 ' /proc/net/udp || ! kill -0 $server; do sleep 0.05; done
"""
LEASES = """
# No port exists when the server starts.
add_port vm1 169.254.1.1 50:54:33:00:00:07; lease vm1
add_port vm2 169.254.0.1 50:54:33:00:00:09; lease vm2
add_port vm5 169.254.1.1 50:54:33:00:00:17; lease vm5
add_port vm6 169.254.1.1 50:54:33:00:00:19; lease vm6
# A port that is created anew has another number.
ip link delete vm1
add_port vm1 169.254.1.1 50:54:33:00:00:07; lease vm1
kill $server
"""


def test_ports_that_appear_later_have_leases_of_their_pool(tmp_path: Path) -> None:
    """vm1 and vm5 are in one pool, vm6 is in another pool with the same gateway."""
    changed = copy_of(ROOT / "inventories" / "link-local-gateway", tmp_path)
    for name, text in (("host_vars/hv1.yml", NEW_GUESTS), ("group_vars/all/fabric.yml", NEW_POOL)):
        with (changed / name).open("a") as file:
            file.write(text)
    served = tmp_path / "dhcp.conf"
    served.write_text(files_of_plan(plans(changed)["hv1"])["/etc/l3hv/dhcp.conf"])
    done = in_an_image("debian13", "bird2", SERVE + LEASES, served)
    tail = "32 none 169.254.1.1/32 0.0.0.0 0.0.0.0/0 169.254.1.1"
    assert done.stdout.splitlines() == [
        f"vm1 203.0.113.0 {tail}",
        f"vm2 203.0.113.128 {tail.replace('1.1', '0.1')}",
        f"vm5 203.0.113.1 {tail}",
        f"vm6 192.0.2.128 {tail}",
        f"vm1 203.0.113.0 {tail}",
    ], done.stdout + done.stderr

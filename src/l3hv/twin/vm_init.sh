#!/bin/busybox sh
# The first process of a QEMU guest: DHCP, SLAAC, an echo on UDP port 7, and its addresses on the
# console, where the host reads them.

/bin/busybox mkdir -p /proc /sys /dev /run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
/bin/busybox --install -s /bin
PATH=/bin
export PATH

for module in failover net_failover virtio_net; do
    [ ! -e "/modules/$module.ko" ] || insmod "/modules/$module.ko"
done

word() { # the value of KEY=VALUE on the kernel's command line
    tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"
}

hostname "$(word guest)"
cd /proc/sys/net/ipv6/conf/default || exit
echo 0 >router_solicitation_delay
echo 1 >router_solicitation_interval
echo 1 >router_solicitation_max_interval
echo -1 >router_solicitations
cd /
ip link set lo up
for address in $(word addresses | tr ',' ' '); do
    ip address add "$address" dev lo
done
# The kernel created eth0 before the settings above, with other defaults.
for setting in router_solicitation_delay router_solicitation_interval \
    router_solicitation_max_interval router_solicitations; do
    cat "/proc/sys/net/ipv6/conf/default/$setting" >"/proc/sys/net/ipv6/conf/eth0/$setting"
done
ip link set eth0 up
[ "$(word dhcp)" != 1 ] ||
    udhcpc -f -i eth0 -s /lease.sh -t 3 -T 1 -A 1 -O staticroutes -O mtu -x "hostname:$(word guest)" &
PYTHONHOME=/usr python3 -S /echo.py &

old=
while :; do
    new=$({ ip -o address show dev eth0 scope global; ip -o address show dev lo scope global; } |
        grep -v tentative | awk '{ sub("/.*", "", $4); printf " %s", $4 }')
    [ "$new" = "$old" ] || echo "addresses:$new"
    old=$new
    sleep 0.5
done

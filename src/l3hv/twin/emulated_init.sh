#!/bin/busybox sh
# The first process of an emulated machine: it mounts the machine's files, names its NICs, and starts systemd.

/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
/bin/busybox --install -s /bin
PATH=/bin
export PATH

fail() {
    echo "twin: $1"
    poweroff -f
}

while read -r module; do
    modprobe -q "$module"
done </modules

tries=0
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "the machine has no disks"
    sleep 0.1
done
mount -t ext4 -o ro,noatime /dev/vda /lower || fail "the disk of the image cannot be mounted"
mount -t ext4 -o noatime /dev/vdb /layer || fail "the disk of the machine cannot be mounted"
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new ||
    fail "the disks cannot be joined"

while read -r mac name; do
    for link in /sys/class/net/*; do
        [ "$(cat "$link/address")" != "$mac" ] || ip link set "${link##*/}" name "$name"
    done
done </nics
mkdir -p /new/run
mount -t proc proc /new/proc
# Without udev systemd-networkd would wait for it. A read-only /sys shows it that there is none, as in a container.
mount -t sysfs -o ro sysfs /new/sys
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /new/run
cp /management /new/run/twin-management
echo 1 >/proc/sys/net/ipv6/conf/mgmt0/disable_ipv6
chroot /new /usr/lib/twin/management restore
umount /sys
mount --move /dev /new/dev
exec switch_root /new /usr/lib/systemd/systemd

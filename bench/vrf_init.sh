#!/bin/busybox sh
# The first process of the emulated machine of bench/vrf.py: it mounts the disk of an image and runs /bench/run there.

/bin/busybox --install -s /bin
PATH=/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

while read -r module; do
    modprobe -q "$module"
done </modules
tries=0
while [ ! -b /dev/vda ] && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
mount -t ext4 -o ro,noatime /dev/vda /lower && mount -t tmpfs tmpfs /layer && mkdir /layer/upper /layer/work &&
    mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new || poweroff -f
cp -r /bench /new/bench
mkdir -p /new/run
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t tmpfs tmpfs /new/run
mount --move /dev /new/dev
exec switch_root /new /bin/sh /bench/run

#!/bin/sh
# Becomes the first process of a guest with a Debian user space: guest_system.sh IMAGE DIRECTORY GUEST CLIENT INTERFACE.
# It runs in the guest's network namespace and in new namespaces of mounts, processes, host name and IPC. Its files are
# in memory over the image, and end with the guest. It writes its PID to DIRECTORY/leader, for the host.
set -eu
image=$1 directory=$2 guest=$3 client=$4 interface=$5

# /proc is still that of the host here, so this is the PID on the host.
read -r leader _ </proc/self/stat
mkdir -p "$directory/system"
mount -t tmpfs -o mode=0755 guest "$directory/system"
cd "$directory/system"
mkdir upper work root
mount -t overlay guest -o "lowerdir=$image,upperdir=$PWD/upper,workdir=$PWD/work" root
cd root
mount -t proc proc proc
# Read-only, as in a container: network managers then do not wait for udev.
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=0755 dev dev
mount -t tmpfs -o mode=0755 run run
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "dev/${node%:*}" c 1 "${node#*:}"
done
ln -s /proc/self/fd dev/fd
hostname "$guest"
echo "$guest" >etc/hostname
printf '%s' "$guest" | sha256sum | cut -c 1-32 >etc/machine-id
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$guest" >etc/hosts
mkdir -p etc/systemd/network
printf '[Match]\nName=%s\n\n[Network]\nDHCP=ipv4\n' "$interface" >etc/systemd/network/guest.network
printf '[keyfile]\nunmanaged-devices=none\n' >etc/NetworkManager/conf.d/guest.conf
cat >guest-init <<'INIT'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
umount -l /mnt
case $1 in
dhclient)
    # ifupdown starts the same command. The kernel itself does SLAAC.
    dhclient -4 -d -v "$2" &
    ;;
dhcpcd)
    dhcpcd -B -d "$2" &
    ;;
networkd)
    mkdir -p /run/dbus /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
    chown -R systemd-network:systemd-network /run/systemd/netif
    dbus-daemon --system --fork
    /usr/lib/systemd/systemd-networkd &
    ;;
networkmanager)
    mkdir -p /run/dbus /run/NetworkManager
    dbus-daemon --system --fork
    NetworkManager --no-daemon &
    ;;
esac
# This process ends with the guest, not with the client, and reaps orphaned processes.
while :; do
    sleep 3600 &
    wait
done
INIT
echo "$leader" >"$directory/leader.new"
mv "$directory/leader.new" "$directory/leader"
pivot_root . mnt
exec chroot . /bin/sh /guest-init "$client" "$interface" <dev/null

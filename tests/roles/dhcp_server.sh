# Arguments: dhcp-relay, dhcp-server, dhcp_message.py, and the first, second and third configuration of Kea.
# A guest is at hv1 first, and then at hv2. The server has its address on lo, as on an edge router.
RELAY=$2 SERVER=$3 MESSAGE=$4 FIRST=$5 MOVED=$6 REPLACED=$7
MAC=52:54:00:00:00:01 NEW_MAC=52:54:00:00:00:66 OTHER_MAC=52:54:00:00:00:02
mount -t tmpfs none /run
for name in guest hv1 hv2 server; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n guest link add eth0 type veth peer name vm1 netns hv1
ip -n guest link set eth0 address $MAC up
ip -n hv1 link set vm1 up
for number in 1 2; do
    ip -n hv$number link add up0 type veth peer name hv$number netns server
    ip -n hv$number link set up0 up
    ip -n server link set hv$number up
    ip -n hv$number address add 172.22.15.$((4 * number + 1))/30 dev up0
    ip -n hv$number address add 172.22.2.$number/32 dev lo
    ip -n server address add 172.22.15.$((4 * number + 2))/30 dev hv$number
    ip -n hv$number route add 172.22.9.53 via 172.22.15.$((4 * number + 2)) src 172.22.2.$number
done
ip -n server address add 172.22.9.53/32 dev lo
for number in 1 2; do
    ip -n server route add 172.22.2.$number via 172.22.15.$((4 * number + 1)) src 172.22.9.53
done
# A guest of the private domain at hv2, which may send with its own address only.
ip -n hv2 address add 172.22.30.9/32 dev lo
ip -n server route add 172.22.30.9 via 172.22.15.9 src 172.22.9.53
add_port() {
    ip -n $1 address add 203.0.113.254/32 dev vm1 scope link
    ip -n $1 route add 203.0.113.1/32 dev vm1 scope link
}
add_port hv1

mkdir -p -m 750 /mnt/root/run/kea
mkdir -p /mnt/root/etc/kea/l3hv /run/l3hv-dhcp-relay
cp "$SERVER" /mnt/root/dhcp-server
control() { chroot /mnt/root python3 -I /dhcp-server "$@"; }
place() { cp "$1" /mnt/root/etc/kea/l3hv/kea-dhcp4.conf; }
start_kea() {
    KEA_LOCKFILE_DIR=none ip netns exec server chroot /mnt/root kea-dhcp4 -c /etc/kea/l3hv/kea-dhcp4.conf >>/run/kea.log 2>&1 &
    kea=$!
    for try in $(seq 100); do ! control in-force 2>/dev/null || break; sleep 0.1; done
}
start_relay() { # hypervisor, number, MAC
    {
        echo "relay $1 172.22.2.$2"
        echo "server 172.22.9.53"
        echo "guest vm1 $1/vm1 $3 203.0.113.1 203.0.113.254 203.0.113.254"
    } >/run/relay.conf
    ip netns exec $1 python3 -I "$RELAY" serve /run/relay.conf >>/run/relay.log &
    relay=$!
    for try in $(seq 100); do ! python3 -I "$RELAY" in-force /run/relay.conf 2>/dev/null || break; sleep 0.1; done
}
end() {
    kill $1
    wait $1 2>/dev/null || true
}
cat >/run/script <<'SCRIPT'
#!/bin/sh
case $1 in
    deconfig | leasefail) exit ;;
esac
echo "$1 $ip/$mask $router $serverid $lease mtu $mtu dns $dns search $search routes $staticroutes"
case $1 in
    bound) ip address replace "$ip/24" dev eth0; ip route replace default via "$router" ;;
esac
SCRIPT
chmod 755 /run/script
udhcpc="busybox udhcpc -f -t 3 -T 1 -i eth0 -O search -O staticroutes -O mtu -O dns -s /run/script"
lease() { ip netns exec guest $udhcpc -q -n 2>/dev/null || echo refused; }
renewal() { # a command before it
    ip netns exec guest $udhcpc >/run/renewal 2>/dev/null &
    client=$!
    for try in $(seq 50); do ! grep -q bound /run/renewal || break; sleep 0.1; done
    $1
    kill -USR1 $client
    for try in $(seq 50); do ! grep -q renew /run/renewal || break; sleep 0.1; done
    end $client
    tail -n 1 /run/renewal
}
message() { ip netns exec hv2 python3 -I "$MESSAGE" "$@"; }
offers() {
    python3 -I -c '
import json, socket
control = socket.socket(socket.AF_UNIX)
control.connect("/mnt/root/run/kea/kea4-ctrl-socket")
control.sendall(json.dumps({"command": "statistic-get", "arguments": {"name": "pkt4-offer-sent"}}).encode())
answer = json.loads(b"".join(iter(lambda: control.recv(65536), b"")))
print(answer["arguments"]["pkt4-offer-sent"][0][0])'
}

# The validation of the role: Kea accepts the file although this namespace does not have the address.
place "$FIRST"
sed 's,"lo/[0-9.]*","lo",' "$FIRST" | KEA_LOCKFILE_DIR=none chroot /mnt/root kea-dhcp4 -t /dev/stdin >/run/kea.log 2>&1
echo validated
start_kea
control in-force
echo "in force"
start_relay hv1 1 $MAC
echo "== lease"
lease
echo "== renewal"
renewal true
echo "== renewal after a reload"
renewal "control apply"

echo "== hv2 asks for its own guests"
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm2 $OTHER_MAC
message 172.22.2.2 172.22.2.2 192.0.2.0 hv2/vm3 52:54:00:00:00:03
echo "== nobody else gets an answer"
before=$(offers)
message 172.22.2.2 172.22.2.2 203.0.113.254 hv1/vm1 $OTHER_MAC   # hv2 for a guest of hv1
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm9 $OTHER_MAC   # an unknown port
message 172.22.30.9 172.22.30.9 203.0.113.254 hv1/vm1 $OTHER_MAC # a private guest as a relay
message 172.22.30.9 0.0.0.0 203.0.113.254 hv1/vm1 $OTHER_MAC     # a client without a relay
message 172.22.30.9 172.22.2.1 203.0.113.254 hv1/vm1 $OTHER_MAC  # a private guest names hv1 as the relay
echo "offers: $(($(offers) - before))"

echo "== a guest with an old address"
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm2 $OTHER_MAC 3 "" 203.0.113.77

echo "== declined"
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm2 $OTHER_MAC 3 203.0.113.2
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm2 $OTHER_MAC 4 203.0.113.2
message 172.22.2.2 172.22.2.2 203.0.113.254 hv2/vm2 $OTHER_MAC

echo "== moved"
place "$MOVED"
control in-force 2>&1 | cut -d' ' -f1-4
control apply
control in-force
echo "in force"
end $relay
ip -n hv1 link set vm1 netns hv2
ip -n hv2 link set vm1 up
add_port hv2
start_relay hv2 2 $MAC
lease
renewal true

echo "== another MAC at the same port"
end $relay
place "$REPLACED"
control apply
start_relay hv2 2 $NEW_MAC
ip -n guest link set eth0 address $NEW_MAC
lease

echo "== without Kea"
end $kea
control apply 2>&1 | cut -d'(' -f1
lease
sleep 9 # longer than the relay waits for an answer, and than it takes to notice
cat /run/relay.log
echo "== after an invalid configuration"
start_kea
sed 's/"valid-lifetime"/"valid-lifetimes"/' "$REPLACED" >/mnt/root/etc/kea/l3hv/kea-dhcp4.conf
control apply 2>&1 | cut -d: -f1
lease
end $relay
end $kea

#!/bin/bash
# unshare --net bash bench/copies.sh [ROUTES]
# Measures the time to add and to remove the copies of routes for a scan of BIRD 3.1 (roles/bird/files/bird31-routes).
# The unit is the time in which `ip -batch` adds the routes themselves. Each route has two next hops.
set -eu
routes=${1:-40000}
program=$(dirname "$0")/../roles/bird/files/bird31-routes
table=90

seconds() {
    local begin=$EPOCHREALTIME
    "$@" >&2
    python3 -c "print($EPOCHREALTIME - $begin)"
}

for path in path-a path-b; do
    ip link add name $path type veth peer name $path-end
    ip link set $path up
    ip link set $path-end up
done
ip address add 198.51.100.1/25 dev path-a
ip address add 198.51.100.129/25 dev path-b
batch=$(mktemp)
trap 'rm "$batch"' EXIT
python3 - "$routes" $table > "$batch" <<'END'
import sys
from ipaddress import ip_address

for number in range(int(sys.argv[1])):
    address = ip_address("198.18.0.0") + number
    hops = "nexthop via 198.51.100.9 nexthop via 198.51.100.137"
    print(f"route add {address}/32 proto bird metric 32 table {sys.argv[2]} {hops}")
END
add=$(seconds ip -batch "$batch")
put=$(seconds "$program" put scans $table)
[ "$(ip route show table $table metric 34 | grep -c ^198.18)" = "$routes" ]
remove=$(seconds "$program" remove scans)
python3 -c "
print(f'{$routes} routes: ip -batch {$add:.2f} s, put {$put:.2f} s ({$put / $add:.2f}), remove {$remove:.2f} s ({$remove / $add:.2f})')"

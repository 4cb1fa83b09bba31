#!/bin/sh
# Applies a lease of udhcpc to one interface. It changes neither resolv.conf nor the host name.
# udhcpc calls it with the event in $1 and the lease in variables. Classless routes take
# precedence over the router option (RFC 3442). With a netmask of 32 bits the gateway is outside
# the subnet, and a route of its own leads to it.

route() { # destination gateway
    if [ "$2" = 0.0.0.0 ]; then
        ip route replace "$1" dev "$interface"
    else
        ip route replace "$1" via "$2" dev "$interface" 2>/dev/null || {
            ip route replace "$2/32" dev "$interface"
            ip route replace "$1" via "$2" dev "$interface"
        }
    fi
}

case $1 in
deconfig)
    ip -4 address flush dev "$interface"
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set dev "$interface" mtu "$mtu"
    [ "$1" = renew ] || ip address add "$ip/$mask" dev "$interface"
    if [ -n "$staticroutes" ]; then
        # shellcheck disable=SC2086 # pairs of words
        set -- $staticroutes
        while [ $# -gt 1 ]; do
            route "$1" "$2"
            shift 2
        done
    elif [ -n "$router" ]; then
        route default "${router%% *}"
    fi
    ;;
esac

"""Changes to the observation of a host as planned, each of which breaks one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import as_planned
from fabrics import lab

from l3hv.plan.announcements import announcements
from l3hv.verify.fabric import Fabric

LAB = lab()
ANNOUNCED = {host: announcements(plan) for host, plan in LAB.items()}
FABRIC = Fabric(ANNOUNCED)
SEEN = {host: as_planned.observation(plan, FABRIC) for host, plan in LAB.items()}


def seen_with(host: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the observation of a host as planned after one change."""
    seen = as_planned.observation(LAB[host], FABRIC)
    change(seen)
    return seen


def without(key: str, *path: str | int) -> Callable[[dict[str, Any]], Any]:
    """Return the change that removes a value."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path[:-1]:
            part = part[step]
        del part[path[-1]]

    return change


def with_value(value: object, key: str, *path: str | int) -> Callable[[dict[str, Any]], Any]:
    """Return the change that sets a value."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value

    return change


def added(value: object, key: str, *path: str) -> Callable[[dict[str, Any]], Any]:
    """Return the change that adds an element to a list."""

    def change(seen: dict[str, Any]) -> None:
        part = seen[key]
        for step in path:
            part = part[step]
        part.append(value)

    return change


FOREIGN = as_planned.rule(33000, 200, protocol=3)
HARMLESS = {
    "after ours": FOREIGN,
    "for an interface that is not the fabric's": FOREIGN | {"priority": 100, "iif": "docker0"},
    "for marked packets": FOREIGN | {"priority": 100, "mark": 7},
    "that does nothing": FOREIGN | {"priority": 100, "action": "nop"},
}
DIFFERENCES = {
    "a missing rule": (without("rules", "ipv4", 5), {"rules ipv4"}),
    "the kernel's rule of main": (added(as_planned.rule(32766, 254), "rules", "ipv4"), {"rules ipv4"}),
    "a rule of another program before ours": (
        added(FOREIGN | {"priority": 500}, "rules", "ipv4"),
        {"rules ipv4"},
    ),
    "a rule of another program for an uplink": (
        added(FOREIGN | {"priority": 500, "iif": "a-public"}, "rules", "ipv4"),
        {"rules ipv4"},
    ),
    "a rule of another program for all but a mark": (
        added(FOREIGN | {"priority": 500, "mark": 7, "inverted": True}, "rules", "ipv4"),
        {"rules ipv4"},
    ),
    "a daemon that listens elsewhere": (
        added("tcp 53", "listeners", "l3hv-dhcp.service"),
        {"listeners l3hv-dhcp"},
    ),
    "a daemon that does not listen": (without("listeners", "bird.service"), {"listeners bird"}),
    "a unit of ours that should not listen": (
        with_value(["tcp 80"], "listeners", "l3hv-tables.service"),
        {"listeners l3hv-tables"},
    ),
    "a rule for another table": (with_value(100, "rules", "ipv4", 2, "table"), {"rules ipv4"}),
    "a rule with a mark": (with_value(7, "rules", "ipv6", 1, "mark"), {"rules ipv6"}),
    "an interface that is down": (with_value(False, "links", "a-public", "up"), {"link a-public"}),
    "no carrier": (with_value(False, "links", "b-private", "carrier"), {"link b-private"}),
    "another MTU": (with_value(1400, "links", "a-private", "mtu"), {"link a-private"}),
    "a missing interface": (without("links", "a-private"), {"link a-private", "addresses a-private"}),
    "an address too many": (
        added(as_planned.address("198.51.100.77/25"), "addresses", "a-public"),
        {"addresses a-public"},
    ),
    "a duplicate address": (
        with_value("duplicate", "addresses", "a-public", 1, "trouble"),
        {"addresses a-public"},
    ),
    "an interface that networkd gave up": (
        with_value("failed", "networkd", "b-public"),
        {"networkd b-public"},
    ),
    "a missing loopback": (without("addresses", "lo", 0), {"loopback 172.22.2.1/32"}),
    "another's loopback": (
        added(as_planned.address("172.22.2.9/32"), "addresses", "lo"),
        {"loopback 172.22.2.9/32"},
    ),
    "a missing guest route": (without("routes", "public ipv4", 3), {"route 203.0.113.1/32 in public"}),
    "a missing last resort of a pool": (
        without("routes", "public ipv4", 1),
        {"last resort of public ipv4 for 203.0.113.0/24"},
    ),
    "a guest route with another source": (
        with_value("172.22.2.9", "routes", "local-out ipv4", 1, "prefsrc"),
        {"route 203.0.113.1/32 in local-out"},
    ),
    "a route of a guest that is gone": (
        added(as_planned.route("203.0.113.77/32", "vm1"), "routes", "public ipv4"),
        {"route 203.0.113.77/32 in public"},
    ),
    "a missing last resort": (without("routes", "private ipv4", 0), {"last resort of private ipv4"}),
    "a default route in main": (
        added(as_planned.route("0.0.0.0/0", "eth9", protocol=3), "routes", "main ipv4"),
        {"default route in main ipv4"},
    ),
    "a setting": (
        with_value("0", "sysctls", "net.ipv4.fib_multipath_hash_policy"),
        {"sysctl net.ipv4.fib_multipath_hash_policy"},
    ),
    "a port without proxy ARP": (
        with_value("0", "settings", "vm1", "ipv4 proxy_arp"),
        {"port vm1 ipv4 proxy_arp"},
    ),
    "a port with its own MAC": (with_value("fe:54:33:00:00:07", "links", "vm1", "mac"), {"port vm1 mac"}),
    "a port without its gateway": (without("addresses", "vm1", 1), {"port vm1 addresses"}),
    "a guest with another MAC": (
        with_value(["52:54:00:00:00:99"], "packet_filter", "foreign_macs", "vm1"),
        {"mac vm1"},
    ),
    "a guest whose own MAC is dropped": (
        with_value(["50:54:33:00:00:07"], "packet_filter", "foreign_macs", "vm1"),
        {"mac vm1"},
    ),
    "rules that were changed": (
        added("inet chain forwarded: has too much: accept", "packet_filter", "differences"),
        {"packet filter"},
    ),
    "a set that lacks an element": (
        without("packet_filter", "sets", "inet macs", 1),
        {"set macs"},
    ),
    "a set with an element too much": (
        added("vm2 . 192.0.2.66", "packet_filter", "sets", "inet senders4"),
        {"set senders4"},
    ),
    "a set that is missing": (without("packet_filter", "sets", "arp macs"), {"set arp macs"}),
    "a set that is not in the plan": (
        with_value(["vm2 . 192.0.2.66"], "packet_filter", "sets", "inet friends"),
        {"set friends"},
    ),
    "no packet filter": (
        lambda seen: seen["packet_filter"].update(loaded=False, sets={}),
        {"packet filter"},
    ),
    "a port that has no guest": (
        with_value(as_planned.link(1500, "02:6c:33:68:76:01"), "links", "left"),
        {"port left"},
    ),
    "a port in a bridge": (with_value("br0", "links", "vm1", "master"), {"port vm1 link"}),
    "an uplink in a bridge": (with_value("br0", "links", "a-public", "master"), {"link a-public"}),
    "a permanent neighbour that is not the guest": (
        added({"guest": "vm1", "address": "203.0.113.1", "mac": "02:00:00:00:00:99"}, "neighbors"),
        {"neighbor vm1 203.0.113.1"},
    ),
    "a path that carries no full-size packets": (
        with_value(1400, "sizes", "a-public 198.51.100.126"),
        {"size a to rr1 public ipv4"},
    ),
    "a unit with another signal": (
        with_value("15", "units", "bird.service", "KillSignal"),
        {"unit bird settings"},
    ),
    "a unit that may do more": (
        with_value("cap_net_raw cap_sys_admin", "units", "radvd.service", "CapabilityBoundingSet"),
        {"unit radvd settings"},
    ),
    "a unit that failed": (
        with_value("failed", "units", "radvd.service", "ActiveState"),
        {"unit radvd"},
    ),
    "a unit that does not start at boot": (
        with_value("disabled", "units", "bird.service", "UnitFileState"),
        {"unit bird"},
    ),
    "a translation that is not in the plan": (
        with_value("203.0.113.1", "translations", "203.0.113.66"),
        {"translation 203.0.113.66"},
    ),
    "a file that was changed": (
        with_value("d2", "routing", "configuration", "file"),
        {"running configuration"},
    ),
    "a configuration that was refused": (
        with_value("d0", "routing", "configuration", "running"),
        {"running configuration"},
    ),
    "another router id": (with_value("192.0.2.1", "routing", "router_id"), {"router id"}),
    "a session that is down": (
        with_value("Active", "routing", "sessions", "rr1_public", "state"),
        {"session rr1_public", "path a has a session for public"},
    ),
    "a session too many": (
        with_value(
            {"state": "Idle", "info": "", "error": "", "channels": {}}, "routing", "sessions", "other"
        ),
        {"session other"},
    ),
    "a prefix too few": (
        with_value(4, "routing", "sessions", "rr2_public", "channels", "ipv4", "routes", "imported"),
        {"received rr2_public ipv4"},
    ),
    "a prefix that was refused": (
        with_value(1, "routing", "sessions", "rr2_public", "channels", "ipv4", "routes", "filtered"),
        {"received rr2_public ipv4"},
    ),
    "a prefix of another hypervisor's guest": (
        with_value(
            [{"prefix": "203.0.113.9/32", "reason": 5}],
            *("routing", "sessions", "rr2_public", "channels", "ipv4", "refused"),
        ),
        {"announcement rr2 public 203.0.113.9/32"},
    ),
    "a limit": (
        with_value(
            ["import limit of 128 (131 now)"],
            "routing",
            "sessions",
            "rr2_public",
            "channels",
            "ipv4",
            "limits",
        ),
        {"limit rr2_public ipv4"},
    ),
    "a prefix too many": (
        with_value(9, "routing", "sessions", "rr2_public", "channels", "ipv6", "routes", "exported"),
        {"sent rr2_public ipv6"},
    ),
    "a channel that is down": (
        with_value("DOWN", "routing", "sessions", "rr2_public", "channels", "ipv6", "state"),
        {"received rr2_public ipv6", "sent rr2_public ipv6"},
    ),
    "BFD that is down": (with_value("Down", "routing", "bfd", 0, "state"), {"bfd rr1 a public"}),
    "BFD that is slower": (with_value("0.300", "routing", "bfd", 0, "interval"), {"bfd rr1 a public"}),
    "no lease": (with_value(None, "offers", "vm1", "lease"), {"lease vm1"}),
    "another lease": (with_value("203.0.113.9", "offers", "vm1", "lease", "address"), {"lease vm1"}),
    "no router": (with_value(None, "offers", "vm2", "router"), {"ra vm2"}),
    "a router that is none": (with_value(0, "offers", "vm2", "router", "lifetime"), {"ra vm2"}),
    "a route over an interface that does not lead there": (
        with_value(["203.0.113.3/32 via 198.51.100.2 dev b-public"], "learned", "public4", "misdirected"),
        {"learned routes in public ipv4"},
    ),
    "learned routes without the preferred source": (
        with_value({"metric 32": 2}, "learned", "local_out4", "attributes"),
        {"learned routes in local-out ipv4"},
    ),
}


def chain(policy: str = "accept", *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"hook": "forward", "type": "filter", "policy": policy, "devices": None}
    return {**base, "rules": list(rules), **more}


def does(verdict: str, *interfaces: list[Any], asks_more: bool = False, target: str | None = None) -> Any:
    asks = {"selects": [], "asks_more": asks_more, "asks_unknown": asks_more}
    return {"interfaces": list(interfaces), **asks, "verdict": verdict, "target": target}


OTHERS: dict[str, tuple[dict[str, Any], str | None]] = {
    "Docker's policy": ({"FORWARD": chain("drop", does("accept", asks_more=True))}, "failed"),
    "Docker's policy with an exception for guests": (
        {"FORWARD": chain("drop", does("accept", ["iif", "==", "vm*"]))},
        "warning",
    ),
    "everything dropped": ({"FORWARD": chain("accept", does("drop"))}, "failed"),
    "everything dropped in a chain that is jumped to": (
        {
            "FORWARD": chain("accept", does("jump", target="NONE")),
            "NONE": chain("accept", does("reject"), hook=None),
        },
        "failed",
    ),
    "one guest dropped": ({"FORWARD": chain("accept", does("drop", ["iif", "==", "vm1"]))}, "failed"),
    "others' interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "==", "docker0"]))},
        None,
    ),
    "all but the others' interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "!=", "docker0"]))},
        "failed",
    ),
    "some addresses dropped": ({"FORWARD": chain("accept", does("drop", asks_more=True))}, "warning"),
    "everything of a device that is not ours": (
        {"in": chain("drop", hook="ingress", devices=["eth9"])},
        None,
    ),
    "everything of devices that are not ours": (
        {"in": chain("drop", hook="ingress", devices=["eth9", "docker*"])},
        None,
    ),
    "everything of an uplink": ({"in": chain("drop", hook="ingress", devices=["a-public"])}, "failed"),
    "everything of an uplink and another device": (
        {"in": chain("drop", hook="ingress", devices=["eth9", "a-public"])},
        "failed",
    ),
    "what the host itself receives": ({"INPUT": chain("drop", hook="input")}, None),
    "a chain that only counts": ({"FORWARD": chain()}, None),
    "a set of guests dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "==", ["vm1", "vm2"]]))},
        "failed",
    ),
    "all but a set of the fabric's interfaces dropped": (
        {"FORWARD": chain("accept", does("drop", ["iif", "!=", ["vm*", "a-*", "b-*"]]))},
        None,
    ),
    "Docker's policy with a rule that is not understood": (
        {"FORWARD": chain("drop", does("unread", asks_more=True))},
        "warning",
    ),
    "a rule that is not understood": (
        {"FORWARD": chain("accept", does("unread", asks_more=True))},
        "warning",
    ),
    "one for others' interfaces that is not understood": (
        {"FORWARD": chain("accept", does("unread", ["iif", "==", "docker0"], asks_more=True))},
        None,
    ),
}


def nat(hook: str, *rules: dict[str, Any], **chains: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the chains of a translating table: a base chain, and chains to which it jumps."""
    more = {name: chain("accept", *theirs, hook=None, type=None) for name, theirs in chains.items()}
    return {"NAT": chain("accept", *rules, hook=hook, type="nat"), **more}


def asks(rule: dict[str, Any], *selects: list[Any]) -> dict[str, Any]:
    return {**rule, "selects": list(selects), "asks_more": True}


CONTAINERS = ["saddr", "==", ["172.17.0.0/16"]]
LOCAL = ["type", "==", ["local"]]
BGP = (["protocol", "==", ["tcp"]], ["dport", "==", ["179"]])
WEB = (["protocol", "==", ["tcp"]], ["dport", "==", ["80", "443-445"]])
UDP = (["protocol", "==", ["udp"]],)
IPV4, IPV6 = ["nfproto", "==", ["ipv4"]], ["nfproto", "==", ["ipv6"]]
BEYOND = ["oif", "!=", "docker0"]
FILTER = LAB["hv1"].packet_filter
GUESTS4 = [source[1] for source in (*FILTER.sources4, *FILTER.source_prefixes4)]
BUT_GUESTS = (["saddr", "!=", GUESTS4], ["daddr", "!=", GUESTS4])


def on_devices(hook: str, *devices: str) -> dict[str, Any]:
    """Return a chain that rewrites all packets on some devices."""
    return {"SET": chain("accept", does("rewrite"), hook=hook, devices=list(devices))}


TRANSLATING: dict[str, tuple[dict[str, Any], str | None]] = {
    "everything masqueraded": (nat("postrouting", does("masquerade")), "failed"),
    "what leaves by an uplink": (
        nat("postrouting", does("masquerade", ["oif", "==", "a-public"])),
        "failed",
    ),
    "one guest's address": (
        nat("postrouting", asks(does("snat"), ["saddr", "==", ["203.0.113.1"]])),
        "failed",
    ),
    "a prefix around a guest's address": (
        nat("prerouting", asks(does("dnat"), ["daddr", "==", ["203.0.113.0-203.0.113.7"]])),
        "failed",
    ),
    "a guest's web": (nat("prerouting", asks(does("redirect", ["iif", "==", "vm1"]), *WEB)), "failed"),
    "everybody's web": (nat("prerouting", asks(does("redirect"), *WEB)), "failed"),
    "a guest's questions to one address": (
        nat("prerouting", asks(does("dnat", ["iif", "==", "vm1"]), ["daddr", "==", ["192.0.2.53"]])),
        "failed",
    ),
    "received BGP": (nat("prerouting", asks(does("redirect"), LOCAL, *BGP)), "failed"),
    "sent BGP": (nat("output", asks(does("dnat"), *BGP)), "failed"),
    "in a chain that is jumped to": (
        nat("postrouting", does("jump", target="MORE"), MORE=[does("masquerade")]),
        "failed",
    ),
    "marked packets": (nat("postrouting", does("masquerade", asks_more=True)), "warning"),
    "what comes after an unknown exception": (
        nat("postrouting", does("return", asks_more=True), does("masquerade")),
        "warning",
    ),
    "what comes after an exception for a guest": (
        nat("postrouting", does("accept", ["iif", "==", "vm1"]), does("masquerade")),
        "failed",
    ),
    "a field of a packet in a chain of another type": (
        {"SET": chain("accept", does("rewrite", ["iif", "==", "vm1"]), hook="prerouting")},
        "failed",
    ),
    "a port of BGP where it is sent": (
        {"SET": chain("accept", asks(does("rewrite"), *BGP), hook="output", type="route")},
        "failed",
    ),
    "a port of BGP where it is received": (
        {"SET": chain("accept", asks(does("rewrite"), *BGP), hook="input")},
        "failed",
    ),
    "what comes in by an uplink": (on_devices("ingress", "eth9", "a-public"), "failed"),
    "what comes in by a guest's port": (on_devices("ingress", "vm*"), "failed"),
    "what goes out by an uplink": (on_devices("egress", "a-public"), "failed"),
    "what comes in by a device of others": (on_devices("ingress", "docker0"), None),
    "what goes out by a device of others": (on_devices("egress", "docker0", "eth9"), None),
    "IPv4 but what guests have": (
        nat("postrouting", asks(does("masquerade"), IPV4, *BUT_GUESTS, *UDP)),
        None,
    ),
    "IPv6 but what guests do not have": (
        nat("postrouting", asks(does("masquerade"), IPV6, ["saddr", "!=", ["fd00::/8"]], *UDP)),
        "failed",
    ),
    "the web of a set of guests": (
        nat("prerouting", asks(does("redirect", ["iif", "==", ["vm1", "docker0"]]), *WEB)),
        "failed",
    ),
    "all after a set of the fabric's interfaces was accepted": (
        nat("postrouting", does("accept", ["iif", "==", ["vm*", "a-*", "b-*"]]), does("masquerade")),
        None,
    ),
    "an IPv6 prefix": (
        {"M": chain("accept", asks(does("snpt"), IPV6), hook="postrouting")},
        "failed",
    ),
    "a rule that is not understood": (
        nat("prerouting", does("unread", ["iif", "==", "vm1"], asks_more=True)),
        "warning",
    ),
    "what comes after a rule that is not understood": (
        nat("postrouting", does("unread", asks_more=True), does("masquerade")),
        "warning",
    ),
    "a mask that is no prefix": (
        nat("prerouting", asks(does("redirect"), ["saddr", "==", ["10.0.0.1/255.0.0.255"]])),
        "warning",
    ),
    "IPv4 and IPv6 together": (nat("postrouting", asks(does("masquerade"), IPV4, IPV6)), None),
    # Rules of Docker, podman, libvirt and Kubernetes.
    "containers' addresses": (nat("postrouting", asks(does("masquerade", BEYOND), CONTAINERS)), None),
    "containers' addresses by an uplink": (
        nat("postrouting", asks(does("masquerade", ["oif", "==", "a-public"]), CONTAINERS)),
        None,
    ),
    "containers' addresses in a chain that is jumped to": (
        nat(
            "postrouting",
            asks(does("jump", target="NETAVARK"), CONTAINERS),
            NETAVARK=[asks(does("masquerade"), ["daddr", "!=", ["224.0.0.0/4"]])],
        ),
        None,
    ),
    "a port of the host for a container": (
        nat(
            "prerouting",
            asks(does("jump", target="DOCKER"), LOCAL),
            DOCKER=[
                does("return", ["iif", "==", "docker0"]),
                asks(does("dnat", ["iif", "!=", "docker0"]), *WEB),
            ],
        ),
        None,
    ),
    "a service's address": (
        nat("prerouting", asks(does("dnat"), ["daddr", "==", ["192.168.96.1"]], *WEB)),
        None,
    ),
    "others' interfaces": (nat("prerouting", does("dnat", ["iif", "==", "docker0"])), None),
    "all after the fabric's interfaces were accepted": (
        nat(
            "postrouting",
            *(does("accept", ["iif", "==", name]) for name in ("vm*", "a-*", "b-*")),
            does("masquerade"),
        ),
        None,
    ),
}

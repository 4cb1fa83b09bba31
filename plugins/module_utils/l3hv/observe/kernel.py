"""The kernel's links, addresses, policy rules, neighbours and settings, and the whole network of a host."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from ansible.module_utils.l3hv.observe.files import read_text
from ansible.module_utils.l3hv.observe.netlink import IPRoute, nlmsg_base
from ansible.module_utils.l3hv.observe.plan import FAMILIES, Plan
from ansible.module_utils.l3hv.observe.routes import SCOPE_LINK, LearnedRoutes, read_tables

RULE_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
RULE_IS_INVERTED = 0x2
ADDRESS_IS_TENTATIVE = 0x40
ADDRESS_DAD_FAILED = 0x08
NEIGHBOR_IS_FIXED = 0x80 | 0x40  # NUD_PERMANENT, NUD_NOARP: the kernel never verifies the entry
# Settings of a guest port that must be on, besides the sysctls of the plan.
PORT_SETTINGS = {"ipv4": ("forwarding", "proxy_arp"), "ipv6": ("forwarding",)}


def read_links(netlink: IPRoute) -> dict[int, dict[str, Any]]:
    """Return all interfaces by index."""
    links = {}
    for link in netlink.get_links():
        info = link.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        links[link["index"]] = {
            "name": link.get_attr("IFLA_IFNAME"),
            "mac": link.get_attr("IFLA_ADDRESS"),
            "mtu": link.get_attr("IFLA_MTU"),
            "up": bool(link["flags"] & 1),
            "carrier": link.get_attr("IFLA_CARRIER") == 1,
            "kind": info.get_attr("IFLA_INFO_KIND") if info else None,
            "vlan": data.get_attr("IFLA_VLAN_ID") if data is not None and hasattr(data, "get_attr") else None,
            "parent": link.get_attr("IFLA_LINK"),
            "master": link.get_attr("IFLA_MASTER"),
        }
    for link in links.values():
        link["master"] = links[link["master"]]["name"] if link["master"] in links else None
        link["parent"] = links[link["parent"]]["name"] if link["parent"] in links else None
    return links


def read_addresses(netlink: IPRoute, links: dict[int, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the addresses of each interface, by its name."""
    addresses: dict[str, list[dict[str, Any]]] = {}
    for message in netlink.get_addr():
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        addresses.setdefault(links[message["index"]]["name"], []).append(
            {
                "address": f"{address}/{message['prefixlen']}",
                "is_link_scope": message["scope"] == SCOPE_LINK,
                "trouble": "duplicate" * bool(flags & ADDRESS_DAD_FAILED)
                or "tentative" * bool(flags & ADDRESS_IS_TENTATIVE),
            }
        )
    return addresses


VRF_TABLE = "[l3mdev-table]"
"""The table of the rule of VRFs, as ip-rule(8) prints it: that of the packet's VRF.

``l3hv.verify.values`` has the same name: this file runs on the host, without the package l3hv."""


def read_rules(netlink: IPRoute, family: int) -> list[dict[str, Any]]:
    """Return the policy rules of one family in the order of their priorities."""

    def prefix(message: nlmsg_base, end: str) -> str | None:
        address = message.get_attr(f"FRA_{end.upper()}")
        return f"{address}/{message[f'{end}_len']}" if address else None

    def port_range(message: nlmsg_base, end: str) -> str | None:
        found = message.get_attr(f"FRA_{end.upper()}_RANGE")
        if not found:
            return None
        first, last = found.split(":")
        return first if first == last else f"{first}-{last}"

    rules = []
    for message in netlink.get_rules(family=family):
        suppressed = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
        rules.append(
            {
                "priority": message.get_attr("FRA_PRIORITY") or 0,
                "action": RULE_ACTIONS.get(message["action"], str(message["action"])),
                "table": VRF_TABLE
                if message.get_attr("FRA_L3MDEV")
                else message.get_attr("FRA_TABLE") or message["table"],
                "iif": message.get_attr("FRA_IIFNAME"),
                "oif": message.get_attr("FRA_OIFNAME"),
                "source": prefix(message, "src"),
                "destination": prefix(message, "dst"),
                "mark": message.get_attr("FRA_FWMARK"),
                "mask": message.get_attr("FRA_FWMASK"),
                "suppress_prefixlength": None if suppressed in {None, 0xFFFFFFFF} else suppressed,
                "ip_protocol": message.get_attr("FRA_IP_PROTO"),
                "source_port": port_range(message, "sport"),
                "inverted": bool(message["flags"] & RULE_IS_INVERTED),
                "protocol": message.get_attr("FRA_PROTOCOL"),
            }
        )
    return sorted(rules, key=lambda rule: rule["priority"])


def is_group_mac(mac: str | None) -> bool:
    """Tell whether a MAC is a broadcast or multicast: the lowest bit of its first byte."""
    return mac is not None and mac != "" and bool(int(mac[:2], 16) & 1)


def read_wrong_neighbors(netlink: IPRoute, guests: dict[int, dict[str, Any]]) -> list[dict[str, str]]:
    """Return the fixed neighbours on guest ports that lead to another MAC than the guest's.

    ``guests`` are the guests with a port, by the index of the port. Learned entries are left out, because the
    kernel verifies them itself. Entries of multicast and broadcast addresses are left out, too.
    """
    return [
        {"guest": guest["name"], "address": str(address), "mac": mac or "no MAC"}
        for family in FAMILIES.values()
        for entry in netlink.get_neighbours(family=family)
        if entry["state"] & NEIGHBOR_IS_FIXED
        and (guest := guests.get(entry["ifindex"])) is not None
        and (mac := entry.get_attr("NDA_LLADDR")) != guest["mac"]
        and not is_group_mac(mac)
        and (address := entry.get_attr("NDA_DST")) is not None
        and not ip_interface(address).ip.is_multicast
    ]


def sysctl_path(key: str) -> str:
    """Return the file of a setting in the syntax of sysctl.d(5): ``/`` in a dotted key stands for a dot."""
    dot, slash = key.find("."), key.find("/")
    if slash == -1 or (dot != -1 and dot < slash):
        key = key.translate(str.maketrans("./", "/."))
    return f"/proc/sys/{key}"


def read_port_settings(interface: str) -> dict[str, str]:
    """Return the settings of a guest port, such as ``ipv4 forwarding``."""
    paths = {
        f"{family} {name}": f"/proc/sys/net/{family}/conf/{interface}/{name}"
        for family, names in PORT_SETTINGS.items()
        for name in names
    }
    return {name: value for name, path in paths.items() if (value := read_text(path)) is not None}


def read_sysctls(plan: Plan) -> dict[str, str | None]:
    """Return the values of the plan's settings; None for a setting that the kernel does not have."""
    return {sysctl["key"]: read_text(sysctl_path(sysctl["key"])) for sysctl in plan["sysctls"]}


def learned_digests(plan: Plan) -> dict[str, str]:
    """Return the digests of the learned routes, by BIRD table."""
    with IPRoute() as netlink:
        links = read_links(netlink)
    return {name: f"{table.digest:032x}" for name, table in read_tables(plan, links, {})[1].items()}


@dataclass(frozen=True)
class Kernel:
    """The network of a host in the kernel; the keys of links and addresses are interface names.

    ``indexes`` are the numbers of all links.  ``routes`` and ``learned`` are results of :func:`read_tables`,
    ``neighbors`` of :func:`read_wrong_neighbors`.
    """

    links: dict[str, dict[str, Any]]
    indexes: dict[str, int]
    addresses: dict[str, list[dict[str, Any]]]
    rules: dict[str, list[dict[str, Any]]]
    routes: dict[str, list[dict[str, Any]]]
    learned: dict[str, LearnedRoutes]
    neighbors: list[dict[str, str]]

    def existing(self, names: set[str]) -> list[str]:
        """Return the names in ``names`` that are links of the host, sorted."""
        return sorted(names & self.links.keys())

    def links_like_ports(self, plan: Plan) -> set[str]:
        """Return the links of any name that have the MAC or an address of a guest port."""
        gateways = {
            address
            for guest in plan["guests"]
            for address in guest["gateways"]
            if not address.startswith("fe80:")
        }
        macs = {guest["gateway_mac"] for guest in plan["guests"]}
        return {
            name
            for name, link in self.links.items()
            if link["mac"] in macs
            or gateways & {address["address"] for address in self.addresses.get(name, ())}
        }


def read_kernel(plan: Plan) -> Kernel:
    """Return the network of the host of ``plan``."""
    with IPRoute() as netlink:
        links = read_links(netlink)
        addresses = read_addresses(netlink, links)
        rules = {family: read_rules(netlink, number) for family, number in FAMILIES.items()}
        indexes = {link["name"]: index for index, link in links.items()}
        plugged = {
            indexes[guest["interface"]]: guest for guest in plan["guests"] if guest["interface"] in indexes
        }
        neighbors = read_wrong_neighbors(netlink, plugged) if plugged else []
    on_link = {
        name: [ip_interface(address["address"]).network for address in here]
        for name, here in addresses.items()
    }
    routes, learned = read_tables(plan, links, on_link)
    by_name = {link["name"]: link for link in links.values()}
    return Kernel(by_name, indexes, addresses, rules, routes, learned, neighbors)

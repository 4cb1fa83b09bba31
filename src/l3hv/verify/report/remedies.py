"""The remedy of each kind of check: the commands or actions for a difference."""

from __future__ import annotations

from l3hv.model.addressing import family_of_text
from l3hv.model.choices import DaemonName, Family
from l3hv.verify import subjects
from l3hv.verify.check import AnnouncedBy, Check, InTwin, Kind, OfUnseenGuests, SentTo, Unanswered
from l3hv.verify.foreign import UNREAD
from l3hv.verify.values import LeasedAddress, Rewrites, Value

UNSEEN = "a guest of a host that was not looked at may not be started, or on its way to another"
UNANSWERED = "systemctl status {0}; journalctl -u {0}; systemctl restart {0} restarts a daemon that hangs"
LISTINGS = {Kind.CHAIN, Kind.FOREIGN_CHAIN, Kind.FOREIGN_TABLE}
"""Kinds whose remedies begin with the command that lists the rules of other programs."""

PORT = "networkctl reconfigure the interface; remove a port without a guest in the plan by hand"

IP: dict[Family | None, str] = {"ipv4": "ip", "ipv6": "ip -6"}
"""The command of iproute2 for the routes of a family."""

REMEDIES: dict[Kind, str] = {
    Kind.SESSION: "birdc show protocols all {name}, and the same on the neighbour",
    Kind.PATH: "look at the sessions on this path",
    Kind.UNKNOWN_CALLER: "if it is a host that has left the inventory, stop its BIRD; its guests are cut off",
    Kind.BFD: "birdc show bfd sessions; ping the neighbour on this path",
    Kind.IGP_NEIGHBORS: "birdc show bfd sessions; birdc show rip neighbors, or show ospf neighbors",
    Kind.RECEIVED: "{birdc} show route protocol {session}, and what the neighbour sends",
    Kind.SENT: "{birdc} show route export {session}",
    Kind.ANNOUNCEMENT: "find out why {announcer} announces this; in the inventory it is not its own",
    Kind.LIMIT: "find out why it announces so much, or raise l3hv_prefix_limit; see docs/intent.md",
    Kind.LEARNED: "{ip} route show table {domain}; {birdc} show route count",
    Kind.ROUTE: "networkctl reconfigure the interface; remove a route of another program by hand",
    Kind.LAST_RESORT: "systemctl reload l3hv-tables",
    Kind.DEFAULT_ROUTE: "remove the route, or set l3hv_main_default_route: true if it is intended",
    Kind.RULES: "systemctl reload l3hv-tables; remove a rule of another program by hand",
    Kind.FOREIGN_RULES: "they affect no packets of the fabric; remove them only if no program needs them",
    Kind.FOREIGN_CHAIN: "{listing}; add an exception for the fabric's interfaces",
    Kind.FOREIGN_TABLE: "{listing}; look there for what drops or rewrites the fabric's packets",
    Kind.PACKET_FILTER: "systemctl reload l3hv-nftables",
    Kind.CHAIN: "{listing}; accept the fabric's interfaces there, or remove it",
    Kind.SET: "systemctl reload l3hv-nftables; nft --check refuses the file if it cannot be loaded",
    Kind.DROPS: "systemctl reload l3hv-nftables",
    Kind.SYSCTL: "sysctl --system",
    Kind.UNIT: "systemctl status {name}; journalctl -u {name}",
    Kind.UNIT_SETTINGS: "run site.yml; if that does not help, `systemctl cat {name}` shows the drop-in that"
    " changes the setting: remove it there",
    Kind.LISTENERS: "ss -lnup; ss -lntp; ss -lnwp",
    Kind.OTHER_LISTENERS: "ss -lnup; ss -lntp; ss -lnwp",
    Kind.CONFIGURATION: "run site.yml: it loads the configuration, and undoes a change by hand",
    Kind.SERVICE_CONFIGURATION: "run site.yml: it loads the configuration, and undoes a change by hand",
    Kind.ROUTER_ID: "run site.yml",
    Kind.LINK: "networkctl status {name}",
    Kind.SIZE: "ping -M do -s SIZE the neighbour on path {path}; look at the MTU of the switches between",
    Kind.NETWORKD: "networkctl status {name}; journalctl -u systemd-networkd",
    Kind.ADDRESSES: "networkctl reconfigure {name}",
    Kind.LOOPBACK: "networkctl reconfigure lo",
    Kind.GUEST: "start the guest, or remove it from the inventory",
    Kind.PORT_LINK: PORT,
    Kind.PORT_MAC: PORT,
    Kind.PORT_ADDRESSES: PORT,
    Kind.PORT_SETTING: PORT,
    Kind.STRAY_PORT: PORT,
    Kind.MAC: "correct the guest's MAC in the inventory, or in the guest",
    Kind.NEIGHBOR: "ip neighbor delete {address} dev PORT",
    Kind.TRANSLATION: "systemctl reload l3hv-nftables",
    Kind.LEASE: "journalctl -u l3hv-dhcp",
    Kind.ADVERTISEMENT: "journalctl -u radvd",
}

RELAYED = "journalctl -u l3hv-dhcp-relay; look at the log and the guests of the DHCP servers"
"""The remedy of a lease that servers elsewhere offer."""

REWRITING = "{listing}; put a rule before it that accepts the fabric's packets"
"""The remedy of a chain that rewrites packets."""

FRR_REMEDIES = {
    Kind.CONFIGURATION: "/usr/local/lib/l3hv/frr-sync in-force shows the difference; run site.yml",
    Kind.ROUTER_ID: "run site.yml",
    Kind.SESSION: "vtysh -c 'show bgp view VIEW neighbors', and the session on the neighbour",
    Kind.BFD: "vtysh -c 'show bfd peers'; ping the neighbour on this path",
    Kind.RECEIVED: "vtysh -c 'show bgp view VIEW neighbors NEIGHBOR routes', and what the neighbour sends",
    Kind.SENT: "vtysh -c 'show bgp view VIEW neighbors NEIGHBOR advertised-routes'",
}
GOBGP_REMEDIES = {
    Kind.CONFIGURATION: "/usr/local/lib/l3hv/gobgp-sync in-force shows the difference; run site.yml",
    Kind.ROUTER_ID: "run site.yml",
    Kind.SESSION: "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor,"
    " and the session on the neighbour",
    Kind.RECEIVED: "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor NEIGHBOR adj-in",
    Kind.SENT: "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor NEIGHBOR adj-out",
}
REMEDIES_OF: dict[DaemonName | None, dict[Kind, str]] = {"frr": FRR_REMEDIES, "gobgp": GOBGP_REMEDIES}
"""The remedies that replace those for BIRD on hosts with another daemon."""


def remedy(check: Check) -> str:
    """Return the remedy of a check; a check of packets has a text also if it is ok."""
    match check.context, check.subject:
        case SentTo(address), subjects.EchoRequest(source):
            return f"{address} from {source}"
        case InTwin(twin), subjects.GuestFamily(guest):
            return f"./twin --name {twin} guest {guest} -- ip address"
        case Unanswered(unit), _:
            return UNANSWERED.format(unit.removesuffix(".service"))
        case OfUnseenGuests(), _:
            return UNSEEN
        case AnnouncedBy(owners, unseen), subjects.Route(prefix, table):
            more = UNSEEN if unseen else f"{IP[family_of_text(prefix)]} route show {prefix} table {table}"
            return f"announced by {', '.join(owners) or 'no host'}; {more}"
    return "" if check.state == "ok" else _of_kind(check)


def _of_kind(check: Check) -> str:
    if check.kind is Kind.OBSERVATION:
        return f"the error of this host above, or ansible -m ping {check.host}"
    remedies = REMEDIES | REMEDIES_OF.get(check.daemon, {})
    text = remedies.get(check.kind, "")
    if check.kind in LISTINGS:
        return (REWRITING if _rewrites(check.found) else text).format(listing=_listing(check.subject))
    if isinstance(check.expected, LeasedAddress):
        return RELAYED
    fields = vars(check.subject)
    family = fields.get("family")
    birdc = "birdc6" if (check.daemon, family) == ("bird1", "ipv6") else "birdc"
    return text.format(**fields, ip=IP.get(family, "ip"), birdc=birdc)


def _rewrites(found: Value | None) -> bool:
    """Tell whether a chain certainly rewrites packets; such a rule is its first effect."""
    match found:
        case (Rewrites((first, *_)), *_):
            return first.rule.verdict != UNREAD
    return False


def _listing(subject: subjects.Subject) -> str:
    """Return the command that lists a table of other programs, or one of its chains.

    >>> _listing(subjects.Chain("ip", "nat", "POSTROUTING"))
    'nft list chain ip nat POSTROUTING'
    >>> _listing(subjects.FilterTable("iptables-legacy", "nat"))
    'iptables-legacy -t nat -S'
    """
    match subject:
        case subjects.FilterTable("nft"):
            return "nft list ruleset"  # nothing was read
        case subjects.FilterTable(family, table):
            if family.endswith("-legacy"):
                return f"{family} -t {table} -S"
            return f"nft list table {family} {table}"
        case subjects.Chain(family, table, chain):
            if family.endswith("-legacy"):
                return f"{family} -t {table} -S {chain}"
            return f"nft list chain {family} {table} {chain}"
    raise TypeError(subject)

"""Names of tables, sessions and policies in BIRD and in the kernel."""

from __future__ import annotations

import re

from l3hv.model.choices import Announcer, Family

LOCAL_OUT = "local-out"
"""The name of the kernel table that a hypervisor's own IPv4 traffic uses."""

CLIENTS = "clients"
"""The neighbour's name in sessions with any client of a range; no host can have this name."""

SHARED = "shared"
"""The domain's name in sessions and tables that carry all domains; no domain can have this name."""

LONGEST_SYMBOL = 64
"""Maximum number of characters in a symbol of BIRD, in every version from 2.0 on."""

_NOT_IN_SYMBOLS = re.compile(r"[^A-Za-z0-9_]")


def bird_symbol(name: str) -> str:
    """Return a host's or domain's name in the characters that BIRD allows in a symbol.

    >>> bird_symbol("hv-1.example.net"), bird_symbol("10hv")
    ('hv_1_example_net', '_10hv')
    """
    symbol = _NOT_IN_SYMBOLS.sub("_", name)
    return f"_{symbol}" if symbol[0].isdigit() else symbol


def bird_table(domain: str, family: Family) -> str:
    """Return the name of the BIRD table of a domain in one family.

    >>> bird_table("public", "ipv6"), bird_table("local-out", "ipv4")
    ('public6', 'local_out4')
    """
    return f"{bird_symbol(domain)}{4 if family == 'ipv4' else 6}"


def shared_table(family: Family) -> str:
    """Return the name of the BIRD table between the shared sessions and the domains' tables in one family.

    >>> shared_table("ipv4")
    'shared4'
    """
    return bird_table(SHARED, family)


def igp_name(domain: str, family: Family) -> str:
    """Return the name of the IGP's instance of a domain in one family.

    >>> igp_name("public", "ipv4")
    'igp_public4'
    """
    return f"igp_{bird_table(domain, family)}"


def igp_table(family: Family) -> str:
    """Return the name of the BIRD table of all loopbacks in one family; no domain can have this name.

    >>> igp_table("ipv6")
    'igp6'
    """
    return f"igp{4 if family == 'ipv4' else 6}"


def spread_table(domain: str, family: Family) -> str:
    """Return the name of the BIRD table of routes to other holders of a domain's anycast, in one family.

    >>> spread_table("public", "ipv4")
    'public4_spread'
    """
    return f"{bird_table(domain, family)}_spread"


def policy_name(table: str, neighbors: Announcer) -> str:
    """Return the name of a table's import policy for one kind of neighbours."""
    return f"accept_{table}_from_{neighbors}"


def own_policy_name(table: str, hypervisor: str) -> str:
    """Return the name of a table's import policy for one hypervisor.

    >>> own_policy_name("public4", "hv-1")
    'accept_public4_of_hv_1'
    """
    return f"accept_{table}_of_{bird_symbol(hypervisor)}"


def spread_name(domain: str) -> str:
    """Return the name of the kernel table of routes to other holders of a domain's anycast.

    >>> spread_name("public")
    'public-spread'
    """
    return f"{domain}-spread"


_TUNNEL_DEVICES: dict[Family, str] = {"ipv4": "ipip", "ipv6": "ip6"}

FALLBACK_DEVICES: dict[Family, str] = {"ipv4": "tunl0", "ipv6": "ip6tnl0"}
"""The tunnel devices that the kernel's modules make themselves."""


def tunnel_device(path: str, domain: str, family: Family) -> str:
    """Return the default name of the tunnel device to the hosts of a path in one domain.

    >>> tunnel_device("a", "public", "ipv4"), tunnel_device("a", "public", "ipv6")
    ('ipip-a-public', 'ip6-a-public')
    """
    return f"{_TUNNEL_DEVICES[family]}-{path}-{domain}"


def next_hop_table(family: Family) -> str:
    """Return the name of the BIRD table in which next hops behind tunnels are looked up.

    >>> next_hop_table("ipv4")
    'next_hops4'
    """
    return bird_table("next_hops", family)


VRF_RULE_PRIORITY = 1000
"""The priority of the rule ``l3mdev`` that the kernel adds with the first VRF (Linux 4.8)."""

"""Names that BIRD and the kernel have for tables, sessions and policies."""

from __future__ import annotations

import re

from l3hv.model.choices import Announcer, Family

LOCAL_OUT = "local-out"
"""The name of the kernel table that a hypervisor's own IPv4 traffic uses."""

CLIENTS = "clients"
"""What stands for all clients of a range where a neighbour has its name; no host can be called so."""

SHARED = "shared"
"""What stands for all domains where a domain has its name; no domain can be called so."""

LONGEST_SYMBOL = 64
"""Characters in a symbol of BIRD, in every version from 2.0 on."""

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


def spread_table(domain: str, family: Family) -> str:
    """Return the name of the BIRD table of other holders of a domain's anycast in one family.

    >>> spread_table("public", "ipv4")
    'public4_spread'
    """
    return f"{bird_table(domain, family)}_spread"


def policy_name(table: str, neighbors: Announcer) -> str:
    """Return the name of the import policy of a table for neighbours of one kind."""
    return f"accept_{table}_from_{neighbors}"


def own_policy_name(table: str, hypervisor: str) -> str:
    """Return the name of the import policy of a table for one hypervisor alone.

    >>> own_policy_name("public4", "hv-1")
    'accept_public4_of_hv_1'
    """
    return f"accept_{table}_of_{bird_symbol(hypervisor)}"


def spread_name(domain: str) -> str:
    """Return the name of the kernel table of other holders of a domain's anycast.

    >>> spread_name("public")
    'public-spread'
    """
    return f"{domain}-spread"

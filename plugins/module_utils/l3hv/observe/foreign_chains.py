"""Tables of other programs with chains that packets of guests or of BGP sessions pass."""

from __future__ import annotations

import re
from typing import Any

from ansible.module_utils.l3hv.observe.files import read_lines
from ansible.module_utils.l3hv.observe.foreign_rules import ODD_SHAPES, legacy_chains, rules_of_other
from ansible.module_utils.l3hv.observe.nft import nft_objects
from ansible.module_utils.l3hv.observe.programs import NoAnswerInTime, run_query

OWN_NFTABLES = {"l3hv", "l3hv_frr_gate"}
HOOKS_OF_GUESTS = {
    "inet": ("ingress", "prerouting", "forward", "postrouting"),
    "ip": ("prerouting", "forward", "postrouting"),
    "ip6": ("prerouting", "forward", "postrouting"),
    "arp": ("input", "output"),
    "netdev": ("ingress", "egress"),
}
"""The hooks, by family of table, at which packets of guests pass chains of other programs."""

HOOKS_OF_SESSIONS = ("input", "output")
"""The hooks at which packets of the host's own BGP sessions pass a chain of family inet, ip or ip6."""

LEGACY_TABLES = {"filter", "mangle", "nat", "raw", "security"}
RULES_OF_OTHERS = 2000
"""Maximum number of rules to read: a host may have tens of thousands for its containers."""


def is_passed(chain: dict[str, Any]) -> bool:
    """Tell whether packets of guests or of sessions pass a chain, an object of nft's JSON."""
    is_of_sessions = chain["family"] in {"inet", "ip", "ip6"} and chain.get("hook") in HOOKS_OF_SESSIONS
    is_of_guests = chain.get("hook") in HOOKS_OF_GUESTS.get(chain["family"], ())
    return chain.get("type") in {"filter", "nat", "route"} and (is_of_guests or is_of_sessions)


def devices_of(chain: dict[str, Any]) -> list[str] | None:
    """Return the names or patterns of the interfaces of a chain; None for a chain without devices.

    The JSON of nft 1.0 lacks them, so they are read from its text output.
    """
    devices = chain.get("dev")
    if devices is None and chain.get("hook") in {"ingress", "egress"}:
        command = ["nft", "--terse", "list", "chain", chain["family"], chain["table"], chain["name"]]
        try:
            found = re.search(r" devices? (?:= \{ )?(.+?)(?: \})? priority ", run_query(command).stdout)
        except (OSError, NoAnswerInTime):
            return None
        devices = re.findall(r'[^\s,"]+', found[1]) if found else None
    return [devices] if isinstance(devices, str) else devices


def is_dormant(table: dict[str, Any]) -> bool:
    """Tell whether a table has the flag ``dormant``: the kernel ignores its rules.

    The JSON of nft 1.0 shows only that a table has flags, so they are read from its text output.
    """
    if "flags" not in table:
        return False
    try:
        listing = run_query(["nft", "--terse", "list", "table", table["family"], table["name"]]).stdout
    except (OSError, NoAnswerInTime):
        return False
    found = re.search(r"^\s+flags (.+)$", listing, re.MULTILINE)
    return found is not None and "dormant" in re.split(r"[\s,;]+", found[1])


def read_table_of_other(family: str, table: str, most: int) -> tuple[dict[str, Any] | None, int]:
    """Return a table of another program, and the number of rules that were read; None for a dormant table."""
    chains: dict[str, dict[str, Any]] = {}
    unread, left = None, most
    try:
        listing = nft_objects("--terse", "list", "table", family, table)
        if any(kind == "table" and is_dormant(entry) for kind, entry in listing):
            return None, 0
        unread = None if listing else "`nft --json list` shows nothing of it"
        for kind, entry in listing:
            if kind == "chain":
                chains[entry["name"]] = {
                    "hook": entry["hook"] if is_passed(entry) else None,
                    "type": entry.get("type"),
                    "policy": entry.get("policy", "accept"),
                    "devices": devices_of(entry),
                    "rules": [],
                }
            elif kind == "rule" and not left:
                unread = f"not all rules were read: only the first {RULES_OF_OTHERS} of all tables are"
            elif kind == "rule":
                left -= 1
                chains[entry["chain"]]["rules"] += rules_of_other(entry.get("expr", []))
    except NoAnswerInTime as error:
        unread = str(error)
    except ODD_SHAPES as error:
        unread = f"`nft --json list` was not understood ({type(error).__name__}: {error})"
    return {"family": family, "table": table, "chains": chains, "unread": unread}, most - left


def read_chains_of_others() -> list[dict[str, Any]]:
    """Return the tables of other programs with a chain that packets of guests or of sessions pass.

    The shape is::

        [{"family": "ip", "table": "filter",
          "chains": {"FORWARD": {"hook": "forward", "type": "filter", "policy": "drop", "devices": None,
                                 "rules": [{"interfaces": [["iif", "==", "docker0"]],
                                            "selects": [["daddr", "==", ["192.0.2.0/24"]]],
                                            "asks_more": True, "asks_unknown": False,
                                            "verdict": "jump", "target": "DOCKER"}]}},
          "unread": None}]

    ``unread`` is a sentence if a table, or a part of it, was not read.
    """
    try:
        passed = passed_tables()
    except NoAnswerInTime as error:
        return [{"family": "nft", "table": "ruleset", "chains": {}, "unread": str(error)}]
    except ODD_SHAPES as error:
        unread = f"`nft --json list chains` was not understood ({type(error).__name__}: {error})"
        return [{"family": "nft", "table": "ruleset", "chains": {}, "unread": unread}]
    return [*nft_tables(passed), *legacy_tables()]


def passed_tables() -> dict[tuple[str, str], bool]:
    """Return the tables of nft that packets pass, (family, name) → whether these are packets of guests."""
    passed: dict[tuple[str, str], bool] = {}
    for kind, chain in nft_objects("--terse", "list", "chains"):
        if kind == "chain" and is_passed(chain) and chain["table"] not in OWN_NFTABLES:
            key = chain["family"], chain["table"]
            is_of_guests = chain["hook"] in HOOKS_OF_GUESTS[chain["family"]]
            passed[key] = passed.get(key, False) or is_of_guests
    return passed


def nft_tables(passed: dict[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """Return the content of the tables of :func:`passed_tables`, together at most RULES_OF_OTHERS rules."""
    tables = []
    left = RULES_OF_OTHERS
    # Tables that guests pass come first: the rules of a host's own firewall must not use up the limit.
    for family, name in sorted(passed, key=lambda key: (not passed[key], key)):
        table_of_other, count = read_table_of_other(family, name, left)
        left -= count
        if table_of_other is not None:
            tables.append(table_of_other)
    return tables


def legacy_tables() -> list[dict[str, Any]]:
    """Return the tables of iptables-legacy that are in use.

    Listing another one would load its kernel module.
    """
    tables = []
    for names, program in (
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ):
        for table in sorted(LEGACY_TABLES.intersection(read_lines(names))):
            chains: dict[str, dict[str, Any]] = {}
            unread = None
            try:
                done = run_query([program, "-t", table, "-S"])
                chains = legacy_chains(done.stdout)
                unread = " ".join(done.stderr.split()) or "not listed" if done.returncode else None
            except (OSError, NoAnswerInTime, UnicodeDecodeError) as error:
                unread = str(error)
            for name, chain in chains.items():
                chain["type"] = "nat" if table == "nat" else "filter"
                if name in {"INPUT", "OUTPUT"} and table != "nat":
                    chain["hook"] = None
            tables.append({"family": program, "table": table, "chains": chains, "unread": unread})
    return tables

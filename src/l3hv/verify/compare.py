"""The difference between what is expected of a host and what was found."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from l3hv.model.choices import DaemonName
from l3hv.model.plan import HostPlan, RoutingTable
from l3hv.model.text import counted, natural_key
from l3hv.verify.check import NOTHING, Check, State
from l3hv.verify.expect import AT_LEAST, expectation, learned_name, routing_units
from l3hv.verify.fabric import Fabric, source_of
from l3hv.verify.find import (
    ABSENT,
    DEFAULTS,
    NO_PING,
    NOT_IN_KERNEL,
    OF_THE_MACHINE,
    OTHER_LISTENERS,
    WITHOUT_CARRIER,
    Observation,
    absent_guests,
    findings,
)

ROUTES_NAMED = 10
UNSEEN = "a guest of a host that was not looked at may not be started, or on its way to another"

UNANSWERED = "systemctl status {0}; journalctl -u {0}; systemctl restart {0} restarts a daemon that hangs"

REMEDIES = {
    "unit": "systemctl status {1}; journalctl -u {1}",
    "listeners": "ss -lnup; ss -lntp; ss -lnwp",
    "link": "networkctl status {1}",
    "networkd": "networkctl status {1}; journalctl -u systemd-networkd",
    "addresses": "networkctl reconfigure {1}",
    "loopback": "networkctl reconfigure lo",
    "rules": "systemctl reload l3hv-tables; a rule of somebody else has to be removed by hand",
    "foreign": "nothing of the fabric is looked up there; whoever made it knows what for",
    "foreign chain": "{listing}; add an exception for the fabric's interfaces",
    "foreign nftables": "{listing}; look there for what drops or rewrites the fabric's packets",
    "chain": "{listing}; accept the fabric's interfaces there, or remove it",
    "size": "ping -M do -s SIZE the reflector on path {1}; look at the MTU of the switches between",
    "stranger": "if it is a host that has left the inventory, stop its BIRD; its guests are cut off",
    "neighbor": "ip neighbor delete {2} dev PORT",
    "last": "systemctl reload l3hv-tables",
    "default": "remove the route, or say l3hv_main_default_route: true if it is meant",
    "sysctl": "sysctl --system",
    "route": "networkctl reconfigure the interface; a route of somebody else has to be removed by hand",
    "port": "networkctl reconfigure the interface; a port of no guest has to be removed by hand",
    "guest": "start the guest, or remove it from the inventory",
    "mac": "correct the guest's MAC in the inventory, or in the guest",
    "translation": "systemctl reload l3hv-nftables",
    "packet": "systemctl reload l3hv-nftables",
    "set": "systemctl reload l3hv-nftables; nft --check refuses the file if it cannot be loaded",
    "drops": "systemctl reload l3hv-nftables",
    "running": "birdc configure; run site.yml if the file was changed",
    "router": "birdc configure",
    "session": "birdc show protocols all {1}, and the same on the neighbour",
    "bfd": "birdc show bfd sessions; ping the neighbour on this path",
    "received": "birdc show route protocol SESSION, and what the neighbour sends",
    "sent": "birdc show route export SESSION",
    "announcement": "find out why {1} announces this; in the inventory it is not its own",
    "limit": "find out why it announces so much, or raise l3hv_prefix_limit; see docs/intent.md",
    "path": "look at the sessions with this path's reflectors",
    "learned": "birdc show route table TABLE; ip route show table TABLE",
    "lease": "journalctl -u l3hv-dhcp",
    "ra": "journalctl -u radvd",
}

REWRITING = "{listing}; put a rule before it that accepts the fabric's packets"

UNIT_SETTINGS = (
    "run site.yml; if that does not help, `systemctl cat {0}` shows the drop-in that changes the setting:"
    " remove it there"
)

FRR_REMEDIES = {
    "running": "/usr/local/lib/l3hv/frr/configuration in-force; run site.yml if the file was changed",
    "router": "run site.yml",
    "session": "vtysh -c 'show bgp view VIEW neighbors', and the session on the neighbour",
    "bfd": "vtysh -c 'show bfd peers'; ping the neighbour on this path",
    "received": "vtysh -c 'show bgp view VIEW neighbors NEIGHBOR routes', and what the neighbour sends",
    "sent": "vtysh -c 'show bgp view VIEW neighbors NEIGHBOR advertised-routes'",
}
GOBGP_REMEDIES = {
    "running": "/usr/local/lib/l3hv/gobgp in-force; run site.yml if the file was changed",
    "router": "run site.yml",
    "session": "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor, and the session on the neighbour",
    "received": "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor NEIGHBOR adj-in",
    "sent": "gobgp --target unix:///run/l3hv-gobgp-DOMAIN/api neighbor NEIGHBOR adj-out",
}
REMEDIES_OF: dict[DaemonName, dict[str, str]] = {"frr": FRR_REMEDIES, "gobgp": GOBGP_REMEDIES}
"""What to ask instead where another daemon than BIRD runs."""


def compare(plan: HostPlan, seen: Observation, fabric: Fabric, least: Fabric | None = None) -> list[Check]:
    """Return the checks of the host of ``plan``.

    ``least`` is the fabric without the guests of hosts that nobody looked at: what lies between the two is a
    warning, for their guests may not be started.
    """
    absent = absent_guests(plan, seen)
    expected = expectation(plan, fabric, absent)
    found = findings(plan, seen)
    at_least = functools.cache(lambda: expectation(plan, least or fabric, absent))
    routes: list[Check] = []
    for table in plan.routing.tables:
        listed = seen["learned"].get(table.name, {}).get("routes")
        if listed is not None:
            different = _different_routes(plan, table, listed, fabric, least or fabric)
            if all(check.ok for check in different):
                # Several choices of next hops, or guests that are not there, explain number and digest.
                what = learned_name(table)
                found[what] = ", ".join([*expected[what].split(", ")[:2], *found[what].split(", ")[2:]])
            routes += _first_ones(plan, table, different)
    silent = {f"unit {unit.removesuffix('.service')}": unit for unit in seen["silent"]}
    if "error" in seen["routing"]:
        silent["running configuration"] = routing_units(plan)[0]
    checks = []
    for what in [*expected, *(extra for extra in found if extra not in expected)]:
        if not _is_consequence(what, found):
            check = _check(plan, what, expected.get(what), found.get(what))
            if what in silent:
                check = replace(check, remedy=UNANSWERED.format(silent[what].removesuffix(".service")))
            if not check.ok and _lies_between(
                what, at_least().get(what), found.get(what), expected.get(what)
            ):
                check = replace(check, state="warning", remedy=UNSEEN)
            checks.append(check)
    return checks + routes


def patience(plan: HostPlan, fabric: Fabric) -> dict[str, Any]:
    """Return what a second look at a host should wait for: parameters of the module ``l3hv_observe``."""
    expected = expectation(plan, fabric, frozenset())
    received: dict[str, dict[str, int]] = {}
    for session in plan.routing.sessions:
        for channel in session.channels:
            count = expected[f"received {session.name} {channel.family}"]
            if not count.startswith(AT_LEAST):
                received.setdefault(session.name, {})[channel.family] = _number(count)
    learned = {
        table.name: fabric.total(plan, table).text
        for table in plan.routing.tables
        if table.kernel_table is not None
    }
    return {"learned": learned, "received": received}


def _lies_between(what: str, least: str | None, found: str | None, most: str | None) -> bool:
    """Tell whether a number of prefixes is one that the guests of unseen hosts can explain."""
    if not what.startswith(("received ", "sent ")) or least is None or found is None or most is None:
        return False
    return least != most and _number(least) <= _number(found) <= _number(most)


def _number(text: str) -> int:
    return int(text.removeprefix(AT_LEAST).split()[0])


def _check(plan: HostPlan, what: str, expected: str | None, found: str | None) -> Check:
    if found in {OF_THE_MACHINE, NO_PING} or what == OTHER_LISTENERS or _agrees(expected, found):
        return Check(plan.host, what, expected or "", found or "", "ok")
    is_warning = found == NOT_IN_KERNEL or (what.startswith("guest ") and found in {ABSENT, WITHOUT_CARRIER})
    is_warning = is_warning or what.startswith(("foreign ", "stranger "))
    return Check(
        plan.host,
        what,
        NOTHING if expected is None else expected,
        NOTHING if found is None else found,
        "warning" if is_warning else "failed",
        remedy(what, plan.routing.daemon.name, found or ""),
    )


def _agrees(expected: str | None, found: str | None) -> bool:
    if expected is not None and found is not None and expected.startswith(AT_LEAST):
        return _number(found) >= _number(expected)
    return expected == found


def remedy(what: str, daemon: DaemonName = "bird2", found: str = "") -> str:
    """Return what to look at or to do about a check that failed on a host that runs ``daemon``."""
    words = what.split()
    if words[0] == "unit" and words[-1] == "settings":
        return UNIT_SETTINGS.format(words[1])
    remedies = REMEDIES | REMEDIES_OF.get(daemon, {})
    two_words = " ".join(words[:2])
    text = remedies.get(two_words, remedies.get(words[0], ""))
    if words[0] == "chain" or two_words in {"foreign chain", "foreign nftables"}:
        text = REWRITING if found.startswith("rewrites ") else text
        return text.format(listing=_listing(*words[1 if words[0] == "chain" else 2 :]))
    return text.format(*words)


def _listing(family: str, table: str, chain: str = "") -> str:
    """Return the command that lists a table of others in the packet filter, or one of its chains.

    >>> _listing("ip", "nat", "POSTROUTING"), _listing("iptables-legacy", "nat")
    ('nft list chain ip nat POSTROUTING', 'iptables-legacy -t nat -S')
    """
    if family == "nft":
        return "nft list ruleset"  # nothing was read
    if family.endswith("-legacy"):
        return f"{family} -t {table} -S {chain}".rstrip()
    return f"nft list {'chain' if chain else 'table'} {family} {table} {chain}".rstrip()


def _is_consequence(what: str, found: Mapping[str, str]) -> bool:
    """Tell whether ``what`` only repeats that BIRD does not answer, or that a session is not up."""
    kind, _, rest = what.partition(" ")
    if kind in {"router", "session", "bfd", "received", "sent"} and "router id" not in found:
        return True
    if kind not in {"received", "sent"}:
        return False
    return not found.get(f"session {rest.rsplit(' ', 1)[0]}", "").startswith("Established")


def _different_routes(
    plan: HostPlan, table: RoutingTable, listed: list[dict[str, Any]], fabric: Fabric, least: Fabric
) -> list[Check]:
    """Return the learned routes that are not as announced."""
    source = source_of(plan, table)
    expected, sure = fabric.routes(plan, table), least.routes(plan, table)
    found = {route["prefix"]: sorted(route["next_hops"]) for route in listed}
    elsewhere = least.next_hops_of_unseen(source.name)
    checks = []
    for prefix in sorted(expected.keys() | found.keys(), key=natural_key):
        wanted, seen = expected.get(prefix), found.get(prefix)
        most = _most_next_hops(plan, source, prefix)
        if _is_as_wanted(wanted, seen, most):
            continue
        owners = ", ".join(fabric.owners(source.name, prefix)) or "nobody"
        # A guest may be on its way between hosts that nobody looked at: its old one still announces it.
        is_guests = owners != "nobody" and prefix not in sure
        possible = {*(wanted or ()), *(elsewhere if is_guests else ())}
        is_explained = wanted != seen and set(sure.get(prefix, ())) <= set(seen or ()) <= possible
        checks.append(
            Check(
                plan.host,
                f"route {prefix} in {table.domain}",
                _via(wanted, most),
                _via(seen),
                "warning" if is_explained else "failed",
                f"announced by {owners}; {UNSEEN if is_explained else remedy('learned')}",
            )
        )
    return checks


def _first_ones(plan: HostPlan, table: RoutingTable, different: list[Check]) -> list[Check]:
    """Return the first of ``different``, failures before warnings, and how many more there are."""
    in_order = sorted(different, key=lambda check: check.ok)
    more = in_order[ROUTES_NAMED:]
    if not more:
        return in_order
    words = f"{counted(len(more), 'more route')} differ"
    state: State = "warning" if all(check.ok for check in more) else "failed"
    what = f"more routes in {table.domain} {table.family}"
    return [*in_order[:ROUTES_NAMED], Check(plan.host, what, "as announced", words, state)]


def _most_next_hops(plan: HostPlan, table: RoutingTable, prefix: str) -> int:
    """Return how many next hops a route of the table may have."""
    is_single = table.ecmp == "none" or (table.ecmp == "without_default" and prefix in DEFAULTS)
    return 1 if is_single else plan.routing.ecmp_limit


def _is_as_wanted(wanted: list[str] | None, seen: list[str] | None, limit: int) -> bool:
    """Tell whether a route is there as it is wanted: ``seen`` is a choice where there are more next hops."""
    if wanted is None or seen is None or len(wanted) <= limit:
        return wanted == seen
    return len(seen) == limit and set(seen) < set(wanted)


def _via(hops: list[str] | None, most: int | None = None) -> str:
    """Return where a route leads, or to how many (``most``) of the next hops that there are."""
    if hops is None:
        return NOTHING
    choice = f"{most} of " if most is not None and most < len(hops) else ""
    return f"via {choice}{' and '.join(hops)}"

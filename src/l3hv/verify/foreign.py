"""Chains of other programs in the packet filter that drop packets of guests.

A packet passes all base chains of a hook, and each of them can drop it, even if the chains of l3hv accept it.
:mod:`l3hv.verify.rewriting` finds the chains that rewrite packets.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l3hv.verify.values import Drops

Rule = Mapping[str, Any]

DROPS = frozenset({"drop", "reject", "queue"})
UNREAD = "unread"
"""The verdict of a rule that may do anything."""
OF_THE_HOST = ("input", "output")
DEVICES_OF = {"ingress": "iif", "egress": "oif"}
"""The hooks of single devices; the device is the packet's input (iif) or output interface (oif)."""
MOST_JUMPS = 16
"""Maximum number of nested jumps, as in nft."""


@dataclass(frozen=True)
class Verdict:
    """The effect of a rule on packets of the fabric that it may match.

    ``sure`` is true if the rule matches all packets of a port of the fabric, ``named`` if it names the port.
    """

    kind: str
    sure: bool
    named: bool


def blocked(table: Mapping[str, Any], interfaces: Collection[str]) -> Iterator[tuple[str, Drops, bool]]:
    """Yield the base chains of a table that drop packets of ``interfaces``: name, effect, whether it is sure.

    It is not sure if the chain accepts packets of a port of the fabric that it names, or if it drops packets
    by facts that are not known here (addresses, connections).
    """
    for name, chain in table["chains"].items():
        passing = of_devices(interfaces, chain)
        if chain["hook"] is None or not passing:
            continue
        if chain["hook"] in OF_THE_HOST and table["family"] != "arp":
            continue
        verdicts = list(_verdicts(table["chains"], name, passing))
        is_unread = any(v.kind == UNREAD for v in verdicts)
        accepts = is_unread or any(v.kind == "accept" and (v.named or v.sure) for v in verdicts)
        first = next((v for v in verdicts if v.sure and not v.named and v.kind in DROPS), None)
        hook = chain["hook"]
        if chain["policy"] == "drop" and first is None:
            yield name, Drops(hook, "unaccepted"), not accepts
        elif first is not None:
            yield name, Drops(hook, "everything", first.kind), not accepts
        elif any(v.kind in DROPS and v.sure for v in verdicts):
            yield name, Drops(hook, "ports"), True
        elif any(v.kind in DROPS for v in verdicts):
            yield name, Drops(hook, "some"), False
        elif is_unread:
            yield name, Drops(hook, "unread"), False


def of_devices(interfaces: Collection[str], chain: Mapping[str, Any]) -> frozenset[str]:
    """Return the interfaces whose packets pass a base chain, which may apply to some devices only."""
    patterns = chain["devices"]
    return frozenset(
        interface
        for interface in interfaces
        if patterns is None or any(fnmatch.fnmatchcase(interface, pattern) for pattern in patterns)
    )


def _verdicts(
    chains: Mapping[str, Any],
    name: str,
    interfaces: Collection[str],
    *,
    is_sure: bool = True,
    is_named: bool = False,
    depth: int = 0,
) -> Iterator[Verdict]:
    """Yield the verdicts for packets of ``interfaces`` in a chain and in the chains that it jumps to."""
    for rule in chains.get(name, {"rules": ()})["rules"]:
        if not all(_may_match(op, pattern, interfaces) for _, op, pattern in rule["interfaces"]):
            continue
        names = is_named or any(op == "==" for _, op, _ in rule["interfaces"])
        # Conditions on interfaces leave a rule sure: it matches all packets of some port of the fabric.
        sure = is_sure and not rule["asks_more"]
        if rule["verdict"] in {"jump", "goto"}:
            if depth < MOST_JUMPS:
                yield from _verdicts(
                    chains, rule["target"], interfaces, is_sure=sure, is_named=names, depth=depth + 1
                )
        elif rule["verdict"] in {"accept", UNREAD, *DROPS}:
            yield Verdict(rule["verdict"], sure, names)


def is_named_by(interface: str, pattern: str | Sequence[str]) -> bool:
    """Tell whether a rule selects an interface by a name, a pattern, or a set of these."""
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return any(fnmatch.fnmatchcase(interface, one) for one in patterns)


def _may_match(operator: str, pattern: str | Sequence[str], interfaces: Collection[str]) -> bool:
    """Tell whether a rule that selects interfaces can match packets of one of ``interfaces``."""
    matched = [is_named_by(interface, pattern) for interface in interfaces]
    return any(matched) if operator == "==" else not all(matched)

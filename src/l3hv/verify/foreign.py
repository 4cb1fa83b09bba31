"""Chains of others in the packet filter: which of them drop what guests send and receive.

A packet passes all base chains of a hook, and each of them can drop it: that ours accept it is not enough.
What rewrites them is judged in :mod:`l3hv.verify.rewriting`.
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
"""The hooks of devices, and what of a packet the device is there."""
DEEPEST = 16
"""Jumps that are followed; nft allows as many."""


@dataclass(frozen=True)
class Verdict:
    """The effect of a rule on packets of the fabric that it may match.

    ``sure`` where it matches all packets of some port of the fabric, ``named`` where it names the port.
    """

    kind: str
    sure: bool
    named: bool


def blocked(table: Mapping[str, Any], interfaces: Collection[str]) -> Iterator[tuple[str, Drops, bool]]:
    """Yield the base chains of a table that drop packets of ``interfaces``: name, effect, whether surely.

    Not surely: the chain lets some packets through that it names a port of the fabric for, or drops some by
    what is not known here (addresses, connections).
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
    """Return those of ``interfaces`` whose packets pass a base chain, which may be for some devices only."""
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
    """Yield what the rules of a chain, and of those that it jumps to, do to packets of ``interfaces``."""
    for rule in chains.get(name, {"rules": ()})["rules"]:
        if not all(_may_match(op, pattern, interfaces) for _, op, pattern in rule["interfaces"]):
            continue
        names = is_named or any(op == "==" for _, op, _ in rule["interfaces"])
        # What is for all interfaces but one spares none of the fabric.
        sure = is_sure and not rule["asks_more"]
        if rule["verdict"] in {"jump", "goto"}:
            if depth < DEEPEST:
                yield from _verdicts(
                    chains, rule["target"], interfaces, is_sure=sure, is_named=names, depth=depth + 1
                )
        elif rule["verdict"] in {"accept", UNREAD, *DROPS}:
            yield Verdict(rule["verdict"], sure, names)


def is_named_by(interface: str, pattern: str | Sequence[str]) -> bool:
    """Tell whether a rule asks for an interface: by a name, a pattern, or a set of these."""
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return any(fnmatch.fnmatchcase(interface, one) for one in patterns)


def _may_match(operator: str, pattern: str | Sequence[str], interfaces: Collection[str]) -> bool:
    """Tell whether a rule that asks for an interface is for one of the fabric's."""
    matched = [is_named_by(interface, pattern) for interface in interfaces]
    return any(matched) if operator == "==" else not all(matched)

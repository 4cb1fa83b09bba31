"""Effects of single rules of other programs, from nft's JSON and from the output of iptables-legacy."""

from __future__ import annotations

import shlex
from typing import Any, TypeGuard

from ansible.module_utils.l3hv.observe.nft import element_words, inner_element

VERDICTS = ("accept", "drop", "reject", "jump", "goto", "return", "queue")
REWRITES = ("dnat", "snat", "masquerade", "redirect", "netmap", "tproxy", "snpt", "dnpt")
"""The nft statements that rewrite addresses or ports; in capitals they are targets of iptables.

``l3hv.verify.rewriting`` has the same names, because neither side can import the other: an observation has
the name of a rule's verdict, and the controller knows which verdicts rewrite packets.
"""

ENDS_OF_PACKETS = {"drop", "reject", "queue"}
"""The verdicts that end a packet: a rewrite before them in the same rule has no effect."""

REWRITTEN_FIELDS = {"saddr", "daddr", "sport", "dport"}
SELECTED_META = {"l4proto": "protocol", "protocol": "nfproto", "nfproto": "nfproto"}
SELECTED_FIELDS = {"saddr": "saddr", "daddr": "daddr", "sport": "sport", "dport": "dport"}
SELECTED_FIELDS |= {"protocol": "protocol", "nexthdr": "protocol"}
PORTS_OF_THE_HOST = {
    "DOCKER",
    "DOCKER-INGRESS",
    "NETAVARK-HOSTPORT-DNAT",
    "CNI-HOSTPORT-DNAT",
    "KUBE-NODEPORTS",
}
"""Chains for packets to the host's own addresses; the rules that jump there match ``--dst-type LOCAL``."""

ETHERTYPES = {"ip": "ipv4", "ip6": "ipv6"}
INTERFACE_KEYS = {"iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif"}
UNREAD = "unread"
"""The verdict of a rule that may have any effect: nft has no JSON for it, or the JSON is not understood."""

ODD_SHAPES = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""The exceptions that a listing of an unexpected shape causes."""

ALTERNATIVES = 64
"""Maximum number of rules into which a verdict map, or a set of several fields, is expanded."""


def empty_rule() -> dict[str, Any]:
    """Return a rule that matches every packet and has no effect."""
    nothing: dict[str, Any] = {"interfaces": [], "selects": [], "asks_more": False, "asks_unknown": False}
    return {**nothing, "verdict": None, "target": None}


def unread_rule() -> dict[str, Any]:
    """Return a rule with unknown conditions and an unknown effect."""
    return {**empty_rule(), "asks_more": True, "asks_unknown": True, "verdict": UNREAD}


def rules_of_other(expressions: Any) -> list[dict[str, Any]]:
    """Return the effects of a rule from nft's JSON, one for each element of a verdict map.

    No shape of the JSON raises an error: a rule that is not understood is ``UNREAD``.
    """
    try:
        rules = [rule_of_other(each) for each in alternatives(expressions)]
    except ODD_SHAPES:
        return [unread_rule()]
    return [rule for rule in rules if rule is not None]


def alternatives(expressions: list[Any], most: int = ALTERNATIVES) -> list[list[Any]]:
    """Return the statements of a rule once for each element of a verdict map, or of a set of several fields.

    Named maps and sets are not expanded, and neither are those that would result in more than ``most`` rules.
    """
    for position, expression in enumerate(expressions):
        if not isinstance(expression, dict):
            continue
        before, after = expressions[:position], expressions[position + 1 :]
        if isinstance(data := expression.get("vmap", {}).get("data"), dict):
            key, pairs = expression["vmap"]["key"], data["set"]
            each = [[equals(key, {"set": [one]}), verdict] for one, verdict in pairs]
        elif is_of_fields(match := expression.get("match")):
            fields, elements = match["left"]["concat"], map(inner_element, match["right"]["set"])
            each = [
                [equals(left, right) for left, right in zip(fields, element["concat"], strict=True)]
                for element in elements
            ]
        else:
            continue
        if len(each) > most:
            continue
        share = most // max(len(each), 1)
        return [rule for one in each for rule in alternatives([*before, *one, *after], share)]
    return [expressions]


def equals(left: Any, right: Any) -> dict[str, Any]:
    """Return a match in nft's JSON for one value, or for the elements of a set."""
    return {"match": {"op": "==", "left": left, "right": right}}


def is_of_fields(match: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether a match compares several fields together with a set in the rule itself."""
    if match is None or match["op"] != "==" or not isinstance(match["right"], dict):
        return False
    elements = match["right"].get("set")
    return isinstance(match["left"], dict) and "concat" in match["left"] and isinstance(elements, list)


def rule_of_other(expressions: list[Any]) -> dict[str, Any] | None:
    """Return the effect of a rule from nft's JSON, or ``None`` for a rule without an effect on packets.

    ``interfaces`` are its conditions on interfaces, ``selects`` those on addresses, protocols and ports.
    ``asks_unknown`` is true if it has other conditions, ``asks_more`` if it has any besides ``interfaces``.
    """
    rule = empty_rule()
    has_address_type = is_unread = False
    for expression in expressions:
        if not isinstance(expression, dict) or len(expression) != 1:
            # nft prints some statements as text, such as a jump to an unnamed chain.
            rule["asks_unknown"] = is_unread = True
            continue
        ((kind, value),) = expression.items()
        if kind in VERDICTS:
            set_verdict(rule, kind, value)
        elif kind in REWRITES:
            rule["verdict"] = kind
            add_implied(rule, value.get("family") if isinstance(value, dict) else None)
        elif kind == "mangle":
            add_assignment(rule, value)
        elif kind == "xt" and value and value.get("type") == "target":
            name = str(value.get("name")).lower()
            rule["verdict"] = name if name in (*REWRITES, "reject", "drop") else rule["verdict"]
        elif kind == "xt" and value and value.get("name") == "addrtype":
            has_address_type = True
        elif kind == "match":
            add_selection(rule, value)
        elif kind not in {"counter", "log", "comment", "notrack"}:
            rule["asks_unknown"] = True
            is_unread = is_unread or kind == "vmap"
    if has_address_type:
        add_address_type(rule)
    rule["asks_more"] = rule["asks_unknown"] or bool(rule["selects"])
    if is_unread and rule["verdict"] is None:
        rule["verdict"] = UNREAD
    return rule if rule["verdict"] else None


def set_verdict(rule: dict[str, Any], verdict: str, value: Any) -> None:
    """Set the verdict of a rule, unless the rule has rewritten the packet and the packet goes on."""
    if rule["verdict"] is not None and verdict not in ENDS_OF_PACKETS:
        return
    rule["verdict"] = verdict
    rule["target"] = chain_jumped_to(value) if verdict in {"jump", "goto"} else None


def add_assignment(rule: dict[str, Any], mangle: dict[str, Any]) -> None:
    """Add an assignment to a field of the packet to a rule; it counts if it rewrites an address or a port."""
    payload = mangle["key"].get("payload", {}) if isinstance(mangle["key"], dict) else {}
    if "tunnel" in payload:  # a field of the inner packet
        return
    if payload.get("field") in REWRITTEN_FIELDS and payload.get("protocol") != "ether":
        rule["verdict"] = rule["verdict"] or "rewrite"
        add_implied(rule, payload.get("protocol"))


def add_implied(rule: dict[str, Any], protocol: str | None) -> None:
    """Add the conditions that a field of ``protocol`` implies to a rule, unless it has them."""
    rule["selects"] += [select for select in implied_by(protocol) if select not in rule["selects"]]


def add_address_type(rule: dict[str, Any]) -> None:
    """Add a match of iptables on the type of an address to a rule.

    nft shows neither the end nor the type that it matches, nor whether it is negated.  They are known only
    for a jump to one of :data:`PORTS_OF_THE_HOST`.
    """
    if rule["verdict"] == "jump" and rule["target"] in PORTS_OF_THE_HOST:
        rule["selects"].append(["type", "==", ["local"]])
    else:
        rule["asks_unknown"] = True


def chain_jumped_to(jump: dict[str, Any]) -> str:
    """Return the name of the chain that a rule jumps to."""
    if not isinstance(jump["target"], str):
        raise TypeError(jump)
    return jump["target"]


def implied_by(protocol: str | None) -> list[list[Any]]:
    """Return the conditions that a field of ``protocol`` in a rule implies.

    >>> implied_by("ip6"), implied_by("tcp")
    ([['nfproto', '==', ['ipv6']]], [['protocol', '==', ['tcp']]])
    """
    if protocol in ETHERTYPES:
        return [["nfproto", "==", [ETHERTYPES[protocol]]]]
    return [["protocol", "==", [protocol]]] if protocol in {"tcp", "udp", "sctp"} else []


def add_selection(rule: dict[str, Any], match: dict[str, Any]) -> None:
    """Add the condition of one match in nft's JSON to a rule."""
    left, right = match["left"], match["right"]
    operator = "==" if match["op"] == "in" else match["op"]
    left = left if isinstance(left, dict) and operator in {"==", "!="} else {}
    meta, payload, fib = left.get("meta", {}).get("key"), left.get("payload", {}), left.get("fib", {})
    if meta in INTERFACE_KEYS and (names := interface_names(right)):
        rule["interfaces"].append([INTERFACE_KEYS[meta], operator, names])
        return
    if "tunnel" in payload:  # a field of the packet inside
        rule["asks_unknown"] = True
        return
    rule["selects"] += implied_by(payload.get("protocol"))
    key = SELECTED_META.get(meta)
    if payload.get("protocol") not in {None, "ether", "arp", "vlan"}:
        key = SELECTED_FIELDS.get(payload.get("field"))
    if fib.get("result") == "type" and "daddr" in fib.get("flags", ()) and right == "local":
        key = "type"
    values = selected_values(right)
    if key is None or values is None:
        rule["asks_unknown"] = True
        return
    rule["selects"].append([key, operator, [ETHERTYPES.get(value, value) for value in values]])


def interface_names(right: Any) -> str | list[str] | None:
    """Return the interface or interfaces that a match names; None if they are not in the rule itself."""
    if isinstance(right, str):
        return None if right.startswith("@") else right
    names = right.get("set") if isinstance(right, dict) else None
    names = [inner_element(name) for name in names] if isinstance(names, list) else []
    if not all(isinstance(name, str) and name != "*" and not name.startswith("@") for name in names):
        return None
    return names[0] if len(names) == 1 else names


def selected_values(right: Any) -> list[str] | None:
    """Return the values of a match in nft's syntax; None if they are not in the rule itself.

    >>> selected_values({"set": [{"prefix": {"addr": "203.0.113.0", "len": 25}}, {"range": [80, 90]}]})
    ['203.0.113.0/25', '80-90']
    """
    if isinstance(right, (str, int)):
        return None if str(right).startswith(("@", "*")) else [str(right)]
    parts = right.get("set", [right]) if isinstance(right, dict) else right
    parts = [inner_element(part) for part in parts] if isinstance(parts, list) else ["@"]
    if any(isinstance(part, str) and part.startswith(("@", "*")) for part in parts):
        return None
    if not all(not isinstance(part, dict) or {"prefix", "range"} & part.keys() for part in parts):
        return None
    return [element_words(part) for part in parts]


LEGACY_SELECTS = {"-s": "saddr", "-d": "daddr", "-p": "protocol"}
LEGACY_SELECTS |= {f"--{key}{plural}": key for key in ("sport", "dport") for plural in ("", "s")}
LEGACY_SELECTS |= {"--dst-type": "type"}
KNOWN_MATCHES = {"tcp", "udp", "multiport", "addrtype", "comment"}


def legacy_chains(listing: str) -> dict[str, dict[str, Any]]:
    """Return the chains of ``iptables-legacy -S`` in the shape of :func:`read_chains_of_others`."""
    chains: dict[str, dict[str, Any]] = {}
    for line in listing.splitlines():
        flag, name, *rest = line.split(maxsplit=2) if line.count(" ") else ("", "")
        if flag not in {"-P", "-N", "-A"}:
            continue
        chain = chains.setdefault(name, {"hook": None, "policy": None, "devices": None, "rules": []})
        if flag == "-P":
            chain["hook"], chain["policy"] = name.lower(), "".join(rest).split(" ")[0].lower()
        elif flag == "-A":
            try:
                rule = legacy_rule(shlex.split("".join(rest)))
            except ODD_SHAPES:
                rule = unread_rule()
            if rule["verdict"]:
                chain["rules"].append(rule)
    return chains


def legacy_rule(words: list[str]) -> dict[str, Any]:
    """Return the effect of a rule; ``words`` follow the name of its chain in ``iptables-legacy -S``."""
    rule = empty_rule()
    words = list(words)
    while words:
        word = words.pop(0)
        is_not = word == "!"
        word = words.pop(0) if is_not else word
        operator = "!=" if is_not else "=="
        if word in {"-i", "-o"}:
            rule["interfaces"].append([f"{word[1]}if", operator, words.pop(0).replace("+", "*")])
        elif word in {"-j", "-g"}:
            target = words.pop(0)
            is_chain = word == "-g" or target.lower() not in (*VERDICTS, *REWRITES)
            rule["verdict"] = {"-j": "jump", "-g": "goto"}[word] if is_chain else target.lower()
            rule["target"] = target if is_chain else None
            words = []
        elif word == "--comment":
            words.pop(0)
        elif word == "--dst-type" and words[0] != "LOCAL":
            rule["asks_unknown"] = True
            words.pop(0)
        elif word in LEGACY_SELECTS:
            values = words.pop(0).lower()
            values = values.replace(":", "-") if "port" in word else values
            rule["selects"].append([LEGACY_SELECTS[word], operator, values.split(",")])
        elif word == "-m":
            rule["asks_unknown"] = rule["asks_unknown"] or words[0] not in KNOWN_MATCHES
            words.pop(0)
        else:
            rule["asks_unknown"] = True
    rule["asks_more"] = rule["asks_unknown"] or bool(rule["selects"])
    return rule

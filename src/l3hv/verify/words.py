"""How states read: expectation and observation are put into the same words, and so can be compared."""

from __future__ import annotations

from collections.abc import Iterable

PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 12: "bird", 16: "dhcp", 107: "l3hv"}
"""Who made a route or rule (rt_protos); 107 is ours."""


def rule_words(
    priority: int,
    action: str,
    *,
    iif: str | None = None,
    source: str | None = None,
    destination: str | None = None,
    mark: str | None = None,
    ip_protocol: int | None = None,
    source_port: str | None = None,
    suppress_prefixlength: int | None = None,
) -> str:
    """Return a rule as ``ip rule`` shows it; ``action`` is ``lookup TABLE`` or another one.

    ``mark`` is ``VALUE/MASK``, ``source_port`` a port or ``FIRST-LAST``.

    >>> rule_words(1000, "lookup main", iif="lo")
    '1000: from all iif lo lookup main'
    """
    words = [f"{priority}:", "from", source or "all"]
    if destination is not None:
        words += ["to", destination]
    if mark is not None:
        words += ["fwmark", mark]
    if iif is not None:
        words += ["iif", iif]
    if ip_protocol is not None:
        words += ["ipproto", str(ip_protocol)]
    if source_port is not None:
        words += ["sport", source_port]
    words.append(action)
    if suppress_prefixlength is not None:
        words += ["suppress_prefixlength", str(suppress_prefixlength)]
    return " ".join(words)


def hop_words(via: str | None, device: str | None) -> str:
    """Return one next hop as ``ip route`` shows it.

    >>> hop_words("198.51.100.2", "a-public"), hop_words(None, "vm1")
    ('via 198.51.100.2 dev a-public', 'dev vm1')
    """
    return " ".join([*(["via", via] if via else []), *(["dev", device] if device else [])])


def route_words(leads: str, maker: int, metric: int, prefsrc: str | None) -> str:
    """Return a route without its prefix, as ``ip route`` shows it; ``leads`` are its next hops or its type.

    >>> route_words("dev vm1", 4, 10, "172.22.2.1")
    'dev vm1 proto static metric 10 src 172.22.2.1'
    """
    words = [leads, "proto", PROTOCOLS.get(maker, str(maker)), "metric", str(metric)]
    if prefsrc is not None:
        words += ["src", prefsrc]
    return " ".join(words)


def in_order(addresses: Iterable[str]) -> str:
    """Return addresses or prefixes in text, IPv4 first.

    >>> in_order(["fe80::1/64", "203.0.113.254/32"])
    '203.0.113.254/32 fe80::1/64'
    """
    return " ".join(sorted(addresses, key=lambda address: (":" in address, address)))

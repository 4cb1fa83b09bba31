"""The shape of the intent: variables are read key by key, and wrong types and unknown keys are noted.

A converter turns one value into the type that the intent needs, or raises :class:`Unfit`.  :class:`Fields`
applies converters and notes the values that they refuse: it raises nothing for bad input.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Set
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Generic, TypeVar, overload

from l3hv.model.addressing import Address, Network, is_unicast, is_unicast_mac, mac_of
from l3hv.model.errors import Problem
from l3hv.model.text import printable

T = TypeVar("T")
D = TypeVar("D")
Converter = Callable[[Any], T]

_PREFIX = "l3hv_"
_LONGEST_SHOWN = 48
_MOST_NAMED = 12
_RESERVED_NAMED = 3
_HUGE = 10**20
_NO_UNICAST = "Choose a unicast {}: loopback, link-local, multicast and reserved {} cannot be routed."
_AS_LINES = "Write it as 'key: value' lines."
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off"})
_BASED_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|0[oO][0-7]+|0[bB][01]+")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")


class Unfit(Exception):
    """A value is refused: ``expected`` completes the words "expected …", ``remedy`` is a sentence."""

    def __init__(self, expected: str, remedy: str) -> None:
        super().__init__(expected)
        self.expected = expected
        self.remedy = remedy


class Notes:
    """The problems of one host that were found so far."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.problems: list[Problem] = []

    def add(self, field: str, value: object, message: str, remedy: str, *, unfit_text: bool = False) -> None:
        self.problems.append(Problem(self.host, field, shown(value), message, remedy, unfit_text))

    def distinct(self) -> list[Problem]:
        """Return each problem once: many guests can have the same problem of their host."""
        return list(dict.fromkeys(self.problems))

    def unfit(self, field: str, value: object, unfit: Unfit) -> None:
        message = f"expected {unfit.expected}, found {found(value)}."
        self.add(field, value, message, unfit.remedy, unfit_text=isinstance(value, str))


def shown(value: object, longest: int = _LONGEST_SHOWN) -> str:
    """Return ``value`` of any type as printable text of at most ``longest`` characters.

    >>> shown("two\\nlines"), shown(1500), shown(None)
    ('two\\\\nlines', '1500', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value)) if abs(value) < _HUGE else "a huge number"
    if isinstance(value, float):
        return str(float(value))
    if isinstance(value, str):
        text = printable(value)
        return text if len(text) <= longest else text[: longest - 1] + "…"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return str(value)
    return f"a {type(value).__name__}"


def on_one_line(field: str) -> str:
    """Return the name of a field on one line; a name that is not printable is escaped."""
    return field if field.isprintable() else shown(field)


def found(value: object) -> str:
    """Return a description of ``value`` that completes the words "found …".

    >>> found("abc"), found(True), found([])
    ("the text 'abc'", 'true', 'a list')
    """
    text = shown(value)
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text '{text}'"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and text[0] != "a":
        return f"the number {text}"
    return text


def did_you_mean(key: str, known: Collection[str]) -> str:
    """Return a remedy for an unknown key.

    >>> did_you_mean("tabel", ["table", "vlan"])
    "Did you mean 'table'?"
    """
    # All variables begin with the same prefix. Comparing it would make unrelated names look similar.
    names = {name.removeprefix(_PREFIX): name for name in sorted(known)}
    close = difflib.get_close_matches(key.removeprefix(_PREFIX), names, n=1)
    if close:
        return f"Did you mean '{names[close[0]]}'?"
    if len(known) > _MOST_NAMED:
        return "Remove it; docs/intent.md describes all keys."
    return f"Remove it; the keys here are {', '.join(sorted(known))}."


def remedy_for_text(value: object, opening: str) -> str:
    """Return a remedy for a list or mapping that Ansible passed on as text; "" for any other value."""
    if isinstance(value, str) and value.lstrip().startswith(opening):
        return (
            "INI inventories and -e KEY=VALUE turn it into text. Write it in a YAML file"
            " (host_vars, group_vars), or as -e '{\"KEY\": VALUE}'."
        )
    return ""


class Fields:
    """A mapping of the intent whose keys are read one by one.

    ``where`` is its path in the host's variables.  With ``known`` all other keys are problems.
    """

    __slots__ = ("notes", "raw", "where")

    def __init__(self, notes: Notes, where: str, raw: dict[Any, Any], known: Set[str] = frozenset()) -> None:
        self.notes = notes
        self.where = where
        self.raw = raw
        if known and not raw.keys() <= known:
            self._note_unknown(known)

    def _note_unknown(self, known: Set[str]) -> None:
        for key in self.raw:
            if not isinstance(key, str):
                self.notes.add(
                    self.path(shown(key)),
                    key,
                    f"expected a name as the key, found {found(key)}.",
                    "Put the key in quotes if it is meant as text.",
                )
            elif key not in known:
                self.notes.add(
                    self.path(shown(key)), key, "is not a key of the intent.", did_you_mean(key, known)
                )

    def path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    @overload
    def take(self, key: str, convert: Converter[T]) -> T | None: ...
    @overload
    def take(self, key: str, convert: Converter[T], default: D) -> T | D: ...
    def take(self, key: str, convert: Converter[T], default: Any = None) -> Any:
        """Return the converted value of ``key``; ``default`` if it is missing, or refused, which is noted."""
        value = self.raw.get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except Unfit as unfit:
            self.notes.unfit(self.path(key), value, unfit)
            return default

    def need(self, key: str, convert: Converter[T], remedy: str) -> T | None:
        """Return the converted value of ``key``; note a missing key with ``remedy``."""
        if self.raw.get(key) is None:
            self.notes.add(self.path(key), None, "is missing.", remedy)
            return None
        return self.take(key, convert)

    def take_all(self, key: str, convert: Converter[T]) -> tuple[T, ...]:
        """Return the converted items of a list; a missing key is an empty list."""
        values = self.raw.get(key)
        if values is None:
            return ()
        if not isinstance(values, (list, tuple)):
            remedy = remedy_for_text(values, "[") or "Write it as a list, also for one value: [value]."
            self.notes.unfit(self.path(key), values, Unfit("a list", remedy))
            return ()
        items = []
        for index, value in enumerate(values):
            try:
                items.append(convert(value))
            except Unfit as unfit:
                self.notes.unfit(f"{self.path(key)}[{index}]", value, unfit)
        return tuple(items)

    def mapping(self, key: str, known: Set[str] = frozenset(), remedy: str = _AS_LINES) -> Fields:
        """Return a nested mapping: empty if the key is missing, or has another type, which is noted."""
        return self.nested(self.path(key), self.raw.get(key), known, remedy)

    def nested(
        self, where: str, value: object, known: Set[str] = frozenset(), remedy: str = _AS_LINES
    ) -> Fields:
        if value is not None and not isinstance(value, dict):
            self.notes.unfit(where, value, Unfit("a mapping", remedy_for_text(value, "{") or remedy))
            value = None
        return Fields(self.notes, where, value or {}, known)

    def named(self, convert: Converter[str], known: Set[str] = frozenset()) -> Iterator[tuple[str, Fields]]:
        """Yield the name and the nested mapping of each key that is a valid name; note the other keys."""
        for name, value in self.names(convert):
            yield name, self.nested(self.path(name), value, known)

    def names(self, convert: Converter[str]) -> Iterator[tuple[str, Any]]:
        """Yield each key that is a valid name, with its value; note the other keys."""
        for key, value in self.raw.items():
            try:
                yield convert(key), value
            except Unfit as unfit:
                self.notes.unfit(self.path(shown(key)), key, unfit)


class Text:
    """A converter for text that matches a pattern as a whole and is none of the ``forbidden`` words.

    ``reason`` completes the words "are reserved, because …".
    """

    def __init__(
        self, pattern: str, expected: str, remedy: str, forbidden: Collection[str] = (), reason: str = ""
    ) -> None:
        self.matches = re.compile(pattern, re.ASCII).fullmatch
        self.expected = expected
        self.remedy = remedy
        self.forbidden = frozenset(forbidden)
        self.reason = reason

    def __call__(self, value: object) -> str:
        if isinstance(value, str):
            if value in self.forbidden and self.reason:
                words = ", ".join(sorted(self.forbidden)[:_RESERVED_NAMED])
                if len(self.forbidden) > _RESERVED_NAMED:
                    words += f" and {len(self.forbidden) - _RESERVED_NAMED} more words (docs/intent.md)"
                raise Unfit(
                    "a name that is not reserved",
                    f"{self.remedy} The names {words} are reserved, because {self.reason}.",
                )
            if self.matches(value) and value not in self.forbidden:
                return str(value)
            raise Unfit(self.expected, self.remedy)
        raise Unfit(self.expected, "Put it in quotes if it is meant as text.")


class WholeNumber:
    """A converter for a whole number within bounds."""

    def __init__(self, low: int, high: int, noun: str = "a whole number") -> None:
        self.low = low
        self.high = high
        self.expected = f"{noun} from {low} to {high}"

    def __call__(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            if self.low <= value <= self.high:
                return int(value)
            raise Unfit(self.expected, "Choose one in this range.")
        if isinstance(value, str) and value.isascii() and value.isdigit():
            if value.startswith("0") and value.strip("0"):
                raise Unfit(self.expected, f"Write it without leading zeros and quotes: {value.lstrip('0')}.")
            raise Unfit(self.expected, "Write it without quotes.")
        if isinstance(value, str) and _BASED_NUMBER.fullmatch(value):
            raise Unfit(self.expected, f"Write it in decimal digits: {int(value, 0)}.")
        raise Unfit(self.expected, "Write digits only.")


class OneOf(Generic[T]):
    """A converter for one of a few words."""

    def __init__(self, *words: T) -> None:
        self.words = words

    def __call__(self, value: object) -> T:
        for word in self.words:
            if isinstance(value, str) and value == word:
                return word
        raise Unfit(f"one of {', '.join(map(str, self.words))}", "Choose one of them.")


def yes_or_no(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _SWITCHES:
        raise Unfit(
            "true or false", "Write true or false without quotes; in an INI inventory, True or False."
        )
    raise Unfit("true or false", "Write true or false without quotes.")


def mac(value: object) -> str:
    address = mac_of(value)
    if address is None:
        raise Unfit("a MAC address", "Write six bytes in hexadecimal: '52:54:00:12:34:56'.")
    if not is_unicast_mac(address):
        raise Unfit(
            "the MAC address of one interface",
            "The lowest bit of the first byte must be 0 (multicast has 1), and not all bytes may be 0.",
        )
    return address


def address(value: object) -> Address:
    """Convert to a unicast address of either family."""
    converted: Address = _address(value, ip_address, "an IPv4 or IPv6 address")
    if not is_unicast(ip_network(converted)):
        raise Unfit("a unicast IPv4 or IPv6 address", _NO_UNICAST.format("address", "addresses"))
    return converted


def ipv4_address(value: object) -> IPv4Address:
    return _address(value, IPv4Address, "an IPv4 address")


def unicast_ipv4(value: object) -> IPv4Address:
    """Convert to a unicast IPv4 address."""
    converted = ipv4_address(value)
    if not is_unicast(ip_network(converted)):
        raise Unfit("a unicast IPv4 address", _NO_UNICAST.format("address", "addresses"))
    return converted


def ipv6_address(value: object) -> IPv6Address:
    return _address(value, IPv6Address, "an IPv6 address")


def network(value: object) -> Network:
    """Convert to a unicast prefix of either family."""
    return _network(value, ip_network, "an IPv4 or IPv6 prefix")


def ipv4_network(value: object) -> IPv4Network:
    return _network(value, IPv4Network, "an IPv4 prefix")


def ipv6_network(value: object) -> IPv6Network:
    return _network(value, IPv6Network, "an IPv6 prefix")


def address_or_network(value: object) -> Network:
    """Convert to a prefix; an address alone is the prefix of just that address."""
    if isinstance(value, str) and "/" not in value:
        return ip_network(address(value))
    return network(value)


def _address(value: object, make: Callable[[str], T], expected: str) -> T:
    if isinstance(value, str):
        if "/" in value:
            raise Unfit(expected, "Write the address alone, without a prefix length.")
        if "%" not in value:
            try:
                return make(str(value))
            except ValueError:
                pass
    raise Unfit(expected, _write_as(expected))


N = TypeVar("N", IPv4Network, IPv6Network, Network)


def _network(value: object, make: Callable[..., N], expected: str) -> N:
    if not isinstance(value, str) or "%" in value:
        raise Unfit(expected, _write_as(expected))
    length = value.partition("/")[2]
    if not _PREFIX_LENGTH.fullmatch(length):
        raise Unfit(expected, "Write the prefix with its length, as in 203.0.113.0/24.")
    try:
        prefix = make(str(value), strict=False)
    except ValueError:
        raise Unfit(expected, _write_as(expected)) from None
    if str(prefix.network_address) != _canonical(value.partition("/")[0]):
        raise Unfit(f"{expected} without host bits", f"The prefix of that length is {prefix}.")
    if not is_unicast(prefix):
        raise Unfit(f"{expected} for hosts", _NO_UNICAST.format("prefix", "prefixes"))
    return prefix


def _canonical(address: str) -> str:
    return str(ip_address(address))


def _write_as(expected: str) -> str:
    examples = {
        "an IPv4 address": "203.0.113.1",
        "an IPv6 address": '"2001:db8::1"',
        "an IPv4 or IPv6 address": '203.0.113.1 or "2001:db8::1"',
        "an IPv4 prefix": "203.0.113.0/24",
        "an IPv6 prefix": '"2001:db8::/56"',
        "an IPv4 or IPv6 prefix": '203.0.113.0/24 or "2001:db8::/56"',
    }
    return f"Write it like {examples[expected]}."

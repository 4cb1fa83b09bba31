"""Conversion of dataclasses to plain data, which Ansible and JSON can carry, and back."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Hashable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import attrgetter
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def as_plain(value: Any) -> Any:
    """Return ``value`` as the plain dictionaries, lists and scalars that Ansible and JSON accept.

    Addresses and prefixes of :mod:`ipaddress` become text.

    >>> from l3hv.model.plan import Nic
    >>> as_plain(Nic("eno1", 1500, ("eno1.90",)))
    {'interface': 'eno1', 'mtu': 1500, 'vlans': ['eno1.90']}
    """
    kind = type(value)
    if kind is tuple or kind is list:
        return [item if type(item) in _SCALARS else as_plain(item) for item in value]
    if dataclasses.is_dataclass(kind):
        # Most values of a plan are scalars. They are copied together: a call for each would double the time.
        names, values_of, nested = _field_reader(kind)
        plain = dict(zip(names, values_of(value), strict=True))
        for name in nested:
            plain[name] = as_plain(plain[name])
        return plain
    if isinstance(value, _ADDRESSES):
        return str(value)
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: type[T], data: object) -> T:
    """Rebuild a dataclass of ``kind`` from the plain data of :func:`as_plain`.

    ``data`` may have been stored as JSON in between. It is not checked.

    >>> from l3hv.model.plan import Nic
    >>> from_plain(Nic, {"interface": "eno1", "mtu": 1500, "vlans": ["eno1.90"]})
    Nic(interface='eno1', mtu=1500, vlans=('eno1.90',))
    """
    return cast("T", _builder(cast("Hashable", kind))(data))


_SCALARS = frozenset({str, int, bool, float, type(None)})
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


@functools.cache
def _field_reader(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], tuple[str, ...]]:
    """Return a dataclass's field names, a reader of their values, and the names of nested fields."""
    names = _field_names(kind)
    hints = get_type_hints(kind)
    # The first name is repeated: with a single name an attrgetter returns the value alone, not a tuple.
    values_of = attrgetter(*names, names[0])
    nested = tuple(name for name in names if not _is_scalar(hints[name]))
    return (*names, names[0]), values_of, nested


def _is_scalar(hint: object) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return all(map(_is_scalar, get_args(hint)))
    return hint in _SCALARS or get_origin(hint) is Literal


@functools.cache
def _builder(hint: object) -> Callable[[Any], Any]:
    """Return the function that rebuilds a value of the type ``hint`` from plain data."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass_builder(hint)
    if origin is tuple:
        return _tuple_builder(arguments)
    if origin in (Union, types.UnionType):
        return _union_builder(arguments)
    if hint in _ADDRESSES:
        return cast("Callable[[Any], Any]", hint)
    return _unchanged


def _dataclass_builder(kind: type) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    builders = [(name, _builder(hints[name])) for name in _field_names(kind)]
    converted = [(name, build) for name, build in builders if build is not _unchanged]

    def build(data: Mapping[str, Any]) -> object:
        values = dict(data)
        for name, build_field in converted:
            values[name] = build_field(values[name])
        return kind(**values)

    return build


def _tuple_builder(items: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(items) == 2 and items[1] is Ellipsis:
        build_item = _builder(items[0])
        return tuple if build_item is _unchanged else lambda data: tuple(map(build_item, data))
    builders = [_builder(item) for item in items]
    return lambda data: tuple(build(item) for build, item in zip(builders, data, strict=True))


def _union_builder(members: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Return the builder of an optional value, or of an address or prefix of either family."""
    others = [member for member in members if member is not type(None)]
    if set(others) == {IPv4Network, IPv6Network}:
        build_other: Callable[[Any], Any] = ip_network
    elif set(others) == {IPv4Address, IPv6Address}:
        build_other = ip_address
    else:
        build_other = _builder(others[0])
    if build_other is _unchanged:
        return _unchanged
    return lambda data: None if data is None else build_other(data)


def _unchanged(data: object) -> object:
    return data

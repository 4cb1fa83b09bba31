"""Conversion of plans to plain data and back, and the purity of the packages."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import pkgutil
from ipaddress import IPv4Address, IPv6Network

import pytest

import l3hv
from l3hv.model.plain import as_plain, from_plain

PURE_PACKAGES = {"model", "intent", "plan", "render", "keys"}
PURE = [
    name
    for _, name, is_package in pkgutil.walk_packages(l3hv.__path__, "l3hv.")
    if not is_package and name.split(".")[1] in PURE_PACKAGES
]


@dataclasses.dataclass(frozen=True)
class Inner:
    address: IPv4Address | None
    prefix: IPv6Network


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None
    many: tuple[Inner, ...]
    pair: tuple[tuple[str, int], ...]


INNER = Inner(IPv4Address("192.0.2.1"), IPv6Network("2001:db8::/64"))


@pytest.mark.parametrize(
    "value",
    [
        Outer("x", INNER, (INNER, Inner(None, IPv6Network("2001:db8:1::/64"))), (("a", 1), ("b", 2))),
        Outer("x", None, (), ()),
    ],
)
def test_plain_data_can_be_converted_back(value):
    assert from_plain(Outer, as_plain(value)) == value


def test_plain_data_is_plain():
    assert as_plain(Outer("x", INNER, (), (("a", 1),))) == {
        "name": "x",
        "inner": {"address": "192.0.2.1", "prefix": "2001:db8::/64"},
        "many": [],
        "pair": [["a", 1]],
    }
    assert as_plain({1: IPv4Address("192.0.2.1")}) == {"1": "192.0.2.1"}


@pytest.mark.parametrize("name", PURE)
def test_examples_in_the_documentation_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0

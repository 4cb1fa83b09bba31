"""Any value of any variable is either parsed or reported as a problem, without an exception."""

from __future__ import annotations

import copy
import datetime
import math
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from intents import COMMON, EDGE, REFLECTORS, common_of, hypervisor

from l3hv.intent.claims import claims, clashes
from l3hv.intent.fabric import COMMON_KEYS, parse_common
from l3hv.intent.hosts import HOST_KEYS, host_kind, parse_host
from l3hv.model.errors import IntentError

RICH = hypervisor(1, 2)
RICH["l3hv_guests"][0] |= {
    "addresses": ["10.1.0.1", "2001:db8:8fff::1"],
    "subnets": ["10.1.1.0/28", "2001:db8:9000::/56"],
    "anycast": ["10.1.2.1"],
    "transparent": ["10.1.3.1"],
    "ipv6_on_link": False,
    "link_local": "fe80::7",
    "withdraw_without_carrier": False,
}
RICH |= {
    "l3hv_timers": {"bfd_interval_ms": 100, "hold_s": 30},
    "l3hv_mtu": 9000,
    "l3hv_guest_mtu": 1500,
    "l3hv_failure_profile": "bfd_llgr",
    "l3hv_session_layout": "shared",
    "l3hv_system": "debian12",
}

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**4000, -1, 0, 2**64]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "lo",
            'x"; }',
            "../../etc/passwd",
            "a\nb",
            "{{ x }}",
            "١٢",
            "10.0.0.1/24",
            "10.0.0.0/١٢",
            "10.0.0.0/99999999999999999999",
            "fe80::1%eth0",
            "::ffff:10.0.0.1",
            "0.0.0.0/0",
            "::/0",
            "255.255.255.255",
        ]
    ),
    st.just(datetime.date(2020, 1, 1)),
    st.just({1, 2}),
    st.just(b"bytes"),
)
KEYS = sorted(COMMON_KEYS | HOST_KEYS)
nested = st.recursive(
    junk,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans() | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths_of(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every place in nested data."""
    found = [here]
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths_of(item, (*here, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += paths_of(item, (*here, index))
    return found


def mutated(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """Return a copy of nested data with one place replaced."""
    if not path:
        return change
    copied = copy.copy(value)
    copied[path[0]] = mutated(value[path[0]], path[1:], change)
    return copied


def check(common_variables: Any, host_variables: Any) -> None:
    """Parse the variables and compare the parsed hosts; problems are allowed, exceptions are not."""
    common, problems = parse_common(common_variables)
    parsed = {}
    for name, (kind, variables) in {"hv1": ("hypervisor", host_variables), **REFLECTORS, **EDGE}.items():
        host, more = parse_host(name, kind, variables, common)
        problems += more
        assert host is not None or more or common is None
        if host is not None:
            parsed[name] = host
    if common is not None:
        problems += clashes({name: claims(host) for name, host in parsed.items()}, common)
    for problem in problems:
        assert problem.host
        assert problem.field
        assert "\n" not in problem.message
        assert problem.message.endswith(".")
        assert problem.remedy.endswith((".", "?"))
    str(IntentError(problems))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(paths_of(COMMON)[1:]), nested)
def test_no_mutation_of_the_fabric_raises(path, change):
    check(mutated(COMMON, path, change), RICH)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(paths_of(RICH)[1:]), nested)
def test_no_mutation_of_a_host_raises(path, change):
    check(COMMON, mutated(RICH, path, change))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(COMMON_KEYS | HOST_KEYS)) | st.text(max_size=8), nested, max_size=6
    )
)
def test_no_variables_raise(variables):
    check(variables, variables)


def test_the_complete_host_has_no_problem():
    _, problems = parse_host("hv1", "hypervisor", RICH, common_of())
    assert problems == []


def test_no_key_is_both_of_the_fabric_and_of_a_host():
    assert not COMMON_KEYS & HOST_KEYS


def test_variables_without_the_prefix_are_ignored():
    host, problems = parse_host(
        "hv1",
        "hypervisor",
        {**RICH, **COMMON, "ansible_host": 7, **cast(Any, {5: None}), "http_port": math.nan},
        common_of(),
    )
    assert host is not None
    assert not problems


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        (["hypervisors"], "hypervisor"),
        (["all", "rack1", "route_reflectors"], "route_reflector"),
        (["edge_routers"], "edge_router"),
        ([], None),
        (["hypervisors", "edge_routers"], None),
    ],
)
def test_the_kind_of_a_host_follows_from_its_group(groups, kind):
    found, problems = host_kind("x", groups)
    assert found == kind
    assert (kind is None) == bool(problems)


def test_the_shape_of_hosts_is_checked_with_an_invalid_fabric():
    host, problems = parse_host("hv1", "hypervisor", {"l3hv_id": "one"}, None)
    assert host is None
    assert [problem.field for problem in problems] == ["l3hv_uplinks", "l3hv_id"]


def test_a_valid_host_is_not_parsed_with_an_invalid_fabric():
    assert parse_host("hv1", "hypervisor", RICH, None) == (None, [])


@pytest.mark.parametrize("key", KEYS)
def test_numbers_that_python_cannot_print_do_not_raise(key):
    check(COMMON | {key: 10**5000}, RICH | {key: -(10**5000)})

"""Refused secrets, which messages do not repeat, and the key of a session, which both ends agree on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intents import COMMON, common_of, fabric, slices

from l3hv.intent.fabric import parse_common
from l3hv.intent.hosts import parse_host
from l3hv.keys.secrets import LONGEST, secret_problems
from l3hv.plan.host import host_plan

KEYS = {"l3hv_bgp_keys": {"fabric": "md5", "rack2": "md5"}}


def ends_of(keys: dict[str, str | dict[str, str]]) -> dict[tuple[str, str], set[str | None]]:
    """Return the keys of the sessions between two hosts, from the plan of each of the two hosts."""
    hosts: dict[str, Any] = fabric(2) | {
        "rr3": ("route_reflector", {"l3hv_id": 15999, "l3hv_uplinks": {"a": "eno1"}})
    }
    for name, key in keys.items():
        kind, variables = hosts[name]
        hosts[name] = (kind, variables | {"l3hv_bgp_key": key})
    found: dict[tuple[str, str], set[str | None]] = {}
    for name, part in slices(hosts, common_of(COMMON | KEYS)).items():
        routing = host_plan(part).routing
        assert routing.session_keys == tuple(sorted({s.key for s in routing.sessions if s.key is not None}))
        for session in routing.sessions:
            found.setdefault((name, session.peer), set()).add(session.key)
    return found


def test_the_client_chooses_the_key_of_a_session():
    ends = ends_of({"hv1": "fabric", "rr1": "rack2"})
    assert ends["hv1", "rr1"] == ends["rr1", "hv1"] == ends["hv1", "rr2"] == {"fabric"}
    assert ends["hv2", "rr1"] == ends["rr1", "hv2"] == {None}


@pytest.mark.parametrize(
    ("keys", "between"),
    [
        ({"rr1": "rack2", "rr3": "fabric"}, "rack2"),
        ({"rr3": "fabric"}, "fabric"),
        ({"rr1": "rack2"}, "rack2"),
        ({}, None),
    ],
)
def test_reflectors_use_the_key_of_the_first_reflector_with_one(keys, between):
    ends = ends_of(keys)
    assert ends["rr1", "rr3"] == ends["rr3", "rr1"] == {between}


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=LONGEST))
def test_printable_text_is_accepted_as_a_secret(secret):
    assert bool(secret_problems(["fabric"], {"fabric": secret})) is ('"' in secret)


@pytest.mark.parametrize(
    "secret", ['hunter2"; }', "hunter2\n", "", "hunter2" * 12, "hünter2", 1234567, ["hunter2"], None]
)
def test_no_message_contains_a_secret(secret):
    (sentence,) = secret_problems(["fabric"], {"fabric": secret})
    assert "l3hv_bgp_secrets" in sentence
    assert "nter2" not in sentence
    assert "123" not in sentence


def test_a_secret_with_spaces_is_refused_for_frr():
    for secret, refused in (("hunter2 hunter2", True), ("!hunter2|'\\", False)):
        found = secret_problems(["fabric"], {"fabric": secret}, "frr")
        assert bool(found) is refused
        assert "hunter2" not in "".join(found)


@pytest.mark.parametrize("secrets", [None, "hunter2", ["hunter2"]])
def test_secrets_must_be_a_mapping(secrets):
    assert "hunter2" not in str(secret_problems(["fabric"], secrets))
    assert secret_problems([], secrets) == []


def test_each_path_can_have_a_key_of_its_own():
    ends = ends_of({"hv1": {"a": "fabric"}})
    assert ends["hv1", "rr1"] == ends["rr1", "hv1"] == {"fabric"}
    assert ends["hv1", "rr2"] == ends["rr2", "hv1"] == {None}
    ends = ends_of({"hv1": {"a": "fabric", "b": "rack2"}})
    assert ends["hv1", "rr2"] == ends["rr2", "hv1"] == {"rack2"}


@pytest.mark.parametrize(
    "value", ["hunter2", "hunter 2", ["hunter2"], {"hunter2": "fabric"}, {"a": "hunter2"}, 7]
)
def test_a_misplaced_secret_is_not_repeated(value):
    _, problems = parse_common(COMMON | {"l3hv_bgp_keys": {"fabric": value}})
    variables = fabric(1)["hv1"][1] | {"l3hv_bgp_key": value}
    _, more = parse_host("hv1", "hypervisor", variables, common_of(COMMON | KEYS))
    assert len(problems) == len(more) == 1
    assert "hunter" not in repr(problems + more)

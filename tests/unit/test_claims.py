"""Clashes between the claims of hosts: all are found, and shared anycast prefixes are none."""

from __future__ import annotations

import itertools
import json
from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st
from intents import common_of, fabric, intents

from l3hv.intent.claims import Claim, claims, clashes, largest, owners
from l3hv.model.intent import Largest
from l3hv.model.plain import as_plain, from_plain
from l3hv.model.plan import Owner

COMMON = common_of()


def prefix_claims(*prefixes: tuple[str, bool]) -> list[Claim]:
    return [
        Claim("prefix", prefix, f"field{index}", shared) for index, (prefix, shared) in enumerate(prefixes)
    ]


def test_a_fabric_without_problems_has_no_clashes():
    hosts = intents(fabric(20, guests=5))
    assert clashes({name: claims(host) for name, host in hosts.items()}, COMMON) == []


def test_claims_survive_json():
    for host in intents(fabric(2, guests=2)).values():
        plain = json.loads(json.dumps(as_plain(claims(host))))
        assert tuple(from_plain(Claim, claim) for claim in plain) == claims(host)


def test_two_hosts_can_exchange_their_addresses_on_a_path():
    hosts = fabric(2, guests=0)
    first, second = (name for name, (kind, _) in hosts.items() if kind == "hypervisor")
    on_path = COMMON.network("a", "public", "ipv4")
    assert on_path is not None
    network = IPv4Network(on_path.prefix)
    own = {name: str(network[hosts[name][1]["l3hv_id"]]) for name in (first, second)}
    for name, other in ((first, second), (second, first)):
        hosts[name][1]["l3hv_path_addresses"] = {"a": {"public": {"ipv4": own[other]}}}
    found = intents(hosts)
    assert clashes({name: claims(host) for name, host in found.items()}, COMMON) == []


small_prefixes = st.builds(
    lambda address, length: str(IPv4Network((0xC0000200 + address, length), strict=False)),
    st.integers(0, 15),
    st.integers(28, 32),
)


@given(st.lists(st.tuples(st.sampled_from(["h1", "h2", "h3"]), small_prefixes, st.booleans()), max_size=8))
def test_overlaps_match_a_comparison_of_all_pairs(entries):
    by_host: dict[str, list[Claim]] = {}
    for index, (host, prefix, shared) in enumerate(entries):
        by_host.setdefault(host, []).append(Claim("prefix", prefix, f"field{index}", shared))
    everything = [claim for claims_ in by_host.values() for claim in claims_]
    overlapping = {
        frozenset({one.field, other.field})
        for one, other in itertools.combinations(everything, 2)
        if IPv4Network(one.value).overlaps(IPv4Network(other.value)) and not (one.shared and other.shared)
    }
    problems = clashes(by_host, COMMON)
    # A prefix has at most one problem, with the nearest enclosing prefix; a prefix without overlap has none.
    blamed = [problem.field for problem in problems]
    assert len(blamed) == len(set(blamed))
    assert bool(problems) == bool(overlapping)
    assert set(blamed) <= {field for pair in overlapping for field in pair}
    # Each overlap has at least one prefix with a problem.
    assert all(pair & set(blamed) for pair in overlapping)


def test_an_anycast_prefix_may_overlap_only_anycast_prefixes():
    anycast, same = ("192.0.2.1/32", True), ("192.0.2.1/32", False)
    assert not clashes({"h1": prefix_claims(anycast), "h2": prefix_claims(anycast)}, COMMON)
    assert clashes({"h1": prefix_claims(anycast), "h2": prefix_claims(same)}, COMMON)


def test_an_anycast_prefix_does_not_hide_an_overlap_with_a_unicast_prefix():
    """192.0.2.0/24 has an owner: the anycast /28 inside it and the anycast /32 inside that are problems."""
    found = clashes(
        {
            "h1": prefix_claims(("192.0.2.0/24", False)),
            "h2": prefix_claims(("192.0.2.0/28", True), ("192.0.2.1/32", True)),
        },
        COMMON,
    )
    assert [problem.field for problem in found] == ["field0", "field1"]


def test_ids_of_reflectors_are_unique_on_a_path_and_other_ids_in_the_fabric():
    hosts = fabric(1)
    assert not clashes({name: claims(host) for name, host in intents(hosts).items()}, COMMON)
    hosts["hv2"] = ("hypervisor", {"l3hv_id": 1, "l3hv_uplinks": {"b": "eno1"}})
    hosts["hv1"][1]["l3hv_uplinks"] = {"a": "eno1"}
    problems = clashes({name: claims(host) for name, host in intents(hosts).items()}, COMMON)
    assert [str(problem) for problem in problems] == [
        "hv2: l3hv_id: 1 is the id of hv1. Choose an id that no other host has."
    ]


def test_the_order_of_hosts_does_not_matter():
    hosts = intents(fabric(3))
    made = {name: claims(host) for name, host in hosts.items()}
    made["hv9"] = made["hv1"]
    backwards = dict(reversed(made.items()))
    assert clashes(made, COMMON) == clashes(backwards, COMMON) != []


def test_owners_are_the_claiming_hosts_and_a_moving_guest_has_two_owners():
    hosts = fabric(3)
    for name, anycast in (("hv1", "10.15.0.1"), ("hv3", "10.15.0.1")):
        hosts[name][1]["l3hv_guests"][0]["anycast"] = [anycast]
    hosts["hv2"][1]["l3hv_guests"][0] |= {"moves_from": "hv3", "ipv6": False, "subnets": ["10.15.1.0/24"]}
    parsed = intents(hosts)
    claimed = {name: claims(host) for name, host in parsed.items()}
    ids = {name: host.id for name, host in parsed.items()}
    assert clashes(claimed, COMMON) == []
    assert owners(claimed, ids) == (
        Owner(1, "hv1", ("10.0.0.2/32", "10.15.0.1/32"), ("2001:db8:8000:2::/64",)),
        Owner(2, "hv2", ("10.0.0.3/32", "10.15.1.0/24"), ()),
        Owner(
            3,
            "hv3",
            ("10.0.0.3/32", "10.0.0.4/32", "10.15.0.1/32", "10.15.1.0/24"),
            ("2001:db8:8000:4::/64",),
        ),
    )
    assert largest(claimed) == Largest(ipv4=2, ipv6=1)


def test_guests_of_one_host_own_an_anycast_prefix_once():
    hosts = fabric(1, guests=2)
    for guest in hosts["hv1"][1]["l3hv_guests"]:
        guest |= {"anycast": ["10.15.0.1"], "ipv6": False}
    parsed = intents(hosts)
    claimed = {name: claims(host) for name, host in parsed.items()}
    (found,) = owners(claimed, {name: host.id for name, host in parsed.items()})
    assert found.ipv4 == ("10.0.0.2/32", "10.0.0.3/32", "10.15.0.1/32")

"""Links of leaves and spines: their addresses, AS numbers, and the routes that verification expects."""

from __future__ import annotations

from pathlib import Path

import yaml
from intents import slices

from l3hv.intent.fabric import parse_common
from l3hv.model.choices import KINDS
from l3hv.plan.host import host_plan
from l3hv.verify.links import Links

SOUND = yaml.safe_load((Path(__file__).parents[1] / "errors" / "sound_leaf_spine.yaml").read_text())


def plans():
    common, problems = parse_common(SOUND["common"])
    assert common is not None, problems
    hosts = {
        name: (
            KINDS[variables["groups"][0]],
            {key: value for key, value in variables.items() if key != "groups"},
        )
        for name, variables in SOUND["hosts"].items()
    }
    return {name: host_plan(one) for name, one in slices(hosts, common).items()}


def test_both_ends_of_a_link_agree_on_addresses_and_numbers():
    made = plans()
    for name, plan in made.items():
        for session in plan.routing.sessions:
            (other,) = (
                one
                for one in made[session.peer].routing.sessions
                if (one.peer, one.domain) == (name, session.domain)
            )
            assert (session.local, session.neighbor) == (other.neighbor, other.local)
            assert session.asn == made[session.peer].routing.asn
            assert {session.relation, other.relation} == {"switch", "attached"}
            assert session.failure_profile == other.failure_profile


def test_all_link_local_addresses_differ():
    uplinks = [uplink for plan in plans().values() for uplink in plan.uplinks]
    found = [address.address for uplink in uplinks for address in uplink.addresses]
    assert found
    assert len(found) == len(set(found)) == len(uplinks)


def test_ipv4_has_next_hops_of_ipv6_on_unnumbered_links():
    for session in plans()["hv1"].routing.sessions:
        assert session.neighbor.startswith("fe80::")
        assert "ipv4" in {channel.family for channel in session.channels}


def test_two_frr_both_call():
    """FRR 10 does not call while BFD is down, and starts BFD of an end that waits only with the session."""
    made = plans()
    assert all(not one.passive for one in made["spine1"].routing.sessions)
    assert {one.peer: one.passive for one in made["leaf1"].routing.sessions if one.domain == "public"} == {
        "spine1": False,
        "hv1": True,
        "hv2": True,
        "edge": True,
    }


def fabric(links):
    """Return a fabric of one table: neighbours by host, each with the next hop ``HOST>NEIGHBOUR``."""
    kinds = {"l": "leaf", "s": "spine", "h": "hypervisor"}
    both: dict[str, set[str]] = {host: set() for pair in links for host in pair}
    for one, other in links:
        both[one].add(other)
        both[other].add(one)
    return Links(
        {
            host: {
                "kind": kinds[host[0]],
                "links": {other: {"t": f"{host}>{other}"} for other in sorted(others)},
            }
            for host, others in both.items()
        }
    )


def test_routes_use_the_shortest_paths_over_leaves_and_spines():
    clos = [("h1", "l1"), ("h1", "l2"), ("h2", "l1"), ("h2", "l3"), ("h3", "l3")]
    clos += [(leaf, spine) for leaf in ("l1", "l2", "l3") for spine in ("s1", "s2")]
    made = fabric(clos)
    assert made.next_hops("h1", "t", ["h2"]) == ["h1>l1"]  # the leaf that both share
    assert made.next_hops("h1", "t", ["h3"]) == ["h1>l1", "h1>l2"]
    assert made.next_hops("l1", "t", ["h3"]) == ["l1>s1", "l1>s2"]  # never by h2, which gives no transit
    assert made.next_hops("l2", "t", ["h1", "h3"]) == ["l2>h1"]
    assert made.next_hops("s1", "t", ["s2"]) == []  # the spines share an AS number
    assert made.next_hops("h1", "t", ["h1"]) == []

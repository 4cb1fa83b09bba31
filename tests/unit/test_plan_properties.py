"""Properties of the plans of every fabric."""

from __future__ import annotations

import copy
import json
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from intents import COMMON, EDGE, REFLECTORS, common_of, fabric, hypervisor, intents, slices

from l3hv.intent.hosts import parse_host
from l3hv.intent.neighbors import member
from l3hv.intent.ranges import range_problems
from l3hv.model.addressing import is_inside
from l3hv.model.choices import Kind
from l3hv.model.plain import as_plain, from_plain
from l3hv.model.plan import HostPlan, Session
from l3hv.model.profiles import SESSION_LAYOUTS
from l3hv.plan.host import host_plan
from l3hv.plan.machines import topology

ids = st.sets(st.integers(1, 14999), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(ids)
def test_addresses_are_unique_for_any_set_of_ids(numbers):
    hypervisors: dict[str, tuple[Kind, dict[str, Any]]] = {
        f"hv{n}": ("hypervisor", hypervisor(n, guests=2)) for n in numbers
    }
    hosts = hypervisors | REFLECTORS | EDGE
    plans = [host_plan(part) for part in slices(hosts).values()]
    on_segment: Counter[tuple[str, str, str]] = Counter(
        (uplink.path, uplink.domain, address.address)
        for plan in plans
        for uplink in plan.uplinks
        for address in uplink.addresses
    )
    loopbacks = Counter(loopback.address for plan in plans for loopback in plan.loopbacks)
    routed = Counter(
        (route.prefix, route.family) for plan in plans for guest in plan.guests for route in guest.routes
    )
    router_ids = Counter(plan.routing.router_id for plan in plans)
    for counted in (on_segment, loopbacks, routed, router_ids):
        assert not counted or max(counted.values()) == 1


@settings(max_examples=25, deadline=None)
@given(ids, st.integers(1, 3))
def test_plans_survive_json(numbers, guests):
    for part in slices(
        {f"hv{n}": ("hypervisor", hypervisor(n, guests)) for n in numbers} | REFLECTORS | EDGE
    ).values():
        plan = host_plan(part)
        assert from_plain(HostPlan, json.loads(json.dumps(as_plain(plan)))) == plan


def test_plans_do_not_depend_on_the_order_of_the_intent():
    hosts = fabric(3, guests=4)
    backwards = {
        name: (kind, dict(reversed(variables.items()))) for name, (kind, variables) in reversed(hosts.items())
    }
    for _, variables in backwards.values():
        if "l3hv_guests" in variables:
            variables["l3hv_guests"] = variables["l3hv_guests"][::-1]
        variables["l3hv_uplinks"] = dict(reversed(variables["l3hv_uplinks"].items()))
    common = common_of(dict(reversed(COMMON.items())))
    other = slices(backwards, common)
    assert {name: host_plan(part) for name, part in slices(hosts).items()} == {
        name: host_plan(other[name]) for name in hosts
    }


def test_the_slice_of_a_hypervisor_does_not_depend_on_other_hypervisors():
    assert slices(fabric(1))["hv1"] == slices(fabric(50))["hv1"]


def test_the_slice_of_an_edge_router_does_not_depend_on_hypervisors():
    assert slices(fabric(1))["edge"] == slices(fabric(50))["edge"]


def test_both_ends_of_a_session_agree():
    plans = {name: host_plan(part) for name, part in slices(fabric(4)).items()}
    ends = {
        (name, session.peer, session.path, session.domain): session
        for name, plan in plans.items()
        for session in plan.routing.sessions
    }
    # hv1 to hv4 and the edge router have sessions with two reflectors; the edge router is in public only.
    assert len(ends) == 2 * (4 * 2 * 2 + 2)
    for (name, peer, path, domain), session in ends.items():
        other = ends[peer, name, path, domain]
        assert (session.local, session.neighbor) == (other.neighbor, other.local)
        assert session.passive != other.passive
        assert [channel.family for channel in session.channels] == [c.family for c in other.channels]
        local = plans[name].uplinks
        assert any(
            session.interface == uplink.interface and session.local in {a.address for a in uplink.addresses}
            for uplink in local
        )


def test_one_of_two_reflectors_on_a_path_is_active():
    hosts = fabric(1) | {"rr3": ("route_reflector", {"l3hv_id": 15999, "l3hv_uplinks": {"a": "eno1"}})}
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    between = [
        (name, session.passive)
        for name in ("rr1", "rr3")
        for session in plans[name].routing.sessions
        if session.relation == "reflector_of_path" and session.domain == "public"
    ]
    assert between == [("rr1", False), ("rr3", True)]
    assert plans["rr1"].routing.cluster_id != plans["rr3"].routing.cluster_id


@pytest.mark.parametrize(
    ("wished", "left"),
    [
        ("bfd_llgr", "llgr"),
        ("bfd", "none"),
        ("llgr", "llgr"),
        ("graceful_restart", "graceful_restart"),
        ("link", "link"),
        ("none", "none"),
    ],
)
def test_no_end_uses_bfd_if_the_reflector_has_none(wished, left):
    hosts = fabric(1)
    hosts["hv1"][1]["l3hv_failure_profile"] = wished
    hosts["rr1"] = ("route_reflector", {**hosts["rr1"][1], "l3hv_daemon": "gobgp"})
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    on_hv1 = {session.peer: session for session in plans["hv1"].routing.sessions}
    on_rr1 = {session.peer: session for session in plans["rr1"].routing.sessions}
    assert on_hv1["rr1"].failure_profile == on_rr1["hv1"].failure_profile == left
    assert not on_hv1["rr1"].bfd
    assert not on_rr1["hv1"].bfd
    assert on_hv1["rr2"].failure_profile == wished
    # Of two hold times the shorter one counts.
    assert plans["rr1"].routing.timers.hold_s == 9
    warned = any("rr1 has no BFD (GoBGP)" in warning for warning in plans["hv1"].warnings)
    assert warned == (wished in ("bfd_llgr", "bfd"))
    assert any("GoBGP has no BFD" in warning for warning in plans["rr1"].warnings)


def test_reflectors_on_a_path_use_no_bfd_if_one_has_none():
    hosts = fabric(1) | {
        "rr3": (
            "route_reflector",
            {"l3hv_id": 15999, "l3hv_uplinks": {"a": "eno1"}, "l3hv_daemon": "gobgp"},
        )
    }
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    between = [
        session.failure_profile
        for name in ("rr1", "rr3")
        for session in plans[name].routing.sessions
        if session.relation == "reflector_of_path"
    ]
    assert set(between) == {"llgr"}


def test_session_names_are_unique_symbols():
    hosts: dict[str, tuple[Kind, dict[str, Any]]] = {
        "10hv": ("hypervisor", hypervisor(1)),
        "hv-2.rack": ("hypervisor", hypervisor(2)),
        **REFLECTORS,
    }
    names = [session.name for session in host_plan(slices(hosts)["rr1"]).routing.sessions]
    assert names == ["_10hv_public", "hv_2_rack_public", "_10hv_private", "hv_2_rack_private"]


def test_other_hosts_accept_the_announcements_of_a_hypervisor():
    """The reflectors and the edge router accept every announced prefix."""
    plans = {name: host_plan(part) for name, part in slices(fabric(3, guests=3)).items()}
    for receiver in ("rr1", "edge"):
        accepted = {
            table.name: [(ip_network(m.prefix), m.low, m.high) for m in table.accepts]
            for table in plans[receiver].routing.tables
        }
        for table in plans["hv2"].routing.tables:
            for match in table.announces if table.name in accepted else ():
                prefix = ip_network(match.prefix)
                assert any(
                    is_inside(prefix, pool) and low <= prefix.prefixlen <= high
                    for pool, low, high in accepted[table.name]
                ), match


def test_the_number_of_policy_rules_does_not_depend_on_guests():
    few, many = (host_plan(slices(fabric(1, guests=n))["hv1"]) for n in (1, 200))
    assert few.rules == many.rules


def test_all_tables_of_rules_and_routes_have_names():
    for part in slices(fabric(2, guests=2)).values():
        plan = host_plan(part)
        names = {table.name for table in plan.table_names} | {"main"}
        used = {rule.table for rule in plan.rules} | {route.table for route in plan.last_resorts}
        used |= {table for guest in plan.guests for route in guest.routes for table in route.tables}
        assert used <= names


def test_holders_of_an_anycast_prefix_on_one_host_have_different_metrics():
    variables = hypervisor(1, guests=3)
    for guest in variables["l3hv_guests"]:
        guest["anycast"] = ["10.15.0.1"]
    plan = host_plan(slices({"hv1": ("hypervisor", variables), **REFLECTORS})["hv1"])
    metrics = [r.metric for guest in plan.guests for r in guest.routes if r.kind == "anycast"]
    assert metrics == [10, 11, 12]
    announced = [m.prefix for table in plan.routing.tables for m in table.announces]
    assert announced.count("10.15.0.1/32") == 1


def test_too_many_holders_of_an_anycast_prefix_on_one_host_are_refused():
    variables = hypervisor(1, guests=17)
    for guest in variables["l3hv_guests"]:
        guest["anycast"] = ["10.15.0.1"]
    _, problems = parse_host("hv1", "hypervisor", variables, common_of())
    assert [problem.field for problem in problems] == ["l3hv_guests[vm18].anycast"]


@pytest.mark.parametrize(("guests", "threshold"), [(1, "16384"), (2000, "32768")])
def test_neighbor_tables_grow_with_the_guests(guests, threshold):
    plan = host_plan(slices(fabric(1, guests))["hv1"])
    assert {s.key: s.value for s in plan.sysctls}["net.ipv6.neigh.default.gc_thresh1"] == threshold


def test_router_ids_without_ipv4():
    """Reflectors on two paths may have the same id: their router ids begin with the number of the path."""
    common = common_of(
        {
            "l3hv_asn": 65000,
            "l3hv_domains": {"public": {"table": 90, "vlan": 90}},
            "l3hv_paths": {
                "a": {"public": {"ipv6": "2001:db8:a::/64"}},
                "b": {"public": {"ipv6": "2001:db8:b::/64"}},
            },
            "l3hv_pools": {"six": {"ipv6": "2001:db8:6000::/40"}},
        }
    )
    hosts = {
        "hv1": ("hypervisor", {"l3hv_id": 70000, "l3hv_uplinks": {"a": "eno1", "b": "eno2"}}),
        **REFLECTORS,
    }
    plans = {name: host_plan(part) for name, part in slices(hosts, common).items()}
    assert {name: plan.routing.router_id for name, plan in plans.items()} == {
        "hv1": "0.1.17.112",
        "rr1": "1.0.62.128",
        "rr2": "2.0.62.128",
    }
    assert all(ip_address(session.local).version == 6 for session in plans["hv1"].routing.sessions)
    assert plans["hv1"].rules[0].family == "ipv6"


def test_an_uplink_has_the_addresses_of_its_path():
    plan = host_plan(slices(fabric(1))["hv1"])
    assert [[a.address for a in uplink.addresses] for uplink in plan.uplinks] == [
        ["198.18.0.1", "2001:db8:a::1"],
        ["172.16.0.1"],
        ["198.18.64.1", "2001:db8:b::1"],
        ["172.16.64.1"],
    ]


@pytest.mark.parametrize("host", ["rr1", "rr2"])
def test_a_reflector_has_no_tables_or_rules_in_the_kernel(host):
    plan = host_plan(slices(fabric(1))[host])
    assert (plan.rules, plan.last_resorts, plan.table_names, plan.loopbacks, plan.guests) == (
        (),
        (),
        (),
        (),
        (),
    )
    assert all(table.kernel_table is None for table in plan.routing.tables)
    channels = [channel for session in plan.routing.sessions for channel in session.channels]
    assert {next_hop for channel in channels for next_hop in channel.own_next_hops.values()} == {None}


def test_topology_has_every_machine_port_and_guest():
    hosts = fabric(11, guests=1)
    hosts["hv1"][1]["l3hv_guests"][0] |= {"subnets": ["10.15.0.16/28"], "anycast": ["2001:db8:ffff::/64"]}
    cabled = topology(intents(hosts).values())
    assert [machine.name for machine in cabled.machines][:3] == ["edge", "hv1", "hv2"]
    assert len(cabled.machines) == 14
    assert cabled.segments == ("a-private", "a-public", "b-private", "b-public")
    assert [port.interface for port in cabled.machines[1].ports] == [
        "eno1.90",
        "eno1.20",
        "eno2.90",
        "eno2.20",
    ]
    assert cabled.guests[0].addresses == ("10.15.0.17/32", "2001:db8:ffff::1/128")
    assert [guest.hypervisor for guest in cabled.guests][:3] == ["hv1", "hv2", "hv3"]


def ends_of(layouts: dict[str, str], bird1: str = "") -> dict[tuple[str, str, str, str], Session]:
    """Return both ends of each session of a fabric with these layouts; ``bird1`` is a host with BIRD 1.6."""
    hosts = copy.deepcopy(fabric(2)) | {
        "rr3": ("route_reflector", {"l3hv_id": 15999, "l3hv_uplinks": {"a": "eno1"}}),
    }
    for name, layout in layouts.items():
        kind, variables = hosts[name]
        hosts[name] = (kind, variables | {"l3hv_session_layout": layout})
    if bird1:
        kind, variables = hosts[bird1]
        hosts[bird1] = (kind, variables | {"l3hv_system": "debian12", "l3hv_daemon": "bird1"})
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    return {
        (name, session.peer, session.local, session.neighbor): session
        for name, plan in plans.items()
        for session in plan.routing.sessions
    }


@pytest.mark.parametrize("reflector", SESSION_LAYOUTS)
@pytest.mark.parametrize("client", SESSION_LAYOUTS)
def test_both_ends_have_the_same_session_layout(client, reflector):
    ends = ends_of({"hv1": client, "rr1": reflector})
    for (name, peer, local, neighbor), session in ends.items():
        other = ends[peer, name, neighbor, local]
        assert session.layout == other.layout
        assert [channel.family for channel in session.channels] == [c.family for c in other.channels]
    assert {session.layout for (name, *_), session in ends.items() if name == "hv1"} == {client}
    assert {session.layout for (name, *_), session in ends.items() if name == "hv2"} == {"multiprotocol"}


def test_per_family_sessions_run_over_their_own_family():
    ends = ends_of({"hv1": "per_family"})
    own = [session for (name, *_), session in ends.items() if name == "hv1" and session.peer == "rr1"]
    assert [session.name for session in own] == ["rr1_public4", "rr1_public6", "rr1_private4"]
    for session in own:
        (channel,) = session.channels
        assert session.name.endswith(channel.family[-1])
        assert f"ipv{ip_address(session.local).version}" == channel.family
        assert channel.own_next_hops == {channel.table: session.local}


def test_reflectors_on_a_path_use_the_smaller_layout():
    ends = ends_of({"rr3": "per_family"})
    between = {session.layout for (name, peer, *_), session in ends.items() if {name, peer} == {"rr1", "rr3"}}
    assert between == {"per_family"}


def test_a_shared_session_has_next_hops_in_the_network_of_each_domain():
    ends = ends_of({"hv1": "shared", "hv2": "shared"})
    (session,) = (s for (name, peer, *_), s in ends.items() if (name, peer) == ("hv1", "rr1"))
    assert (session.name, session.domain, session.domains) == ("rr1_shared", "public", ("public", "private"))
    ipv4, ipv6 = session.channels
    assert ipv4.own_next_hops == {"public4": "198.18.0.1", "private4": "172.16.0.1"}
    assert [part.accepted_next_hops for part in ipv4.carries] == ["198.18.0.0/18", "172.16.0.0/18"]
    (back,) = (s for (name, peer, *_), s in ends.items() if (name, peer) == ("rr1", "hv1"))
    judged = [(part.policy, part.accepted_next_hops, part.loopback) for part in back.channels[0].carries]
    assert judged == [
        ("accept_public4_from_hypervisors", "198.18.0.1/32", None),
        ("accept_private4_from_hypervisors", "172.16.0.1/32", "172.22.0.1/32"),
    ]
    assert ipv6.own_next_hops == {"public6": "2001:db8:a::1"}


def test_a_shared_session_works_without_the_public_network():
    uplinks = {"a": {"private": "a-private"}, "b": {"public": "b-public"}}
    hosts = fabric(1) | {"hv7": ("hypervisor", {"l3hv_id": 7, "l3hv_uplinks": uplinks})}
    hosts["hv7"][1]["l3hv_session_layout"] = "shared"
    sessions = host_plan(slices(hosts)["hv7"]).routing.sessions
    assert [(s.name, s.interface, s.domains) for s in sessions] == [
        ("rr1_shared", "a-private", ("private",)),
        ("rr2_shared", "b-public", ("public",)),
    ]


def test_domains_have_different_communities():
    hosts = fabric(1)
    hosts["hv1"][1]["l3hv_session_layout"] = "shared"
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    ours = plans["hv1"].routing.communities
    assert {community.domain: community.value for community in ours} == {
        "public": (65000, 1, 1),
        "private": (65000, 1, 2),
    }
    assert plans["rr1"].routing.communities == ours
    assert plans["edge"].routing.communities == ()


@pytest.mark.parametrize("daemon", ["bird2", "gobgp"])
def test_a_reflector_with_a_range_does_not_change_with_its_clients(daemon):
    def plans(count: int) -> dict[str, HostPlan]:
        hosts = fabric(count)
        kind, variables = hosts["rr1"]
        hosts["rr1"] = (kind, variables | {"l3hv_neighbors": "range", "l3hv_daemon": daemon})
        return {name: host_plan(part) for name, part in slices(hosts).items()}

    few, many = plans(1), plans(20)
    assert few["rr1"] == many["rr1"]
    assert few["rr2"] != many["rr2"]
    assert few["rr1"].routing.sessions == ()
    assert "hv1" not in json.dumps(as_plain(few["rr1"]))
    assert [(own.name, own.neighbor) for own in few["rr1"].routing.ranges] == [
        ("clients_public", "198.18.0.0/18"),
        ("clients_private", "172.16.0.0/18"),
    ]
    for session in many["hv20"].routing.sessions:
        if session.peer == "rr1":
            (own,) = (own for own in few["rr1"].routing.ranges if own.local == session.neighbor)
            assert ip_address(session.local) in ip_network(own.neighbor)
            assert [channel.family for channel in own.channels] == [c.family for c in session.channels]


def test_a_range_compares_the_settings_that_apply_between_both_daemons():
    """GoBGP supports neither BFD nor shared sessions: such settings of the client cause no problem."""
    hosts = copy.deepcopy(fabric(1))
    for _, variables in hosts.values():
        variables |= {"l3hv_session_layout": "shared", "l3hv_failure_profile": "llgr"}
    hosts["edge"][1]["l3hv_uplinks"] = {"a": {"public": "eno1"}}
    hosts["rr1"][1].update(l3hv_neighbors="range", l3hv_daemon="gobgp", l3hv_failure_profile="bfd_llgr")
    assert range_problems(map(member, intents(hosts).values())) == []
    plans = {name: host_plan(part) for name, part in slices(hosts).items()}
    (own,) = (session for session in plans["edge"].routing.sessions if session.peer == "rr1")
    public, _ = plans["rr1"].routing.ranges
    assert (own.layout, own.failure_profile) == (public.layout, public.failure_profile)


@pytest.mark.parametrize("bird1", ["hv1", "rr1", "rr3"])
def test_sessions_with_bird_1_are_per_family(bird1):
    for (name, peer, local, neighbor), session in ends_of({}, bird1).items():
        layout = "per_family" if bird1 in {name, peer} else "multiprotocol"
        assert session.layout == layout
        assert len(session.channels) == 1 or layout == "multiprotocol"
        assert session.name.removesuffix("4").removesuffix("6") == f"{peer}_{session.domain}"
        assert (local, neighbor) == (session.local, session.neighbor)


def test_bird_1_has_a_program_for_each_family():
    hosts = copy.deepcopy(fabric(1))
    hosts["hv1"][1].update(l3hv_system="debian12", l3hv_daemon="bird1")
    programs = host_plan(slices(hosts)["hv1"]).routing.programs
    assert [(program.name, program.families) for program in programs] == [
        ("bird", ("ipv4",)),
        ("bird6", ("ipv6",)),
    ]
    (program,) = host_plan(slices(fabric(1))["hv1"]).routing.programs
    assert (program.name, program.families) == ("bird", ("ipv4", "ipv6"))


def test_reflectors_of_all_paths_but_the_first_change_after_their_clients():
    plans = {name: host_plan(part) for name, part in slices(fabric(2)).items()}
    waiting = {name for name, plan in plans.items() if plan.after_clients}
    reflectors = [plan for plan in plans.values() if plan.kind == "route_reflector"]
    first = min(plan.uplinks[0].path for plan in reflectors)
    assert waiting == {plan.host for plan in reflectors if plan.uplinks[0].path != first}
    assert waiting


def digests(**variables: Any) -> dict[str, str]:
    """Return the digest of a hypervisor's sessions on each path."""
    hosts = fabric(1)
    hosts["hv1"][1].update(variables)
    return dict(digest.split("=") for digest in host_plan(slices(hosts)["hv1"]).routing.session_digests)


@pytest.mark.parametrize(
    ("variables", "anew"),
    [
        ({"l3hv_session_layout": "shared"}, "ab"),
        ({"l3hv_failure_profile": "llgr"}, "ab"),
        ({"l3hv_timers": {"hold_s": 30}}, "ab"),
        ({"l3hv_timers": {"bfd_interval_ms": 200}}, ""),
        ({"l3hv_ecmp": "none"}, ""),
        ({"l3hv_guests": []}, ""),
    ],
)
def test_the_digest_of_sessions_changes_with_settings_that_restart_them(variables: dict[str, Any], anew: str):
    before, after = digests(), digests(**variables)
    assert list(before) == list(after) == ["a", "b"]
    assert [path for path in before if before[path] != after[path]] == list(anew)


@pytest.mark.parametrize("profile", ["bfd", "link", "none"])
def test_a_profile_without_stale_routes_has_no_digest_of_sessions(profile: str):
    assert digests(l3hv_failure_profile=profile) == {}


def test_a_reflector_has_no_digest_of_sessions():
    assert host_plan(slices(fabric(1))["rr1"]).routing.session_digests == ()


@pytest.mark.parametrize("interface", ["vnet9", "vif1.0", "macvtap0", "macvlan3", "tap-vm9"])
def test_an_interface_name_that_libvirt_replaces_is_a_warning(interface: str):
    hosts = fabric(1)
    hosts["hv1"][1]["l3hv_guests"][0]["interface"] = interface
    warnings = [words for words in host_plan(slices(hosts)["hv1"]).warnings if "libvirt" in words]
    name = hosts["hv1"][1]["l3hv_guests"][0]["name"]
    expected = [
        "libvirt replaces interface names that begin with vnet, vif, macvtap, macvlan: "
        f"choose other names for {interface} ({name})"
    ]
    assert warnings == ([] if interface == "tap-vm9" else expected)


def test_bird_1_has_no_last_resort_for_pools():
    hosts = fabric(1)
    hosts["hv1"][1].update(l3hv_daemon="bird1", l3hv_system="debian12", l3hv_session_layout="per_family")
    plan = host_plan(slices(hosts)["hv1"])
    prefixes = {last.prefix for last in plan.last_resorts if last.type == "blackhole"}
    assert prefixes == {"default", "169.254.0.0/16"}


def test_packets_to_unused_addresses_of_a_pool_end_at_the_hypervisor():
    """Each pool has a last resort in the table of its domain, and in no other table."""
    plan = host_plan(slices(fabric(1))["hv1"])
    ends = {(last.table, last.prefix) for last in plan.last_resorts if last.type == "blackhole"}
    assert ends == {
        *(
            ("public", prefix)
            for prefix in ("default", "10.0.0.0/12", "2001:db8:8000::/33", "169.254.0.0/16")
        ),
        *(("private", prefix) for prefix in ("default", "10.64.0.0/16", "169.254.0.0/16")),
    }

"""The test pings: they cover all guests and all boundaries, and their number is linear."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from fabrics import LAB, fabric, lab
from in_words import ping_name

from l3hv.model.plan import HostPlan
from l3hv.model.topology import GuestMachine
from l3hv.plan.announcements import announcements
from l3hv.twin import TwinError, power
from l3hv.twin.state import Twin
from l3hv.verify import packets
from l3hv.verify.packets import planned_addresses, standing_twin
from l3hv.verify.reach import Ping, RunningGuest, pings


def live(plans: dict[str, HostPlan]) -> list[RunningGuest]:
    return [
        RunningGuest(
            name=guest.name,
            host=plan.host,
            domain=guest.domain,
            addresses=tuple(a for a in (guest.lease and guest.lease.address, "2001:db8::1") if a),
            besides=tuple(r.prefix.partition("/")[0] for r in guest.routes if r.kind == "anycast"),
            transparent=tuple(address for address, _ in guest.transparent),
        )
        for plan in plans.values()
        for guest in plan.guests
    ]


def all_pings(plans: dict[str, HostPlan], only: set[str] | None = None) -> list[Ping]:
    announced = {host: announcements(plan) for host, plan in plans.items()}
    chosen = [plan for host, plan in plans.items() if only is None or host in only]
    return pings(chosen, announced, live(plans))


def test_pings_of_the_lab_cover_all_reachability_rules() -> None:
    found = {ping_name(ping) for ping in all_pings(lab())}
    assert {
        "ping vm1 → vm2 ipv4",
        "ping vm4 → vm1 ipv6",
        "ping vm2 → internet ipv4",
        "ping vm2 → internet ipv6",
        "ping vm4 → 203.0.113.10 ipv4",
        "ping vm4 → 2001:db8:cb00:710a:: ipv6",
        "ping vm3 → 203.0.113.11 ipv4",
        "ping hv1 → vm2 ipv6",
        "ping hv3 → hv1 ipv4",
        "silence hv1 → internet ipv4",
        "silence vm1 → hv2's loopback ipv4",
    } <= found
    assert not any("vm1 → 203.0.113.10" in what for what in found), (
        "vm1 pings the anycast address that it holds itself"
    )


def test_names_of_pings_are_unique_on_a_host() -> None:
    found = [(ping.host, ping_name(ping)) for ping in all_pings(lab())]
    assert len(set(found)) == len(found)


def test_every_guest_sends_and_is_reached_in_both_families() -> None:
    plans = fabric(5, 8)
    names = {guest.name for guest in live(plans)}
    found = all_pings(plans)
    for family in ("ipv4", "ipv6"):
        between = [ping for ping in found if ping.source in names and ping_name(ping).endswith(family)]
        assert {ping.source for ping in between} == names
        assert names <= {ping.target for ping in between}


def test_the_number_of_pings_is_linear() -> None:
    small, large = len(all_pings(fabric(5, 10))), len(all_pings(fabric(10, 20)))
    assert large < 5 * small


def test_a_limited_run_sends_from_its_own_hosts() -> None:
    assert {ping.host for ping in all_pings(lab(), {"hv2", "rr1"})} == {"hv2"}


def test_guests_of_different_domains_must_not_reach_each_other() -> None:
    plans = {host: plan for host, plan in lab().items() if plan.kind == "hypervisor"}
    guests = [
        RunningGuest("web", "hv1", "public", ("203.0.113.1",)),
        RunningGuest("db", "hv2", "private", ("10.0.0.1",)),
    ]
    announced = {host: announcements(plan) for host, plan in plans.items()}
    silent = {ping_name(ping) for ping in pings(plans.values(), announced, guests) if not ping.answered}
    assert {"silence web → db ipv4", "silence db → web ipv4", "silence web → hv2's loopback ipv4"} <= silent
    assert "silence db → hv1's loopback ipv4" not in silent


def test_the_expected_addresses_of_a_guest() -> None:
    guest = GuestMachine(
        "vm1", "hv1", "vm1", "50:54:33:00:00:07", "public", 1500, "203.0.113.1", "2001:db8:1::/64"
    )
    assert planned_addresses(guest) == {"ipv4": "203.0.113.1", "ipv6": "2001:db8:1:0:5254:33ff:fe00:7"}


def test_packets_are_sent_only_in_a_twin() -> None:
    assert standing_twin(None, "-F /etc/ssh/ssh_config -o ControlMaster=auto") is None
    assert standing_twin(None, "-F /run/l3hv/neverthere/ssh_config") is None
    assert standing_twin("neverthere", "") is None


def expected_of(plans: dict[str, HostPlan]) -> dict[str, bool]:
    """Return the pings, each with whether an answer is expected."""
    return {ping_name(ping).split(maxsplit=1)[1]: ping.answered for ping in all_pings(plans)}


def changed(host: str, **settings: dict[str, Any]) -> dict[str, HostPlan]:
    """Return the lab with keys added to guests of ``host``; ``settings`` has them by guest."""
    variables = yaml.safe_load((LAB / "host_vars" / f"{host}.yml").read_text())
    guests = [{**guest, **settings.get(guest["name"], {})} for guest in variables["l3hv_guests"]]
    return lab(**{host: {"l3hv_guests": guests}})


def test_only_allowed_sources_are_expected_to_reach_a_guest() -> None:
    found = expected_of(changed("hv1", vm2={"allowed_sources": ["203.0.113.3/32"]}))
    before = expected_of(lab())
    assert {what for what in before if before[what] != found[what]} == {
        "vm1 → vm2 ipv4",
        "vm1 → vm2 ipv6",
        "vm2 → internet ipv4",
        "vm2 → internet ipv6",
        "vm2 → vm3 ipv6",
        "vm2 → 203.0.113.10 ipv4",
        "vm2 → 2001:db8:cb00:710a:: ipv6",
        "vm2 → 203.0.113.11 ipv4",
    } & before.keys()
    assert found["vm2 → vm3 ipv4"], "no answer from the allowed address is expected"
    assert found["hv1 → vm2 ipv4"], "no answer to the hypervisor's own ping is expected"


def test_a_limited_run_expects_nothing_of_restricted_ports_on_other_hosts() -> None:
    plans = changed("hv2", vm3={"allowed_sources": ["203.0.113.4/32"]})
    assert [ping for ping in all_pings(plans) if ping.target == "vm3"]
    assert not [ping for ping in all_pings(plans, {"hv1"}) if ping.target == "vm3"]
    assert [ping for ping in all_pings(lab(), {"hv1"}) if ping.target == "vm3"]


def test_isolated_guests_are_not_expected_to_reach_guests_of_their_hypervisor() -> None:
    found = expected_of(changed("hv1", vm1={"port_isolation": True}))
    before = expected_of(lab())
    assert {what for what in before if before[what] != found.get(what)} == {
        "vm1 → vm2 ipv4",
        "vm1 → vm2 ipv6",
        "vm2 → 203.0.113.10 ipv4",
        "vm2 → 2001:db8:cb00:710a:: ipv6",
        "vm2 → 203.0.113.11 ipv4",
    } & before.keys()
    assert not found["vm1 → vm2 ipv4"]


EDGE: dict[str, Any] = {
    "l3hv_id": 119,
    "l3hv_uplinks": {"a": {"public": "a-public"}, "b": {"public": "b-public"}},
    "l3hv_addresses": ["192.0.2.9"],
}


def test_an_address_of_one_of_two_edge_routers_is_not_pinged() -> None:
    """A hash chooses the edge router of a flow; two edge routers with the same address are pinged."""
    assert expected_of(lab())["vm2 → internet ipv4"]
    other = expected_of(lab({"edge2": ("edge_router", EDGE)}))
    assert not [what for what in other if what.startswith("vm") and what.endswith("→ internet ipv4")]
    internet = yaml.safe_load((LAB / "host_vars" / "internet.yml").read_text())
    same = {**EDGE, "l3hv_addresses": internet["l3hv_addresses"]}
    assert expected_of(lab({"edge2": ("edge_router", same)}))["vm2 → internet ipv4"]


def test_hypervisors_on_different_paths_are_not_expected_to_reach_each_other() -> None:
    """The plan does not decide whether an edge router forwards from one path to another."""
    variables = yaml.safe_load((LAB / "host_vars" / "hv3.yml").read_text())
    uplinks = {path: variables["l3hv_uplinks"][path] for path in variables["l3hv_uplinks"]}
    one = lab(hv3={"l3hv_uplinks": {"b": uplinks["b"]}}, hv1={"l3hv_uplinks": {"a": uplinks["a"]}})
    found = expected_of(one)
    assert "vm4 → vm1 ipv4" not in found
    assert found["vm2 → vm3 ipv4"]


def test_a_machine_that_ssh_does_not_reach_is_no_silent_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the pings that must get no answer would pass."""
    silent = [ping for ping in all_pings(lab()) if ping.source == "hv1" and not ping.answered]
    assert silent
    failing = ["sh", "-c", "echo Connection refused >&2; exit 255"]
    monkeypatch.setattr(power, "command_in", lambda *_: failing)
    with pytest.raises(TwinError, match="no ping was sent from hv1: Connection refused"):
        packets._send_from_machine(Twin("none", print), "hv1", silent)
    monkeypatch.setattr(power, "command_in", lambda *_: ["sh", "-c", "exit 0"])
    assert packets._send_from_machine(Twin("none", print), "hv1", silent) == set()

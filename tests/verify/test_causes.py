"""The cause of failures (a dead daemon, machine or path) is shown first, with its consequences below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import as_planned
import in_words
from fabrics import fabric, lab

from l3hv.model.plan import HostPlan
from l3hv.plan.announcements import announcements
from l3hv.verify.causes import Group, groups
from l3hv.verify.check import Check, Kind, failures
from l3hv.verify.compare import compare
from l3hv.verify.fabric import Fabric
from l3hv.verify.report import Report
from l3hv.verify.report.table import consequence, table
from l3hv.verify.subjects import Host

LAB = lab()
WHOLE = Fabric({host: announcements(plan) for host, plan in LAB.items()})


def without(host: str, plans: dict[str, HostPlan]) -> dict[str, Any]:
    """Return the observations of all hosts while the daemon of ``host`` is dead and its routes are gone."""
    announced = {name: announcements(plan) for name, plan in plans.items()}
    whole = Fabric(announced)
    rest = Fabric({name: part for name, part in announced.items() if name != host})
    seen = {name: as_planned.observation(plan, whole) for name, plan in plans.items()}
    for name, plan in plans.items():
        for routes in plan.routing.tables:
            if routes.kernel_table is not None and name != host:
                seen[name]["learned"][routes.name] = as_planned.listed(
                    rest.routes(plan, routes), routes.prefsrc
                )
        for session in plan.routing.sessions:
            observed = seen[name]["routing"]["sessions"][session.name]
            if session.peer == host:
                observed.update(state="Active", info="Active", error="Socket: Connection refused")
            for channel in observed["channels"].values():
                channel["routes"]["imported"] = 1
    units = seen[host]["units"]
    units["bird.service"]["ActiveState"] = "failed"
    del seen[host]["listeners"]["bird.service"]
    seen[host]["routing"] = {"error": "bird.ctl: Connection refused"}
    return seen


def judged(plans: dict[str, HostPlan], seen: dict[str, Any]) -> tuple[list[Check], list[Group]]:
    """Return the checks of all hosts and their groups."""
    whole = Fabric({host: announcements(plan) for host, plan in plans.items()})
    checks = [check for host, plan in plans.items() for check in compare(plan, seen[host], whole)]
    silent = {host for host in seen if "error" in seen[host]["routing"]}
    return checks, groups(checks, plans, whole, silent)


def names(found: list[Group]) -> list[tuple[str, str]]:
    return in_words.names(group.check for group in found)


def test_a_dead_daemon_is_one_finding_with_all_its_consequences() -> None:
    checks, found = judged(LAB, without("hv2", LAB))
    assert names(found) == [("hv2", "unit bird")]
    assert len(found[0].follows) == len(failures(checks)) - 1 > 20
    assert {check.host for check in found[0].follows} == LAB.keys()


def test_the_table_shows_only_the_cause_unless_it_is_verbose() -> None:
    checks, found = judged(LAB, without("hv2", LAB))
    report = Report("lab", "", 1.0, tuple(checks), tuple(found))
    short, long = table(report).splitlines(), table(report, is_verbose=True)
    assert [line for line in short if line.startswith("FAILED")] == ["FAILED  hv2: unit bird"]
    assert f"    then      {consequence(found[0])} (ansible-playbook -v shows them)" in short
    assert all(f"{host}: {what}\n" in long for host, what in in_words.names(failures(checks)))
    assert report.counts()["failed"] == len(failures(checks))
    assert len(report.as_plain()["checks"]) == len(checks)


def test_a_dead_reflector_explains_the_failures_of_its_path() -> None:
    _, found = judged(LAB, without("rr1", LAB))
    assert names(found) == [("rr1", "unit bird")]


def test_other_failures_are_shown_beside_a_dead_daemon() -> None:
    seen = without("hv2", LAB)
    seen["hv1"]["settings"]["vm1"]["ipv4 proxy_arp"] = "0"
    seen["hv1"]["offers"]["vm1"]["lease"] = None
    seen["hv1"]["routes"]["public ipv4"] = seen["hv1"]["routes"]["public ipv4"][:-1]
    _, found = judged(LAB, seen)
    assert names(found)[0] == ("hv2", "unit bird")
    assert {("hv1", "port vm1 ipv4 proxy_arp"), ("hv1", "lease vm1")} < set(names(found)[1:])
    assert len(found) == 4


def on_lab(change: Callable[[dict[str, Any]], Any]) -> list[Group]:
    """Return the groups of the lab after one change to its observations."""
    seen = {host: as_planned.observation(plan, WHOLE) for host, plan in LAB.items()}
    change(seen)
    return judged(LAB, seen)[1]


def down(seen: dict[str, Any], host: str, session: str) -> None:
    seen[host]["routing"]["sessions"][session].update(state="Active", info="Active")


def without_guest(prefix: str, tables: set[str]) -> Callable[[dict[str, Any]], None]:
    """Return the change after which hv1 lacks a guest's route in these tables."""
    announced = {name: announcements(plan) for name, plan in LAB.items()}
    if "public" in tables:
        for own in announced["hv1"]["tables"].values():
            own["prefixes"].pop(prefix, None)
    rest = Fabric(announced)

    def change(seen: dict[str, Any]) -> None:
        for name, plan in LAB.items():
            changed = as_planned.observation(plan, rest)
            seen[name]["routing"], seen[name]["learned"] = changed["routing"], changed["learned"]
            for routes in plan.routing.tables:
                different = rest.routes(plan, routes) != WHOLE.routes(plan, routes)
                if routes.kernel_table is not None and name != "hv1" and different:
                    listed = as_planned.listed(rest.routes(plan, routes), routes.prefsrc)
                    seen[name]["learned"][routes.name] = listed
        for name, found in seen["hv1"]["routes"].items():
            if name.partition(" ")[0] in tables:
                seen["hv1"]["routes"][name] = [route for route in found if route["prefix"] != prefix]

    return change


def test_a_missing_route_of_a_guest_explains_its_absence_on_other_hosts() -> None:
    found = on_lab(without_guest("203.0.113.1/32", {"public"}))
    assert names(found) == [("hv1", "route 203.0.113.1/32 in public")]
    assert {check.host for check in found[0].follows} == LAB.keys()


def test_a_missing_route_of_the_hosts_own_traffic_explains_nothing() -> None:
    found = on_lab(without_guest("203.0.113.1/32", {"local-out"}))
    assert names(found) == [("hv1", "route 203.0.113.1/32 in local-out")]
    assert found[0].follows == []


def test_a_missing_route_does_not_explain_counts_of_another_family_or_domain() -> None:
    lose = without_guest("203.0.113.1/32", {"public"})

    def change(seen: dict[str, Any]) -> None:
        lose(seen)
        for session, family in (("rr1_public", "ipv6"), ("rr1_private", "ipv4")):
            seen["hv2"]["routing"]["sessions"][session]["channels"][family]["routes"]["imported"] = 0

    found = on_lab(change)
    assert {("hv2", "received rr1_public ipv6"), ("hv2", "received rr1_private ipv4")} < set(names(found))
    assert names(found)[0] == ("hv1", "route 203.0.113.1/32 in public")


def test_an_interface_that_is_down_explains_its_sessions_at_both_ends() -> None:
    def change(seen: dict[str, Any]) -> None:
        seen["hv1"]["links"]["a-public"]["carrier"] = False
        down(seen, "hv1", "rr1_public")
        down(seen, "rr1", "hv1_public")

    found = on_lab(change)
    assert names(found) == [("hv1", "link a-public")]
    assert set(in_words.names(found[0].follows)) == {
        ("hv1", "session rr1_public"),
        ("rr1", "session hv1_public"),
        ("hv1", "path a has a session for public"),
    }


def test_the_two_ends_of_a_session_are_one_finding() -> None:
    def change(seen: dict[str, Any]) -> None:
        for domain in ("public", "private"):
            down(seen, "hv3", f"rr2_{domain}")
            down(seen, "rr2", f"hv3_{domain}")

    found = on_lab(change)
    assert len(found) == 1
    assert len(found[0].follows) == 5


def test_an_unreachable_host_explains_its_sessions() -> None:
    seen = {host: as_planned.observation(plan, WHOLE) for host, plan in LAB.items()}
    down(seen, "hv1", "rr1_public")
    lost = Check("rr1", Kind.OBSERVATION, Host(), "possible", "unreachable", "failed")
    checks = [check for host in ("hv1", "hv2") for check in compare(LAB[host], seen[host], WHOLE)]
    plans = {host: LAB[host] for host in ("hv1", "hv2")}
    found = groups([lost, *checks], plans, WHOLE, set())
    assert names(found) == [("rr1", "observation")]


def test_a_failed_service_explains_its_missing_offers() -> None:
    def change(seen: dict[str, Any]) -> None:
        seen["hv1"]["units"]["radvd.service"]["ActiveState"] = "failed"
        for guest in ("vm1", "vm2"):
            seen["hv1"]["offers"][guest]["router"] = None

    found = on_lab(change)
    assert names(found) == [("hv1", "unit radvd")]
    assert consequence(found[0]) == "2 more checks on 1 host follow from it"


def test_a_failure_on_every_host_is_grouped_in_linear_time() -> None:
    def count(hypervisors: int) -> int:
        plans = fabric(hypervisors, 2)
        _, found = judged(plans, without("rra", plans))
        assert names(found) == [("rra", "unit bird")]
        return len(found[0].follows)

    assert 1.8 < count(8) / count(4) < 2.2

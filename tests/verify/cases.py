"""Verifications with golden reports: fabrics as planned, and breaks in these fabrics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import as_planned
from breaks import DIFFERENCES, FOREIGN, HARMLESS, OTHERS, TRANSLATING, added, with_value
from fabrics import lab

from l3hv.model.choices import Kind
from l3hv.model.plan import HostPlan
from l3hv.model.topology import GuestMachine
from l3hv.plan.announcements import announcements
from l3hv.twin import guests as twin_guests
from l3hv.verify import packets
from l3hv.verify.causes import groups
from l3hv.verify.check import Check
from l3hv.verify.compare import compare
from l3hv.verify.fabric import Fabric
from l3hv.verify.ranges import with_clients, with_names
from l3hv.verify.reach import Ping
from l3hv.verify.report import Report

PLUGIN = Path(__file__).parents[2] / "plugins" / "action" / "l3hv_verify.py"
Change = Callable[[dict[str, Any]], Any]
Seen = dict[str, dict[str, Any]]


@dataclass
class Case:
    """A fabric and its observations; ``chosen`` are the observed hosts (all hosts if it is empty).

    ``more`` are checks from outside the comparison.
    """

    plans: dict[str, HostPlan]
    change: Callable[[Seen], Any] = lambda seen: None
    chosen: tuple[str, ...] = ()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    more: Callable[[dict[str, HostPlan]], list[Check]] = lambda plans: []

    def fabric(self) -> Fabric:
        announced = {host: announcements(plan) for host, plan in self.plans.items()}
        return Fabric(announced, self.absent)

    def seen(self, whole: Fabric) -> Seen:
        """Return the observations of the fabric, before sessions of ranges get their names."""
        plans = {host: with_clients(plan, whole) for host, plan in self.plans.items()}
        seen = {
            host: as_planned.observation(plan, whole, self.absent.get(host, frozenset()))
            for host, plan in plans.items()
        }
        for host, plan in plans.items():
            sessions = seen[host]["routing"]["sessions"]
            for own in plan.routing.ranges:
                sessions[own.name] = dict.fromkeys(("neighbor", "local", "error"), "") | {
                    "state": "Passive",
                    "info": "Passive",
                    "channels": {},
                }
        self.change(seen)
        return {host: seen[host] for host in (self.chosen or seen)}

    def report(self, name: str) -> Report:
        """Return the report of the verification from the action plugin."""
        whole = self.fabric()
        found = self.seen(whole)
        plans = {host: with_clients(self.plans[host], whole) for host in found}
        least = whole.without_guests_of(self.plans.keys() - plans.keys())
        checks = self.more(plans)
        for host, plan in plans.items():
            checks += compare(plan, with_names(plan, found[host]), whole, least)
        silent = {host for host, seen in found.items() if "error" in seen["routing"]}
        grouped = tuple(groups(checks, plans, whole, silent))
        return Report(name, "2026-11-21T03:00:00+00:00", 1.4, tuple(checks), grouped)


def load_plugin() -> ModuleType:
    """Import the action plugin."""
    specification = importlib.util.spec_from_file_location("action_l3hv_verify", PLUGIN)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def play(module: ModuleType, **looks: dict[str, Any]) -> Any:
    """Return the registered results of the hosts of a play."""
    variables = {host: {"look": look} for host, look in looks.items()}
    return module.PlayResults({"hostvars": variables, "ansible_play_hosts_all": [*looks]}, ["look"])


def unseen(_: dict[str, HostPlan]) -> list[Check]:
    """Return the checks of two hosts that were not observed."""
    found: list[Check] = play(
        load_plugin(), rr1={"msg": "Task failed: timed out " + "x" * 200}, hv9={}
    ).failed_checks()
    return found


def sent(plans: dict[str, HostPlan]) -> list[Check]:
    """Return the checks of packets in a twin that loses some, and in which a guest has another address."""
    topology = SimpleNamespace(
        machines=[],
        guests=[
            GuestMachine(
                guest.name,
                plan.host,
                guest.interface,
                guest.mac,
                guest.domain,
                guest.mtu,
                guest.lease.address if guest.lease else None,
                guest.prefix.prefix if guest.prefix else None,
                tuple(route.prefix for route in guest.routes if route.kind == "anycast"),
                tuple(address for address, _ in guest.transparent),
            )
            for plan in plans.values()
            for guest in plan.guests
        ],
    )
    held = {
        guest.name: [] if guest.name == "vm2" else ["203.0.113.99", "2001:db8::9"]
        for guest in topology.guests
        if guest.name in {"vm2", "vm3"}
    }

    def answered(wanted: list[Ping], _: Mapping[str, str]) -> set[Ping]:
        return {ping for number, ping in enumerate(wanted) if ping.answered != (number % 5 == 0)}

    twin = SimpleNamespace(name="lab", guest_namespace=str, machine_namespace=str)
    with (
        mock.patch.multiple(
            twin_guests,
            is_plugged=lambda *_: True,
            place=lambda *_: None,
            addresses=lambda _, guest: held.get(guest.name, [*packets.planned_addresses(guest).values()]),
            kind=lambda *_: SimpleNamespace(qemu=False),
        ),
        mock.patch.object(packets, "send", answered),
        mock.patch.object(packets, "PATIENCE", 0.0),
    ):
        announced = {host: announcements(plan) for host, plan in plans.items()}
        standing: Any = SimpleNamespace(topology=topology)
        there: Any = twin
        return packets.check_packets(there, standing, plans, announced)


def on(host: str, *changes: Change) -> Callable[[Seen], None]:
    """Return the change to all observations that makes ``changes`` on one host."""

    def change(seen: Seen) -> None:
        for each in changes:
            each(seen[host])

    return change


LAB = lab()
UPLINKS = {"b": {"public": "b-public", "private": "b-private"}}
GOBGP: tuple[Kind, dict[str, Any]] = (
    "route_reflector",
    {"l3hv_id": 100, "l3hv_daemon": "gobgp", "l3hv_uplinks": UPLINKS},
)
CLIENTS = ("hv1", "hv2", "hv3", "internet")
FABRICS: dict[str, dict[str, HostPlan]] = {
    "lab": LAB,
    "daemons": lab({"rr3": GOBGP}, rr1={"l3hv_daemon": "frr"}),
    "per_family": lab(**{host: {"l3hv_session_layout": "per_family"} for host in CLIENTS}),
    "shared": lab(**{host: {"l3hv_session_layout": "shared"} for host in CLIENTS}),
    "range": lab(rr1={"l3hv_neighbors": "range"}),
    "choices": lab(
        hv1={"l3hv_anycast": "spread"}, hv2={"l3hv_ecmp": "none"}, hv3={"l3hv_ecmp": "without_default"}
    ),
}


def learned(seen: Seen, host: str, name: str, routes: Mapping[str, list[str]], *gone: str) -> None:
    """Let a host learn ``routes`` in addition to the planned ones, except routes to the prefixes ``gone``."""
    table = next(table for table in LAB[host].routing.tables if table.name == name)
    rest = {k: v for k, v in Case(LAB).fabric().routes(LAB[host], table).items() if k not in gone}
    seen[host]["learned"][name] = as_planned.listed({**rest, **routes}, table.prefsrc)


def die(seen: Seen, host: str) -> None:
    """End the routing daemon of ``host``: its neighbours lose their sessions and its routes."""
    seen[host]["routing"] = {"error": "bird.ctl: Connection refused"}
    seen[host]["units"]["bird.service"]["ActiveState"] = "failed"
    del seen[host]["listeners"]["bird.service"]
    for name, plan in LAB.items():
        for session in plan.routing.sessions:
            if session.peer == host:
                seen[name]["routing"]["sessions"][session.name].update(
                    state="Active", info="Active", error="Socket: Connection refused"
                )
    for name in LAB.keys() - {host, "rr1", "rr2"}:
        learned(seen, name, "public4", {}, *(r.prefix for guest in LAB[host].guests for r in guest.routes))


def cut(seen: Seen) -> None:
    """Remove the carrier of an uplink; the session on it is down at both ends."""
    seen["hv1"]["links"]["a-public"]["carrier"] = False
    seen["hv1"]["addresses"]["a-public"] = []
    for host, session in (("hv1", "rr1_public"), ("rr1", "hv1_public")):
        seen[host]["routing"]["sessions"][session].update(state="Connect", info="Connect", error="")
    for session in seen["rr1"]["routing"]["bfd"]:
        session["state"] = "Down"


def stop_services(seen: Seen) -> None:
    """Stop the services for guests; their offers fail too."""
    here = seen["hv1"]
    for unit in ("radvd", "l3hv-dhcp", "l3hv-nftables", "l3hv-tables"):
        here["units"][f"{unit}.service"].update(ActiveState="inactive", UnitFileState="")
    for unit in ("radvd", "l3hv-dhcp"):
        del here["listeners"][f"{unit}.service"]
    for guest in here["offers"].values():
        guest.update(lease=None, router=None)
    here["packet_filter"].update(loaded=False, sets={}, drops={})
    here["translations"] = {}
    here["rules"]["ipv4"] = here["rules"]["ipv4"][:1]
    here["routes"]["public ipv4"] = here["routes"]["public ipv4"][1:]


def many_routes(seen: Seen) -> None:
    extra = {f"203.0.113.{number}/32": ["198.51.100.2"] for number in range(100, 125)}
    learned(seen, "hv1", "public4", extra)


def leave_traces(seen: Seen) -> None:
    """Add remains on hypervisors and reflectors that belong to no plan."""
    here, reflector = seen["hv1"], seen["rr1"]
    here["rules"]["ipv4"] += [
        *HARMLESS.values(),
        FOREIGN | {"priority": 900, "oif": "vm1", "inverted": True, "mark": 7, "mask": 0xFF},
        FOREIGN | {"priority": 901, "source": "10.0.0.0/8", "destination": "10.1.0.0/16", "ip_protocol": 6},
        FOREIGN | {"priority": 902, "action": "blackhole", "source_port": "179-180"},
    ]
    here["links"]["left"] = as_planned.link(1500)
    here["addresses"]["left"] = [
        {"address": "203.0.113.254/32", "is_link_scope": False, "trouble": "tentative"}
    ]
    here["neighbors"] += [{"guest": "vm1", "address": "203.0.113.1", "mac": "02:00:00:00:00:99"}]
    here["routes"]["public ipv4"] += [
        as_planned.route("203.0.113.77/32", "vm1", metric=5, protocol=99),
        as_planned.route("203.0.113.78/32", "vm1", type="prohibit", protocol=3),
        {
            **as_planned.route("203.0.113.79/32", "vm1"),
            "next_hops": [{"via": "10.0.0.1", "dev": "vm2"}, {"via": None, "dev": "vm1"}],
        },
    ]
    here["packet_filter"]["drops"] |= {"more": 1}
    here["routing"]["bfd"] += [{"address": "198.51.100.9", "interface": "a-public", "state": "Init"}]
    here["units"]["l3hv-other.service"] = {
        "ActiveState": "active",
        "UnitFileState": "static",
        "DropInPaths": "",
    }
    reflector["unknown_callers"] |= {"198.51.100.9": 1, "198.51.100.10": 3}
    sessions = reflector["routing"]["sessions"]
    sessions["left_public"] = {**sessions["hv1_public"], "neighbor": "198.51.100.77"}
    refused = [{"prefix": f"203.0.113.{200 + n}/32", "reason": n or None} for n in range(8)]
    sessions["left_public"]["channels"] = {
        "ipv4": {"state": "UP", "table": "t", "routes": {}, "limits": ["limit of 8"], "refused": refused}
    }
    for name, action in (("hv2_public", "limit of 128 (131 now)"), ("hv3_public", "limit of 1")):
        sessions[name]["channels"]["ipv4"] |= {"limits": [action], "refused": refused[:2]}


def change_values(seen: Seen) -> None:
    """Change many values of one host."""
    here = seen["hv1"]
    here["links"]["a-public"].update(up=False)
    here["links"]["b-public"].update(vlan=7, parent="eno1")
    here["addresses"]["b-private"] = []
    here["networkd"]["vm1"] = "failed"
    here["routing"]["bfd"][0].update(interval="0.000", timeout="0.000")
    here["routing"]["bfd"][1].pop("state")
    here["routing"]["sessions"]["rr1_private"].update(state="Active", info="Active        Socket: refused")
    here["offers"]["vm1"]["lease"].update(dns=[], routes=[["0.0.0.0/0", "10.0.0.1"]], mtu=None, netmask=None)
    here["offers"]["vm1"]["router"].update(dns=["2001:db8::53"], mac="02:00:00:00:00:07", mtu=None)
    here["offers"]["vm2"]["router"]["prefixes"] *= 2
    here["offers"]["vm2"]["router"]["prefixes"][0]["on_link"] = None
    here["packet_filter"]["foreign_macs"]["vm1"] = ["02:00:00:00:00:99", "50:54:33:00:00:07"]
    here["learned"]["public4"] |= {"attributes": {"metric 32": 1, "metric 20 src 10.0.0.1": 2}}
    here["sysctls"]["net.ipv4.ip_forward"] = None
    here["silent"] = {"systemd-networkd.service": "no answer within 10 s"}
    here["sizes"]["b-public 198.51.100.254"] = 0


CASES: dict[str, dict[str, Case]] = {
    "cuts": {
        "a daemon that is dead": Case(LAB, lambda seen: die(seen, "hv2")),
        "an interface without carrier": Case(LAB, cut),
        "services that are not running": Case(LAB, stop_services),
    },
    "values": {
        "what belongs to no plan": Case(LAB, leave_traces),
        "other values": Case(LAB, change_values),
        "a file without digest": Case(LAB, on("hv1", with_value(None, "routing", "configuration", "placed"))),
        "no file": Case(
            LAB,
            on(
                "hv1",
                with_value(dict.fromkeys(("running", "placed", "file")), "routing", "configuration"),
            ),
        ),
        "a packet filter that is not read": Case(
            LAB,
            on("hv1", lambda seen: seen["packet_filter"].update(loaded=False, sets={}, unread="no answer")),
        ),
        "a host in a container": Case(
            LAB,
            on(
                "hv1",
                lambda seen: seen.update(is_container=True),
                with_value(None, "sysctls", "net.ipv4.neigh.default.gc_thresh1"),
            ),
        ),
        "a set with many differences": Case(
            LAB,
            on(
                "hv1",
                lambda seen: seen["packet_filter"]["sets"]["inet macs"].extend(
                    f"x{n} . y" for n in range(14)
                ),
            ),
        ),
        "a drop-in": Case(
            LAB,
            on(
                "hv1",
                with_value(
                    "/etc/systemd/system/bird.service.d/zz-l3hv.conf /etc/b.conf /etc/c.conf",
                    *("units", "bird.service", "DropInPaths"),
                ),
                with_value("15", "units", "bird.service", "KillSignal"),
            ),
        ),
    },
    "routes": {
        "many learned routes": Case(LAB, many_routes),
        "an unseen guest": Case(
            LAB,
            lambda seen: learned(seen, "hv1", "public4", {}, "203.0.113.4/32"),
            chosen=("hv1",),
        ),
        "a route that is not announced": Case(
            LAB,
            lambda seen: learned(
                seen, "hv3", "public4", {"203.0.113.9/32": ["198.51.100.2"]}, "203.0.113.1/32", "0.0.0.0/0"
            ),
        ),
        "a guest on its way": Case(
            LAB,
            lambda seen: learned(seen, "hv3", "public4", {"203.0.113.1/32": ["198.51.100.2"]}),
            chosen=("hv3",),
        ),
        "a guest that is not started": Case(LAB, absent={"hv1": frozenset({"vm1"})}),
        "a guest without carrier": Case(LAB, on("hv1", with_value(False, "links", "vm1", "carrier"))),
        "a limited choice": Case(
            lab(hv3={"l3hv_ecmp_limit": 2}),
            lambda seen: learned(
                seen, "hv3", "public4", {"203.0.113.10/32": ["198.51.100.1", "198.51.100.99"]}
            ),
        ),
    },
    "made_elsewhere": {
        "hosts that were not looked at": Case(LAB, cut, ("hv1", "hv2"), more=unseen),
        "packets": Case(LAB, more=sent),
    },
    "daemons": {
        "an FRR that differs": Case(
            FABRICS["daemons"],
            on(
                "rr1",
                with_value("d0", "routing", "configuration", "running"),
                with_value("192.0.2.1", "routing", "router_id"),
                with_value("Active", "routing", "sessions", "hv1_public", "state"),
                with_value(
                    77, *("routing", "sessions", "hv2_public", "channels", "ipv4", "routes", "imported")
                ),
                with_value(
                    77, *("routing", "sessions", "hv2_public", "channels", "ipv4", "routes", "exported")
                ),
                with_value("Down", "routing", "bfd", 0, "state"),
            ),
        ),
        "a GoBGP that differs": Case(
            FABRICS["daemons"],
            on(
                "rr3",
                with_value("d0", "routing", "configuration", "running"),
                with_value("192.0.2.1", "routing", "router_id"),
                with_value("Active", "routing", "sessions", "hv1_public", "state"),
                with_value(
                    77, *("routing", "sessions", "hv2_public", "channels", "ipv4", "routes", "imported")
                ),
                with_value(
                    0, *("routing", "sessions", "hv2_public", "channels", "ipv4", "routes", "exported")
                ),
            ),
        ),
        "daemons that do not answer": Case(
            FABRICS["daemons"],
            lambda seen: [seen[host].update(routing={"error": "refused"}) for host in ("rr1", "rr2", "rr3")],
        ),
        "BFD of one family": Case(
            FABRICS["per_family"], on("hv1", with_value("Down", "routing", "bfd", 1, "state"))
        ),
        "a shared session": Case(
            FABRICS["shared"],
            on("hv1", with_value("Active", "routing", "sessions", "rr1_shared", "state")),
        ),
        "a client in a range": Case(
            FABRICS["range"],
            on("rr1", lambda seen: seen["routing"]["sessions"].pop("hv1_public")),
        ),
        "anycast that is not spread": Case(
            FABRICS["choices"],
            on("hv1", with_value(as_planned.learned_routes({}), "learned", "public4_spread")),
        ),
    },
}


def others(chains: dict[str, Any], family: str) -> Change:
    table = {"family": family, "table": "other", "chains": chains, "unread": None}
    return added(table, "chains")


def single_breaks() -> Iterator[tuple[str, Case]]:
    """Yield a case of hv1 for each change in the tests of the comparison."""
    for name, (change, _) in DIFFERENCES.items():
        yield name, Case(LAB, on("hv1", change), ("hv1",))
    for name, rule in HARMLESS.items():
        yield f"a rule {name}", Case(LAB, on("hv1", added(rule, "rules", "ipv4")), ("hv1",))
    for name, (chains, _) in OTHERS.items():
        yield f"dropped: {name}", Case(LAB, on("hv1", others(chains, "ip")), ("hv1",))
    for name, (chains, _) in TRANSLATING.items():
        yield f"rewritten: {name}", Case(LAB, on("hv1", others(chains, "inet")), ("hv1",))
    unread = {"family": "iptables-legacy", "table": "nat", "chains": {}, "unread": "not all was read"}
    yield "rules that are not read", Case(LAB, on("hv1", added(unread, "chains")), ("hv1",))
    everywhere = {name: chain for chains, _ in TRANSLATING.values() for name, chain in chains.items()}
    everywhere |= {name: chain for chains, _ in OTHERS.values() for name, chain in chains.items()}
    for host in LAB:
        yield f"all of these on {host}", Case(LAB, on(host, others(everywhere, "ip6tables-legacy")), (host,))


CASES["single_breaks"] = dict(single_breaks())

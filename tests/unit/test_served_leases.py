"""The DHCP server for guests whose hypervisors relay: its leases, its relays and its subnets."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from golden_cases import INVENTORIES, plans

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import read_fabric
from l3hv.model.plain import from_plain
from l3hv.model.plan import HostPlan
from l3hv.plan.dhcp_server import LEASE_S, relaying_to, server_of

ADDRESS = "172.22.9.53"


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, Any]]:
    return plans(INVENTORIES / "dhcp-relay")


def test_each_guest_has_one_lease_for_its_hypervisor_and_port(shipped: dict[str, dict[str, Any]]) -> None:
    served = shipped["services"]["dhcp_server"]
    leases = {guest["circuit_id"]: guest["address"] for pool in served["pools"] for guest in pool["guests"]}
    assert leases == {
        "hv1/vm1": "203.0.113.1",
        "hv1/vm2": "203.0.113.2",
        "hv2/vm3": "203.0.113.3",
        "hv3/vm4": "203.0.113.4",
    }
    relayed = {
        guest["circuit_id"]: guest["address"]
        for plan in shipped.values()
        if plan["guest_services"]["dhcp_relay"]
        for guest in plan["guest_services"]["dhcp_relay"]["guests"]
    }
    assert relayed == leases, "the relays name the guests as the server knows them"


def test_only_the_server_serves(shipped: dict[str, dict[str, Any]]) -> None:
    assert {host for host, plan in shipped.items() if plan["dhcp_server"]} == {"services"}


def test_the_server_answers_from_its_address(shipped: dict[str, dict[str, Any]]) -> None:
    sources = {
        (host, table["name"]): table["prefsrc"]
        for host, plan in shipped.items()
        if plan["kind"] == "edge_router"
        for table in plan["routing"]["tables"]
    }
    assert sources[("services", "private4")] == ADDRESS
    assert {source for table, source in sources.items() if table[0] == "internet"} == {None}


def test_the_server_originates_its_address(shipped: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """The default route leads to any edge router of the domain."""
    assert shipped["services"]["routing"]["tables"][0]["originates"] == ["0.0.0.0/0", f"{ADDRESS}/32"]
    assert shipped["services"]["warnings"] == []
    inventory = copied(tmp_path, ("group_vars/all/fabric.yml", f"    accept: [{ADDRESS}/32]\n", ""))
    plan = plans(inventory)["services"]
    assert plan["routing"]["tables"][0]["originates"] == ["0.0.0.0/0"]
    assert any(f"add {ADDRESS}/32 to l3hv_domains.private.accept" in warning for warning in plan["warnings"])


def test_the_plans_of_hypervisors_give_the_same_server(shipped: dict[str, dict[str, Any]]) -> None:
    """An operator's own Kea gets the leases from the plans of all hypervisors."""
    everything = [from_plain(HostPlan, plan) for plan in shipped.values()]
    served = from_plain(HostPlan, shipped["services"]).dhcp_server
    assert server_of(ADDRESS, relaying_to(ADDRESS, everything)) == served
    assert server_of("192.0.2.53", relaying_to("192.0.2.53", everything)).relays == ()


def test_a_guest_with_another_mtu_has_an_option_of_its_own(shipped: dict[str, dict[str, Any]]) -> None:
    everything = [from_plain(HostPlan, plan) for plan in shipped.values()]
    changed = [
        replace(plan, guests=tuple(replace(guest, mtu=9000) for guest in plan.guests))
        if plan.host == "hv2"
        else plan
        for plan in everything
    ]
    (pool,) = server_of(ADDRESS, relaying_to(ADDRESS, changed)).pools
    assert (pool.mtu, {guest.name: guest.mtu for guest in pool.guests if guest.mtu}) == (1500, {"vm3": 9000})


def test_both_servers_give_leases_of_the_same_duration() -> None:
    """Guests notice no difference when a hypervisor changes between its own server and the relay."""
    template = INVENTORIES.parent / "roles/guest_services/templates/dhcp.conf.j2"
    hours = re.findall(r"^dhcp-range=.*,(\d+)h$", template.read_text(encoding="utf-8"), re.MULTILINE)
    assert [3600 * int(number) for number in hours] == [LEASE_S]


def test_the_source_of_answers_is_that_of_the_private_domain_only(tmp_path: Path) -> None:
    """An edge router of both domains keeps the kernel's choice in the public one."""
    inventory = copied(
        tmp_path,
        ("host_vars/services.yml", "l3hv_edge_domains: [private]", "l3hv_edge_domains: [public, private]"),
        ("host_vars/services.yml", "{private: a-private}", "{public: a-public, private: a-private}"),
    )
    tables = plans(inventory)["services"]["routing"]["tables"]
    assert {table["name"]: table["prefsrc"] for table in tables if table["domain"] == "public"} == {
        "public4": None,
        "public6": None,
    }
    assert {table["prefsrc"] for table in tables if table["name"] == "private4"} == {ADDRESS}


def copied(tmp_path: Path, *changes: tuple[str, str, str]) -> Path:
    """Return a copy of the inventory in which texts of files are replaced."""
    copy = tmp_path / "dhcp-relay"
    shutil.copytree(INVENTORIES / "dhcp-relay", copy)
    for name, old, new in changes:
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    return copy


def test_guests_behind_a_link_local_gateway_have_subnets_of_their_own(tmp_path: Path) -> None:
    """Kea derives the netmask from the subnet, and these guests have single addresses."""
    inventory = copied(
        tmp_path, ("group_vars/all/fabric.yml", "gateway: 203.0.113.254", "gateway: link_local")
    )
    found = plans(inventory)
    pools = found["services"]["dhcp_server"]["pools"]
    assert [(pool["prefix"], pool["gateway"]) for pool in pools] == [
        (f"203.0.113.{number}/32", "169.254.1.1") for number in (1, 2, 3, 4)
    ]
    assert len({pool["id"] for pool in pools}) == len(pools)
    relayed = found["hv1"]["guest_services"]["dhcp_relay"]["guests"]
    assert [guest["link"] for guest in relayed] == [guest["address"] for guest in relayed]


def test_a_run_of_the_server_alone_reads_all_hypervisors(tmp_path: Path) -> None:
    """Other runs read only the hosts that they touch, and remember little about the others."""
    inventory = copied(tmp_path)
    opened = open_inventory(inventory)
    everyone = opened.kinds()[0]
    first = read_fabric(opened, everyone, tmp_path / "fabric")
    whole = json.loads((first.plans / "services.json").read_text(encoding="utf-8"))
    path = inventory / "host_vars/hv3.yml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("203.0.113.4\n", "203.0.113.5\n"), encoding="utf-8"
    )
    alone = read_fabric(open_inventory(inventory), ["services"], tmp_path / "fabric")
    plan = json.loads((alone.plans / "services.json").read_text(encoding="utf-8"))
    assert [path.stem for path in alone.plans.glob("*.json")] == ["services"]
    assert [relay["name"] for relay in plan["dhcp_server"]["relays"]] == ["hv1", "hv2", "hv3"]
    assert whole["dhcp_server"]["pools"][0]["guests"][-1]["address"] == "203.0.113.4"
    assert plan["dhcp_server"]["pools"][0]["guests"][-1]["address"] == "203.0.113.5"


def test_a_server_without_relays_is_reported(tmp_path: Path) -> None:
    inventory = copied(
        tmp_path,
        ("group_vars/all/fabric.yml", "l3hv_dhcp: relay\n", ""),
        ("group_vars/all/fabric.yml", "l3hv_dhcp_servers: [172.22.9.53]\n", ""),
    )
    plan = plans(inventory)["services"]
    assert plan["dhcp_server"]["relays"] == []
    assert any("no hypervisor relays DHCP to 172.22.9.53" in warning for warning in plan["warnings"])

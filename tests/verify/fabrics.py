"""Fabrics to verify: plans of the lab and of fabrics of any size, made without Ansible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from l3hv.intent.all_hosts import AllHosts
from l3hv.intent.fabric import parse_common
from l3hv.intent.hosts import parse_host
from l3hv.model.choices import KINDS, Kind
from l3hv.model.plan import HostPlan
from l3hv.plan.host import host_plan

INVENTORIES = Path(__file__).parents[2] / "inventories"
LAB = INVENTORIES / "lab"


def plans(
    common_variables: Mapping[str, Any], hosts: Mapping[str, tuple[Kind, Mapping[str, Any]]]
) -> dict[str, HostPlan]:
    """Return the plan of each host of an intent without problems."""
    common, problems = parse_common(common_variables)
    assert common is not None
    intents = {}
    for name, (kind, variables) in hosts.items():
        intent, wrong = parse_host(name, kind, {**common_variables, **variables}, common)
        problems += wrong
        assert intent is not None, wrong
        intents[name] = intent
    assert not problems, problems
    everybody = AllHosts.of(common, intents)
    return {name: host_plan(everybody.slice_of(intent)) for name, intent in intents.items()}


def lab(
    more: Mapping[str, tuple[Kind, Mapping[str, Any]]] | None = None,
    /,
    pools: Mapping[str, Any] | None = None,
    **changes: Mapping[str, Any],
) -> dict[str, HostPlan]:
    """Return the plans of the lab with changed variables of hosts, and with additional hosts and pools."""
    return design("lab", more, pools, **changes)


def design(
    inventory: str,
    more: Mapping[str, tuple[Kind, Mapping[str, Any]]] | None = None,
    pools: Mapping[str, Any] | None = None,
    /,
    **changes: Mapping[str, Any],
) -> dict[str, HostPlan]:
    """Return the plans of a shipped inventory, which may be changed in the same way as the lab."""
    place = INVENTORIES / inventory
    groups = yaml.safe_load((place / "hosts.yml").read_text())
    common = yaml.safe_load((place / "group_vars" / "all" / "fabric.yml").read_text())
    common["l3hv_pools"] |= pools or {}
    hosts = dict(more or {})
    for group, kind in KINDS.items():
        for name in (groups.get(group) or {"hosts": {}})["hosts"]:
            variables = yaml.safe_load((place / "host_vars" / f"{name}.yml").read_text())
            hosts[name] = (kind, {**variables, **changes.get(name, {})})
    return plans(common, hosts)


def fabric(hypervisors: int, guests: int) -> dict[str, HostPlan]:
    """Return the plans of a fabric of two paths, two reflectors, one edge router and hypervisors."""
    common = {
        "l3hv_fabric": "many",
        "l3hv_asn": 65000,
        "l3hv_domains": {
            "public": {"table": 90, "families": ["ipv4", "ipv6"]},
            "private": {"table": 20, "families": ["ipv4"], "loopbacks": {"ipv4": "172.20.0.0/16"}},
        },
        "l3hv_local_out": {"table": 100},
        "l3hv_paths": {
            path: {
                "public": {"ipv4": f"10.{number}.0.0/16", "ipv6": f"2001:db8:{number}::/64"},
                "private": {"ipv4": f"10.{number + 100}.0.0/16"},
            }
            for number, path in enumerate("ab", 1)
        },
        "l3hv_pools": {
            "customers": {
                "domain": "public",
                "ipv4": "100.64.0.0/12",
                "gateway": "100.79.255.254",
                "ipv6": "2001:db8:8000::/40",
            }
        },
    }
    uplinks = {path: {domain: f"{path}-{domain}" for domain in ("public", "private")} for path in "ab"}
    hosts: dict[str, tuple[Kind, dict[str, Any]]] = {
        f"rr{path}": (
            "route_reflector",
            {"l3hv_id": 60001, "l3hv_path": path, "l3hv_uplinks": {path: uplinks[path]}},
        )
        for path in "ab"
    }
    public = {path: {"public": f"{path}-public"} for path in "ab"}
    hosts["edge"] = (
        "edge_router",
        {"l3hv_id": 60002, "l3hv_uplinks": public, "l3hv_edge_domains": ["public"]},
    )
    for host in range(1, hypervisors + 1):
        first = (host - 1) * guests + 1
        hosts[f"hv{host}"] = (
            "hypervisor",
            {
                "l3hv_id": host,
                "l3hv_uplinks": uplinks,
                "l3hv_guests": [
                    {
                        "name": f"vm{number}",
                        "interface": f"vm{number}",
                        "mac": f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
                        "ipv4": f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
                    }
                    for number in range(first, first + guests)
                ],
            },
        )
    return plans(common, hosts)

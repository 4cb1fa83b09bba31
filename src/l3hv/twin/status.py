"""The present state of a twin, from the kernel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from l3hv.model.topology import GuestMachine, Machine, Router
from l3hv.twin import guests, network, power
from l3hv.twin.state import Twin


def report(twin: Twin) -> dict[str, Any]:
    """Return the twin's machines and guests as plain JSON values.

    The ``state`` of a machine is ``up``, ``booting`` or ``off``; ``uptime`` is in seconds.  A port is
    ``up``, ``down`` (not brought up, or no carrier) or ``cut``; a port of an emulated machine is ``up``
    whenever its cable has a carrier.  A guest is ``up`` or ``off``; its ``client`` is ``udhcpc``, one of
    ``guest_system.CLIENTS``, or ``qemu``.
    """
    standing = twin.standing()
    return {
        "twin": twin.name,
        "inventories": list(standing.inventories),
        "bare": standing.bare,
        "machines": [_machine(twin, found) for found in standing.topology.machines],
        "guests": [_guest(twin, found) for found in standing.topology.guests],
        "routers": [_router(twin, found) for found in standing.topology.routers],
    }


def _router(twin: Twin, found: Router) -> dict[str, Any]:
    namespace = twin.router_namespace(found.name)
    return {
        "name": found.name,
        "namespace": namespace,
        "state": "up" if network.namespaces(namespace) else "off",
        "addresses": list(dict.fromkeys(address for port in found.ports for address in port.addresses)),
    }


def _machine(twin: Twin, found: Machine) -> dict[str, Any]:
    running = power.running(twin, found.name)
    if running is None:
        state, uptime = "off", None
    else:
        state = "up" if running.ready else "booting"
        uptime = round(time.time() - running.since, 1)
    return {
        "name": found.name,
        "kind": found.kind,
        "system": found.system,
        "daemon": found.daemon,
        "emulated": found.emulated,
        "state": state,
        "uptime": uptime,
        "ports": _ports(twin, found) if running else {},
    }


def _guest(twin: Twin, found: GuestMachine) -> dict[str, Any]:
    return {
        "name": found.name,
        "hypervisor": guests.place(twin, found),
        "interface": found.interface,
        "client": guests.kind(twin, found).word,
        "state": "up" if guests.is_plugged(twin, found) else "off",
        "addresses": guests.addresses(twin, found),
    }


def _ports(twin: Twin, found: Machine) -> dict[str, str]:
    faults = network.cable_faults(twin)
    with network.netlink(twin.machine_namespace(found.name)) as link:
        states = {
            entry.get_attr("IFLA_IFNAME"): entry.get_attr("IFLA_OPERSTATE") for entry in link.get_links()
        }
    ports = {}
    for port in found.ports:
        cut = "cut" in faults.get(network.interface_name(found.name, port.interface), ())
        up = states.get(port.interface) == "UP"
        ports[port.interface] = "cut" if cut else "up" if up else "down"
    return ports


def table(content: dict[str, Any]) -> str:
    """Return a report as two tables of text."""
    rows: list[tuple[str, ...]] = [("MACHINE", "KIND", "SYSTEM", "STATE", "UPTIME", "PORTS")]
    for found in content["machines"]:
        uptime = "-" if found["uptime"] is None else f"{found['uptime']:.0f} s"
        ports = ", ".join(f"{name} {state}" for name, state in found["ports"].items())
        system = f"{found['system']}, QEMU" if found["emulated"] else found["system"]
        rows.append((found["name"], found["kind"], system, found["state"], uptime, ports))
    text = _columns(rows)
    if content["guests"]:
        rows = [("GUEST", "HYPERVISOR", "INTERFACE", "CLIENT", "STATE", "ADDRESSES")]
        for found in content["guests"]:
            where = found["hypervisor"] or "-"
            addresses = " ".join(found["addresses"])
            rows.append(
                (found["name"], where, found["interface"], found["client"], found["state"], addresses)
            )
        text += "\n\n" + _columns(rows)
    if content["routers"]:
        rows = [("ROUTER", "NAMESPACE", "STATE", "ADDRESSES")]
        for found in content["routers"]:
            rows.append((found["name"], found["namespace"], found["state"], " ".join(found["addresses"])))
        text += "\n\n" + _columns(rows)
    return text


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

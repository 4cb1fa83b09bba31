"""Units of systemd, and the interfaces that systemd-networkd configures."""

from __future__ import annotations

import glob
import os
import re

from ansible.module_utils.l3hv.observe.files import read_text
from ansible.module_utils.l3hv.observe.programs import ANSWER_SECONDS, NoAnswerInTime, run_query

UNITS = (
    "systemd-networkd.service",
    "l3hv-tables.service",
    "bird.service",
    "bird6.service",
    "l3hv-bird-rescan.service",
    "l3hv-bird-watch.timer",
    "frr.service",
    "l3hv-dhcp.service",
    "l3hv-dhcp-relay.service",
    "l3hv-dhcp-server.service",
    "l3hv-dhcp-checksums.service",
    "l3hv-ndp-proxy.service",
    "radvd.service",
    "l3hv-nftables.service",
)
GOBGP_UNITS = "/etc/systemd/system/l3hv-gobgp-*.service"


def watched_units() -> list[str]:
    """Return the names of the units to read: units that any host may have, and one for each GoBGP here."""
    return [*UNITS, *map(os.path.basename, glob.glob(GOBGP_UNITS))]


def networkd_state(index: int) -> str | None:
    """Return the state of an interface in systemd-networkd: ``configured``, ``configuring``, ``failed``, …"""
    state = read_text(f"/run/systemd/netif/links/{index}") or ""
    match = re.search(r"ADMIN_STATE=(\S+)", state)
    return match[1] if match else None


def silent_units() -> dict[str, str]:
    """Return the units that do not answer a ping over D-Bus, each with a sentence."""
    ping = ["org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.DBus.Peer", "Ping"]
    try:
        # Without this option the ping would start a stopped unit.
        run_query(["busctl", "--auto-start=no", "call", *ping])
    except OSError:
        pass
    except NoAnswerInTime:
        return {"systemd-networkd.service": f"no answer within {ANSWER_SECONDS:g} s"}
    return {}


def read_units(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of units: state, start at boot, process, and the settings to verify."""
    properties = (
        "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,DropInPaths,"
        "KillSignal,Restart,StartLimitIntervalUSec,User,DynamicUser,CapabilityBoundingSet"
    )
    try:
        shown = run_query(["systemctl", "show", "--property", properties, "--", *names]).stdout
    except NoAnswerInTime:
        return {}
    units = {}
    for block in shown.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit:
            units[unit.pop("Id")] = unit
    return units

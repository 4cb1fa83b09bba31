"""The settings of systemd units that the fabric relies on, by unit.

The units' own files have the same settings (a test compares them).  An operator's drop-in can override them,
so verification reads the effective settings.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

Settings = Mapping[str, str]

_ALWAYS = {"Restart": "always", "StartLimitIntervalSec": "0"}
# A clean shutdown would make BGP neighbours drop the daemon's routes, and guests remove their router.
_WITHOUT_SHUTDOWN = {"KillSignal": "SIGKILL"}
_SERVER_CAPABILITIES = "CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW"
_BIRD = {**_ALWAYS, **_WITHOUT_SHUTDOWN, "User": "bird", "CapabilityBoundingSet": _SERVER_CAPABILITIES}

REQUIRED_SETTINGS: Mapping[str, Settings] = {
    "systemd-networkd.service": _ALWAYS,
    "bird.service": _BIRD,
    "bird6.service": _BIRD,
    "l3hv-bird-rescan.service": {**_ALWAYS, "User": "bird", "CapabilityBoundingSet": "CAP_NET_ADMIN"},
    "frr.service": {**_ALWAYS, **_WITHOUT_SHUTDOWN},
    "l3hv-gobgp.service": {
        **_ALWAYS,
        **_WITHOUT_SHUTDOWN,
        "User": "gobgp",
        "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
    },
    "l3hv-dhcp.service": {**_ALWAYS, "DynamicUser": "yes", "CapabilityBoundingSet": _SERVER_CAPABILITIES},
    "l3hv-dhcp-relay.service": {
        **_ALWAYS,
        "DynamicUser": "yes",
        "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
    },
    "l3hv-dhcp-server.service": {**_ALWAYS, "User": "_kea", "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE"},
    "l3hv-dhcp-checksums.service": {**_ALWAYS, "CapabilityBoundingSet": "CAP_NET_ADMIN"},
    "l3hv-ndp-proxy.service": {**_ALWAYS, "DynamicUser": "yes", "CapabilityBoundingSet": "CAP_NET_RAW"},
    "radvd.service": {
        **_ALWAYS,
        **_WITHOUT_SHUTDOWN,
        "DynamicUser": "yes",
        "CapabilityBoundingSet": "CAP_NET_RAW",
    },
    "l3hv-tables.service": {"CapabilityBoundingSet": "CAP_NET_ADMIN"},
    "l3hv-nftables.service": {**_ALWAYS, "CapabilityBoundingSet": "CAP_NET_ADMIN"},
}


def settings_of(unit: str) -> Settings:
    """Return the settings of a unit that the fabric relies on.

    >>> settings_of("l3hv-gobgp-public.service")["User"]
    'gobgp'
    """
    name = "l3hv-gobgp.service" if unit.startswith("l3hv-gobgp-") else unit
    return REQUIRED_SETTINGS.get(name, {})


def effective(unit: str, shown: Mapping[str, str]) -> dict[str, str]:
    """Return the values that ``systemctl show`` reports for the required settings of a unit.

    >>> effective("radvd.service", {"CapabilityBoundingSet": "cap_net_raw", "StartLimitIntervalUSec": "0"})
    {'StartLimitIntervalSec': '0', 'CapabilityBoundingSet': 'CAP_NET_RAW'}
    """
    found = {}
    for key in settings_of(unit):
        value = shown.get(key.replace("IntervalSec", "IntervalUSec"))
        if value is None:
            continue
        if key == "KillSignal" and value.isdecimal():
            value = signal.Signals(int(value)).name
        if key == "CapabilityBoundingSet":
            value = value.upper()
        found[key] = value
    return found

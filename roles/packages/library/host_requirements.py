#!/usr/bin/python
"""Reports what a machine lacks, before a role changes anything on it."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import os
import platform
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_requirements
short_description: Report what a machine lacks before a role changes anything on it
description:
  - Reads the distribution, the kernel, the interfaces and the installed packages. Changes nothing.
  - Fails with all reasons at once if the machine does not meet the requirements of its plan.
options:
  packages:
    description: The packages that must be installed.
    type: list
    elements: str
    required: true
  systems:
    description: The distributions that are supported, as C(ID VERSION_ID) of os-release(5).
    type: list
    elements: str
    required: true
  system:
    description: The distribution of the plan, as C(IDVERSION_ID).
    type: str
  interfaces:
    description: The interfaces that must already exist.
    type: list
    elements: str
    default: []
  vrfs:
    description: The VRFs that the plan creates. No other interface may have their names.
    type: list
    elements: str
    default: []
  tunnels:
    description: The kinds of tunnel devices that the kernel has to create, V(ipip) and V(ip6tnl).
    type: list
    elements: str
    default: []
  vlans:
    description: Whether the kernel has to create 802.1Q interfaces.
    type: bool
    default: false
  vlan_interfaces:
    description: The 802.1Q interfaces that the plan creates. No other interface may have their names.
    type: list
    elements: str
    default: []
  main_default_route:
    description: Whether table main is expected to have a default route of the management network.
    type: bool
  multipath:
    description: The address families in which all routes may have several next hops.
    type: list
    elements: str
    choices: [ipv4, ipv6]
    default: []
  other_daemons:
    description: Patterns of the systemd units of other routing daemons, which must not run or start at boot.
    type: list
    elements: str
    default: []
author: [l3hv]
"""

EXAMPLES = r"""
- name: Check that the machine meets the requirements of its plan
  host_requirements:
    packages: [bird2, nftables]
    systems: [debian 12, debian 13]
    system: debian13
    vlans: true
    vlan_interfaces: [eno1.90]
"""

RETURN = r"""
missing:
  description: The packages that are not installed.
  returned: always
  type: list
  elements: str
other_daemons:
  description: The units of other routing daemons that run or start at boot.
  returned: always
  type: list
  elements: str
cautions:
  description:
    - Sentences about settings that work, but probably not as intended.
    - They are not in the common return value C(warnings), to which Ansible adds its own and which it prints.
  returned: always
  type: list
  elements: str
"""

SYSTEMD_SECONDS = 20
"""The time-out of `systemctl list-units` and `systemctl list-unit-files`."""

FLOWS_SINCE = (4, 4)
"""Linux from 3.6 until this version uses the next hops of an IPv4 route in turn, packet by packet."""

PORTS_SINCE = {"ipv4": (4, 12), "ipv6": (4, 18)}
"""The first versions that have ``fib_multipath_hash_policy``."""


def system() -> str:
    """Return the distribution as ``ID VERSION_ID``, for example ``debian 13``."""
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'unknown')} {release.get('VERSION_ID', 'unknown')}"


def missing_packages(names: list[str]) -> list[str]:
    """Return the packages in ``names`` that are not installed."""
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[1] for line in asked.stdout.splitlines() if line.startswith("installed ")}
    return [name for name in names if name not in installed]


def units_in_use(patterns: list[str]) -> list[str]:
    """Return the units that match one of ``patterns`` and are active or start at boot."""
    if not patterns:
        return []
    quiet = ["--no-legend", "--plain", "--no-pager"]
    found = set()
    for command in (
        ["systemctl", "list-units", "--state=active,activating,reloading", *quiet, *patterns],
        ["systemctl", "list-unit-files", "--state=enabled", *quiet, *patterns],
    ):
        listed = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMD_SECONDS, check=False)
        found |= {line.split()[0] for line in listed.stdout.splitlines() if line.split()}
    return sorted(found)


def has_module(name: str) -> bool:
    """Tell whether the kernel has a module: built in, loaded, or installed for it."""
    return (
        os.path.exists(f"/sys/module/{name}")
        or subprocess.run(["modprobe", "--quiet", "--dry-run", name], check=False).returncode == 0
    )


MODULES_OF_TUNNELS = {"ipip": "ipip", "ip6tnl": "ip6_tunnel"}


def taken_names(vrfs: list[str], vlans: list[str]) -> list[str]:
    """Return a sentence for each interface that has the name of a VRF or a VLAN of the plan, but is none."""
    asked = subprocess.run(
        ["ip", "-details", "-json", "link", "show"], capture_output=True, text=True, check=False
    )
    links = {link["ifname"]: link for link in json.loads(asked.stdout or "[]")}
    found = []
    for names, kind, remedy in (
        (vrfs, "vrf", "Rename the domain in l3hv_domains, or rename the interface."),
        (vlans, "vlan", "Choose another name in l3hv_uplinks, or rename the interface."),
    ):
        for name in names:
            other = links[name].get("linkinfo", {}).get("info_kind") if name in links else kind
            if other != kind:
                what = f"of the kind {other}" if other else "a NIC"
                found.append(
                    f"The interface {name} is {what}, and the plan creates a {kind.upper()} with this name."
                    f" {remedy}"
                )
    return found


def main_default_routes() -> list[str]:
    """Return the default routes of table main as ``family via interface``."""
    routes = []
    for family in ("4", "6"):
        asked = subprocess.run(
            ["ip", f"-{family}", "-json", "route", "show", "table", "main", "default"],
            capture_output=True,
            text=True,
            check=False,
        )
        for route in json.loads(asked.stdout or "[]"):
            routes.append(f"IPv{family} via {route.get('dev', 'several interfaces')}")
    return routes


def problems(module: AnsibleModule) -> list[str]:
    """Return a sentence for each reason not to change this machine."""
    parameters = module.params
    found = []
    if system() not in parameters["systems"]:
        found.append(f"This is {system()}; supported are {', '.join(parameters['systems'])}.")
    elif parameters["system"] not in {None, system().replace(" ", "")}:
        found.append(
            f"This is {system()}, and the plan is for {parameters['system']}:"
            f" set `l3hv_system: {system().replace(' ', '')}`."
        )
    for interface in parameters["interfaces"]:
        if not os.path.exists(f"/sys/class/net/{interface}"):
            there = ", ".join(sorted(os.listdir("/sys/class/net")))
            found.append(f"There is no interface {interface}; the machine has {there}. Correct l3hv_uplinks.")
    found += taken_names(parameters["vrfs"], parameters["vlan_interfaces"])
    if parameters["vrfs"] and not has_module("vrf"):
        found.append(
            f"The kernel {platform.release()} cannot create VRFs (no module vrf). Boot a kernel of which the"
            " modules are installed, as after an upgrade, or set `l3hv_data_plane: rules`."
        )
    for kind in parameters["tunnels"]:
        if not has_module(MODULES_OF_TUNNELS[kind]):
            found.append(
                f"The kernel {platform.release()} cannot create tunnels (no module"
                f" {MODULES_OF_TUNNELS[kind]}). Boot a kernel of which the modules are installed, or set"
                " `l3hv_encapsulation: none`."
            )
    if parameters["vlans"] and not has_module("8021q"):
        found.append(
            f"The kernel {platform.release()} cannot create 802.1Q interfaces (no module 8021q)."
            " Install a kernel that can, or create the interfaces yourself and set"
            " `l3hv_vlan_interfaces: external`."
        )
    if parameters["main_default_route"] is False:
        found += [
            f"Table main has a default route ({route}), and l3hv_main_default_route is false."
            " All traffic of this host would use it instead of the fabric's tables, and the strict"
            " reverse-path check would drop its guests' ARP. Remove the route, or set"
            " `l3hv_main_default_route: true`."
            for route in main_default_routes()
        ]
    return found


def multipath_cautions(release: str, families: list[str]) -> list[str]:
    """Return the faults of a kernel release with flows in ``families`` whose routes have several next hops.

    ``release`` is as in uname(1).  The result is empty if it is not a version.
    """
    version = re.match(r"(\d+)\.(\d+)", release)
    if version is None:
        return []
    kernel = (int(version[1]), int(version[2]))
    found = []
    if "ipv4" in families and kernel < FLOWS_SINCE:
        found.append(
            f"The kernel {release} sends the packets of one IPv4 flow over several paths, so that they arrive"
            " out of order (4.4 and later do not). Set `l3hv_ecmp: none` for this host, or at least"
            " `l3hv_ecmp: without_default` for traffic that leaves the fabric."
        )
    found += [
        f"The kernel {release} ignores ports when it chooses a path for IPv{family[-1]}: all flows"
        f" between two hosts may share one path ({since[0]}.{since[1]} and later use ports)."
        for family, since in PORTS_SINCE.items()
        if family in families and FLOWS_SINCE <= kernel < since
    ]
    return found


def cautions(module: AnsibleModule) -> list[str]:
    """Return a sentence for each setting that works, but probably not as intended."""
    found = multipath_cautions(platform.release(), module.params["multipath"])
    if module.params["main_default_route"] and not main_default_routes():
        found.append("l3hv_main_default_route is true, but table main has no default route.")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "systems": {"type": "list", "elements": "str", "required": True},
            "system": {"type": "str"},
            "interfaces": {"type": "list", "elements": "str", "default": []},
            "vrfs": {"type": "list", "elements": "str", "default": []},
            "tunnels": {"type": "list", "elements": "str", "default": []},
            "vlans": {"type": "bool", "default": False},
            "vlan_interfaces": {"type": "list", "elements": "str", "default": []},
            "main_default_route": {"type": "bool"},
            "multipath": {"type": "list", "elements": "str", "choices": ["ipv4", "ipv6"], "default": []},
            "other_daemons": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    found = problems(module)
    if found:
        module.fail_json(msg=" ".join(found))
    try:
        other_daemons = units_in_use(module.params["other_daemons"])
    except subprocess.TimeoutExpired:
        module.fail_json(
            msg=f"systemd on {os.uname().nodename} does not answer within {SYSTEMD_SECONDS} s. Look at"
            " `journalctl _PID=1`. Try `systemctl daemon-reexec`; if that hangs too, reboot the host."
        )
    module.exit_json(
        changed=False,
        missing=missing_packages(module.params["packages"]),
        other_daemons=other_daemons,
        cautions=cautions(module),
    )


if __name__ == "__main__":
    main()

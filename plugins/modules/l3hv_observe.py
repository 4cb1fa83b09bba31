#!/usr/bin/python
"""Reads the state of the kernel and the daemons of one host, and changes nothing."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.l3hv.observe.callers import read_unknown_callers
from ansible.module_utils.l3hv.observe.foreign_chains import read_chains_of_others
from ansible.module_utils.l3hv.observe.kernel import read_kernel, read_port_settings, read_sysctls
from ansible.module_utils.l3hv.observe.listeners import read_listeners
from ansible.module_utils.l3hv.observe.netlink import IPRoute
from ansible.module_utils.l3hv.observe.offers import solicit
from ansible.module_utils.l3hv.observe.packet_filter import read_packet_filter, read_translations
from ansible.module_utils.l3hv.observe.paths import path_sizes
from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.routing import settle
from ansible.module_utils.l3hv.observe.services import read_services
from ansible.module_utils.l3hv.observe.units import networkd_state, read_units, silent_units, watched_units

DOCUMENTATION = r"""
module: l3hv_observe
short_description: Read the state of the kernel and the daemons of one host
description:
  - Reads links, addresses, rules, routes and settings through netlink and C(/proc), and queries the state of
    the routing daemon, systemd, the DHCP server and the router advertisement daemon. It compares and changes
    nothing.
  - On each guest port it solicits the offers of the DHCP server and the router advertisement daemon, as the
    guest would do. The guest gets a DHCP offer and a router solicitation that it did not cause. No lease is
    made.
  - A host may have 100,000 routes that it learned by BGP. They are summarised per table as a count and a
    digest that does not depend on their order, and listed only if the digest is not the one in O(learned).
options:
  plan:
    description: The plan of this host. It names the tables, settings, ports and sessions to read.
    type: dict
    required: true
  settle:
    description:
      - The maximum time in seconds to wait until the sessions of the plan are up, and routes are as
        O(learned) and O(received) expect them. If everything is as expected, there is no wait.
      - If the sessions are up but routes are not as expected, the wait ends when the routes no longer change.
    type: float
    default: 0
  learned:
    description: The expected digest of the learned routes, by BIRD table (V(public4)).
    type: dict
    default: {}
  received:
    description: The expected number of prefixes from each session, by session and family.
    type: dict
    default: {}
  pings:
    description:
      - Whether to ping each reflector of the plan with the largest packet that its path should carry, and
        with smaller ones if it gets no answer. Packets are not fragmented.
    type: bool
    default: true
requirements:
  - python3-pyroute2 on the host
author: l3hv
"""

EXAMPLES = r"""
- name: Read the kernel and the daemons
  l3hv_observe:
    plan: "{{ l3hv_plan }}"
    settle: 30
  register: observed
"""

RETURN = r"""
observation:
  description: The state of the host, as plain data.
  returned: success
  type: dict
"""


def observe(
    plan: Plan, seconds: float, learned: dict[str, str], received: dict[str, Any], sends_pings: bool = True
) -> dict[str, Any]:
    """Return the observations of the host of ``plan`` by their names."""
    # This step comes first because it waits until the sessions have received their routes.
    routing = settle(plan, seconds, learned, received)
    kernel = read_kernel(plan)
    ports = {guest["interface"] for guest in plan["guests"]}
    watched = ports | {link["interface"] for link in (*plan["uplinks"], *plan["nics"], *plan["tunnels"])}
    shown = kernel.existing(watched | kernel.links_like_ports(plan) | {"lo"})
    return {
        "links": {name: kernel.links[name] for name in shown},
        "addresses": {name: kernel.addresses.get(name, []) for name in shown},
        "settings": {name: read_port_settings(name) for name in kernel.existing(ports)},
        "networkd": {name: networkd_state(kernel.indexes[name]) for name in kernel.existing(watched)},
        "rules": kernel.rules,
        "routes": kernel.routes,
        "learned": {name: table.summary(learned.get(name)) for name, table in kernel.learned.items()},
        "is_container": os.path.exists("/run/systemd/container"),
        "sysctls": read_sysctls(plan),
        "routing": routing,
        "translations": read_translations() if plan["kind"] == "hypervisor" else {},
        "neighbors": kernel.neighbors,
        "packet_filter": read_packet_filter(),
        "chains": read_chains_of_others(),
        "unknown_callers": read_unknown_callers(plan),
        "units": read_units(watched_units()),
        "silent": silent_units(),
        "listeners": read_listeners(),
        "services": read_services(),
        "offers": solicit([guest for guest in plan["guests"] if guest["interface"] in kernel.links]),
        "sizes": path_sizes(plan, kernel.links) if sends_pings else {},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "settle": {"type": "float", "default": 0},
            "learned": {"type": "dict", "default": {}},
            "received": {"type": "dict", "default": {}},
            "pings": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(
            msg="Only root can read the kernel's tables and the daemons: set ansible_become: true for this"
            " host, run with --become, or connect as root."
        )
    if IPRoute is None:
        module.fail_json(msg=missing_required_lib("pyroute2 (Debian: python3-pyroute2)"))
    parameters = module.params
    started = time.monotonic()
    observation = observe(
        parameters["plan"],
        parameters["settle"],
        parameters["learned"],
        parameters["received"],
        parameters["pings"],
    )
    module.exit_json(changed=False, observation=observation, seconds=round(time.monotonic() - started, 3))


if __name__ == "__main__":
    main()

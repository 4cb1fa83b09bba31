"""Services of which the running configuration is compared with their file."""

from __future__ import annotations

import os

from ansible.module_utils.l3hv.observe.programs import NoAnswerInTime, run_query

PROGRAMS = "/usr/local/lib/l3hv"
IN_FORCE = {
    "l3hv-dhcp-relay.service": [f"{PROGRAMS}/dhcp-relay", "in-force", "/etc/l3hv/dhcp-relay.conf"],
    "l3hv-dhcp-server.service": [f"{PROGRAMS}/dhcp-server", "in-force"],
    "l3hv-ndp-proxy.service": [f"{PROGRAMS}/ndp-proxy", "in-force", "/etc/l3hv/ndp-proxy.conf"],
}
"""The commands that compare a service with its file. They fail and print a reason if these differ."""


def read_services() -> dict[str, str]:
    """Return the difference of each service of this host from its file; an empty text if there is none."""
    services = {}
    for unit, command in IN_FORCE.items():
        if os.path.exists(command[0]):
            try:
                done = run_query(command)
            except NoAnswerInTime as error:
                services[unit] = str(error)
            else:
                services[unit] = (done.stderr or done.stdout).strip() if done.returncode else ""
    return services

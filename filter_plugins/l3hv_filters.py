"""The filters of l3hv: a table from their names to the functions behind them.

Ansible loads this file by its path, outside any package.  Therefore the file appends ``src``, which has
everything else, to the module path.  It does not put ``src`` first: an installed l3hv has precedence.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SOURCES = str(Path(__file__).resolve().parent.parent / "src")
if _SOURCES not in sys.path:
    sys.path.append(_SOURCES)

from l3hv.inventory.ansible import plain  # noqa: E402 - needs the path above
from l3hv.keys import rotation, secrets  # noqa: E402 - needs the path above
from l3hv.model.plain import as_plain, from_plain  # noqa: E402 - needs the path above
from l3hv.model.plan import HostPlan  # noqa: E402 - needs the path above
from l3hv.plan.dhcp_server import relaying_to, server_of  # noqa: E402 - needs the path above
from l3hv.render import junos, network_data, summary  # noqa: E402 - needs the path above


def plan_summary(host_plan_: Any) -> str:
    """Return a host's plan as text for an operator."""
    return summary.plan_summary(plain(host_plan_))


def junos_reflector(host_plan_: Any) -> dict[str, Any]:
    """Return the configuration of a Junos reflector as plain data."""
    return junos.junos_reflector(plain(host_plan_))


def guest_network_data(host_plan_: Any, guest: Any) -> dict[str, Any]:
    """Return the network configuration of a guest for cloud-init; fail for a guest of another host."""
    from ansible.errors import AnsibleFilterError

    try:
        return network_data.network_data(plain(host_plan_), plain(guest))
    except KeyError:
        raise AnsibleFilterError(
            f"{plain(host_plan_)['host']} has no guest {guest}: name its hypervisor with --limit."
        ) from None


def dhcp_server(host_plans: Any, address: Any) -> dict[str, Any]:
    """Return the DHCP server at an address for the guests of these hosts; fail if no host relays to it."""
    from ansible.errors import AnsibleFilterError

    plans = [from_plain(HostPlan, plan) for plan in plain(list(host_plans))]
    server = server_of(plain(address), relaying_to(plain(address), plans))
    if not server.relays:
        raise AnsibleFilterError(
            f"No hypervisor relays DHCP to {address}: set l3hv_dhcp: relay, and list it in l3hv_dhcp_servers."
        )
    found: dict[str, Any] = as_plain(server)
    return found


def secret_problems(names: Any, secrets_: Any, daemon: Any = None) -> list[str]:
    """Return the problems of the secrets of the keys ``names``."""
    return secrets.secret_problems(plain(names), plain(secrets_), plain(daemon))


def keys_in_use(files: Any) -> dict[str, str | None]:
    """Return the key of each session in these configurations."""
    return rotation.keys_in_use(plain(files))


def key_changes(routing: Any, in_use: Any) -> dict[str, list[str]]:
    """Return the sessions whose key differs from the plan, by path."""
    return rotation.key_changes(plain(routing), plain(in_use))


def routing_until(routing: Any, in_use: Any, paths: Any) -> dict[str, Any]:
    """Return a plan's routing with the plan's keys on ``paths`` and the keys in use on other paths."""
    return rotation.routing_until(plain(routing), plain(in_use), plain(paths))


def rotation_problems(host_plan_: Any, in_use: Any, **more: Any) -> list[str]:
    """Return the reasons not to rotate the keys of a host."""
    return list(rotation.rotation_problems(plain(host_plan_), plain(in_use), **plain(more)))


def sessions_missed(routing: Any, seen: Any, path: Any) -> list[str]:
    """Return the sessions of other paths that are not up."""
    return rotation.sessions_missed(plain(routing), plain(seen), plain(path))


def whole_run(pattern: Any) -> str:
    """Return a play's host pattern; fail if the command line leaves out the reading of the intent."""
    from ansible import context
    from ansible.errors import AnsibleFilterError

    start = context.CLIARGS.get("start_at_task")
    if start:
        raise AnsibleFilterError(
            f"--start-at-task {start!r} leaves out the reading of the intent, and every later task needs its"
            " result. Run the playbook from its beginning: it changes nothing that is already as planned."
            " To run one role, use --tags ROLE; to run one host, --limit HOST."
        )
    if "always" in (context.CLIARGS.get("skip_tags") or ()):
        raise AnsibleFilterError(
            "--skip-tags always leaves out the reading of the intent, and every later task needs its result."
            " Name the roles to skip."
        )
    return str(pattern)


class FilterModule:
    """The table of this file's filters, which Ansible reads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "dhcp_server": dhcp_server,
            "guest_network_data": guest_network_data,
            "junos_reflector": junos_reflector,
            "key_changes": key_changes,
            "keys_in_use": keys_in_use,
            "plan_summary": plan_summary,
            "rotation_problems": rotation_problems,
            "routing_until": routing_until,
            "secret_problems": secret_problems,
            "sessions_missed": sessions_missed,
            "whole_run": whole_run,
        }

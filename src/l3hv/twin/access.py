"""Access of the host to the machines: a key pair, an SSH configuration, Ansible's variables."""

from __future__ import annotations

import subprocess
from pathlib import Path

from l3hv.twin import network
from l3hv.twin.state import Standing, Twin, write_json


def variables(*, tagged: bool) -> dict[str, str]:
    """Return the variables of the inventory that the twin overrides on all machines.

    VLAN interfaces are cables of the twin, or with ``tagged`` interfaces that the roles create.
    """
    return {"l3hv_vlan_interfaces": "kernel" if tagged else "external"}


def ssh_config(twin: Twin) -> Path:
    return twin.directory / "ssh_config"


def connections(twin: Twin) -> Path:
    """Return the directory of the sockets of open SSH connections."""
    return twin.directory / "control"


def close_connections(twin: Twin) -> None:
    """End the SSH processes that keep connections open."""
    for socket in connections(twin).glob("*"):
        command = ["ssh", "-F", str(ssh_config(twin)), "-o", f"ControlPath={socket}", "-O", "exit", "machine"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def extra_variables(twin: Twin) -> Path:
    """Return the file that ``play`` passes to Ansible as extra variables."""
    return twin.directory / "vars.json"


def write_access(twin: Twin, standing: Standing) -> None:
    """Create the key pair (once), the SSH configuration and Ansible's extra variables."""
    key = twin.directory / "key"
    if not (twin.directory / "key.pub").exists():
        key.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"twin {twin.name}", "-f", key],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    sockets = connections(twin)
    sockets.mkdir(mode=0o700, exist_ok=True)
    ssh_config(twin).write_text(_ssh_config_text(twin, standing))
    # l3hv configures routers of other teams only if the twin has adopted them.
    adopted = {"l3hv_managed": True} if standing.adopt else {}
    write_json(
        extra_variables(twin),
        {
            "ansible_connection": "ssh",
            "ansible_host": "{{ inventory_hostname }}",
            "ansible_port": 22,
            "ansible_user": "root",
            "ansible_become": False,
            "ansible_ssh_common_args": f"-F {ssh_config(twin)}",
            # Ansible names a connection after host, port and user, which several twins can share.
            "ansible_control_path_dir": str(sockets),
            "ansible_python_interpreter": "/usr/bin/python3",
            "l3hv_twin": twin.name,
            **variables(tagged=standing.tagged),
            **adopted,
        },
    )


def _ssh_config_text(twin: Twin, standing: Standing) -> str:
    # The host has no interface of the twin: a connection starts in the management namespace.
    entry = f"nsenter --net={network.NAMESPACES / twin.management_namespace} busybox nc %h %p"
    lines = [f"# The machines of the twin {twin.name}; './twin up' writes this file."]
    for machine in standing.topology.machines:
        lines += [f"Host {machine.name}", f"  HostName {standing.address(machine.name)}"]
    lines += [
        "Host *",
        "  User root",
        f"  IdentityFile {twin.directory}/key",
        "  IdentitiesOnly yes",
        "  PreferredAuthentications publickey",
        "  GSSAPIAuthentication no",
        "  StrictHostKeyChecking no",
        "  CheckHostIP no",
        f"  UserKnownHostsFile {twin.directory}/known_hosts",
        "  LogLevel ERROR",
        "  ServerAliveInterval 2",
        "  ServerAliveCountMax 5",
        f"  ProxyCommand {entry}",
    ]
    return "\n".join(lines) + "\n"

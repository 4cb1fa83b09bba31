"""Guests with a whole Debian 12: their own init in a container, and one of Debian's network clients.

A guest of the twin has its cable and its network namespace already.  Here the DHCP client of the twin ends,
and a container with its own systemd boots in the same namespace, on a cached image.
"""

from __future__ import annotations

import os
import select
import shlex
import socket
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab import Lab

from l3hv.twin import confinement, image, network
from l3hv.twin.power import inside
from l3hv.twin.state import Twin

BOOT_SECONDS = 120
PACKAGES = (
    *image.GUEST_PACKAGES,
    "cloud-init",
    "ifupdown",
    "net-tools",  # cloud-init's routes for ifupdown
    "netplan.io",
    "python3-cffi-backend",  # debootstrap does not resolve the virtual packages of python3-cryptography
    "systemd-resolved",
    "udev",
)
RECIPE = image.Recipe("debian12-clients", image.SUITES["debian12"], PACKAGES, "")
CLIENT_UNITS = (
    "NetworkManager.service",
    "networking.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "cloud-init.target",
)
"""The units of all clients of the image: a guest runs those that its client needs."""
MASKED_UNITS = (
    "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
    "systemd-networkd-wait-online.service",
    # Devices belong to the host, so no event of udev comes for them.
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
)


@dataclass(frozen=True)
class Client:
    """A network client: its units, and the files that configure it.

    ``command`` is a client that Debian starts by no unit; ``{interface}`` stands for the guest's interface.
    """

    units: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def all_files(self) -> dict[str, str]:
        """Return the files of the guest that are not in its image."""
        # Without systemd-resolved the link of the image leads nowhere: the client writes the file.
        resolves = "systemd-resolved.service" in self.units
        files = dict(self.files) if resolves else {"etc/resolv.conf": "", **self.files}
        if self.command:
            files["etc/systemd/system/client.service"] = f"[Service]\nExecStart={self.command}\n"
        if "cloud-init.target" not in self.units:
            files["etc/cloud/cloud-init.disabled"] = ""
        return files

    def links(self) -> dict[str, str]:
        """Return the links that enable and mask the units of the guest."""
        unused = [unit for unit in CLIENT_UNITS if unit not in self.units and unit != "cloud-init.target"]
        links = {f"etc/systemd/system/{unit}": "/dev/null" for unit in (*unused, *MASKED_UNITS)}
        wanted = [*self.units, "client.service"] if self.command else self.units
        for unit in wanted:
            directory = "/etc/systemd/system" if unit == "client.service" else "/lib/systemd/system"
            links[f"etc/systemd/system/multi-user.target.wants/{unit}"] = f"{directory}/{unit}"
        return links


@dataclass
class DebianGuest:
    """A booted guest with its own init."""

    lab: Lab
    name: str
    leader: int
    nspawn: subprocess.Popen[bytes]

    def run(self, script: str, seconds: float = 60) -> str:
        """Run a shell script in the guest; it must succeed."""
        command = inside(self.leader, ["sh", "-c", script])
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        assert done.returncode == 0, f"{self.name}: {script}: {done.stdout}{done.stderr}"
        return done.stdout

    def end(self) -> None:
        """Kill the guest's init, and wait for its container."""
        os.kill(self.leader, 9)
        self.nspawn.wait(10)


def boot(lab: Lab, name: str, client: Client, directory: Path) -> DebianGuest:
    """Boot Debian in the namespace of a guest of the twin; its cable is down, as that of a new guest."""
    twin = Twin(lab.name, print)
    namespace = twin.guest_namespace(name)
    network.end_processes_in([namespace])
    lab.run_as_guest(name, "ip link set eth0 down; ip address flush dev eth0; ip route flush dev eth0")
    files, root = directory / "files", directory / "system"
    for path, text in {"etc/hostname": f"{name}\n", **client.all_files()}.items():
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / path).write_text(text)
        (files / path).chmod(0o600 if "NetworkManager" in path else 0o644)
    for path, target in client.links().items():
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / path).symlink_to(target)
    if "systemd-resolved.service" not in client.units:
        # Clients would give their name servers to systemd-resolved's program `resolvconf`. A whiteout of
        # the overlay hides it: now they write /etc/resolv.conf themselves, as on a new Debian.
        (files / "usr/sbin").mkdir(parents=True, exist_ok=True)
        os.mknod(files / "usr/sbin/resolvconf", stat.S_IFCHR)
    root.mkdir(parents=True)
    built = image.ensure_image(RECIPE, print)
    # The files are in memory, over the image, and end with the container.
    mounts = f"""
        mount -t tmpfs -o mode=0755 guest {root}
        mkdir {root}/work {root}/root
        cp -a {files} {root}/upper
        mount -t overlay guest -o lowerdir={built},upperdir={root}/upper,workdir={root}/work {root}/root
        exec "$@"
    """
    command = [
        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--notify-ready=yes"),
        *("--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
        *("--capability=all", "--drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME"),
        *(f"--directory={root}/root", f"--machine={twin.prefix}{name}", f"--hostname={name}"),
        f"--network-namespace-path={network.NAMESPACES / namespace}",
    ]
    script = f"exec unshare --mount --propagation slave sh -ec {shlex.quote(mounts)} sh {shlex.join(command)}"
    address = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as states, (directory / "log").open("w") as log:
        states.bind(str(address))
        process = subprocess.Popen(
            confinement.confined(twin, f"guest-{name}", script),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(address),
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            },
        )
        leader = _await_ready(states, name)
    return DebianGuest(lab, name, leader, process)


def _await_ready(states: socket.socket, name: str) -> int:
    """Return the PID of the init of a container, once it has started its units."""
    deadline, leader = time.monotonic() + BOOT_SECONDS, 0
    while select.select([states], [], [], max(0, deadline - time.monotonic()))[0]:
        message = dict(line.partition("=")[::2] for line in states.recv(4096).decode().splitlines())
        leader = int(message.get("X_NSPAWN_LEADER_PID", leader))
        if message.get("READY") == "1":
            return leader
    raise AssertionError(f"{name} has not booted within {BOOT_SECONDS} s")

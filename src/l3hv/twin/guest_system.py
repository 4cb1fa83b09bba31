"""Guests with a small Debian user space, in which one of Debian's network clients runs.

The user space shares the guest's network namespace and has its own mounts, processes, host name and IPC.
Its files are in memory over a cached image; they and its processes end with the guest.  Its first
process is a script that starts the client.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from l3hv.model.topology import GuestMachine
from l3hv.twin import TwinError, image, network, power
from l3hv.twin.state import Twin

CLIENTS = ("dhclient", "dhcpcd", "networkd", "networkmanager")
"""The clients that a guest with a user space can run.  dhclient leaves SLAAC to the kernel."""
SYSTEM = "debian12"
FIRST_PROCESS = Path(__file__).with_name("guest_system.sh")
START_SECONDS = 10.0


def ensure_guest_image(twin: Twin) -> Path:
    """Return the root file system of guests with a client; build it if it is not cached."""
    return image.ensure_image(image.guest_recipe(SYSTEM), twin.say)


def start(twin: Twin, guest: GuestMachine, client: str, interface: str) -> None:
    """Start a guest's user space and its client, which brings the interface up itself."""
    root = ensure_guest_image(twin)
    directory = twin.guest_directory(guest.name)
    leader = directory / "leader"
    leader.unlink(missing_ok=True)
    log = directory / "client.log"
    command = [
        *(
            "setsid",
            "--fork",
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
        ),
        *("sh", str(FIRST_PROCESS), str(root), str(directory), guest.name, client, interface),
    ]
    with network.entered(twin.guest_namespace(guest.name)), log.open("w") as out:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")
    deadline = time.monotonic() + START_SECONDS
    while not leader.exists():
        if time.monotonic() > deadline:
            last = " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])
            raise TwinError(f"the user space of {guest.name} does not start ({last}): see {log}")
        time.sleep(0.01)


def inside(twin: Twin, guest: GuestMachine, command: list[str]) -> list[str]:
    """Return the command line that runs a command in the user space of a running guest."""
    try:
        leader = int((twin.guest_directory(guest.name) / "leader").read_text())
    except FileNotFoundError:
        leader = 0
    if not network.is_in(leader, twin.guest_namespace(guest.name)):
        raise TwinError(f"{guest.name} does not run: './twin plug {guest.name}' starts it")
    return power.inside(leader, command)

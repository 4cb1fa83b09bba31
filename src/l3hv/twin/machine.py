"""Machines: containers of systemd-nspawn that run systemd, with namespaces and cables of a twin.

Each machine has a supervisor: a daemon that creates its cables, boots it, boots it again when it
reboots, and removes its remains when it is off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from l3hv.model.topology import Machine, Port
from l3hv.twin import TwinError, confinement, daemon, emulator, guests, mirror, network
from l3hv.twin.image import SUITES
from l3hv.twin.power import Running, command_in, forget_running, last_leader, leader, record_running, running
from l3hv.twin.state import Standing, Twin, host_names, machine_from, read_json, write_json

REBOOT_STATUS = 133  # systemd-nspawn exits with this status when the machine reboots
BOOT_SECONDS = 60.0
EMULATED_BOOT_SECONDS = 240.0
LAST_LINES = 5
CONTROL_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()].|[=>78])|[\x00-\x08\x0b-\x1f]")
SSH_PORT = 22


def is_supervised(twin: Twin, machine: str) -> bool:
    """Return whether a machine has a supervisor, which boots it again when it reboots."""
    return daemon.pid(twin.machine_directory(machine)) is not None


def is_up_or_booting(twin: Twin, machine: str) -> bool:
    """Return whether a machine runs, or has been booting for less than ``BOOT_SECONDS``."""
    found = running(twin, machine)
    if found is None or not is_supervised(twin, machine):
        return False
    return found.ready or time.time() - found.since < _patience([found.emulated])


def _patience(emulated: Iterable[bool]) -> float:
    """Return the seconds until machines must have booted."""
    return EMULATED_BOOT_SECONDS if any(emulated) else BOOT_SECONDS


def start(twin: Twin, machine: str) -> None:
    """Switch a machine on and return at once; its supervisor starts its guests when it has booted."""
    directory = twin.machine_directory(machine)
    forget_running(twin, machine)
    daemon.start(directory, lambda: _supervise(twin, machine))


def await_ready(twin: Twin, machines: Iterable[str]) -> dict[str, str]:
    """Wait until all machines have booted and accept SSH; return the failed ones, each with the reason.

    The timeout starts again whenever a machine is up, because all boot at once and the host may be slow.
    """
    standing = twin.standing()
    waiting = list(machines)
    failed: dict[str, str] = {}
    first_look = True
    patience = _patience(standing.machine(name).emulated for name in waiting)
    deadline = time.monotonic() + patience
    while waiting and time.monotonic() < deadline:
        for name in list(waiting):
            failure = twin.machine_directory(name) / "failure"
            found = running(twin, name)
            if failure.exists():
                waiting.remove(name)
                failed[name] = failure.read_text().strip() + last_console_lines(twin, name)
            elif found and found.ready and _answers(twin, str(standing.address(name))):
                waiting.remove(name)
                if not first_look:
                    twin.say(f"{name} is up")
                    deadline = time.monotonic() + patience
        first_look = False
        time.sleep(0.05 if waiting else 0)
    for name in waiting:
        found = running(twin, name)
        missing = "answers no SSH" if found and found.ready else "was not up"
        failed[name] = f"it {missing} after {patience:.0f} s" + last_console_lines(twin, name)
    return failed


def last_console_lines(twin: Twin, machine: str) -> str:
    """Return the last lines of a machine's console and the path of the whole console log, as lines."""
    console = twin.machine_directory(machine) / "console.log"
    text = CONTROL_SEQUENCE.sub("", console.read_text(errors="replace")) if console.exists() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return "".join(f"\n  {machine}| {line}" for line in [*lines, f"(all of it: {console})"])


def _answers(twin: Twin, address: str) -> bool:
    with network.entered(twin.management_namespace):
        connection = socket.socket()
    with connection:
        connection.settimeout(0.5)
        return connection.connect_ex((address, SSH_PORT)) == 0


def recable(twin: Twin, machine: Machine) -> None:
    """Add missing ports to a running machine, and remove ports that it should not have."""
    before = as_cabled(twin, machine.name)
    old = before.ports if before else ()
    if set(old) == set(machine.ports):
        return
    twin.say(f"changing the ports of {machine.name}")
    network.remove_ports(twin, machine.name, [port for port in old if port not in machine.ports])
    network.add_ports(twin, machine.name, [port for port in machine.ports if port not in old])
    _record(twin, machine)


def as_cabled(twin: Twin, machine: str) -> Machine | None:
    """Return a machine with the ports for which it was last cabled, or None if it never was."""
    stored = read_json(twin.machine_directory(machine) / "machine.json")
    return machine_from(stored) if stored else None


def _record(twin: Twin, machine: Machine) -> None:
    write_json(twin.machine_directory(machine.name) / "machine.json", asdict(machine))


def kill_daemon(twin: Twin, machine: str, daemon: str) -> list[int]:
    """Send SIGKILL to a machine's processes of that name; return their PIDs on the host.

    The processes of an emulated machine have none.
    """
    if (state := running(twin, machine)) and state.emulated:
        # The kernel's name of a process has up to 15 characters.
        command = command_in(twin, machine, ["pkill", "-KILL", "-x", daemon[:15]])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise TwinError(f"no process named {daemon!r} runs on {machine}")
        return []
    init = Path(f"/proc/{leader(twin, machine)}/ns/pid").stat().st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns/pid").stat().st_ino == init and _command_name(entry) == daemon:
                found.append(int(entry.name))
    if not found:
        raise TwinError(f"no process named {daemon!r} runs on {machine}")
    for pid in found:
        _kill(pid)
    return found


def _command_name(process: Path) -> str:
    """Return the file name of a process's program, or the kernel's name of the process (15 characters)."""
    try:
        return Path(os.readlink(process / "exe")).name.removesuffix(" (deleted)")
    except OSError:
        return (process / "comm").read_text().strip()


def power_off(twin: Twin, machine: str) -> None:
    """Cut a machine's power: its processes send no further packets."""
    network.pull_cables(twin, machine, _ports(twin, machine))
    deadline = time.monotonic() + 10
    while True:
        found = running(twin, machine)
        if found:
            _kill_and_reap(twin, machine, found)
        elif not is_supervised(twin, machine):
            break
        release(twin, machine)
        if time.monotonic() > deadline:
            raise TwinError(f"{machine} does not end: see {twin.machine_directory(machine)}")
        time.sleep(0.01)
    remove_remains(twin, machine)


def remove_remains(twin: Twin, machine: str) -> None:
    """Remove the guests, cables, namespace and groups of a machine that is off; keep its file system."""
    guests.stop_all(twin, machine)
    network.remove_machine(twin, machine, _ports(twin, machine))
    confinement.remove_groups(twin, machine)
    forget_running(twin, machine)


def forget(twin: Twin, machine: str) -> None:
    """Power a machine off and remove its file system."""
    power_off(twin, machine)
    # A machine that has never booted has neither directory.
    shutil.rmtree(twin.library / machine, ignore_errors=True)
    shutil.rmtree(twin.machine_directory(machine), ignore_errors=True)


def _ports(twin: Twin, machine: str) -> tuple[Port, ...]:
    cabled = as_cabled(twin, machine)
    return cabled.ports if cabled else ()


def _kill_and_reap(twin: Twin, machine: str, found: Running) -> None:
    """Kill a machine's leader, and wait until its process on the host has ended.

    A container's leader is its init, and the process on the host is systemd-nspawn.  QEMU is both.
    """
    try:
        status = Path(f"/proc/{found.leader}/status").read_text()
        parent = int(status.partition("PPid:")[2].split()[0])
        awaited = os.pidfd_open(found.leader if found.emulated else parent)
    except (OSError, ValueError):
        return
    _kill(found.leader)
    deadline = time.monotonic() + 5
    while not select.select([awaited], [], [], 0.1)[0] and time.monotonic() < deadline:
        release(twin, machine)
    os.close(awaited)


def release(twin: Twin, machine: str) -> None:
    """Resume a stopped process outside of the machine that keeps the machine's init from ending.

    The kernel keeps a PID namespace until the last process in it is reaped.  The parent of a process that
    entered it with nsenter(1) is outside, and nsenter stops itself when its child is stopped.  A shutdown
    stops all processes in the machine.
    """
    leader = last_leader(twin, machine)
    if leader is None or network.identity(Path(f"/proc/{leader}/ns/net")) is not None:
        return  # The machine is off, or its init has not ended yet.
    init = network.identity(Path(f"/proc/{leader}/ns/pid"))
    if init in (None, network.identity(Path("/proc/self/ns/pid"))):
        return  # The init has ended, and another process may have its PID.
    for process in Path("/proc").glob("[0-9]*"):
        if network.identity(process / "ns/pid") == init:
            parent, state = _parent_and_state(process)
            if state == "Z" and _parent_and_state(Path(f"/proc/{parent}"))[1] == "T":
                _signal(parent, signal.SIGCONT)


def _parent_and_state(process: Path) -> tuple[int, str]:
    try:
        state, parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return 0, ""
    return int(parent), state


def _kill(pid: int) -> None:
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_all(twin: Twin) -> None:
    """End all supervisors and machines of a twin, in any state.

    A killed systemd-nspawn would leave its machine running.  Kill the machine instead, and its systemd-nspawn
    ends with it.
    """
    machines = twin.directory / "machines"
    for directory in machines.iterdir() if machines.is_dir() else ():
        daemon.end(directory)
    deadline = time.monotonic() + 10
    names = [directory.name for directory in machines.iterdir()] if machines.is_dir() else []
    while pids := confinement.processes(twin):
        for name in names:
            release(twin, name)
        for pid in pids:
            if not _is_nspawn(pid) or time.monotonic() > deadline - 5:
                _kill(pid)
        if time.monotonic() > deadline:
            raise TwinError(f"processes {sorted(pids)} do not end: see ps")
        time.sleep(0.02)


def _is_nspawn(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("systemd-nspawn")
    except OSError:
        return False


# --- the supervisor ---------------------------------------------------------------------


def _supervise(twin: Twin, name: str) -> None:
    """Boot a machine, and boot it again whenever it reboots, until it is off."""
    try:
        while True:
            # An ``up`` since the last boot may have changed the machine.
            standing = twin.standing()
            machine = standing.machine(name)
            _record(twin, machine)
            guests.stop_all(twin, name)
            network.create_cables(twin, standing, machine)
            if _boot(twin, standing, machine) != REBOOT_STATUS:
                break
    except BaseException:
        # Report the first error; the next boot repeats the cleanup if it fails here.
        with contextlib.suppress(Exception):
            remove_remains(twin, name)
        raise
    remove_remains(twin, name)


def _boot(twin: Twin, standing: Standing, machine: Machine) -> int:
    """Boot a machine, wait until it goes down, and return ``REBOOT_STATUS`` if it reboots."""
    boot = _boot_emulated if machine.emulated else _boot_container
    return boot(twin, standing, machine)


def _boot_emulated(twin: Twin, standing: Standing, machine: Machine) -> int:
    """Boot a machine in QEMU, wait until it goes down, and return 0 or ``REBOOT_STATUS``."""
    files = twin.library / machine.name
    _prepare_files(twin, standing, machine, files)
    reboots = emulator.Boot(twin, standing, machine, files).run(
        lambda: start_guests(twin, twin.standing(), machine.name)
    )
    return REBOOT_STATUS if reboots else 0


def _boot_container(twin: Twin, standing: Standing, machine: Machine) -> int:
    """Boot a machine in systemd-nspawn, wait until it goes down, and return the exit status."""
    address = twin.machine_directory(machine.name) / "notify"
    address.unlink(missing_ok=True)
    namespace = twin.machine_namespace(machine.name)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
        contextlib.closing(network.LinkEvents(namespace)) as events,
    ):
        management = network.index_of(namespace, network.MANAGEMENT_INTERFACE)
        notifications.bind(str(address))
        process = subprocess.Popen(
            _boot_command(twin, standing, machine),
            stdin=subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(address),
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            },
        )
        since = time.time()
        pid = 0
        is_ready = False
        ended = os.pidfd_open(process.pid)
        sources = [notifications.fileno(), events.fileno(), ended]
        try:
            while ended not in (ready := select.select(sources, [], [], 1)[0]):
                if not ready:
                    release(twin, machine.name)
                if events.fileno() in ready and events.read(management):
                    _restore_management(twin, standing, machine.name)
                if notifications.fileno() not in ready:
                    continue
                message = notifications.recv(4096).decode().splitlines()
                fields = dict(line.partition("=")[::2] for line in message)
                if "X_NSPAWN_LEADER_PID" in fields:
                    pid = int(fields["X_NSPAWN_LEADER_PID"])
                    record_running(twin, machine.name, Running(pid, since, False))
                # systemd sends READY again after each reload of its units; start the guests at boot only.
                if fields.get("READY") == "1" and not is_ready:
                    is_ready = True
                    start_guests(twin, twin.standing(), machine.name)
                    record_running(twin, machine.name, Running(pid, since, True))
        finally:
            os.close(ended)
    status = process.wait()
    if not is_ready and status != REBOOT_STATUS:
        process_name = "its init" if pid else "systemd-nspawn"
        raise TwinError(f"{process_name} ended with status {status}")
    return status


def _restore_management(twin: Twin, standing: Standing, machine: str) -> None:
    """Restore the management port; if it changes again meanwhile, another event follows."""
    try:
        network.configure_management(twin, standing, machine)
    except Exception:  # noqa: BLE001 - an error here must not end the machine
        traceback.print_exc()


def start_guests(twin: Twin, standing: Standing, machine: str) -> None:
    """Start a machine's guests; the machine runs on if one does not start."""
    try:
        guests.plug_all(twin, standing, machine)
    except Exception:  # noqa: BLE001 - the next verb on the guest reports the same error
        traceback.print_exc()


def _boot_command(twin: Twin, standing: Standing, machine: Machine) -> list[str]:
    files = twin.library / machine.name
    host_name = standing.host_name(machine.name)
    _prepare_files(twin, standing, machine, files)
    layers = (
        f"lowerdir={standing.images[machine.image]},"
        # A crash of the host may lose these files, so the overlay never waits for the disk.
        f"upperdir={files}/upper,workdir={files}/work,volatile"
    )
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--notify-ready=yes",
        "--console=pipe",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--capability=all",
        "--drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME",
        f"--directory={files}/root",
        # The machine's name is for the host, and begins with the twin's; the host name is for the machine.
        f"--machine={host_names([f'{twin.prefix}{host_name}']).popitem()[1]}",
        f"--hostname={host_name}",
        f"--network-namespace-path={network.NAMESPACES / twin.machine_namespace(machine.name)}",
    ]
    # The mount is in a namespace of its own, and ends with the machine.
    script = (
        f"exec unshare --mount --propagation slave sh -ec {shlex.quote(_mount(layers, files))} "
        f"sh {shlex.join(nspawn)}"
    )
    return confinement.confined(twin, machine.name, script)


def _mount(layers: str, files: Path) -> str:
    mount = shlex.join(["mount", "-t", "overlay", "l3hv", "-o", layers, f"{files}/root"])
    return f'{mount}\nexec "$@"'


def _prepare_files(twin: Twin, standing: Standing, machine: Machine, files: Path) -> None:
    """Create the machine's own layer at its first boot; later boots keep it."""
    # The kernel would refuse to mount a volatile overlay again with its old work directory.
    shutil.rmtree(files / "work", ignore_errors=True)  # absent before the first mount
    for name in ("root", "work"):
        (files / name).mkdir(parents=True, exist_ok=True)
    upper = files / "upper"
    if upper.is_dir():
        return
    host_name = standing.host_name(machine.name)
    identity = hashlib.sha256(machine.name.encode()).hexdigest()[:32]
    keys = (twin.directory / "key.pub").read_text()
    contents = [
        ("etc/machine-id", 0o444, f"{identity}\n"),
        ("etc/hostname", 0o644, f"{host_name}\n"),
        ("etc/hosts", 0o644, f"127.0.0.1 localhost\n127.0.1.1 {host_name}\n::1 localhost\n"),
        ("root/.ssh/authorized_keys", 0o600, keys),
    ]
    if standing.bare:
        contents.append(("etc/apt/sources.list", 0o644, mirror.sources(SUITES[machine.system])))
    for path, mode, text in contents:
        target = upper / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
    for private in ("root", "root/.ssh"):
        (upper / private).chmod(0o700)

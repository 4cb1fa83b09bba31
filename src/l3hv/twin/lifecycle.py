"""Up and down: bring a twin to what its inventory says, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from l3hv.topology import Topology
from l3hv.twin import TwinError, access, confinement, guests, machine, mirror, network, power
from l3hv.twin.image import ensure_image, recipe
from l3hv.twin.state import Standing, Twin, check_names, machine_numbers

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WANTED_INOTIFY_INSTANCES = 8192


def need_root() -> None:
    """Refuse to go on without the rights that namespaces take."""
    if os.geteuid() != 0:
        raise TwinError("the twin makes namespaces and machines: run it as root (sudo ./twin …)")


def up(
    twin: Twin, inventory: Path | None, topology: Topology, *, system: str | None, bare: bool
) -> tuple[list[str], list[str]]:
    """Bring a twin to a topology; the names of the machines that it booted and of the guests that it plugged.

    What stands already and is as wanted is left alone, so that a second ``up`` changes nothing.
    """
    check_names(topology)
    if system:
        topology = replace(
            topology,
            machines=tuple(replace(found, system=system) for found in topology.machines),
        )
    images = {
        name: str(ensure_image(recipe(system, daemon, bare=bare), twin.say))
        for name, system, daemon in sorted(
            {(found.image, found.system, found.daemon) for found in topology.machines}
        )
    }
    _allow_many_machines(twin)
    with twin.locked():
        before = twin.standing_or_none()
        _refuse_other(twin, before, inventory, bare)
        if before is None and twin.library.exists():
            shutil.rmtree(twin.library)  # Of a twin that stood before the host's last reboot.
        standing = Standing(
            inventory=str(inventory) if inventory else None,
            topology=topology,
            numbers=machine_numbers(topology, before.numbers if before else {}),
            images=images | dict(before.images if before else {}),
            bare=bare,
        )
        twin.remember(standing)
        access.write_access(twin, standing)
        for name in surplus_machines(twin, standing):
            twin.say(f"removing {name}")
            machine.forget(twin, name)
        guests.remove_surplus(twin, standing)
        network.ensure_switches(twin, topology.segments)
        if bare:
            mirror.ensure_mirror(twin)
        booted = []
        for wanted in topology.machines:
            if power.running(twin, wanted.name) and machine.is_supervised(twin, wanted.name):
                machine.recable(twin, wanted)
            else:
                twin.say(f"booting {wanted.name}")
                machine.power_off(twin, wanted.name)
                machine.start(twin, wanted.name)
                booted.append(wanted.name)
        network.remove_other_switches(twin, topology.segments)
        # A machine that an interrupted command started may still be booting.
        machine.await_ready(twin, [wanted.name for wanted in topology.machines])
        mirror.check(twin)
        plugged = [
            guest for wanted in topology.machines for guest in guests.plug_all(twin, standing, wanted.name)
        ]
    return booted, plugged


def _allow_many_machines(twin: Twin) -> None:
    """Raise the host's limit of inotify instances, which all machines share as root.

    Each systemd takes about eight, and with the kernel's default of 128 the sixteenth machine dies in its
    first second.  It is a limit only: nothing is used up by raising it.
    """
    now = int(INOTIFY_INSTANCES.read_text(encoding="ascii"))
    if now < WANTED_INOTIFY_INSTANCES:
        twin.say(f"raising the host's fs.inotify.max_user_instances from {now} to {WANTED_INOTIFY_INSTANCES}")
        INOTIFY_INSTANCES.write_text(str(WANTED_INOTIFY_INSTANCES), encoding="ascii")


def _refuse_other(twin: Twin, before: Standing | None, inventory: Path | None, bare: bool) -> None:
    if before is None:
        return
    if before.inventory != (str(inventory) if inventory else None):
        raise TwinError(
            f"the twin {twin.name} stands for {before.inventory or 'a topology of its own'}: "
            f"end it with './twin down --name {twin.name}' or choose another name"
        )
    if before.bare != bare:
        raise TwinError(
            f"the twin {twin.name} was started {'with' if before.bare else 'without'} --bare: "
            f"end it with './twin down --name {twin.name}' first"
        )


def surplus_machines(twin: Twin, standing: Standing) -> list[str]:
    """The machines that nobody wants any more, or that boot another image than is wanted."""
    directory = twin.directory / "machines"
    wanted = {found.name: found.image for found in standing.topology.machines}
    return [
        entry.name
        for entry in sorted(directory.iterdir() if directory.is_dir() else ())
        if (cabled := machine.as_cabled(twin, entry.name)) is None or cabled.image != wanted.get(entry.name)
    ]


def boot(twin: Twin, name: str) -> None:
    """Switch a machine on and wait until it is up; one that runs is left alone."""
    with twin.locked():
        twin.standing().machine(name)
        if not (power.running(twin, name) and machine.is_supervised(twin, name)):
            machine.power_off(twin, name)
            machine.start(twin, name)
        machine.await_ready(twin, [name])


def crash(twin: Twin, name: str) -> None:
    """Cut the power of a machine that runs."""
    with twin.locked():
        twin.standing().machine(name)
        if not machine.is_supervised(twin, name):  # One that goes down has no way in, but power.
            power.leader(twin, name)
        machine.power_off(twin, name)


def set_cables(twin: Twin, name: str, path: str, domain: str | None, ill: str, *, present: bool) -> None:
    """Add or remove an ill of a machine's cables on a path (see network.set_cable_state)."""
    with twin.locked():
        found = twin.standing().machine(name)
        ports = [port for port in found.ports if port.path == path and domain in (None, port.domain)]
        if not ports:
            known = ", ".join(f"{port.path} {port.domain}" for port in found.ports) or "none"
            raise TwinError(f"{name} has no such port; it has (path, domain): {known}")
        for port in ports:
            network.set_cable_state(twin, name, port, ill, present=present)


def down(twin: Twin) -> None:
    """Remove a twin, standing, half-started or broken; nothing to remove is no error."""
    with twin.locked():
        mirror.end_mirror(twin)
        machine.end_all(twin)
        network.remove_namespaces(network.namespaces(twin.prefix))
        confinement.remove_groups(twin)
        for directory in (twin.library, twin.directory):
            if directory.exists():
                shutil.rmtree(directory)
        twin.lock_path.unlink()

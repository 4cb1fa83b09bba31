"""Up and down: converge a twin to its inventory, and remove it completely."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from l3hv.model.topology import Machine, Topology
from l3hv.twin import TwinError, access, confinement, emulator, guests, machine, mirror, network, power
from l3hv.twin.image import DEFAULT_DAEMON, DEFAULT_SYSTEM, ensure_images, recipe
from l3hv.twin.state import Standing, Twin, check_names, machine_numbers

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WANTED_INOTIFY_INSTANCES = 8192


def need_root() -> None:
    """Refuse to run without root, which namespaces need."""
    if os.geteuid() != 0:
        raise TwinError("the twin creates namespaces and machines: run it as root (sudo ./twin …)")


@dataclass(frozen=True)
class Wanted:
    """The arguments of ``up``; see ``Standing`` for the fields.

    ``system`` replaces that of all machines.
    """

    topology: Topology
    inventories: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    adopt: bool = False
    bare: bool = False
    system: str | None = None
    emulated: bool = False
    tagged: bool = False


@dataclass
class Outcome:
    """The result of ``up``: booted machines, plugged guests, and failed machines with the reason."""

    booted: list[str] = field(default_factory=list)
    plugged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def up(twin: Twin, wanted: Wanted) -> Outcome:
    """Converge a twin to a topology.

    Machines and guests that already match the topology do not change, so a second ``up`` changes nothing.
    If a machine does not boot, the others boot all the same, and the next ``up`` tries it again.
    """
    topology = replace(
        wanted.topology, machines=tuple(as_booted(each, wanted) for each in wanted.topology.machines)
    )
    check_names(topology)
    recipes = {
        found.image: recipe(
            found.system, found.daemon, bare=wanted.bare, serves_dhcp=found.serves_dhcp and not wanted.bare
        )
        for found in topology.machines
    }
    images = dict(zip(recipes, map(str, ensure_images(recipes.values(), twin.say)), strict=True))
    for found in topology.machines:
        if found.emulated:
            own = [guest for guest in topology.guests if guest.hypervisor == found.name]
            emulator.check_room(found.name, 1 + len(found.ports) + len(own))
            emulator.ensure_machine(found, Path(images[found.image]), twin.say)
    _allow_many_machines(twin)
    with twin.locked():
        before = twin.standing_or_none()
        _refuse_other(twin, before, wanted)
        if before is None and twin.library.exists():
            shutil.rmtree(twin.library)  # It belongs to a twin from before the host's last reboot.
        standing = Standing(
            inventories=wanted.inventories,
            topology=topology,
            numbers=machine_numbers(topology, before.numbers if before else {}),
            images=images | dict(before.images if before else {}),
            bare=wanted.bare,
            options=wanted.options,
            adopt=wanted.adopt,
            emulated=wanted.emulated,
            tagged=wanted.tagged,
        )
        twin.remember(standing)
        access.write_access(twin, standing)
        for name in surplus_machines(twin, standing):
            twin.say(f"removing {name}")
            machine.forget(twin, name)
        guests.remove_surplus(twin, standing)
        network.ensure_switches(twin, topology.segments)
        network.ensure_routers(twin, topology.routers)
        if wanted.bare:
            mirror.ensure_mirror(twin)
        outcome = Outcome()
        for each in topology.machines:
            if machine.is_up_or_booting(twin, each.name):
                machine.recable(twin, each)
            else:
                twin.say(booting(each))
                machine.power_off(twin, each.name)
                machine.start(twin, each.name)
                outcome.booted.append(each.name)
        network.remove_other_switches(twin, topology.segments)
        # Wait for all machines: one that an interrupted command started may still be booting.
        outcome.failed |= machine.await_ready(twin, [each.name for each in topology.machines])
        mirror.check(twin)
        for each in topology.machines:
            if each.name not in outcome.failed:
                outcome.plugged += guests.plug_all(twin, standing, each.name)
        outcome.booted = [name for name in outcome.booted if name not in outcome.failed]
    return outcome


def booting(machine: Machine) -> str:
    """Return the sentence about a machine that boots."""
    sentence = f"booting {machine.name}"
    if machine.emulated:
        lacking = [kind for kind in machine.needs if emulator.lacks(kind)]
        reason = f": this host's kernel has no {', '.join(lacking)}" if lacking else ""
        sentence += f" in QEMU{reason}"
    return sentence if machine.managed else f"{sentence}, with its uplinks only"


def as_booted(found: Machine, wanted: Wanted) -> Machine:
    """Return a machine as the twin boots it: it adopts a router of another team, or does not configure it."""
    found = replace(found, managed=found.managed or wanted.adopt)
    if found.daemon == "junos" and not found.managed:
        found = replace(found, system=DEFAULT_SYSTEM, daemon=DEFAULT_DAEMON)
    emulated = found.emulated or wanted.emulated or any(map(emulator.lacks, found.needs))
    return replace(found, system=wanted.system or found.system, emulated=emulated)


def _allow_many_machines(twin: Twin) -> None:
    """Raise the host's limit of inotify instances, which all machines share as root.

    Each systemd needs about eight.  With the kernel's default of 128, the sixteenth machine fails in its
    first second.  The higher limit itself costs no memory.
    """
    now = int(INOTIFY_INSTANCES.read_text(encoding="ascii"))
    if now < WANTED_INOTIFY_INSTANCES:
        twin.say(f"raising the host's fs.inotify.max_user_instances from {now} to {WANTED_INOTIFY_INSTANCES}")
        INOTIFY_INSTANCES.write_text(str(WANTED_INOTIFY_INSTANCES), encoding="ascii")


def _refuse_other(twin: Twin, before: Standing | None, wanted: Wanted) -> None:
    if before is None:
        return
    if before.inventories != wanted.inventories:
        source = " and ".join(before.inventories) or "a topology file"
        raise TwinError(
            f"the twin {twin.name} was started from {source}: "
            f"end it with './twin down --name {twin.name}' or choose another name"
        )
    if before.bare != wanted.bare:
        raise TwinError(
            f"the twin {twin.name} was started {'with' if before.bare else 'without'} --bare: "
            f"end it with './twin down --name {twin.name}' first"
        )


def failures(failed: Mapping[str, str]) -> str:
    """Return a text with each machine that did not boot, the reason and the end of its console."""
    return "\n".join(f"{name} did not boot: {reason}" for name, reason in failed.items())


def surplus_machines(twin: Twin, standing: Standing) -> list[str]:
    """Return the machines that have left the topology, or whose image has changed."""
    directory = twin.directory / "machines"
    wanted = {found.name: (found.image, found.emulated) for found in standing.topology.machines}
    return [
        entry.name
        for entry in sorted(directory.iterdir() if directory.is_dir() else ())
        if (cabled := machine.as_cabled(twin, entry.name)) is None
        or (cabled.image, cabled.emulated) != wanted.get(entry.name)
    ]


def boot(twin: Twin, name: str) -> None:
    """Switch a machine on unless it runs, and wait until it is up."""
    with twin.locked():
        twin.standing().machine(name)
        if not machine.is_up_or_booting(twin, name):
            machine.power_off(twin, name)
            machine.start(twin, name)
        if failed := machine.await_ready(twin, [name]):
            raise TwinError(failures(failed))


def crash(twin: Twin, name: str) -> None:
    """Cut the power of a machine that runs."""
    with twin.locked():
        twin.standing().machine(name)
        # Refuse a machine that is off.  One that shuts down has no leader, but still a supervisor.
        if not machine.is_supervised(twin, name):
            power.leader(twin, name)
        machine.power_off(twin, name)


def set_cables(twin: Twin, name: str, path: str, domain: str | None, fault: str, *, present: bool) -> None:
    """Add or remove a fault of a machine's cables on a path (see network.set_cable_fault)."""
    with twin.locked():
        found = twin.standing().machine(name)
        ports = [port for port in found.ports if port.path == path and domain in (None, port.domain)]
        if not ports:
            wanted = f"path {path}" + (f" of domain {domain}" if domain else "")
            known = ", ".join(f"{port.path} {port.domain}" for port in found.ports) or "none"
            raise TwinError(f"{name} has no port on {wanted}; it has (path, domain): {known}")
        for port in ports:
            network.set_cable_fault(twin, name, port, fault, present=present)


def down(twin: Twin) -> None:
    """Remove a twin in any state: complete, half-started, broken or already removed."""
    with twin.locked():
        mirror.end_mirror(twin)
        access.close_connections(twin)
        machine.end_all(twin)
        network.remove_namespaces(network.namespaces(twin.prefix))
        confinement.remove_groups(twin)
        for directory in (twin.library, twin.directory):
            if directory.exists():
                shutil.rmtree(directory)
        twin.lock_path.unlink()

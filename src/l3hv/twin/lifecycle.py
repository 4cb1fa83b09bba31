"""Up and down: bring a twin to what its inventory says, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from l3hv.model.topology import Machine, Topology
from l3hv.twin import TwinError, access, confinement, guests, machine, mirror, network, power
from l3hv.twin.image import DEFAULT_DAEMON, DEFAULT_SYSTEM, ensure_images, recipe
from l3hv.twin.state import Standing, Twin, check_names, machine_numbers

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WANTED_INOTIFY_INSTANCES = 8192


def need_root() -> None:
    """Refuse to go on without the rights that namespaces take."""
    if os.geteuid() != 0:
        raise TwinError("the twin makes namespaces and machines: run it as root (sudo ./twin …)")


@dataclass(frozen=True)
class Wanted:
    """What ``up`` is asked for; see ``Standing`` for the fields.  ``system`` is one for all machines."""

    topology: Topology
    inventories: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    adopt: bool = False
    bare: bool = False
    system: str | None = None


@dataclass
class Outcome:
    """What ``up`` did: the machines that it booted, the guests that it plugged, and why others failed."""

    booted: list[str] = field(default_factory=list)
    plugged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def up(twin: Twin, wanted: Wanted) -> Outcome:
    """Bring a twin to a topology.

    What stands already and is as wanted is left alone, so that a second ``up`` changes nothing.  A machine
    that does not boot keeps none of the others from it, and the next ``up`` tries it again.
    """
    topology = replace(
        wanted.topology, machines=tuple(_as_booted(each, wanted) for each in wanted.topology.machines)
    )
    check_names(topology)
    recipes = {
        found.image: recipe(found.system, found.daemon, bare=wanted.bare) for found in topology.machines
    }
    images = dict(zip(recipes, map(str, ensure_images(recipes.values(), twin.say)), strict=True))
    _allow_many_machines(twin)
    with twin.locked():
        before = twin.standing_or_none()
        _refuse_other(twin, before, wanted)
        if before is None and twin.library.exists():
            shutil.rmtree(twin.library)  # Of a twin that stood before the host's last reboot.
        standing = Standing(
            inventories=wanted.inventories,
            topology=topology,
            numbers=machine_numbers(topology, before.numbers if before else {}),
            images=images | dict(before.images if before else {}),
            bare=wanted.bare,
            options=wanted.options,
            adopt=wanted.adopt,
        )
        twin.remember(standing)
        access.write_access(twin, standing)
        for name in surplus_machines(twin, standing):
            twin.say(f"removing {name}")
            machine.forget(twin, name)
        guests.remove_surplus(twin, standing)
        network.ensure_switches(twin, topology.segments)
        if wanted.bare:
            mirror.ensure_mirror(twin)
        outcome = Outcome()
        for each in topology.machines:
            if machine.is_well(twin, each.name):
                machine.recable(twin, each)
            else:
                twin.say(f"booting {each.name}" + ("" if each.managed else ", with its uplinks only"))
                machine.power_off(twin, each.name)
                machine.start(twin, each.name)
                outcome.booted.append(each.name)
        network.remove_other_switches(twin, topology.segments)
        # A machine that an interrupted command started may still be booting.
        outcome.failed |= machine.await_ready(twin, [each.name for each in topology.machines])
        mirror.check(twin)
        for each in topology.machines:
            if each.name not in outcome.failed:
                outcome.plugged += guests.plug_all(twin, standing, each.name)
        outcome.booted = [name for name in outcome.booted if name not in outcome.failed]
    return outcome


def _as_booted(found: Machine, wanted: Wanted) -> Machine:
    """A machine as the twin boots it: a router of somebody else is ours, or one that nothing configures."""
    found = replace(found, managed=found.managed or wanted.adopt)
    if found.daemon == "junos" and not found.managed:
        found = replace(found, system=DEFAULT_SYSTEM, daemon=DEFAULT_DAEMON)
    return replace(found, system=wanted.system or found.system)


def _allow_many_machines(twin: Twin) -> None:
    """Raise the host's limit of inotify instances, which all machines share as root.

    Each systemd takes about eight, and with the kernel's default of 128 the sixteenth machine dies in its
    first second.  It is a limit only: nothing is used up by raising it.
    """
    now = int(INOTIFY_INSTANCES.read_text(encoding="ascii"))
    if now < WANTED_INOTIFY_INSTANCES:
        twin.say(f"raising the host's fs.inotify.max_user_instances from {now} to {WANTED_INOTIFY_INSTANCES}")
        INOTIFY_INSTANCES.write_text(str(WANTED_INOTIFY_INSTANCES), encoding="ascii")


def _refuse_other(twin: Twin, before: Standing | None, wanted: Wanted) -> None:
    if before is None:
        return
    if before.inventories != wanted.inventories:
        stands_for = " and ".join(before.inventories) or "a topology of its own"
        raise TwinError(
            f"the twin {twin.name} stands for {stands_for}: "
            f"end it with './twin down --name {twin.name}' or choose another name"
        )
    if before.bare != wanted.bare:
        raise TwinError(
            f"the twin {twin.name} was started {'with' if before.bare else 'without'} --bare: "
            f"end it with './twin down --name {twin.name}' first"
        )


def failures(failed: Mapping[str, str]) -> str:
    """A text that tells of each machine that did not boot why, and how its console ended."""
    return "\n".join(f"{name} did not boot: {reason}" for name, reason in failed.items())


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
        if not machine.is_well(twin, name):
            machine.power_off(twin, name)
            machine.start(twin, name)
        if failed := machine.await_ready(twin, [name]):
            raise TwinError(failures(failed))


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

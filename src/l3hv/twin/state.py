"""The stored state of a twin: its names, its directories, and the files that its verbs share."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from l3hv.model.choices import SWITCHES
from l3hv.model.daemons import REFLECTORS_ONLY, TITLES
from l3hv.model.topology import GuestMachine, Machine, Port, Router, RouterPort, Topology
from l3hv.twin import TwinError

RUN = Path("/run/l3hv")
LIBRARY = Path("/var/lib/l3hv")

# The prefix is link-local, so it clashes with no inventory and no host routes it.  It avoids
# 169.254.0.0/24 and 169.254.169.254, which other programs use.  Each twin has it in a namespace
# of its own.
MANAGEMENT = IPv4Network("169.254.248.0/22")
HOST_NUMBER = 1
FIRST_MACHINE_NUMBER = 11

# Dashes separate the parts of a namespace's name, so a twin's name has none.
TWIN_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
MACHINE_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
LONGEST_HOST_NAME = 64  # the limit of Linux and of systemd-nspawn


@dataclass(frozen=True)
class Standing:
    """The arguments of the last ``up``, stored before it creates anything.

    ``inventories`` is empty if the topology came from a file; ``options`` are the arguments with which
    ansible-playbook reads the inventories.  With ``adopt`` the roles provision routers of other teams too,
    with ``emulated`` QEMU runs all machines, and with ``tagged`` cables carry VLANs (see ``trunks``).
    ``numbers`` has the host number of each machine in ``MANAGEMENT``, and ``images`` the root file system of
    each image (``Machine.image``); both stay the same until ``down``.
    """

    inventories: tuple[str, ...]
    topology: Topology
    numbers: Mapping[str, int]
    images: Mapping[str, str]
    bare: bool
    options: tuple[str, ...] = ()
    adopt: bool = False
    emulated: bool = False
    tagged: bool = False

    def machine(self, name: str) -> Machine:
        """Return the machine of that name; for an unknown name raise an error that lists the known ones."""
        for machine in self.topology.machines:
            if machine.name == name:
                return machine
        known = ", ".join(machine.name for machine in self.topology.machines)
        raise TwinError(f"the twin has no machine {name!r}: its machines are {known}")

    def guest(self, name: str) -> GuestMachine:
        """Return the guest of that name; for an unknown name raise an error that lists the known ones."""
        for guest in self.topology.guests:
            if guest.name == name:
                return guest
        known = ", ".join(guest.name for guest in self.topology.guests) or "none"
        raise TwinError(f"the twin has no guest {name!r}: its guests are {known}")

    def host_name(self, machine: str) -> str:
        """Return a machine's own host name (see ``host_names``)."""
        return host_names(found.name for found in self.topology.machines)[machine]

    def address(self, machine: str) -> IPv4Address:
        """Return the management address of a machine."""
        return MANAGEMENT[self.numbers[machine]]


@dataclass(frozen=True)
class Twin:
    """One twin; the names of its directories, namespaces and units begin with its name."""

    name: str
    say: Callable[[str], None] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        if not TWIN_NAME.fullmatch(self.name):
            raise TwinError(
                f"{self.name!r} is not a valid name of a twin: use at most 12 lower-case letters and "
                "digits, a letter first"
            )

    @property
    def directory(self) -> Path:
        """Return the directory of run-time state, which ``down`` or a reboot of the host removes."""
        return RUN / self.name

    @property
    def library(self) -> Path:
        """Return the directory of the writable layers of the machines' file systems."""
        return LIBRARY / self.name

    def machine_directory(self, machine: str) -> Path:
        return self.directory / "machines" / machine

    def guest_directory(self, guest: str) -> Path:
        return self.directory / "guests" / guest

    @property
    def prefix(self) -> str:
        """Return the beginning of the names of all namespaces of this twin."""
        return f"l3hv-{self.name}-"

    @property
    def management_namespace(self) -> str:
        return f"{self.prefix}mgmt"

    @property
    def switch_namespace(self) -> str:
        return f"{self.prefix}switch"

    def machine_namespace(self, machine: str) -> str:
        return f"{self.prefix}host-{machine}"

    def router_namespace(self, router: str) -> str:
        return f"{self.prefix}router-{router}"

    def guest_namespace(self, guest: str) -> str:
        return f"{self.prefix}guest-{guest}"

    @property
    def lock_path(self) -> Path:
        return RUN / f".{self.name}.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the twin against other verbs that change it; wait for a running one to end."""
        RUN.mkdir(parents=True, exist_ok=True)
        path = self.lock_path
        while True:
            with path.open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.say(f"waiting for another command on the twin {self.name}")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                # ``down`` removes the file, and a lock on a removed file excludes no other verb.
                if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                    yield
                    return

    def standing(self) -> Standing:
        """Return the stored state of the twin; raise an error if the twin was not started."""
        standing = self.standing_or_none()
        if standing is None:
            others = [name for name in standing_twins() if name != self.name]
            raise TwinError(
                f"the twin {self.name!r} does not run: start it with './twin up --name {self.name}'"
                + (f", or choose another one with --name: {', '.join(others)}" if others else "")
            )
        return standing

    def standing_or_none(self) -> Standing | None:
        """Return the stored state of the twin, or None if it was not started."""
        stored = read_json(self.directory / "twin.json")
        if stored is None:
            return None
        return standing_from(stored)

    def remember(self, standing: Standing) -> None:
        write_json(self.directory / "twin.json", stored_form(standing))


def stored_form(standing: Standing) -> dict[str, Any]:
    """Return the JSON form of the state of a twin."""
    return {key: asdict(value) if key == "topology" else value for key, value in vars(standing).items()}


def standing_from(stored: Mapping[str, Any]) -> Standing:
    """Return the state of a twin from its JSON form, also if an older version of l3hv has written it."""
    return Standing(
        inventories=tuple(stored.get("inventories") or filter(None, [stored.get("inventory")])),
        topology=topology_from(stored["topology"]),
        numbers=stored["numbers"],
        images=stored["images"],
        bare=stored["bare"],
        options=tuple(stored.get("options", ())),
        adopt=stored.get("adopt", True),
        emulated=stored.get("emulated", False),
        tagged=stored.get("tagged", False),
    )


def standing_twins() -> list[str]:
    """Return the names of the twins with files on this host."""
    directories = [top for top in (RUN, LIBRARY) if top.is_dir()]
    names = {entry.name for top in directories for entry in top.iterdir()}
    return sorted(name for name in names if TWIN_NAME.fullmatch(name))


def machine_numbers(topology: Topology, held: Mapping[str, int]) -> dict[str, int]:
    """Return a host number per machine: its present one, or the lowest free one.

    >>> one = Topology((Machine("hv1", "hypervisor", "debian13", ()),), ())
    >>> machine_numbers(one, {"rr1": 11, "hv9": 12})
    {'hv1': 11}
    """
    names = [machine.name for machine in topology.machines]
    numbers = {name: held[name] for name in names if name in held}
    free = (
        number
        for number in range(FIRST_MACHINE_NUMBER, MANAGEMENT.num_addresses - 1)
        if number not in numbers.values()
    )
    for name in names:
        if name not in numbers:
            numbers[name] = next(free)
    return numbers


def host_names(machines: Iterable[str]) -> dict[str, str]:
    """Return the host name of each machine: its name, or the nearest valid one (RFC 1123).

    If two machines would have the same host name, a digest of the machine's name is appended.

    >>> host_names(["hv_1", "hv-2", "rr1.example.net"])
    {'hv_1': 'hv-1', 'hv-2': 'hv-2', 'rr1.example.net': 'rr1.example.net'}
    >>> host_names(["hv-1", "hv_1"])
    {'hv-1': 'hv-1', 'hv_1': 'hv-1-f668f0d8'}
    """
    names = list(machines)
    nearest = {name: _nearest_host_name(name) for name in names}
    taken = Counter(nearest.values())
    return {
        name: host
        if len(host) <= LONGEST_HOST_NAME and (name == host or taken[host] == 1)
        else f"{host[: LONGEST_HOST_NAME - 9].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, host in nearest.items()
    }


def _nearest_host_name(name: str) -> str:
    labels = (label.strip("-") for label in name.replace("_", "-").split("."))
    return ".".join(label for label in labels if label) or "machine"


def check_names(topology: Topology) -> None:
    """Refuse invalid names of machines, guests and interfaces, and daemons that the twin cannot provision."""
    for machine in topology.machines:
        if machine.daemon == "junos" and machine.managed:
            raise TwinError(
                f"{machine.name} runs Junos, of which the twin has no image: omit --adopt to boot "
                "a machine without configuration, or test a copy of the inventory with another daemon"
            )
        if (
            machine.managed
            and machine.daemon in REFLECTORS_ONLY
            and machine.kind not in ("route_reflector", *SWITCHES)
        ):
            raise TwinError(
                f"{machine.name} runs {TITLES[machine.daemon]}, which l3hv configures only on reflectors: "
                "omit --adopt, and configure it by './twin exec'"
            )
        if not MACHINE_NAME.fullmatch(machine.name):
            raise TwinError(f"{machine.name!r} is not a valid host name")
        for port in machine.ports:
            if not 0 < len(port.interface) <= 15 or "/" in port.interface:
                raise TwinError(
                    f"{machine.name} cannot have an interface named {port.interface!r}: "
                    "Linux accepts 1 to 15 characters"
                )
    for guest in topology.guests:
        if not MACHINE_NAME.fullmatch(guest.name):
            raise TwinError(f"{guest.name!r} is not a valid name of a guest's namespace")


def machine_from(stored: Mapping[str, Any]) -> Machine:
    """Return a machine from its JSON form."""
    return Machine(
        name=stored["name"],
        kind=stored["kind"],
        system=stored["system"],
        ports=tuple(Port(**port) for port in stored["ports"]),
        daemon=stored.get("daemon", "bird2"),
        managed=stored.get("managed", True),
        needs=tuple(stored.get("needs", ())),
        emulated=stored.get("emulated", False),
        serves_dhcp=stored.get("serves_dhcp", False),
    )


def guest_from(stored: Mapping[str, Any]) -> GuestMachine:
    """Return a guest from its JSON form."""
    several = {key: tuple(stored.get(key, ())) for key in ("addresses", "transparent")}
    known = {key: value for key, value in stored.items() if key in GuestMachine.__dataclass_fields__}
    return GuestMachine(**{**known, **several})


def router_from(stored: Mapping[str, Any]) -> Router:
    """Return a router from its JSON form."""
    ports = (
        RouterPort(port["segment"], port["mtu"], tuple(port["addresses"]), tuple(port["hosts"]))
        for port in stored["ports"]
    )
    return Router(stored["name"], tuple(ports))


def topology_from(stored: Mapping[str, Any]) -> Topology:
    """Return a topology from its JSON form (the fields of the dataclasses; ``guests`` is optional)."""
    try:
        return Topology(
            machines=tuple(machine_from(machine) for machine in stored["machines"]),
            guests=tuple(guest_from(guest) for guest in stored.get("guests", ())),
            routers=tuple(router_from(router) for router in stored.get("routers", ())),
        )
    except (KeyError, TypeError) as error:
        raise TwinError(f"the file is no topology: {error} (see docs/twin.md)") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)

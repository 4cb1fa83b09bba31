"""The command line of the twin: verbs that start, stop, break and measure machines, guests and cables."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from l3hv.model.text import counted
from l3hv.model.topology import Topology
from l3hv.twin import (
    HOST_PACKAGES,
    TwinError,
    access,
    guest_system,
    guests,
    image,
    lifecycle,
    machine,
    network,
    power,
    probe,
    status,
)
from l3hv.twin.state import Standing, Twin, standing_twins, topology_from

REPOSITORY = Path(__file__).resolve().parents[3]
MOST_FLOWS = 256
DEFAULT_INVENTORY = "inventories/lab"


def say(line: str) -> None:
    """Print progress or an error to standard error; results go to standard output."""
    print(f"twin: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb, and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    if "--" in words:
        words, command = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = _parser()
    options, unknown = parser.parse_known_args(words)
    if options.takes is None and (unknown or command):
        parser.error(f"unknown arguments: {' '.join(unknown or ['--', *command])}")
    if options.takes == "command" and unknown:
        parser.error(f"put -- before the command: -- {' '.join(unknown)}")
    options.command = [*unknown, *command]
    try:
        return int(options.run(options) or 0)
    except TwinError as error:
        say(str(error))
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("interrupted: './twin up' continues, './twin down' removes the twin")
        return 130


class _Verbs:
    """The verbs of the command line, in the groups of the help."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._verbs = parser.add_subparsers(
            prog="twin", metavar="VERB", required=True, help=argparse.SUPPRESS
        )
        self._lines: list[str] = []
        self.names: list[str] = []

    def group(self, title: str) -> None:
        """Begin a group of verbs."""
        self._lines += ["", f"{title}:"]
        self._parser.epilog = "\n".join(self._lines).lstrip()

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], int | None],
        summary: str,
        *,
        has_name: bool = True,
        as_json: bool = False,
        takes: str | None = None,
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> argparse.ArgumentParser:
        """Add a verb and return its parser.

        ``takes`` is ``command`` if a command may follow ``--``, and ``arguments`` if the verb passes all
        unknown arguments to a program.  ``has_name`` adds the option for the name of the twin.
        """
        place = f"twin {name} [-h] [--name NAME] {'GUEST' if name == 'guest' else 'MACHINE'}"
        usages = {
            "command": f"{place} -- COMMAND",
            "arguments": f"twin {name} [-h] [--name NAME] PLAYBOOK [ARGUMENT ...]",
        }
        added = self._verbs.add_parser(
            name,
            description=summary,
            usage=usages.get(takes or ""),
            allow_abbrev=False,
            parents=parents,
        )
        self.names.append(name)
        added.set_defaults(run=run, takes=takes)
        if has_name:
            added.add_argument("--name", default="lab", help="the name of the twin (default: lab)")
        if as_json:
            added.add_argument("--json", action="store_true", help="print JSON")
        self._lines += textwrap.wrap(summary, 78, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
        self._parser.epilog = "\n".join(self._lines).lstrip()
        return added


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twin",
        usage="twin [-h] VERB ...",
        description="Boot the machines of an inventory as containers on this host. Needs root.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_verbs(parser)
    return parser


def _add_verbs(parser: argparse.ArgumentParser) -> _Verbs:
    verbs = _Verbs(parser)
    _add_building(verbs)
    _add_running(verbs)
    _add_breaking(verbs)
    _add_measuring(verbs)
    return verbs


def verbs() -> list[str]:
    """Return the names of all verbs."""
    return _add_verbs(argparse.ArgumentParser()).names


def _add_building(verbs: _Verbs) -> None:
    verbs.group("build")
    added = verbs.add(
        "up",
        _up,
        "Start a twin, or apply changes of its inventory.",
        as_json=True,
        parents=[_ansible_options()],
    )
    source = added.add_mutually_exclusive_group()
    source.add_argument(
        "-i",
        "--inventory",
        action="append",
        help="an Ansible inventory; may be repeated "
        f"(default: the inventories of the running twin, or {DEFAULT_INVENTORY})",
    )
    source.add_argument("--topology", help="a JSON topology instead of an inventory")
    added.add_argument("--bare", action="store_true", help="boot machines without routing packages")
    added.add_argument(
        "--emulated",
        action="store_true",
        help="boot all machines in QEMU with Debian's kernel (default: only those that need it here)",
    )
    added.add_argument(
        "--tagged",
        action="store_true",
        help="let the roles create the VLAN interfaces, on cables with tags (default: a cable per VLAN)",
    )
    added.add_argument("--system", choices=sorted(image.SUITES), help="boot all machines with this system")
    added.add_argument(
        "--adopt",
        action="store_true",
        help="provision routers of other teams (l3hv_managed: false) with l3hv too; "
        "by default they boot without configuration",
    )

    added = verbs.add("down", _down, "Remove a twin with all its machines, namespaces and files.")
    added.add_argument("--all", action="store_true", help="remove all twins of this host")

    added = verbs.add("image", _image, "Build a base image unless it is cached.", has_name=False)
    added.add_argument("--system", default=image.DEFAULT_SYSTEM, choices=sorted(image.SUITES))
    added.add_argument(
        "--daemon", default=image.DEFAULT_DAEMON, choices=sorted(image.DAEMON_PACKAGES), help="routing daemon"
    )
    added.add_argument("--bare", action="store_true", help="omit the routing packages")
    added.add_argument("--dhcp-server", action="store_true", help="add the packages of a DHCP server")
    added.add_argument("--rebuild", action="store_true", help="build it even if it is cached")
    added.add_argument("--all", action="store_true", help="build all images, several at the same time")

    verbs.add("packages", _packages, "Print the Debian packages that the host needs.", has_name=False)


def _add_running(verbs: _Verbs) -> None:
    verbs.group("run")
    added = verbs.add(
        "play",
        _play,
        "Run a playbook against the twin's machines, with further arguments of ansible-playbook.",
        takes="arguments",
    )
    added.add_argument("playbook", metavar="PLAYBOOK")

    verbs.add("status", _status, "Show machines, ports and guests.", as_json=True)

    added = verbs.add("exec", _exec, "Run a command in a machine (default: bash).", takes="command")
    added.add_argument("machine", metavar="MACHINE")

    added = verbs.add("guest", _guest, "Run a command as a guest (default: bash).", takes="command")
    added.add_argument("guest", metavar="GUEST")

    added = verbs.add("plug", _plug, "Start a guest, or move a running one to another hypervisor.")
    added.add_argument("guest", metavar="GUEST")
    added.add_argument("--on", metavar="HYPERVISOR", help="default: its last hypervisor")
    runs_as = added.add_mutually_exclusive_group()
    runs_as.add_argument("--qemu", action="store_true", help="run it as a virtual machine")
    runs_as.add_argument(
        "--client", choices=guest_system.CLIENTS, help="run it with a Debian user space and this client"
    )

    added = verbs.add("unplug", _unplug, "Stop a guest and remove its interface.")
    added.add_argument("guest", metavar="GUEST")


def _add_breaking(verbs: _Verbs) -> None:
    verbs.group("break and repair")
    for name, run, summary in (
        ("cut", _cut, "Drop all frames of a machine on a path; carriers stay up."),
        ("heal", _heal, "Undo a cut."),
    ):
        added = verbs.add(name, run, summary)
        added.add_argument("machine", metavar="MACHINE")
        added.add_argument("path", metavar="PATH")
        added.add_argument("--domain", help="one domain of the path (default: all)")

    added = verbs.add("carrier", _carrier, "Switch a machine's carrier on a path off or on.")
    added.add_argument("machine", metavar="MACHINE")
    added.add_argument("path", metavar="PATH")
    added.add_argument("state", choices=("up", "down"))
    added.add_argument("--domain", help="one domain of the path (default: all)")

    added = verbs.add("kill", _kill, "Send SIGKILL to a daemon of a machine.")
    added.add_argument("machine", metavar="MACHINE")
    added.add_argument("daemon", metavar="DAEMON", help="the name of the program: bird, dnsmasq, …")

    added = verbs.add("crash", _crash, "Power a machine off, as a power cut does.")
    added.add_argument("machine", metavar="MACHINE")

    added = verbs.add("boot", _boot, "Switch a machine on and wait until it is up.")
    added.add_argument("machine", metavar="MACHINE")


def _add_measuring(verbs: _Verbs) -> None:
    verbs.group("measure")
    added = verbs.add(
        "probe",
        _probe,
        "Send parallel UDP echo flows between two ends, and measure the loss that an event causes.",
        as_json=True,
    )
    added.add_argument("source", metavar="FROM", help="a guest, a machine or an address")
    added.add_argument("target", metavar="TO", help="a guest, a machine or an address")
    added.add_argument("--family", type=int, choices=(4, 6), help="default: 4, or the address's")
    added.add_argument("--flows", type=int, default=32, help="default: %(default)s")
    added.add_argument("--interval-ms", type=float, default=10, help="default: %(default)s")
    added.add_argument("--seconds", type=float, default=15, help="default: %(default)s")
    added.add_argument(
        "--event", help="a verb to run during the probe ('cut hv2 a'), or a shell command ('! COMMAND')"
    )
    added.add_argument("--at", type=float, default=5, help="time of the event in seconds (default: 5)")


def _twin(options: argparse.Namespace) -> Twin:
    lifecycle.need_root()
    return Twin(options.name, say)


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def _image(options: argparse.Namespace) -> None:
    lifecycle.need_root()
    if options.all:
        guest = image.guest_recipe(guest_system.SYSTEM)
        print(*image.ensure_images([*image.all_recipes(), guest], say), sep="\n")
        return
    wanted = image.recipe(options.system, options.daemon, bare=options.bare, serves_dhcp=options.dhcp_server)
    print(image.ensure_image(wanted, say, rebuild=options.rebuild))


def _up(options: argparse.Namespace) -> int:
    twin = _twin(options)
    begin = time.monotonic()
    outcome = lifecycle.up(twin, _wanted(options, twin.standing_or_none()))
    seconds = round(time.monotonic() - begin, 1)
    if options.json:
        _print_json({"twin": twin.name, **asdict(outcome), "seconds": seconds})
    booted, plugged = len(outcome.booted), len(outcome.plugged)
    # The guests of a machine that boots start with it.
    done = [counted(booted, "machine") + " booted"] if booted else []
    done += [counted(plugged, "guest") + " plugged"] if plugged else []
    if not options.json and (done or not outcome.failed):
        say(f"{' and '.join(done)} in {seconds} s" if done else "nothing to boot or to plug")
    if outcome.failed:
        say(f"{lifecycle.failures(outcome.failed)}\nThe others run; the next './twin up' tries again.")
    return 1 if outcome.failed else 0


def _wanted(options: argparse.Namespace, before: Standing | None) -> lifecycle.Wanted:
    """Return the arguments of ``up``; by default the inventories of the running twin are read again."""
    wanted = lifecycle.Wanted(
        Topology((), ()),
        bare=options.bare,
        system=options.system,
        adopt=options.adopt,
        emulated=options.emulated,
        tagged=options.tagged,
    )
    if options.topology:
        try:
            stored = json.loads(Path(options.topology).read_text())
        except (OSError, ValueError) as error:
            raise TwinError(f"{options.topology} is no JSON topology: {error}") from error
        if options.tagged:
            raise TwinError("--tagged needs an inventory: name the NICs as ports of the topology instead")
        return replace(wanted, topology=topology_from(stored))
    words = tuple(_ansible_arguments(options))
    if options.inventory or before is None or not before.inventories:
        given = options.inventory or [str(REPOSITORY / DEFAULT_INVENTORY)]
        inventories = tuple(each if "," in each else str(Path(each).resolve()) for each in given)
        wanted = replace(wanted, inventories=inventories, options=words)
    else:
        wanted = replace(
            wanted,
            inventories=before.inventories,
            options=words or before.options,
            adopt=options.adopt or before.adopt,
            emulated=options.emulated or before.emulated,
            tagged=options.tagged or before.tagged,
        )
    found = inventory_topology(wanted.inventories, wanted.options, tagged=wanted.tagged)
    return replace(wanted, topology=found)


def _ansible_options() -> argparse.ArgumentParser:
    """Return a parser of the options of ansible-playbook that an inventory may need."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "-e",
        "--extra-vars",
        action="append",
        default=[],
        metavar="VARIABLES",
        help="as for ansible-playbook, like the options of vaults",
    )
    parser.add_argument("--vault-id", action="append", default=[], dest="vault_ids", metavar="ID")
    parser.add_argument(
        "--vault-password-file", action="append", default=[], dest="vault_password_files", metavar="FILE"
    )
    parser.add_argument("-J", "--ask-vault-password", action="store_true")
    return parser


def _ansible_arguments(options: argparse.Namespace) -> Iterator[str]:
    """Yield the options for Ansible as arguments with absolute paths, which are valid in any directory."""
    for value in options.extra_vars:
        yield from ("-e", f"@{Path(value[1:]).resolve()}" if value.startswith("@") else value)
    for value in options.vault_ids:
        label, at, source = value.rpartition("@")
        source = source if source.startswith("prompt") else str(Path(source).resolve())
        yield from ("--vault-id", f"{label}{at}{source}")
    for value in options.vault_password_files:
        yield from ("--vault-password-file", str(Path(value).resolve()))
    if options.ask_vault_password:
        yield "--ask-vault-password"


def _use_configuration() -> None:
    """Make Ansible read ANSIBLE_CONFIG, or the configuration of this repository, in any directory."""
    chosen = Path(os.environ.get("ANSIBLE_CONFIG") or REPOSITORY / "ansible.cfg")
    os.environ["ANSIBLE_CONFIG"] = str(chosen.resolve())


def inventory_topology(inventories: Sequence[str], words: Sequence[str], *, tagged: bool) -> Topology:
    """Return the machines and guests of inventories, which Ansible reads with the options ``words``.

    With ``tagged``, the machines create their VLAN interfaces themselves.  Raises ``TwinError`` for an
    inventory that cannot be read or is refused.
    """
    _use_configuration()
    try:
        from ansible.errors import AnsibleError

        from l3hv.inventory.ansible import Options, open_inventory
        from l3hv.inventory.files import place_of_error
        from l3hv.inventory.hosts import read_hosts
        from l3hv.inventory.read import read_topology
        from l3hv.model.errors import IntentError
        from l3hv.plan.uplinks import nics
        from l3hv.twin.trunks import with_trunks
    except ModuleNotFoundError as error:
        raise TwinError(
            f"the Python package {error.name} is missing: install requirements.txt into .venv (make venv)"
        ) from error
    given = _ansible_options().parse_args(words)
    options = Options(
        extra_vars=tuple(given.extra_vars),
        vault_ids=tuple(given.vault_ids),
        vault_password_files=tuple(given.vault_password_files),
        ask_vault_password=given.ask_vault_password,
    )
    named = " and ".join(inventories)
    try:
        sources = [Path(inventory) for inventory in inventories]
        override = access.variables(tagged=tagged)
        topology = read_topology(*sources, options=options, override=override)
        if not tagged:
            return topology
        # A topology does not have the NICs of VLANs.
        opened = open_inventory(*sources, options=options)
        kinds, _ = opened.kinds()
        intents = read_hosts(opened, kinds, kinds, override).hosts
        return with_trunks(topology, {host: nics(intent) for host, intent in intents.items()})
    except IntentError as error:
        raise TwinError(f"{named} has problems:\n{error}") from error
    except AnsibleError as error:
        place = place_of_error(error)
        raise TwinError(f"Ansible cannot read {named}: {f'{place}: ' if place else ''}{error}") from error


def _play(options: argparse.Namespace) -> None:
    twin = _twin(options)
    standing = twin.standing()
    if not standing.inventories:
        raise TwinError(f"the twin {twin.name} has a topology file, and no inventory for playbooks")
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if program is None:
        raise TwinError("ansible-playbook is missing: install requirements.txt into .venv")
    _use_configuration()
    os.chdir(REPOSITORY)
    sources = [word for inventory in standing.inventories for word in ("-i", inventory)]
    # The last value of a variable applies: that of the twin.
    extra = [*standing.options, "-e", f"@{access.extra_variables(twin)}"]
    os.execv(program, [program, *sources, *extra, options.playbook, *options.command])


def _status(options: argparse.Namespace) -> None:
    report = status.report(_twin(options))
    if options.json:
        _print_json(report)
    else:
        print(status.table(report))


def _exec(options: argparse.Namespace) -> None:
    twin = _twin(options)
    name = twin.standing().machine(options.machine).name
    terminal = ["-t"] if sys.stdin.isatty() else []
    command = power.command_in(twin, name, options.command or ["bash"], ssh_options=terminal)
    os.execvp(command[0], command)


def _guest(options: argparse.Namespace) -> None:
    twin = _twin(options)
    guest = twin.standing().guest(options.guest)
    runs_as = guests.kind(twin, guest)
    if runs_as.qemu:
        console = twin.guest_directory(guest.name) / "console.log"
        raise TwinError(f"{guest.name} is a virtual machine, which runs no commands: see {console}")
    command = options.command or ["bash"]
    if runs_as.client:
        command = guest_system.inside(twin, guest, command)
    else:
        network.enter(twin.guest_namespace(guest.name))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise TwinError(f"cannot run {command[0]}: {error.strerror}") from error


def _plug(options: argparse.Namespace) -> None:
    twin = _twin(options)
    standing = twin.standing()
    if options.on:
        standing.machine(options.on)
    guest = standing.guest(options.guest)
    # Without these options a guest keeps its kind: a move or a second plug does not change it.
    wanted = guests.Kind(options.qemu, options.client) if options.qemu or options.client else None
    if options.client:
        say(f"starting {guest.name} with a Debian user space and {options.client}")
    guests.plug(twin, guest, options.on, wanted)


def _unplug(options: argparse.Namespace) -> None:
    twin = _twin(options)
    guests.unplug(twin, twin.standing().guest(options.guest))


def _cut(options: argparse.Namespace) -> None:
    _set_cables(options, "cut", present=True)


def _heal(options: argparse.Namespace) -> None:
    _set_cables(options, "cut", present=False)


def _carrier(options: argparse.Namespace) -> None:
    _set_cables(options, "dark", present=options.state == "down")


def _set_cables(options: argparse.Namespace, fault: str, *, present: bool) -> None:
    twin = _twin(options)
    lifecycle.set_cables(twin, options.machine, options.path, options.domain, fault, present=present)


def _crash(options: argparse.Namespace) -> None:
    lifecycle.crash(_twin(options), options.machine)


def _boot(options: argparse.Namespace) -> None:
    lifecycle.boot(_twin(options), options.machine)


def _kill(options: argparse.Namespace) -> None:
    twin = _twin(options)
    machine.kill_daemon(twin, twin.standing().machine(options.machine).name, options.daemon)


def _probe(options: argparse.Namespace) -> None:
    twin = _twin(options)
    standing = twin.standing()
    if not (0 < options.interval_ms < math.inf and 0 < options.seconds < math.inf and options.at >= 0):
        raise TwinError("--interval-ms and --seconds need numbers above 0, --at a number from 0")
    if not 1 <= options.flows <= MOST_FLOWS:
        raise TwinError(f"--flows needs a number from 1 to {MOST_FLOWS}")
    ends = [options.source, options.target]
    family = options.family or (6 if any(":" in end for end in ends) else 4)
    source, target = (probe.find_end(twin, standing, end, family) for end in ends)
    result = probe.run_probe(
        source,
        target,
        flows=options.flows,
        interval=options.interval_ms / 1000,
        seconds=options.seconds,
        event=_event(options.event, twin.name) if options.event else None,
        at=options.at,
    )
    if options.json:
        _print_json(asdict(result))
        return
    print(
        " -> ".join(
            str(end.address) if end.name == str(end.address) else f"{end.name} {end.address}"
            for end in (source, target)
        )
    )
    print(f"sent {result.sent}, lost {result.lost}")
    print(f"flows {result.flows}, hit {result.flows_hit}")
    print(f"outage: worst {result.worst_outage_ms} ms, median {result.median_outage_ms} ms")
    if result.lost == result.sent:
        print(f"{target.name} never answered {source.name}: check that policy and routes permit this traffic")


def _event(text: str, name: str) -> Callable[[], int]:
    """Return the event of a probe: a shell command after an exclamation mark, or a verb of this twin."""
    if text.startswith("!"):
        return lambda: subprocess.run(["sh", "-c", text[1:]], check=False).returncode
    try:
        verb, *rest = shlex.split(text)
    except ValueError as error:
        raise TwinError(f"--event needs a verb of ./twin, or ! and a shell command: {error}") from None
    return lambda: main([verb, "--name", name, *rest])


def _down(options: argparse.Namespace) -> None:
    names = standing_twins() if options.all else [options.name]
    for name in names:
        options.name = name
        lifecycle.down(_twin(options))


def _packages(_options: argparse.Namespace) -> None:
    print("\n".join(HOST_PACKAGES))

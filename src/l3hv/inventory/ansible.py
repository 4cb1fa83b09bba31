"""An inventory as Ansible resolves it: groups, and the variables of each host."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l3hv.intent.hosts import host_kind
from l3hv.intent.shape import found, on_one_line, shown
from l3hv.inventory.files import Files
from l3hv.inventory.octal import has_octal, octals
from l3hv.model.choices import KINDS, Kind
from l3hv.model.errors import IntentError, Problem

if TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader

PREFIX = "l3hv_"

MARKS = ("l3hv_id", "l3hv_uplinks")
"""Variables that only a host of the fabric has."""
_LONGEST_REASON = 160

OPTIONS = frozenset({"l3hv_break_lock", "l3hv_build", "l3hv_removals"})
"""Variables that tell one run what to do, and nothing about the fabric."""
INTERNAL = OPTIONS | {"l3hv_bgp_secrets", "l3hv_observed", "l3hv_plan", "l3hv_run", "l3hv_twin"}
"""Variables with the prefix that are no intent: options and facts of a run, secrets, which only their files
get, and what the twin says of itself."""


def plain(value: Any) -> Any:
    """Return ``value`` without Ansible's tags (ansible-core 2.19 hands out tagged subclasses).

    >>> plain({"a": (1, "b", None)})
    {'a': [1, 'b', None]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def needs_ansible(value: Any) -> bool:
    """Tell whether only Ansible can say what ``value`` is: a Jinja expression or a vaulted text is in it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(needs_ansible(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(needs_ansible(item) for item in value)
    return not (value is None or isinstance(value, (bool, int, float)))


@dataclass(frozen=True)
class Inventory:
    """An inventory as Ansible sees it.

    ``groups`` maps group names to host names; ``raw`` returns a host's variables before templating;
    ``template`` resolves one value of such variables; ``sources`` are the inventory's files and directories;
    ``extra`` names the variables of the command line.
    """

    groups: Mapping[str, Sequence[str]]
    raw: Callable[[str], Mapping[str, Any]]
    template: Callable[[Mapping[str, Any], Any], Any]
    sources: tuple[Path, ...]
    extra: frozenset[str] = frozenset()

    def kinds(self) -> tuple[dict[str, Kind], list[Problem]]:
        """Return what each host of the fabric's groups is, and a problem for each that is in two of them."""
        groups_of: dict[str, list[str]] = {}
        for group in KINDS:
            for host in self.groups.get(group, ()):
                groups_of.setdefault(str(host), []).append(group)
        kinds: dict[str, Kind] = {}
        problems: list[Problem] = []
        for host, groups in sorted(groups_of.items()):
            kind, found = host_kind(host, groups)
            problems += found
            if kind is not None:
                kinds[host] = kind
        return kinds, problems

    def others(
        self,
        kinds: Collection[str],
        files: Mapping[str, Files],
        known: Mapping[str, Files],
    ) -> tuple[dict[str, Files], list[Problem]]:
        """Return the hosts outside the fabric's groups, with their files; a problem for each that belongs in.

        ``known`` are those of an earlier run: one with the same files is not looked at again.
        """
        hosts = [str(host) for host in self.groups["all"] if host not in kinds]
        found: dict[str, Files] = {}
        problems: list[Problem] = []
        groups_of: dict[str, list[str]] = {}
        for host in hosts:
            own = files.get(host, {})
            if known.get(host) != own:
                raw = self.raw(host)
                marks = [name for name in MARKS if raw.get(name) is not None]
                if marks:
                    if not groups_of:
                        for group, members in sorted(self.groups.items()):
                            for each in members:
                                groups_of.setdefault(str(each), []).append(str(group))
                    problems.append(_misplaced(host, marks, groups_of.get(host, ())))
                    continue
            found[host] = own
        return found, problems

    def variables(self, host: str) -> tuple[dict[str, Any], bool, list[Problem]]:
        """Return the intent of ``host`` as plain values, whether any was templated, and what has no value."""
        from ansible.errors import AnsibleError

        raw = self.raw(host)
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        is_templated = False
        for key in raw:
            if not isinstance(key, str) or not key.startswith(PREFIX) or key in INTERNAL:
                continue
            try:
                if needs_ansible(raw[key]):
                    is_templated = True
                    values[str(key)] = plain(self.template(raw, raw[key]))
                else:
                    values[str(key)] = plain(raw[key])
                    if has_octal(raw[key]):
                        problems += octals(host, str(key), raw[key])
            except RecursionError:
                message = "Lists and mappings lie too deep in each other."
                problems.append(
                    Problem(host, on_one_line(str(key)), "", message, "Look for one that contains itself.")
                )
            except AnsibleError:
                problems += self._unresolved(host, raw, str(key), raw[key])
        return values, is_templated, problems

    def _unresolved(self, host: str, raw: Mapping[str, Any], field: str, value: Any) -> Iterator[Problem]:
        """Yield a problem for each part of ``value`` that Ansible finds no value for."""
        from ansible.errors import AnsibleError

        if isinstance(value, (Mapping, list, tuple)):
            parts = (
                {f"{field}.{shown(key)}": value[key] for key in value}
                if isinstance(value, Mapping)
                else {f"{field}[{index}]": item for index, item in enumerate(value)}
            )
            for place, part in parts.items():
                yield from self._unresolved(host, raw, place, part)
            return
        try:
            self.template(raw, value)
        except AnsibleError as error:
            reason = shown(error.message.partition("\n")[0].rstrip("."), longest=_LONGEST_REASON)
            expression = f" for {found(value)}" if isinstance(value, str) else ""
            yield Problem(
                host,
                on_one_line(field),
                shown(value),
                f"Ansible finds no value{expression}: {reason}.",
                "Define what it refers to, or correct the expression.",
            )


def _misplaced(host: str, marks: Sequence[str], groups: Iterable[str]) -> Problem:
    """Return the problem of a host with variables of the fabric that is in none of its groups."""
    others = [group for group in groups if group not in ("all", "ungrouped")]
    verb = "belong" if len(marks) > 1 else "belongs"
    message = (
        f"The host is in none of {', '.join(KINDS)}, and {' and '.join(marks)} {verb} to hosts of these."
    )
    for group in others:
        close = difflib.get_close_matches(group, KINDS, n=1)
        if close:
            remedy = f"It is in {group}: did you mean {close[0]}?"
            return Problem(host, "groups", ", ".join(others), message, remedy)
    remedy = "Put it into one of them, or remove the variables."
    return Problem(host, "groups", ", ".join(others), message, remedy)


@dataclass(frozen=True)
class Options:
    """What ansible-playbook is told of an inventory besides where it is: its options of the same names."""

    extra_vars: tuple[str, ...] = ()
    vault_ids: tuple[str, ...] = ()
    vault_password_files: tuple[str, ...] = ()
    ask_vault_password: bool = False


def open_inventory(*sources: Path, options: Options | None = None) -> Inventory:
    """Load an inventory of files, directories and lists of hosts (``hv1,``) outside any playbook run.

    Passwords of the vault are also read from where ansible.cfg and the environment say.  They and the extra
    variables of the first call hold for the process.  Raises IntentError when there is nothing at one of the
    ``sources``, or nothing that Ansible can read.
    """
    from ansible import context
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar
    from ansible.utils.collection_loader import AnsibleCollectionConfig
    from ansible.utils.context_objects import CLIArgs
    from ansible.vars.hostvars import HostVars
    from ansible.vars.manager import VariableManager

    options = options or Options()
    if missing := [str(source) for source in sources if "," not in str(source) and not source.exists()]:
        message = "There is no such file or directory."
        raise IntentError([Problem("inventory", source, "", message, "Check -i.") for source in missing])
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()  # Without it no plugin has its full name.
    if options.extra_vars:
        context.CLIARGS = CLIArgs({**context.CLIARGS, "extra_vars": options.extra_vars})
    loader = DataLoader()
    # group_vars and host_vars beside the inventory count, not those of wherever one happens to be.
    loader.set_basedir(str(sources[0] if sources[0].is_dir() else sources[0].parent))
    _set_vault_secrets(loader, options)
    try:
        manager = InventoryManager(loader=loader, sources=[str(source) for source in sources])
    except AnsibleError as error:  # it has told why, plugin by plugin
        named = " ".join(f"-i {source}" for source in sources)
        message = "Ansible cannot read all of it."
        remedy = f"Run ansible-inventory --list {named}."
        raise IntentError([Problem("inventory", " ".join(map(str, sources)), "", message, remedy)]) from error
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(manager, variables, loader)
    return Inventory(
        groups=manager.get_groups_dict(),
        raw=hostvars.raw_get,
        template=lambda raw, value: Templar(loader=loader, variables={**raw, "hostvars": hostvars}).template(
            value
        ),
        sources=sources,
    )


def _set_vault_secrets(loader: DataLoader, options: Options) -> None:
    """Give a loader the passwords of the vault.  There is one set of them for a process."""
    from ansible.cli import CLI
    from ansible.constants import config
    from ansible.parsing.vault import VaultSecretsContext

    if (known := VaultSecretsContext.current(optional=True)) is not None:
        loader.set_vault_secrets(known.secrets)
        return
    secrets = CLI.setup_vault_secrets(
        loader,
        vault_ids=[*config.get_config_value("DEFAULT_VAULT_IDENTITY_LIST"), *options.vault_ids],
        vault_password_files=list(options.vault_password_files),
        ask_vault_pass=options.ask_vault_password or config.get_config_value("DEFAULT_ASK_VAULT_PASS"),
        auto_prompt=False,
    )
    loader.set_vault_secrets(secrets)

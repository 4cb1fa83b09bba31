"""An inventory as Ansible resolves it: its groups, and the variables of each host."""

from __future__ import annotations

import difflib
import functools
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
"""Options of one run, which are no facts of the fabric."""
INTERNAL = OPTIONS | {"l3hv_bgp_secrets", "l3hv_observed", "l3hv_plan", "l3hv_run", "l3hv_twin"}
"""Variables with the prefix ``l3hv_`` that are no intent: options and facts of a run, the twin's name, and
secrets, which only the files of secrets contain."""


def plain(value: Any) -> Any:
    """Return ``value`` without Ansible's tags: ansible-core 2.19 returns instances of tagged subclasses.

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
    """Tell whether only Ansible can resolve ``value``: it contains a Jinja expression or a vaulted text."""
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
        """Return the kind of each host in the fabric's groups, and a problem for each host in two of them."""
        groups_of: dict[str, list[str]] = {}
        for group in KINDS:
            for host in self.groups.get(group, ()):
                groups_of.setdefault(str(host), []).append(group)
        kinds: dict[str, Kind] = {}
        problems: list[Problem] = []
        for host, groups in sorted(groups_of.items()):
            kind, kind_problems = host_kind(host, groups)
            problems += kind_problems
            if kind is not None:
                kinds[host] = kind
        return kinds, problems

    def others(
        self,
        kinds: Collection[str],
        files: Mapping[str, Files],
        known: Mapping[str, Files],
    ) -> tuple[dict[str, Files], list[Problem]]:
        """Return the hosts outside the fabric's groups with their files, and the problems of misplaced hosts.

        A host is misplaced if it has variables of the fabric (:data:`MARKS`).  ``known`` are the results of
        an earlier run: a host whose files have not changed since is not checked again.
        """
        outside: dict[str, Files] = {}
        problems: list[Problem] = []
        for host in (str(host) for host in self.groups["all"] if host not in kinds):
            host_files = files.get(host, {})
            is_checked = known.get(host) == host_files
            if not is_checked and (marks := self._marks(host)):
                problems.append(_misplaced(host, marks, self._groups_of.get(host, ())))
            else:
                outside[host] = host_files
        return outside, problems

    def _marks(self, host: str) -> list[str]:
        """Return the variables of a host that only hosts of the fabric have."""
        raw = self.raw(host)
        return [name for name in MARKS if raw.get(name) is not None]

    @functools.cached_property
    def _groups_of(self) -> dict[str, list[str]]:
        """The groups of each host, sorted."""
        groups_of: dict[str, list[str]] = {}
        for group, members in sorted(self.groups.items()):
            for member in members:
                groups_of.setdefault(str(member), []).append(str(group))
        return groups_of

    def variables(self, host: str) -> tuple[dict[str, Any], bool, list[Problem]]:
        """Return the intent of ``host`` as plain values, whether any was templated, and the problems."""
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
                message = "Lists and mappings are nested too deeply."
                problems.append(
                    Problem(host, on_one_line(str(key)), "", message, "Look for one that contains itself.")
                )
            except AnsibleError:
                problems += self._unresolved(host, raw, str(key), raw[key])
        return values, is_templated, problems

    def _unresolved(self, host: str, raw: Mapping[str, Any], field: str, value: Any) -> Iterator[Problem]:
        """Yield a problem for each part of ``value`` that Ansible cannot resolve."""
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
            expression = found(value) if isinstance(value, str) else "the value"
            yield Problem(
                host,
                on_one_line(field),
                shown(value),
                f"Ansible cannot resolve {expression}: {reason}.",
                "Define the variables that it uses, or correct the expression.",
            )


def _misplaced(host: str, marks: Sequence[str], groups: Iterable[str]) -> Problem:
    """Return the problem of a host that has variables of the fabric but is in none of its groups."""
    others = [group for group in groups if group not in ("all", "ungrouped")]
    message = f"The host has {' and '.join(marks)}, but it is in none of the groups {', '.join(KINDS)}."
    for group in others:
        close = difflib.get_close_matches(group, KINDS, n=1)
        if close:
            remedy = f"The host is in {group}: did you mean {close[0]}?"
            return Problem(host, "groups", ", ".join(others), message, remedy)
    remedy = "Put it into one of them, or remove the variables."
    return Problem(host, "groups", ", ".join(others), message, remedy)


@dataclass(frozen=True)
class Options:
    """Options for loading an inventory; ansible-playbook has options of the same names."""

    extra_vars: tuple[str, ...] = ()
    vault_ids: tuple[str, ...] = ()
    vault_password_files: tuple[str, ...] = ()
    ask_vault_password: bool = False


def open_inventory(*sources: Path, options: Options | None = None) -> Inventory:
    """Load an inventory of files, directories and lists of hosts (``hv1,``) outside a playbook run.

    Vault passwords are also read from the places that ansible.cfg and the environment name.  The passwords
    and extra variables of the first call apply to the whole process.  Raises IntentError if one of the
    ``sources`` does not exist, or if Ansible cannot read it.
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
        init_plugin_loader()  # Without it Ansible finds no plugin by its full name.
    if options.extra_vars:
        context.CLIARGS = CLIArgs({**context.CLIARGS, "extra_vars": options.extra_vars})
    loader = DataLoader()
    # Ansible reads group_vars and host_vars beside the inventory, not in the working directory.
    loader.set_basedir(str(sources[0] if sources[0].is_dir() else sources[0].parent))
    _set_vault_secrets(loader, options)
    try:
        manager = InventoryManager(loader=loader, sources=[str(source) for source in sources])
    except AnsibleError as error:  # Ansible has already printed the reason of each plugin.
        options_text = " ".join(f"-i {source}" for source in sources)
        message = "Ansible cannot read all of the inventory."
        remedy = f"Run ansible-inventory --list {options_text}."
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
    """Give a loader the vault passwords of the process, or those of ``options`` on the first call."""
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

"""docs/intent.md has every variable and key of the intent, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l3hv.intent.fabric import COMMON_KEYS, domain_name
from l3hv.intent.guests import GUEST_KEYS
from l3hv.intent.hosts import HOST_KEYS, TIMERS, host_name
from l3hv.intent.shape import Text
from l3hv.inventory.ansible import INTERNAL, open_inventory
from l3hv.inventory.read import read_fabric

TEXT = (Path(__file__).parents[2] / "docs" / "intent.md").read_text(encoding="utf-8")
DOMAIN_KEYS = {"accept", "families", "kind", "loopbacks", "spread_table", "table", "vlan"}
POOL_KEYS = {"block", "dns", "domain", "gateway", "ipv4", "ipv6", "ipv6_mode", "mtu", "routes", "search"}
SECTIONS = {
    "`l3hv_domains`": DOMAIN_KEYS,
    "`l3hv_pools`": POOL_KEYS,
    "`l3hv_timers`": set(TIMERS),
    "Hypervisors: `l3hv_guests`": GUEST_KEYS,
}


def rows(text: str) -> set[str]:
    """Return the first column of the tables of a text."""
    return set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))


def section(title: str) -> str:
    return re.split(r"^##+ ", TEXT.split(f"# {title}", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("key", sorted(COMMON_KEYS | HOST_KEYS))
def test_every_variable_is_described(key):
    assert f"`{key}`" in TEXT


def test_only_variables_of_the_intent_are_described():
    assert set(re.findall(r"`(l3hv_\w+)`", TEXT)) <= COMMON_KEYS | HOST_KEYS | INTERNAL


@pytest.mark.parametrize("title", SECTIONS)
def test_tables_of_nested_keys_are_complete(title):
    assert rows(section(title)) == SECTIONS[title]


@pytest.mark.parametrize(("what", "name"), [("hosts", host_name), ("domains", domain_name)])
def test_reserved_names_are_listed(what: str, name: Text):
    """Error messages name three of the names and refer to this list."""
    _, _, listed = TEXT.partition(f"Reserved names of {what}, which ")
    assert re.findall(r"`(\w+)`", listed.partition(".\n")[0]) == sorted(name.forbidden)


def test_defaults_of_timers_are_those_of_the_parser():
    for name, (bounds, default) in TIMERS.items():
        assert f"| `{name}` | {default} | {bounds.low}–{bounds.high} |" in TEXT


def test_the_skeleton_is_a_valid_inventory(tmp_path):
    for name, text in re.findall(r"```yaml\n# inventories/SITE/(\S+)\n(.*?)```", TEXT, re.DOTALL):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text, encoding="utf-8")
    inventory = open_inventory(tmp_path / "site")
    run = read_fabric(inventory, inventory.kinds()[0], tmp_path / "fabric")
    assert (run.hosts, run.guests) == (3, 1)

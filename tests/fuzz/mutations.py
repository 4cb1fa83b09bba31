"""Inventories with mistakes: a valid one with some changed values.

An inventory is plain data here: ``{"common": variables, "hosts": {name: [group, variables]}}``.
"""

from __future__ import annotations

import copy
import datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from l3hv.intent.fabric import COMMON_KEYS
from l3hv.inventory.ansible import open_inventory
from l3hv.model.choices import KINDS

Place = tuple[Any, ...]

HOSTILE = (
    "",
    " ",
    "~",
    "0",
    "x'y",
    'x"; }',
    "x\\",
    "x#y",
    "x y",
    "a/b",
    "../../etc/passwd",
    "..",
    "-x",
    ".hidden",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\n[Network]\nDHCP=yes",
    "a\u2028b",
    "a\u00e4\u0441",
    "\u0661\u0662",
    "\U0001f4a5",
    "a\x7fb",
    "x\x00y",
    "%i",
    "$(reboot)",
    "`reboot`",
    "; reboot",
    "{{ 7 * 7 }}",
    "{{ nowhere }}",
    "{{ nowhere.at_all | default(omit) }}",
    "{{ inventory_hostname }}",
    "{{",
    "}}",
    "{% if true %}",
    "{% raw %}{{ x }}{% endraw %}",
    "{# x #}",
    "@digest@",
    "a" * 15,
    "a" * 16,
    "a" * 63,
    "a" * 64,
    "a" * 5000,
    "main",
    "local",
    "default",
    "all",
    "lo",
    "static",
    "public4",
    "filter",
    "interface",
    "10.0.0.1",
    "10.0.0.1/24",
    "010.0.0.1",
    "10.0.0.0/\u0661\u0662",
    "10.0.0.0/99999999999999999999",
    "10.0.0.0/255.0.0.0",
    "0.0.0.0/0",
    "255.255.255.255",
    "127.0.0.1",
    "224.0.0.1",
    "::/0",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "::ffff:10.0.0.1",
    "2001:DB8::0001",
    "2001:db8::/129",
    "01:00:5e:00:00:01",
    "52-54-00-00-00-01",
    "525400000001",
)
"""Texts with a special meaning in YAML, Jinja, file names, configurations of daemons or shells."""

ODD = (
    *(
        "0",
        "1",
        "007",
        "1e3",
        "0x1f",
        "a.b",
        "a..b",
        "a.",
        "a-",
        "a_",
        "a-b.c_d",
        "4",
        "6",
        "10.0.0.1",
        "a" * 8,
    ),
    *("yes", "no", "null", "None", "true", "inf", "nan", "omit", "self", "item", "hostvars", "group_names"),
    *(
        "table",
        "filter",
        "protocol",
        "bgp",
        "bfd",
        "static",
        "kernel",
        "pipe",
        "device",
        "direct",
        "from",
        "net",
    ),
    *(
        "accept",
        "reject",
        "if",
        "then",
        "else",
        "case",
        "function",
        "define",
        "include",
        "source",
        "dest",
        "ifname",
    ),
    *(
        "public4",
        "rr1",
        "fabric",
        "own",
        "guests",
        "guest",
        "attribute",
        "peer",
        "neighbor",
        "passive",
        "router",
    ),
    *(
        "inet",
        "ip",
        "ip6",
        "arp",
        "chain",
        "set",
        "map",
        "meta",
        "oif",
        "iif",
        "drop",
        "jump",
        "goto",
        "uplinks",
    ),
    *("tag", "option", "prefix", "interface", "route", "RDNSS", "br0", "eth0.90", "vm1.", "xn--a", "a" * 15),
    *("unix", "rule", "via", "dev", "proto", "scope", "nat", "lookup", "blackhole", "l3hv", "mgmt0", "lan"),
)
"""Names that the intent may allow, with a special meaning in a file of a daemon."""

NUMBERS = (-(2**64), -1, 0, 1, 2, 63, 64, 65, 127, 128, 255, 256, 1279, 1280, 4094, 4095, 32766, 65535, 65536)
HUGE = (2**31, 2**32 - 1, 2**32, 2**64, 10**30)
UNLIKELY: tuple[Any, ...] = (
    None,
    True,
    False,
    0.5,
    1e300,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    {"": None},
    {1: 2},
    {None: []},
    datetime.date(2020, 1, 1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    b"bytes",
    {"a", "b"},
)


def deep(levels: int, wrap: bool) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"x": value} if wrap else [value]
    return value


def unlike() -> st.SearchStrategy[Any]:
    """Return values that hardly any variable accepts."""
    leaves = st.sampled_from((*HOSTILE, *NUMBERS, *HUGE, *UNLIKELY)) | st.text(max_size=12) | st.integers()
    return st.one_of(
        leaves,
        st.lists(leaves, max_size=3),
        st.dictionaries(st.sampled_from(HOSTILE) | st.integers() | st.booleans(), leaves, max_size=3),
        st.builds(deep, st.sampled_from((3, 30, 100)), st.booleans()),
    )


def alike(value: Any, others: list[Any]) -> st.SearchStrategy[Any]:
    """Return values that look like ``value``; ``others`` are the values of its type in the inventory."""
    choices: list[st.SearchStrategy[Any]] = [st.sampled_from(others)] if others else []
    if isinstance(value, bool):
        choices += [st.booleans(), st.sampled_from((0, 1, "yes", "true", "on"))]
    elif isinstance(value, int):
        near = (value - 1, value + 1, value * 2, value // 2, -value, str(value), float(value))
        choices += [st.sampled_from((*near, *NUMBERS)), st.integers(0, 2**33)]
    elif isinstance(value, str):
        words = [
            value.upper(),
            value[:-1],
            value + "0",
            f" {value}",
            f"{value}\n",
            f"{value}/32",
            f"{value}/64",
        ]
        words += [f"{{{{ '{value}' }}}}", f"{value}{{{{ '' }}}}", value.partition("/")[0]]
        choices += [st.sampled_from(words), st.sampled_from(ODD)]
        choices += [st.sampled_from(HOSTILE).map(lambda text: value + text)]
        choices += [st.sampled_from(HOSTILE).map(lambda text: text + value)]
    elif isinstance(value, list):
        choices += [st.just(value * 2), st.just(value[::-1]), st.just([value]), st.just(value[:1])]
    elif isinstance(value, dict):
        choices += [st.just([value]), st.just(list(value)), st.just({"x": value})]
    return st.one_of(choices) if choices else unlike()


def places(value: Any, here: Place = ()) -> list[Place]:
    """Return the path of every value in nested data, itself included."""
    found = [here]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*here, key))
    return found


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def of_type(inventory: Any, value: Any) -> list[Any]:
    return [other for place in places(inventory) if type(other := at(inventory, place)) is type(value)]


def names(sound: dict[str, Any]) -> list[str]:
    """Return the names of hosts, guests, interfaces, paths, domains and pools."""
    common = sound["common"]
    found = {common.get("l3hv_fabric", "l3hv"), *sound["hosts"]}
    for key in ("l3hv_domains", "l3hv_paths", "l3hv_pools"):
        found |= common.get(key, {}).keys()
    for _, variables in sound["hosts"].values():
        uplinks = variables.get("l3hv_uplinks", {})  # a spine has none
        # A list has the neighbours at the other ends of links.
        for uplink in uplinks if isinstance(uplinks, list) else uplinks.values():
            found |= set(uplink.values()) if isinstance(uplink, dict) else {uplink}
        for guest in variables.get("l3hv_guests", ()):
            found |= {guest["name"], guest.get("interface", guest["name"])}
    return sorted(found)


def renamed(value: Any, old: str, new: str) -> Any:
    """Return nested data with all occurrences of a name replaced."""
    if isinstance(value, dict):
        return {
            renamed(key, old, new): item if key == "kind" else renamed(item, old, new)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else value


@st.composite
def mutations(draw: st.DrawFn, sound: dict[str, Any]) -> dict[str, Any]:
    """Return ``sound`` with one to three places changed."""
    inventory = copy.deepcopy(sound)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        scope = draw(st.sampled_from(("common", "hosts", "names")))
        if scope == "names":
            old = draw(st.sampled_from(names(sound)))
            new = draw(st.sampled_from(ODD) | st.sampled_from(ODD) | st.sampled_from(HOSTILE))
            inventory = renamed(inventory, old, new)
            continue
        if scope == "hosts":
            host = draw(st.sampled_from(sorted(inventory["hosts"], key=repr)))
            if draw(st.integers(0, 19)) == 0:
                _rename(inventory["hosts"], host, draw(st.sampled_from(HOSTILE) | st.just(f"{host}.")))
                continue
            if draw(st.integers(0, 29)) == 0:
                inventory["hosts"][host][0] = draw(st.sampled_from(sorted(KINDS)))
                continue
            root = inventory["hosts"][host][1]
        else:
            root = inventory["common"]
        inside = places(root)[1:]
        if inside:
            _change(draw, inventory, root, draw(st.sampled_from(inside)))
    return inventory


def _change(draw: st.DrawFn, inventory: Any, root: Any, place: Place) -> None:
    parent, key = at(root, place[:-1]), place[-1]
    value = parent[key]
    match draw(st.sampled_from(("alike", "alike", "alike", "unlike", "remove", "rename", "add", "repeat"))):
        case "alike":
            parent[key] = copy.deepcopy(draw(alike(value, of_type(inventory, value))))
        case "unlike":
            parent[key] = draw(unlike())
        case "remove":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            _rename(parent, key, draw(_names(place)) if draw(st.booleans()) else f"{key}x")
        case "add" if isinstance(parent, dict):
            parent[draw(_names(place))] = draw(unlike())
        case _:
            if isinstance(parent, list):
                parent.append(copy.deepcopy(value))


def _names(place: Place) -> st.SearchStrategy[Any]:
    """Return keys for the mapping that contains ``place``; keys without the prefix of l3hv are ignored."""
    if len(place) > 1:
        return st.sampled_from((*HOSTILE, 7, True, None))
    return st.one_of(st.sampled_from([f"l3hv_{text}" for text in HOSTILE]), st.just(7))


def _rename(mapping: dict[Any, Any], key: Any, new: Any) -> None:
    """Rename ``key`` and keep its position."""
    items = [(new if old == key else old, value) for old, value in mapping.items()]
    mapping.clear()
    mapping.update(items)


def sound_inventory(source: Path) -> dict[str, Any]:
    """Return the inventory at ``source`` as plain data."""
    opened = open_inventory(source)
    groups = {str(host): group for group in KINDS for host in opened.groups.get(group, ())}
    variables = {host: opened.variables(host)[0] for host in groups}
    first = next(iter(variables.values()))
    for name, domain in first["l3hv_domains"].items():
        domain.setdefault("kind", name)  # so that the domain can be renamed
    return {
        "common": {key: first[key] for key in sorted(COMMON_KEYS & first.keys())},
        "hosts": {
            host: [group, {key: value for key, value in variables[host].items() if key not in COMMON_KEYS}]
            for host, group in groups.items()
        },
    }


def written(inventory: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a YAML inventory file."""
    groups: dict[str, Any] = {group: {"hosts": {}} for group in KINDS}
    for host, (group, variables) in inventory["hosts"].items():
        groups[group]["hosts"][host] = variables
    return {"all": {"vars": inventory["common"], "children": groups}}

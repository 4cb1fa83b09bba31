"""The longest lines of the guests' DHCP server that the intent permits, and dnsmasq's own check of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from images import ROOT, in_an_image
from rendered import PLANS, files_of_role, read_plan

from l3hv.intent.fabric import DNSMASQ_LINE, parse_common
from l3hv.model.intent import Common

LAB = next(path for path in PLANS if path.parts[-4:] == ("lab", "expected", "hv1", "plan.yml"))
POOL = "customers"
VIA = "203.0.113.254"
END = "customers.hosting.example.net"
CHECK = """
cp "$2" /mnt/root/run/dhcp.conf
chroot /mnt/root dnsmasq --test --conf-file=/run/dhcp.conf
"""


def fabric(**options: object) -> Common | None:
    """Return the facts of a fabric whose pool has these options, or ``None`` if they are refused."""
    variables: dict[str, Any] = {
        "l3hv_asn": 65000,
        "l3hv_domains": {"public": {"table": 90}},
        "l3hv_paths": {"a": {"public": {"ipv4": "198.51.100.0/25"}}},
        "l3hv_pools": {POOL: {"ipv4": "203.0.113.0/24", "gateway": VIA, **options}},
    }
    common, problems = parse_common(variables)
    return None if problems else common


def long_options() -> dict[str, object]:
    """Return as many routes and search domains as the intent permits."""
    found: dict[str, list[str]] = {"routes": [], "search": []}
    candidates = {
        "routes": [f"100.{number}.0.0/16" for number in range(64, 128)],
        # DHCP compresses the common end.  The last one fills the line.
        "search": [f"{label}.{END}" for label in (*range(10, 37), *("x" * n for n in range(60, 0, -1)))],
    }
    for option, values in candidates.items():
        for value in values:
            if fabric(**{option: [*found[option], value]}) is not None:
                found[option].append(value)
    return dict(found)


@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_dnsmasq_reads_the_longest_lines_that_the_intent_permits(system: str, tmp_path: Any) -> None:
    plan = copy.deepcopy(read_plan(LAB))
    options = long_options()
    common = fabric(**options)
    assert common is not None
    pool = next(pool for pool in plan["dhcp_pools"] if pool["name"] == POOL)
    pool["search"] = list(common.pools[0].search)
    pool["routes"] = [list(route) for route in common.pools[0].option_routes]
    text = files_of_role(ROOT / "roles/guest_services", {"role": "guest_services"}, plan)[
        "/etc/l3hv/dhcp.conf"
    ]
    longest = max(len(line) for line in text.splitlines())
    assert longest == DNSMASQ_LINE
    configuration = tmp_path / "dhcp.conf"
    configuration.write_text(text, encoding="utf-8")
    done = in_an_image(system, "bird2", CHECK, configuration)
    assert "syntax check OK" in done.stderr, done.stderr
    is_too_long = [
        line + "x" * (DNSMASQ_LINE + 1 - len(line)) for line in text.splitlines() if len(line) == longest
    ]
    configuration.write_text(is_too_long[0] + "\n", encoding="utf-8")
    done = in_an_image(system, "bird2", CHECK, configuration)
    assert "bad option" in done.stderr, "one character more"

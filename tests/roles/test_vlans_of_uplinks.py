"""Changes of VLANs that the role makes instead of networkd, on an emulated machine with 802.1Q."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rendered import PLANS, ROOT, rendered_files

sys.path.append(str(ROOT / "tests/emulated"))

pytestmark = pytest.mark.twin

PLAN = next(path for path in PLANS if path.parts[-4] == "vlans" and path.parts[-2] == "hv1")
NETWORK = "/etc/systemd/network/05-l3hv-uplink"
SCRIPT = f"""\
links() {{
    for try in $(seq 200); do
        [ "$(ip -brief address show | grep -c 198.51.100)" -ge "$2" ] && break
        sleep 0.1
    done
    echo "$1: $(ip -details -json address show | tr -d '\\n')"
}}
links first 2
sed -i 's/^Id=90$/Id=91/' {NETWORK}-eno1.90.netdev
CONFIG_FILES_CHANGED={NETWORK}-eno1.90.netdev python3 -I /networkd-sync apply uplinks
links changed 2
rm {NETWORK}-eno2.90.netdev {NETWORK}-eno2.90.network
sed -i '/^VLAN=eno2.90$/d' /etc/systemd/network/05-l3hv-nic-eno2.network
CONFIG_FILES_CHANGED=/etc/systemd/network/05-l3hv-nic-eno2.network \\
CONFIG_FILES_REMOVED="$(printf '%s\\n' {NETWORK}-eno2.90.netdev {NETWORK}-eno2.90.network)" \\
python3 -I /networkd-sync apply uplinks
sleep 1
links removed 1
CONFIG_FILES_CHANGED={NETWORK}-eno1.90.netdev python3 -I /networkd-sync apply uplinks
links unchanged 1
"""
UNIT = """\
[Unit]
After=systemd-networkd.service

[Service]
Type=oneshot
ExecStart=/bin/sh -ex /script
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
"""


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Return the links of the machine by name, at each step of the script."""
    from emulated_machine import emulated_machine

    nics = {"eno1": "02:00:00:00:00:01", "eno2": "02:00:00:00:00:02"}
    placed = {
        path: text for path, text in rendered_files(PLAN).items() if path.startswith("/etc/systemd/network")
    }
    files = {
        **placed,
        "networkd-sync": (ROOT / "roles/uplinks/files/networkd-sync").read_text(),
        "script": SCRIPT,
    }
    with emulated_machine(tmp_path_factory.mktemp("machine"), nics, files, {"script.service": UNIT}) as (
        console,
        _,
    ):
        yield {
            step: {link["ifname"]: link for link in console.await_json(f"{step}: ", seconds=240) if link}
            for step in ("first", "changed", "removed", "unchanged")
        }


def vlan_id(link: dict[str, Any]) -> int:
    number: int = link["linkinfo"]["info_data"]["id"]
    return number


def addresses(link: dict[str, Any]) -> set[str]:
    return {address["local"] for address in link["addr_info"] if address["scope"] == "global"}


def test_a_vlan_with_a_changed_id_is_recreated_with_its_addresses(
    links: dict[str, dict[str, Any]],
) -> None:
    before, after = links["first"]["eno1.90"], links["changed"]["eno1.90"]
    assert (vlan_id(before), vlan_id(after)) == (90, 91)
    assert addresses(after) == addresses(before)


def test_other_interfaces_are_not_recreated(links: dict[str, dict[str, Any]]) -> None:
    for name in ("eno1.20", "eno2.20", "eno2.90"):
        assert links["changed"][name]["ifindex"] == links["first"][name]["ifindex"]


def test_a_vlan_that_the_plan_no_longer_has_is_removed(links: dict[str, dict[str, Any]]) -> None:
    assert set(links["changed"]) - set(links["removed"]) == {"eno2.90"}


def test_an_unchanged_vlan_is_not_recreated(links: dict[str, dict[str, Any]]) -> None:
    assert links["unchanged"]["eno1.90"]["ifindex"] == links["removed"]["eno1.90"]["ifindex"]

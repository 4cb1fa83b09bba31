"""Debian's network clients behind a link-local gateway, as guests of a pool like one of CloudStack.

cloud-init also configures guests of a pool of the default design, whose gateway is in the guests' subnet.
All guests boot at the same time. Leases last two minutes, so each client renews its lease during the tests.
The tests assert what each client does by itself, also where that is not enough; docs/designs.md has a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from changed_intents import copy_of
from debian_guests import Client, DebianGuest, boot
from golden_cases import plans
from lab import INTERNET, REPOSITORY, Converged, booted, wait_for

from l3hv.render.network_data import network_data

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

INVENTORY = REPOSITORY / "inventories" / "link-local-gateway"
GATEWAY6, DNS = "fe80::1", "192.0.2.8"
PACKAGES = {
    "dhclient": "isc-dhcp-client",
    "dhcpcd": "dhcpcd-base",
    "systemd-networkd": "systemd",
    "NetworkManager": "network-manager",
    "ifupdown": "ifupdown",
    "cloud-init": "cloud-init",
    "netplan": "netplan.io",
}
"""The package of each name in the table."""
RENEWAL_S = 60
"""Half of the lease, after which a client renews it (RFC 2131, section 4.4.5)."""

NETWORKD = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n"
NETWORKD_UNITS = ("systemd-networkd.service", "systemd-resolved.service")
SLAAC_HWADDR = 'sed -i "s/^slaac private/slaac hwaddr/" /etc/dhcpcd.conf'
NOT_EUI64 = "its IPv6 address is stable and private (RFC 7217), and the fabric routes another one"
NO_ON_LINK = "cloud-init 22.4 renders no on-link route for it, and its gateway is in no subnet"
NO_DEFAULT6 = "cloud-init 22.4 renders ::/0 as a route of IPv4 to ::/64"
NO_RESOLVCONF = "its name servers need the package resolvconf"


@dataclass(frozen=True)
class Pool:
    """A pool: the beginning of its addresses, the length that its guests see, and its gateway."""

    ipv4: str
    length: int
    gateway: str


CLOUD = Pool("203.0.113", 32, "169.254.0.1")
DEFAULT = Pool("192.0.2", 25, "192.0.2.254")
DEFAULT_POOL = """\
  default:
    domain: public
    ipv4: 192.0.2.128/25
    gateway: 192.0.2.254
    ipv6: 2001:db8:cb00:7300::/56
    dns: [192.0.2.8]
"""
"""A pool of the default design: its gateway is in the subnet of its guests, which have a /64 each."""


@dataclass(frozen=True)
class Case:
    """A client, and the reasons for which a part of its network does not work.

    ``renderer`` is the renderer of cloud-init, which configures the guest from the network data of the plan.
    """

    client: Client
    renderer: str = ""
    fails4: str = ""
    fails6: str = ""
    fails_dns: str = ""
    pool: Pool = CLOUD


DHCP_CASES = {
    "dhclient": Case(Client(command="/sbin/dhclient -4 -d -v eth0")),
    "dhcpcd": Case(Client(command="/sbin/dhcpcd -B eth0"), fails6=NOT_EUI64),
    "dhcpcdeui": Case(Client(command=f"/bin/sh -c '{SLAAC_HWADDR} && exec dhcpcd -B eth0'")),
    "networkd": Case(Client(NETWORKD_UNITS, {"etc/systemd/network/guest.network": NETWORKD})),
    "nm": Case(Client(("NetworkManager.service",)), fails6=NOT_EUI64),
    "nmeui": Case(
        Client(
            ("NetworkManager.service",),
            {"etc/NetworkManager/conf.d/eui64.conf": "[connection]\nipv6.addr-gen-mode=0\n"},
        )
    ),
    "ifupdown": Case(
        Client(
            ("networking.service",),
            {"etc/network/interfaces": "auto eth0\niface eth0 inet dhcp\niface eth0 inet6 auto\n"},
        )
    ),
}
WITH_NETWORKD = Client(("cloud-init.target", *NETWORKD_UNITS))
ENI = Client(("cloud-init.target", "networking.service"))
NETWORK_MANAGER = Client(("cloud-init.target", "NetworkManager.service"))
CASES = {
    **DHCP_CASES,
    "cinetplan": Case(WITH_NETWORKD, "netplan"),
    # These get their default route of IPv6 by router advertisements: cloud-init does not render accept-ra.
    "cinetworkd": Case(WITH_NETWORKD, "networkd", fails4=NO_ON_LINK),
    "cieni": Case(ENI, "eni", fails4=NO_ON_LINK, fails_dns=NO_RESOLVCONF),
    "cinm": Case(NETWORK_MANAGER, "network-manager", fails6=NO_DEFAULT6),
    "dnetplan": Case(WITH_NETWORKD, "netplan", pool=DEFAULT),
    "dnetworkd": Case(WITH_NETWORKD, "networkd", pool=DEFAULT),
    "deni": Case(ENI, "eni", fails_dns=NO_RESOLVCONF, pool=DEFAULT),
    "dnm": Case(NETWORK_MANAGER, "network-manager", pool=DEFAULT),
}
NUMBERS = {name: 140 + at for at, name in enumerate(CASES)}
HYPERVISORS = ("hv1", "hv2", "hv3")


def mac_of(name: str) -> str:
    return f"50:54:33:00:01:{NUMBERS[name]:02x}"


def ipv4_of(name: str) -> str:
    return f"{CASES[name].pool.ipv4}.{NUMBERS[name]}"


def prefix6_of(name: str) -> str:
    """Return the beginning of the guest's /64: one for all in the pool `cloud`, otherwise its own."""
    return (
        "2001:db8:cb00:7200:" if CASES[name].pool is CLOUD else f"2001:db8:cb00:73{NUMBERS[name] - 128:02x}:"
    )


def ipv6_of(name: str) -> str:
    """Return the address of a guest: from SLAAC, or the one that cloud-init sets."""
    if CASES[name].renderer and CASES[name].pool is CLOUD:
        return f"{prefix6_of(name)}:{NUMBERS[name]}"
    return f"{prefix6_of(name)}5254:33ff:fe00:1{NUMBERS[name]:02x}"


def inventory_of_clients(directory: Path) -> Path:
    """Return a copy of the inventory in which each client is a guest of its pool."""
    copy = copy_of(INVENTORY, directory)
    with (copy / "group_vars" / "all" / "fabric.yml").open("a") as fabric:
        fabric.write(DEFAULT_POOL)
    for at, hypervisor in enumerate(HYPERVISORS):
        file = copy / "host_vars" / f"{hypervisor}.yml"
        intent = yaml.safe_load(file.read_text())
        intent["l3hv_guests"] = [
            {"name": name, "mac": mac_of(name), "ipv4": ipv4_of(name)}
            | ({"ipv6": ipv6_of(name)} if CASES[name].renderer and CASES[name].pool is CLOUD else {})
            for name in list(CASES)[at :: len(HYPERVISORS)]
        ]
        file.write_text(yaml.safe_dump(intent))
    return copy


def seed(plan: dict[str, object], name: str, renderer: str) -> dict[str, str]:
    """Return the files of a guest that gives the network data of the plan to cloud-init (NoCloud)."""
    data = network_data(plan, name)
    if renderer == "netplan":
        # netplan finds an interface by its permanent MAC, which a virtual NIC has, but not a veth.
        data["ethernets"]["guest"]["match"] = {"name": "eth0"}
    return {
        "var/lib/cloud/seed/nocloud/meta-data": f"instance-id: {name}\nlocal-hostname: {name}\n",
        "var/lib/cloud/seed/nocloud/user-data": "#cloud-config\n{}\n",
        "var/lib/cloud/seed/nocloud/network-config": yaml.safe_dump(data),
        "etc/cloud/cloud.cfg.d/zz.cfg": yaml.safe_dump(
            {"datasource_list": ["NoCloud"], "system_info": {"network": {"renderers": [renderer]}}}
        ),
    }


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DebianGuest]]:
    """Boot the fabric, and all clients at the same time."""
    directory = tmp_path_factory.mktemp("clients")
    inventory = inventory_of_clients(directory)
    planned = {guest["name"]: plan for plan in plans(inventory).values() for guest in plan.get("guests", ())}
    with booted("clients", inventory, converged=Converged({})) as lab:
        lab.provision()
        for hypervisor in HYPERVISORS:
            lab.run(hypervisor, "sed -i '/^dhcp-range=/s/,12h$/,2m/' /etc/l3hv/dhcp.conf")
            lab.run(hypervisor, "grep -q ',2m$' /etc/l3hv/dhcp.conf && systemctl restart l3hv-dhcp")

        def started(name: str) -> DebianGuest:
            case = CASES[name]
            files = seed(planned[name], name, case.renderer) if case.renderer else {}
            client = Client(case.client.units, {**case.client.files, **files}, case.client.command)
            return boot(lab, name, client, directory / name)

        with ThreadPoolExecutor(4) as pool:
            made = dict(zip(CASES, pool.map(started, CASES), strict=True))
        try:
            yield made
        finally:
            for guest in made.values():
                guest.end()


def addresses(guest: DebianGuest) -> set[str]:
    """Return the global addresses of a guest's interface, with their lengths."""
    shown = json.loads(guest.run("ip -json address show dev eth0"))
    return {
        f"{entry['local']}/{entry['prefixlen']}"
        for entry in shown[0]["addr_info"]
        if entry["scope"] == "global" and not entry.get("tentative")
    }


def default_gateways(guest: DebianGuest, family: int) -> set[str]:
    shown = json.loads(guest.run(f"ip -{family} -json route show default"))
    return {route["gateway"] for route in shown}


def reaches(guest: DebianGuest, address: str) -> bool:
    return bool(guest.run(f"ping -n -c 1 -W 2 {address} >&2 && echo yes || :"))


@pytest.mark.parametrize("name", CASES)
def test_ipv4(guests: dict[str, DebianGuest], name: str) -> None:
    guest, case = guests[name], CASES[name]
    own = f"{ipv4_of(name)}/{case.pool.length}"
    wait_for(f"the address of {name}", lambda: own in addresses(guest), 60)
    if case.fails4:
        assert default_gateways(guest, 4) == set(), f"no longer true: {case.fails4}"
        return
    wait_for("the default route", lambda: default_gateways(guest, 4) == {case.pool.gateway}, 20)
    wait_for("the Internet", lambda: reaches(guest, INTERNET[4]), 20)


@pytest.mark.parametrize("name", CASES)
def test_name_servers(guests: dict[str, DebianGuest], name: str) -> None:
    guest, case = guests[name], CASES[name]
    show = "cat /etc/resolv.conf; resolvectl --no-pager dns 2>/dev/null || :"
    if case.fails_dns:
        assert DNS not in guest.run(show), f"no longer true: {case.fails_dns}"
    else:
        wait_for("the name server", lambda: DNS in guest.run(show), 60)


@pytest.mark.parametrize("name", CASES)
def test_ipv6(guests: dict[str, DebianGuest], name: str) -> None:
    """IPv6 works if the guest has the address of the plan."""
    guest, case = guests[name], CASES[name]
    prefix = prefix6_of(name)
    found = wait_for("an address", lambda: [own for own in addresses(guest) if own.startswith(prefix)], 60)
    own = {address.partition("/")[0] for address in found}
    if case.fails6 == NOT_EUI64:
        assert ipv6_of(name) not in own, f"no longer true: {case.fails6}"
        assert GATEWAY6 in default_gateways(guest, 6)
        assert not reaches(guest, INTERNET[6])
        return
    if case.pool is CLOUD:
        assert own == {ipv6_of(name)}
    if case.fails6:
        assert default_gateways(guest, 6) == set(), f"no longer true: {case.fails6}"
        return
    wait_for("the default route of IPv6", lambda: default_gateways(guest, 6) == {GATEWAY6}, 20)
    wait_for("the Internet", lambda: reaches(guest, INTERNET[6]), 20)


@pytest.mark.parametrize("name", DHCP_CASES)
def test_the_client_renews_its_lease(guests: dict[str, DebianGuest], name: str) -> None:
    """The journal of the hypervisor has a second request without another discovery, at half of the lease."""
    guest = guests[name]
    hypervisor = HYPERVISORS[list(CASES).index(name) % len(HYPERVISORS)]

    def messages() -> list[str]:
        lines = guest.lab.run(hypervisor, f"journalctl -q -o cat -u l3hv-dhcp -g 'DHCP.*{mac_of(name)}'")
        return re.findall(r": (DHCP[A-Z]+)\(", lines)

    wait_for("a renewal", lambda: messages()[-4:] == ["DHCPREQUEST", "DHCPACK"] * 2, RENEWAL_S + 30)
    assert reaches(guest, INTERNET[4])


def test_the_documentation_names_the_versions(guests: dict[str, DebianGuest]) -> None:
    shown = guests["dhclient"].run("dpkg-query -W -f '${Package} ${Version}\\n'")
    versions = dict(line.split() for line in shown.splitlines())
    documented = (REPOSITORY / "docs" / "designs.md").read_text()
    for name, package in PACKAGES.items():
        version = versions[package].partition(":")[2] or versions[package]
        named = re.search(rf"{name} ([0-9.]+)", documented)
        assert named is not None, name
        assert version.startswith(named[1]), name

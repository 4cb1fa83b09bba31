"""The program that repairs uplinks and guest ports reads the files of the roles as networkd does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from images import loaded
from rendered import PLANS, ROOT, read_plan, rendered_files
from test_rendered_files import name


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return loaded(ROOT / "roles/uplinks/files/networkd-sync")


HYPERVISORS = [path for path in PLANS if "hv" in path.parts[-2] and read_plan(path)["managed"]]


@pytest.mark.parametrize("path", HYPERVISORS, ids=name)
def test_a_port_has_the_addresses_and_routes_of_the_plan(
    path: Path, program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, files = read_plan(path), rendered_files(path)
    (tmp_path / "networkd.conf").write_text(files[program.NETWORKD])
    monkeypatch.setattr(program, "NETWORKD", str(tmp_path / "networkd.conf"))
    numbers = {table["name"]: str(table["id"]) for table in plan["table_names"]}
    for guest in plan["guests"]:
        (tmp_path / "port").write_text(files[program.PORTS.format(guest["interface"])])
        port = program.wanted_port(str(tmp_path / "port"), program.table_numbers())
        assert port.addresses == set(guest["gateways"])
        assert port.routes == {
            (
                numbers[table],
                route["prefix"],
                route["via"] or "",
                (route["prefsrc"] or "") if table == "local-out" else "",
                str(route["metric"]),
            )
            for route in guest["routes"]
            for table in route["tables"]
        }


def link(name: str, mtu: int, flags: list[str], addresses: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a link as ip(8) prints it, with addresses of a plan."""
    info = [
        {"local": one["address"], "prefixlen": one["length"], "scope": "host" if name == "lo" else "global"}
        for one in addresses
    ]
    return {"ifname": name, "mtu": mtu, "flags": flags, "addr_info": info}


@pytest.mark.parametrize(
    "path",
    [path for path in PLANS if path.parts[-4] in ("lab", "one_path", "vlans") and read_plan(path)["managed"]],
    ids=name,
)
def test_uplinks_and_the_loopback_are_what_the_plan_says(
    path: Path, program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_plan(path)
    for file, text in rendered_files(path).items():
        if file.startswith("/etc/systemd/network/"):
            (tmp_path / Path(file).name).write_text(text)
    for variable in ("UPLINKS", "LOOPBACK"):
        monkeypatch.setattr(program, variable, str(tmp_path / Path(getattr(program, variable)).name))

    def differences(
        mtu: int | None, flags: list[str], addresses: list[dict[str, Any]] | None
    ) -> dict[str, list[str]]:
        found = {"lo": link("lo", 65536, ["UP"], plan["loopbacks"] if addresses is None else [])}
        for one in plan["uplinks"]:
            here = one["addresses"] if addresses is None else addresses
            found[one["interface"]] = link(one["interface"], mtu or one["mtu"], flags, here)
        monkeypatch.setattr(program, "links", lambda: found)
        return {key: [one.words for one in several] for key, several in program.uplink_differences().items()}

    def lacking(addresses: list[dict[str, Any]]) -> list[str]:
        return sorted(f"lacks {one['address']}/{one['length']}" for one in addresses)

    assert differences(None, ["UP"], None) == {}
    different = {
        one["interface"]: ["has mtu 1", "is down", *lacking(one["addresses"]), "has 192.0.2.250/32"]
        for one in plan["uplinks"]
    }
    if plan["loopbacks"]:
        different["lo"] = lacking(plan["loopbacks"])
    assert differences(1, [], [{"address": "192.0.2.250", "length": 32}]) == different


def test_a_removed_port_is_no_error_and_is_not_repaired(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [
        program.Difference("has ipv4 forwarding off", setting="ipv4/conf/gone0/forwarding"),
        program.Difference("is down", ("link", "set", "dev", "gone0", "up")),
    ]
    program.mend({"gone0": several})
    assert capsys.readouterr().out == ""


HANGS = (
    f"systemd-networkd (or D-Bus) on {os.uname().nodename} does not answer within 0.2 s: look at"
    " `systemctl status systemd-networkd dbus`; systemd's watchdog restarts a networkd that hangs within"
    " three minutes, `systemctl kill --signal=KILL systemd-networkd` at once"
)
UNDONE = (
    f"systemd-networkd on {os.uname().nodename} answers, but has not done `networkctl reload` within {{}} s:"
    " look at `journalctl -u systemd-networkd`"
)
FOR_EVER = "exec sleep 60"
IGNORES_SIGTERM = "trap '' TERM; sleep 60"
"""A command that only SIGKILL ends."""
BUSY = 'sleep 1; echo "$SYSTEMD_BUS_TIMEOUT" >{}/done'
Apply = Callable[[float], str]
FAILS = "echo no such thing >&2; exit 3"


@pytest.fixture(params=["ports", "uplinks"])
def apply(request: pytest.FixtureRequest, program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Apply:
    """Return a function that applies files with a limit in seconds for networkd, and returns its error."""

    def run(limit: float) -> str:
        monkeypatch.setattr(program, "NETWORKD_SECONDS", 0.2)
        monkeypatch.setattr(program, "NETWORKD_MOST_SECONDS", limit)
        try:
            program.main(["apply", request.param])
        except SystemExit as ended:
            return str(ended.code)
        return ""

    return run


def programs(directory: Path, monkeypatch: pytest.MonkeyPatch, networkctl: str, busctl: str) -> None:
    """Install fake programs that call networkd; systemd itself answers."""
    for program, does in (("networkctl", networkctl), ("busctl", busctl), ("systemctl", "exit 0")):
        (directory / program).write_text(f"#!/bin/sh\n{does}\n")
        (directory / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


@pytest.mark.parametrize("networkctl", [FOR_EVER, IGNORES_SIGTERM])
@pytest.mark.parametrize("busctl", [FOR_EVER, IGNORES_SIGTERM, "exit 1"])
def test_a_hanging_networkd_is_named_without_waiting_for_it(
    apply: Apply,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    networkctl: str,
    busctl: str,
) -> None:
    programs(tmp_path, monkeypatch, networkctl, busctl)
    assert apply(30) == HANGS


def test_the_program_waits_for_a_busy_networkd(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, BUSY.format(tmp_path), "exit 0")
    assert apply(30) == ""
    assert (tmp_path / "done").read_text() == "30\n"


@pytest.mark.parametrize("networkctl", [FOR_EVER, IGNORES_SIGTERM])
def test_the_program_waits_for_a_busy_networkd_up_to_its_limit(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networkctl: str
) -> None:
    programs(tmp_path, monkeypatch, networkctl, "exit 0")
    assert apply(0.7) == UNDONE.format(0.7)


def test_errors_of_networkctl_are_shown(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, FAILS, "exit 0")
    assert apply(30).endswith("no such thing")


def test_table_names_are_read_once_for_all_ports(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(path for path in PLANS if path.parts[-4:] == ("lab", "expected", "hv1", "plan.yml"))
    placed = {name: text for name, text in rendered_files(path).items() if "/05-l3hv-port-" in name}
    assert len(placed) > 1
    for file, text in placed.items():
        (tmp_path / Path(file).name).write_text(text)
    interfaces = [guest["interface"] for guest in read_plan(path)["guests"]]
    empty = {name: program.Port() for name in interfaces}
    for port in empty.values():
        port.link = {"mtu": "1500", "mac": "", "master": "", "state": "up"}
    read = []
    monkeypatch.setattr(program, "PORTS", str(tmp_path / "05-l3hv-port-{}.network"))
    monkeypatch.setattr(program, "found_ports", lambda: empty)

    def numbers() -> dict[str, int]:
        read.append(1)
        return dict(program.BUILTIN_TABLES)

    monkeypatch.setattr(program, "table_numbers", numbers)
    assert len(program.port_differences()) == len(placed)
    assert read == [1]


# A bridge and a veth of an operator have the names of a VRF and of a VLAN, and others those of removed ones.
TAKEN = """
mount -t tmpfs none /etc/systemd
mkdir /etc/systemd/network
files=/etc/systemd/network/05-l3hv
printf '[NetDev]\\nName=mgmt\\nKind=vrf\\n\\n[VRF]\\nTable=90\\n' >$files-vrf-mgmt.netdev
printf '[NetDev]\\nName=up0\\nKind=vlan\\n\\n[VLAN]\\nId=90\\n' >$files-uplink-up0.netdev
ip link add mgmt type bridge
ip link add up0 type veth peer name up1
ip link add old1 type veth peer name old2
export CONFIG_FILES_CHANGED="$(printf "$files-%s.netdev\\n" vrf-mgmt uplink-up0)"
export CONFIG_FILES_REMOVED="$(printf "$files-%s.netdev\\n" vrf-old1 uplink-old2)"
python3 -I "$1" apply uplinks 2>&1
echo "exit $?"
python3 -I -B - "$1" 2>&1 <<'PYTHON'
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("program", sys.argv[1])
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)
program.networkd_is_up = lambda: True
program.main(["in-force", "uplinks"])
PYTHON
echo "exit $?"
rm /etc/systemd/network/*
mkdir -p /run/fake
for name in networkctl systemctl busctl; do ln -s /bin/true /run/fake/$name; done
PATH=/run/fake:$PATH python3 -I "$1" apply uplinks 2>&1
echo "exit $?"
ip -brief link | cut -d' ' -f1 | sort | xargs
"""
OF_VRF = (
    "and the plan creates a VRF with this name. Rename the domain in l3hv_domains, or rename the interface."
)
OF_VLAN = (
    "and the plan creates a VLAN with this name."
    " Choose another name in l3hv_uplinks, or rename the interface."
)


def test_an_operators_interface_with_a_name_of_the_plan_is_refused_and_kept() -> None:
    alone = ["unshare", "--mount", "--net", "bash", "-c", "mount -t tmpfs none /run\n" + TAKEN, "bash"]
    program = ROOT / "roles/uplinks/files/networkd-sync"
    done = subprocess.run([*alone, program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        f"The interface mgmt is of the kind bridge, {OF_VRF}"
        f" The interface up0 is of the kind veth, {OF_VLAN}",
        "exit 1",
        f"mgmt is of the kind bridge, {OF_VRF}",
        f"up0 is of the kind veth, {OF_VLAN}",
        "exit 1",
        "exit 0",
        "lo mgmt old1@old2 old2@old1 up0@up1 up1@up0",
    ], done.stderr


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ("", "public", "is not in public"),
        ("private", "public", "is in private instead of public"),
        ("private", "", "is in private, and belongs to no VRF"),
        ("br0", "", "is in br0: its guest gets past the hypervisor's routes and filter"),
        ("br0", "public", "is in br0: its guest gets past the hypervisor's routes and filter"),
    ],
)
def test_a_bridge_is_more_than_a_wrong_vrf(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, found: str, wanted: str, words: str
) -> None:
    monkeypatch.setattr(program, "vrfs", lambda: {"public", "private"})
    assert program.wrong_master(found, wanted) == words

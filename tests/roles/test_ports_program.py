"""The programs that repair guest ports and apply uplinks, and their limits for a hanging networkd."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from images import loaded
from rendered import PLANS, ROOT, read_plan, rendered_files
from test_rendered_files import name


@pytest.fixture(scope="module")
def ports() -> ModuleType:
    return loaded(ROOT / "roles/guest_ports/files/ports")


HYPERVISORS = [path for path in PLANS if "hv" in path.parts[-2] and read_plan(path)["managed"]]


@pytest.mark.parametrize("path", HYPERVISORS, ids=name)
def test_a_port_has_the_addresses_and_routes_of_the_plan(
    path: Path, ports: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, files = read_plan(path), rendered_files(path)
    (tmp_path / "networkd.conf").write_text(files[ports.NETWORKD])
    monkeypatch.setattr(ports, "NETWORKD", str(tmp_path / "networkd.conf"))
    numbers = {table["name"]: str(table["id"]) for table in plan["table_names"]}
    for guest in plan["guests"]:
        (tmp_path / "port").write_text(files[ports.FILES.format(guest["interface"])])
        port = ports.wanted(str(tmp_path / "port"), ports.table_numbers())
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


def test_a_removed_port_is_no_error_and_is_not_repaired(
    ports: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [
        ports.Difference("has ipv4 forwarding off", setting="ipv4/conf/gone0/forwarding"),
        ports.Difference("is down", ("link", "set", "dev", "gone0", "up")),
    ]
    ports.mend({"gone0": several})
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
def apply(request: pytest.FixtureRequest, ports: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Apply:
    """Return a function that runs a program with a limit in seconds for networkd, and returns its error."""

    def apply_ports(limit: float) -> str:
        monkeypatch.setattr(ports, "NETWORKD_SECONDS", 0.2)
        monkeypatch.setattr(ports, "NETWORKD_MOST_SECONDS", limit)
        try:
            ports.apply()
        except SystemExit as ended:
            return str(ended.code)
        return ""

    def apply_uplinks(limit: float) -> str:
        program = (ROOT / "roles/uplinks/files/apply-uplinks").read_text()
        for setting, value in (("\npatience=10\n", 0.2), ("\nlimit=120\n", limit)):
            assert setting in program
            program = program.replace(setting, f"{setting.partition('=')[0]}={value}\n")
        done = subprocess.run(["sh"], input=program, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == bool(done.stderr)
        return done.stderr.strip()

    return apply_ports if request.param == "ports" else apply_uplinks


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
    ports: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(path for path in PLANS if path.parts[-4:] == ("lab", "expected", "hv1", "plan.yml"))
    placed = {name: text for name, text in rendered_files(path).items() if "/05-l3hv-port-" in name}
    assert len(placed) > 1
    for file, text in placed.items():
        (tmp_path / Path(file).name).write_text(text)
    interfaces = [guest["interface"] for guest in read_plan(path)["guests"]]
    empty = {name: ports.Port() for name in interfaces}
    for port in empty.values():
        port.link = {"mtu": "1500", "mac": "", "master": "", "state": "up"}
    read = []
    monkeypatch.setattr(ports, "FILES", str(tmp_path / "05-l3hv-port-{}.network"))
    monkeypatch.setattr(ports, "found", lambda: empty)
    monkeypatch.setattr(ports, "table_numbers", lambda: read.append(1) or dict(ports.BUILTIN_TABLES))
    assert len(ports.differences()) == len(placed)
    assert read == [1]

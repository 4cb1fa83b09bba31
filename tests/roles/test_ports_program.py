"""The program that mends guest ports reads its own role's files as networkd does."""

from __future__ import annotations

import os
import subprocess
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
def test_a_port_is_what_the_plan_says(
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


def test_a_port_that_has_gone_meanwhile_is_no_error_and_is_not_mended(
    ports: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [
        ports.Difference("has ipv4 forwarding off", setting="ipv4/conf/gone0/forwarding"),
        ports.Difference("is down", ("link", "set", "dev", "gone0", "up")),
    ]
    ports.mend({"gone0": several})
    assert capsys.readouterr().out == ""


HANGS = "systemd-networkd on {} does not answer within {} s: look at `systemctl status systemd-networkd`"


def test_a_networkd_that_hangs_is_named_and_not_waited_for(
    ports: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs_for_ever(tmp_path, monkeypatch)
    monkeypatch.setattr(ports, "NETWORKD_SECONDS", 0.2)
    with pytest.raises(SystemExit) as ended:
        ports.apply()
    assert str(ended.value).startswith(HANGS.format(os.uname().nodename, 0.2))


def test_uplinks_wait_for_no_networkd_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs_for_ever(tmp_path, monkeypatch)
    program = (
        (ROOT / "roles/uplinks/files/apply-uplinks").read_text().replace(" 10 networkctl", " 0.2 networkctl")
    )
    done = subprocess.run(["sh"], input=program, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith(HANGS.format(os.uname().nodename, 10))


def hangs_for_ever(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make networkctl one that gets no answer; systemd itself gives one."""
    for program, does in (("networkctl", "exec sleep 60"), ("systemctl", "exit 0")):
        (directory / program).write_text(f"#!/bin/sh\n{does}\n")
        (directory / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


def test_the_names_of_tables_are_read_once_for_all_ports(
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

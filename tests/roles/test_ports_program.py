"""The program that mends guest ports reads its own role's files as networkd does."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from rendered import PLANS, ROOT, read_plan, rendered_files
from test_rendered_files import name


@pytest.fixture(scope="module")
def ports() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("ports", str(ROOT / "roles/guest_ports/files/ports"))
    spec = importlib.util.spec_from_loader("ports", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


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
        port = ports.wanted(str(tmp_path / "port"))
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

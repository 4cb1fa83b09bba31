"""The program that mends guest ports reads its own role's files as networkd does."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from rendered import ROOT, rendered_files
from test_rendered_files import PLANS, name


@pytest.fixture(scope="module")
def ports() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("ports", str(ROOT / "roles/guest_ports/files/ports"))
    spec = importlib.util.spec_from_loader("ports", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [path for path in PLANS if "hv" in path.parts[-2]], ids=name)
def test_a_port_is_what_the_plan_says(path: Path, ports: ModuleType, tmp_path: Path) -> None:
    plan = yaml.safe_load(path.read_text())
    files = rendered_files(plan)
    for guest in plan["guests"]:
        (tmp_path / "port").write_text(files[ports.FILES.format(guest["interface"])])
        port = ports.wanted(str(tmp_path / "port"))
        assert port.addresses == set(guest["gateways"])
        assert port.routes == {
            (
                table,
                route["prefix"],
                route["via"] or "",
                (route["prefsrc"] or "") if table == "local-out" else "",
                str(route["metric"]),
            )
            for route in guest["routes"]
            for table in route["tables"]
        }

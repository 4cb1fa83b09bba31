"""The filters in Ansible: they are found and documented, take tagged types and return plain types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ansible = pytest.importorskip("ansible", reason="the filters are loaded by Ansible itself")

from ansible.parsing.dataloader import DataLoader  # noqa: E402 - it is known to be there now
from ansible.plugins.loader import filter_loader, init_plugin_loader  # noqa: E402 - the same
from ansible.template import Templar  # noqa: E402 - the same

ROOT = Path(__file__).parents[2]
FILTERS = ROOT / "filter_plugins"
LAB = ROOT / "inventories" / "lab"
sys.path.append(str(ROOT / "tests" / "unit"))

from intents import fabric, slices  # noqa: E402 - the same

from l3hv.model.plain import as_plain  # noqa: E402 - the same
from l3hv.plan.host import host_plan  # noqa: E402 - the same


@pytest.fixture(scope="module", autouse=True)
def loaded():
    init_plugin_loader()
    filter_loader.add_directory(str(FILTERS))


@pytest.fixture(scope="module")
def plan():
    """Return the plan of hv1, read by Ansible's loader, which tags its texts and numbers."""
    return DataLoader().load(json.dumps(as_plain(host_plan(slices(fabric(2, guests=2))["hv1"]))))


def names() -> list[str]:
    return sorted(path.stem for path in FILTERS.glob("*.yml"))


def render(expression: str, **variables):
    return Templar(loader=DataLoader(), variables=variables).template(_trusted("{{ " + expression + " }}"))


def _trusted(text: str) -> str:
    try:
        from ansible.template import trust_as_template
    except ImportError:
        return text
    return trust_as_template(text)


def assert_plain(value) -> None:
    """Assert that a value consists of plain Python types."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for item in value.values():
            assert_plain(item)
    elif isinstance(value, list):
        for item in value:
            assert_plain(item)
    else:
        assert value is None or isinstance(value, (str, int, bool))


@pytest.mark.parametrize("name", names())
def test_every_documented_filter_is_loaded(name):
    assert filter_loader.get(name) is not None


def test_every_filter_is_documented():
    sys.path.append(str(FILTERS))
    from l3hv_filters import FilterModule

    assert sorted(FilterModule().filters()) == names()


@pytest.mark.parametrize("name", names())
def test_documentation_is_complete(name):
    documentation = yaml.safe_load((FILTERS / f"{name}.yml").read_text())
    assert documentation["DOCUMENTATION"]["name"] == name
    assert yaml.safe_load(documentation["EXAMPLES"])
    assert documentation["RETURN"]["_value"]["type"]
    # ansible-doc runs in the project's root, without an installed package.
    shown = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "-t", "filter", "-M", str(FILTERS), "--json", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)[name]["doc"]["short_description"]


def test_plan_summary_takes_tagged_values_and_returns_text(plan):
    summary = render("plan | plan_summary", plan=plan)
    assert_plain(summary)
    assert summary.startswith("hv1: hypervisor 1 of test\n")
    assert "rr1_public" in summary


def test_guest_network_data_takes_tagged_values_and_returns_plain_ones(plan):
    found = render("plan | guest_network_data(guest)", plan=plan, guest="vm2")
    assert_plain(found)
    assert found["ethernets"]["guest"]["addresses"] == ["10.0.0.2/12"]


def test_guest_network_data_of_another_hosts_guest_fails_with_a_sentence(plan):
    with pytest.raises(Exception, match="hv1 has no guest vm99: name its hypervisor with --limit"):
        render("plan | guest_network_data('vm99')", plan=plan)


def test_every_used_filter_of_l3hv_is_loaded():
    """Ansible skips a filter that cannot import its package, and prints only a warning."""
    used = {
        name
        for directory in ("playbooks", "roles")
        for path in (ROOT / directory).rglob("*")
        if path.suffix in {".yml", ".j2"}
        for name in re.findall(r"\|\s*(guest_network_data|junos_reflector|plan_summary)\b", path.read_text())
    }
    assert used <= set(names())


def test_the_package_is_appended_to_the_path():
    assert "sys.path.append" in (FILTERS / "l3hv_filters.py").read_text()
    assert "sys.path.insert" not in (FILTERS / "l3hv_filters.py").read_text()

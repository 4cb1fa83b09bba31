"""The warnings of the module that examines a machine, about its kernel and its systemd."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "roles/packages/library"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("host_requirements", LIBRARY / "host_requirements.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("release", "families", "parts"),
    [
        ("6.12.48+deb13-amd64", ["ipv4", "ipv6"], []),
        ("4.18.0", ["ipv4", "ipv6"], []),
        ("4.17.19-lts", ["ipv4", "ipv6"], ["IPv6"]),
        ("4.9.0-19-amd64", ["ipv4", "ipv6"], ["IPv4", "IPv6"]),
        ("4.4.302", ["ipv4"], ["IPv4"]),
        ("4.3", ["ipv4"], ["l3hv_ecmp: none"]),
        ("3.16.0-4-amd64", ["ipv4", "ipv6"], ["l3hv_ecmp: none"]),
        ("3.16.0-4-amd64", ["ipv6"], []),
        ("3.16.0-4-amd64", [], []),
        ("next", ["ipv4", "ipv6"], []),
    ],
)
def test_an_old_kernel_is_reported_with_its_effect_on_flows(
    module: ModuleType, release: str, families: list[str], parts: list[str]
) -> None:
    sentences = module.multipath_cautions(release, families)
    assert len(sentences) == len(parts)
    for sentence, part in zip(sentences, parts, strict=True):
        assert part in sentence
        assert f"The kernel {release} " in sentence


class Failed(Exception):
    """The failure of a module."""


class Called:
    """A module whose arguments only ask for the units of other programs."""

    def __init__(self, **_: object) -> None:
        self.params = {"other_daemons": ["bird*"]}

    def fail_json(self, msg: str) -> None:
        raise Failed(msg)


def test_a_hanging_systemd_is_named_without_waiting_for_it(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(module, "SYSTEMD_SECONDS", 0.2)
    monkeypatch.setattr(module, "AnsibleModule", Called)
    monkeypatch.setattr(module, "problems", lambda _: [])
    with pytest.raises(Failed) as failed:
        module.main()
    assert str(failed.value) == (
        f"systemd on {os.uname().nodename} does not answer within 0.2 s. Look at `journalctl _PID=1`. Try"
        " `systemctl daemon-reexec`; if that hangs too, reboot the host."
    )


def asked(arguments: dict[str, Any], around: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the status and the result of the module on this machine, whose system is the plan's."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    here = " ".join(release.get(key, "unknown").strip('"') for key in ("ID", "VERSION_ID"))
    arguments = {"packages": ["dpkg"], "systems": [here], **arguments}
    program = Path(sys.executable).with_name("ansible")
    command = [*around, str(program), "localhost", "-i", "localhost,", "-c", "local", "-M", str(LIBRARY)]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    command += ["-m", "host_requirements", "-a", json.dumps(arguments)]
    as_json = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=as_json)
    status, _, result = done.stdout.partition(" => ")
    facts: dict[str, Any] = json.loads(result)
    assert not facts["changed"]
    return status.splitlines()[-1], facts


def looked(multipath: list[str], around: Sequence[str] = ()) -> dict[str, Any]:
    """Return the result of the module on this machine, without facts of the system and the packages."""
    status, facts = asked({"multipath": multipath}, around)
    assert status == "localhost | SUCCESS", facts
    return facts


def test_a_current_machine_has_no_warning() -> None:
    assert looked(["ipv4", "ipv6"])["cautions"] == []


def test_an_older_kernel_is_a_warning() -> None:
    """The personality of setarch(8) makes uname(2) return 2.6."""
    around = ["setarch", "--uname-2.6"]
    assert looked([], around)["cautions"] == []
    (sentence,) = looked(["ipv4", "ipv6"], around)["cautions"]
    assert sentence.startswith("The kernel 2.6.")
    assert "l3hv_ecmp: without_default" in sentence


def test_a_kernel_without_the_module_of_vrfs_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends before its first change: without VRFs, the rules of VRFs would cut the machine off."""
    monkeypatch.setattr(module, "has_module", lambda name: name != "vrf")
    monkeypatch.setattr(module, "system", lambda: "debian 13")
    wanted = {
        "systems": ["debian 13"],
        "system": None,
        "interfaces": [],
        "vlan_interfaces": [],
        "vlans": True,
    }
    parameters = {**wanted, "vrfs": ["lo"], "tunnels": [], "main_default_route": None}
    found = module.problems(SimpleNamespace(params=parameters))
    assert found[1:] == [
        f"The kernel {platform.release()} cannot create VRFs (no module vrf). Boot a kernel of which the"
        " modules are installed, as after an upgrade, or set `l3hv_data_plane: rules`."
    ]
    assert module.problems(SimpleNamespace(params={**parameters, "vrfs": []})) == []


def test_a_kernel_without_the_module_of_tunnels_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_module", lambda name: name != "ip6_tunnel")
    monkeypatch.setattr(module, "system", lambda: "debian 13")
    parameters = {
        "systems": ["debian 13"],
        "system": None,
        "interfaces": [],
        "vlan_interfaces": [],
        "vlans": True,
        "vrfs": [],
        "tunnels": ["ipip", "ip6tnl"],
        "main_default_route": None,
    }
    assert module.problems(SimpleNamespace(params=parameters)) == [
        f"The kernel {platform.release()} cannot create tunnels (no module ip6_tunnel)."
        " Boot a kernel of which the modules are installed, or set `l3hv_encapsulation: none`."
    ]


def test_an_interface_with_the_name_of_a_vrf_or_a_vlan_is_refused(tmp_path: Path) -> None:
    """A program in place of modprobe(8) lets the kernel seem to have all modules."""
    (tmp_path / "modprobe").write_text("#!/bin/sh\n")
    (tmp_path / "modprobe").chmod(0o755)
    make = f'PATH={tmp_path}:$PATH; ip link add mgmt type bridge; ip link add eno1.90 type veth; exec "$@"'
    around = ["unshare", "--net", "sh", "-c", make, "sh"]
    status, facts = asked({"vrfs": ["mgmt", "public"], "vlan_interfaces": ["eno1.90", "eno2.90"]}, around)
    assert status == "localhost | FAILED!"
    assert facts["msg"] == (
        "The interface mgmt is of the kind bridge, and the plan creates a VRF with this name."
        " Rename the domain in l3hv_domains, or rename the interface."
        " The interface eno1.90 is of the kind veth, and the plan creates a VLAN with this name."
        " Choose another name in l3hv_uplinks, or rename the interface."
    )

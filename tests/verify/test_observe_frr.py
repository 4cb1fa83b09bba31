"""The observation of FRR's answers; tests in the twin observe FRR itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.l3hv.observe import frr
from ansible.module_utils.l3hv.observe.routing import read_routing

# Of FRR 10.3, shortened.
BFD = """\
[
  {"multihop":false, "peer":"198.51.100.1", "local":"198.51.100.62", "vrf":"default", "interface":"a-public",
   "status":"up", "receive-interval":100, "transmit-interval":100, "detect-multiplier":3,
   "remote-receive-interval":200, "remote-transmit-interval":150, "remote-detect-multiplier":4},
  {"multihop":true, "peer":"198.51.100.9", "vrf":"default", "status":"down", "receive-interval":100,
   "transmit-interval":100, "remote-receive-interval":1000, "remote-transmit-interval":1000,
   "remote-detect-multiplier":3}
]
"""
PRIVATE = "{}\n"
PUBLIC = """\
{
  "198.51.100.1":{
    "nbrDesc":"hv1_public", "localRouterId":"198.51.100.62", "bgpState":"Established",
    "neighborCapabilities":{
      "multiprotocolExtensions":{
        "ipv4Unicast":{"advertisedAndReceived":true}, "ipv6Unicast":{"advertised":true}}},
    "addressFamilyInfo":{
      "ipv4Unicast":{"acceptedPrefixCounter":2, "sentPrefixCounter":5},
      "ipv6Unicast":{"acceptedPrefixCounter":0}},
    "lastResetDueTo":"No AFI/SAFI activated for peer", "hostLocal":"198.51.100.62"
  },
  "198.51.100.9":{
    "localRouterId":"198.51.100.62", "bgpState":"Active", "hostLocal":"Unknown",
    "addressFamilyInfo":{"ipv4Unicast":{"acceptedPrefixCounter":0}}, "lastResetDueTo":"BFD down received"
  }
}
"""
PLAN = {
    "routing": {
        "daemon": {"name": "frr"},
        "cluster_id": "198.51.100.126",
        "tables": [{"domain": "public"}, {"domain": "public"}, {"domain": "private"}],
        "sessions": [{"name": "hv1_public", "neighbor": "198.51.100.1", "interface": "a-public"}],
        "ranges": [],
    }
}
GROUPS = """\
{
  "clients_private":{"remoteAs":65000, "type":"internal", "addressFamiliesConfigured":["IPv4 Unicast"]}
}
{
  "clients_public":{
    "remoteAs":65000, "type":"internal", "addressFamiliesConfigured":["IPv4 Unicast","IPv6 Unicast"],
    "dynamicRanges":{"IPv4":{"count":1, "ranges":["198.51.100.0/26"]}},
    "members":{"198.51.100.1":{"status":"Established", "dynamic":true}}
  }
}
"""
CONFIGURATION = "! l3hv_config @digest@\nrouter bgp 65000 view public\n"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a fake vtysh that answers the commands in their order."""
    (tmp_path / "vtysh").write_text(f"#!/bin/sh\ncat <<'END'\n{BFD}{PRIVATE}{PUBLIC}END\n")
    (tmp_path / "in-force").write_text(f"#!/bin/sh\n! grep wrong {tmp_path}/frr.conf >&2\n")
    for program in ("vtysh", "in-force"):
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(frr, "FRR_CONFIGURATION", str(tmp_path / "frr.conf"))
    monkeypatch.setattr(frr, "FRR_IN_FORCE", [str(tmp_path / "in-force")])


def test_sessions_have_the_names_of_the_plan() -> None:
    seen: dict[str, Any] = read_routing(PLAN)
    assert seen["router_id"] == "198.51.100.62"
    assert seen["sessions"].keys() == {"hv1_public", "198.51.100.9"}
    up, down = seen["sessions"].values()
    assert (up["state"], up["local"], up["neighbor"]) == ("Established", "198.51.100.62", "198.51.100.1")
    assert up["channels"] == {
        "ipv4": {"state": "UP", "routes": {"imported": 2, "exported": 5}},
        "ipv6": {"state": "DOWN", "routes": {"imported": 0, "exported": 0}},
    }
    assert (down["state"], down["error"]) == ("Active", "BFD down received")


def test_a_range_listens_and_its_clients_have_their_addresses(tmp_path: Path) -> None:
    (tmp_path / "vtysh").write_text(f"#!/bin/sh\ncat <<'END'\n{BFD}{PRIVATE}{PUBLIC}{GROUPS}END\n")
    seen = read_routing(
        {"routing": {**PLAN["routing"], "sessions": [], "ranges": [{"name": "clients_public"}]}}
    )["sessions"]
    assert seen.keys() == {"clients_private", "clients_public", "198.51.100.1", "198.51.100.9"}
    assert (seen["clients_public"]["state"], seen["clients_public"]["neighbor"]) == (
        "Passive",
        "198.51.100.0/26",
    )
    assert seen["clients_private"]["state"] == "Idle"  # a group without possible members
    assert seen["198.51.100.1"]["neighbor"] == "198.51.100.1"


def test_bfd_has_the_negotiated_values() -> None:
    up, down = read_routing(PLAN)["bfd"]
    assert up == {"address": "198.51.100.1", "state": "Up", "interval": "0.200", "timeout": "0.600"}
    assert down["state"] == "Down"


def test_the_running_configuration_is_the_file_if_frr_sees_no_difference() -> None:
    file = Path(frr.FRR_CONFIGURATION)
    digest = hashlib.sha256(CONFIGURATION.encode()).hexdigest()[:16]
    file.write_text(CONFIGURATION.replace("@digest@", digest))
    same = {"running": digest, "placed": digest, "file": digest}
    assert read_routing(PLAN)["configuration"] == same
    file.write_text(file.read_text() + "wrong\n")
    seen = read_routing(PLAN)["configuration"]
    assert seen["running"] == "wrong"
    assert seen["file"] != digest
    file.unlink()
    assert read_routing(PLAN)["configuration"]["placed"] is None


def test_an_frr_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    (tmp_path / "vtysh").write_text("#!/bin/sh\necho failed to connect to any daemons >&2; exit 1\n")
    assert read_routing(PLAN) == {"error": "failed to connect to any daemons"}

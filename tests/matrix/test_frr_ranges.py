"""Reflectors of FRR 10.3 and 8.4 with clients from a range: provisioned, broken, and with a new client."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from changed_intents import copy_of, replace
from failures import behind_a_router, no_loss, stopped_bird, traffic_of_cut, traffic_of_kill
from lab import Lab, booted, wait_for
from two_paths import CONVERGED, FLOWS

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "range_frr" / "intent"

REFLECTORS = {"rr1": "a", "rr2": "b"}
"""The FRR reflectors and their paths; rr3 is a BIRD reflector on path b."""
CLIENTS = {"public": {"gw", "hv1", "hv2"}, "private": {"hv1", "hv2"}}
NUMBERS = {"hv1": 1, "hv2": 2, "gw": 120, "rr3": 126}


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric in a twin of its own, without provisioning it."""
    with booted("franges", INVENTORY, converged=CONVERGED) as made:
        yield made


def neighbors(fabric: Lab, reflector: str, view: str) -> dict[str, dict[str, object]]:
    """Return a reflector's neighbours in a view, by their names."""
    shown = fabric.read_json(reflector, f"vtysh -c 'show bgp view {view} neighbors json'")
    names = {number + (128 if REFLECTORS[reflector] == "b" else 0): name for name, number in NUMBERS.items()}
    return {names[int(address.rpartition(".")[2])]: each for address, each in shown.items() if "." in address}


def states(fabric: Lab, reflector: str, view: str = "public") -> dict[str, str]:
    return {name: str(each["bgpState"]) for name, each in neighbors(fabric, reflector, view).items()}


def test_all_hosts_of_a_path_have_sessions(fabric: Lab) -> None:
    """All clients have sessions with BFD and add-path, without neighbours in the configuration."""
    fabric.provision()
    assert fabric.provision() == {}
    fabric.wait_until_converged()
    for reflector, path in REFLECTORS.items():
        assert "hv1" not in fabric.run(reflector, "cat /etc/frr/frr.conf")
        for view, clients in CLIENTS.items():
            found = neighbors(fabric, reflector, view)
            assert found.keys() == clients | ({"rr3"} if path == "b" else set())
            for name, session in found.items():
                assert session["bgpState"] == "Established", (reflector, view, name)
                assert session["peerBfdInfo"]["status"] == "Up", (reflector, view, name)  # type: ignore[index] # of JSON
    shown = fabric.run("hv1", "birdc show protocols all rr1_public")
    # BIRD's own capabilities come first: it receives several paths of a prefix, and FRR sends them.
    assert "TX: ipv4 ipv6" in shown.partition("Neighbor capabilities")[2]


@pytest.mark.parametrize(
    ("event", "path", "bound"),
    [("cut", "a", 1.2 * 300 + 100), ("cut", "b", 1.2 * 300 + 100), ("kill", "a", 50)],
    ids=["cut of path a", "cut of path b", "kill"],
)
def test_the_outage_of_a_failure_is_within_its_bound(
    fabric: Lab, event: str, path: str, bound: float
) -> None:
    if event == "kill":
        traffic = traffic_of_kill(fabric, "hv2", "bird", *FLOWS, seconds=5, each=8)
    else:
        traffic = traffic_of_cut(fabric, "hv2", path, *FLOWS, seconds=5, each=8)
    fabric.wait_until_converged()
    assert max(traffic.outages_ms().values()) <= bound + traffic.allowance_ms


@pytest.mark.parametrize("reflector", REFLECTORS)
def test_a_reflector_that_is_killed_costs_nothing(fabric: Lab, reflector: str) -> None:
    traffic = traffic_of_kill(fabric, reflector, "bgpd", *FLOWS, seconds=8, each=8)
    fabric.wait_until_converged()
    assert max(traffic.outages_ms().values()) == 0


def test_routes_of_a_stopped_daemon_stay_as_a_last_resort(fabric: Lab) -> None:
    """Test reflectors that know the client from a range only."""
    with stopped_bird(fabric, "hv2"):
        for reflector in REFLECTORS:
            wait_for(
                "the session of hv2 to end", partial(hv2_has_no_session, fabric, reflector, "public"), 20
            )
            shown = fabric.run(reflector, "vtysh -c 'show bgp view public ipv4 unicast 203.0.113.2/32'")
            assert "llgr-stale" in shown, reflector


def test_hosts_behind_a_router_get_no_session(fabric: Lab) -> None:
    """BIRD sends IPv4 sessions with a TTL of 254; without the packet filter FRR 8.4 would accept them."""
    with behind_a_router(fabric, "hv2"):
        for reflector in REFLECTORS:
            for view in CLIENTS:
                wait_for(
                    "the session of hv2 to end",
                    partial(hv2_has_no_session, fabric, reflector, view),
                    20,
                )
        fabric.run("hv2", "sleep 12")  # longer than two attempts to connect
        assert all(
            hv2_has_no_session(fabric, reflector, view) for reflector in REFLECTORS for view in CLIENTS
        )
        assert not any("Established" in state for state in fabric.protocols("hv2").values())
        assert states(fabric, "rr1")["hv1"] == "Established"


def hv2_has_no_session(fabric: Lab, reflector: str, view: str) -> bool:
    return states(fabric, reflector, view).get("hv2") != "Established"


def test_a_new_hypervisor_needs_no_change_of_its_reflectors(fabric: Lab, tmp_path: Path) -> None:
    """hv2 is provisioned without the reflectors, whose inventory did not have it."""
    intent = copy_of(INVENTORY, tmp_path)
    hosts = intent / "hosts.yml"
    text = hosts.read_text()
    hosts.write_text(text[: text.index("    hv2:")] + text[text.index("route_reflectors:") :])
    fabric.run("hv2", "systemctl stop bird")
    for reflector in REFLECTORS:
        fabric.run(reflector, "systemctl restart frr")  # so that it forgets hv2
    assert not fabric.provision(inventory=intent).keys() & REFLECTORS.keys()
    before = {name: fabric.run(name, "sha256sum /etc/frr/frr.conf") for name in REFLECTORS}
    fabric.run("hv2", "systemctl start bird")
    assert not fabric.provision().keys() & REFLECTORS.keys()
    assert before == {name: fabric.run(name, "sha256sum /etc/frr/frr.conf") for name in REFLECTORS}
    fabric.wait_until_converged()


def test_per_family_sessions_have_separate_ranges(fabric: Lab) -> None:
    """Add ranges of IPv6 addresses to those of IPv4, and remove them again."""
    for variables in ({"l3hv_session_layout": "per_family"}, {}):
        assert fabric.provision(variables=variables)
        assert fabric.provision(variables=variables) == {}
        fabric.wait_until_converged()


def test_a_reflector_changes_to_explicit_neighbors_and_back(fabric: Lab, tmp_path: Path) -> None:
    intent = copy_of(INVENTORY, tmp_path)
    replace(intent / "hosts.yml", "l3hv_neighbors: range", "l3hv_neighbors: explicit")
    for source in (intent, INVENTORY):
        with no_loss(fabric, *FLOWS):
            changed = fabric.provision(inventory=source)
        assert changed.keys() == set(REFLECTORS)
        assert fabric.provision(inventory=source) == {}

"""Guests whose addresses are configured by Debian's own network clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from addresses import address_of
from lab import INTERNET, Lab, wait_for

from l3hv.twin.guest_system import CLIENTS
from l3hv.twin.network import processes_in
from l3hv.twin.state import Twin

pytestmark = pytest.mark.fabric

ADDRESS = address_of("vm2", 4)


@pytest.fixture
def with_vm2(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.twin("unplug", "vm2")  # The guest runs udhcpc again after this.
    lab.twin("plug", "vm2")


def plug(lab: Lab, client: str) -> None:
    """Start vm2 with a client, and wait for its lease and an address of its /64."""
    lab.twin("plug", "vm2", "--client", client, seconds=300)
    wait_for(f"a lease and a /64 of {client}", lambda: lab.has_addresses("vm2"), 30)


def client_in_status(lab: Lab) -> str:
    return next(guest["client"] for guest in lab.status()["guests"] if guest["name"] == "vm2")


def runs(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_has_its_lease_and_keeps_it_over_a_move(with_vm2: Lab, client: str) -> None:
    lab = with_vm2
    plug(lab, client)
    assert client_in_status(lab) == client
    assert ADDRESS in lab.twin("guest", "vm2", "--", "ip", "-4", "address", "show", "dev", "eth0")
    assert lab.reached("vm2", [INTERNET[4]]) == {INTERNET[4]}
    namespace = Twin(lab.name, print).guest_namespace("vm2")
    before = processes_in([namespace])
    for hypervisor in ("hv2", "hv1"):  # Only hv1 is configured for vm2: on hv2 it has no network.
        lab.twin("plug", "vm2", "--on", hypervisor)
        assert client_in_status(lab) == client
    assert set(before) & set(processes_in([namespace])), "the move has restarted the guest"
    wait_for("the Internet after the move", lambda: lab.reached("vm2", [INTERNET[4]]), 10)
    lab.twin("unplug", "vm2")
    assert not [process for process in before if runs(process)], "processes of the unplugged guest"
    lab.twin("plug", "vm2")
    assert client_in_status(lab) == "udhcpc"

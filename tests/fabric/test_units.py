"""The fabric's units run with the least privileges."""

from __future__ import annotations

import re

import pytest
from lab import Lab, wait_for

pytestmark = pytest.mark.fabric

MOST_EXPOSED = 2.0
"""The permitted exposure level of `systemd-analyze security`, whose worst value is 10."""

UNITS = ("bird", "l3hv-dhcp", "l3hv-nftables", "l3hv-tables", "radvd")


@pytest.mark.parametrize("unit", UNITS)
def test_the_exposure_level_of_a_unit_is_low(standing: Lab, unit: str) -> None:
    printed = standing.run("hv1", f"systemd-analyze security --no-pager {unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", printed)
    assert found is not None, printed
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", ["bird", "l3hv-dhcp", "radvd"])
def test_no_daemon_runs_as_root(standing: Lab, unit: str) -> None:
    pid = standing.run("hv1", f"systemctl show --property=MainPID --value {unit}.service").strip()
    assert standing.run("hv1", f"stat --format=%U /proc/{pid}").strip() != "root"


@pytest.mark.parametrize("machine", ["hv1", "rr1", "internet"])
def test_only_root_reaches_the_control_socket_of_bird(standing: Lab, machine: str) -> None:
    assert "BIRD" in standing.run(machine, "birdc show status")
    printed = standing.run(
        machine, "setpriv --reuid=65534 --regid=65534 --clear-groups birdc show status 2>&1 || true"
    )
    assert "Permission denied" in printed
    assert "Daemon is up" not in printed


def test_no_unit_was_denied_what_it_needs(standing: Lab) -> None:
    """Ignore the port settings that radvd fails to set (MTU, hop limit): systemd-networkd sets them."""
    units = " ".join(f"--unit={unit}" for unit in UNITS)
    journal = standing.run("hv1", f"journalctl --boot --no-pager --output=cat {units}").splitlines()
    denied = [
        line for line in journal if re.search("denied|not permitted|read-only file", line, re.IGNORECASE)
    ]
    assert [line for line in denied if "failed to set" not in line] == []


KILLS = 10


@pytest.mark.parametrize("unit", ["systemd-networkd", "l3hv-dhcp", "radvd", "bird"])
def test_a_unit_that_is_killed_ten_times_comes_back(lab: Lab, unit: str) -> None:
    """systemd's default gives up after five starts in ten seconds."""
    pid = f"systemctl show --property=MainPID --value {unit}.service"
    kills = (
        f"for kill in $(seq {KILLS}); do"
        f"   until old=$({pid}) && [ $old != 0 ]; do :; done;"
        f"   kill -KILL $old; while [ $({pid}) = $old ]; do :; done;"
        f" done; until systemctl --quiet is-active {unit}.service; do :; done"
    )
    lab.run("hv3", f"timeout 50 sh -c '{kills}'")
    assert lab.run("hv3", f"systemctl show --property=NRestarts --value {unit}.service").strip() != "0"


SERVES_GUESTS = ("l3hv-dhcp", "radvd")
KEEPER = "l3hv-dhcp-checksums"


def test_daemons_of_guests_that_hang_are_restarted(lab: Lab) -> None:
    """A run restarts dnsmasq and radvd, and reports this in check mode; a watchdog restarts the keeper."""

    def processes(*units: str) -> list[str]:
        return lab.run("hv3", f"systemctl show --property=MainPID --value {' '.join(units)}").split()

    run = ("site.yml", "--limit", "hv3", "--tags", "guest_services")
    before, keeper = processes(*SERVES_GUESTS), processes(KEEPER)
    lab.run("hv3", f"systemctl kill --signal=STOP {' '.join(SERVES_GUESTS)} {KEEPER}")
    printed = " ".join(lab.playbook(*run, "--check", "-v").output.split())
    for unit, process in zip(SERVES_GUESTS, before, strict=True):
        assert f"{unit}.service on hv3 hangs: process {process} has not emptied the queue" in printed
    assert processes(*SERVES_GUESTS) == before
    assert lab.playbook(*run).changed_hosts().keys() == {"hv3"}
    assert not {*before} & {*processes(*SERVES_GUESTS)}
    wait_for("another keeper", lambda: processes(KEEPER) not in (keeper, ["0"]), 25)
    assert lab.playbook(*run).changed_hosts() == {}

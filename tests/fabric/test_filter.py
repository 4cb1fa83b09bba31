"""The packet filter is loaded repeatedly under traffic, removed by other programs, and changed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lab import TRANSPARENT, Flows, Lab, both_families, wait_for

pytestmark = pytest.mark.fabric

LOADS = 150
LOAD = "/usr/local/lib/l3hv/packet-filter apply /etc/l3hv/nftables.conf"


def test_rules_are_loaded_without_losing_a_packet(lab: Lab) -> None:
    with lab.steady_traffic(*both_families("vm1", "vm3")) as traffic:
        lab.run("hv1", f"for n in $(seq {LOADS}); do {LOAD} || exit 1; done")
    assert traffic.lost() == {}


REMOVALS = {
    "flushed by hand": "nft flush ruleset",
    "nftables.service is started": "systemctl start nftables",
    "nftables.service is restarted": "systemctl restart nftables",
    "nftables.service is reloaded": "systemctl reload nftables",
    "nftables.service is stopped": "systemctl stop nftables",
    "deleted": "nft delete table inet l3hv; nft delete table arp l3hv",
    "emptied": "nft flush table inet l3hv",
    "flushed while its process is killed": "systemctl kill --signal=KILL l3hv-nftables; nft flush ruleset",
}
IN_FORCE = "/usr/local/lib/l3hv/packet-filter in-force /etc/l3hv/nftables.conf"
BACK_MS = 1000


def is_in_force(lab: Lab) -> bool:
    return lab.run("hv3", f"{IN_FORCE} && echo yes || true") == "yes\n"


@pytest.fixture
def distribution_rules(lab: Lab) -> Iterator[None]:
    """Load Debian's own rules, which accept all packets; they flush the tables of all programs."""
    lab.run("hv3", "systemctl start nftables")
    yield
    lab.run("hv3", "systemctl stop nftables; systemctl is-active l3hv-nftables")


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.usefixtures("distribution_rules")
def test_rules_that_another_program_removes_are_back_within_a_second(
    lab: Lab, figures: dict[str, str], removal: str
) -> None:
    """A transparent address of a guest is unreachable only while there are no rules."""
    wait_for("the rules", lambda: is_in_force(lab))
    with lab.traffic(Flows("internet", TRANSPARENT, 4), seconds=4, interval_ms=5, each=4) as traffic:
        lab.run("hv3", removal)
        wait_for("the rules", lambda: is_in_force(lab), 3)
    (outage,) = traffic.outages_ms().values()
    figures[f"outage of a transparent address, {removal}"] = f"{outage:.0f} ms"
    assert outage < BACK_MS


def test_the_journal_names_the_process_that_removed_the_rules(lab: Lab) -> None:
    lab.run("hv3", "nft flush ruleset")
    journal = "journalctl --boot --unit=l3hv-nftables --output=cat --lines=2 --no-pager"
    wait_for("a line in the journal", lambda: "in force again" in lab.run("hv3", journal), 5)
    assert re.match(
        r"nft \(process \d+\) removed what belongs to inet l3hv, arp l3hv", lab.run("hv3", journal)
    )


def test_rules_are_loaded_before_the_network_at_boot(lab: Lab) -> None:
    """Debian's own rules, which flush all tables, are loaded before them."""
    lab.run("hv3", "systemctl enable nftables")
    try:
        lab.twin("exec", "hv3", "--", "systemctl", "reboot")
        lab.wait_until_whole()
        shown = lab.run(
            "hv3",
            "for unit in nftables l3hv-nftables systemd-networkd; do"
            " systemctl show --property=ActiveEnterTimestampMonotonic --value $unit; done;"
            " journalctl --boot --unit=l3hv-nftables --output=cat --no-pager",
        )
    finally:
        lab.run("hv3", "systemctl disable nftables; systemctl stop nftables")
    first, second, third, *journal = shown.splitlines()
    assert int(first) < int(second) < int(third)
    assert "removed" not in " ".join(journal)


def test_rules_come_back_if_the_process_that_keeps_them_hangs(lab: Lab) -> None:
    """systemd's watchdog restarts the process, which loads the rules."""
    lab.run("hv3", "systemctl kill --signal=STOP l3hv-nftables; nft flush ruleset")
    wait_for("the rules", lambda: is_in_force(lab), 25)
    lab.run("hv3", "systemctl is-active l3hv-nftables")


def test_a_run_reverts_changes_of_the_rules_by_hand(lab: Lab) -> None:
    lab.run(
        "hv1",
        "nft delete element inet l3hv macs '{ \"vm2\" . 50:54:33:00:00:09 }';"
        "nft add element inet l3hv senders4 '{ \"vm2\" . 50:54:33:00:00:09 . 192.0.2.66 }';"
        "nft insert rule inet l3hv forwarded accept;"
        f"! {IN_FORCE}",
    )
    run = lab.playbook("site.yml", "--limit", "hv1")
    assert run.changed_hosts().keys() == {"hv1"}
    lab.run("hv1", IN_FORCE)
    assert lab.reached("vm2", ["203.0.113.254"])
    assert lab.playbook("site.yml", "--limit", "hv1").changed_hosts() == {}

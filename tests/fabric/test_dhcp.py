"""DHCP answers and router advertisements to guests, while daemons stop and start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from socket import inet_aton

import pytest
from dhcp_client import ACK, BROADCAST, DECLINE, DISCOVER, OFFER, REQUEST, REQUESTED, SERVER, Client, client
from lab import Flows, Lab, wait_for

from l3hv.twin.network import processes_in
from l3hv.twin.state import Twin

pytestmark = pytest.mark.fabric

ADDRESS, GATEWAY = "203.0.113.2", "203.0.113.254"
CHECKSUMS = "/usr/local/lib/l3hv/dhcp-checksums"
FIREWALL = f"""
table inet strict {{
  chain in {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    meta l4proto ipv6-icmp accept
    udp sport 67 ip saddr {GATEWAY} ct state established counter name renewals accept
    ct state established,related accept
  }}
  counter renewals {{ }}
}}
"""
"""The firewall of a guest that accepts only answers to its own requests."""

RENEW = {
    "udhcpc": None,  # the client of the twin renews on a signal
    "dhcpcd": ["dhcpcd", "-N", "eth0"],
    "networkd": ["networkctl", "renew", "eth0"],
}


@pytest.fixture
def vm2(lab: Lab) -> Iterator[Client]:
    with client(Twin(lab.name, print).guest_namespace("vm2")) as opened:
        yield opened


@pytest.fixture
def with_vm2(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.twin("unplug", "vm2")
    lab.twin("plug", "vm2")


@pytest.mark.parametrize("flags", [0, BROADCAST], ids=["unicast", "broadcast"])
def test_answers_have_their_checksums_on_the_packet_socket_of_the_guest(vm2: Client, flags: int) -> None:
    answer = vm2.ask(DISCOVER, flags=flags)
    assert answer is not None
    assert (answer.kind, answer.offered, answer.source) == (OFFER, ADDRESS, GATEWAY)
    assert (answer.is_ready, answer.has_good_checksum) == (True, True)


@pytest.mark.parametrize(
    "removal", ["nft flush ruleset", "iptables-nft -t mangle -F"], ids=["all tables", "its own table"]
)
def test_checksums_survive_a_flush_of_the_tables(lab: Lab, vm2: Client, removal: str) -> None:
    assert "ok" in lab.run("hv1", f"{CHECKSUMS} in-force && echo ok")
    lab.run("hv1", removal)
    wait_for("the rule", lambda: "ok" in lab.run("hv1", f"{CHECKSUMS} in-force 2>&1 && echo ok || :"), 5)
    wait_for(
        "the packet filter",
        lambda: (
            "ok"
            in lab.run(
                "hv1",
                "/usr/local/lib/l3hv/packet-filter in-force /etc/l3hv/nftables.conf && echo ok || :",
            )
        ),
        10,
    )
    answer = vm2.ask(DISCOVER)
    assert answer is not None
    assert answer.has_good_checksum


def test_a_port_that_appears_later_has_checksums_too(with_vm2: Lab) -> None:
    with_vm2.twin("unplug", "vm2")
    with_vm2.twin("plug", "vm2")
    with client(Twin(with_vm2.name, print).guest_namespace("vm2")) as opened:
        wait_for("good checksums", lambda: (found := opened.ask(DISCOVER)) and found.has_good_checksum, 10)


@pytest.mark.parametrize("name", RENEW)
def test_a_guest_with_a_strict_firewall_renews_at_its_gateway(with_vm2: Lab, name: str) -> None:
    lab = with_vm2
    command = RENEW[name]
    if command is not None:
        lab.twin("plug", "vm2", "--client", name, seconds=300)
        wait_for("a lease", lambda: lab.has_addresses("vm2"), 30)
    lab.run_as_guest("vm2", f"nft -f - <<'X'\n{FIREWALL}\nX")

    def renewals() -> int:
        if command is not None:
            lab.twin("guest", "vm2", "--", *command)
        else:
            for process in processes_in([Twin(lab.name, print).guest_namespace("vm2")]):
                os.kill(process, signal.SIGUSR1)
        shown = lab.run_as_guest("vm2", "nft list counter inet strict renewals")
        return int(shown.split("packets ")[1].split()[0])

    wait_for("an answer from the gateway", renewals, 10)


def test_a_declined_address_is_offered_again(with_vm2: Lab) -> None:
    with client(Twin(with_vm2.name, print).guest_namespace("vm2")) as opened:
        offer = opened.ask(DISCOVER)
        assert offer is not None
        assert offer.offered == ADDRESS
        wanted = ((REQUESTED, inet_aton(ADDRESS)), (SERVER, inet_aton(offer.server)))
        answer = opened.ask(REQUEST, *wanted)
        assert answer is not None
        assert answer.kind == ACK
        opened.send(DECLINE, *wanted)
        again = opened.ask(DISCOVER)
        assert again is not None
        assert (again.kind, again.offered) == (OFFER, ADDRESS)


@pytest.mark.parametrize(
    "events",
    [
        ["systemctl restart radvd"],
        ["systemctl stop radvd", "systemctl start radvd"],
        [
            "echo 'interface later { AdvSendAdvert on; IgnoreIfMissing on; };' >>/etc/radvd.conf; "
            "systemctl reload radvd"
        ],
    ],
    ids=["restart", "stop", "reload"],
)
def test_guests_lose_no_packet_when_radvd_stops_and_starts(lab: Lab, events: list[str]) -> None:
    before = lab.run("hv1", "cat /etc/radvd.conf")
    try:
        with lab.steady_traffic(Flows("vm1", "vm3", 6), Flows("vm2", "vm4", 6)) as traffic:
            for event in events:
                lab.run("hv1", event)
                # A final advertisement of radvd would have removed the route.
                assert "default" in lab.run_as_guest("vm1", "ip -6 route show default")
            wait_for(
                "radvd", lambda: lab.run("hv1", "systemctl is-active radvd || :").strip() == "active", 10
            )
    finally:
        lab.run(
            "hv1", f"cat >/etc/radvd.conf <<'X'\n{before}X\nsystemctl start radvd; systemctl reload radvd"
        )
    assert traffic.lost() == {}
    assert "default" in lab.run_as_guest("vm1", "ip -6 route show default")

"""Which pings are sent: everybody is reached, every boundary is tried, and the number stays linear."""

from __future__ import annotations

from fabrics import fabric, lab

from l3hv.model import HostPlan
from l3hv.topology import GuestPort
from l3hv.verify.announcements import announcements
from l3hv.verify.packets import planned_addresses, standing_twin
from l3hv.verify.reach import LiveGuest, Ping, pings


def live(plans: dict[str, HostPlan]) -> list[LiveGuest]:
    return [
        LiveGuest(
            name=guest.name,
            host=plan.host,
            domain=guest.domain,
            addresses=tuple(a for a in (guest.lease and guest.lease.address, "2001:db8::1") if a),
            besides=tuple(r.prefix.partition("/")[0] for r in guest.routes if r.kind == "anycast"),
            transparent=tuple(address for address, _ in guest.transparent),
        )
        for plan in plans.values()
        for guest in plan.guests
    ]


def all_pings(plans: dict[str, HostPlan], only: set[str] | None = None) -> list[Ping]:
    announced = {host: announcements(plan) for host, plan in plans.items()}
    chosen = [plan for host, plan in plans.items() if only is None or host in only]
    return pings(chosen, announced, live(plans))


def test_the_lab_is_tried_in_every_way() -> None:
    found = {ping.what for ping in all_pings(lab())}
    assert {
        "ping vm1 → vm2 ipv4",
        "ping vm4 → vm1 ipv6",
        "ping vm2 → internet ipv4",
        "ping vm2 → internet ipv6",
        "ping vm4 → 203.0.113.10 ipv4",
        "ping vm4 → 2001:db8:cb00:710a:: ipv6",
        "ping vm3 → 203.0.113.11 ipv4",
        "ping hv1 → vm2 ipv6",
        "ping hv3 → hv1 ipv4",
        "silence hv1 → internet ipv4",
        "silence vm1 → hv2's loopback ipv4",
    } <= found
    assert not any("vm1 → 203.0.113.10" in what for what in found), "vm1 would answer itself"


def test_their_names_are_unique_on_a_host() -> None:
    found = [(ping.host, ping.what) for ping in all_pings(lab())]
    assert len(set(found)) == len(found)


def test_every_guest_sends_and_is_reached_in_both_families() -> None:
    plans = fabric(5, 8)
    names = {guest.name for guest in live(plans)}
    found = all_pings(plans)
    for family in ("ipv4", "ipv6"):
        between = [ping for ping in found if ping.source in names and ping.what.endswith(family)]
        assert {ping.source for ping in between} == names
        assert names <= {ping.target for ping in between}


def test_their_number_is_linear() -> None:
    small, large = len(all_pings(fabric(5, 10))), len(all_pings(fabric(10, 20)))
    assert large < 5 * small


def test_a_limited_run_sends_from_its_own_hosts() -> None:
    assert {ping.host for ping in all_pings(lab(), {"hv2", "rr1"})} == {"hv2"}


def test_a_guest_of_another_domain_is_not_to_be_reached() -> None:
    plans = {host: plan for host, plan in lab().items() if plan.kind == "hypervisor"}
    guests = [
        LiveGuest("web", "hv1", "public", ("203.0.113.1",)),
        LiveGuest("db", "hv2", "private", ("10.0.0.1",)),
    ]
    announced = {host: announcements(plan) for host, plan in plans.items()}
    silent = {ping.what for ping in pings(plans.values(), announced, guests) if not ping.is_answered}
    assert {"silence web → db ipv4", "silence db → web ipv4", "silence web → hv2's loopback ipv4"} <= silent
    assert "silence db → hv1's loopback ipv4" not in silent


def test_the_addresses_that_a_guest_should_have() -> None:
    guest = GuestPort(
        "vm1", "hv1", "vm1", "50:54:33:00:00:07", "public", 1500, "203.0.113.1", "2001:db8:1::/64"
    )
    assert planned_addresses(guest) == {"ipv4": "203.0.113.1", "ipv6": "2001:db8:1:0:5254:33ff:fe00:7"}


def test_packets_are_sent_only_where_connections_lead_into_a_twin() -> None:
    assert standing_twin(None, "-F /etc/ssh/ssh_config -o ControlMaster=auto") is None
    assert standing_twin(None, "-F /run/l3hv/neverthere/ssh_config") is None
    assert standing_twin("neverthere", "") is None

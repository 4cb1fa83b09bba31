"""A management network whose IPv6 default route the kernel learns by router advertisements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab, wait_for

pytestmark = pytest.mark.fabric

HOST = "hv3"
LIFETIME = 12
ROUTER = f"""
ip netns add router
ip link add oob0 type veth peer name oob netns router
ip -n router link set oob up
ip netns exec router sysctl -qw net.ipv6.conf.all.forwarding=1
cat >/run/router.conf <<'X'
interface oob {{
  AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime {LIFETIME};
  prefix 2001:db8:eeee::/64 {{ }};
}};
X
sysctl -qw net.ipv6.conf.all.forwarding=0
sysctl -qw net.ipv6.conf.oob0.accept_ra=1
ip link set oob0 up
ip netns exec router radvd -C /run/router.conf -p /run/router.pid -m none
"""
CLEAN = """
if [ -e /run/router.pid ]; then kill $(cat /run/router.pid) || :; fi
ip link del oob0 2>/dev/null || :
ip netns del router 2>/dev/null || :
rm -f /run/router.conf /etc/sysctl.d/zz-l3hv-management.conf
sysctl -qw net.ipv6.conf.all.forwarding=1
"""


@pytest.fixture
def with_router(lab: Lab) -> Iterator[Lab]:
    """Yield the lab with a host that does not forward yet, and a management router that advertises itself."""
    lab.run(HOST, CLEAN)
    lab.run(HOST, ROUTER)
    try:
        yield lab
    finally:
        lab.run(HOST, CLEAN)


def test_a_learned_default_route_stays_when_the_host_begins_to_forward(with_router: Lab) -> None:
    lab = with_router

    def expires() -> int:
        """Return the remaining lifetime of the default route in seconds, or 0 if there is none."""
        routes = lab.read_json(HOST, "ip -6 -json route show default dev oob0")
        return max((route.get("expires", 0) for route in routes), default=0)

    wait_for("a default route by advertisement", expires, 15)
    lab.twin("play", "site.yml", "--limit", HOST, "--tags", "kernel", seconds=300)
    assert lab.run(HOST, "cat /proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"
    assert lab.run(HOST, "cat /proc/sys/net/ipv6/conf/oob0/accept_ra").strip() == "2"
    # A remaining lifetime that grows shows that the kernel still accepts advertisements after the run.
    last = expires()
    assert last > 0, "the run has removed the default route"

    def is_renewed() -> bool:
        nonlocal last
        before, last = last, expires()
        return last > before

    wait_for("a renewed lifetime", is_renewed, LIFETIME)
    assert "oob0.accept_ra = 2" in lab.run(HOST, "cat /etc/sysctl.d/zz-l3hv-management.conf")

"""The packet filter is loaded again and again while guests exchange packets, and none of these is lost."""

from __future__ import annotations

import pytest
from lab import Lab, both_families

pytestmark = pytest.mark.fabric

LOADS = 40
LOAD = "/usr/local/lib/l3hv/packet-filter load /etc/l3hv/nftables.conf"


def test_rules_are_loaded_without_losing_a_packet(lab: Lab) -> None:
    with lab.steady_traffic(*both_families("vm1", "vm3")) as traffic:
        lab.run("hv1", f"for n in $(seq {LOADS}); do {LOAD}; done")
    assert traffic.lost() == {}

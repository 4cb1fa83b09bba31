"""Loading the packet filter under traffic."""

from __future__ import annotations

import pytest
from lab import Lab, both_families

pytestmark = pytest.mark.fabric

LOADS = 150
FLOWS = both_families("vm1", "vm3")


def test_rules_that_are_loaded_again_and_again_lose_no_packet(lab: Lab) -> None:
    """A gap lasts microseconds if there is one: it takes many loads to see it."""
    load = "/usr/local/lib/l3hv/packet-filter load /etc/l3hv/nftables.conf"
    with lab.steady_traffic(*FLOWS) as traffic:
        lab.run("hv1", f"for n in $(seq {LOADS}); do {load} || exit 1; done")
    assert traffic.lost() == {}

"""A fabric of two paths, whose reflectors accept clients from a range.

Two hypervisors, hv1 with vm1 and hv2 with vm2, are on both.
"""

from __future__ import annotations

from lab import both_families, converged

CONVERGED = converged({"vm1": "hv1", "vm2": "hv2"}, ())
FLOWS = both_families("vm1", "vm2")

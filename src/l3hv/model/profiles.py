"""Failure profiles and session layouts, and the choice that both ends of a session support."""

from __future__ import annotations

from l3hv.model.choices import DaemonName, FailureProfile, SessionLayout
from l3hv.model.daemons import PER_FAMILY, REFLECTORS_ONLY, WITHOUT_BFD

FAILURE_PROFILES: tuple[FailureProfile, ...] = (
    "bfd_llgr",
    "bfd",
    "llgr",
    "graceful_restart",
    "link",
    "none",
)
"""The reactions to a dead path, neighbour or daemon, the most demanding first."""

SESSION_LAYOUTS: tuple[SessionLayout, ...] = ("per_family", "multiprotocol", "shared")
"""The families and domains that one session carries, the smallest selection first."""

BFD_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "bfd")
LLGR_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "llgr")
KEEPING_PROFILES: tuple[FailureProfile, ...] = (*LLGR_PROFILES, "graceful_restart")
"""Profiles with which neighbours keep the routes of a daemon that vanishes until it is back."""

PROFILE_WITHOUT_BFD: dict[FailureProfile, FailureProfile] = {"bfd_llgr": "llgr", "bfd": "none"}
"""The profile to use if one end has no BFD: with BFD at the other end alone, no session comes up."""


def profile_between(agreed: FailureProfile, ends: set[DaemonName]) -> FailureProfile:
    """Return the failure profile of a session: the ``agreed`` one, without BFD if one end has no BFD.

    >>> profile_between("bfd_llgr", {"bird2", "gobgp"})
    'llgr'
    """
    return agreed if WITHOUT_BFD.isdisjoint(ends) else PROFILE_WITHOUT_BFD.get(agreed, agreed)


def layout_between(agreed: SessionLayout, ends: set[DaemonName]) -> SessionLayout:
    """Return the layout of the sessions of two daemons: the ``agreed`` one, reduced to what both support.

    >>> layout_between("shared", {"bird2", "gobgp"}), layout_between("shared", {"bird1", "bird2"})
    ('multiprotocol', 'per_family')
    """
    if not PER_FAMILY.isdisjoint(ends):
        return "per_family"
    if not REFLECTORS_ONLY.isdisjoint(ends):
        return min(agreed, "multiprotocol", key=SESSION_LAYOUTS.index)
    return agreed

"""Failure profiles and session layouts: what each includes, and what two daemons agree on."""

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
"""What is done about a dead path, neighbour or daemon, the more demanding first."""

SESSION_LAYOUTS: tuple[SessionLayout, ...] = ("per_family", "multiprotocol", "shared")
"""What one session carries, the least first."""

BFD_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "bfd")
LLGR_PROFILES: tuple[FailureProfile, ...] = ("bfd_llgr", "llgr")
KEEPING_PROFILES: tuple[FailureProfile, ...] = (*LLGR_PROFILES, "graceful_restart")
"""Those with which the neighbours of a daemon that vanishes keep its routes until it is back."""

LESS_BFD: dict[FailureProfile, FailureProfile] = {"bfd_llgr": "llgr", "bfd": "none"}
"""What is left of a profile where one of the two ends has no BFD: with it at one end no session comes up."""


def profile_between(agreed: FailureProfile, ends: set[DaemonName]) -> FailureProfile:
    """Return what two daemons do about failures of what is ``agreed``.

    >>> profile_between("bfd_llgr", {"bird2", "gobgp"})
    'llgr'
    """
    return agreed if WITHOUT_BFD.isdisjoint(ends) else LESS_BFD.get(agreed, agreed)


def layout_between(agreed: SessionLayout, ends: set[DaemonName]) -> SessionLayout:
    """Return what the sessions between two daemons carry each where ``agreed`` is wanted.

    >>> layout_between("shared", {"bird2", "gobgp"}), layout_between("shared", {"bird1", "bird2"})
    ('multiprotocol', 'per_family')
    """
    if not PER_FAMILY.isdisjoint(ends):
        return "per_family"
    return (
        agreed
        if REFLECTORS_ONLY.isdisjoint(ends)
        else min(agreed, "multiprotocol", key=SESSION_LAYOUTS.index)
    )

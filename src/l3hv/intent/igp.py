"""The conditions of an IGP between hosts (``l3hv_underlay: igp``)."""

from __future__ import annotations

from l3hv.intent.shape import Notes
from l3hv.model.choices import FailureProfile
from l3hv.model.daemons import TITLES, WITH_IGP
from l3hv.model.intent import Common, HostIntent, Settings
from l3hv.model.profiles import BFD_PROFILES

L2 = "or remove l3hv_underlay."
"""The alternative in a remedy: the default, which has none of these conditions."""


def check_underlay(common: Common, igp: object, notes: Notes) -> None:
    """Note facts of a fabric with which an IGP cannot work; ``igp`` is the value of ``l3hv_igp``."""
    if common.encapsulation is not None and common.underlay != "l2":
        notes.add(
            "l3hv_encapsulation",
            "ipip",
            f"With l3hv_underlay: {common.underlay}, hosts reach each other without tunnels.",
            f"Remove l3hv_encapsulation, {L2}",
        )
    if not common.has_igp:
        if igp is not None:
            notes.add(
                "l3hv_igp",
                igp,
                f"No IGP runs between the hosts, because l3hv_underlay is {common.underlay}.",
                "Set l3hv_underlay: igp, or remove l3hv_igp.",
            )
        return
    if common.is_mesh:
        notes.add(
            "l3hv_reflection",
            common.reflection,
            "With l3hv_underlay: igp, hosts have sessions with reflectors only.",
            f"Set l3hv_reflection: reflectors, {L2}",
        )
    for domain in common.domains:
        for family in domain.families:
            if domain.loopback(family) is None:
                notes.add(
                    f"l3hv_domains.{domain.name}.loopbacks.{family}",
                    None,
                    f"is missing: with l3hv_underlay: igp, a loopback is the next hop of {domain.name}.",
                    f"Choose a prefix with an address for each host, {L2}",
                )


def check_host(host: HostIntent, common: Common, notes: Notes) -> None:
    """Note settings of a host that do not work with an IGP between hosts."""
    if not common.has_igp:
        return
    settings = host.settings
    _check_daemon(settings, notes)
    _check_profile(settings.failure_profile, notes)
    if not settings.managed:
        notes.add(
            "l3hv_managed",
            False,
            "With l3hv_underlay: igp, l3hv has to configure the IGP of each host.",
            f"Remove it, {L2}",
        )
    if settings.neighbors == "range":
        notes.add(
            "l3hv_neighbors",
            settings.neighbors,
            "With l3hv_underlay: igp, a reflector has to know the paths of its clients.",
            f"Use explicit, {L2}",
        )
    if host.uses_vrfs:
        notes.add(
            "l3hv_data_plane",
            "vrf",
            "With l3hv_underlay: igp, sessions run between addresses of lo, which is in no VRF.",
            f"Choose rules, {L2}",
        )
    for domain, choice in host.ecmp:
        if choice == "without_default" and domain in host.domains:
            notes.add(
                "l3hv_ecmp",
                choice,
                "With l3hv_underlay: igp, the default route leads to the loopback of an edge router, to which"
                " the IGP has several paths.",
                f"Choose all or none, {L2}",
            )
            break


def _check_daemon(settings: Settings, notes: Notes) -> None:
    if settings.daemon not in WITH_IGP:
        title = {"bird1": "BIRD 1.6", "bird3": "BIRD 3.1"}.get(settings.daemon, TITLES[settings.daemon])
        notes.add(
            "l3hv_daemon",
            settings.daemon,
            f"l3hv_underlay: igp works with BIRD 2, and not with {title}.",
            f"Choose {' or '.join(sorted(WITH_IGP))}, {L2}",
        )


def _check_profile(profile: FailureProfile, notes: Notes) -> None:
    if profile not in BFD_PROFILES:
        notes.add(
            "l3hv_failure_profile",
            profile,
            "With l3hv_underlay: igp, a dead path is detected by BFD between the neighbours of the IGP.",
            f"Choose {' or '.join(BFD_PROFILES)}, {L2}",
        )


def check_reflector(host: HostIntent, path: str | None, common: Common, notes: Notes) -> None:
    """Note a reflector that is not on all paths, or does not tell in which turn a run changes it.

    Each host has a session with each reflector, so they need an L2 network that both are on.
    """
    if host.kind != "route_reflector":
        return
    paths = list(dict.fromkeys(uplink.path for uplink in host.uplinks))
    places = {(uplink.path, uplink.domain) for uplink in host.uplinks}
    for network in common.networks:
        if network.domain in host.domains and (network.path, network.domain) not in places:
            notes.add(
                "l3hv_uplinks",
                network.path,
                f"With l3hv_underlay: igp, a reflector of {network.domain} is on each path.",
                f"Add path {network.path} with {network.domain}, {L2}",
            )
            places.add((network.path, network.domain))
    if path is None and len(paths) > 1:
        notes.add(
            "l3hv_path",
            None,
            "is missing: a reflector on several paths is changed together with the reflectors of one path.",
            f"Choose one of {', '.join(paths)}, and another one for another reflector.",
        )
    elif path is not None and paths and path not in paths:
        notes.add(
            "l3hv_path",
            path,
            f"The reflector has no uplink on path {path}.",
            f"Choose one of {', '.join(paths)}.",
        )

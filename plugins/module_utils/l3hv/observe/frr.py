"""FRR over vtysh, with a BGP view for each domain: sessions, BFD and the configuration in force."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.l3hv.observe.files import digests_of_file
from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import ANSWER_SECONDS, run_query

FRR_CONFIGURATION = "/etc/frr/frr.conf"
FRR_DIGEST_LINE = r"^! l3hv_config (\S+)$"
FRR_IN_FORCE = ["/usr/local/lib/l3hv/frr-sync", "in-force"]
FRR_FAMILIES = {"ipv4Unicast": "ipv4", "ipv6Unicast": "ipv6"}


class FrrError(Exception):
    """FRR did not answer."""


def ask_frr(*commands: str) -> list[Any]:
    """Return the JSON answers of FRR to commands; FRR answers with an empty object if there is nothing."""
    arguments = [word for command in commands for word in ("-c", command)]
    try:
        done = run_query(["vtysh", *arguments])
    except OSError as error:
        raise FrrError(f"vtysh: {error.strerror}") from None
    if done.returncode != 0:
        raise FrrError((done.stderr or done.stdout).strip() or f"vtysh ended with {done.returncode}")
    return json_values(done.stdout)


def json_values(text: str) -> list[Any]:
    """Return the JSON values that follow each other in a text.

    >>> json_values('{"a": 1}\\n[]\\n')
    [{'a': 1}, []]
    """
    decoder, values, position = json.JSONDecoder(), [], 0
    text = text.strip()
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        values.append(value)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return values


def frr_session(address: str, neighbor: dict[str, Any]) -> dict[str, Any]:
    """Return a session in the shape of :func:`read_routing`, from ``show bgp … neighbors json``.

    On an unnumbered link FRR names the neighbour by its own interface.
    """
    negotiated = neighbor.get("neighborCapabilities", {}).get("multiprotocolExtensions", {})
    families = neighbor.get("addressFamilyInfo", {})
    return {
        "state": neighbor.get("bgpState", "?"),
        "info": "",
        "error": neighbor.get("lastNotificationReason") or neighbor.get("lastResetDueTo", ""),
        "neighbor": neighbor.get("hostForeign", address) if ":" not in address else address,
        "local": neighbor.get("hostLocal", ""),
        "channels": {
            FRR_FAMILIES[name]: {
                "state": "UP" if negotiated.get(name, {}).get("advertisedAndReceived") else "DOWN",
                "routes": {
                    "imported": family.get("acceptedPrefixCounter", 0),
                    "exported": family.get("sentPrefixCounter", 0),
                },
            }
            for name, family in families.items()
            if name in FRR_FAMILIES
        },
    }


def frr_range(group: dict[str, Any]) -> dict[str, Any]:
    """Return a range in the shape of a session, from a group of ``show bgp … peer-group json``."""
    ranges = [prefix for family in group.get("dynamicRanges", {}).values() for prefix in family["ranges"]]
    return {
        "state": "Passive" if ranges else "Idle",
        "info": "",
        "error": "",
        "neighbor": ", ".join(ranges),
        "local": "",
        "channels": {},
    }


def frr_bfd(peer: dict[str, Any]) -> dict[str, str]:
    """Return a BFD session in the shape of :func:`read_routing`, from ``show bfd peers json`` (in ms)."""
    sends = max(peer.get("transmit-interval", 0), peer.get("remote-receive-interval", 0))
    expects = max(peer.get("receive-interval", 0), peer.get("remote-transmit-interval", 0))
    return {
        "address": peer["peer"],
        "state": peer["status"].capitalize(),
        "interval": f"{sends / 1000:.3f}",
        "timeout": f"{expects * peer.get('remote-detect-multiplier', 0) / 1000:.3f}",
    }


def read_frr(plan: Plan) -> dict[str, Any]:
    """Return the state of FRR, which has a BGP view for each domain, or ``{"error": …}``."""
    is_switch = plan["routing"]["cluster_id"] is None
    views = [""] if is_switch else sorted({table["domain"] for table in plan["routing"]["tables"]})
    views = [f"view {view} " if view else "" for view in views]
    try:
        bfd, *answers = ask_frr(
            "show bfd peers json",
            *(f"show bgp {view}neighbors json" for view in views),
            *(f"show bgp {view}peer-group json" for view in views if plan["routing"]["ranges"]),
        )
    except (FrrError, ValueError) as error:
        return {"error": str(error)}
    neighbors_by_view, groups = answers[: len(views)], answers[len(views) :]
    neighbors = {
        address: neighbor
        for view in neighbors_by_view
        for address, neighbor in view.items()
        if isinstance(neighbor, dict)
    }
    sessions = plan["routing"]["sessions"]
    names = {session["neighbor"]: session["name"] for session in sessions}
    names |= {session["interface"]: session["name"] for session in sessions}
    router_ids = {neighbor.get("localRouterId", "") for neighbor in neighbors.values()}
    return {
        "router_id": ", ".join(sorted(router_ids)),
        "configuration": frr_configuration(),
        "sessions": {
            **{name: frr_range(group) for view in groups for name, group in view.items()},
            **{
                names.get(address, address): frr_session(address, each) for address, each in neighbors.items()
            },
        },
        "bfd": [frr_bfd(peer) for peer in bfd],
    }


def frr_configuration() -> dict[str, str | None]:
    """Return the digests of FRR's file; ``running`` is that of the file if FRR finds no difference."""
    digests = digests_of_file(FRR_CONFIGURATION, FRR_DIGEST_LINE)
    try:
        done = run_query(FRR_IN_FORCE, seconds=6 * ANSWER_SECONDS)
    except OSError as error:
        return {"running": f"something else: {FRR_IN_FORCE[0]}: {error.strerror}", **digests}
    difference = " ".join(done.stderr.split()) or "something else"
    return {"running": digests["placed"] if done.returncode == 0 else difference, **digests}

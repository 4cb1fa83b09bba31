"""GoBGP, which runs once for each domain, over its own client: sessions, counts, running configuration."""

from __future__ import annotations

import collections
import json
import subprocess
from typing import Any

from ansible.module_utils.l3hv.observe.files import digests_of_file, read_text
from ansible.module_utils.l3hv.observe.plan import FAMILIES, Plan
from ansible.module_utils.l3hv.observe.programs import ANSWER_SECONDS, run_query

GOBGP_SYNC = "/usr/local/lib/l3hv/gobgp-sync"
GOBGP_CONFIGURATION = "/etc/l3hv/gobgp/{}.toml"
GOBGP_RANGES = "/run/l3hv-gobgp-{}/ranges.json"
GOBGP_API = "unix:///run/l3hv-gobgp-{}/api"
GOBGP_DIGEST_LINE = r'^# l3hv_config = "([^"]*)"$'
GOBGP_STATES = {1: "Idle", 2: "Connect", 3: "Active", 4: "OpenSent", 5: "OpenConfirm", 6: "Established"}
GOBGP_FAMILIES = {1: "ipv4", 2: "ipv6"}
# The capability of a family (RFC 4760) as GoBGP shows it: AFI and SAFI in protobuf, in base64.
GOBGP_MULTIPROTOCOL = {"ipv4": "CgQIARAB", "ipv6": "CgQIAhAB"}


class GobgpError(Exception):
    """The client of GoBGP failed."""


def ask_gobgp(domain: str, *words: str) -> Any:
    """Return the JSON answer of the GoBGP of a domain."""
    command = ["gobgp", "--target", GOBGP_API.format(domain), "--json", *words]
    try:
        return json.loads(run_query(command, check=True).stdout)
    except subprocess.CalledProcessError as error:
        raise GobgpError((error.stderr or error.stdout).strip() or str(error)) from error
    except (OSError, json.JSONDecodeError) as error:
        raise GobgpError(f"gobgp {' '.join(words)}: {error}") from error


def accepted_by_gobgp(domain: str) -> collections.Counter[tuple[str, str]]:
    """Return the number of routes from each neighbour in the table: (neighbour, family) → number.

    GoBGP's own counters include the routes that its policy refuses.
    """
    accepted: collections.Counter[tuple[str, str]] = collections.Counter()
    for family in FAMILIES:
        for paths in ask_gobgp(domain, "global", "rib", "-a", family).values():
            accepted.update((path["neighbor-ip"], family) for path in paths)
    return accepted


def gobgp_session(
    domain: str, neighbor: dict[str, Any], accepted: collections.Counter[tuple[str, str]]
) -> dict[str, Any]:
    """Return one session in the shape of :func:`read_routing`; answers of GoBGP omit zeros."""
    address = neighbor["state"]["neighbor_address"]
    state = GOBGP_STATES.get(neighbor["state"].get("session_state", 0), "Idle")
    if state == "Established":
        # GoBGP counts the routes that it sends only in the answer for one neighbour.
        neighbor = ask_gobgp(domain, "neighbor", address)
    ends_of_rib = int(neighbor.get("graceful_restart", {}).get("enabled", False))
    channels = {}
    for family in neighbor.get("afi_safis", ()):
        name = GOBGP_FAMILIES[family["config"]["family"]["afi"]]
        counts = family.get("state", {})
        imported = accepted[address, name]
        negotiated = any(
            capability.get("type_url", "").endswith("MultiProtocolCapability")
            and capability.get("value") == GOBGP_MULTIPROTOCOL[name]
            for capability in neighbor["state"].get("remote_cap", ())
        )
        channels[name] = {
            "state": "UP" if negotiated and state == "Established" else "DOWN",
            "routes": {
                "imported": imported,
                "filtered": counts.get("received", 0) - imported,
                # The end-of-RIB marker of graceful restart is counted as a route.
                "exported": counts.get("advertised", 0) - ends_of_rib,
            },
        }
    return {
        "state": state,
        "info": "",
        "error": "",
        "neighbor": address,
        "local": neighbor["transport"].get("local_address", ""),
        "channels": channels,
    }


def gobgp_ranges(domain: str) -> dict[str, Any]:
    """Return the ranges of dynamic neighbours as sessions; ``gobgp-sync`` records them at its start."""
    listening = {"state": "Passive", "info": "", "error": "", "neighbor": "", "local": "", "channels": {}}
    return dict.fromkeys(json.loads(read_text(GOBGP_RANGES.format(domain)) or "{}"), listening)


def read_gobgp(plan: Plan) -> dict[str, Any]:
    """Return the combined state of the GoBGP processes of all domains."""
    routing = plan["routing"]
    domains = list(dict.fromkeys(table["domain"] for table in routing["tables"]))
    names = {(session["domain"], session["neighbor"]): session["name"] for session in routing["sessions"]}
    identifiers, digests = set(), []
    sessions: dict[str, Any] = {}
    try:
        for domain in domains:
            identifiers.add(ask_gobgp(domain, "global").get("router_id"))
            digests.append(gobgp_digests(domain))
            accepted = accepted_by_gobgp(domain)
            sessions |= gobgp_ranges(domain)
            for neighbor in ask_gobgp(domain, "neighbor") or ():
                session = gobgp_session(domain, neighbor, accepted)
                address = session["neighbor"]
                # A dynamic neighbour stays in the list after its session has ended.
                if "peer_group" not in neighbor["conf"] or session["state"] == "Established":
                    sessions[names.get((domain, address), f"{domain} {address}")] = session
    except GobgpError as error:
        return {"error": str(error)}
    return {
        "router_id": " ".join(sorted(map(str, identifiers))),
        "configuration": {
            key: None if any(one[key] is None for one in digests) else " ".join(one[key] for one in digests)
            for key in ("running", "placed", "file")
        },
        "sessions": sessions,
        "bfd": [],
    }


def gobgp_digests(domain: str) -> dict[str, Any]:
    """Return the digests of a domain's configuration; ``running`` is that of the file if GoBGP runs it."""
    path = GOBGP_CONFIGURATION.format(domain)
    digests = digests_of_file(path, GOBGP_DIGEST_LINE)
    done = run_query([GOBGP_SYNC, "in-force", path], seconds=3 * ANSWER_SECONDS)
    running = digests["placed"] if done.returncode == 0 else f"something else ({done.stderr.strip()})"
    return {"running": running, **digests}

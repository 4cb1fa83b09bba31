"""The packet filter of l3hv: its tables in the kernel, and their differences from their file."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.l3hv.observe.nft import element_words, nft_objects
from ansible.module_utils.l3hv.observe.programs import Hangs, asked

PACKET_FILTER = "/usr/local/lib/l3hv/packet-filter"
PACKET_FILTER_RULES = "/etc/l3hv/nftables.conf"


def read_translations() -> dict[str, str]:
    """Return the addresses that are translated on their way to a guest, and the guest's own."""
    try:
        listing = nft_objects("list", "map", "inet", "l3hv", "transparent")
    except Hangs:  # as read_packet_filter reports
        return {}
    return dict(pair for kind, each in listing if kind == "map" for pair in each.get("elem", ()))


def read_packet_filter() -> dict[str, Any]:
    """Return the tables of the packet filter; none of them, with the reason, where nft does not answer."""
    try:
        return {**packet_filter_tables(), "unread": None}
    except Hangs as error:
        nothing: dict[str, Any] = {"differences": [], "sets": {}, "drops": {}, "strangers": {}}
        return {**nothing, "loaded": False, "unread": str(error)}


def packet_filter_tables() -> dict[str, Any]:
    """Return the tables of the packet filter as they are, and their differences from the placed file.

    ``drops`` are the packets that each counter counts, ``sets`` the elements of the static sets, by family
    and name, and ``strangers`` the MACs, by port, whose frames were dropped there within the last minute.
    """
    drops: dict[str, int] = {}
    sets: dict[str, list[str]] = {}
    strangers: dict[str, list[str]] = {}
    is_loaded = True
    for family in ("inet", "arp"):
        listing = nft_objects("list", "table", family, "l3hv")
        is_loaded = is_loaded and (bool(listing) or family != "inet")
        for kind, entry in listing:
            if kind == "counter":
                drops[entry["name"]] = entry["packets"]
            elif kind == "set":
                elements = [element_words(element) for element in entry.get("elem", ())]
                if entry["name"] == "strangers":
                    for element in elements:
                        port, _, mac = element.rpartition(" . ")
                        strangers.setdefault(port, []).append(mac)
                # nft 1.0.6 does not print the flag "dynamic": only dynamic sets have a time-out.
                elif not {"dynamic", "timeout"} & {*entry.get("flags", ())}:
                    sets[f"{family} {entry['name']}"] = elements
    return {
        "loaded": is_loaded,
        "differences": filter_differences() if is_loaded else [],
        "sets": sets,
        "drops": drops,
        "strangers": {port: sorted(set(macs)) for port, macs in strangers.items()},
    }


def filter_differences() -> list[str]:
    """Return the differences of the kernel's tables from their file, without the elements of sets."""
    try:
        done = asked([PACKET_FILTER, "in-force", "--without-set-elements", PACKET_FILTER_RULES])
    except OSError as error:
        return [f"{PACKET_FILTER}: {error.strerror}"]
    except Hangs as error:
        return [str(error)]
    return [*done.stdout.splitlines(), *done.stderr.splitlines()] if done.returncode else []

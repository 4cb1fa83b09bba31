"""The packet filter of l3hv: its tables in the kernel, and their differences from the placed file."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.l3hv.observe.nft import element_words, nft_objects
from ansible.module_utils.l3hv.observe.programs import NoAnswerInTime, run_query

PACKET_FILTER = "/usr/local/lib/l3hv/packet-filter"
PACKET_FILTER_RULES = "/etc/l3hv/nftables.conf"


def read_translations() -> dict[str, str]:
    """Return the addresses that the filter translates, each with the address of its guest."""
    try:
        listing = nft_objects("list", "map", "inet", "l3hv", "transparent")
    except NoAnswerInTime:  # read_packet_filter reports it
        return {}
    return dict(pair for kind, each in listing if kind == "map" for pair in each.get("elem", ()))


def read_packet_filter() -> dict[str, Any]:
    """Return the tables of the packet filter; if nft does not answer, empty tables and the reason."""
    try:
        return {**packet_filter_tables(), "unread": None}
    except NoAnswerInTime as error:
        nothing: dict[str, Any] = {"differences": [], "sets": {}, "drops": {}, "foreign_macs": {}}
        return {**nothing, "loaded": False, "unread": str(error)}


def packet_filter_tables() -> dict[str, Any]:
    """Return the content of the tables of the packet filter, and their differences from the placed file.

    ``drops`` are the values of the counters.  ``sets`` are the elements of the static sets, by family and
    name.  ``foreign_macs`` are, by port, the MACs whose frames the filter has dropped within the last minute.
    """
    drops: dict[str, int] = {}
    sets: dict[str, list[str]] = {}
    foreign_macs: dict[str, list[str]] = {}
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
                        foreign_macs.setdefault(port, []).append(mac)
                # nft 1.0.6 does not print the flag "dynamic", but only dynamic sets have a timeout.
                elif not {"dynamic", "timeout"} & {*entry.get("flags", ())}:
                    sets[f"{family} {entry['name']}"] = elements
    return {
        "loaded": is_loaded,
        "differences": filter_differences() if is_loaded else [],
        "sets": sets,
        "drops": drops,
        "foreign_macs": {port: sorted(set(macs)) for port, macs in foreign_macs.items()},
    }


def filter_differences() -> list[str]:
    """Return the differences of the kernel's tables from their file, without the elements of sets."""
    try:
        done = run_query([PACKET_FILTER, "in-force", "--without-set-elements", PACKET_FILTER_RULES])
    except OSError as error:
        return [f"{PACKET_FILTER}: {error.strerror}"]
    except NoAnswerInTime as error:
        return [str(error)]
    return [*done.stdout.splitlines(), *done.stderr.splitlines()] if done.returncode else []

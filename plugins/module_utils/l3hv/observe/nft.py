"""Objects that nft lists as JSON."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ansible.module_utils.l3hv.observe.programs import run_query


def nft_objects(*words: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the kind and the fields of each object that nft lists; none if nft fails or is missing.

    Raises NoAnswerInTime if nft does not answer.
    """
    try:
        listing = run_query(["nft", "--json", *words], check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [item for entry in json.loads(listing)["nftables"] for item in entry.items()]


def inner_element(element: Any) -> Any:
    """Return an element of a set without its comment or counter."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def element_words(element: Any) -> str:
    """Return an element of a set in nft's syntax.

    >>> element_words({"concat": ["vm1", {"prefix": {"addr": "203.0.113.0", "len": 25}}]})
    'vm1 . 203.0.113.0/25'
    """
    if not isinstance(element, dict):
        return str(element)
    if "elem" in element:  # with its timeout
        return element_words(element["elem"]["val"])
    if "concat" in element:
        return " . ".join(map(element_words, element["concat"]))
    if "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    return "-".join(map(str, element["range"]))

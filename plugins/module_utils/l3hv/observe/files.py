"""Small files of a host: settings of the kernel, and configurations that contain their own digest."""

from __future__ import annotations

import contextlib
import hashlib
import re


def read_text(path: str) -> str | None:
    """Return the words of a small file, or None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def read_lines(path: str) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def digests_of_file(path: str, line: str) -> dict[str, str | None]:
    """Return the digest that a configuration contains (``placed``), and that of its present text (``file``).

    ``line`` is the pattern of the line with the digest.  The digest is computed with ``@digest@`` in its
    place.
    """
    placed = file = None
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as text:
        configuration = text.read()
        if found := re.search(line, configuration, re.MULTILINE):
            placed = found[1]
            configuration = configuration.replace(placed, "@digest@")
        file = hashlib.sha256(configuration.encode()).hexdigest()[: len(placed or "")]
    return {"placed": placed, "file": file}

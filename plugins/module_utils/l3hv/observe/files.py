"""Small files of a host: settings of the kernel, and configurations that carry their own digest."""

from __future__ import annotations

import contextlib
import hashlib
import re


def read_text(path: str) -> str | None:
    """Return the words of a small file, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def read_lines(path: str) -> list[str]:
    """Return the lines of a file, or none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def digests_of_file(path: str, line: str) -> dict[str, str | None]:
    """Return the digest that a configuration carries (``placed``), and the one that it has (``file``).

    ``line`` is the pattern of the line that carries it: that of the text with ``@digest@`` instead.
    """
    placed = file = None
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as text:
        configuration = text.read()
        if found := re.search(line, configuration, re.MULTILINE):
            placed = found[1]
            configuration = configuration.replace(placed, "@digest@")
        file = hashlib.sha256(configuration.encode()).hexdigest()[: len(placed or "")]
    return {"placed": placed, "file": file}

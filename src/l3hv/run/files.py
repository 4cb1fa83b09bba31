"""Files on the controller that other runs may read or write at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, is_durable: bool = False) -> None:
    """Replace ``path`` with ``value`` as JSON: a reader sees the whole old or the whole new content.

    Each writer has a temporary file of its own.  With ``is_durable`` the content survives a power cut.
    Without it the file may be empty afterwards, and its readers must accept that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as text:
            # json.dump would encode in Python, several times slower than the C encoder of json.dumps.
            text.write(json.dumps(value, separators=(",", ":")))
            if is_durable:
                text.flush()
                os.fsync(text.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise

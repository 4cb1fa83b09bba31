"""Memory of a process that works on a whole fabric."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Turn off the cyclic garbage collector: each collection scans the millions of objects of a large fabric.

    A run for one host of 1,000 with 100 guests each takes 2.6 s with the collector and 1.2 s without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

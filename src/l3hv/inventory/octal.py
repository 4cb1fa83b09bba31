"""Numbers with leading zeros, which YAML 1.1 silently reads as octal."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l3hv.intent.shape import on_one_line, shown
from l3hv.model.errors import Problem

_LEADING_ZERO = re.compile(r"0[0-7]+(?![0-9A-Za-z_.:])")


def has_octal(value: Any) -> bool:
    if isinstance(value, str) or value is None:
        return False
    if isinstance(value, Mapping):
        return any(map(has_octal, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(has_octal, value))
    return isinstance(value, int) and not isinstance(value, bool) and _octal_of(value) is not None


def octals(host: str, field: str, value: Any) -> Iterator[Problem]:
    """Yield a problem for each number with leading zeros: YAML 1.1 silently reads it as octal."""
    if isinstance(value, Mapping):
        for key in value:
            yield from octals(host, f"{field}.{shown(key)}", value[key])
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from octals(host, f"{field}[{index}]", item)
    elif has_octal(value):
        written = _octal_of(value) or ""
        message = f"YAML reads {written} as an octal number, which is {int(value)}."
        remedy = f"Write it without leading zeros: {written.lstrip('0')}, or {int(value)}."
        yield Problem(host, on_one_line(field), written, message, remedy)


def _octal_of(value: int) -> str | None:
    """Return the text of a number in its file, if it has leading zeros and another decimal value."""
    place = _place_of(value)
    if place is None:
        return None
    path, number, column = place
    lines = _lines(path)
    line = lines[number - 1] if number <= len(lines) else ""
    written = _LEADING_ZERO.match(line, column - 1)
    return written[0] if written and int(written[0]) != int(value) else None


def _place_of(value: int) -> tuple[str, int, int] | None:
    """Return the file, line and column that Ansible has read a value from, if it knows them.

    Ansible has no public interface for them.  If its internal interface has changed, leading zeros are not
    checked, and a warning is printed.
    """
    tag = _origin_tag()
    try:
        origin = tag.get_tag(value) if tag else None
        if origin is None or origin.path is None or origin.line_num is None or origin.col_num is None:
            return None
        return str(origin.path), int(origin.line_num), int(origin.col_num)
    except (AttributeError, TypeError, ValueError):
        _warn_of_octals()
        return None


@functools.cache
def _origin_tag() -> Any:
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        _warn_of_octals()
        return None
    return Origin


@functools.cache
def _warn_of_octals() -> None:
    from ansible.utils.display import Display

    Display().warning(
        "This ansible-core does not show the file and line of a value. Numbers with leading zeros, which YAML"
        " reads as octal, are not refused in this run."
    )


@functools.lru_cache(maxsize=4)
def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

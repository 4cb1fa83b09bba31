"""Copies of the files of an inventory, which a test changes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


def copy_of(inventory: Path, directory: Path) -> Path:
    """Copy an inventory into a directory, and return the copy."""
    return Path(shutil.copytree(inventory, directory / inventory.name))


def replace(file: Path, old: str, new: str, count: int = -1) -> None:
    """Replace a text that the file has."""
    text = file.read_text()
    assert old in text, f"{file}: {old!r} is missing"
    file.write_text(text.replace(old, new, count))


def set_variable(file: Path, variable: str, value: str) -> None:
    """Set a variable in a file of variables."""
    text = re.sub(rf"^{variable}: .*\n", "", file.read_text(), flags=re.MULTILINE)
    file.write_text(f"{text}{variable}: {value}\n")

"""Files, units, commands and headings that the documentation names exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from l3hv.twin import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])

TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {"build"}
WRITTEN = "\n".join(
    path.read_text(encoding="utf-8", errors="replace")
    for folder in ("roles", "src", "plugins", "playbooks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".md", ".pyc")
)
"""The text of everything that places files on machines or runs there."""

PLACEHOLDER = re.compile(r"[A-Z]{3,}|<|…|\.\.\.|\*\*|yours|HOST|FILE")
CODE = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
UNIT = re.compile(r"\bl3hv-[a-z0-9-]+\.(?:service|timer|socket)\b")
PLACED = re.compile(r"/(?:usr/local/lib/l3hv|etc/l3hv)/[A-Za-z0-9._/-]+")
VARIANTS = re.compile(r"^(.*)\{([^{}]*,[^{}]*)\}(.*)$")


def variants(text: str) -> Iterator[str]:
    """Yield the results of the shell's brace expansion.

    >>> list(variants("a/{b,c}.py"))
    ['a/b.py', 'a/c.py']
    """
    match = VARIANTS.match(text)
    if match is None:
        yield text
        return
    for each in match[2].split(","):
        yield from variants(match[1] + each + match[3])


def named(document: Path) -> list[str]:
    """Return the texts between backticks in a document."""
    return CODE.findall(BLOCK.sub("", document.read_text(encoding="utf-8")))


def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a document: in a block or between backticks."""
    text = document.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    for line in [*lines, *named(document)]:
        for part in re.split(r"\s#\s|;|&&", re.sub(r"^[#$] ", "", line.strip())):
            try:
                yield shlex.split(part)
            except ValueError:
                yield part.split()


def anchor(heading: str) -> str:
    """Return the anchor of a heading in links.

    >>> anchor("BIRD 3.1 is asked to look at the kernel's tables")
    'bird-31-is-asked-to-look-at-the-kernels-tables'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(document: Path) -> set[str]:
    text = BLOCK.sub("", document.read_text(encoding="utf-8"))
    return {anchor(found) for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_of_the_repository_exist(document: Path) -> None:
    missing = []
    for text in named(document):
        first = text.split()[0].rstrip(":,") if text.split() else ""
        if "/" not in first or first.split("/")[0] not in TOP or PLACEHOLDER.search(first):
            continue
        missing += [path for path in variants(first) if not [*ROOT.glob(path.rstrip("/"))]]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_link_targets_exist(document: Path) -> None:
    broken = []
    for link in LINK.findall(BLOCK.sub("", document.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_units_and_files_of_machines_are_placed_by_a_role(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    units = {unit for unit in UNIT.findall(text) if "l3hv-gobgp-" not in unit}
    placed = {path.rstrip("./") for path in PLACED.findall(text) if not PLACEHOLDER.search(path)}
    assert {
        each for each in units | placed if each not in WRITTEN and not is_in_a_named_folder(each)
    } == set()


def is_in_a_named_folder(path: str) -> bool:
    """Return whether a role has the folder of a file in a variable of its own."""
    folder = re.escape(path.rpartition("/")[0])
    return re.search(rf": {folder}$", WRITTEN, re.MULTILINE) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    verbs = cli.verbs()
    missing = []
    for words in commands(document):
        match words:
            case ["make", *given]:
                missing += [
                    f"make {each}" for each in given if re.fullmatch(r"[a-z-]+", each) and each not in targets
                ]
            case ["./twin", verb, *_] if re.fullmatch(r"[a-z]+", verb) and verb not in verbs:
                missing.append(f"./twin {verb}")
            case ["ansible-playbook" | "play", *given]:
                playbooks = [each for each in given if each.endswith(".yml") and "/" not in each.lstrip("/")]
                playbooks += [each for each in given if each.startswith("playbooks/")]
                missing += [each for each in playbooks if not (ROOT / each).exists()]
    assert missing == []

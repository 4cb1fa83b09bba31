"""The README shows the intent and the files of the lab."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RENDERED = REPOSITORY / "tests" / "golden" / "lab" / "expected" / "hv3"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_intent_is_that_of_the_lab() -> None:
    shown = re.findall(r"^`([^`]+)`, whole:\n\n```yaml\n(.*?)```$", README, re.DOTALL | re.MULTILINE)
    assert [path for path, _ in shown] == ["inventories/lab/host_vars/hv3.yml"]
    for path, text in shown:
        assert (REPOSITORY / path).read_text(encoding="utf-8").removeprefix("---\n").endswith(text)


def test_the_configuration_follows_from_the_intent() -> None:
    shown = re.findall(r"in `/([^`]+)`:\n\n```text\n(.*?)```$", README, re.DOTALL | re.MULTILINE)
    assert len(shown) == 5
    for path, text in shown:
        rendered = (RENDERED / path).read_text(encoding="utf-8")
        for part in text.split("\n\n"):
            assert part.strip("\n") in rendered, f"{path} has no\n{part}"

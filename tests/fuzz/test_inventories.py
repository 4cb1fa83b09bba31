"""A fuzz test of inventories: each one is refused with host and field, or all daemons accept its files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden_cases import cases, intent_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutations, sound_inventory, written
from parsers import Files, refusals
from rendered import files_of_plan
from test_rendered_files import image_of

from l3hv.inventory.ansible import open_inventory
from l3hv.inventory.read import read_fabric
from l3hv.model.errors import FABRIC, IntentError
from l3hv.render.summary import plan_summary

EXAMPLES = int(os.environ.get("L3HV_FUZZ_EXAMPLES", "0"))
"""The number of random inventories per golden case; without it, each run tests the same 75."""


class Accepted:
    """The rendered files of the accepted inventories of one case."""

    def __init__(self) -> None:
        self.files: dict[Path, Files] = {}
        """The files by the image that has the host's daemons."""
        self.inventories: list[str] = []
        self.refused = 0
        self._plans: set[str] = set()

    def add(self, inventory: str, plans: list[dict[str, Any]]) -> None:
        self.inventories.append(inventory)
        for plan in plans:
            text = json.dumps(plan, sort_keys=True)
            if text not in self._plans:  # most hosts do not depend on the change
                self._plans.add(text)
                files = self.files.setdefault(image_of(plan), Files())
                files.add(files_of_plan(plan), len(self.inventories) - 1)


def attempt(inventory: dict[str, Any], accepted: Accepted) -> None:
    """Read an inventory as a playbook does; if it is accepted, plan and render all its hosts."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        source = Path(directory) / "hosts.yml"
        text = yaml.dump(written(inventory), allow_unicode=True, sort_keys=False)
        source.write_text(text, encoding="utf-8")
        try:
            opened = open_inventory(source)
            run = read_fabric(opened, opened.kinds()[0], Path(directory) / "fabric")
        except IntentError as error:
            accepted.refused += 1
            explain(error, inventory)
            return
        plans = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.plans.iterdir())]
    assert all(map(plan_summary, plans))
    accepted.add(text, plans)


def explain(error: IntentError, inventory: dict[str, Any]) -> None:
    """Assert that each problem has its place, the mistake and the remedy on one line."""
    assert error.problems
    for problem in error.problems:
        assert problem.host in {FABRIC, "inventory", *map(str, inventory["hosts"])}
        assert problem.field
        assert str(problem).isprintable()
        assert problem.message.endswith(".")
        assert problem.remedy.endswith((".", "?"))


@pytest.mark.parametrize("case", cases())
def test_inventories_are_refused_by_host_and_field_or_accepted_by_every_daemon(
    case: str, tmp_path: Path
) -> None:
    sound = sound_inventory(intent_directory(case))
    accepted = Accepted()

    @settings(
        max_examples=EXAMPLES or 75,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        attempt(data.draw(mutations(sound)), accepted)

    attempt(sound, accepted)
    assert accepted.inventories, "the sound inventory is refused"
    fuzz()
    print(f"{case}: {accepted.refused} refused, {len(accepted.inventories)} accepted")
    refused: dict[str, int] = {}
    for image, files in accepted.files.items():
        print(f"{image.name}: {files}")
        refused |= {words: origin for origin, words in reversed(refusals(files, image, tmp_path))}
    first = next(iter(refused.values()), 0)
    assert not refused, "\n".join(
        [*refused, "The inventory of the last refusal:", accepted.inventories[first]]
    )

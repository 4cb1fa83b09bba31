"""Accounts on hosts with an unusual environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab
from machines import MACHINES

pytestmark = [pytest.mark.fabric, pytest.mark.matrix]

SHELL = "/usr/local/lib/shell-without-sbin"


@pytest.fixture
def without_sbin(standing: Lab) -> Iterator[Lab]:
    """Yield the lab with a shell whose PATH lacks sbin, which is common for accounts with sudo."""
    script = '#!/bin/sh\\nPATH=/usr/bin:/bin exec /bin/sh "$@"\\n'
    standing.on_each(
        MACHINES, lambda machine: standing.run(machine, f"printf '{script}' > {SHELL}; chmod 755 {SHELL}")
    )
    yield standing
    standing.on_each(MACHINES, lambda machine: standing.run(machine, f"rm {SHELL}"))


def test_programs_are_found_where_path_lacks_sbin(without_sbin: Lab) -> None:
    without_sbin.run("hv1", f"! {SHELL} -c 'command -v nft'")
    without_sbin.run("hv1", "rm /etc/l3hv/tables.conf")  # The run has to place and activate it.
    for playbook in ("site.yml", "playbooks/verify.yml", "playbooks/rotate_keys.yml"):
        without_sbin.playbook(playbook, "-e", f"ansible_shell_executable={SHELL}")

"""The program that compares the kernel's settings with a sysctl.d file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rendered import ROOT

PROGRAM = ROOT / "roles/kernel/files/sysctl-sync"
SETTING = Path("/proc/sys/net/ipv4/ip_default_ttl")


def compared(path: Path, text: str) -> tuple[int, str]:
    """Return the exit status and the output of the comparison of ``text`` with the kernel."""
    path.write_text(text)
    command: list[str | Path] = [sys.executable, PROGRAM, "in-force", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_only_differences_are_printed(tmp_path: Path) -> None:
    now = SETTING.read_text().strip()
    lines = f"# a comment\n-net.ipv4.ip_default_ttl = {now}\nnet.ipv4.conf.none/0.forwarding = 1\n"
    assert compared(tmp_path / "settings", lines) == (0, "")
    other = compared(tmp_path / "settings", f"{lines}net/ipv4/ip_default_ttl = 1\n")
    assert other == (1, f"net/ipv4/ip_default_ttl is {now} instead of 1\n")

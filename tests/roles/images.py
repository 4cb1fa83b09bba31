"""Daemons in the images of the twin, run in temporary namespaces and a temporary file system."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Mounts an overlay of the image $1 at /mnt/root.
OVERLAY = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc
mount -t tmpfs none /mnt/root/run
# A host without the package netbase has neither file.
rm -f /mnt/root/etc/protocols /mnt/root/etc/services
mkdir /mnt/root/run/bird
ip link set lo up
"""


def loaded(program: Path) -> ModuleType:
    """Return a Python program of a role, whose file has no suffix, as a module."""
    name = program.name.replace("-", "_")
    loader = importlib.machinery.SourceFileLoader(name, str(program))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def in_an_image(
    system: str, daemon: str, script: str, *arguments: str | Path, serves_dhcp: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script with an overlay of a daemon's image at /mnt/root; its arguments begin with ``$2``."""
    if os.geteuid() != 0:
        pytest.skip("only root can enter a machine's file system")
    command = [str(ROOT / "twin"), "image", "--system", system, "--daemon", daemon]
    command += ["--dhcp-server"] if serves_dhcp else []
    image = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1]
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    inside = ["bash", "-c", OVERLAY + script, "bash", image, *arguments]
    return subprocess.run([*alone, *inside], capture_output=True, text=True, check=False, timeout=300)

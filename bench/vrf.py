"""Measures forwarding by a hypervisor with VRFs, relative to one with policy rules: required is 0.95.

Both are hv1 of ``inventories/lab`` and of ``inventories/vrf`` (hypervisor.py), with all files that site.yml places.
They alternate in pairs, and a ratio is the median of the rounds.  If the kernel of this host has no VRFs, both run in
one machine that QEMU emulates, with Debian's own kernel.  There the clock follows the number of executed
instructions (``-icount``): a ratio compares instructions per packet, and other load on this host does not affect it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypervisor import spread  # beside this file
from placed_files import ROOT, plan_of, write_files  # beside this file

from l3hv.twin import emulator, image

INVENTORIES = {"rules": "lab", "vrf": "vrf"}
BAR = 0.95
IMAGE = "debian13"
RUN = """\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/bench PYTHONDONTWRITEBYTECODE=1
cd /bench
ip link set lo up
{command}
/usr/lib/twin/busybox poweroff -f
"""


def on_this_host(directory: Path, options: list[str]) -> Iterator[str]:
    """Run the rounds on this host, and yield the lines that they print."""
    command = [sys.executable, str(ROOT / "bench" / "vrf_rounds.py"), str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode != 0:
        sys.exit(f"bench/vrf_rounds.py has failed ({process.returncode})")


def emulated(directory: Path, options: list[str], instructions: bool) -> Iterator[str]:
    """Run the rounds in an emulated machine, and yield the lines of its console."""
    root = image.ensure_image(image.recipe(IMAGE), print)
    kernel = emulator.ensure_kernel(image.SUITES[IMAGE], print)
    disk = emulator.ensure_disk(root, kernel, print)
    files, initramfs = directory / "files", directory / "initramfs"
    shutil.copytree(directory, files / "bench")
    for name in ("hypervisor.py", "vrf_rounds.py"):
        shutil.copy(ROOT / "bench" / name, files / "bench" / name)
    shutil.copy(ROOT / "bench" / "vrf_init.sh", files / "init")
    (files / "init").chmod(0o755)
    command = shlex.join(["python3", "vrf_rounds.py", "/bench", *options])
    (files / "bench" / "run").write_text(RUN.format(command=command), encoding="utf-8")
    with initramfs.open("wb") as out:
        out.write(kernel.initramfs.read_bytes())
        out.flush()
        emulator.archive(files, out)  # replaces the init of the twin's machines
    drive = f"if=none,id=disk0,format=raw,readonly=on,file={disk}"
    machine = [
        *(word for word in emulator.QEMU if word != "-S"),
        *("-kernel", str(kernel.vmlinuz), "-initrd", str(initramfs), "-serial", "stdio"),
        *("-drive", drive, "-device", "virtio-blk-pci,drive=disk0"),
        *(("-icount", "shift=0,sleep=off") if instructions else ()),
    ]
    with subprocess.Popen(machine, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        finally:
            process.kill()


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--burst", type=int, default=60, help="packets that the sender hands over at once")
    parser.add_argument("--wall-clock", action="store_true", help="emulate with the clock of this host")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for data_plane, inventory in INVENTORIES.items():
            write_files(plan_of(inventory, "hv1"), directory / data_plane)
        words = [f"--{key}={value}" for key, value in vars(options).items() if key != "wall_clock"]
        words += ["--filters", "nftables", "none"]
        if emulator.lacks("vrf"):
            lines = emulated(directory, words, not options.wall_clock)
        else:
            lines = on_this_host(directory, words)
        for line in lines:
            print(line, end="", flush=True)


if __name__ == "__main__":
    main()

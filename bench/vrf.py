"""Measures forwarding by a hypervisor with VRFs, relative to one with policy rules: 0.95 is required.

Both are hv1, of ``inventories/lab`` and of ``inventories/vrf``, with all files that site.yml places
(hypervisor.py).  They alternate in pairs.  A ratio is the median of the rounds in both directions.
Without a packet filter, a difference is that of the rules and routes alone.

If the kernel of this host has no VRFs, both run in one machine that QEMU emulates, with Debian's own kernel.
The clock of this machine follows the executed instructions (``-icount``).  A ratio then compares instructions
per packet, and other load on this host does not affect it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hypervisor import FAMILIES, exit_on_signals, spread  # beside this file
from placed_files import INVENTORIES, ROOT, plan_of, write_files  # beside this file

from l3hv.twin import emulator, image

PLACED, NONE = "nftables", "none"
DESCRIPTIONS = {PLACED: "as placed", NONE: "none"}
DATA_PLANES = {"rules": "lab", "vrf": "vrf"}
"""The names of the hypervisors in ``vrf_rounds.py``, and their inventories."""
REQUIRED_RATIO = 0.95
IMAGE = "debian13"
CASES = len(DESCRIPTIONS) * len(FAMILIES) * 2
"""The number of measurements in a round: there are two directions."""
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
        try:
            yield from process.stdout
        finally:
            process.terminate()


def emulated(directory: Path, options: list[str], *extra: str) -> Iterator[str]:
    """Run the rounds in an emulated machine, and yield the lines of its console; ``extra`` is for QEMU."""
    root = image.ensure_image(image.recipe(IMAGE), say)
    kernel = emulator.ensure_kernel(image.SUITES[IMAGE], say)
    disk = emulator.ensure_disk(root, kernel, say)
    files, initramfs = directory / "files", directory / "initramfs"
    for name in DATA_PLANES:
        shutil.copytree(directory / name, files / "bench" / name)
    for name in ("hypervisor.py", "vrf_rounds.py"):
        shutil.copy(ROOT / "bench" / name, files / "bench" / name)
    shutil.copy(ROOT / "bench" / "vrf_init.sh", files / "init")
    (files / "init").chmod(0o755)
    command = shlex.join(["python3", "vrf_rounds.py", "/bench", *options])
    (files / "bench" / "run").write_text(RUN.format(command=command), encoding="utf-8")
    with initramfs.open("wb") as out:
        out.write(kernel.initramfs.read_bytes())
        out.flush()
        emulator.archive(files, out)  # its init replaces the init of the twin's machines
    machine = [
        *(*emulator.QEMU, *emulator.EMULATION, "-machine", "pc", "-m", str(emulator.MEMORY_MIB)),
        *("-append", emulator.KERNEL_ARGUMENTS, "-kernel", str(kernel.linux), "-initrd", str(initramfs)),
        *("-serial", "stdio"),
        *("-drive", f"if=none,id=disk0,format=raw,readonly=on,file={disk}"),
        *("-device", "virtio-blk-pci,drive=disk0", *extra),
    ]
    with subprocess.Popen(
        machine, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        finally:
            process.kill()


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def measurements(lines: Iterable[str], rounds: int) -> list[dict[str, Any]]:
    """Return the measurements among the lines, and report progress; end the program if some are missing."""
    found: list[dict[str, Any]] = []
    others: list[str] = []
    for line in lines:
        if line.startswith("{"):
            found.append(json.loads(line))
            say(f"{len(found)} of {rounds * CASES} measurements")
        else:
            others.append(line)
    if len(found) < rounds * CASES:
        sys.exit("the rounds have failed:\n" + "".join(others[-30:]))
    return found


def main() -> None:
    """Print the rates and ratios; exit with 1 if a family's ratio is below the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="the time of each measurement")
    parser.add_argument("--burst", type=int, default=60, help="packets that the sender passes on at once")
    parser.add_argument("--wall-clock", action="store_true", help="emulate with the clock of this host")
    options = parser.parse_args()
    exit_on_signals()
    words = [f"--{key}={getattr(options, key)}" for key in ("rounds", "seconds", "burst")]
    words += ["--filters", *DESCRIPTIONS]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for data_plane, inventory in DATA_PLANES.items():
            write_files(plan_of(INVENTORIES / inventory, "hv1"), directory / data_plane)
        clock = () if options.wall_clock else ("-icount", "shift=0,sleep=off")
        is_emulated = emulator.lacks("vrf")
        lines = emulated(directory, words, *clock) if is_emulated else on_this_host(directory, words)
        found = measurements(lines, options.rounds)
    print(f"Measured {'in an emulated machine' if is_emulated else 'on the kernel of this host'}.\n")
    print("| Packet filter | Family | Rules, packets/s | VRFs, packets/s | Ratio (quartiles) |")
    print("|---|---|---|---|---|")
    missed = []
    for packet_filter, description in DESCRIPTIONS.items():
        for family in FAMILIES:
            rates = [
                {name: statistics.mean(values) for name, values in one["rates"].items()}
                for one in found
                if (one["filter"], one["family"]) == (packet_filter, family)
            ]
            ratios = [one["vrf"] / one["rules"] for one in rates]
            middle = [f"{statistics.median(one[name] for one in rates):,.0f}" for name in DATA_PLANES]
            print(f"| {description} | {family} | {' | '.join(middle)} | {spread(ratios)} |")
            if packet_filter == PLACED and statistics.median(ratios) < REQUIRED_RATIO:
                missed.append(family)
    if missed:
        sys.exit(f"\nVRFs miss the required ratio of {REQUIRED_RATIO} in {' and '.join(missed)}.")


if __name__ == "__main__":
    main()

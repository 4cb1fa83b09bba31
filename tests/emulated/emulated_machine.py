"""A machine with Debian's own kernel, emulated by QEMU, for features that the kernel of the host may lack.

QEMU does not use KVM, which does not always work (nested virtualisation); the emulation boots within 15 s.
"""

from __future__ import annotations

import json
import lzma
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from l3hv.twin import image, vm

T = TypeVar("T")

CACHE = image.CACHE / "emulated"
MEMORY_MIB = 768
# Modules that the tests need, with their dependencies.
MODULES = (
    "drivers/net/net_failover.ko*",
    "drivers/net/virtio_net.ko*",
    "drivers/virtio/*.ko*",
    "net/802/*.ko*",
    "net/8021q/*.ko*",
    "net/core/failover.ko*",
    "net/llc/*.ko*",
)
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt")

# The first process. /sys is read-only because networkd waits for udev otherwise, which the image lacks.
INIT = """\
#!/usr/sbin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs -o ro sysfs /sys
modprobe -q virtio_pci
modprobe -q virtio_net
while read -r mac name; do
    for link in /sys/class/net/*; do
        [ "$(busybox cat "$link/address")" != "$mac" ] || busybox ip link set "${link##*/}" name "$name"
    done
done </nics
exec /usr/lib/systemd/systemd
"""


class Wire:
    """The far end of a machine's NIC, which keeps the frames of the machine and sends frames to it."""

    def __init__(self, directory: Path, name: str) -> None:
        self.machines_end, own_end = directory / f"{name}.machine", directory / f"{name}.wire"
        self.own_end = own_end
        self.frames: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(own_end))
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while frame := self._socket.recv(65536):
            self.frames.append(frame)

    def send(self, frame: bytes) -> None:
        self._socket.sendto(frame, str(self.machines_end))

    def await_frame(self, what: str, wanted: Callable[[bytes], T | None], seconds: float = 5) -> T:
        """Return the first result of `wanted` for a frame that is not None."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for frame in list(self.frames):
                if (found := wanted(frame)) is not None:
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{what}: no such frame within {seconds:g} s among {len(self.frames)}")


class Console:
    """The machine's serial line, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self._seen: list[str] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def await_json(self, mark: str, seconds: float) -> Any:
        """Return the JSON that the machine prints after `mark`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            self._seen.append(line)
            # The console's own control sequences may precede it.
            if mark in line:
                return json.loads(line.partition(mark)[2])
        raise AssertionError(f"no {mark!r} within {seconds:g} s: {''.join(self._seen[-40:])}")


@contextmanager
def emulated_machine(
    directory: Path, nics: Mapping[str, str], files: Mapping[str, str], units: Mapping[str, str]
) -> Iterator[tuple[Console, dict[str, Wire]]]:
    """Boot a Debian 13 with `nics` (name: MAC), `files` and enabled `units` (path or name: content)."""
    kernel = debian_kernel()
    injected = directory / "injected"
    contents = {
        "init": INIT,
        "nics": "".join(f"{mac} {name}\n" for name, mac in nics.items()),
        **files,
        **{f"etc/systemd/system/{name}": text for name, text in units.items()},
    }
    for path, text in contents.items():
        target = injected / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if path == "init" else 0o644)
    wanted = injected / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    for unit in units:
        (wanted / unit).symlink_to(f"/etc/systemd/system/{unit}")
    (wanted / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")
    shutil.copytree(kernel / "modules", injected / "usr/lib/modules")
    tools = injected / "usr/sbin"
    tools.mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tools / "busybox")
    (tools / "modprobe").symlink_to("busybox")
    initramfs = directory / "initramfs"
    system = image.ensure_image(image.recipe("debian13"), print)
    with initramfs.open("wb") as out:
        # The second archive is unpacked over the first.
        _archive(system, out, leave_out=LEFT_OUT)
        _archive(injected, out)
    wires = {name: Wire(directory, name) for name in nics}
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg", "-cpu", vm.CPU, "-smp", "2", "-m", str(MEMORY_MIB)),
        *("-kernel", str(kernel / "vmlinuz"), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 net.ifnames=0 systemd.show_status=0 tsc=reliable"),
        *("-serial", "stdio"),
    ]
    for name, mac in nics.items():
        ends = f"local.path={wires[name].machines_end},remote.path={wires[name].own_end}"
        command += ["-netdev", f"dgram,id={name},local.type=unix,remote.type=unix,{ends}"]
        command += ["-device", f"virtio-net-pci,netdev={name},mac={mac},romfile="]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield Console(process), wires
    finally:
        process.kill()
        process.wait()
        initramfs.unlink()


def debian_kernel() -> Path:
    """Return a directory with `vmlinuz` and `modules/RELEASE` of Debian's package, without installing it."""
    directory = CACHE / "kernel"
    if directory.is_dir():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-") as building:
        work, unpacked, made = (Path(building, name) for name in ("work", "unpacked", "made"))
        work.mkdir()
        subprocess.run(["dpkg-deb", "--extract", vm.kernel_package(work, vm.SUITE), unpacked], check=True)
        (vmlinuz,) = unpacked.glob("boot/vmlinuz-*")
        release = vmlinuz.name.removeprefix("vmlinuz-")
        (modules,) = unpacked.glob(f"**/lib/modules/{release}/kernel")
        base = made / "base"
        for path in (path for pattern in MODULES for path in modules.glob(pattern)):
            target = base / "lib/modules" / release / path.relative_to(modules.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            if path.suffix == ".xz":
                content, target = lzma.decompress(content), target.with_suffix("")
            target.write_bytes(content)
        subprocess.run(["busybox", "depmod", "-b", base, release], check=True)
        (base / "lib/modules").rename(made / "modules")
        shutil.copy(vmlinuz, made / "vmlinuz")
        made.rename(directory)
    return directory


def _archive(root: Path, out: Any, leave_out: tuple[str, ...] = ()) -> None:
    """Append a directory as a cpio archive, the format that the kernel unpacks."""
    pruned = " -o ".join(f"-path ./{path}" for path in leave_out) or "-false"
    find = f"find . -xdev \\( {pruned} \\) -prune -o -print0 | busybox cpio --quiet -0 -o -H newc"
    subprocess.run(["sh", "-c", find], cwd=root, stdout=out, stderr=subprocess.DEVNULL, check=True)

"""Guests that are virtual machines: QEMU with a tap in the hypervisor's namespace.

QEMU emulates the CPU on every host: an existing KVM may not work (a nested one may stop the guest
at its first instructions), and the guests compute little.  They boot Debian's cloud kernel and a
small initramfs with the host's busybox and the Python of a Debian 13 image.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from l3hv.model.topology import GuestMachine
from l3hv.twin import TwinError, image, network
from l3hv.twin.state import Twin

PARTS = Path(__file__).parent
INIT, LEASE, ECHO = (PARTS / name for name in ("vm_init.sh", "lease.sh", "vm_echo.py"))
CACHE = image.CACHE / "vm"
SUITE = "trixie"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
MODULES = ("failover", "net_failover", "virtio_net")
MEMORY_MIB = 128
# The cmpxchg16b that QEMU 7.2 emulates sometimes faults in the kernel, so the CPU does not have it.
CPU = "qemu64,-cx16"

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def ensure_vm_image(say: Callable[[str], None]) -> Path:
    """Return the directory with ``vmlinuz`` and ``initramfs``; create it if it is not cached."""
    python = image.ensure_image(image.recipe("debian13"), say)
    parts = b"".join(path.read_bytes() for path in (INIT, LEASE, ECHO))
    digest = hashlib.sha256(parts + SUITE.encode() + python.name.encode()).hexdigest()[:12]
    directory = CACHE / digest
    if directory.is_dir():
        return directory
    say("extracting Debian's cloud kernel from its package (about ten seconds)")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-") as building:
        work, made = Path(building, "work"), Path(building, "made")
        work.mkdir()
        made.mkdir()
        package = kernel_package(work, SUITE)
        unpacked = work / "kernel"
        _run(["dpkg-deb", "--extract", str(package), str(unpacked)])
        shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), made / "vmlinuz")
        _make_initramfs(unpacked, python, work / "root", made / "initramfs")
        made.rename(directory)
    return directory


def kernel_package(work: Path, suite: str) -> Path:
    """Fetch the package of a suite's cloud kernel with an apt that shares only the keys with the host's."""
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb {image.debian_mirror()} {suite} main\n")
    (work / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "amd64",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", *options, "-qq", "update"])
    depends = _run(["apt-cache", *options, "depends", "--important", KERNEL_PACKAGE])
    match = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if match is None:
        raise TwinError(f"{suite} has no {KERNEL_PACKAGE}: apt printed {depends!r}")
    _run(["apt-get", *options, "-qq", "download", match[1]], cwd=work)
    return next(work.glob("linux-image-*.deb"))


def _make_initramfs(kernel: Path, python: Path, root: Path, out: Path) -> None:
    for directory in ("bin", "modules", "usr/bin"):
        (root / directory).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for source, name in ((INIT, "init"), (LEASE, "lease.sh"), (ECHO, "echo.py")):
        shutil.copy(source, root / name)
        (root / name).chmod(0o755)
    (root / "bin/sh").symlink_to("busybox")
    for module in MODULES:
        # A module without a file is built into the kernel.
        for packed in kernel.glob(f"**/{module}.ko*"):
            content = packed.read_bytes()
            if packed.suffix == ".xz":
                content = lzma.decompress(content)
            (root / "modules" / f"{module}.ko").write_bytes(content)
    for path in _python_files(python):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(python / path, target)
    (root / "bin/python3").symlink_to(f"../{_interpreter(python)}")
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with out.open("wb") as archive:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            input=names.encode(),
            stdout=archive,
            stderr=subprocess.DEVNULL,
            cwd=root,
            check=True,
        )


def _interpreter(root: Path) -> str:
    return f"usr/bin/{os.readlink(root / 'usr/bin/python3')}"


def _python_files(root: Path) -> list[str]:
    """Return the files that an image's Python needs to start with built-in modules only."""
    libraries = _run(["chroot", str(root), "ldd", "/usr/bin/python3"])
    shared = [found.lstrip("/") for found in re.findall(r"(/\S+) \(0x", libraries)]
    version = os.readlink(root / "usr/bin/python3")
    encodings = [
        f"usr/lib/{version}/encodings/{name}.py"
        for name in ("__init__", "aliases", "ascii", "latin_1", "utf_8")
    ]
    return [_interpreter(root), *shared, *encodings]


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise TwinError(f"{command[0]} failed ({' '.join(last)}): check the host's mirror and disk")
    return done.stdout


def start_vm(twin: Twin, guest: GuestMachine, hypervisor: str, tap_mac: str) -> None:
    """Start QEMU on a tap in the hypervisor's namespace; the tap exists as long as QEMU runs.

    QEMU itself runs in the guest's namespace, so it ends when the guest's namespace is removed.
    """
    files = ensure_vm_image(twin.say)
    namespace = twin.machine_namespace(hypervisor)
    directory = twin.guest_directory(guest.name)
    (directory / "console.log").unlink(missing_ok=True)
    with network.entered(namespace):
        tap = os.open("/dev/net/tun", os.O_RDWR)
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", guest.interface.encode(), flags))
    try:
        with network.netlink(namespace) as link:
            index = link.link_lookup(ifname=guest.interface)[0]
            link.link("set", index=index, address=tap_mac)
        facts = {
            "guest": guest.name,
            "dhcp": "1" if guest.ipv4 else "0",
            "addresses": ",".join(guest.addresses),
        }
        append = ["console=ttyS0", "quiet", "panic=-1", *(f"{key}={value}" for key, value in facts.items())]
        with network.entered(twin.guest_namespace(guest.name)), (directory / "qemu.log").open("w") as log:
            subprocess.run(
                [
                    *("setsid", "--fork", "qemu-system-x86_64", "-nodefaults", "-no-user-config"),
                    *("-accel", "tcg,tb-size=32", "-cpu", CPU, "-m", str(MEMORY_MIB)),
                    *("-display", "none", "-no-reboot", "-serial", f"file:{directory / 'console.log'}"),
                    *("-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initramfs")),
                    *("-append", " ".join(append)),
                    *("-netdev", f"tap,id=net,fd={tap}"),
                    *("-device", f"virtio-net-pci,netdev=net,mac={guest.mac},romfile="),
                ],
                check=True,
                pass_fds=[tap],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
    finally:
        os.close(tap)


def vm_addresses(twin: Twin, guest: str) -> list[str]:
    """Return the addresses that a virtual machine last printed on its console."""
    console = twin.guest_directory(guest) / "console.log"
    if not console.exists():
        return []
    printed = re.findall(r"^addresses:(.*)$", console.read_text(errors="replace"), re.MULTILINE)
    return printed[-1].split() if printed else []

"""Emulated machines: QEMU with Debian's own kernel, for features that the kernel of this host lacks.

QEMU uses KVM where it works, and else emulates the CPU too.  An emulated machine has the same namespace,
cables, guests, verbs and SSH address as a container: each interface that appears in its namespace becomes a
NIC of the same name.  The namespace is like the case of a computer, in which each cable ends at a NIC.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import lzma
import os
import select
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from l3hv.model.topology import Machine
from l3hv.twin import TwinError, confinement, image, network, vm
from l3hv.twin.power import Running, record_running
from l3hv.twin.state import MANAGEMENT, RUN, Standing, Twin

PARTS = Path(__file__).parent
INIT, FILES = PARTS / "emulated_init.sh", PARTS / "emulated_files"
CACHE = image.CACHE / "emulated"
MEMORY_MIB = 512
MASKED = (
    "dbus-org.freedesktop.login1.service",  # a second name of systemd-logind.service
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "run-lock.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-logind.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "tmp.mount",
)
"""Units that containers do not start either, and that a machine of the twin does not need."""
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 net.ifnames=0 tsc=reliable "
    # Each switch between kernel and process would empty the translation caches of the emulated CPU.
    "mitigations=off "
    "audit=0 nokaslr rcupdate.rcu_expedited=1 systemd.show_status=0 systemd.condition_needs_update=0 "
    + " ".join(f"systemd.mask={unit}" for unit in MASKED)
)
QEMU = ("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none")
EMULATION = ("-accel", "tcg,tb-size=96", "-cpu", vm.CPU)
VIRTUALISATION = ("-accel", "kvm", "-cpu", "host")
KVM, KVM_SECONDS = Path("/dev/kvm"), 5.0
KVM_WORKS = RUN / ".kvm"
"""The result of the check of KVM, until the next boot of this host."""
DISK_GIB, LAYER_GIB = 2, 4
REMOVAL_SECONDS = 20.0
"""The seconds in which a machine must release a NIC that is unplugged."""
QEMU_SECONDS = 10.0
"""The seconds in which QEMU must create its sockets, and end."""
MODULES = (
    "crypto",
    "drivers/block",
    "drivers/net",
    "drivers/virtio",
    "fs/ext4",
    "fs/jbd2",
    "fs/overlayfs",
    "lib",
    "net",
)
"""The directories of the kernel's modules that machines have; ``fs/mbcache.ko`` is one file."""
PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen")
"""The header of the ELF note with the address at which QEMU starts a kernel that is not compressed."""
AT_BOOT = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay")
"""The modules that the first process loads; the kernel loads all others when it needs them."""
READY = "l3hv-ready"
"""The line that the machine prints on its console when it has booted."""
TAP, BRIDGE = "nic-", "br-"
"""The prefixes of the interfaces that connect a cable to a NIC of QEMU."""
BUS_SLOT, BUS_SLOTS = 4, 32
"""The first slot of the PCI bus for NICs (chipset and disks are before it), and the number of slots."""
MOST_NICS = BUS_SLOTS - BUS_SLOT


@functools.cache
def lacks(kind: str) -> bool:
    """Tell whether the kernel of this host has no interfaces of a kind, such as ``vrf``."""
    options = {"ip6tnl": ("mode", "ip6ip6"), "vrf": ("table", "10"), "vlan": ("id", "10")}.get(kind, ())
    link = ("link", "lo") if kind == "vlan" else ()
    command = ["unshare", "--net", "ip", "link", "add", *link, "name", "x0", "type", kind, *options]
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian: the files that QEMU boots, and the modules of the machines."""

    linux: Path
    initramfs: Path
    modules: Path


def ensure_kernel(suite: str, say: Callable[[str], None]) -> Kernel:
    """Return the cloud kernel of a Debian suite; fetch and unpack its package if it is not cached."""
    version = _digest(INIT.read_bytes(), str((MODULES, AT_BOOT, PVH_NOTE)).encode())
    directory = CACHE / f"kernel-{suite}-{version}"
    with _locked(directory):
        if not directory.is_dir():
            say(f"extracting the kernel of {suite} from its package (about thirty seconds)")
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-") as building:
                _build_kernel(suite, Path(building)).rename(directory)
        _prune(directory, f"kernel-{suite}-*")
    return Kernel(directory / "linux", directory / "initramfs", directory / "lib/modules")


def _build_kernel(suite: str, building: Path) -> Path:
    work, unpacked, made = (building / name for name in ("work", "unpacked", "made"))
    work.mkdir()
    subprocess.run(["dpkg-deb", "--extract", vm.kernel_package(work, suite), unpacked], check=True)
    (vmlinuz,) = unpacked.glob("boot/vmlinuz-*")
    release = vmlinuz.name.removeprefix("vmlinuz-")
    (packed,) = unpacked.glob(f"**/lib/modules/{release}/kernel")
    _unpack_modules(packed, made / "lib/modules" / release)
    subprocess.run(["busybox", "depmod", "-b", made, release], check=True)
    _make_initramfs(made, release, building / "root")
    (made / "linux").write_bytes(_uncompressed(vmlinuz.read_bytes()))
    return made


def _uncompressed(packed: bytes) -> bytes:
    """Return the kernel in a ``vmlinuz`` (bzImage) as an ELF file, or ``packed`` if QEMU could not boot it.

    A machine would decompress its kernel at each boot; on an emulated CPU this takes two seconds.
    """
    # https://docs.kernel.org/arch/x86/boot.html: setup_sects, payload_offset and payload_length.
    offset, length = struct.unpack_from("<II", packed, 0x248)
    start = (packed[0x1F1] + 1) * 512 + offset
    payload = packed[start : start + length - 4]  # the kernel's build appends the size
    kernel = b""
    if payload.startswith(b"\xfd7zXZ"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        kernel = subprocess.run(["zstd", "-dc"], input=payload, capture_output=True, check=True).stdout
    return kernel if PVH_NOTE in kernel else packed


def accelerator(kernel: Kernel) -> tuple[str, ...]:
    """Return QEMU's arguments for the CPU: KVM where it works, else emulation.

    An existing KVM may not work: a nested one may stop a machine at its first instructions.  So check once
    whether a kernel reaches its panic about the missing root file system, after which it reboots.
    """
    with _locked(KVM_WORKS):
        if not KVM_WORKS.exists():
            RUN.mkdir(parents=True, exist_ok=True)
            KVM_WORKS.write_text("yes" if KVM.exists() and _boots_with_kvm(kernel) else "no")
        return VIRTUALISATION if KVM_WORKS.read_text() == "yes" else EMULATION


def _boots_with_kvm(kernel: Kernel) -> bool:
    arguments = ("-m", "128", "-kernel", str(kernel.linux), "-append", "quiet panic=-1")
    try:
        done = subprocess.run(
            [*QEMU, *VIRTUALISATION, "-machine", "pc", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=KVM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def _locked(made: Path) -> Iterator[None]:
    """Lock a file or directory of the cache against other processes that make it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".lock-{made.name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]


def _unpack_modules(kernel: Path, target: Path) -> None:
    """Copy the modules of ``MODULES`` without compression: busybox does not decompress them."""
    wanted = [path for part in MODULES for path in (kernel / part).rglob("*.ko*")]
    for path in [*wanted, *kernel.glob("fs/mbcache.ko*")]:
        place = target / "kernel" / path.relative_to(kernel)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        if path.suffix == ".xz":
            content, place = lzma.decompress(content), place.with_suffix("")
        place.write_bytes(content)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(kernel.parent / name, target / name)


def _make_initramfs(made: Path, release: str, root: Path) -> None:
    """Create the initramfs: busybox, ``INIT``, and the modules that it loads with their dependencies."""
    for directory in ("bin", "dev", "lower", "layer", "new", "proc", "sys"):
        (root / directory).mkdir(parents=True)
    shutil.copy(busybox(), root / "bin/busybox")
    shutil.copy(INIT, root / "init")
    (root / "init").chmod(0o755)
    modules = made / "lib/modules" / release
    dependencies = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        dependencies[Path(path).stem.removesuffix(".ko").replace("-", "_")] = [path, *needed.split()]
    for name in AT_BOOT:
        for path in dependencies.get(name, ()):
            target = root / "lib/modules" / release / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(modules / path, target)
    for name in ("modules.dep", "modules.builtin"):
        shutil.copy(modules / name, root / "lib/modules" / release / name)
    (root / "modules").write_text("\n".join(AT_BOOT) + "\n")
    with (made / "initramfs").open("wb") as out:
        archive(root, out)


def archive(root: Path, out: Any) -> None:
    """Append a directory to a file as a cpio archive, the format that the kernel unpacks."""
    command = "find . -print0 | busybox cpio --quiet -0 -o -H newc"
    subprocess.run(["sh", "-c", command], cwd=root, stdout=out, stderr=subprocess.DEVNULL, check=True)


def ensure_disk(root: Path, kernel: Kernel, say: Callable[[str], None]) -> Path:
    """Return the disk of an image, with the kernel's modules and ``FILES``; machines only read it."""
    files = sorted(path for path in FILES.rglob("*") if path.is_file())
    version = _digest(*(path.read_bytes() for path in files), busybox().read_bytes())
    disk = CACHE / f"{root.name}-{kernel.linux.parent.name}-{version}.ext4"
    with _locked(disk):
        if not disk.exists():
            say(f"writing the disk of {root.name} (about ten seconds)")
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-") as building:
                _build_disk(root, kernel, Path(building)).rename(disk)
        _prune(disk, f"{root.name.rpartition('-')[0]}-{'?' * 12}-kernel-*.ext4")
    return disk


def _prune(new: Path, pattern: str) -> None:
    """Remove older files of the cache that no machine has used for ``KEEP_UNUSED_S``.

    The next boot of a machine that needs one makes it anew.
    """
    os.utime(new)
    for old in new.parent.glob(pattern):
        if old != new and time.time() - old.stat().st_mtime > image.KEEP_UNUSED_S:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def _build_disk(root: Path, kernel: Kernel, building: Path) -> Path:
    upper, work, merged, disk = (building / name for name in ("upper", "work", "merged", "disk"))
    shutil.copytree(FILES, upper)
    shutil.copytree(kernel.modules, upper / "usr/lib/modules")
    (upper / "usr/sbin").mkdir(exist_ok=True)
    shutil.copy(busybox(), upper / "usr/lib/twin/busybox")
    (upper / "usr/sbin/modprobe").symlink_to("../lib/twin/modprobe")
    wants = upper / "etc/systemd/system/graphical.target.wants"
    wants.mkdir()
    for unit in (upper / "etc/systemd/system").glob("*.service"):
        (wants / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    for directory in (work, merged):
        directory.mkdir()
    layers = f"lowerdir={root},upperdir={upper},workdir={work}"
    script = (
        f"mount -t overlay l3hv -o {shlex.quote(layers)} {shlex.quote(str(merged))}\n"
        f"{shlex.join(_mke2fs(disk, merged, DISK_GIB))}"
    )
    command = ["unshare", "--mount", "sh", "-ec", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TwinError(f"the disk of {root.name} cannot be written: {done.stderr.strip()}")
    return disk


def busybox() -> Path:
    return Path(shutil.which("busybox") or "/bin/busybox")


def _mke2fs(disk: Path, root: Path, gibibytes: int) -> list[str]:
    """Return the command that makes a sparse disk with the files of a directory."""
    options = ("-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1")
    return ["mke2fs", *options, "-d", str(root), str(disk), f"{gibibytes}G"]


def prepare_layer(files: Path) -> None:
    """Turn a machine's own files, in ``files/upper``, into the disk that it writes to, at its first boot."""
    layer = files / "layer.ext4"
    if layer.exists():
        return
    with tempfile.TemporaryDirectory(dir=files) as building:
        (Path(building) / "work").mkdir()
        (files / "upper").rename(Path(building) / "upper")
        try:
            make = _mke2fs(layer.with_suffix(".new"), Path(building), LAYER_GIB)
            subprocess.run(make, stdout=subprocess.DEVNULL, check=True)
        finally:
            (Path(building) / "upper").rename(files / "upper")
    layer.with_suffix(".new").rename(layer)


def ensure_machine(machine: Machine, root: Path, say: Callable[[str], None]) -> tuple[Kernel, Path]:
    """Return the kernel and the disk of a machine with an image; make them if they are not cached."""
    kernel = ensure_kernel(image.SUITES[machine.system], say)
    # This checks KVM once, before several machines boot at the same time.
    accelerator(kernel)
    return kernel, ensure_disk(root, kernel, say)


def connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connect to a socket of QEMU, which creates it after its start."""
    connected = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + QEMU_SECONDS
    while True:
        try:
            connected.connect(str(path))
        except OSError:
            if process.poll() is not None:
                raise TwinError(f"QEMU ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                process.kill()
                raise TwinError(f"QEMU has created no {path} in {QEMU_SECONDS:g} s") from None
            time.sleep(0.02)
        else:
            return connected


class Qmp:
    """QEMU's control socket (QMP): commands and their results, and events."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # Without a buffer: select reports lines that have not been read.
        self._lines = connected.makefile("rb", buffering=0)
        self.events: list[dict[str, Any]] = []
        self.has_ended = False
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def fileno(self) -> int:
        """Return the file descriptor for select."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command, and return its result; raise TwinError if QEMU refuses it."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = self._read()
            if "error" in answer:
                raise TwinError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def read_event(self) -> None:
        """Read one event."""
        self.events.append(self._read())

    def await_event(self, name: str, device: str, seconds: float) -> bool:
        """Wait for an event about a device, and return whether it has happened."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event.get("event") == name and event["data"].get("device") == device:
                    self.events.remove(event)
                    return True
            if not select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            self.read_event()

    def read_last_events(self) -> None:
        """Read all events until QEMU ends."""
        with contextlib.suppress(TwinError, OSError):
            while True:
                self.read_event()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            self.has_ended = True
            raise TwinError("QEMU has ended")
        found: dict[str, Any] = json.loads(line)
        return found


@dataclass
class Nic:
    """A NIC of the machine: the number of its tap and slot, its MAC, and whether its cable has a carrier."""

    number: int
    mac: str
    carrier: bool


class Names:
    """The names of new NICs, which the machine learns on its second serial line.

    The machine has no udev.  Its program ``name-interfaces`` prints ``listening`` when it starts, and ``named
    MAC`` when it has named a NIC, and the twin repeats a name until then.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._line = b""
        self._is_listening = False
        self._unnamed: dict[str, str] = {}

    def fileno(self) -> int:
        """Return the file descriptor for select."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def give(self, new: Mapping[str, str]) -> None:
        """Name NICs: ``new`` has the name of each MAC, and the state of the new interface (up or down)."""
        self._unnamed |= new
        if self._is_listening:
            self._send(new)

    def forget(self, macs: Iterable[str]) -> None:
        """Forget the names of NICs that were unplugged before they had one."""
        for mac in macs:
            self._unnamed.pop(mac, None)

    def read(self) -> bool:
        """Read what the machine has printed; return False at the end."""
        received = self._socket.recv(4096)
        *lines, self._line = (self._line + received).split(b"\n")
        for line in lines:
            match line.decode(errors="replace").split():
                case ["listening"]:
                    self._is_listening = True
                    self._send(self._unnamed)
                case ["named", mac]:
                    self._unnamed.pop(mac, None)
        return bool(received)

    def _send(self, new: Mapping[str, str]) -> None:
        self._socket.sendall("".join(f"{mac} {name}\n" for mac, name in new.items()).encode())


@dataclass(frozen=True)
class Cable:
    """The end of a cable in a machine's case; ``is_joined`` tells whether a bridge joins it to a NIC."""

    name: str
    mac: str
    has_carrier: bool
    is_joined: bool


def cables(twin: Twin, machine: str) -> list[Cable]:
    """Return the ends of cables in a machine's case."""
    with network.netlink(twin.machine_namespace(machine)) as link:
        found = [
            Cable(
                name=entry.get_attr("IFLA_IFNAME"),
                mac=entry.get_attr("IFLA_ADDRESS"),
                has_carrier=bool(entry.get_attr("IFLA_CARRIER")),
                is_joined=bool(entry.get_attr("IFLA_MASTER")),
            )
            for entry in link.get_links()
        ]
    return [cable for cable in found if cable.name != "lo" and not cable.name.startswith((TAP, BRIDGE))]


def check_room(machine: str, interfaces: int) -> None:
    """Refuse more interfaces than an emulated machine can have, the management port included."""
    if interfaces > MOST_NICS:
        raise TwinError(
            f"{machine} is emulated, and would have {interfaces} interfaces with the management port: "
            f"QEMU has room for {MOST_NICS}"
        )


class Case:
    """The NICs of a machine, one for each interface in its namespace.

    A bridge joins the end of the cable with the tap of QEMU.  The NIC has the MAC that the end had, and the
    end gets another: a bridge would keep the frames to it.
    """

    def __init__(self, twin: Twin, machine: str) -> None:
        self._twin, self._machine = twin, machine
        self.nics: dict[str, Nic] = {}
        self._kept: set[int] = set()

    def find(self) -> None:
        """Record a NIC for each interface before the machine boots."""
        network.write_settings(self._twin.machine_namespace(self._machine), network.SWITCH_SETTINGS)
        for cable in self._cables():
            self.nics[cable.name] = Nic(self._free_number(), cable.mac, cable.has_carrier)

    def arguments(self) -> list[str]:
        """Return QEMU's arguments for the NICs at boot."""
        words = []
        for nic in self.nics.values():
            tap = f"tap,id={TAP}{nic.number},ifname={TAP}{nic.number},script=no,downscript=no"
            driver, *options = self._device(nic).items()
            words += ["-netdev", tap, "-device", ",".join([driver[1], *(f"{k}={v}" for k, v in options)])]
        return words

    def _device(self, nic: Nic) -> dict[str, str]:
        return {
            "driver": "virtio-net-pci",
            "id": f"device-{nic.number}",
            "netdev": f"{TAP}{nic.number}",
            "mac": nic.mac,
            "romfile": "",
            "bus": "pci.0",
            "addr": f"{BUS_SLOT + nic.number:#x}",
        }

    def connect(self, qmp: Qmp) -> None:
        """Connect all taps to their cables, once QEMU has created the taps."""
        for name, nic in self.nics.items():
            self._join(name, nic)
            qmp.execute("set_link", name=f"device-{nic.number}", up=nic.carrier)

    def follow(self, qmp: Qmp, names: Names) -> None:
        """Plug NICs of new interfaces, unplug those of removed ones, and pass carriers on."""
        there = {cable.name: cable for cable in self._cables()}
        # An interface that was removed and created again meanwhile is not joined.
        joined = {name for name, cable in there.items() if cable.is_joined}
        for name in self.nics.keys() - joined:
            self._unplug(qmp, names, self.nics.pop(name))
        new: dict[str, str] = {}
        ports = {port.interface for port in self._twin.standing().machine(self._machine).ports}
        for name, cable in there.items():
            if name not in self.nics:
                nic = self.nics[name] = Nic(self._free_number(), cable.mac, cable.has_carrier)
                tap = f"{TAP}{nic.number}"
                qmp.execute("netdev_add", type="tap", id=tap, ifname=tap, script="no", downscript="no")
                qmp.execute("device_add", **self._device(nic))
                self._join(name, nic)
                qmp.execute("set_link", name=f"device-{nic.number}", up=cable.has_carrier)
                new[cable.mac] = f"{name} {'down' if name in ports else 'up'}"
            elif self.nics[name].carrier != cable.has_carrier:
                nic = self.nics[name]
                nic.carrier = cable.has_carrier
                qmp.execute("set_link", name=f"device-{nic.number}", up=cable.has_carrier)
        if new:
            names.give(new)

    def _unplug(self, qmp: Qmp, names: Names, nic: Nic) -> None:
        names.forget([nic.mac])
        device = f"device-{nic.number}"
        qmp.execute("device_del", id=device)
        if not qmp.await_event("DEVICE_DELETED", device, REMOVAL_SECONDS):
            self._kept.add(nic.number)  # The machine has not released the NIC, so its slot is not free.
        qmp.execute("netdev_del", id=f"{TAP}{nic.number}")
        self._remove_bridge(nic)

    def _free_number(self) -> int:
        taken = {nic.number for nic in self.nics.values()}
        return min(set(range(MOST_NICS)) - taken - self._kept)

    def _cables(self) -> list[Cable]:
        """Return the ends of cables that get a NIC, as long as there is room."""
        found = cables(self._twin, self._machine)
        old = [cable for cable in found if cable.name in self.nics]
        new = [cable for cable in found if cable.name not in self.nics]
        return [*old, *new[: MOST_NICS - len(old) - len(self._kept)]]

    def _join(self, name: str, nic: Nic) -> None:
        from pyroute2 import NetlinkError

        bridge = f"{BRIDGE}{nic.number}"
        with network.netlink(self._twin.machine_namespace(self._machine)) as link:
            network.add_bridge(link, bridge)
            index = link.link_lookup(ifname=bridge)[0]
            (tap,) = link.link_lookup(ifname=f"{TAP}{nic.number}")
            link.link("set", index=tap, mtu=network.SWITCH_MTU, master=index, state="up")
            own = network.stable_mac(self._machine, f"end of {name}")
            # The bridge must not learn MACs: a guest may send with the MAC of the NIC.
            link.brport("set", index=tap, learning=0)
            # A guest may be unplugged at this moment; the next look at the case removes the NIC.
            with contextlib.suppress(NetlinkError):
                for end in link.link_lookup(ifname=name):
                    link.flush_addr(index=end)  # the machine itself has the management address
                    link.link("set", index=end, address=own, mtu=network.SWITCH_MTU, master=index, state="up")
                    link.brport("set", index=end, learning=0)

    def _remove_bridge(self, nic: Nic) -> None:
        with network.netlink(self._twin.machine_namespace(self._machine)) as link:
            network.remove_link(link, f"{BRIDGE}{nic.number}")


class Boot:
    """One run of a machine, from its start to its end."""

    def __init__(self, twin: Twin, standing: Standing, machine: Machine, files: Path) -> None:
        self._twin, self._machine = twin, machine.name
        self._directory = twin.machine_directory(machine.name)
        self._namespace = twin.machine_namespace(machine.name)
        kernel, disk = ensure_machine(machine, Path(standing.images[machine.image]), twin.say)
        prepare_layer(files)
        self._case = Case(twin, machine.name)
        self._case.find()
        initramfs = self._directory / "initramfs"
        _write_initramfs(initramfs, kernel, self._case.nics, str(standing.address(machine.name)))
        files_of_qemu = [self._directory / name for name in ("qmp", "names", "serial.log")]
        self._control, self._names, self._console = files_of_qemu
        for old in files_of_qemu:
            old.unlink(missing_ok=True)
        self._command = [
            *(*QEMU, *accelerator(kernel), "-S", "-machine", "pc", "-smp", "1", "-m", str(MEMORY_MIB)),
            *("-append", KERNEL_ARGUMENTS, "-kernel", str(kernel.linux), "-initrd", str(initramfs)),
            *("-qmp", f"unix:{self._control},server=on,wait=off"),
            *("-serial", f"file:{self._console}", "-serial", f"unix:{self._names},server=on,wait=off"),
            *_drives(disk, files / "layer.ext4"),
            *self._case.arguments(),
        ]

    def run(self, when_ready: Callable[[], None]) -> bool:
        """Boot the machine and wait until it goes down; return whether it reboots.

        ``when_ready`` is called when it has booted.
        """
        namespace = shlex.quote(str(network.NAMESPACES / self._namespace))
        script = f"exec nsenter --net={namespace} {shlex.join(self._command)}"
        process = subprocess.Popen(
            confinement.confined(self._twin, self._machine, script), stdin=subprocess.DEVNULL, cwd="/"
        )
        with (
            contextlib.closing(Qmp(connect(self._control, process))) as qmp,
            contextlib.closing(Names(connect(self._names, process))) as names,
            contextlib.closing(network.LinkEvents(self._namespace)) as links,
        ):
            try:
                self._case.connect(qmp)
                qmp.execute("cont")
                is_ready = self._follow(process, qmp, names, links, when_ready)
            except TwinError:
                # QEMU has ended in the middle of a command, or refuses one.
                if not qmp.has_ended:
                    process.kill()
                    raise
                is_ready = True
            qmp.read_last_events()
        process.wait()
        reasons = [event["data"].get("reason") for event in qmp.events if event.get("event") == "SHUTDOWN"]
        if not is_ready and "guest-reset" not in reasons:
            raise TwinError(f"it ended before it had booted: see {self._console}")
        return "guest-reset" in reasons

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        qmp: Qmp,
        names: Names,
        links: network.LinkEvents,
        when_ready: Callable[[], None],
    ) -> bool:
        """Follow the machine until it goes down; return whether it had booted."""
        state = Running(process.pid, time.time(), False, emulated=True)
        record_running(self._twin, self._machine, state)
        ended = os.pidfd_open(process.pid)
        try:
            sources = [ended, qmp.fileno(), names.fileno(), links.fileno()]
            # Until the machine has booted, look at its console several times a second.
            while ended not in (ready := select.select(sources, [], [], 1 if state.ready else 0.1)[0]):
                if qmp.fileno() in ready:
                    qmp.read_event()
                if names.fileno() in ready and not names.read():
                    sources.remove(names.fileno())
                if not state.ready and self._has_booted():
                    state = replace(state, ready=True)
                    when_ready()
                    record_running(self._twin, self._machine, state)
                if links.fileno() in ready and links.read():
                    self._case.follow(qmp, names)
        finally:
            os.close(ended)
        return state.ready

    def _has_booted(self) -> bool:
        return self._console.exists() and READY in self._console.read_text(errors="replace")


def _write_initramfs(path: Path, kernel: Kernel, nics: Mapping[str, Nic], address: str) -> None:
    """Write the initramfs of one boot, with the names of the NICs and the management address."""
    with tempfile.TemporaryDirectory(dir=path.parent) as own:
        table = "".join(f"{nic.mac} {name}\n" for name, nic in nics.items())
        Path(own, "nics").write_text(table)
        Path(own, "management").write_text(f"{address}/{MANAGEMENT.prefixlen} {MANAGEMENT}\n")
        with path.open("wb") as out:
            out.write(kernel.initramfs.read_bytes())
            out.flush()
            archive(Path(own), out)


def _drives(*disks: Path) -> list[str]:
    """Return QEMU's arguments for the disks: the first is read-only."""
    words = []
    for number, disk in enumerate(disks):
        mode = "readonly=on" if number == 0 else "cache=unsafe"
        words += ["-drive", f"if=none,id=disk{number},format=raw,{mode},file={disk}"]
        words += ["-device", f"virtio-blk-pci,drive=disk{number},bus=pci.0,addr={2 + number:#x}"]
    return words

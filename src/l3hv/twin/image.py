"""Base images of the machines: one per system and daemon, built once and cached."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from l3hv.twin import TwinError
from l3hv.twin.state import RUN, read_json

CACHE = Path("/var/cache/l3hv")
KEEP_UNUSED_S = 3600
"""The time for which an old image stays after a twin has last used it."""
DEBIANS_OWN = "http://deb.debian.org"
"""The mirror for archives of which the host has no mirror: it may run another distribution."""
DEFAULT_SYSTEM = "debian13"
MOST_BUILDS = 4
"""The limit of simultaneous builds: each build takes a core, and all builds share one disk."""

BASE_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "systemd",
    "systemd-sysv",
    "tcpdump",
)
ROUTING_PACKAGES = ("dnsmasq", "iptables", "nftables", "python3-pyroute2", "radvd")
DHCP_SERVER_PACKAGES = ("kea-dhcp4-server",)
"""The packages of a DHCP server for guests of other machines; few machines are one."""
DAEMON_PACKAGES = {
    "bird1": ("bird",),
    "bird2": ("bird2",),
    "bird3": ("bird3",),
    "frr": ("frr", "frr-pythontools"),
    "gobgp": ("gobgpd",),
}
"""The packages of each routing daemon. BIRD's packages exclude each other."""
DEFAULT_DAEMON = "bird2"
GUEST_PACKAGES = (
    "dbus",
    "dhcpcd-base",
    "iproute2",
    "iputils-ping",
    "isc-dhcp-client",
    "libpam-systemd",  # the logind that network-manager wants: debootstrap does not resolve virtual packages
    "network-manager",
    "nftables",
    "procps",
    "systemd",
    "systemd-sysv",
)
"""The packages of a guest's user space: Debian's network clients, and tools to inspect them."""

# Units that no machine of a twin needs: kernel modules, consoles, and timers that wake up all
# machines of the host at once.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-modules-load.service",
)
# Units that the roles enable: they must not run before.
DISABLED_UNITS = (
    "bird.service",
    "bird6.service",
    "dnsmasq.service",
    "frr.service",
    "gobgpd.service",
    "nftables.service",
    "radvd.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
)

SSHD_SETTINGS = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
GSSAPIAuthentication no
UseDNS no
PrintMotd no
MaxSessions 100
MaxStartups 100:30:200
"""
JOURNAL_SETTINGS = "[Journal]\nSystemMaxUse=32M\n"


@dataclass(frozen=True)
class Recipe:
    """The content of a base image: the digest of these fields and of the settings is part of its name."""

    system: str
    suite: str
    packages: tuple[str, ...]
    sshd_settings: str

    @property
    def digest(self) -> str:
        """Return twelve hexadecimal digits that change with the content of the image."""
        facts = [asdict(self), MASKED_UNITS, DISABLED_UNITS, JOURNAL_SETTINGS]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


SUITES = {"debian12": "bookworm", "debian13": "trixie"}
DAEMONS = {
    "debian12": ("bird1", "bird2", "frr", "gobgp"),
    "debian13": ("bird2", "bird3", "frr", "gobgp"),
}
"""The routing daemons in each system's archive."""


def recipe(
    system: str, daemon: str = DEFAULT_DAEMON, *, bare: bool = False, serves_dhcp: bool = False
) -> Recipe:
    """Return the recipe of ``system`` with ``daemon``; bare omits the packages that the roles install."""
    if system not in SUITES:
        raise TwinError(f"there is no image of the system {system!r}: choose one of {', '.join(SUITES)}")
    if daemon not in (known := DAEMONS[system]):
        raise TwinError(
            f"there is no image of the daemon {daemon!r} on {system}: choose one of {', '.join(known)}"
        )
    # OpenSSH 9.8 (Debian 13) penalizes sources with many connections; earlier versions refuse the option.
    sshd_settings = SSHD_SETTINGS + ("PerSourcePenalties no\n" if system == "debian13" else "")
    if bare and serves_dhcp:
        raise TwinError("a bare image has no DHCP server: the roles install it")
    if bare:
        return Recipe(f"{system}-bare", SUITES[system], BASE_PACKAGES, sshd_settings)
    packages = BASE_PACKAGES + DAEMON_PACKAGES[daemon] + ROUTING_PACKAGES
    name = system if daemon == DEFAULT_DAEMON else f"{system}-{daemon}"
    if serves_dhcp:
        packages += DHCP_SERVER_PACKAGES
        name += "-dhcp"
    return Recipe(name, SUITES[system], packages, sshd_settings)


def guest_recipe(system: str) -> Recipe:
    """Return the recipe of the user space of a guest."""
    return Recipe(f"{system}-guest", SUITES[system], GUEST_PACKAGES, "")


def image_root(wanted: Recipe) -> Path:
    """Return the directory of a recipe's root file system, built or not."""
    return CACHE / "images" / f"{wanted.system}-{wanted.digest}"


def ensure_image(wanted: Recipe, say: Callable[[str], None], *, rebuild: bool = False) -> Path:
    """Return the root file system of ``wanted``; build it if it is not cached.

    Two processes that need the same image build it once; different images are built at the same time.  The
    image appears by a rename: an interrupted build leaves a directory that the next build removes.
    """
    root = image_root(wanted)
    root.parent.mkdir(parents=True, exist_ok=True)
    _stamp(root).touch()
    if root.is_dir() and not rebuild:
        return root
    with (
        # Older versions of the twin, which build one image after the other, lock all images.
        _locked(root.parent / ".lock", fcntl.LOCK_SH, lambda: say("waiting for another build to end")),
        _locked(_lock(root), fcntl.LOCK_EX, lambda: say(f"waiting for another build of {root.name} to end")),
    ):
        if root.is_dir() and not rebuild:
            return root
        building = root.parent / f".building-{root.name}"
        _remove_leftovers(building)
        say(f"building the image {root.name} (about a minute)")
        _debootstrap(wanted, building)
        _configure_system(wanted, building)
        if root.is_dir():
            # Running machines keep the files of the old image open until they stop.
            old = root.parent / f".building-{root.name}-old"
            root.rename(old)
            building.rename(root)
            shutil.rmtree(old)
        else:
            building.rename(root)
        prune(wanted, root)
        return root


def prune(wanted: Recipe, root: Path) -> None:
    """Remove older images of the same system and daemon that no twin has used for ``KEEP_UNUSED_S``.

    Images of running twins stay, and so do images of machines that are about to start.
    """
    name = re.compile(rf"{re.escape(wanted.system)}-[0-9a-f]{{12}}")
    old = [path for path in root.parent.iterdir() if name.fullmatch(path.name) and path != root]
    used = _images_of_twins() | _lower_directories() if old else set()
    for path in old:
        stamp = _stamp(path)
        last_wanted = (stamp if stamp.exists() else path).stat().st_mtime
        if str(path) not in used and time.time() - last_wanted > KEEP_UNUSED_S:
            shutil.rmtree(path)
            stamp.unlink(missing_ok=True)


def ensure_images(wanted: Iterable[Recipe], say: Callable[[str], None]) -> list[Path]:
    """Return the root file systems of several recipes; build missing ones, a few at a time."""
    with ThreadPoolExecutor(max(1, min(MOST_BUILDS, len(os.sched_getaffinity(0))))) as pool:
        return list(pool.map(lambda recipe: ensure_image(recipe, say), wanted))


def all_recipes() -> list[Recipe]:
    """Return the recipes of all images of machines, bare ones included."""
    daemons = [recipe(system, daemon) for system in SUITES for daemon in DAEMONS[system]]
    servers = [recipe(system, serves_dhcp=True) for system in SUITES]
    return [*daemons, *servers, *(recipe(system, bare=True) for system in SUITES)]


def _remove_leftovers(building: Path) -> None:
    """Remove the remains of interrupted builds, except of images that another process builds now."""
    for leftover in building.parent.glob(".building-*"):
        name = leftover.name.removeprefix(".building-").removesuffix(".log").removesuffix("-old")
        lock = _lock(building.with_name(name))
        if f".building-{name}" == building.name:
            _remove(leftover)
            continue
        with lock.open("w") as held, suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(leftover)


def _remove(leftover: Path) -> None:
    if leftover.is_dir():
        shutil.rmtree(leftover)
    else:
        leftover.unlink(missing_ok=True)  # the log of a build that failed


def _lock(root: Path) -> Path:
    """Return the file that the builder of an image locks."""
    return root.with_name(f".lock-{root.name}")


def _stamp(root: Path) -> Path:
    """Return the file whose modification time is the last use of an image."""
    return root.with_name(f".wanted-{root.name}")


def _images_of_twins() -> set[str]:
    """Return the images of all running twins, also those that another version of l3hv started."""
    found: set[str] = set()
    for path in RUN.glob("*/twin.json"):
        found.update((read_json(path) or {}).get("images", {}).values())
    return found


def _lower_directories() -> set[str]:
    """Return the lower directories of every overlay that any process of the host has mounted."""
    found: set[str] = set()
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        with suppress(OSError):  # a process that has ended
            found.update(re.findall(r"\blowerdir=([^,:\s]+)", mounts.read_text()))
    return found


@contextmanager
def _locked(path: Path, how: int, say_waiting: Callable[[], None]) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            say_waiting()
            fcntl.flock(lock, how)
        yield


def _debootstrap(wanted: Recipe, root: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise TwinError("debootstrap is missing: install the packages of './twin packages'")
    command = [
        # The kernel removes debootstrap's mounts with their mount namespace, however debootstrap ends.
        "unshare",
        "--mount",
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(wanted.packages)}",
        wanted.suite,
        str(root),
        debian_mirror(),
    ]
    log = root.with_name(f"{root.name}.log")
    with log.open("w") as out:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | proxy_variables() | {"LC_ALL": "C.UTF-8"},
        )
    if done.returncode != 0:
        last = log.read_text().strip().splitlines()[-1:]
        raise TwinError(
            f"debootstrap of {wanted.suite} failed ({' '.join(last)}): see {log}, "
            "check the mirror, and run it again"
        )
    log.unlink()


def _configure_system(wanted: Recipe, root: Path) -> None:
    """Configure a new root file system so that each machine of each twin can boot it."""

    def write(path: str, text: str) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    write(
        "etc/apt/sources.list",
        sources_list(wanted.suite, mirror=debian_mirror(), security=debian_mirror("debian-security")),
    )
    write("etc/ssh/sshd_config.d/twin.conf", wanted.sshd_settings)
    write("etc/systemd/journald.conf.d/twin.conf", JOURNAL_SETTINGS)
    write("etc/default/locale", "LANG=C.UTF-8\n")
    write("etc/machine-id", "")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    write("etc/resolv.conf", "# A twin has no route to the outside, hence no name server.\n")
    for verb, units in (("disable", DISABLED_UNITS), ("mask", MASKED_UNITS)):
        for unit in units:
            # Ignore errors: the lists are for all systems, and each system lacks some of the units.
            subprocess.run(
                ["systemctl", f"--root={root}", verb, unit],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
    for directory in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log", "tmp"):
        for entry in (root / directory).iterdir():
            if entry.is_dir() and directory != "var/log":
                shutil.rmtree(entry)
            elif entry.is_file():
                entry.unlink()
    (root / "var/lib/apt/lists/partial").mkdir(exist_ok=True)
    (root / "var/cache/apt/archives/partial").mkdir(exist_ok=True)


def sources_list(suite: str, *, mirror: str, security: str) -> str:
    """Return the sources.list(5) of a machine of a Debian suite."""
    return (
        f"deb {mirror} {suite} main\n"
        f"deb {mirror} {suite}-updates main\n"
        f"deb {security} {suite}-security main\n"
    )


def debian_mirror(archive: str = "debian", apt: Path = Path("/etc/apt")) -> str:
    """Return the host's own mirror of a Debian archive, or Debian's.

    It reads ``sources.list`` and ``sources.list.d`` in both formats of sources.list(5).
    """
    for uri, components in _sources(apt):
        parts = urlsplit(uri)
        if (
            parts.scheme in ("http", "https")
            and parts.path.rstrip("/").endswith(f"/{archive}")
            and "main" in components
        ):
            return uri.rstrip("/")
    return f"{DEBIANS_OWN}/{archive}"


def _sources(apt: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (URI, components) of the host's enabled binary sources."""
    directory = apt / "sources.list.d"
    for path in [apt / "sources.list", *sorted(directory.glob("*.list"))]:
        if path.is_file():
            yield from _one_line_sources(path.read_text())
    for path in sorted(directory.glob("*.sources")):
        yield from _deb822_sources(path.read_text())


def _one_line_sources(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+\S+\s*([^#]*)", line.strip())
        if match:
            yield match[1], match[2].split()


def _deb822_sources(text: str) -> Iterator[tuple[str, list[str]]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields.setdefault(name, []).extend(line.split())
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.split()
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
            for uri in fields.get("uris", []):
                yield uri, fields.get("components", [])


def proxy_variables() -> dict[str, str]:
    """Return the proxy of the host's apt as environment variables for debootstrap."""
    found = {}
    for scheme in ("http", "https"):
        variable = f"{scheme}_proxy"
        if os.environ.get(variable):
            continue
        shell = subprocess.run(
            ["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        match = re.match(r"PROXY='(.+)'", shell.stdout)
        if match and match[1] != "DIRECT":
            found[variable] = match[1]
    return found

"""The systems that machines boot: one base image per system, built once and cached."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from l3hv.twin import TwinError
from l3hv.twin.state import RUN, read_json

CACHE = Path("/var/cache/l3hv")
KEEP_UNUSED_S = 3600
"""Images of other recipes are kept for this long after a twin has last wanted them."""
DEBIANS_OWN = "http://deb.debian.org"
"""Where an archive comes from if the host itself has no mirror of it: it may run another distribution."""
DEFAULT_SYSTEM = "debian13"

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
DAEMON_PACKAGES = {
    "bird1": ("bird",),
    "bird2": ("bird2",),
    "bird3": ("bird3",),
    "frr": ("frr", "frr-pythontools"),
    "gobgp": ("gobgpd",),
}
"""What is installed for a routing daemon of the inventory. BIRD's packages exclude each other."""
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
"""What a guest's user space has: the network clients of Debian, and something to look with."""

# What no machine of a twin needs: kernel modules, consoles, and timers that wake up all
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
# What the roles enable: nothing of it may run before they did.
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
    """What makes a base image: the digest of these fields (and of the settings) names it."""

    system: str
    suite: str
    packages: tuple[str, ...]
    sshd_settings: str

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when anything in the image would."""
        facts = [asdict(self), MASKED_UNITS, DISABLED_UNITS, JOURNAL_SETTINGS]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


SUITES = {"debian12": "bookworm", "debian13": "trixie"}
DAEMONS = {
    "debian12": ("bird1", "bird2", "frr", "gobgp"),
    "debian13": ("bird2", "bird3", "frr", "gobgp"),
}
"""The routing daemons that each system has."""


def recipe(system: str, daemon: str = DEFAULT_DAEMON, *, bare: bool = False) -> Recipe:
    """The recipe of ``system`` with ``daemon``; bare leaves out the packages that the roles install."""
    if system not in SUITES:
        raise TwinError(f"no image is known for the system {system!r}: choose one of {', '.join(SUITES)}")
    if daemon not in (known := DAEMONS[system]):
        raise TwinError(
            f"no image is known for the daemon {daemon!r} on {system}: choose one of {', '.join(known)}"
        )
    # OpenSSH 9.8 (Debian 13) punishes a source with many connections; earlier ones refuse the word.
    sshd_settings = SSHD_SETTINGS + ("PerSourcePenalties no\n" if system == "debian13" else "")
    if bare:
        return Recipe(f"{system}-bare", SUITES[system], BASE_PACKAGES, sshd_settings)
    packages = BASE_PACKAGES + DAEMON_PACKAGES[daemon] + ROUTING_PACKAGES
    name = system if daemon == DEFAULT_DAEMON else f"{system}-{daemon}"
    return Recipe(name, SUITES[system], packages, sshd_settings)


def guest_recipe(system: str) -> Recipe:
    """The recipe of the user space of a guest."""
    return Recipe(f"{system}-guest", SUITES[system], GUEST_PACKAGES, "")


def image_root(wanted: Recipe) -> Path:
    """Where the root file system of a recipe is, or will be."""
    return CACHE / "images" / f"{wanted.system}-{wanted.digest}"


def ensure_image(wanted: Recipe, say: Callable[[str], None], *, rebuild: bool = False) -> Path:
    """The root file system of ``wanted``, built first when it is not cached.

    Two builders at once build once.  The image appears by a rename: an interrupted build
    leaves a directory that the next build removes.
    """
    root = image_root(wanted)
    root.parent.mkdir(parents=True, exist_ok=True)
    _stamp(root).touch()
    if root.is_dir() and not rebuild:
        return root
    with _locked(root.parent / ".lock", say):
        if root.is_dir() and not rebuild:
            return root
        for leftover in root.parent.glob(".building-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()  # the log of a build that failed
        building = root.parent / f".building-{root.name}"
        say(f"building the image {root.name} (about a minute)")
        _debootstrap(wanted, building)
        _settle(wanted, building)
        if root.is_dir():
            # Machines that run from the old image keep it open until they stop.
            old = root.parent / ".building-old"
            root.rename(old)
            building.rename(root)
            shutil.rmtree(old)
        else:
            building.rename(root)
        prune(wanted, root)
        return root


def prune(wanted: Recipe, root: Path) -> None:
    """Remove the images of other recipes for the same thing that no twin has wanted for a while.

    One that a twin stands on stays, and so does one whose machines are just about to be started.
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


def _stamp(root: Path) -> Path:
    """The file that tells, by its time, when an image was last wanted."""
    return root.with_name(f".wanted-{root.name}")


def _images_of_twins() -> set[str]:
    """Return the images that standing twins were started with, also those of other versions of the twin."""
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
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debootstrap(wanted: Recipe, root: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise TwinError("debootstrap is missing: install the packages of './twin packages'")
    command = [
        # A mount namespace of its own takes debootstrap's mounts away with it, however it ends.
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


def _settle(wanted: Recipe, root: Path) -> None:
    """Make the fresh system one that any machine of any twin can boot."""

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
            # Units that the system does not have are no error: the list serves all systems.
            subprocess.run(
                ["systemctl", f"--root={root}", verb, unit],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
    for litter in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log", "tmp"):
        for entry in (root / litter).iterdir():
            if entry.is_dir() and litter != "var/log":
                shutil.rmtree(entry)
            elif entry.is_file():
                entry.unlink()
    (root / "var/lib/apt/lists/partial").mkdir(exist_ok=True)
    (root / "var/cache/apt/archives/partial").mkdir(exist_ok=True)


def sources_list(suite: str, *, mirror: str, security: str) -> str:
    """The sources.list(5) of a machine of a Debian suite."""
    return (
        f"deb {mirror} {suite} main\n"
        f"deb {mirror} {suite}-updates main\n"
        f"deb {security} {suite}-security main\n"
    )


def debian_mirror(archive: str = "debian", apt: Path = Path("/etc/apt")) -> str:
    """The mirror of an archive of Debian that the host itself uses, or Debian's own.

    Reads ``sources.list`` and ``sources.list.d`` in both formats of sources.list(5).
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
    """Each (URI, components) of the host's enabled binary sources."""
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
    """The proxy of the host's apt as the environment variables that debootstrap reads."""
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

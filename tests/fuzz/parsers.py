"""The parsers of all daemons, run on many files at once.

``unshare --mount --net --pid --fork python parsers.py IMAGE FILES`` prints the refused files. It runs in
separate namespaces, because tests share the image, and some parsers have no dry run and configure the kernel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PARSERS = {
    "/etc/bird/bird.conf": "bird -p -c {}",
    "/etc/bird/bird6.conf": "bird6 -p -c {}",
    "/etc/frr/frr.conf": "vtysh --dryrun --inputfile {}",
    "/etc/l3hv/gobgp/public.toml": "gobgpd --dry-run --config-file={}",
    "/etc/l3hv/gobgp/private.toml": "gobgpd --dry-run --config-file={}",
    "/etc/l3hv/dhcp.conf": "dnsmasq --test --conf-file={}",
    "/etc/l3hv/nftables.conf": "nft --check --file {}",
    "/etc/radvd.conf": "radvd --configtest --logmethod=stderr_clean --config={}",
    "/etc/sysctl.d/zz-l3hv.conf": "! /lib/systemd/systemd-sysctl {} 2>&1 | grep {}",
    "/etc/systemd/system/bird.service.d/zz-l3hv.conf": (
        "cp {} /etc/systemd/system/bird.service.d/zz-l3hv.conf && "
        "! systemd-analyze verify bird.service 2>&1 | grep l3hv.conf"
    ),
}
NETWORKD = "/etc/systemd/network/"
NETWORKD_CONF = "/etc/systemd/networkd.conf.d/l3hv.conf"
TABLES = "/etc/l3hv/tables.conf"
TABLE_NAMES = "/etc/iproute2/rt_tables.d/l3hv.conf"
IS_LOADED = "Enumeration completed"
SINCE_257 = re.compile(r"Unknown key.* 'IPv4(Forwarding|ReversePathFilter)'")
"""Settings that an older systemd-networkd ignores; sysctl.d sets the same values."""


class Files:
    """The different texts of the files of hosts, each with the number of an inventory that has it.

    ``together`` are files that use table names of another file, by the text of that file.
    """

    def __init__(self) -> None:
        self.alone: dict[str, dict[str, int]] = {dest: {} for dest in PARSERS}
        self.together: dict[str, dict[str, dict[str, int]]] = {NETWORKD_CONF: {}, TABLE_NAMES: {}}

    def add(self, files: dict[str, str], origin: int) -> None:
        for dest, text in files.items():
            if dest in self.alone:
                keys = files.get("/etc/bird/l3hv-keys.conf", "")
                self.alone[dest].setdefault(text.replace('include "l3hv-keys.conf";', keys), origin)
            elif dest.startswith(NETWORKD):
                # A name is used once in a directory, an interface's configuration may be there many times.
                self.together[NETWORKD_CONF].setdefault(files[NETWORKD_CONF], {}).setdefault(text, origin)
            elif dest == TABLES:
                self.together[TABLE_NAMES].setdefault(files[TABLE_NAMES], {}).setdefault(text, origin)

    def __str__(self) -> str:
        counts = Counter({dest: len(texts) for dest, texts in self.alone.items()})
        for dest, by_names in self.together.items():
            counts[dest] = sum(map(len, by_names.values()))
        return ", ".join(f"{dest} {count}" for dest, count in counts.items())


def refusals(files: Files, image: Path, directory: Path) -> list[tuple[int, str]]:
    """Return the files that the parsers of ``image`` refuse: the inventory's number and the error message."""
    (directory / "files.json").write_text(json.dumps(vars(files)))
    done = subprocess.run(
        [
            *["unshare", "--mount", "--net", "--pid", "--fork"],
            sys.executable,
            __file__,
            image,
            directory / "files.json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(origin, words) for origin, words in json.loads(done.stdout)]


def main(root: Path, files: Path) -> None:
    wanted = json.loads(files.read_text())
    for kind, place in (
        ("proc", "proc"),
        ("tmpfs", "run"),
        ("tmpfs", "mnt"),
        ("tmpfs", "etc/systemd/network"),
    ):
        subprocess.run(["mount", "-t", kind, kind, root / place], check=True)
    roles = Path(__file__).resolve().parents[2] / "roles"
    shutil.copy(roles / "tables/files/tables-sync", root / "mnt/tables-sync")
    units = root / "mnt/units"
    units.mkdir()
    subprocess.run(["mount", "--bind", units, root / "etc/systemd/system"], check=True)
    for unit in roles.glob("*/files/*.service"):
        shutil.copy(unit, units)
    (units / "bird.service.d").mkdir()
    for directory in ("etc/iproute2/rt_tables.d", "etc/iproute2/rt_protos.d"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / directory], check=True)
    shutil.copy(roles / "tables/files/rt_protos.conf", root / "etc/iproute2/rt_protos.d/l3hv.conf")
    os.chroot(root)
    os.chdir("/")
    found = [
        *(
            refused
            for dest, texts in wanted["alone"].items()
            for refused in parsed_alone(PARSERS[dest], texts)
        ),
        *(
            refused
            for conf, texts in wanted["together"][NETWORKD_CONF].items()
            for refused in networkd(conf, texts)
        ),
        *(
            refused
            for names, texts in wanted["together"][TABLE_NAMES].items()
            for refused in tables(names, texts)
        ),
    ]
    json.dump(found, sys.stdout)


def parsed_alone(command: str, texts: dict[str, int]) -> Iterator[tuple[int, str]]:
    for text, origin in texts.items():
        Path("/mnt/file").write_text(text)
        done = run(command.replace("{}", "/mnt/file"))
        if done.returncode != 0:
            yield origin, f"{command}: {done.stdout}"


def networkd(conf: str, texts: dict[str, int]) -> Iterator[tuple[int, str]]:
    """Let systemd-networkd read its files; it logs each line that it ignores."""
    Path("/run/systemd/networkd.conf.d").mkdir(parents=True, exist_ok=True)
    Path("/run/systemd/networkd.conf.d/l3hv.conf").write_text(conf)
    for old in Path(NETWORKD).iterdir():
        old.unlink()
    origins = list(texts.values())
    for number, text in enumerate(texts):
        suffix = "netdev" if "[NetDev]" in text else "network"
        Path(f"{NETWORKD}{number}.{suffix}").write_text(text)
    daemon = subprocess.Popen(
        ["/lib/systemd/systemd-networkd"],
        env={"SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_LOG_TARGET": "console", "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.stderr is not None
    impatience = threading.Timer(20, daemon.kill)
    impatience.start()
    for line in daemon.stderr:
        if line.startswith(NETWORKD) and "Successfully loaded" not in line and not SINCE_257.search(line):
            yield origins[int(line.removeprefix(NETWORKD).partition(".")[0])], line
        elif line.startswith("/run/systemd/networkd.conf.d"):
            yield origins[0], line
        elif IS_LOADED in line:
            break
    else:
        yield origins[0], "systemd-networkd ended before it had read its files"
    impatience.cancel()
    daemon.kill()
    daemon.wait()
    daemon.stderr.close()


def tables(names: str, texts: dict[str, int]) -> Iterator[tuple[int, str]]:
    """Load the rules, and check that the kernel has the rules of the file."""
    Path("/etc/iproute2/rt_tables.d/l3hv.conf").write_text(names)
    run("ip link set lo up")
    for text, origin in texts.items():
        Path("/mnt/file").write_text(text)
        done = run("/mnt/tables-sync apply /mnt/file && /mnt/tables-sync in-force /mnt/file")
        if done.returncode != 0:
            yield origin, f"tables-sync: {done.stdout}"


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The program that reconfigures FRR to its file and hides secrets, with the FRR of each distribution."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rendered import ROOT, files_of_plan, read_plan, rendered_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter a machine's file system")

PROGRAMS = ROOT / "roles/frr/files"
PLAN = ROOT / "tests/golden/owned/expected/rr1/plan.yml"
SECRET, OTHER = "only-for-tests-1", "only-for-tests-2"
KEY_OF = "neighbor 198.51.100.1 password"

Sh = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(params=["debian12", "debian13"])
def sh(request: pytest.FixtureRequest, tmp_path: Path) -> Sh:
    """Return a function that runs a script beside an FRR with the golden file and the keys of /mnt/keys."""
    image = ["twin", "image", "--system", request.param, "--daemon", "frr"]
    done = subprocess.run([ROOT / image[0], *image[1:]], capture_output=True, text=True, check=True, cwd=ROOT)
    root = Path(done.stdout.split()[-1])
    (tmp_path / "frr.conf").write_text(rendered_files(PLAN)["/etc/frr/frr.conf"])
    (tmp_path / "keys").write_text(f'fabric = "{SECRET}"\n')
    (tmp_path / "frr").mkdir()
    for name, place in (("frr-sync", tmp_path / "frr-sync"), ("vtysh", tmp_path / "frr/vtysh")):
        place.write_text((PROGRAMS / name).read_text().replace("/etc/l3hv/frr-keys", "/mnt/keys"))
        place.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\ntouch /mnt/restarted\n")
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    start = """
        mkdir /run/frr
        cp /mnt/frr.conf /etc/frr/frr.conf
        echo service integrated-vtysh-config >/etc/frr/vtysh.conf
        chown -R frr:frr /run/frr /var/log/frr
        daemons="zebra bgpd bfdd $(ls /usr/lib/frr | grep -x mgmtd || true)"
        for daemon in $daemons; do /usr/lib/frr/$daemon -d -A 127.0.0.1 -P 0 --log file:/var/log/frr/log; done
        trap 'kill -9 $(pidof $daemons)' EXIT
        boot() { /mnt/frr/vtysh -b 2>&1; }
        in_force() { /mnt/frr-sync in-force 2>&1; }
        apply() { PATH=/mnt/bin:$PATH /mnt/frr-sync apply 2>&1; }
        running() { vtysh -c 'show running-config'; }
        boot
    """

    def run(script: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script").write_text(start + script)
        enter = f"""
            hostname rr1
            for place in run etc/frr var/log/frr var/tmp; do mount -t tmpfs tmpfs {root}/$place; done
            mount -t proc proc {root}/proc
            mount --bind {tmp_path} {root}/mnt
            ip link set lo up
            chroot {root} sh -e /mnt/script
        """
        command = [
            "unshare",
            "--mount",
            "--net",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-ec",
            enter,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    return run


def test_frr_starts_with_its_keys_and_runs_its_file(sh: Sh) -> None:
    done = sh(
        f"running | grep -qx ' {KEY_OF} {SECRET}'; in_force; ! apply | grep .; test ! -e /mnt/restarted"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("vtysh -c 'configure' -c 'ip prefix-list stranger permit 192.0.2.0/24'", "stranger"),
        (f"vtysh -c 'configure' -c 'router bgp 65000 view public' -c 'no {KEY_OF}'", "198.51.100.1"),
        (f"echo 'fabric = \"{OTHER}\"' >/mnt/keys", "other keys for 172.22.15.1"),
    ],
)
def test_a_difference_is_named_and_reconfigured(sh: Sh, change: str, seen: str) -> None:
    done = sh(f"{change}; ! in_force; apply; in_force; test ! -e /mnt/restarted; running >/mnt/runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in (SECRET, OTHER))


def test_a_new_secret_is_configured_and_the_last_one_removed(sh: Sh, tmp_path: Path) -> None:
    change = f"""
        echo 'fabric = "{OTHER}"' >/mnt/keys
        apply
        running | grep ' password ' | sort -u >/mnt/changed
        sed -i '/ password /d' /etc/frr/frr.conf
        rm /mnt/keys
        ! in_force
        apply
        in_force
        ! running | grep ' password '
        test ! -e /mnt/restarted
    """
    done = sh(change)
    assert done.returncode == 0, done.stdout + done.stderr
    changed = (tmp_path / "changed").read_text()
    assert f" {KEY_OF} {OTHER}\n" in changed
    assert SECRET not in changed
    assert not any(secret in done.stdout + done.stderr for secret in (SECRET, OTHER))


def test_secrets_are_only_in_the_files_of_root(sh: Sh, tmp_path: Path) -> None:
    """No output of FRR's vtysh, no log and no file of another user has a secret."""
    done = sh(f"""
        /mnt/frr/vtysh -c 'show running-config no-header' >/mnt/shown
        /mnt/frr/vtysh -m -f /run/l3hv-frr/frr.conf >>/mnt/shown
        echo 'fabric = "{OTHER}"' >/mnt/keys
        apply
        grep -rl -e {SECRET} -e {OTHER} /run /etc/frr /var/log /tmp 2>/dev/null >/mnt/found || true
        stat -c '%a %U' /run/l3hv-frr /run/l3hv-frr/frr.conf >/mnt/modes
    """)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = (tmp_path / "shown").read_text()
    assert shown.count("neighbor 198.51.100.1 remote-as") == 2
    assert "password" not in shown
    assert (tmp_path / "found").read_text().split() == ["/run/l3hv-frr/frr.conf"]
    assert (tmp_path / "modes").read_text().split() == ["700", "root", "600", "root"]


def test_sessions_stay_up_and_none_begins_during_a_reconfiguration() -> None:
    """A neighbour's BIRD never recovers from a session that begins with half of the configuration."""
    script = f"""
import runpy, socket
gate = runpy.run_path("{PROGRAMS}/frr-sync")["gate"]
listener = socket.create_server(("127.0.0.1", 179))
before, (own, _) = socket.create_connection(("127.0.0.1", 179)), listener.accept()
late = socket.socket()
late.settimeout(0.5)
with gate():
    before.sendall(b"keepalive")
    assert own.recv(9) == b"keepalive"
    try:
        late.connect(("127.0.0.1", 179))
    except TimeoutError:
        pass
    else:
        raise AssertionError("it began")
socket.create_connection(("127.0.0.1", 179), timeout=5)
"""
    inside = 'ip link set lo up; python3 -c "$1"; nft list ruleset'
    command = ["unshare", "--net", "sh", "-ec", inside, "sh", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_refused_line_does_not_show_its_secret(sh: Sh) -> None:
    refused = "s/^ neighbor 198.51.100.1 remote-as/ neighbor 192.0.2.1 password key_fabric\\n&/"
    done = sh(f"sed -i '{refused}' /etc/frr/frr.conf; ! boot")
    assert "neighbor 192.0.2.1 password (not shown)" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_llgr_keeps_stale_routes_without_bfd() -> None:
    plan = read_plan(PLAN)
    sessions = [{**own, "failure_profile": "llgr", "bfd": False} for own in plan["routing"]["sessions"]]
    routing = plan["routing"] | {"sessions": sessions, "failure_profiles": ["llgr"]}
    text = files_of_plan(plan | {"routing": routing})["/etc/frr/frr.conf"]
    assert text.count("\n bgp long-lived-graceful-restart stale-time ") == text.count("\nrouter bgp ") == 2
    assert "graceful-restart-disable" not in text
    assert "bfd" not in text


def test_the_program_waits_once_for_a_hanging_daemon(sh: Sh) -> None:
    done = sh(
        """
        kill -STOP $(pidof bgpd)
        for what in in_force apply; do
            began=$(date +%s)
            ! $what
            echo "$what took $(($(date +%s) - began)) s"
        done
        test ! -e /mnt/restarted
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("does not answer within 10 s") == 2
    times = [int(line.split()[-2]) for line in done.stdout.splitlines() if " took " in line]
    assert len(times) == 2
    assert max(times) < 18

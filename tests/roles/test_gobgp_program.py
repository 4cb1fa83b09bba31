"""The program that compares GoBGP with its file, with the GoBGP of each distribution."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rendered import ROOT, read_plan, rendered_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter a machine's file system")

PROGRAM = ROOT / "roles/gobgp/files/gobgp-sync"
GOLDEN = ROOT / "tests/golden"
PLANS = {
    "debian12": GOLDEN / "gobgp/expected/rr3/plan.yml",
    "debian13": GOLDEN / "gobgp/expected/rr1/plan.yml",
}
RANGES = {
    "debian12": GOLDEN / "range_gobgp/expected/rr2/plan.yml",
    "debian13": GOLDEN / "range_gobgp/expected/rr1/plan.yml",
}
API = "unix:///run/l3hv-gobgp-public/api"
NEIGHBORS = (1, 2, 60)

Sh = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(params=PLANS)
def sh(request: pytest.FixtureRequest, tmp_path: Path) -> Sh:
    return beside_gobgp(request.param, PLANS[request.param], tmp_path)


@pytest.fixture(params=RANGES)
def range_sh(request: pytest.FixtureRequest, tmp_path: Path) -> Sh:
    return beside_gobgp(request.param, RANGES[request.param], tmp_path)


def beside_gobgp(system: str, path: Path, tmp_path: Path) -> Sh:
    """Return a function that runs a script beside a GoBGP ($daemon) with the golden /mnt/public.toml."""
    image = ["twin", "image", "--system", system, "--daemon", "gobgp"]
    done = subprocess.run([ROOT / image[0], *image[1:]], capture_output=True, text=True, check=True, cwd=ROOT)
    root = Path(done.stdout.split()[-1])
    files = rendered_files(path)
    (tmp_path / "public.toml").write_text(files["/etc/l3hv/gobgp/public.toml"])
    (tmp_path / "gobgp-sync").write_text(PROGRAM.read_text())
    routing = read_plan(path)["routing"]
    local = (routing["sessions"] + routing["ranges"])[0]["local"]
    start = f"""
        mkdir /run/l3hv-gobgp-public
        gobgpd --config-file=/mnt/public.toml --pprof-disable --api-hosts={API} >/mnt/log 2>&1 &
        daemon=$!
        trap "kill -9 $daemon" EXIT
        until gobgp --target {API} global 2>/dev/null | grep -q Router-ID; do sleep 0.1; done
        note_ranges() {{ python3 -c '
import json, runpy, tomllib
program = runpy.run_path("/mnt/gobgp-sync")
with open("/mnt/public.toml", "rb") as file, open(program["RANGES"].format("public"), "w") as noted:
    json.dump(program["intended_ranges"](tomllib.load(file)), noted)'; }}
        note_ranges
        in_force() {{ python3 /mnt/gobgp-sync in-force /mnt/public.toml 2>&1; }}
        reload() {{ kill -HUP $daemon; sleep 1; }}
    """

    def run(script: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script").write_text(start + script)
        enter = f"""
            mount -t tmpfs tmpfs {root}/run
            mount --bind {tmp_path} {root}/mnt
            ip link set lo up
            ip address add {local}/32 dev lo
            chroot {root} sh -e /mnt/script
        """
        command = ["unshare", "--mount", "--net", "sh", "-ec", enter]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_a_started_gobgp_runs_its_file(sh: Sh) -> None:
    done = sh("in_force")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (
            "s/25[.][.]32/26..32/",
            "prefix set accept_public4_from_hypervisors, prefix set announce_public4",
        ),
        ("s/set-local-pref = 100/set-local-pref = 99/", "policy judge"),
        ('s/set-med = .*/set-med = \\"9\\"/', "policy judge"),
        ("s/value = 1/value = 2/", "policy judge"),
        ("s/[.]\\*:[.]\\*:[.]\\*/1:.*:.*/", "policy judge"),
        ('s/next-hop-in-list = .*/next-hop-in-list = [\\"192.0.2.1\\/32\\"]/', "policy accept"),
    ],
)
def test_a_reload_applies_a_changed_policy(sh: Sh, edit: str, parts: str) -> None:
    done = sh(f'sed -i "{edit}" /mnt/public.toml; in_force || true; reload; in_force')
    assert done.returncode == 0, done.stdout
    assert done.stdout == f"public: GoBGP differs from its file in {parts}\n"


def test_a_reload_adds_and_removes_a_prefix_limit(sh: Sh) -> None:
    done = sh(
        "sed -i '/^# hv1,/,/^# hv2,/s/max-prefixes = 256/max-prefixes = 512/' /mnt/public.toml;"
        "in_force || true; reload; in_force;"
        "sed -i '/^# hv1,/,/^# hv2,/{/max-prefixes/d}' /mnt/public.toml; in_force || true; reload; in_force"
    )
    assert done.returncode == 0, done.stdout
    assert len(set(done.stdout.splitlines())) == 1, done.stdout
    assert done.stdout.startswith("public: GoBGP differs from its file in neighbour ")


def test_a_reload_adds_and_removes_neighbors(sh: Sh) -> None:
    done = sh(
        "cp /mnt/public.toml /mnt/all; sed -i '/^# hv2,/,$d' /mnt/public.toml;"
        "in_force || true; reload; in_force;"
        "cp /mnt/all /mnt/public.toml; in_force || true; reload; in_force"
    )
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0].startswith("public: GoBGP differs from its file in neighbour ")


def test_differences_that_a_reload_does_not_apply_are_reported(sh: Sh) -> None:
    """The role restarts GoBGP for this reason."""
    done = sh(
        "sed -i 's/^router-id = .*/router-id = \"192.0.2.1\"/; s/hold-time = 9/hold-time = 12/'"
        " /mnt/public.toml; reload; in_force"
    )
    assert done.returncode != 0
    assert done.stdout.startswith("public: GoBGP differs from its file in global, neighbour ")
    assert 0 < done.stdout.count("neighbour ") < len(NEIGHBORS)


def test_a_changed_range_is_reported_until_the_next_start(range_sh: Sh) -> None:
    """GoBGP does not show its ranges: the program compares the file with the ranges at the start."""
    done = range_sh(
        "in_force; sed -i 's/max-prefixes = 256/max-prefixes = 512/' /mnt/public.toml; in_force || true;"
        "sed -i 's/clients_public/others/' /mnt/public.toml; in_force || true;"
        "note_ranges; in_force || true"
    )
    assert done.returncode == 0, done.stderr
    changed, renamed, noted = done.stdout.splitlines()
    assert changed == "public: GoBGP differs from its file in range clients_public"
    assert "range clients_public" in renamed
    assert "range others" in renamed
    assert "range" not in noted
    assert "policy accept" in noted


def test_a_missing_next_hop_of_the_neighbor_is_a_difference(tmp_path: Path) -> None:
    sh = beside_gobgp("debian13", RANGES["debian13"], tmp_path)
    done = sh("sed -i '/set-next-hop/d' /mnt/public.toml; in_force || true; reload; in_force")
    assert done.returncode == 0, done.stdout
    assert done.stdout == "public: GoBGP differs from its file in policy accept\n"


def test_a_stopped_gobgp_is_reported(sh: Sh) -> None:
    done = sh("kill -9 $daemon; trap - EXIT; in_force")
    assert done.returncode != 0
    assert done.stdout.startswith("public: no answer (")


@pytest.mark.parametrize("wrong", ["hold-times = 9", 'hold-time = "soon"'])
def test_gobgp_refuses_unknown_settings(sh: Sh, wrong: str) -> None:
    done = sh(
        f"sed -i 's/hold-time = 9/{wrong}/' /mnt/public.toml; gobgpd --dry-run --config-file=/mnt/public.toml"
    )
    assert done.returncode != 0

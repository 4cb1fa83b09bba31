"""The rendered files of golden plans are the expected ones, and the parsers of all daemons accept them."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rendered import PLANS, ROOT, read_plan, rendered_files

from l3hv.keys.rotation import keys_in_use

# The files of these cases are compared with expected files; the parsers read the files of all cases.
KEPT = {
    *(
        "bird1",
        "blocks",
        "data_planes",
        "dhcp-relay",
        "foreign",
        "gobgp",
        "igp",
        "ipv6_only_guests",
        "lab",
        "layouts",
        "link-local-gateway",
        "mesh",
        "mesh_of_blocks",
        "ndp-proxy",
        "one_path",
        "owned",
        "range_frr",
        "range_gobgp",
        "reflectors",
        "strict",
        "vlans",
        "vrf",
    )
}
PARSERS = {
    "/etc/bird/bird.conf": "bird -p -c {}",
    "/etc/bird/bird6.conf": "bird6 -p -c {}",
    "/etc/l3hv/gobgp/public.toml": "gobgpd --dry-run --config-file={}",
    "/etc/l3hv/gobgp/private.toml": "gobgpd --dry-run --config-file={}",
    "/etc/frr/frr.conf": "vtysh --dryrun --inputfile {}",
    "/etc/l3hv/dhcp.conf": "dnsmasq --test --conf-file={}",
    "/etc/radvd.conf": "radvd --configtest --logmethod=stderr_clean --config={}",
    "/etc/l3hv/nftables.conf": "nft --check --file {}",
}


def name(path: Path) -> str:
    return f"{path.parts[-4]}-{path.parts[-2]}"


@pytest.mark.parametrize("path", [path for path in PLANS if path.parts[-4] in KEPT], ids=name)
def test_files_are_the_expected_ones(path: Path, expect_file: Callable[[Path, str], None]) -> None:
    expected = path.parent
    files = {dest: text for dest, text in rendered_files(path).items() if "Ansible managed" in text}
    for dest, text in files.items():
        expect_file(expected / dest.lstrip("/"), text)
    kept = {f"/{file.relative_to(expected)}" for file in expected.glob("*/**/*") if file.is_file()}
    assert kept == set(files)


@pytest.mark.parametrize("path", PLANS, ids=name)
def test_no_file_has_a_missing_value_or_superfluous_empty_lines(path: Path) -> None:
    for dest, text in rendered_files(path).items():
        if "Ansible managed" in text:
            lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
            assert not any(word in line.split() for line in lines for word in ("None", "True", "False")), dest
            assert "\n\n\n" not in text, f"{dest} has two empty lines in a row"
            assert text.endswith("\n"), dest
            assert not text.endswith("\n\n"), dest


@pytest.mark.parametrize("path", PLANS, ids=name)
def test_keys_in_use_are_read_from_the_files(path: Path) -> None:
    """The rotation of keys reads the keys of sessions from the files of BIRD and FRR."""
    routing, files = read_plan(path)["routing"], rendered_files(path)
    texts = [files[f"/etc/bird/{program['name']}.conf"] for program in routing["programs"] if files]
    texts += [files[path] for path in ("/etc/frr/frr.conf",) if path in files]
    sessions = routing["sessions"] + routing["ranges"] if texts else []
    assert keys_in_use(texts) == {session["name"]: session["key"] for session in sessions}


@functools.cache
def image(*options: str) -> Path:
    """Return the file system of a machine with its daemons."""
    if os.geteuid() != 0:
        pytest.skip("only root can enter a machine's file system")
    command = [str(ROOT / "twin"), "image", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return Path(done.stdout.split()[-1])


def image_of(plan: dict[str, Any]) -> Path:
    """Return the default image for all versions of BIRD 2, because they have the same grammar."""
    daemon = plan["routing"]["daemon"]
    if daemon["name"] in ("bird2", "junos"):
        return image()
    return image("--system", daemon["system"], "--daemon", daemon["name"])


@pytest.mark.parametrize("path", PLANS, ids=name)
def test_the_daemons_own_parsers_accept_the_files(path: Path, tmp_path: Path) -> None:
    files, root = rendered_files(path), image_of(read_plan(path))
    commands = []
    for dest, text in files.items():
        if Path(dest).parent in {Path(parsed).parent for parsed in PARSERS}:
            staged = tmp_path / dest.lstrip("/")
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text(text)
            if dest in PARSERS:
                commands.append(PARSERS[dest].format(f"/mnt{dest}"))
    # The parsers run in separate namespaces: tests share the image, and nft accesses the kernel.
    script = f"mount --bind {tmp_path} {root}/mnt && chroot {root} sh -ec '{' && '.join(commands)}'"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-ec", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

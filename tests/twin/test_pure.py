"""Functions of the twin that change nothing on the host."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from l3hv.model.topology import Machine, Port, Topology
from l3hv.twin import HOST_PACKAGES, TwinError, image, network, probe, state
from l3hv.twin.state import Twin

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("module", [network, probe, state], ids=lambda module: module.__name__)
def test_examples_of_the_documentation(module):
    assert doctest.testmod(module).failed == 0


def test_packages_print_with_the_standard_library_only():
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(REPOSITORY / "twin"), "packages"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == list(HOST_PACKAGES)


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "1st", "x" * 13])
def test_invalid_names_of_a_twin_are_refused(name):
    with pytest.raises(TwinError, match="not a valid name of a twin"):
        Twin(name, print)


def test_interface_names_fit_and_differ():
    pairs = [(f"machine{a}", f"eno{b}.{c}") for a in range(20) for b in range(4) for c in (90, 91)]
    names = [network.interface_name(*pair) for pair in pairs]
    assert len(set(names)) == len(pairs)
    assert max(map(len, names)) <= 15


def test_macs_are_local_and_differ():
    macs = {network.stable_mac(f"hv{number}", "eno1") for number in range(500)}
    assert len(macs) == 500
    assert all(mac.startswith("02:") for mac in macs)


def test_machine_numbers_stay_when_machines_are_added_and_removed():
    def of(*names):
        return Topology(tuple(Machine(name, "hypervisor", "debian13", ()) for name in names), ())

    first = state.machine_numbers(of("a", "b", "c"), {})
    then = state.machine_numbers(of("c", "d", "a"), first)
    assert (then["a"], then["c"]) == (first["a"], first["c"])
    assert len(set(then.values())) == 3


def test_a_too_long_interface_name_is_refused():
    ports = (Port("interface-of-16-c", "a", "public", 1500),)
    with pytest.raises(TwinError, match="1 to 15 characters"):
        state.check_names(Topology((Machine("m", "hypervisor", "debian13", ports),), ()))


def test_a_machine_of_junos_cannot_be_adopted():
    junos = Machine("rr1", "route_reflector", "junos", (), "junos")
    state.check_names(Topology((replace(junos, managed=False),), ()))
    with pytest.raises(TwinError, match="rr1 runs Junos"):
        state.check_names(Topology((junos,), ()))


@pytest.mark.parametrize(
    "names",
    [
        ["hv-1", "hv_1"],
        ["hv_1", "hv.1_"],
        ["_x_.y_"],
        [f"{'a' * 40}.example.net", "a" * 40],
        ["x" * 64, "__"],
    ],
    ids=str,
)
def test_host_names_are_valid_and_differ(names):
    found = list(state.host_names(names).values())
    assert len(set(found)) == len(names)
    label = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    assert all(re.fullmatch(rf"{label}(\.{label})*", name) and len(name) <= 64 for name in found)


def test_an_invalid_topology_is_refused():
    with pytest.raises(TwinError, match="no topology"):
        state.topology_from({"machines": [{"name": "m"}]})


def test_the_longest_outage_counts():
    step = 0.01
    sent = [number * step for number in range(12)]
    answered = [1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1]
    assert probe.outage(sent, answered, step) == pytest.approx(3 * step)


def test_a_flow_without_answers_is_out_for_the_whole_probe():
    sent = [number * 0.01 for number in range(100)]
    assert probe.outage(sent, [0] * 100, 0.01) == pytest.approx(1.0)


def test_a_late_sender_does_not_count_as_an_outage():
    assert probe.outage([0.0, 0.01, 0.5, 0.51], [1, 1, 1, 1], 0.01) == 0


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", "deb http://mirror.example/debian trixie main # ours\n", "http://mirror.example/debian"),
        (
            "sources.list",
            "deb-src http://no.example/debian trixie main\n"
            "deb [arch=amd64 signed-by=/x] https://yes.example/pub/debian/ trixie main contrib\n",
            "https://yes.example/pub/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "# a comment\nTypes: deb\nURIs: http://deb822.example/debian\n"
            "Suites: trixie\n  trixie-updates\nComponents: main\n",
            "http://deb822.example/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n",
            f"{image.DEBIANS_OWN}/debian",
        ),
        ("sources.list", "deb http://other.example/ubuntu noble main\n", f"{image.DEBIANS_OWN}/debian"),
    ],
)  # fmt: skip
def test_the_mirror_of_the_host(tmp_path, name, text, mirror):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert image.debian_mirror(apt=tmp_path) == mirror


def test_images_with_different_content_have_different_names():
    recipes = [
        image.recipe(*each) for each in (("debian12", "bird2"), ("debian13", "bird2"), ("debian13", "bird3"))
    ]
    recipes += [image.recipe(system, bare=True) for system in image.SUITES]
    recipes += [image.recipe(system, serves_dhcp=True) for system in image.SUITES]
    assert len({image.image_root(recipe) for recipe in recipes}) == len(recipes)


def test_an_unknown_system_is_refused():
    with pytest.raises(TwinError, match="choose one of debian12, debian13"):
        image.recipe("slackware")


def test_a_bare_image_with_a_dhcp_server_is_refused():
    with pytest.raises(TwinError, match="a bare image has no DHCP server"):
        image.recipe("debian13", bare=True, serves_dhcp=True)


def test_a_daemon_without_a_package_in_the_system_is_refused():
    with pytest.raises(TwinError, match="choose one of bird1, bird2"):
        image.recipe("debian12", "bird3")


def test_unused_images_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = image.recipe("debian13")
    monkeypatch.setattr(image, "RUN", tmp_path / "run")
    images = tmp_path / "images"
    new = images / f"debian13-{wanted.digest}"
    names = ["debian13-000000000000", "debian13-111111111111", "debian13-222222222222"]
    others = ["debian13-bird3-333333333333", "debian12-444444444444", ".building-debian13-555555555555"]
    for name in (new.name, *names, *others):
        (images / name).mkdir(parents=True)
        os.utime(images / name, (0, 0))
    (images / ".wanted-debian13-111111111111").touch()
    (tmp_path / "run/other").mkdir(parents=True)
    standing = {"images": {"debian13-bird2": str(images / "debian13-222222222222")}}
    (tmp_path / "run/other/twin.json").write_text(json.dumps(standing))
    image.prune(wanted, new)
    left = {path.name for path in images.iterdir() if path.is_dir()}
    assert left == {new.name, *others, "debian13-111111111111", "debian13-222222222222"}


# Replaces debootstrap: creates a directory once the expected number of builds run at the same time.
BUILDER = """\
#!/bin/sh
touch {place}/running-$$
end=$(($(date +%s) + 10))
until [ "$(ls {place} | grep -c running)" -ge {together} ]; do
    [ "$(date +%s)" -lt "$end" ] || exit 1
    sleep 0.05
done
for directory; do
    case $directory in
    */.building-*) mkdir -p "$directory" && cd "$directory" && mkdir -p etc tmp var/log {apt} ;;
    esac
done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="images are built by root")
def test_different_images_are_built_in_parallel_and_each_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/debootstrap"
    program.parent.mkdir()
    program.write_text(
        BUILDER.format(place=tmp_path, together=2, apt="var/cache/apt/archives var/lib/apt/lists")
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(image, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    leftover = tmp_path / "cache/images/.building-debian12-000000000000"
    leftover.mkdir(parents=True)
    one, other = image.recipe("debian12"), image.recipe("debian13")
    messages: list[str] = []
    roots = image.ensure_images([one, other, one], messages.append)
    assert roots == [image.image_root(one), image.image_root(other), image.image_root(one)]
    assert all(root.is_dir() for root in roots)
    assert len(list(tmp_path.glob("running-*"))) == 2
    assert not leftover.exists()

"""The files of units have the settings that verification expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendered import PLANS, ROOT, read_plan, rendered_files

from l3hv.plan.units import REQUIRED_SETTINGS
from l3hv.verify.values import UnitSettings

GOLDEN = ROOT / "tests/golden"
UNITS = "etc/systemd/system"
HARDENING = "zz-l3hv-hardening.conf"


def files_of(unit: str) -> list[Path]:
    """Return the files of a unit: those of the roles, and the rendered ones of golden hosts."""
    short = unit.removeprefix("systemd-").removesuffix(".service")
    ours = [*ROOT.glob(f"roles/*/files/{unit}"), *ROOT.glob(f"roles/*/files/{short}.drop-in.conf")]
    name = unit.replace("l3hv-gobgp.service", "l3hv-gobgp-*.service")
    found = [
        *GOLDEN.glob(f"*/expected/*/{UNITS}/{name}"),
        *GOLDEN.glob(f"*/expected/*/{UNITS}/{name}.d/zz-l3hv.conf"),
    ]
    return [path for path in (*ours, *found) if path.is_file()]


def assignments(path: Path, keys: set[str]) -> dict[str, str]:
    """Return the settings of a file: the last assignment of each key counts; an empty one resets a list."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and key in keys:
            found[key] = value
    return found


@pytest.mark.parametrize("unit", REQUIRED_SETTINGS)
def test_a_units_files_have_the_settings_that_verification_expects(unit: str) -> None:
    paths = files_of(unit)
    assert paths, f"no golden has a file of {unit}"
    for path in paths:
        found = assignments(path, {*REQUIRED_SETTINGS[unit]})
        assert UnitSettings.of(found) == UnitSettings.of(REQUIRED_SETTINGS[unit]), path


def test_drop_ins_of_the_roles_override_those_of_systemctl_edit() -> None:
    places = {
        line.split()[-1]
        for tasks in [*ROOT.glob("roles/*/tasks/main.yml"), *ROOT.glob("roles/*/vars/main.yml")]
        for line in tasks.read_text().splitlines()
        if line.lstrip(" -").startswith("dest:") and ".service.d/" in line
    }
    assert {Path(place).name for place in places} == {"zz-l3hv.conf", HARDENING}
    # Where a unit needs an exception from the common settings, its own drop-in is read after them.
    assert sorted(["override.conf", HARDENING, "zz-l3hv.conf"]) == [
        "override.conf",
        HARDENING,
        "zz-l3hv.conf",
    ]


def unit_files() -> dict[str, list[tuple[str, str]]]:
    """Return, by unit, the names and texts of its files on each kind of host with each daemon."""
    plans = {
        (plan["kind"], plan["routing"]["daemon"]["name"]): path
        for path in PLANS
        if (plan := read_plan(path))["managed"]
    }
    units: dict[str, list[tuple[str, str]]] = {}
    for path in plans.values():
        for dest, text in rendered_files(path).items():
            if dest.startswith(f"/{UNITS}/") and not dest.endswith(".timer"):
                unit = dest.split("/")[4].removesuffix(".d")
                units.setdefault(unit, []).append((Path(dest).name, text))
    return units


def test_every_unit_that_can_have_the_common_settings_has_them_in_their_own_file_only() -> None:
    """FRR's package starts its daemons as root, and systemd-networkd brings settings of its own."""
    common = (ROOT / "roles/hardening.conf").read_text()
    names = {line.partition("=")[0] for line in common.splitlines() if line and line[0] not in "#["}
    assert len(names) > 15
    units = unit_files()
    assert len(units) > 10
    for unit, files in units.items():
        is_hardened = unit not in ("frr.service", "systemd-networkd.service")
        assert {text for name, text in files if name == HARDENING} == ({common} if is_hardened else set()), (
            unit
        )
        own = "\n".join(text for name, text in files if name != HARDENING)
        assert not [name for name in names if f"\n{name}=" in own], unit


def test_units_that_examine_their_main_process_wait_for_its_account() -> None:
    """With Type=simple, ExecStartPost can begin while the new process still runs as root."""
    asking = [
        path
        for path in GOLDEN.glob(f"*/expected/*/{UNITS}/**/*")
        if path.is_file() and "$MAINPID" in path.read_text()
    ]
    assert asking
    for path in asking:
        assert assignments(path, {"Type"}) == {"Type": "exec"}, path

"""The intent read from real inventories: which hosts a run reads again, and which plans it keeps."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleError

from l3hv.inventory import octal
from l3hv.inventory.ansible import Inventory, open_inventory
from l3hv.inventory.files import place_of_error, stamp, strays
from l3hv.inventory.read import Run, read_fabric, read_topology
from l3hv.model.errors import IntentError
from l3hv.run.removals import record_applied

LAB = Path(__file__).resolve().parents[2] / "inventories" / "lab"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Return a copy of the lab's inventory that the test may change."""
    copy = tmp_path / "lab"
    shutil.copytree(LAB, copy)
    return copy


@pytest.fixture
def read(lab: Path, tmp_path: Path) -> Callable[..., tuple[Run, set[str]]]:
    """Return a function that plans some hosts, and returns the run and the hosts that were read."""

    def run(*touched: str) -> tuple[Run, set[str]]:
        inventory = open_inventory(lab)
        asked: set[str] = set()

        def raw(host: str) -> object:
            asked.add(host)
            return inventory.raw(host)

        watched = Inventory(inventory.groups, raw, inventory.template, inventory.sources)  # type: ignore[arg-type] # a plain function for raw
        return read_fabric(watched, touched or tuple(inventory.groups["all"]), tmp_path / "fabric"), asked

    return run


def append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as text:
        text.write(line)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    # The timestamps of a file system may be too coarse for two edits of a fast test.
    os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)


def test_a_full_run_reads_all_hosts_and_writes_their_plans(
    read: Callable[..., tuple[Run, set[str]]],
) -> None:
    run, asked = read()
    assert asked == {"hv1", "hv2", "hv3", "rr1", "rr2", "internet"}
    assert {path.stem for path in run.plans.glob("*.json")} == asked
    assert (run.hosts, run.guests) == (6, 4)
    assert set(json.loads(run.announcements.read_text(encoding="utf-8"))) == asked


def test_a_limited_run_reads_its_host_and_the_reflectors(read: Callable[..., tuple[Run, set[str]]]) -> None:
    read()
    run, asked = read("hv2")
    assert asked == {"hv2", "rr1", "rr2"}
    assert (run.hosts, run.guests) == (6, 4)
    assert len(json.loads(run.announcements.read_text(encoding="utf-8"))) == 6


def test_a_limited_run_without_stored_plans_reads_all_hosts(
    read: Callable[..., tuple[Run, set[str]]],
) -> None:
    _, asked = read("hv2")
    assert len(asked) == 6


def test_a_changed_file_is_read_again(lab: Path, read: Callable[..., tuple[Run, set[str]]]) -> None:
    read()
    edit(lab / "host_vars" / "hv3.yml", "203.0.113.4", "203.0.113.5")
    run, asked = read("hv2")
    assert asked == {"hv2", "hv3", "rr1", "rr2"}
    announced = json.loads(run.announcements.read_text(encoding="utf-8"))
    assert "203.0.113.5/32" in announced["hv3"]["tables"]["public4"]["prefixes"]


def test_a_limited_run_detects_clashes_with_other_hosts(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    read()
    edit(lab / "host_vars" / "hv2.yml", "203.0.113.3", "203.0.113.4")
    with pytest.raises(IntentError, match=r"203\.0\.113\.4 is already used by"):
        read("hv2")


def test_a_limited_run_gives_a_strict_reflector_all_new_guests(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    (lab / "group_vars" / "route_reflectors.yml").write_text("l3hv_origin_validation: strict\n")
    read()
    edit(lab / "host_vars" / "hv3.yml", "203.0.113.4", "203.0.113.5")
    run, _ = read("rr1")
    stored = json.loads((run.plans / "rr1.json").read_text(encoding="utf-8"))
    owners = stored["routing"]["owners"]
    assert [each["host"] for each in owners if ["203.0.113.5/32", 32] in each["ipv4"]] == ["hv3"]
    run, _ = read("hv2")
    stored = json.loads((run.plans / "hv2.json").read_text(encoding="utf-8"))
    assert stored["routing"]["owners"] == []


def test_a_limited_run_counts_all_holders_of_an_anycast_prefix(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    """Guests of hv1 and hv2 hold the prefix in the lab; the run does not read hv3."""
    (lab / "group_vars" / "hypervisors.yml").write_text("l3hv_anycast: spread\n")
    read()
    edit(lab / "host_vars" / "hv3.yml", "ipv4: 203.0.113.4", "ipv4: 203.0.113.4\n    anycast: [203.0.113.10]")
    for hosts in ({"hv1", "hv3", "rr1", "rr2"}, {"hv1", "rr1", "rr2"}):
        run, asked = read("hv1")
        stored = json.loads((run.plans / "hv1.json").read_text(encoding="utf-8"))
        assert asked == hosts
        shares = [share for domain in stored["packet_filter"]["anycast"] for share in domain["shares"]]
        assert {share["family"]: share["holders"] for share in shares} == {"ipv4": 3, "ipv6": 2}


def test_a_changed_fabric_variable_makes_a_run_read_all_hosts(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    read()
    edit(lab / "group_vars" / "all" / "fabric.yml", "l3hv_asn: 65000", "l3hv_asn: 65001")
    _, asked = read("hv2")
    assert len(asked) == 6


def test_a_new_reflector_makes_a_run_read_all_hosts(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    read()
    shutil.copy(lab / "host_vars" / "rr1.yml", lab / "host_vars" / "rr3.yml")
    edit(lab / "host_vars" / "rr3.yml", "l3hv_id: 126", "l3hv_id: 125")
    edit(lab / "hosts.yml", "    rr2:\n", "    rr2:\n    rr3:\n")
    _, asked = read("hv2")
    assert len(asked) == 7


def test_a_removed_host_is_removed_from_the_cache(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    read()
    edit(lab / "hosts.yml", "    hv3:\n", "")
    (lab / "host_vars" / "hv3.yml").unlink()
    run, _ = read("hv2")
    assert "hv3" not in json.loads(run.announcements.read_text(encoding="utf-8"))


def test_templated_intent_is_resolved_and_never_cached(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    edit(lab / "host_vars" / "hv3.yml", "l3hv_id: 3", 'l3hv_id: "{{ [1, 2] | sum }}"')
    run, _ = read()
    assert json.loads((run.plans / "hv3.json").read_text(encoding="utf-8"))["id"] == 3
    _, asked = read("hv2")
    assert "hv3" in asked


def test_an_inventory_script_is_never_cached(lab: Path) -> None:
    program = lab / "hosts.py"
    program.write_text("#!/bin/sh\necho '{}'\n", encoding="utf-8")
    program.chmod(0o755)
    assert not stamp((lab,)).static


def test_a_fabric_variable_that_differs_on_one_host_is_a_problem(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    append(lab / "host_vars" / "hv2.yml", "l3hv_asn: 65009\n")
    with pytest.raises(IntentError, match="hv2: l3hv_asn: The value differs from the one of hv1"):
        read()


def test_the_host_that_alone_differs_is_named_also_if_it_comes_first(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    append(lab / "host_vars" / "hv1.yml", "l3hv_asn: 65009\n")
    with pytest.raises(IntentError, match="one problem:\n  hv1: l3hv_asn: The value differs"):
        read()


def test_a_reflector_warns_about_hosts_with_another_mtu(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    append(lab / "host_vars" / "hv1.yml", "l3hv_mtu: 9000\n")
    run, _ = read()
    warnings = json.loads((run.plans / "rr1.json").read_text(encoding="utf-8"))["warnings"]
    mtus = "the hosts on path a have different MTUs (1500: hv2, hv3, internet; 9000: hv1)"
    assert any(line.startswith(mtus) for line in warnings)


def test_an_octal_number_beside_a_template_is_a_problem(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    append(lab / "host_vars" / "hv1.yml", 'l3hv_timers: {bfd_interval_ms: "{{ 100 }}", hold_s: 030}\n')
    with pytest.raises(IntentError, match="YAML reads 030 as an octal number"):
        read()


def test_an_invalid_intent_writes_no_file(
    lab: Path, tmp_path: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    edit(lab / "host_vars" / "hv1.yml", "l3hv_id: 1", "l3hv_id: 300")
    with pytest.raises(IntentError):
        read()
    assert not list((tmp_path / "fabric").rglob("*.json"))


def test_the_topology_has_every_machine_and_guest(lab: Path) -> None:
    topology = read_topology(lab)
    assert [machine.name for machine in topology.machines] == ["hv1", "hv2", "hv3", "internet", "rr1", "rr2"]
    assert [guest.name for guest in topology.guests] == ["vm1", "vm2", "vm3", "vm4"]


def test_a_path_without_an_inventory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntentError, match="There is no such file or directory"):
        open_inventory(tmp_path / "nowhere")


def test_a_variables_file_without_a_host_is_a_warning(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    assert read("hv1")[0].warnings == ()
    (lab / "host_vars" / "hv33.yaml").write_text("l3hv_id: 33\n")
    (lab / "host_vars" / "somebody").mkdir()
    (lab / "host_vars" / "somebody" / "vars.yml").write_text("l3hv_id: 9\n")
    assert read("hv1")[0].warnings == (
        f"{lab}/host_vars/hv33.yaml is not read: the inventory has no such host."
        " Add the host, or remove the file.",
        f"{lab}/host_vars/somebody is not read: the inventory has no such host."
        " Add the host, or remove the file.",
    )


def test_a_misspelt_file_is_reported_with_the_host_that_lacks_one(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    (lab / "host_vars" / "rr1.yml").rename(lab / "host_vars" / "rr11.yml")
    with pytest.raises(IntentError, match=r"rr11\.yml.*Did you mean rr1\?"):
        read("hv1")


def test_a_group_file_without_a_group_is_a_warning(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    (lab / "group_vars" / "hypervisor.yml").write_text("l3hv_mtu: 1500\n")
    assert read("hv1")[0].warnings == (
        f"{lab}/group_vars/hypervisor.yml is not read: the inventory has no such group."
        " Did you mean hypervisors?",
    )


@pytest.mark.parametrize("group", ["hypervisors", "route_reflectors", "edge_routers"])
def test_a_misspelt_group_is_a_problem(
    lab: Path, read: Callable[..., tuple[Run, set[str]]], group: str
) -> None:
    edit(lab / "hosts.yml", f"{group}:", f"{group[:-1]}:")
    with pytest.raises(IntentError, match=f"The host is in {group[:-1]}: did you mean {group}\\?"):
        read()


def test_a_host_without_a_group_is_a_problem_only_with_variables_of_l3hv(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    with (lab / "hosts.yml").open("a") as hosts:
        hosts.write("others: {hosts: {printer: }}\n")
    (lab / "host_vars" / "printer.yml").write_text("paper: a4\n")
    assert "printer" in read("hv1")[1]
    assert "printer" not in read("hv1")[1], "an unchanged host was read again"
    edit(lab / "host_vars" / "printer.yml", "paper: a4", "l3hv_id: 9")
    with pytest.raises(
        IntentError,
        match=r"printer: groups: The host has .* in none of the groups .* Put it into one",
    ):
        read("hv1")


def test_an_unread_file_is_a_problem_if_a_host_is_missing(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    """A host was renamed in the inventory, but its file was not."""
    apply(*read())
    (lab / "host_vars" / "hv22.yml").write_text("l3hv_id: 2\n")
    edit(lab / "host_vars" / "hv2.yml", "l3hv_id: 2\n", "")
    with pytest.raises(IntentError, match=r"host_vars/hv22\.yml: The inventory has no such host") as raised:
        read()
    assert "hv2: l3hv_id: is missing." in str(raised.value)
    edit(lab / "hosts.yml", "    hv2:\n", "")
    with pytest.raises(IntentError, match=r"host_vars/hv22\.yml: The inventory has no such host"):
        read()
    for path in lab.glob("host_vars/hv2*"):
        path.unlink()
    assert read()[0].warnings == ()


def test_an_inventory_without_a_fabric_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("router: {hosts: {node7: }}\n")
    inventory = open_inventory(tmp_path / "hosts.yml")
    with pytest.raises(IntentError, match=r"No host of .*hosts\.yml is in a group of the fabric\."):
        read_fabric(inventory, ["node7"], tmp_path / "fabric")


def test_a_run_limited_to_other_hosts_is_a_problem(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    with (lab / "hosts.yml").open("a") as hosts:
        hosts.write("others: {hosts: {printer: }}\n")
    with pytest.raises(IntentError, match=r"--limit: The run has no host of .*: it selects printer"):
        read("printer")


def apply(run: Run, _: set[str]) -> None:
    """Record that a run was applied to all its hosts."""
    record_applied(
        run.memory,
        run.applied,
        [path.stem for path in run.plans.glob("*.json")],
        ["hv1", "hv2", "hv3", "rr1"],
    )


def test_a_run_names_removed_hosts_and_their_guests(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    apply(*read())
    edit(lab / "hosts.yml", "    hv3:\n", "")
    (lab / "host_vars" / "hv3.yml").unlink()
    removed = read()[0].removals
    assert removed.sentences() == [
        "hv3 has left the inventory. This run ends its sessions with rr1, rr2, and cuts off its guest vm4."
    ]
    assert not removed.needs_consent, "the run removes one host of six and one guest of four"
    assert read("hv1")[0].removals.count == 0, "hv1 has no session with the removed host"
    assert read("rr1")[0].removals.hosts == (("hv3", ("rr1",)),)


def test_an_unapplied_run_does_not_count_as_the_last_run(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    read()
    edit(lab / "hosts.yml", "    hv3:\n", "")
    (lab / "host_vars" / "hv3.yml").unlink()
    assert read()[0].removals.count == 0


def test_guests_that_move_are_not_removed(lab: Path, read: Callable[..., tuple[Run, set[str]]]) -> None:
    apply(*read())
    guests = (lab / "host_vars" / "hv1.yml").read_text().partition("l3hv_guests:\n")[2]
    edit(lab / "host_vars" / "hv1.yml", "l3hv_guests:\n" + guests, "")
    removed = read()[0].removals
    assert removed.guests == (("vm1", "hv1"), ("vm2", "hv1"))
    assert removed.needs_consent, "the run removes two guests of four"
    with (lab / "host_vars" / "hv3.yml").open("a") as hv3:
        hv3.write(guests)
    assert read()[0].removals.count == 0


def test_each_variant_of_an_inventory_has_its_own_record(lab: Path, tmp_path: Path) -> None:
    """A removal that was applied in a twin is not recorded for production."""
    inventory = open_inventory(lab)
    runs = {
        variant: read_fabric(inventory, inventory.kinds()[0], tmp_path / "fabric", variant=variant)
        for variant in ("", "twin")
    }
    assert runs[""].memory != runs["twin"].memory


def test_an_edit_that_keeps_time_and_size_is_detected(
    lab: Path, tmp_path: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    """`cp -p` and `rsync -t` make such edits: a run limited to hv3 detects the clash with its guest."""
    read()
    path = lab / "host_vars" / "hv2.yml"
    before = path.stat()
    text = path.read_text().replace("203.0.113.3", "203.0.113.4")
    for write in (lambda: path.write_text(text), lambda: os.replace(tmp_path / "new", path)):
        (tmp_path / "new").write_text(text)
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        write()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
        with pytest.raises(IntentError, match=r"203\.0\.113\.4 is already used by"):
            read("hv3")


def test_other_files_in_host_vars_cause_no_warning(
    lab: Path, read: Callable[..., tuple[Run, set[str]]]
) -> None:
    """Test all forms of host_vars, hosts outside the fabric, and files that Ansible does not read."""
    variables = lab / "host_vars"
    (variables / "hv1.yml").rename(variables / "hv1")
    (variables / "hv2.yml").rename(variables / "hv2.yaml")
    (variables / "hv3").mkdir()
    (variables / "hv3.yml").rename(variables / "hv3" / "main.yml")
    for name in ("README.md", "hv1.yml.orig", "hv1.yml~", ".hv1.yml.swp", "NOTES", "printer.json"):
        (variables / name).write_text("{}\n")
    with (lab / "hosts.yml").open("a") as hosts:
        hosts.write("others: {hosts: {printer: }}\n")
    assert read("hv1")[0].warnings == ()


def test_shared_variable_files_apply_to_the_hosts_of_all_inventories(lab: Path) -> None:
    source = lab / "hosts.yml"
    (lab / "host_vars" / "elsewhere.yml").write_text("l3hv_id: 9\n")
    assert len(strays(stamp([source]), [source], ["hv1", "hv2", "hv3", "rr1", "rr2", "internet"])) == 1
    (lab / "others.yml").write_text("all: {hosts: {elsewhere: }}\n")
    assert strays(stamp([source]), [source], ["hv1", "hv2", "hv3", "rr1", "rr2", "internet"]) == []


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("l3hv_id: 03", None),  # the same number either way
        ("l3hv_id: 010", "l3hv_id"),
        ("l3hv_id: 3\nl3hv_timers: {hold_s: 017}", r"l3hv_timers\.hold_s"),
    ],
)
def test_a_number_that_yaml_reads_as_octal_is_a_problem(
    lab: Path, read: Callable[..., tuple[Run, set[str]]], written: str, place: str | None
) -> None:
    edit(lab / "host_vars" / "hv3.yml", "l3hv_id: 3", written)
    if place is None:
        read()
        return
    with pytest.raises(IntentError, match=rf"hv3: {place}: YAML reads 01\d as an octal number") as raised:
        read()
    assert "Write it without leading zeros: 1" in str(raised.value)


def test_an_ansible_without_value_origins_works(
    lab: Path,
    read: Callable[..., tuple[Run, set[str]]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The origin of a value comes from an internal interface of Ansible, which may disappear."""
    monkeypatch.setitem(sys.modules, "ansible._internal._datatag._tags", None)
    functions = (octal._origin_tag, octal._warn_of_octals)
    for function in functions:
        function.cache_clear()
    edit(lab / "host_vars" / "hv3.yml", "l3hv_id: 3", "l3hv_id: 03")
    try:
        assert read()[0].hosts == 6
    finally:
        for function in functions:
            function.cache_clear()
    warning = " ".join(capfd.readouterr().err.split())
    assert warning.count("Numbers with leading zeros, which YAML reads as octal, are not refused") == 1


def test_problems_of_ini_values_name_the_correct_notation(tmp_path: Path) -> None:
    """Ansible gives a value in INI another type than the same text in YAML."""
    (tmp_path / "hosts.ini").write_text(
        "[hypervisors]\n"
        "hv1 l3hv_id=010 l3hv_managed=false l3hv_management_sources=['192.0.2.8']\n"
        "[all:vars]\n"
        "l3hv_asn=65000\n"
        "l3hv_paths={a: b}\n"
    )
    inventory = open_inventory(tmp_path / "hosts.ini")
    with pytest.raises(IntentError) as raised:
        read_fabric(inventory, ["hv1"], tmp_path / "fabric")
    for sentence in (
        "hv1: l3hv_id: expected a host id from 1 to 16777215, found the text '010'."
        " Write it without leading zeros and quotes: 10.",
        "hv1: l3hv_managed: expected true or false, found the text 'false'."
        " Write true or false without quotes; in an INI inventory, True or False.",
        "hv1: l3hv_management_sources: expected a list, found the text '[192.0.2.8]'. INI inventories and -e",
        "all: l3hv_paths: expected a mapping, found the text '{a: b}'. INI inventories and -e",
    ):
        assert sentence in str(raised.value)


def test_a_yaml_error_is_reported_with_its_line(lab: Path) -> None:
    file = lab / "host_vars" / "hv2.yml"
    file.write_text("l3hv_id: [2\n")
    with pytest.raises(AnsibleError) as caught:
        read_topology(lab)
    assert place_of_error(caught.value).startswith(f"{file}:2:")
    assert place_of_error(ValueError()) == ""

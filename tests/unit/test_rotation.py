"""Rotation of session keys, path by path: the order of changes, and refused rotations."""

from __future__ import annotations

from typing import Any

import pytest
from intents import COMMON, EDGE, REFLECTORS, common_of, hypervisor, slices
from jinja2.utils import htmlsafe_json_dumps

from l3hv.keys.rotation import key_changes, keys_in_use, rotation_problems, routing_until, sessions_missed
from l3hv.model.plain import as_plain
from l3hv.plan.host import host_plan

SECRETS = {"old": "as it was", "new": "as it will be"}
CONFIGURATION = "! l3hv_config 5007c0e8da227134\n"
PLACED = 'define key_old = "as it was";\n'


def plans(key: Any, **variables: Any) -> dict[str, Any]:
    """Return the plans of a small fabric whose hypervisors have this key (as plain data)."""
    common = common_of({**COMMON, "l3hv_bgp_keys": {"old": "md5", "new": "md5"}})
    hosts = {"hv1": ("hypervisor", hypervisor(1) | {"l3hv_bgp_key": key} | variables), **REFLECTORS, **EDGE}
    return {name: as_plain(host_plan(part)) for name, part in slices(hosts, common).items()}


def in_use(plan: dict[str, Any]) -> dict[str, str | None]:
    """Return the keys in use on a host that has its plan's configuration."""
    return {session["name"]: session["key"] for session in plan["routing"]["sessions"]}


BEFORE, AFTER = plans("old"), plans("new")
FROM = {host: in_use(plan) for host, plan in BEFORE.items()}


def problems(plan: dict[str, Any], keys: dict[str, str | None], **changes: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "configurations": [CONFIGURATION],
        "secrets": SECRETS,
        "placed": PLACED,
        "unmanaged": [],
        "may_cut": False,
    } | changes
    return list(rotation_problems(plan, keys, **arguments))


def test_each_path_changes_once_and_the_last_change_completes_the_plan() -> None:
    changes = {host: key_changes(plan["routing"], FROM[host]) for host, plan in AFTER.items()}
    assert changes["hv1"] == {"a": ["rr1_public", "rr1_private"], "b": ["rr2_public", "rr2_private"]}
    assert changes["rr2"] == {"b": ["hv1_public", "hv1_private"]}
    assert changes["edge"] == {}

    routing = AFTER["hv1"]["routing"]
    first = routing_until(routing, FROM["hv1"], ["a"])
    assert {s["path"]: s["key"] for s in first["sessions"]} == {"a": "new", "b": "old"}
    assert first["session_keys"] == ["new", "old"]
    assert routing_until(routing, FROM["hv1"], []) == BEFORE["hv1"]["routing"]
    assert routing_until(routing, FROM["hv1"], ["a", "b"]) == routing
    assert key_changes(routing, in_use(AFTER["hv1"])) == {}


def test_both_ends_of_a_session_agree_after_each_path() -> None:
    for paths in ([], ["a"], ["a", "b"]):
        keys = {
            host: {s["name"]: s["key"] for s in routing_until(plan["routing"], FROM[host], paths)["sessions"]}
            for host, plan in AFTER.items()
        }
        for reflector in ("rr1", "rr2"):
            for domain in ("public", "private"):
                assert keys["hv1"][f"{reflector}_{domain}"] == keys[reflector][f"hv1_{domain}"]


@pytest.mark.parametrize(("key", "wanted"), [("old", "first"), (None, "first"), ("old", None)])
def test_the_first_key_is_added_and_the_last_one_removed_path_by_path(
    key: str | None, wanted: str | None
) -> None:
    wanted = "new" if wanted else None
    after = plans(wanted)["hv1"]
    routing = routing_until(after["routing"], in_use(plans(key)["hv1"]), ["a"])
    assert {s["path"]: s["key"] for s in routing["sessions"]} == {"a": wanted, "b": key}


def test_a_rotation_without_obstacles_has_no_problem() -> None:
    for host, plan in AFTER.items():
        assert problems(plan, FROM[host]) == []


def test_a_completed_rotation_has_no_problem() -> None:
    """The secret of the old key, which no session uses any more, is not needed."""
    plan = AFTER["hv1"]
    assert problems(plan, in_use(plan), secrets={"new": SECRETS["new"]}, placed="") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secrets": {"new": "as it will be"}}, "l3hv_bgp_secrets has nothing for the key old. Add it"),
        (
            {"placed": 'define key_old = "another";\n'},
            "The secret of the key old is not the one that hv1 uses",
        ),
        ({"unmanaged": ["rr2"]}, "rr2 is managed by another team, and the session rr2_public of hv1 needs"),
    ],
)
def test_an_impossible_rotation_is_refused(changes: dict[str, Any], message: str) -> None:
    found = problems(AFTER["hv1"], FROM["hv1"], **changes)
    assert message in found[0]
    assert not any(secret in sentence for sentence in found for secret in SECRETS.values())


def test_a_host_with_other_sessions_must_be_provisioned_first() -> None:
    (sentence,) = problems(AFTER["hv1"], {"rr1_public": "old"})
    assert sentence.startswith("hv1 has other sessions than its plan: run site.yml with the keys that are")


def test_keys_of_a_gobgp_reflector_cannot_be_rotated() -> None:
    plan = AFTER["rr2"]
    routing = plan["routing"] | {"programs": [], "daemon": plan["routing"]["daemon"] | {"name": "gobgp"}}
    (sentence,) = problems(plan | {"routing": routing}, {})
    assert sentence.startswith("rr2 runs GoBGP, and its sessions have keys: only BIRD's and FRR's are")


@pytest.mark.parametrize("secret", ["as it was", "<'\\u0026\\\\"])
def test_secrets_of_an_frr_reflector_are_in_a_separate_file(secret: str) -> None:
    """The secret is printed as JSON, so that it is the same text in the file."""
    plan = AFTER["rr2"]
    routing = plan["routing"] | {"programs": [], "daemon": plan["routing"]["daemon"] | {"name": "frr"}}
    frr, secrets = plan | {"routing": routing}, SECRETS | {"old": secret}
    placed = f"# old = none\nold = {htmlsafe_json_dumps(secret)}\n"
    assert problems(frr, FROM["rr2"], secrets=secrets, placed=placed) == []
    (sentence,) = problems(frr, FROM["rr2"], secrets=secrets, placed='old = "another"\n')
    assert sentence.startswith("The secret of the key old is not the one that rr2 uses")


def test_keys_in_use_cannot_be_read_from_a_file_that_frr_wrote() -> None:
    plan = AFTER["rr2"]
    routing = plan["routing"] | {"programs": [], "daemon": plan["routing"]["daemon"] | {"name": "frr"}}
    text = "".join(
        f" neighbor {s['neighbor']} description {s['name']}\n neighbor {s['neighbor']} password as it was\n"
        for s in plan["routing"]["sessions"]
    )
    text = f"frr version 10.3\nfrr defaults traditional\n!\nrouter bgp 64512 view public\n{text}"
    keys = keys_in_use([text])
    assert keys == dict.fromkeys(FROM["rr2"])
    (sentence,) = problems(plan | {"routing": routing}, keys, configurations=[text])
    assert sentence.startswith("FRR has written /etc/frr/frr.conf of rr2 itself (`write memory`)")
    assert "as it was" not in sentence


def test_a_host_on_one_path_is_cut_only_with_may_cut() -> None:
    alone = {"l3hv_uplinks": {"a": "eno1"}}
    before, after = plans("old", **alone)["hv1"], plans("new", **alone)["hv1"]
    found = problems(after, in_use(before))
    assert [sentence.partition(",")[0] for sentence in found] == [
        "hv1 is on path a alone in private",
        "hv1 is on path a alone in public",
    ]
    assert problems(after, in_use(before), may_cut=True) == []


def test_the_other_paths_must_be_up() -> None:
    up = {name: {"state": "Established"} for name in FROM["hv1"]}
    routing = AFTER["hv1"]["routing"]
    assert sessions_missed(routing, up, "a") == []
    down = up | {"rr1_public": {"state": "Active"}, "rr2_public": {"state": "Connect"}}
    assert sessions_missed(routing, down, "a") == ["rr2_public"]
    assert sessions_missed(routing, {}, "b") == ["rr1_public", "rr1_private"]


def test_an_empty_file_has_no_session() -> None:
    assert keys_in_use([]) == keys_in_use([""]) == {}

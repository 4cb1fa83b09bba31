"""One fabric with every session layout: provisioned, verified, broken, and attacked.

First each host has a layout of its own, on different daemons; then all hosts have the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from failures import behind_a_router, edited_bird, no_loss, traffic_of_cut, traffic_of_kill
from lab import Converged, Lab, Prefixes, Run, booted, both_families, remote_guests, wait_for

pytestmark = [pytest.mark.matrix, pytest.mark.twin]

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "tests" / "golden" / "layouts" / "intent"

HYPERVISORS = ("hv1", "hv2", "hv3")
REFLECTORS = ("rr1", "rr2")
MACHINES = (*HYPERVISORS, *REFLECTORS, "gw")
SESSIONS = {"per_family": 8, "multiprotocol": 4, "shared": 2}
OWN = {"hv1": "per_family", "hv2": "multiprotocol", "hv3": "shared"}
"""The layouts of the inventory."""

FLOWS = (*both_families("vm1", "vm2"), *both_families("db3", "db1"))
INTERNET = {4: "192.0.2.8", 6: "2001:db8:8888::8"}
DETECTION_MS = 300
SLEEPS_MS = 2200
"""The additional delay of BIRD 2.0.12, which one of the reflectors runs."""


def remote(machine: str) -> Prefixes:
    """Return the prefixes of the guests on other hypervisors and the default routes, in both domains."""
    others = [name[2:] for name in HYPERVISORS if name != machine]
    return {
        **remote_guests(machine, {f"vm{name[2:]}": name for name in HYPERVISORS}, "default"),
        (4, "private"): ["default", *(f"172.22.7.{number}" for number in others)],
        (6, "private"): ["default", *(f"fd00:7100:0:{number}::/64" for number in others)],
    }


CONVERGED = Converged({machine: remote(machine) if machine in HYPERVISORS else {} for machine in MACHINES})


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    """Boot the fabric in a twin of its own, without provisioning it."""
    with booted("layouts", INVENTORY, converged=CONVERGED) as made:
        yield made


@pytest.fixture(scope="module")
def as_written(fabric: Lab) -> Lab:
    """Provision the fabric with its inventory, after any other test. Tests restore its state."""
    fabric.provision()
    return fabric


def as_layout(layout: str) -> dict[str, object]:
    """Return the variables that set a layout on every host; none for the inventory's own layouts."""
    return {} if layout == "mixed" else {"l3hv_session_layout": layout}


def answers(fabric: Lab, guest: str, address: str) -> bool:
    return bool(fabric.run_as_guest(guest, f"busybox ping -c 1 -W 1 {address} >&2 && echo yes || true"))


def guest_address(fabric: Lab, guest: str, family: int) -> str:
    return wait_for(
        f"the IPv{family} address of {guest}",
        lambda: next((own for own in fabric.guest_addresses(guest) if (":" in own) == (family == 6)), ""),
    )


@pytest.mark.parametrize("layout", ["mixed", *SESSIONS])
def test_each_layout(fabric: Lab, layout: str) -> None:
    """Provision, count sessions, check the separation of domains, cut a path, kill a daemon."""
    fabric.provision(variables=as_layout(layout))
    if layout in ("mixed", "shared"):
        assert fabric.provision(variables=as_layout(layout)) == {}
    fabric.wait_until_converged()
    for machine in HYPERVISORS:
        expected = SESSIONS[OWN[machine] if layout == "mixed" else layout]
        assert len(fabric.protocols(machine)) == expected, machine

    for family in (4, 6):
        for one, other in (("vm1", "vm3"), ("db1", "db3"), ("db2", "db3"), ("vm3", "vm2")):
            assert answers(fabric, one, guest_address(fabric, other, family)), f"{one} to {other}"
            across = guest_address(fabric, other.translate(str.maketrans("vmdb", "dbvm")), family)
            assert not answers(fabric, one, across), f"{one} reaches {across} in the other domain"
        assert answers(fabric, "vm3", INTERNET[family])

    flows = (*both_families("vm3", "vm1"), *both_families("db3", "db2"))
    cut = traffic_of_cut(fabric, "hv3", "b", *flows, seconds=5, each=8)
    assert max(cut.outages_ms().values()) <= 1.2 * DETECTION_MS + 100 + SLEEPS_MS + cut.allowance_ms
    kill = traffic_of_kill(fabric, "hv3", "bird", *flows, seconds=5, each=8)
    assert max(kill.outages_ms().values()) == 0


# --- attacks on shared sessions, whose routes carry their domain as a community -------------------


def tables_of(fabric: Lab, prefix: str) -> set[str]:
    """Return the machines and domains that have a route to a prefix of hv3."""
    return {
        f"{machine} {domain}"
        for machine in ("hv1", "hv2")
        for domain in ("public", "private")
        if prefix in fabric.routes(machine, 4, domain)
    }


FORGED = {
    "the community of the other domain": "s/bgp_large_community.add(community_private)/"
    "bgp_large_community.add(community_public)/",
    "both communities": "s/bgp_large_community.add(community_private);/&"
    " bgp_large_community.add(community_public);/",
    "no community": "s/bgp_large_community.add(community_private);//",
    "a community of no domain": "s/^define community_private = .*/"
    "define community_private = (4200000000, 1, 3);/",
    "a next hop in the other domain": "s/bgp_next_hop = 172[.]22[.]15[.]/bgp_next_hop = 198.51.100./",
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_route_enters_no_other_domain(as_written: Lab, forgery: str) -> None:
    as_written.wait_until_converged()
    assert tables_of(as_written, "172.22.7.3") == {"hv1 private", "hv2 private"}
    with edited_bird(as_written, "hv3", FORGED[forgery]):
        wait_for("the forged route to be refused", lambda: not tables_of(as_written, "172.22.7.3"))
        assert tables_of(as_written, "203.0.113.3") == {"hv1 public", "hv2 public"}
        for reflector in REFLECTORS:
            assert "172.22.7.3" not in as_written.run(reflector, "birdc show route table shared4")
    as_written.wait_until_converged()


def test_a_community_has_no_effect_in_a_session_of_one_domain(as_written: Lab) -> None:
    """hv2, whose sessions are not shared, puts the private domain's community on a public route."""
    as_written.wait_until_converged()
    forge = "/^function announce_public4/a bgp_large_community.add((4200000000, 1, 2));"
    with edited_bird(as_written, "hv2", forge):
        for reflector in REFLECTORS:

            def shown(where: str, reflector: str = reflector) -> str:
                return as_written.run(reflector, f"birdc show route {where} 203.0.113.2/32 all")

            wait_for("the forgery", lambda: "1, 2)" in shown("import table hv2_public.ipv4"))
            assert "(4200000000, 1, " not in shown("table public4")
            assert "(4200000000, 1, 1)" in shown("table shared4")
            assert "(4200000000, 1, 2)" not in shown("table shared4")
        assert "203.0.113.2" in as_written.routes("hv3", 4, "public")
        assert "203.0.113.2" not in as_written.routes("hv3", 4, "private")
    as_written.wait_until_converged()


# --- keys and TTLs ---------------------------------------------------------------------------------

SECRETS = {"fabric": "for tests only", "rack2": "for tests only, too"}
OTHERS = {"fabric": "marmot 7 otter", "rack2": "otter 3 lynx"}


def test_no_output_or_file_of_the_controller_has_a_secret(as_written: Lab) -> None:
    """Test the most verbose run, with a changed and an unchanged secret."""
    for secrets in (SECRETS, OTHERS):
        run = as_written.playbook(
            "site.yml", "--check", "--diff", "-vvv", variables={"l3hv_bgp_secrets": secrets}
        )
        output = run.output
        assert ("holds secrets and is not shown" in output) == (secrets == OTHERS)
        assert [secret for secret in (*OTHERS.values(), *SECRETS.values()) if secret in output] == []
    output = as_written.playbook("playbooks/plan.yml", "-vvv").output
    assert "key fabric" in output
    assert SECRETS["fabric"] not in output
    kept = [path for path in (REPOSITORY / "build").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if SECRETS["fabric"].encode() in path.read_bytes()] == []
    for machine in (*HYPERVISORS, *REFLECTORS):  # the edge router has no key
        found = as_written.run(
            machine, "grep -rl 'for tests only' /etc /var/lib /var/log | xargs stat -c '%a %n'"
        )
        assert {line.split()[0] for line in found.splitlines()} == {"600"}, found


def assert_no_session(fabric: Lab, machine: str) -> None:
    """Assert that a machine gets no session, while the others have all sessions except those with it."""
    time.sleep(8)  # longer than two attempts to connect
    assert not any("Established" in state for state in fabric.protocols(machine).values())
    others = [name for name in HYPERVISORS if name != machine]
    assert all(fabric.on_each(others, fabric.established).values())


@pytest.mark.parametrize("machine", HYPERVISORS)
def test_without_the_key_there_is_no_session(as_written: Lab, machine: str) -> None:
    """Test three daemons and layouts."""
    as_written.wait_until_converged()
    with edited_bird(as_written, machine, "/password key_/d", "/authentication md5/d"):
        as_written.run(machine, "birdc restart all")
        assert_no_session(as_written, machine)
    as_written.wait_until_converged()


@pytest.mark.parametrize("machine", HYPERVISORS)
def test_hosts_behind_a_router_get_no_session(as_written: Lab, machine: str) -> None:
    """Packets with a TTL of 254 have passed a router."""
    with behind_a_router(as_written, machine):
        assert_no_session(as_written, machine)


def test_a_key_is_rotated_without_losing_a_packet(fabric: Lab) -> None:
    """Change one path at a time by site.yml, with a session of each layout."""
    fabric.provision(variables={"l3hv_bgp_key": "fabric"})
    for keys in ({"a": "rack2", "b": "fabric"}, {"a": "rack2", "b": "rack2"}):
        with no_loss(fabric, *FLOWS):
            assert fabric.provision(variables={"l3hv_bgp_key": keys})


def rotate(fabric: Lab, key: object, *arguments: str, secrets: dict[str, str] = SECRETS) -> Run:
    """Rotate to these keys with the playbook."""
    variables = {"l3hv_bgp_key": key, "l3hv_bgp_secrets": secrets}
    return fabric.playbook("playbooks/rotate_keys.yml", *arguments, variables=variables)


def interrupt(fabric: Lab, key: str) -> list[int]:
    """Kill a rotation when a host has its files for path a and no BIRD has loaded them.

    Return the remaining processes: Ansible's workers finish their tasks, and then wait without end.
    """
    variables = json.dumps({"l3hv_bgp_key": key, "l3hv_bgp_secrets": SECRETS})
    with subprocess.Popen(
        fabric.ansible_command("ansible-playbook", INVENTORY, "-e", variables, "playbooks/rotate_keys.yml"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        printed, task = [], ""
        for line in process.stdout:
            printed.append(line)
            task = line if line.startswith(("TASK", "RUNNING")) else task
            is_of_path = any("Path a, 1 of 2" in earlier for earlier in printed)
            if is_of_path and "Configure BIRD" in task and line.startswith("changed: ["):
                break
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.killpg(process.pid, signal.SIGKILL)
    assert "changed: [" in printed[-1], "".join(printed[-20:])
    return [int(worker) for worker in workers]


def running_modules(fabric: Lab) -> str:
    """Return the processes of Ansible's modules, which continue after the end of the run."""
    show = "pgrep -fx '/usr/bin/python3[0-9.]*' || true"
    return "".join(fabric.on_each(MACHINES, lambda machine: fabric.run(machine, show)).values())


def placed(fabric: Lab, key: str) -> set[str]:
    """Return the machines with a key in BIRD's files, loaded or not."""
    found = fabric.on_each(
        (*HYPERVISORS, *REFLECTORS), lambda name: fabric.run(name, "cat /etc/bird/bird.conf")
    )
    return {name for name, text in found.items() if f"key_{key};" in text}


def test_the_playbook_rotates_a_key_without_losing_a_packet(fabric: Lab) -> None:
    """One command rotates the key; a rotation that is not possible is refused before it changes anything."""
    fabric.provision(variables={"l3hv_bgp_key": "fabric"})
    fabric.wait_until_converged()
    for refused, key, arguments, secrets in (
        ("without\\s+--limit", "rack2", ("--limit", "hv1"), SECRETS),
        ("has\\s+nothing\\s+for\\s+the\\s+key\\s+fabric", "rack2", (), {"rack2": SECRETS["rack2"]}),
        ("is\\s+not\\s+the\\s+one\\s+that\\s+hv1\\s+uses", "rack2", (), {**SECRETS, "fabric": "x"}),
    ):
        with pytest.raises(AssertionError, match=refused):
            rotate(fabric, key, *arguments, secrets=secrets)
    rehearsal = rotate(fabric, "rack2", "--check", "-vvv")
    assert "Keys change on path a, then on path b." in rehearsal.output
    assert set(rehearsal.changed_hosts()) == set(MACHINES)
    assert fabric.unconverged() == {}

    with fabric.steady_traffic(*FLOWS) as traffic:
        run = rotate(fabric, "rack2")
    print(f"rotated in {run.seconds:.0f} s")
    assert set(run.changed_hosts()) == set(MACHINES)
    assert traffic.lost() == {}
    assert not any(secret in rehearsal.output + run.output for secret in SECRETS.values())
    for machine in (*HYPERVISORS, *REFLECTORS):
        assert "key_fabric" not in fabric.run(machine, "cat /etc/bird/bird.conf /etc/bird/l3hv-keys.conf")
    assert rotate(fabric, "rack2").changed_hosts() == {}
    assert fabric.provision(variables={"l3hv_bgp_key": "rack2"}) == {}


def test_an_interrupted_rotation_continues(fabric: Lab) -> None:
    """First one reflector has the new key and its path is down; then the other path is down too."""
    fabric.provision(variables={"l3hv_bgp_key": "fabric"})
    fabric.wait_until_converged()
    half = {"l3hv_bgp_key": {"a": "rack2", "b": "fabric"}}
    fabric.playbook("site.yml", "--limit", "rr1", "--tags", "bird", variables=half)
    fabric.run("rr2", "birdc disable hv1_public4")
    try:
        with pytest.raises(AssertionError, match="must be up while path a changes"):
            rotate(fabric, "rack2")
    finally:
        fabric.run("rr2", "birdc enable hv1_public4")
    assert set(rotate(fabric, "rack2").changed_hosts()) == {*MACHINES} - {"rr1"}
    assert fabric.unconverged() == {}


def test_a_rotation_killed_before_it_took_effect_continues(fabric: Lab) -> None:
    """The playbook reports files that are placed but not loaded, and loads them without packet loss."""
    fabric.provision(variables={"l3hv_bgp_key": "fabric"})
    fabric.wait_until_converged()
    with fabric.steady_traffic(*FLOWS) as traffic:
        workers = interrupt(fabric, "rack2")
        wait_for("the end of the modules that had begun", lambda: not running_modules(fabric))
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
        begun = placed(fabric, "rack2")
        assert begun
        assert fabric.unconverged() == {}
        rehearsal = rotate(fabric, "rack2", "--check")
        assert begun <= set(rehearsal.changed_hosts())
        assert placed(fabric, "rack2") == begun
        rotate(fabric, "rack2")
        fabric.wait_until_converged()
    assert traffic.lost() == {}
    assert placed(fabric, "rack2") == {*HYPERVISORS, *REFLECTORS}
    assert placed(fabric, "fabric") == set()
    assert rotate(fabric, "rack2").changed_hosts() == {}
    assert fabric.provision(variables={"l3hv_bgp_key": "rack2"}) == {}

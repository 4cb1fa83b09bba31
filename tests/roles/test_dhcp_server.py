"""The DHCP server for guests of hypervisors that relay: a real Kea, with the role's configuration."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from images import ROOT, in_an_image, loaded
from rendered import files_of_role

from l3hv.model.plain import as_plain
from l3hv.model.plan import DhcpServer, RelayingHypervisor, ServedGuest, ServedPool

CONFIGURATION = "/etc/kea/l3hv/kea-dhcp4.conf"
PROGRAM: ModuleType = loaded(ROOT / "roles/dhcp_server/files/dhcp-server")
MAC, NEW_MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:66", "52:54:00:00:00:02"
HV1 = RelayingHypervisor("hv1", "172.22.2.1", "hv1/", 4)
HV2 = RelayingHypervisor("hv2", "172.22.2.2", "hv2/", 4)
VM1 = ServedGuest("vm1", "hv1/vm1", MAC, "203.0.113.1", None)
VM2 = ServedGuest("vm2", "hv2/vm2", OTHER_MAC, "203.0.113.2", 9000)
VM3 = ServedGuest("vm3", "hv2/vm3", "52:54:00:00:00:03", "192.0.2.0", None)
CUSTOMERS = ServedPool(
    id=3405803776,
    name="customers",
    prefix="203.0.113.0/24",
    gateway="203.0.113.254",
    mtu=1500,
    dns=("192.0.2.8", "192.0.2.9"),
    search=("example.net", "a.example.net"),
    routes="00CB0071FE18C63364CB0071FE",
    guests=(VM1, VM2),
)
SINGLE = ServedPool(
    id=3221225984,
    name="single",
    prefix="192.0.2.0/32",
    gateway="169.254.1.1",
    mtu=1400,
    dns=(),
    search=(),
    routes="20A9FE01010000000000A9FE0101",
    guests=(VM3,),
)
SERVER = DhcpServer("172.22.9.53", 43200, (HV1, HV2), (CUSTOMERS, SINGLE))
MOVED = replace(SERVER, pools=(replace(CUSTOMERS, guests=(replace(VM1, circuit_id="hv2/vm1"), VM2)), SINGLE))
REPLACED = replace(
    MOVED,
    pools=(replace(CUSTOMERS, guests=(replace(VM1, circuit_id="hv2/vm1", mac=NEW_MAC), VM2)), SINGLE),
)


@functools.cache
def configuration(server: DhcpServer) -> str:
    """Return the configuration that the role places, with its digest."""
    plan = {"dhcp_server": as_plain(server), "routing": {"session_keys": []}}
    text = files_of_role(ROOT / "roles/dhcp_server", {"role": "dhcp_server"}, plan)[CONFIGURATION]
    return text.replace("@digest@", hashlib.sha256(text.encode()).hexdigest()[:16])


# The address is on a NIC of the server, on which hv1 relays.
OF_AN_OPERATOR = """
mount -t tmpfs none /run
for name in hv1 server; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n hv1 link add up0 type veth peer name eth0 netns server
ip -n hv1 link set up0 up
ip -n server link set eth0 up
ip -n server address add 172.22.9.53/24 dev eth0
ip -n hv1 address add 172.22.9.1/24 dev up0
ip -n hv1 address add 172.22.2.1/32 dev lo
ip -n server route add 172.22.2.1 via 172.22.9.1
mkdir -p -m 750 /mnt/root/run/kea
cp "$3" /mnt/root/etc/kea/kea-dhcp4.conf
export KEA_LOCKFILE_DIR=none
ip netns exec server chroot /mnt/root kea-dhcp4 -c /etc/kea/kea-dhcp4.conf >/run/kea.log 2>&1 &
kea=$!
until grep -q DHCP4_STARTED /run/kea.log; do kill -0 $kea; sleep 0.1; done
ip netns exec hv1 python3 -I "$2" 172.22.2.1 172.22.2.1 203.0.113.254 hv1/vm1 52:54:00:00:00:01
kill $kea
"""


@pytest.mark.parametrize("system", ["debian12", "debian13"])
@pytest.mark.parametrize("interface", ["*", "eth0"])
def test_an_operators_kea_serves_at_the_address_of_a_nic(interface: str, system: str, tmp_path: Path) -> None:
    plan = {"dhcp_server": as_plain(SERVER), "routing": {"session_keys": []}}
    call = {"role": "dhcp_server", "__dhcp_server_interface": interface}
    text = files_of_role(ROOT / "roles/dhcp_server", call, plan)[CONFIGURATION]
    (tmp_path / "kea.conf").write_text(text.replace("@digest@", ""), encoding="utf-8")
    files = [ROOT / "tests/roles/dhcp_message.py", tmp_path / "kea.conf"]
    done = in_an_image(system, "bird2", OF_AN_OPERATOR, *files, serves_dhcp=True)
    assert done.stdout.startswith("203.0.113.1 1=ffffff00 3=cb0071fe"), done.stdout + done.stderr


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def test_the_configuration_is_json_with_one_lease_for_each_guest() -> None:
    kea = json.loads(without_comments(configuration(SERVER)))["Dhcp4"]
    leases = {
        host["circuit-id"]: host["ip-address"] for subnet in kea["subnet4"] for host in subnet["reservations"]
    }
    assert leases == {f"'{guest.circuit_id}'": guest.address for guest in (VM1, VM2, VM3)}
    assert all("pools" not in subnet for subnet in kea["subnet4"]), "no address without a guest"


def test_a_server_without_relays_answers_nobody() -> None:
    kea = json.loads(without_comments(configuration(replace(SERVER, relays=(), pools=()))))["Dhcp4"]
    assert kea["client-classes"][0]["test"].endswith("(pkt4.giaddr == 255.255.255.255))")


def test_a_configuration_that_was_changed_by_hand_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = configuration(SERVER)
    tag = re.findall(r'"server-tag": "(\w{16})"', text)[0]
    monkeypatch.setattr(PROGRAM, "answer", lambda _: {"arguments": {"server-tag": tag}})
    PROGRAM.check_in_force(text)
    with pytest.raises(SystemExit, match="was changed after it was placed"):
        PROGRAM.check_in_force(text.replace("203.0.113.1", "203.0.113.9"))
    with pytest.raises(SystemExit, match="Kea runs the configuration"):
        PROGRAM.check_in_force(configuration(MOVED))


@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_guests_get_their_leases_from_kea(system: str, tmp_path: Path) -> None:
    files = []
    for name, server in (("first", SERVER), ("moved", MOVED), ("replaced", REPLACED)):
        files.append(tmp_path / f"{name}.conf")
        files[-1].write_text(configuration(server), encoding="utf-8")
    programs = [
        ROOT / "roles/guest_services/files/dhcp-relay",
        ROOT / "roles/dhcp_server/files/dhcp-server",
        ROOT / "tests/roles/dhcp_message.py",
    ]
    script = (ROOT / "tests/roles/dhcp_server.sh").read_text(encoding="utf-8")
    done = in_an_image(system, "bird2", script, *programs, *files, serves_dhcp=True)
    said = done.stdout + done.stderr
    parts = {
        part.partition("\n")[0]: part.splitlines()[1:] for part in ("begin\n" + done.stdout).split("== ")
    }
    options = "203.0.113.254 43200 mtu 1500 dns 192.0.2.8 192.0.2.9 search example.net a.example.net"
    routes = "routes 0.0.0.0/0 203.0.113.254 198.51.100.0/24 203.0.113.254"
    lease = f"203.0.113.1/24 203.0.113.254 {options} {routes}"
    assert parts["begin"] == ["validated", "in force"], said
    assert parts["lease"] == [f"bound {lease}"], said
    assert parts["renewal"] == [f"renew {lease}"], said
    assert parts["renewal after a reload"] == [f"renew {lease}"], said
    vm2, vm3 = parts["hv2 asks for its own guests"]
    assert vm2.startswith("203.0.113.2 1=ffffff00 3=cb0071fe 26=2328 54=cb0071fe"), said
    assert vm3 == "192.0.2.0 1=ffffffff 3=a9fe0101 26=0578 54=a9fe0101 121=20a9fe01010000000000a9fe0101", said
    assert parts["nobody else gets an answer"] == [*["silence"] * 5, "offers: 0"], said
    assert parts["a guest with an old address"] == ["0.0.0.0 54=ac160935"], "refused, through the relay"
    assert [line.split()[0] for line in parts["declined"]] == ["203.0.113.2", "silence", "203.0.113.2"], said
    assert parts["moved"] == [
        "Kea runs the configuration",
        "in force",
        f"bound {lease}",
        f"renew {lease}",
    ], said
    assert parts["another MAC at the same port"] == [f"bound {lease}"], said
    assert parts["without Kea"] == [
        "Kea does not answer ",
        "refused",
        "172.22.9.53 vm1: the DHCP server does not answer this guest",
    ], said
    refused, *after = parts["after an invalid configuration"]
    assert refused == f"Kea refuses {CONFIGURATION}", said
    assert after == [f"bound {lease}"], said

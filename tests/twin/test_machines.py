"""The effect of each verb on machines of a twin. These tests need root."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from two_machines import TOPOLOGY, eventually, guest, new_lab

pytestmark = pytest.mark.twin

# A gateway, DHCP and router advertisements for a guest, without the roles.
PROVISION = """
ip address replace 203.0.113.{n}/24 dev eno0.90; ip link set eno0.90 up
ip address replace 2001:db8:ffff::{n}/64 dev eno0.90 nodad
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip route replace 192.0.2.{o} via 203.0.113.{o}; ip route replace 2001:db8:{o}::/64 via 2001:db8:ffff::{o}
ip address replace 192.0.2.254/32 dev vm-{n} scope link; ip route replace 192.0.2.{n} dev vm-{n}
ip address replace fe80::1/64 dev vm-{n} nodad; ip route replace 2001:db8:{n}::/64 dev vm-{n}
cat >/etc/radvd.conf <<X
interface vm-{n} {{ AdvSendAdvert on; prefix 2001:db8:{n}::/64 {{ }}; }};
X
cat >/etc/dnsmasq.conf <<X
port=0
no-ping
bind-dynamic
interface=vm-*
dhcp-range=192.0.2.0,static,255.255.255.0
dhcp-host=52:54:00:00:00:0{n},192.0.2.{n}
dhcp-option=1,255.255.255.255
dhcp-option=26,1420
dhcp-option=121,0.0.0.0/0,192.0.2.254
X
systemctl restart dnsmasq radvd
"""


@pytest.fixture(scope="module")
def provisioned(lab):
    for number in (1, 2):
        lab.do("boot", f"m{number}")
        lab.do("plug", f"vm{number}", "--on", f"m{number}")
        lab.sh(f"m{number}", PROVISION.format(n=number, o=3 - number))
    eventually(lambda: all(len(lab.guest(name)["addresses"]) > 1 for name in ("vm1", "vm2")))
    return lab


def wire(lab, *machines):
    """Configure an address on the first port of each machine."""
    for name in machines:
        lab.sh(name, f"ip address replace 203.0.113.{name[1:]}/24 dev eno0.90; ip link set eno0.90 up")


def test_machines_are_up_with_systemd_and_ssh(lab):
    assert [found["state"] for found in lab.json("status")["machines"]] == ["up", "up"]
    assert lab.sh("m1", "systemctl is-system-running").strip() == "running"
    config = f"/run/l3hv/{lab.name}/ssh_config"
    done = subprocess.run(["ssh", "-F", config, "m2", "hostname"], capture_output=True, text=True, check=True)
    assert done.stdout == "m2\n"


def test_ansible_reaches_the_machines(lab):
    program = Path(sys.executable).with_name("ansible")
    done = subprocess.run(
        [program, "-i", "m1,m2,", "all", "-e", f"@/run/l3hv/{lab.name}/vars.json", "-m", "ping"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.stdout.count("pong") == 2, done.stdout + done.stderr


def test_a_second_up_changes_nothing(lab, topology_file):
    before = [lab.leader("m1"), lab.leader("m2")]
    again = lab.json("up", "--topology", str(topology_file(TOPOLOGY)))
    assert again["booted"] == again["plugged"] == []
    assert [lab.leader("m1"), lab.leader("m2")] == before


def test_exec_passes_output_and_exit_status(lab):
    done = lab.run("exec", "m1", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_ports_are_down_and_there_is_no_route_to_the_outside(lab):
    assert "eno1.90@" in lab.sh("m1", "ip -brief link show dev eno1.90")
    assert lab.machine("m1")["ports"]["eno1.90"] == "down"
    assert lab.sh("m1", "ip route show table main") == ""
    host = {name for _, name in socket.if_nameindex()}
    assert not any(name.startswith(("vm-", "m1~", "m2~", "mgmt")) for name in host)


def test_a_machine_has_the_default_kernel_settings(lab):
    keys = "net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv6.conf.all.forwarding"
    assert lab.sh("m2", f"sysctl -n {keys}").split() == ["0", "0", "0"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("exec", "m9", "--", "true"), "the twin has no machine 'm9': its machines are m1, m2"),
        (("guest", "vm9", "--", "true"), "the twin has no guest 'vm9': its guests are vm1, vm2"),
        (("cut", "m2", "b"), "m2 has no port on path b; it has (path, domain): a public"),
        (("kill", "m1", "no-such-daemon"), "no process named 'no-such-daemon' runs on m1"),
        (("probe", "192.0.2.200", "m1"), "no running machine or guest of the twin holds 192.0.2.200"),
    ],
)
def test_an_error_is_one_sentence(lab, arguments, sentence):
    done = lab.run(*arguments)
    assert (done.returncode, done.stderr) == (1, f"twin: {sentence}\n")


def test_a_cut_is_silent(lab):
    wire(lab, "m1", "m2")
    eventually(lambda: lab.pings("m1", "203.0.113.2"))
    lab.do("cut", "m1", "a")
    assert lab.machine("m1")["ports"]["eno0.90"] == "cut"
    assert not lab.pings("m1", "203.0.113.2")
    assert not lab.pings("m2", "203.0.113.1")
    for name in ("m1", "m2"):
        assert "LOWER_UP" in lab.sh(name, "ip link show dev eno0.90")
    lab.do("heal", "m1", "a")
    assert lab.pings("m1", "203.0.113.2")


def test_a_carrier_is_lost_and_restored_at_one_end(lab):
    wire(lab, "m1", "m2")
    lab.do("carrier", "m1", "a", "down")
    assert "NO-CARRIER" in lab.sh("m1", "ip link show dev eno0.90")
    assert "LOWER_UP" in lab.sh("m2", "ip link show dev eno0.90")
    lab.do("carrier", "m1", "a", "up")
    eventually(lambda: lab.pings("m1", "203.0.113.2"))


def test_jumbo_frames_pass(lab):
    wire(lab, "m1", "m2")
    for name in ("m1", "m2"):
        lab.sh(name, "ip link set eno0.90 mtu 9000")
    assert lab.run("exec", "m1", "--", "ping", "-c1", "-W2", "-Mdo", "-s8900", "203.0.113.2").returncode == 0


def test_a_reboot_forgets_the_network_and_keeps_the_files(lab):
    wire(lab, "m2")
    lab.sh("m2", "sysctl -qw net.ipv4.ip_forward=1; ip rule add pref 5 lookup 7; echo kept >/root/kept; sync")
    mac = lab.sh("m2", "cat /sys/class/net/eno0.90/address /etc/machine-id")
    before = lab.leader("m2")
    lab.do("cut", "m2", "a")
    lab.run("exec", "m2", "--", "systemctl", "reboot")
    eventually(lambda: lab.machine("m2")["state"] == "up" and lab.leader("m2") != before)
    assert lab.sh("m2", "cat /root/kept") == "kept\n"
    assert "203.0.113" not in lab.sh("m2", "ip address")
    assert "lookup 7" not in lab.sh("m2", "ip rule")
    assert lab.sh("m2", "sysctl -n net.ipv4.ip_forward") == "0\n"
    assert lab.sh("m2", "cat /sys/class/net/eno0.90/address /etc/machine-id") == mac
    assert lab.machine("m2")["ports"]["eno0.90"] == "cut"
    lab.do("heal", "m2", "a")


def reboots(lab, name):
    """Reboot a machine from inside, and wait until it is up again."""
    before = lab.leader(name)
    lab.run("exec", name, "--", "systemctl", "reboot")
    eventually(lambda: lab.machine(name)["state"] == "up" and lab.leader(name) != before, seconds=20)


def crashes(lab, name):
    lab.do("crash", name)
    assert lab.machine(name)["state"] == "off"
    lab.do("boot", name)


def sleeps(lab, name):
    return "sleep 1000" in lab.sh(name, "ps axo args")


@pytest.mark.parametrize("goes_down", [reboots, crashes])
@pytest.mark.parametrize("number", [0, signal.SIGSTOP, signal.SIGKILL])
def test_a_machine_goes_down_and_comes_back_while_a_command_runs_in_it(lab, goes_down, number):
    with subprocess.Popen(
        lab.command("exec", "m2", "--", "sleep", "1000"), stderr=subprocess.DEVNULL, start_new_session=True
    ) as outside:
        eventually(lambda: sleeps(lab, "m2"))
        outside.send_signal(number)
        goes_down(lab, "m2")
        assert not sleeps(lab, "m2")
        outside.send_signal(signal.SIGCONT)
        assert outside.wait(10) != 0


@pytest.mark.parametrize("goes_down", [reboots, crashes])
def test_a_machine_goes_down_and_comes_back_while_a_stopped_nsenter_waits_outside(lab, goes_down):
    command = ["nsenter", f"--target={lab.leader('m2')}", "--all", "sleep", "1000"]
    with subprocess.Popen(command, start_new_session=True) as outside:
        eventually(lambda: sleeps(lab, "m2"))
        outside.send_signal(signal.SIGSTOP)
        goes_down(lab, "m2")
        assert outside.wait(10) != 0


@pytest.mark.parametrize("script", ["ip link set mgmt0 down; ip link set mgmt0 up", "ip address flush mgmt0"])
def test_the_management_port_comes_back_by_itself(lab, script):
    lab.sh("m1", script)
    ssh = ["ssh", "-F", f"/run/l3hv/{lab.name}/ssh_config", "-o", "ConnectTimeout=1", "m1", "hostname"]
    eventually(lambda: subprocess.run(ssh, capture_output=True, text=True, check=False).stdout == "m1\n")
    assert "mgmt0" not in lab.sh("m1", "ip route show table main")


def test_a_crash_closes_no_connection(lab):
    wire(lab, "m1", "m2")
    eventually(lambda: lab.pings("m1", "203.0.113.2"))
    # A TCP connection from m1 to m2 must not be closed by the crash of m2.
    serve = "import socket; s = socket.create_server(('203.0.113.2', 999)); s.accept()[0].recv(1)"
    lab.sh(
        "m2",
        f'systemd-run --quiet --unit=peer python3 -c "{serve}"; until ss -Hln | grep -q :999; do :; done',
    )
    connect = (
        "import socket; c = socket.create_connection(('203.0.113.2', 999)); print(flush=True); c.recv(1)"
    )
    with subprocess.Popen(
        lab.command("exec", "m1", "--", "python3", "-c", connect), stdout=subprocess.PIPE
    ) as client:
        assert client.stdout
        client.stdout.readline()
        lab.do("crash", "m2")
        assert lab.machine("m2")["state"] == "off"
        assert lab.run("exec", "m2", "--", "true").stderr == "twin: m2 is off: './twin boot m2' starts it\n"
        time.sleep(0.3)
        assert client.poll() is None
        client.send_signal(signal.SIGKILL)
    lab.do("boot", "m2")
    assert lab.machine("m2")["state"] == "up"
    eventually(lambda: lab.guest("vm2")["state"] == "up")


def test_guests_use_dhcp_and_slaac(provisioned):
    found = provisioned.guest("vm1")["addresses"]
    assert set(found) >= {"192.0.2.1", "2001:db8:1:0:5054:ff:fe00:1", "198.51.100.7"}
    routes = provisioned.do("guest", "vm1", "--", "ip", "route")
    assert routes == "default via 192.0.2.254 dev eth0 \n192.0.2.254 dev eth0 scope link \n"
    assert "mtu 1420" in provisioned.do("guest", "vm1", "--", "ip", "link", "show", "eth0")


def test_a_probe_without_an_event_loses_nothing(provisioned):
    for family in ("4", "6"):
        result = provisioned.json("probe", "vm1", "vm2", "--family", family, "--seconds", "2")
        assert result == {
            "sent": 6400,
            "lost": 0,
            "flows": 32,
            "flows_hit": 0,
            "worst_outage_ms": 0.0,
            "median_outage_ms": 0.0,
        }


def test_a_probe_measures_an_event(provisioned, tmp_path):
    cut, heal = (" ".join(provisioned.command(verb, "m1", "a")) for verb in ("cut", "heal"))
    clock = f"cut -d ' ' -f 1 /proc/uptime >>{tmp_path}/times"
    event = f"! {clock}; {cut}; {clock}; sleep 0.5; {clock}; {heal}; {clock}"
    result = provisioned.json("probe", "vm1", "vm2", "--seconds", "8", "--event", event, "--at", "1")
    assert result["flows_hit"] == 32
    # The duration of a verb depends on the load of the host.
    begin, is_cut, heals, end = (1000 * float(line) for line in (tmp_path / "times").read_text().split())
    least, most = heals - is_cut, end - begin
    assert least - 50 <= result["median_outage_ms"] <= result["worst_outage_ms"] < most + 250


def test_a_probe_whose_event_fails(provisioned):
    done = provisioned.run("probe", "vm1", "vm2", "--seconds", "1", "--at", "0", "--event", "cut m1 z")
    assert done.returncode == 1
    assert "the event failed" in done.stderr


def test_an_address_of_two_machines_answers(provisioned):
    for name in ("m1", "m2"):
        provisioned.sh(name, "ip address replace 198.51.100.1/32 dev lo")
    result = provisioned.json("probe", "vm1", "198.51.100.1", "--seconds", "1", "--flows", "4")
    assert (result["sent"], result["lost"]) == (400, 0)
    # Probes from a machine have its loopback as source; answers to an address of two machines may be lost.
    for name in ("m1", "m2"):
        provisioned.sh(name, "ip address del 198.51.100.1/32 dev lo")


def test_a_guest_moves_with_its_memory(provisioned):
    inode = "stat -Lc %i /proc/self/ns/net; ip -4 -o address show eth0"
    before = provisioned.do("guest", "vm1", "--", "sh", "-c", inode)
    provisioned.do("plug", "vm1", "--on", "m2")
    assert provisioned.guest("vm1")["hypervisor"] == "m2"
    assert provisioned.do("guest", "vm1", "--", "sh", "-c", inode) == before
    assert "vm-1" not in provisioned.sh("m1", "ip -brief link")
    assert "UP" in provisioned.sh("m2", "ip -brief link show vm-1")
    provisioned.do("plug", "vm1", "--on", "m1")


def test_an_inventory_that_follows_a_moved_guest_does_not_restart_it(provisioned, topology_file):
    inode = "stat -Lc %i /proc/self/ns/net; ip -4 -o address show eth0"
    before = provisioned.do("guest", "vm1", "--", "sh", "-c", inode)
    provisioned.do("plug", "vm1", "--on", "m2")
    followed = copy.deepcopy(TOPOLOGY)
    next(found for found in followed["guests"] if found["name"] == "vm1")["hypervisor"] = "m2"
    try:
        assert provisioned.json("up", "--topology", str(topology_file(followed)))["plugged"] == []
        assert provisioned.guest("vm1")["hypervisor"] == "m2"
        assert provisioned.do("guest", "vm1", "--", "sh", "-c", inode) == before
    finally:
        provisioned.do("plug", "vm1", "--on", "m1")
        provisioned.do("up", "--topology", str(topology_file(TOPOLOGY)))
    assert provisioned.do("guest", "vm1", "--", "sh", "-c", inode) == before


def test_a_guest_stops_and_starts(provisioned):
    provisioned.do("unplug", "vm2")
    assert provisioned.guest("vm2")["state"] == "off"
    assert "vm-2" not in provisioned.sh("m2", "ip -brief link")
    provisioned.do("unplug", "vm2")
    provisioned.do("plug", "vm2")
    provisioned.sh("m2", PROVISION.format(n=2, o=1))
    eventually(lambda: "192.0.2.2" in provisioned.guest("vm2")["addresses"])


def test_kill_ends_a_daemon_without_output(provisioned):
    provisioned.do("kill", "m1", "dnsmasq")
    state = provisioned.sh("m1", "systemctl show -P Result dnsmasq").strip()
    assert state == "signal"


def test_up_follows_a_changed_topology(lab, topology_file):
    changed = copy.deepcopy(TOPOLOGY)
    changed["machines"][0]["ports"].pop()
    changed["machines"].append(changed["machines"][1] | {"name": "m3"})
    changed["guests"][1] = guest(3, "m3")
    before = lab.leader("m1")
    assert lab.json("up", "--topology", str(topology_file(changed)))["booted"] == ["m3"]
    assert lab.leader("m1") == before
    assert list(lab.machine("m1")["ports"]) == ["eno0.90"]
    assert "eno1.90" not in lab.sh("m1", "ip -brief link")
    assert [found["name"] for found in lab.json("status")["guests"]] == ["vm1", "vm3"]
    back = lab.json("up", "--topology", str(topology_file(TOPOLOGY)))
    assert (back["booted"], back["plugged"]) == ([], ["vm2"])
    assert [found["name"] for found in lab.json("status")["machines"]] == ["m1", "m2"]
    assert "eno1.90" in lab.sh("m1", "ip -brief link")
    assert not Path(f"/run/netns/l3hv-{lab.name}-host-m3").exists()


def test_other_machines_boot_if_one_fails(topology_file):
    lab = new_lab("fail")
    three = copy.deepcopy(TOPOLOGY)
    three["machines"].append(three["machines"][1] | {"name": "m3"})
    path = str(topology_file(three))
    lab.do("up", "--topology", path)
    for name in ("m1", "m2"):
        lab.do("crash", name)
    disk = Path(f"/var/lib/l3hv/{lab.name}/m2/upper")
    init = disk / "usr/lib/systemd/systemd"
    init.parent.mkdir(parents=True, exist_ok=True)
    init.write_text("#!/bin/sh\necho the disk of this machine is broken\nexit 3\n")
    init.chmod(0o755)
    leader = lab.leader("m3")
    done = lab.run("up", "--json", "--topology", path)
    assert done.returncode == 1
    assert "m2 did not boot: its init ended with status 3" in done.stderr
    assert "m2| the disk of this machine is broken" in done.stderr
    found = json.loads(done.stdout)
    assert (found["booted"], list(found["failed"])) == (["m1"], ["m2"])
    states = {found["name"]: found["state"] for found in lab.json("status")["machines"]}
    assert states == {"m1": "up", "m2": "off", "m3": "up"}
    assert [lab.guest(name)["state"] for name in ("vm1", "vm2")] == ["up", "off"]
    assert "m2 did not boot" in lab.run("boot", "m2").stderr
    init.unlink()
    again = lab.json("up", "--topology", path)
    assert (again["booted"], again["failed"]) == (["m2"], {})
    assert lab.guest("vm2")["state"] == "up"
    assert lab.leader("m3") == leader
    lab.do("down")
    assert lab.leftovers() == []


def test_machines_of_different_systems_run_together(topology_file):
    lab = new_lab("mix")
    mixed = copy.deepcopy(TOPOLOGY)
    mixed["machines"][0]["system"] = "debian12"
    lab.do("up", "--topology", str(topology_file(mixed)))
    releases = [lab.sh(name, ". /etc/os-release; echo $VERSION_ID").strip() for name in ("m1", "m2")]
    lab.do("down")
    assert releases == ["12", "13"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", [0.0, 0.3])
def test_down_after_an_interrupted_up(topology_file, number, moment):
    lab = new_lab("half")
    with subprocess.Popen(
        lab.command("up", "--topology", str(topology_file(TOPOLOGY))), stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stderr
        assert "booting" in up.stderr.readline()
        time.sleep(moment)
        up.send_signal(number)
    assert lab.leftovers() != []
    lab.do("down")
    assert lab.leftovers() == []


def test_down_after_a_killed_supervisor(topology_file):
    lab = new_lab("half")
    lab.do("up", "--topology", str(topology_file(TOPOLOGY)))
    os.kill(int(Path(f"/run/l3hv/{lab.name}/machines/m1/pid").read_text()), signal.SIGKILL)
    assert lab.json("up", "--topology", str(topology_file(TOPOLOGY)))["booted"] == ["m1"]
    os.kill(int(Path(f"/run/l3hv/{lab.name}/machines/m2/pid").read_text()), signal.SIGKILL)
    lab.do("down")
    assert lab.leftovers() == []
    lab.do("down")


def test_a_bare_machine_installs_packages(topology_file):
    lab = new_lab("bare")
    one = {"machines": TOPOLOGY["machines"][:1], "guests": []}
    lab.do("up", "--bare", "--topology", str(topology_file(one)))
    assert lab.run("exec", "m1", "--", "which", "bird", "radvd", "dnsmasq", "nft").stdout == ""
    lab.sh("m1", "apt-get -qq update; apt-get -qq install --no-install-recommends -y radvd >/dev/null 2>&1")
    assert lab.sh("m1", "which radvd") == "/usr/sbin/radvd\n"
    assert lab.run("up", "--topology", str(topology_file(one))).returncode == 1
    lab.do("down")
    assert lab.leftovers() == []


def test_a_guest_that_is_a_virtual_machine(provisioned):
    provisioned.do("unplug", "vm2")
    provisioned.do("plug", "vm2", "--qemu")
    provisioned.sh("m2", PROVISION.format(n=2, o=1))
    expected = {"192.0.2.2", "2001:db8:2:0:5054:ff:fe00:2"}
    eventually(lambda: expected <= set(provisioned.guest("vm2")["addresses"]), seconds=30)
    result = provisioned.json("probe", "m1", "vm2", "--flows", "2", "--seconds", "1")
    assert (result["sent"], result["lost"]) == (200, 0)
    assert "runs no commands" in provisioned.run("guest", "vm2", "--", "true").stderr
    provisioned.do("unplug", "vm2")
    provisioned.do("plug", "vm2")
    assert provisioned.do("guest", "vm2", "--", "echo", "again") == "again\n"


def test_files_from_before_a_reboot_of_the_host_are_removed(topology_file):
    lab = new_lab("old")
    old = Path(f"/var/lib/l3hv/{lab.name}/m1/upper/root/old")
    old.parent.mkdir(parents=True)
    old.touch()
    lab.do("up", "--topology", str(topology_file(TOPOLOGY)))
    assert lab.sh("m1", "ls /root") == ""
    lab.do("down")
    assert lab.leftovers() == []

#!/usr/bin/env python3
"""Measure Kea with the leases of many guests: bench/dhcp_server.py [--guests 10000] [--system debian13].

As root.  Kea runs in the image of the twin, in namespaces of its own.  Prints the size of the configuration,
and the times to render it, to check it, to start Kea, to reload it and to answer a guest.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ROOT / "tests/roles"
sys.path[:0] = [str(ROOT / "src"), str(MESSAGES)]

from images import in_an_image  # noqa: E402 - needs the path above
from rendered import files_of_role  # noqa: E402 - the same

from l3hv.model.plain import as_plain  # noqa: E402 - the same
from l3hv.model.plan import DhcpServer, RelayingHypervisor, ServedGuest, ServedPool  # noqa: E402 - the same

GUESTS_OF_HYPERVISOR = 100
FIRST = 100 << 24 | 64 << 16  # 100.64.0.0
SCRIPT = """
ip address add 172.22.9.53/32 dev lo
ip address add 172.22.0.1/32 dev lo
mkdir -p -m 750 /mnt/root/run/kea
mkdir -p /mnt/root/etc/kea/l3hv
cp "$2" /mnt/root/etc/kea/l3hv/kea-dhcp4.conf
cp "$3" /mnt/root/dhcp-server
now() { date +%s%N; }
took() { echo "$1 $((($(now) - $2) / 1000000)) ms"; }
begin=$(now)
KEA_LOCKFILE_DIR=none chroot /mnt/root kea-dhcp4 -t /etc/kea/l3hv/kea-dhcp4.conf >/dev/null 2>&1
took check $begin
begin=$(now)
KEA_LOCKFILE_DIR=none chroot /mnt/root kea-dhcp4 -c /etc/kea/l3hv/kea-dhcp4.conf >/mnt/root/run/log 2>&1 &
kea=$!
until chroot /mnt/root python3 -I /dhcp-server in-force 2>/dev/null; do sleep 0.02; done
took start $begin
begin=$(now)
chroot /mnt/root python3 -I /dhcp-server apply
took reload $begin
grep VmHWM /mnt/root/proc/$kea/status
PYTHONPATH=$4 python3 - <<'PYTHON'
import socket, time
from dhcp_message import SERVER, message
discover = message("172.22.0.1", "100.127.255.254", "hv1/vm1", "52:54:00:00:00:01")
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("172.22.0.1", 67))
client.settimeout(5)
times = []
for _ in range(1000):
    begin = time.perf_counter()
    client.sendto(discover, (SERVER, 67))
    client.recv(2048)
    times.append(time.perf_counter() - begin)
times.sort()
print(f"answer {1000 * times[500]:.2f} ms (median), {1000 * times[990]:.2f} ms (99 %)")
PYTHON
kill $kea
"""


def address(number: int) -> str:
    return ".".join(str(byte) for byte in number.to_bytes(4, "big"))


def server(guests: int) -> DhcpServer:
    """Return a server for hypervisors with a hundred guests each; hv1, which asks, is compared last."""
    hypervisors = -(-guests // GUESTS_OF_HYPERVISOR)
    relays = [
        RelayingHypervisor(
            f"hv{number}", address((172 << 24 | 22 << 16) + number), f"hv{number}/", len(f"hv{number}/")
        )
        for number in range(hypervisors, 0, -1)
    ]
    leases = [
        ServedGuest(
            f"vm{n}",
            f"hv{n // GUESTS_OF_HYPERVISOR + 1}/vm{n % GUESTS_OF_HYPERVISOR}",
            "",
            address(FIRST + n + 1),
            None,
        )
        for n in range(guests)
    ]
    pool = ServedPool(
        FIRST, "all", "100.64.0.0/10", "100.127.255.254", 1500, ("192.0.2.8",), (), None, tuple(leases)
    )
    return DhcpServer("172.22.9.53", 43200, tuple(relays), (pool,))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--guests", type=int, default=10_000)
    parser.add_argument("--system", default="debian13", choices=("debian12", "debian13"))
    options = parser.parse_args()
    plan = {"dhcp_server": as_plain(server(options.guests)), "routing": {"session_keys": []}}
    begin = time.perf_counter()
    text = files_of_role(ROOT / "roles/dhcp_server", {"role": "dhcp_server"}, plan)[
        "/etc/kea/l3hv/kea-dhcp4.conf"
    ]
    seconds = time.perf_counter() - begin
    print(f"{options.guests} guests, {options.system}: {len(text) / 1e6:.1f} MB, rendered in {seconds:.1f} s")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text.replace("@digest@", hashlib.sha256(text.encode()).hexdigest()[:16]))
        file.flush()
        program = ROOT / "roles/dhcp_server/files/dhcp-server"
        done = in_an_image(options.system, "bird2", SCRIPT, file.name, program, MESSAGES, serves_dhcp=True)
    print(done.stdout, done.stderr, sep="")
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "the measurement")


if __name__ == "__main__":
    main()

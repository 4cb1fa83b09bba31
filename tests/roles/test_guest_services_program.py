"""The program that detects hanging daemons of guests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from images import ROOT, loaded
from rendered import read

PROGRAM = loaded(ROOT / "roles/guest_services/files/guest-services")
READER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.bind(("127.0.0.1", 0))
    print("listening", flush=True)
    while True:
        wire.recv(2048)
"""
RAW_READER = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as wire:
    print("listening", flush=True)
    while True:
        wire.recv(2048)
"""
WITHOUT_A_SOCKET = """
import time
print("listening", flush=True)
time.sleep(60)
"""
BUSY_READER = """
import os, socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.bind(("127.0.0.1", 0))
    reader = os.getpid()
    if os.fork() == 0:
        while os.getppid() == reader:
            wire.sendto(b"flood", wire.getsockname())
        os._exit(0)
    time.sleep(0.2)
    print("listening", flush=True)
    while True:
        wire.recv(2048)
        ready = time.process_time() + 0.001
        while time.process_time() < ready:
            pass
"""
"""A process at its limit: more packets arrive than it reads, and its queue is never empty."""
SLOW_READER = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.bind(("127.0.0.1", 0))
    for _ in range(100):
        wire.sendto(b"", wire.getsockname())
    print("listening", flush=True)
    while True:
        wire.recv(2048)
        time.sleep(0.02)
"""
"""A process whose queue gets shorter, and which needs hardly any CPU time."""
WORKER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.bind(("127.0.0.1", 0))
    print("listening", flush=True)
    while True:
        pass
"""
"""A process that works for a long time on one packet, and reads no packet meanwhile."""
SLEEPER = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.bind(("127.0.0.1", 0))
    print("listening", flush=True)
    time.sleep(60)
"""


@contextmanager
def running(script: str) -> Iterator[int]:
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "listening\n"
            yield process.pid
        finally:
            process.kill()


def stop(process: int) -> None:
    """Stop a process, and wait until it no longer reads packets."""
    os.kill(process, signal.SIGSTOP)
    status = Path(f"/proc/{process}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


@pytest.mark.parametrize("script", [READER, RAW_READER], ids=["udp", "icmpv6"])
def test_a_process_that_does_not_read_its_socket_hangs(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if script is RAW_READER and os.geteuid() != 0:
        pytest.skip("only root can open a raw socket")
    monkeypatch.setattr(PROGRAM, "PATIENCE_S", 0.5)
    with running(script) as process:
        assert not PROGRAM.hangs(process)
        stop(process)
        assert PROGRAM.hangs(process)
        os.kill(process, signal.SIGCONT)
        assert not PROGRAM.hangs(process)


@pytest.mark.parametrize("script", [BUSY_READER, SLOW_READER, WORKER], ids=["busy", "slow", "worker"])
def test_a_busy_process_hangs_only_after_it_is_stopped(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue of the process is never empty when the program looks."""
    monkeypatch.setattr(PROGRAM, "PATIENCE_S", 0.5)
    with running(script) as process:
        for _ in range(3):
            assert not PROGRAM.hangs(process)
            assert PROGRAM.unread(PROGRAM.sockets_of(process))
        stop(process)
        assert PROGRAM.hangs(process)


def test_a_process_that_waits_without_reading_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROGRAM, "PATIENCE_S", 0.5)
    with running(SLEEPER) as process:
        assert PROGRAM.hangs(process)
        unit = "l3hv-dhcp.service"
        monkeypatch.setattr(PROGRAM, "process_of", lambda _: process)
        (sentence,) = PROGRAM.complaints([unit])
        hangs = f"{unit} on {os.uname().nodename} hangs: process {process}"
        assert sentence == f"{hangs} has not emptied the queue of a socket for 0.5 s"


def test_a_process_without_a_socket_does_not_hang() -> None:
    with running(WITHOUT_A_SOCKET) as process:
        stop(process)
        assert not PROGRAM.hangs(process)
    assert not PROGRAM.hangs(process)


NOTHING = read(ROOT / "roles/guest_services/defaults/main.yml")["guest_services_served"]
SERVED = {
    "both": NOTHING | {"dhcp": True, "advertisements": True},
    "lease": NOTHING | {"dhcp": True},
    "prefix": NOTHING | {"advertisements": True},
}

ACTIVATION = read(ROOT / "roles/guest_services/handlers/main.yml")[0]["config_files"]["activate"]


@pytest.mark.parametrize("guest", SERVED)
def test_hanging_daemons_are_restarted_before_systemd_waits_for_them(guest: str) -> None:
    variables = {
        **read(ROOT / "roles/guest_services/vars/main.yml"),
        "guest_services_served": SERVED[guest],
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    first, *others = templar.template(ACTIVATION)
    units = templar.template(variables["__guest_services_units"])
    assert first == {"command": f"/usr/local/lib/l3hv/guest-services mend {' '.join(units)}"}
    assert others
    assert all(other["command"].startswith("systemctl ") for other in others)


def test_no_daemon_is_examined_without_guests() -> None:
    variables = {
        **read(ROOT / "roles/guest_services/vars/main.yml"),
        "guest_services_served": NOTHING,
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    (only,) = templar.template(ACTIVATION)
    assert only["command"] == "systemctl disable --quiet --now radvd.service"


def test_a_unit_without_a_process_is_not_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROGRAM, "process_of", lambda _: 0)
    monkeypatch.setattr(
        PROGRAM.subprocess, "run", lambda *_, **__: pytest.fail("the program has run a command")
    )
    PROGRAM.mend(["l3hv-dhcp.service", "radvd.service"])

"""Packets in the twin: the addresses that guests have, and pings from the namespaces in which guests run.

One process sends all pings at once: a socket stays in the network namespace in which it was opened.
"""

from __future__ import annotations

import errno
import os
import re
import selectors
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from l3hv.model.addressing import slaac_address
from l3hv.model.choices import Family
from l3hv.model.plan import HostPlan
from l3hv.model.topology import GuestMachine
from l3hv.twin import TwinError, network, power
from l3hv.twin import guests as twin_guests
from l3hv.twin.state import RUN, Standing, Twin
from l3hv.verify import subjects
from l3hv.verify.check import Check, InTwin, Kind, SentTo
from l3hv.verify.reach import Ping, RunningGuest, pings

PATIENCE = 10.0
"""Seconds until a guest must have its addresses, and until an answer must arrive."""

INTERVAL, SILENCE = 0.25, 0.8
SSH_FAILED = 255
"""The status of ssh(1) if it does not reach the machine; the script itself ends with 0."""
ICMP_FILTER, ICMP6_FILTER, SOL_RAW = 1, 1, 255
ECHO4, REPLY4, ECHO6, REPLY6 = 8, 0, 128, 129
HEADER = struct.Struct("!BBHHH")


def standing_twin(name: str | None, connection: str) -> tuple[Twin, Standing] | None:
    """Return the twin to which Ansible connects, by its name or by the SSH configuration that it uses.

    The result is None for real machines, for a twin that does not run, and without root: only root can enter
    namespaces.
    """
    through = re.search(rf"{RUN}/([^/\s]+)/", connection)
    if through and name is None:
        name = through[1]
    if name is None or os.geteuid() != 0:
        return None
    twin = Twin(name, lambda line: None)
    standing = twin.standing_or_none()
    return None if standing is None else (twin, standing)


def check_packets(
    twin: Twin, standing: Standing, plans: Mapping[str, HostPlan], announced: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """Return the checks of the addresses of guests of ``plans``, and of pings between hosts and guests."""
    here = [guest for guest in standing.topology.guests if twin_guests.is_plugged(twin, guest)]
    places = {guest.name: twin_guests.place(twin, guest) or guest.hypervisor for guest in here}
    held = _await_addresses(twin, here)
    checks = [
        Check(
            places[guest.name],
            Kind.GUEST_ADDRESS,
            subjects.GuestFamily(guest.name, family),
            (address,),
            (address,) if address in held[guest.name] else tuple(held[guest.name]),
            "ok" if address in held[guest.name] else "failed",
            context=InTwin(twin.name),
        )
        for guest in here
        if places[guest.name] in plans
        for family, address in planned_addresses(guest).items()
    ]
    live = [
        RunningGuest(
            name=guest.name,
            host=places[guest.name],
            domain=guest.domain,
            addresses=tuple(planned_addresses(guest).values()),
            besides=tuple(address.partition("/")[0] for address in guest.addresses),
            transparent=guest.transparent,
        )
        for guest in here
    ]
    # A virtual machine answers pings, but the twin cannot send from it.
    machines = {guest.name for guest in here if twin_guests.kind(twin, guest).qemu}
    wanted = [ping for ping in pings(plans.values(), announced, live) if ping.source not in machines]
    namespaces = {guest.name: twin.guest_namespace(guest.name) for guest in here}
    namespaces |= {host: twin.machine_namespace(host) for host in plans}
    emulated = {machine.name for machine in standing.topology.machines if machine.emulated}
    answered = send((ping for ping in wanted if ping.source not in emulated), namespaces)
    for host in emulated:
        answered |= _send_from_machine(twin, host, [ping for ping in wanted if ping.source == host])
    return checks + [
        Check(
            ping.host,
            *ping.key,
            ping.answered,
            ping in answered,
            "ok" if (ping in answered) == ping.answered else "failed",
            context=SentTo(ping.address),
        )
        for ping in wanted
    ]


def planned_addresses(guest: GuestMachine) -> dict[Family, str]:
    """Return the addresses that a guest should get by DHCP and SLAAC, by family."""
    addresses: dict[Family, str] = {}
    if guest.ipv4 is not None:
        addresses["ipv4"] = guest.ipv4
    if guest.ipv6_prefix is not None:
        prefix = IPv6Network(guest.ipv6_prefix)
        is_address = prefix.prefixlen == prefix.max_prefixlen
        addresses["ipv6"] = str(prefix[0] if is_address else slaac_address(prefix, guest.mac))
    return addresses


def _await_addresses(twin: Twin, guests: Iterable[GuestMachine]) -> dict[str, list[str]]:
    """Return the addresses of guests, once each has its planned ones or after ``PATIENCE`` seconds."""
    deadline = time.monotonic() + PATIENCE
    held: dict[str, list[str]] = {}
    waiting = list(guests)
    while waiting:
        for guest in waiting:
            held[guest.name] = twin_guests.addresses(twin, guest)
        waiting = [g for g in waiting if not set(planned_addresses(g).values()) <= set(held[g.name])]
        if time.monotonic() > deadline:
            break
        if waiting:
            time.sleep(INTERVAL)
    return held


@dataclass(frozen=True)
class _Sender:
    """The sockets of one namespace."""

    ipv4: socket.socket
    ipv6: socket.socket


def send(wanted: Iterable[Ping], namespaces: Mapping[str, str]) -> set[Ping]:
    """Send all pings at once, each from the namespace of its source; return the pings with an answer."""
    waiting = dict(enumerate(wanted, 1))
    answered: set[Ping] = set()
    identifier = os.getpid() & 0xFFFF
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        senders = {
            name: _open(stack, namespaces[name]) for name in {ping.source for ping in waiting.values()}
        }
        for name, sender in senders.items():
            selector.register(sender.ipv4, selectors.EVENT_READ, name)
            selector.register(sender.ipv6, selectors.EVENT_READ, name)
        started = now = time.monotonic()
        resend = started
        while waiting and now - started < PATIENCE:
            if now - started > SILENCE and not any(ping.answered for ping in waiting.values()):
                break
            if now >= resend:
                resend = now + INTERVAL
                for number, ping in waiting.items():
                    _echo(senders[ping.source], ping.address, identifier, number)
            for key, _ in selector.select(resend - now):
                assert isinstance(key.fileobj, socket.socket)
                answer = _answer(key.fileobj, identifier)
                if answer in waiting and waiting[answer].source == key.data:
                    answered.add(waiting.pop(answer))
            now = time.monotonic()
    return answered


def _send_from_machine(twin: Twin, host: str, wanted: list[Ping]) -> set[Ping]:
    """Send pings from an emulated machine, whose namespace has no addresses; return those with an answer."""
    if not wanted:
        return set()
    commands = [
        f"(ping -n -q -c 1 -w {PATIENCE if ping.answered else SILENCE:.0f} {ping.address} >/dev/null 2>&1"
        f" && echo {ping.address}) &"
        for ping in wanted
    ]
    script = "\n".join([*commands, "wait"])
    done = subprocess.run(
        power.command_in(twin, host, ["sh", "-c", script]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == SSH_FAILED:
        # Without this, pings that must stay without an answer would pass.
        raise TwinError(f"no ping was sent from {host}: {done.stderr.strip() or 'SSH has failed'}")
    answering = set(done.stdout.split())
    return {ping for ping in wanted if ping.address in answering}


def _open(stack: ExitStack, namespace: str) -> _Sender:
    with network.entered(namespace):
        ipv4 = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        ipv6 = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    ipv4.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("@I", 0xFFFFFFFF & ~(1 << REPLY4)))
    only_replies = bytearray(b"\xff" * 32)
    only_replies[REPLY6 // 8] &= ~(1 << (REPLY6 % 8)) & 0xFF
    ipv6.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(only_replies))
    for each in (ipv4, ipv6):
        each.setblocking(False)
    return _Sender(ipv4, ipv6)


def _echo(sender: _Sender, address: str, identifier: int, number: int) -> None:
    is_ipv6 = ":" in address
    header = HEADER.pack(ECHO6 if is_ipv6 else ECHO4, 0, 0, identifier, number)
    if not is_ipv6:
        header = HEADER.pack(ECHO4, 0, checksum(header), identifier, number)
    try:
        (sender.ipv6 if is_ipv6 else sender.ipv4).sendto(header, (address, 0))
    except OSError as error:
        # Without a route, or before there is one, the ping simply gets no answer.
        if error.errno not in {
            errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES,
            errno.EAGAIN, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.EPERM, errno.ECONNREFUSED,
        }:  # fmt: skip
            raise


def _answer(receiver: socket.socket, identifier: int) -> int | None:
    """Read one packet; return the number of the ping that it answers, or None."""
    try:
        data = receiver.recv(2048)
    except OSError:
        return None
    if receiver.family == socket.AF_INET:
        data = data[(data[0] & 0x0F) * 4 :]
    if len(data) < HEADER.size:
        return None
    _, _, _, theirs, number = HEADER.unpack_from(data)
    return number if theirs == identifier else None


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071).

    >>> hex(checksum(bytes.fromhex("0800000000010001")))
    '0xf7fd'
    """
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF

"""Probes: parallel UDP echo flows between two ends of a twin, to measure the loss that an event causes.

The sockets are opened in the network namespaces of the ends.  The processes that use them stay
outside, so that a probe survives the crash of a machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import secrets
import select
import signal
import socket
import statistics
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from l3hv.twin import TwinError, guests, network, power
from l3hv.twin.state import Standing, Twin

PR_SET_PDEATHSIG = 1
ECHO_PORT = 7  # RFC 862
PAYLOAD = struct.Struct("!8sI")
BUFFER_BYTES = 4 << 20
START_SECONDS = 10.0
WARM_UP_SECONDS = 1.0
DRAIN_SECONDS = 1.0
IP_FREEBIND, IPV6_FREEBIND = 15, 78
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class End:
    """One end of a probe: the namespaces that answer for an address, and the address in each.

    ``holders`` maps these namespaces to their addresses.  Several namespaces hold an anycast address.  If a
    hypervisor translates the probed address, the guest's namespace holds another one.  Virtual machines
    answer themselves and have no namespace here.  With ``chooses`` the kernel of the end chooses the source
    address for the target (a guest, or a machine without a loopback).
    """

    name: str
    address: Address
    holders: Mapping[str, Address]
    chooses: bool = False


@dataclass(frozen=True)
class Result:
    """The result of a probe; outages are in milliseconds (see ``outage``), 0 if no flow lost a packet.

    ``lost`` counts the packets of ``sent`` whose echo had not arrived one second after the last
    packet was sent; ``flows_hit`` counts the flows that lost a packet.  ``worst_outage_ms`` is over
    all flows, ``median_outage_ms`` over flows that lost a packet.
    """

    sent: int
    lost: int
    flows: int
    flows_hit: int
    worst_outage_ms: float
    median_outage_ms: float


def outage(sent_at: Sequence[float], answered: Sequence[int], interval: float) -> float:
    """Return the longest outage of a flow, in seconds.

    ``sent_at`` has the sending times of its packets, and ``answered`` whether the echo of each arrived.
    The outage of a sequence of unanswered packets is the time between the answered packets before and
    after it, less the interval between two packets.  Only sending times count, so jitter adds nothing and
    a late echo is no outage.  A sequence at the start (or the end) counts as if the packet before the
    first (after the last) had been answered.

    >>> outage([0.0, 0.01, 0.02, 0.03], [1, 1, 1, 1], 0.01)
    0.0
    >>> round(outage([0.0, 0.01, 0.02, 0.03], [1, 0, 0, 1], 0.01), 3)
    0.02
    >>> round(outage([0.0, 0.01, 0.02, 0.03], [1, 1, 0, 0], 0.01), 3)
    0.02
    """
    if all(answered):
        return 0.0
    answered_at = [at for at, is_answered in zip(sent_at, answered, strict=True) if is_answered]
    edges = [sent_at[0] - interval, *answered_at, sent_at[-1] + interval]
    return max(after - before for before, after in itertools.pairwise(edges)) - interval


def summary(flows: Sequence[tuple[Sequence[float], Sequence[int]]], interval: float) -> Result:
    """Return the result of flows, each with ``sent_at`` and ``answered`` (see ``outage``).

    >>> summary([([0.0, 1.0], [1, 1]), ([0.5, 1.5], [1, 0])], 1.0)
    Result(sent=4, lost=1, flows=2, flows_hit=1, worst_outage_ms=1000.0, median_outage_ms=1000.0)
    """
    hit = [
        round(1000 * outage(sent_at, answered, interval), 1)
        for sent_at, answered in flows
        if not all(answered)
    ]
    return Result(
        sent=sum(len(sent_at) for sent_at, _ in flows),
        lost=sum(len(answered) - sum(answered) for _, answered in flows),
        flows=len(flows),
        flows_hit=len(hit),
        worst_outage_ms=max(hit, default=0.0),
        median_outage_ms=round(statistics.median(hit), 1) if hit else 0.0,
    )


def find_end(twin: Twin, standing: Standing, wanted: str, family: int) -> End:
    """Return the end that ``wanted`` names: a guest, a machine or an address.

    ``family`` is 4 or 6 and selects among the addresses of a guest or machine.
    """
    try:
        address = ip_address(wanted)
    except ValueError:
        return _named_end(twin, standing, wanted, family)
    return _end_of_address(twin, standing, address)


def _named_end(twin: Twin, standing: Standing, name: str, family: int) -> End:
    on_lo: list[str] = []
    if name in {guest.name for guest in standing.topology.guests}:
        guest = standing.guest(name)
        if not guests.is_plugged(twin, guest):
            raise TwinError(f"{name} is off: './twin plug {name}' starts it")
        namespace = twin.guest_namespace(name)
        found = guests.addresses(twin, guest)
        if guests.kind(twin, guest).qemu:
            namespace = ""
    elif name in {known.name for known in standing.topology.machines}:
        power.leader(twin, name)
        if standing.machine(name).emulated:
            raise TwinError(f"{name} is emulated, and no end of a probe: name one of its guests")
        namespace = twin.machine_namespace(name)
        # Prefer the addresses of its loopback to those of its ports.
        on_lo = network.global_addresses(namespace, of_lo=True)
        found = network.global_addresses(namespace)[::-1]
    else:
        raise TwinError(f"{name!r} is no guest, machine or address of this twin")
    for candidate in map(ip_address, found):
        if candidate.version == family:
            # A virtual machine answers itself.
            return End(
                name, candidate, {namespace: candidate} if namespace else {}, str(candidate) not in on_lo
            )
    raise TwinError(f"{name} has no IPv{family} address (yet)")


def _end_of_address(twin: Twin, standing: Standing, address: Address) -> End:
    holders: dict[str, Address] = {}
    namespaces = [twin.machine_namespace(known.name) for known in standing.topology.machines]
    namespaces += [twin.guest_namespace(guest.name) for guest in standing.topology.guests]
    for namespace in namespaces:
        if network.namespaces(namespace) and network.is_local(namespace, str(address)):
            holders[namespace] = address
    vms = [guest for guest in standing.topology.guests if guests.kind(twin, guest).qemu]
    if any(str(address) in guests.addresses(twin, guest) for guest in vms):
        return End(str(address), address, holders)
    for guest in standing.topology.guests:
        if any(address == ip_address(known.partition("/")[0]) for known in guest.transparent):
            for own in map(ip_address, guests.addresses(twin, guest)):
                if own.version == address.version:
                    holders[twin.guest_namespace(guest.name)] = own
                    break
    if not holders:
        emulated = any(known.emulated for known in standing.topology.machines)
        besides = "; an emulated machine cannot be an end of a probe" if emulated else ""
        raise TwinError(f"no running machine or guest of the twin holds {address}{besides}")
    return End(str(address), address, holders)


def run_probe(
    source: End,
    target: End,
    *,
    flows: int,
    interval: float,
    seconds: float,
    event: Callable[[], int] | None,
    at: float,
) -> Result:
    """Send ``flows`` parallel flows, one packet per ``interval`` s each, for ``seconds``.

    ``event`` runs in a process of its own ``at`` seconds after the first packet; raise an error if it
    does not return 0.
    """
    if source.address.version != target.address.version:
        raise TwinError(f"{source.name} and {target.name} have addresses of different families")
    if not source.holders:
        raise TwinError(f"{source.name} is a virtual machine, which can only answer: swap the ends")
    if set(source.holders) & set(target.holders):
        raise TwinError(f"{source.name} and {target.name} are the same end")
    with contextlib.ExitStack() as stack:
        started_read, started_write = os.pipe()
        stack.callback(os.close, started_read)
        echo = stack.enter_context(_child(lambda: _echo(target.holders, started_write)))
        os.close(started_write)
        sockets = [stack.enter_context(_source_socket(source, target)) for _ in range(flows)]
        destination = (str(target.address), ECHO_PORT)
        token = secrets.token_bytes(8)
        if not select.select([started_read], [], [], START_SECONDS)[0]:
            raise TwinError(f"the echo process did not start in {START_SECONDS:g} s: the host is too busy")
        if not os.read(started_read, 1):
            raise TwinError("the echo process ended before the probe: run it again")
        _warm_up(sockets, destination, token)
        begin = time.monotonic() + 0.05
        event_process = None
        if event:
            event_process = stack.enter_context(_child(lambda: _run_at(begin + at, event)))
        _raise_priority()
        measured = _flow_all(sockets, destination, token, begin=begin, interval=interval, seconds=seconds)
        if not echo.alive():
            raise TwinError("the echo process ended before the probe: run it again")
        if event_process and event_process.wait() != 0:
            raise TwinError("the event failed, so the probe has no result")
    return summary(measured, interval)


def _flow_all(
    sockets: Sequence[socket.socket],
    destination: tuple[str, int],
    token: bytes,
    *,
    begin: float,
    interval: float,
    seconds: float,
) -> list[tuple[array[float], bytearray]]:
    """Send and receive; return the sending times and the answered packets of each flow."""
    flows = len(sockets)
    rounds = max(1, round(seconds / interval))
    total = rounds * flows
    step = interval / flows  # Spread the packets of the flows evenly over the interval.
    sent_at = [array("d", bytes(8 * rounds)) for _ in sockets]
    answered = [bytearray(rounds) for _ in sockets]
    missing = total
    poll = select.epoll()
    for flow in sockets:
        flow.setblocking(False)
        poll.register(flow.fileno(), select.EPOLLIN)
    numbers = {flow.fileno(): at for at, flow in enumerate(sockets)}
    buffer = bytearray(2048)
    slot = 0
    end = begin + seconds + DRAIN_SECONDS
    gc.disable()
    try:
        while missing:
            now = time.monotonic()
            while slot < total and begin + slot * step <= now:
                number, flow_number = divmod(slot, flows)
                sent_at[flow_number][number] = time.monotonic()
                # Without a route the packet is not sent, and counts as lost.
                with contextlib.suppress(OSError):
                    sockets[flow_number].sendto(PAYLOAD.pack(token, number), destination)
                slot += 1
            due = begin + slot * step if slot < total else end
            ready = poll.poll(max(0.0, due - time.monotonic()))
            # Read echoes that arrived while this process could not run: they are not lost.
            if not ready and now >= end:
                break
            for fd, _ in ready:
                flow_number = numbers[fd]
                marks = answered[flow_number]
                with contextlib.suppress(OSError):
                    while True:
                        size = sockets[flow_number].recv_into(buffer)
                        if size == PAYLOAD.size and buffer[:8] == token:
                            number = PAYLOAD.unpack_from(buffer)[1]
                            if number < rounds and not marks[number]:
                                marks[number] = 1
                                missing -= 1
    finally:
        gc.enable()
        poll.close()
    return list(zip(sent_at, answered, strict=True))


def _warm_up(sockets: Sequence[socket.socket], destination: tuple[str, int], token: bytes) -> None:
    """Resolve neighbours and fill caches: send until each flow had an echo, or no flow had one for 1 s."""
    waiting = set(sockets)
    deadline = time.monotonic() + WARM_UP_SECONDS
    while waiting and time.monotonic() < deadline:
        for flow in waiting:
            with contextlib.suppress(OSError):
                flow.sendto(PAYLOAD.pack(token, 0xFFFFFFFF), destination)
        soon = time.monotonic() + 0.1
        while waiting and (left := soon - time.monotonic()) > 0:
            readable, _, _ = select.select(list(waiting), [], [], left)
            for flow in readable:
                with contextlib.suppress(OSError):
                    flow.recv(2048)
                waiting.discard(flow)
                deadline = time.monotonic() + WARM_UP_SECONDS


def _source_socket(source: End, target: End) -> socket.socket:
    """Open the socket of a flow, bound to a source address of its end and to a free port."""
    namespace, address = next(iter(source.holders.items()))
    own = str(address)
    with network.entered(namespace):
        flow = _socket(source.address)
        if source.chooses:
            with _socket(source.address) as asking, contextlib.suppress(OSError):  # no route yet
                asking.connect((str(target.address), ECHO_PORT))
                own = asking.getsockname()[0]
        flow.bind((own, 0))
    return flow


def _socket(address: Address) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_DGRAM)
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    # The socket must survive the removal of its address, which may return.
    if address.version == 4:
        made.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    return made


def _echo(holders: Mapping[str, Address], started: int) -> int:
    """Echo all packets to the addresses of ``holders`` forever; write to the pipe ``started`` when ready.

    A machine that reboots gets a new namespace, so look for new namespaces five times a second.
    """
    _raise_priority()
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    serving: dict[str, tuple[tuple[int, int], int]] = {}
    buffer = bytearray(65536)
    view = memoryview(buffer)
    looked = 0.0
    listening = False
    while True:
        if time.monotonic() - looked > 0.2:
            looked = time.monotonic()
            for namespace, address in holders.items():
                identity = network.identity(network.NAMESPACES / namespace)
                if identity is None or serving.get(namespace, (None,))[0] == identity:
                    continue
                if namespace in serving:
                    sockets.pop(serving[namespace][1]).close()
                with contextlib.suppress(OSError, TwinError), network.entered(namespace):
                    made = _socket(address)
                    made.setblocking(False)
                    made.bind((str(address), ECHO_PORT))
                    sockets[made.fileno()] = made
                    serving[namespace] = identity, made.fileno()
                    poll.register(made.fileno(), select.EPOLLIN)
            if not listening:
                os.write(started, b"1")
                listening = True
        for fd, _ in poll.poll(0.2):
            with contextlib.suppress(OSError):
                while True:
                    size, sender = sockets[fd].recvfrom_into(buffer)
                    with contextlib.suppress(OSError):
                        sockets[fd].sendto(view[:size], sender)


def _run_at(moment: float, event: Callable[[], int]) -> int:
    time.sleep(max(0.0, moment - time.monotonic()))
    return event()


def _raise_priority() -> None:
    """Run with the highest priority that the host allows, so that the probe itself loses no packets."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)


def _end_with(parent: int) -> None:
    """Make the kernel kill this process when its parent has ended for any reason (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class _Child:
    """A forked process."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._status: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            _end_with(parent)
            try:
                os.dup2(2, 1)  # Standard output is reserved for the result.
                status = work()
            finally:
                os._exit(status)

    def alive(self) -> bool:
        """Return whether the process still runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is None

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        if self.alive():
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status or 0


@contextmanager
def _child(work: Callable[[], int]) -> Iterator[_Child]:
    child = _Child(work)
    try:
        yield child
    finally:
        if child.alive():
            os.kill(child.pid, signal.SIGKILL)
            child.wait()

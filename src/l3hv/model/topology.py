"""The machines, ports and guests of a fabric, with the facts that cabling them needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """One interface that a machine has on an L2 segment.

    ``interface`` is the name that the routing configuration uses (``eno1.90`` for a VLAN,
    ``eth1`` for a plain uplink). The cabling decides whether it is a VLAN interface or a port
    of that name.  ``mtu`` is in bytes.  ``link`` names the two ends of a link; it is ``None`` on an L2 path.
    ``segment`` is ``<link or path>-<domain>``, followed by the host's subnet (``10.240.0.4/32``) if the hosts
    of the path are in several subnets.
    """

    interface: str
    path: str
    domain: str
    mtu: int
    subnet: str = ""
    link: str | None = None

    @property
    def segment(self) -> str:
        return f"{self.link or self.path}-{self.domain}" + (f"-{self.subnet}" if self.subnet else "")


@dataclass(frozen=True)
class RouterPort:
    """One interface of a router, on a segment.

    ``addresses`` are the router's, with the length of the subnet.  ``hosts`` are the addresses of hosts that
    are alone in their subnet.
    """

    segment: str
    mtu: int
    addresses: tuple[str, ...]
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Router:
    """A router between the subnets of a path in one domain, which knows these subnets only."""

    name: str
    ports: tuple[RouterPort, ...]


@dataclass(frozen=True)
class GuestMachine:
    """One guest and the interface that it has on its hypervisor.

    ``mac`` is the guest's own; ``mtu`` is the MTU of the guest's interface, in bytes.  ``ipv6_prefix`` is the
    guest's /64, or its address in a shared /64 as a /128.  ``addresses``
    are the additional and anycast addresses (with prefix length 32 or 128; of a subnet the first)
    that the guest must have on its loopback to answer for them.  ``transparent`` are the addresses
    that the hypervisor translates to the guest's own; the guest needs no configuration for them.
    """

    name: str
    hypervisor: str
    interface: str
    mac: str
    domain: str
    mtu: int
    ipv4: str | None
    ipv6_prefix: str | None
    addresses: tuple[str, ...] = ()
    transparent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """One machine: its kind is ``hypervisor``, ``route_reflector`` or ``edge_router``.

    ``system`` is the distribution that it runs (``debian12`` or ``debian13``), ``ports`` are its interfaces
    on the segments, and ``daemon`` is the routing daemon that it is installed with (``bird1``, ``bird2``,
    ``bird3``, ``frr``, ``gobgp``).  ``managed`` is false for a router that l3hv does not configure.

    ``needs`` are the features of the kernel that it uses and the host may lack (``vrf``, ``ipip``).
    ``emulated`` is true for a machine of QEMU, which has a kernel of its own; others are containers.
    ``serves_dhcp`` is true for a DHCP server for guests of other machines.
    """

    name: str
    kind: str
    system: str
    ports: tuple[Port, ...]
    daemon: str = "bird2"
    managed: bool = True
    needs: tuple[str, ...] = ()
    emulated: bool = False
    serves_dhcp: bool = False

    @property
    def image(self) -> str:
        """The image that the machine boots: its system, its daemon unless that is bird2, and ``dhcp``."""
        daemon = "" if self.daemon == "bird2" else f"-{self.daemon}"
        return f"{self.system}{daemon}{'-dhcp' if self.serves_dhcp else ''}"


@dataclass(frozen=True)
class Topology:
    """All machines and guests of one fabric, sorted by name."""

    machines: tuple[Machine, ...]
    guests: tuple[GuestMachine, ...]
    routers: tuple[Router, ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(sorted({port.segment for machine in self.machines for port in machine.ports}))

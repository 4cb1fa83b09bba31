"""The DHCPv4 server for guests whose hypervisors relay: it has one lease for the port of each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from l3hv.model.intent import HostSlice
from l3hv.model.plan import (
    DhcpPool,
    DhcpRelay,
    DhcpServer,
    GuestLease,
    GuestPlan,
    HostPlan,
    RelayingHypervisor,
    ServedGuest,
    ServedPool,
)
from l3hv.model.text import natural_key
from l3hv.plan.guest_ports import circuit_prefix, dhcp_pools, guest_plans, guest_services
from l3hv.plan.uplinks import loopback_addresses, preferred_source

LEASE_S = 12 * 3600
"""The duration of a lease: that of the hypervisors' own DHCP server (``dhcp.conf.j2``)."""


@dataclass(frozen=True)
class Relaying:
    """The parts of a hypervisor's plan that a DHCP server needs."""

    relay: DhcpRelay
    guests: tuple[GuestPlan, ...]
    pools: tuple[DhcpPool, ...]


@dataclass(frozen=True)
class _Leased:
    """A guest with a lease, and the circuit id of its relayed messages."""

    circuit_id: str
    guest: GuestPlan
    lease: GuestLease


def dhcp_server(host_slice: HostSlice) -> DhcpServer | None:
    """Return the DHCP server of a host, or ``None`` if the host serves no other host's guests."""
    common, address = host_slice.common, host_slice.host.settings.serves_dhcp_at
    if address is None:
        return None
    relaying = []
    for hypervisor in host_slice.relays:
        source = preferred_source(common, loopback_addresses(common, hypervisor))
        guests = guest_plans(common, hypervisor, source)
        relay = guest_services(common, hypervisor, guests, source).dhcp_relay
        if relay is not None:
            relaying.append(Relaying(relay, guests, dhcp_pools(common, guests)))
    return server_of(address, relaying)


def relaying_to(address: str, plans: Iterable[HostPlan]) -> list[Relaying]:
    """Return the hypervisors that relay to a server at this address, from their plans."""
    return [
        Relaying(plan.guest_services.dhcp_relay, plan.guests, plan.dhcp_pools)
        for plan in plans
        if plan.guest_services.dhcp_relay is not None and address in plan.guest_services.dhcp_relay.servers
    ]


def server_of(address: str, relaying: Iterable[Relaying]) -> DhcpServer:
    """Return the DHCP server at an address for the guests of these hypervisors.

    A lease follows from option 82 alone, which the hypervisor writes: a guest cannot choose it.
    """
    in_order = sorted(relaying, key=lambda hypervisor: natural_key(hypervisor.relay.name))
    pools: dict[str, DhcpPool] = {}
    leased: dict[str, list[_Leased]] = {}
    for hypervisor in in_order:
        pools.update((pool.name, pool) for pool in hypervisor.pools)
        circuits = {relayed.interface: relayed.circuit_id for relayed in hypervisor.relay.guests}
        for guest in hypervisor.guests:
            if guest.lease is not None:
                one = _Leased(circuits[guest.interface], guest, guest.lease)
                leased.setdefault(guest.lease.pool, []).append(one)
    return DhcpServer(
        address=address,
        lease_s=LEASE_S,
        relays=tuple(_relaying_hypervisor(hypervisor.relay) for hypervisor in in_order),
        pools=tuple(
            served
            for name in sorted(leased, key=natural_key)
            for served in _served_pools(pools[name], leased[name])
        ),
    )


def _relaying_hypervisor(relay: DhcpRelay) -> RelayingHypervisor:
    prefix = circuit_prefix(relay.name)
    return RelayingHypervisor(relay.name, relay.address, prefix, len(prefix))


def _served_pools(pool: DhcpPool, leased: list[_Leased]) -> Iterator[ServedPool]:
    """Yield the subnets of a pool: the pool itself, or each address if the guests have single addresses.

    Kea derives the guests' netmask from the subnet, and no option replaces it (versions 2.2 and 2.6).
    """
    if not pool.has_link_local_gateway:
        yield _served_pool(pool, IPv4Network((pool.subnet, pool.netmask)), leased)
        return
    for one in leased:
        yield _served_pool(pool, IPv4Network(one.lease.address), [one])


def _served_pool(pool: DhcpPool, prefix: IPv4Network, leased: list[_Leased]) -> ServedPool:
    """Return a subnet with its guests; hypervisors may give the guests of one pool different MTUs."""
    mtu = Counter(one.guest.mtu for one in leased).most_common(1)[0][0]
    return ServedPool(
        id=int(prefix.network_address),
        name=pool.name,
        prefix=str(prefix),
        gateway=pool.gateway,
        mtu=mtu,
        dns=pool.dns,
        search=pool.search,
        routes=classless_routes(pool.routes) if pool.routes else None,
        guests=tuple(_served_guest(one, mtu) for one in leased),
    )


def _served_guest(leased: _Leased, mtu: int) -> ServedGuest:
    guest = leased.guest
    own_mtu = guest.mtu if guest.mtu != mtu else None
    return ServedGuest(guest.name, leased.circuit_id, guest.mac, leased.lease.address, own_mtu)


def classless_routes(routes: Iterable[tuple[str, str]]) -> str:
    """Return the value of option 121 in hexadecimal (RFC 3442): length, significant bytes, gateway.

    >>> classless_routes([("0.0.0.0/0", "203.0.113.254"), ("192.0.2.0/24", "203.0.113.9")])
    '00CB0071FE18C00002CB007109'
    """
    value = b""
    for destination, gateway in routes:
        prefix = IPv4Network(destination)
        significant = prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        value += bytes((prefix.prefixlen,)) + significant + IPv4Address(gateway).packed
    return value.hex().upper()

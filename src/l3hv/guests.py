"""The guests of a hypervisor: read, then checked against their host and the fabric's pools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from l3hv.addressing import (
    GUEST_PREFIX_LENGTH,
    LINK_LOCAL_GATEWAY,
    Address,
    Network,
    bounds,
    family_of,
    guest_prefix,
    link_local_of,
)
from l3hv.facts import Common, GuestIntent, Pool
from l3hv.model import Family
from l3hv.shape import (
    Fields,
    Notes,
    Text,
    Unfit,
    address_or_network,
    ipv4_address,
    ipv6_address,
    ipv6_network,
    mac,
    network,
    yes_or_no,
)

GUEST_KEYS = frozenset(
    {
        "addresses",
        "anycast",
        "domain",
        "interface",
        "ipv4",
        "ipv6",
        "ipv6_on_link",
        "link_local",
        "mac",
        "name",
        "pool",
        "subnets",
        "transparent",
    }
)

_LINK_LOCAL = IPv6Network("fe80::/64")

guest_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "a guest's name of letters, digits, '.', '_' and '-' (at most 63)",
    "Choose a name of these characters, beginning with a letter or digit.",
)
interface_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}",
    "an interface name of letters, digits, '.', '_' and '-' (at most 15 bytes)",
    "Choose a name that the kernel accepts, such as eno1 or vm-web1.",
    # "all" and "default" are directories of /proc/sys/net/*/conf beside the interfaces.
    {"all", "default", "lo"},
)
reference = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}",
    "the name of a domain or pool of the fabric",
    "Choose one of l3hv_domains or l3hv_pools.",
)


@dataclass(frozen=True)
class Written:
    """A guest as it was written: the right types, nothing looked up yet."""

    where: str
    name: str
    interface: str
    mac: str
    domain: str | None
    pool: str | None
    ipv4: IPv4Address | None
    ipv6: IPv6Network | bool
    ipv6_on_link: bool
    link_local: IPv6Address | None
    addresses: tuple[Network, ...]
    subnets: tuple[Network, ...]
    anycast: tuple[Network, ...]
    transparent: tuple[IPv4Address, ...]


def read_guests(fields: Fields) -> list[Written]:
    """Read ``l3hv_guests``, leaving out guests that are not well formed."""
    notes, value = fields.notes, fields.raw.get("l3hv_guests")
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        notes.unfit("l3hv_guests", value, Unfit("a list of guests", "Begin each guest with '- name: …'."))
        return []
    guests = (_read_guest(notes, index, item) for index, item in enumerate(value))
    return [guest for guest in guests if guest is not None]


def _read_guest(notes: Notes, index: int, value: object) -> Written | None:
    before = len(notes.problems)
    where = f"l3hv_guests[{index}]"
    if not isinstance(value, dict):
        notes.unfit(where, value, Unfit("a guest", "Write its name, mac and ipv4 as 'key: value' lines."))
        return None
    name = Fields(notes, where, value).need("name", guest_name, "Give the guest a name.")
    if name is not None:
        where = f"l3hv_guests[{name}]"
    fields = Fields(notes, where, value, GUEST_KEYS)
    hardware = fields.need("mac", mac, "Give the MAC of the guest's interface.")
    written = Written(
        where=where,
        name=name or "",
        interface=_interface(fields, name),
        mac=hardware or "",
        domain=fields.take("domain", reference),
        pool=fields.take("pool", reference),
        ipv4=fields.take("ipv4", ipv4_address),
        ipv6=fields.take("ipv6", _prefix_or_switch, True),
        ipv6_on_link=fields.take("ipv6_on_link", yes_or_no, False),
        link_local=fields.take("link_local", _link_local),
        addresses=fields.take_all("addresses", _single_address),
        subnets=fields.take_all("subnets", network),
        anycast=fields.take_all("anycast", address_or_network),
        transparent=fields.take_all("transparent", ipv4_address),
    )
    return written if len(notes.problems) == before else None


def _interface(fields: Fields, name: str | None) -> str:
    if fields.raw.get("interface") is not None or name is None:
        return fields.take("interface", interface_name, "")
    try:
        return interface_name(name)
    except Unfit as unfit:
        fields.notes.add(
            fields.path("interface"),
            name,
            f"is missing, and the guest's name is not {unfit.expected}.",
            "Give the guest an interface name of its own.",
        )
        return ""


def _prefix_or_switch(value: object) -> IPv6Network | bool:
    if isinstance(value, bool):
        return value
    prefix = ipv6_network(value)
    if prefix.prefixlen != GUEST_PREFIX_LENGTH:
        raise Unfit("a /64, or false", f"SLAAC needs {GUEST_PREFIX_LENGTH} bits.")
    return prefix


def _link_local(value: object) -> IPv6Address:
    address = ipv6_address(value)
    if address not in _LINK_LOCAL or str(address) in (LINK_LOCAL_GATEWAY, "fe80::"):
        raise Unfit(
            f"a link-local address other than the gateway's {LINK_LOCAL_GATEWAY}", "Write it like fe80::2."
        )
    return address


def _single_address(value: object) -> Network:
    prefix = address_or_network(value)
    if prefix.prefixlen != prefix.max_prefixlen:
        raise Unfit("an IPv4 or IPv6 address", "Write prefixes under subnets.")
    return prefix


# Relations.


class Home:
    """What the guests of one hypervisor are checked against."""

    def __init__(self, common: Common, domains: tuple[str, ...], mtu: int, guest_mtu: int) -> None:
        self.common = common
        self.domains = domains
        self.mtu = mtu
        self.guest_mtu = guest_mtu
        self.pools = {pool.name: pool for pool in common.pools}
        self._ranges: dict[tuple[str, int], list[tuple[int, int, Pool]]] = {}
        for pool in common.pools:
            for prefix in pool.prefixes:
                ranges = self._ranges.setdefault((pool.domain, prefix.version), [])
                ranges.append((*bounds(prefix), pool))

    def pool_around(self, domain: str, prefix: Address | Network) -> Pool | None:
        """Return the pool of ``domain`` that contains an address or prefix."""
        first, last = bounds(prefix)
        for low, high, pool in self._ranges.get((domain, prefix.version), ()):
            if low <= first and last <= high:
                return pool
        return None


def resolve_guests(written: Iterable[Written], home: Home, notes: Notes) -> tuple[GuestIntent, ...]:
    """Return the guests with everything derived that follows from the fabric, noting what cannot be."""
    guests = (_resolve_guest(guest, home, notes) for guest in written)
    return tuple(guest for guest in guests if guest is not None)


def _resolve_guest(guest: Written, home: Home, notes: Notes) -> GuestIntent | None:
    before = len(notes.problems)
    domain = guest.domain or home.common.public.name
    _check_domain(guest, domain, home, notes)
    if guest.mac == home.common.gateway_mac:
        notes.add(
            f"{guest.where}.mac",
            guest.mac,
            f"{guest.mac} is that of the gateway on every guest port.",
            "Choose another MAC, or another l3hv_gateway_mac.",
        )
    if len(notes.problems) > before:
        return None
    pool = _main_pool(guest, domain, home, notes)
    if pool is None:
        return None
    prefix = _ipv6_prefix(guest, domain, pool, home, notes)
    extras = _check_extras(guest, domain, prefix, home, notes)
    mtu = _mtu(guest, pool, home, notes)
    has_ipv6 = prefix is not None or "ipv6" in extras
    if guest.link_local is not None and not has_ipv6:
        notes.add(
            f"{guest.where}.link_local",
            guest.link_local,
            "Nothing of IPv6 is routed to the guest.",
            "Remove link_local, or give the guest a /64 with ipv6.",
        )
    if len(notes.problems) > before:
        return None
    return GuestIntent(
        name=guest.name,
        interface=guest.interface,
        mac=guest.mac,
        domain=domain,
        pool=pool.name,
        mtu=mtu,
        ipv4=None if guest.ipv4 is None else str(guest.ipv4),
        ipv6=None if prefix is None else str(prefix),
        ipv6_on_link=guest.ipv6_on_link,
        link_local=str(guest.link_local or link_local_of(guest.mac)) if has_ipv6 else None,
        addresses=tuple(map(str, guest.addresses)),
        subnets=tuple(map(str, guest.subnets)),
        anycast=tuple(map(str, guest.anycast)),
        transparent=tuple(map(str, guest.transparent)),
    )


def _check_domain(guest: Written, domain: str, home: Home, notes: Notes) -> None:
    known = [known.name for known in home.common.domains]
    if domain not in known:
        notes.add(
            f"{guest.where}.domain",
            domain,
            f"There is no domain {domain}.",
            f"Choose one of {', '.join(known)}.",
        )
    elif domain not in home.domains:
        notes.add(
            f"{guest.where}.domain",
            domain,
            f"The hypervisor has no uplink in {domain}.",
            f"Add {domain} to l3hv_uplinks, or move the guest to another hypervisor.",
        )


def _main_pool(guest: Written, domain: str, home: Home, notes: Notes) -> Pool | None:
    """Return the pool of the guest's main address: the IPv4 one, else its /64."""
    main: Address | Network | None = guest.ipv4
    field = f"{guest.where}.ipv4"
    if main is None:
        if isinstance(guest.ipv6, bool):
            notes.add(
                field,
                None,
                "The guest has neither ipv4 nor a /64.",
                "Give it ipv4, or for an IPv6-only guest its /64 with ipv6.",
            )
            return None
        main, field = guest.ipv6, f"{guest.where}.ipv6"
    pool = _pool_for(guest, domain, main, field, home, notes)
    if pool is None or not isinstance(main, IPv4Address):
        return pool
    if pool.gateway is None:
        notes.add(
            field,
            main,
            f"The pool {pool.name} has no gateway: it holds additional addresses only.",
            "Choose an address of a pool with a gateway.",
        )
        return None
    return pool if _is_usable(main, pool, field, notes) else None


def _pool_for(
    guest: Written, domain: str, main: Address | Network, field: str, home: Home, notes: Notes
) -> Pool | None:
    pool = home.pool_around(domain, main)
    if guest.pool is None:
        if pool is None:
            _note_homeless(main, domain, field, home, notes)
        return pool
    chosen = home.pools.get(guest.pool)
    if chosen is None:
        notes.add(
            f"{guest.where}.pool",
            guest.pool,
            f"There is no pool {guest.pool}.",
            f"Choose one of {', '.join(home.pools)}." if home.pools else "Describe it in l3hv_pools.",
        )
    elif chosen.domain != domain:
        notes.add(
            f"{guest.where}.pool",
            guest.pool,
            f"The pool {chosen.name} is in {chosen.domain}, the guest in {domain}.",
            f"Choose a pool of {domain}, or move the guest to {chosen.domain} with domain.",
        )
    elif chosen is not pool:
        notes.add(
            field,
            main,
            f"{main} is not in the pool {chosen.name}.",
            f"Choose an address of {' or '.join(map(str, chosen.prefixes))}, or another pool.",
        )
    else:
        return pool
    return None


def _note_homeless(prefix: Address | Network, domain: str, field: str, home: Home, notes: Notes) -> None:
    family = family_of(prefix)
    prefixes = home.common.pool_prefixes(domain, family)
    elsewhere = next(
        (pool for pool in home.common.pools for p in pool.prefixes if _is_inside(prefix, p)), None
    )
    if elsewhere is not None:
        message = f"{prefix} is in the pool {elsewhere.name} of {elsewhere.domain}, the guest in {domain}."
    else:
        message = f"{prefix} is in no pool of {domain}."
    if prefixes:
        remedy = f"Choose one of {', '.join(map(str, prefixes[:3]))}."
    else:
        remedy = f"Add a pool with {family} to l3hv_pools."
    notes.add(field, prefix, message, remedy)


def _is_inside(inner: Address | Network, outer: Network) -> bool:
    (first, last), (low, high) = bounds(inner), bounds(outer)
    return inner.version == outer.version and low <= first and last <= high


def _is_usable(prefix: Address | Network, pool: Pool, field: str, notes: Notes) -> bool:
    """Note a prefix that holds an address which the subnet of its pool needs for itself."""
    if pool.gateway is None or pool.ipv4 is None or prefix.version == 6:
        return True
    first, last = bounds(prefix)
    low, high = bounds(pool.ipv4)
    what = {int(pool.gateway): "gateway", low: "network address", high: "broadcast address"}
    for address, role in what.items():
        if first <= address <= last:
            verb = "is" if first == last else f"contains {IPv4Address(address)},"
            notes.add(
                field,
                prefix,
                f"{prefix} {verb} the {role} of the pool {pool.name}.",
                f"Choose another address of {pool.ipv4}.",
            )
            return False
    return True


def _ipv6_prefix(guest: Written, domain: str, pool: Pool, home: Home, notes: Notes) -> IPv6Network | None:
    """Return the guest's /64: the one it asks for, else the one with the number of its IPv4 address."""
    if isinstance(guest.ipv6, IPv6Network):
        if guest.ipv4 is not None and home.pool_around(domain, guest.ipv6) is None:
            _note_homeless(guest.ipv6, domain, f"{guest.where}.ipv6", home, notes)
        return guest.ipv6
    if not guest.ipv6 or pool.ipv6 is None or pool.ipv4 is None or guest.ipv4 is None:
        return None
    number = int(guest.ipv4) - int(pool.ipv4.network_address)
    prefix = guest_prefix(pool.ipv6, number)
    if prefix is None:
        count = 1 << (GUEST_PREFIX_LENGTH - pool.ipv6.prefixlen)
        notes.add(
            f"{guest.where}.ipv6",
            None,
            f"{pool.ipv6} has {count} prefixes of 64 bits, too few for number {number} of {guest.ipv4}.",
            "Give the guest a /64 of its own with ipv6, or ipv6: false for none.",
        )
    return prefix


def _check_extras(
    guest: Written, domain: str, main_prefix: IPv6Network | None, home: Home, notes: Notes
) -> set[Family]:
    """Check what is routed to the guest beside its main addresses; return the families of it."""
    families: set[Family] = set()
    for key, prefixes in (
        ("addresses", guest.addresses),
        ("subnets", guest.subnets),
        ("anycast", guest.anycast),
        ("transparent", tuple(map(IPv4Network, guest.transparent))),
    ):
        for prefix in prefixes:
            field = f"{guest.where}.{key}"
            families.add(family_of(prefix))
            _check_extra(guest, prefix, domain, field, main_prefix, home, notes)
    return families


def _check_extra(
    guest: Written,
    prefix: Network,
    domain: str,
    field: str,
    main_prefix: IPv6Network | None,
    home: Home,
    notes: Notes,
) -> None:
    pool = home.pool_around(domain, prefix)
    if pool is None:
        _note_homeless(prefix, domain, field, home, notes)
        return
    if not _is_usable(prefix, pool, field, notes):
        return
    if prefix.version == 4:
        if guest.ipv4 is None:
            notes.add(
                field,
                prefix,
                f"{prefix} is routed through the guest's main IPv4 address, and it has none.",
                "Give the guest ipv4, or remove it.",
            )
    elif GUEST_PREFIX_LENGTH < prefix.prefixlen < prefix.max_prefixlen:
        notes.add(
            field,
            prefix,
            f"{prefix} is longer than 64 bits.",
            "Choose a prefix of 64 bits or less, or single addresses: the fabric accepts no others.",
        )
    elif main_prefix is not None and _is_inside(prefix, main_prefix):
        notes.add(
            field,
            prefix,
            f"{prefix} is in the guest's own {main_prefix}.",
            "Remove it: it is routed already.",
        )


def _mtu(guest: Written, pool: Pool, home: Home, notes: Notes) -> int:
    if pool.mtu is not None and pool.mtu > home.mtu:
        notes.add(
            guest.where,
            pool.mtu,
            f"The pool {pool.name} has an MTU of {pool.mtu}, the uplinks of this hypervisor {home.mtu}.",
            f"Choose at most {home.mtu} in l3hv_pools.{pool.name}.mtu, or raise l3hv_mtu.",
        )
    return home.guest_mtu if pool.mtu is None else pool.mtu

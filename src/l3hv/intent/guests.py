"""The guests of a hypervisor: read, then checked against their host and the fabric's pools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from l3hv.intent.fabric import LEAST_IPV6_MTU
from l3hv.intent.shape import (
    Fields,
    Notes,
    Text,
    Unfit,
    address_or_network,
    ipv4_address,
    ipv6_address,
    mac,
    network,
    remedy_for_text,
    yes_or_no,
)
from l3hv.model.addressing import (
    GUEST_PREFIX_LENGTH,
    LINK_LOCAL_GATEWAY,
    Address,
    Network,
    bounds,
    brief,
    family_of,
    guest_prefix,
    guest_prefix_numbers,
    is_inside,
    link_local_of,
    longer_than,
    slaac_address,
)
from l3hv.model.choices import Family
from l3hv.model.intent import Common, GuestIntent, Pool
from l3hv.model.text import counted, natural_key

GUEST_KEYS = frozenset(
    {
        "addresses",
        "allowed_sources",
        "anycast",
        "domain",
        "interface",
        "ipv4",
        "ipv6",
        "ipv6_on_link",
        "link_local",
        "mac",
        "moves_from",
        "name",
        "pool",
        "port_isolation",
        "subnets",
        "transparent",
        "withdraw_without_carrier",
    }
)

LONGEST_INTERFACE = 15
"""Bytes in an interface name: IFNAMSIZ less the zero at its end."""

MOST_HOLDERS = 16
"""Most guests of one hypervisor that can share an anycast prefix: each needs a metric below that of BGP."""

_LINK_LOCAL = IPv6Network("fe80::/64")

guest_name = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "a guest's name of letters, digits, '.', '_' and '-' (at most 63)",
    "Choose a name of these characters, beginning with a letter or digit.",
)
# Names that no interface can have: systemd or radvd would read them as a number, or radvd.conf(5) has them as
# keywords.
_NUMBER = r"[0-9]+(\.[0-9]+)?|0[BOXbox][0-9A-Fa-f]+"
_WORDS_OF_RADVD = (
    "abro|adv(autonomous|curhoplimit|intervalopt|linkmtu|managedflag|onlink|rasrcaddress|retranstimer|routeraddr"
    "|sendadvert|versionhigh|versionlow)|base6interface|clients|deprecateprefix|dnssl|flushdnssl|flushrdnss|high"
    "|ignoreifmissing|infinity|interface|low|lowpanco|medium|nat64prefix|off|on|prefix|rdnss|removeadvonexit"
    "|removeroute|route|unicastonly"
)
interface_name = Text(
    rf"(?!({_NUMBER}|(?i:{_WORDS_OF_RADVD}))\Z)[A-Za-z0-9][A-Za-z0-9._-]{{0,14}}",
    "an interface name of letters, digits, '.', '_' and '-' (at most 15 bytes), no number and no keyword",
    "Choose a name that the kernel accepts, such as eno1 or vm-web1.",
    # "all" and "default" are directories of /proc/sys/net/*/conf beside the interfaces.
    {"all", "default", "lo"},
    "the kernel uses them itself",
)
_host = Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "the name of a hypervisor", "Write it as in the inventory.")
reference = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}",
    "the name of a domain or pool of the fabric",
    "Choose one of l3hv_domains or l3hv_pools.",
)


@dataclass(frozen=True)
class GuestVariables:
    """A guest as the inventory has it: its types are checked, its domain and pool are not looked up yet."""

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
    port_isolation: bool
    allowed_sources: tuple[Network, ...]
    moves_from: str | None
    withdraw_without_carrier: bool


def read_guests(fields: Fields) -> list[GuestVariables]:
    """Read ``l3hv_guests``, leaving out guests that are not well formed."""
    notes, value = fields.notes, fields.raw.get("l3hv_guests")
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        remedy = remedy_for_text(value, "[") or "Begin each guest with '- name: …'."
        notes.unfit("l3hv_guests", value, Unfit("a list of guests", remedy))
        return []
    guests = (_read_guest(notes, index, item) for index, item in enumerate(value))
    return [guest for guest in guests if guest is not None]


def _read_guest(notes: Notes, index: int, value: object) -> GuestVariables | None:
    before = len(notes.problems)
    where = f"l3hv_guests[{index}]"
    if not isinstance(value, dict):
        notes.unfit(where, value, Unfit("a guest", "Write its name, mac and ipv4 as 'key: value' lines."))
        return None
    name = Fields(notes, where, value).need("name", guest_name, "Give the guest a name.")
    if name is not None:
        where = f"l3hv_guests[{name}]"
    fields = Fields(notes, where, value, GUEST_KEYS)
    mac_address = fields.need("mac", mac, "Give the MAC of the guest's interface.")
    written = GuestVariables(
        where=where,
        name=name or "",
        interface=_interface(fields, name),
        mac=mac_address or "",
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
        port_isolation=fields.take("port_isolation", yes_or_no, False),
        allowed_sources=fields.take_all("allowed_sources", address_or_network),
        moves_from=fields.take("moves_from", _host),
        withdraw_without_carrier=fields.take("withdraw_without_carrier", yes_or_no, True),
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
    prefix = address_or_network(value)
    if not isinstance(prefix, IPv6Network) or prefix.prefixlen not in (GUEST_PREFIX_LENGTH, 128):
        raise Unfit(
            "a /64, an IPv6 address, or false",
            f"SLAAC needs {GUEST_PREFIX_LENGTH} bits; an address alone is for pools with ipv6_mode: address.",
        )
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


class HostOfGuests:
    """The facts that the guests of one hypervisor are checked against, and the notes of their problems.

    ``domains`` are the domains of the hypervisor's uplinks.  ``mtu`` is the MTU of these uplinks and
    ``guest_mtu`` the default MTU of guests, in bytes.
    """

    def __init__(
        self, notes: Notes, common: Common, domains: tuple[str, ...], *, mtu: int, guest_mtu: int
    ) -> None:
        self.notes = notes
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


def resolve_guests(written: Iterable[GuestVariables], host: HostOfGuests) -> tuple[GuestIntent, ...]:
    """Return the guests with all values that follow from the fabric; note the guests that do not fit it.

    Guests are sorted by name: their order in the inventory does not matter.
    """
    in_order = sorted(written, key=lambda guest: natural_key(guest.name))
    guests = [_Resolution(guest, host).guest_intent() for guest in in_order]
    resolved = tuple(guest for guest in guests if guest is not None)
    _check_holders(resolved, host.notes)
    return resolved


class _Resolution:
    """The resolution of one guest: its checks, and the values that follow from its domain and pool."""

    def __init__(self, guest: GuestVariables, host: HostOfGuests) -> None:
        self.guest = guest
        self.host = host
        self.domain = guest.domain or host.common.public.name

    def note(self, key: str, value: object, message: str, remedy: str) -> None:
        self.host.notes.add(f"{self.guest.where}.{key}", value, message, remedy)

    def guest_intent(self) -> GuestIntent | None:
        """Return the guest, or ``None`` if it has problems, which are noted."""
        guest, problems = self.guest, self.host.notes.problems
        before = len(problems)
        self.check_mac()
        pool = self.main_pool() if self.has_domain() else None
        if pool is None:
            return None
        prefix = self.ipv6_prefix(pool)
        families = self.families_of_extras(prefix)
        has_ipv6 = prefix is not None or "ipv6" in families
        self.check_link_local(has_ipv6)
        self.check_on_link(prefix)
        mtu = self.mtu(pool, has_ipv6=has_ipv6)
        if len(problems) > before:
            return None
        return GuestIntent(
            name=guest.name,
            interface=guest.interface,
            mac=guest.mac,
            domain=self.domain,
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
            port_isolation=guest.port_isolation,
            allowed_sources=tuple(map(str, guest.allowed_sources)),
            moves_from=guest.moves_from,
            withdraw_without_carrier=guest.withdraw_without_carrier,
        )

    def check_mac(self) -> None:
        if self.guest.mac == self.host.common.gateway_mac:
            self.note(
                "mac",
                self.guest.mac,
                f"{self.guest.mac} is the MAC of the gateway on every guest port.",
                "Choose another MAC, or another l3hv_gateway_mac.",
            )

    def has_domain(self) -> bool:
        """Tell whether the hypervisor has the guest's domain; note a problem if it does not."""
        known = [domain.name for domain in self.host.common.domains]
        if self.domain not in known:
            self.note(
                "domain",
                self.domain,
                f"There is no domain {self.domain}.",
                f"Choose one of {', '.join(known)}.",
            )
        elif self.domain not in self.host.domains:
            self.note(
                "domain",
                self.domain,
                f"The hypervisor has no uplink in {self.domain}.",
                f"Add {self.domain} to l3hv_uplinks, or move the guest to another hypervisor.",
            )
        return self.domain in self.host.domains

    def main_pool(self) -> Pool | None:
        """Return the pool of the guest's main address: its IPv4 address, or its /64 if it has none."""
        guest = self.guest
        if guest.ipv4 is None:
            if isinstance(guest.ipv6, IPv6Network):
                return self.pool_of(guest.ipv6, "ipv6")
            self.note(
                "ipv4",
                None,
                "The guest has neither ipv4 nor ipv6.",
                "Give it ipv4, or for an IPv6-only guest ipv6: its /64, or its address in a shared /64.",
            )
            return None
        pool = self.pool_of(guest.ipv4, "ipv4")
        if pool is None:
            return None
        if pool.gateway is None:
            self.note(
                "ipv4",
                guest.ipv4,
                f"{guest.ipv4} is in the pool {pool.name}, which has no gateway.",
                "Choose an address of a pool with a gateway; this one holds additional addresses.",
            )
            return None
        return pool if self.is_usable(guest.ipv4, pool, "ipv4") else None

    def pool_of(self, main: Address | Network, key: str) -> Pool | None:
        """Return the pool that contains the main address; note a problem if the guest names another pool."""
        containing = self.host.pool_around(self.domain, main)
        name = self.guest.pool
        if name is None:
            if containing is None:
                self.note_outside_pools(main, key)
            return containing
        chosen = self.host.pools.get(name)
        if chosen is not None and chosen is containing:
            return containing
        if chosen is None:
            known = ", ".join(self.host.pools)
            remedy = f"Choose one of {known}." if known else "Describe it in l3hv_pools."
            self.note("pool", name, f"There is no pool {name}.", remedy)
        elif chosen.domain != self.domain:
            self.note(
                "pool",
                name,
                f"The pool {name} is in {chosen.domain}, but the guest is in {self.domain}.",
                f"Choose a pool of {self.domain}, or move the guest with 'domain: {chosen.domain}'.",
            )
        else:
            self.note(
                key,
                main,
                f"{main} is not in the pool {name}.",
                f"Choose an address of {' or '.join(map(str, chosen.prefixes))}, or another pool.",
            )
        return None

    def note_outside_pools(self, prefix: Address | Network, key: str) -> None:
        """Note a prefix that is in no pool of the guest's domain."""
        family = family_of(prefix)
        message = f"{brief(prefix)} is in no pool of {self.domain}."
        for pool in self.host.common.pools:
            if any(is_inside(prefix, other) for other in pool.prefixes):
                place = f"the pool {pool.name} of {pool.domain}"
                message = f"{brief(prefix)} is in {place}, but the guest is in {self.domain}."
        prefixes = self.host.common.pool_prefixes(self.domain, family)
        remedy = f"Add a pool with {family} to l3hv_pools."
        if prefixes:
            listed = ", ".join(map(str, prefixes[:3]))
            remedy = f"Choose an address of {listed}{' or another pool' if len(prefixes) > 3 else ''}."
        self.note(key, prefix, message, remedy)

    def is_usable(self, prefix: Address | Network, pool: Pool, key: str) -> bool:
        """Tell whether guests can have a prefix; note one with an address that its pool's subnet needs."""
        if pool.gateway is None or pool.subnet is None or prefix.version == 6:
            return True
        first, last = bounds(prefix)
        low, high = bounds(pool.subnet)
        roles = {int(pool.gateway): "gateway", low: "network address", high: "broadcast address"}
        for address, role in roles.items():
            if first <= address <= last:
                verb = "is" if first == last else f"contains {IPv4Address(address)},"
                self.note(
                    key,
                    prefix,
                    f"{brief(prefix)} {verb} the {role} of the pool {pool.name}.",
                    f"Choose another address of {pool.ipv4}.",
                )
                return False
        return True

    def ipv6_prefix(self, pool: Pool) -> IPv6Network | None:
        """Return the guest's /64: that of its intent, else the one with its IPv4 address's host number.

        In a pool with ``shared_ipv6`` it is the guest's address as a /128: that of its intent, else the one
        that SLAAC makes of its MAC (RFC 4862).
        """
        guest = self.guest
        if isinstance(guest.ipv6, IPv6Network):
            around = self.host.pool_around(self.domain, guest.ipv6)
            if guest.ipv4 is not None and around is None:
                self.note_outside_pools(guest.ipv6, "ipv6")
            elif around is not None:
                self.check_mode(guest.ipv6, around)
            return guest.ipv6
        if guest.ipv6 and pool.ipv6 is not None and pool.shared_ipv6:
            return IPv6Network(slaac_address(pool.ipv6, guest.mac))
        if not guest.ipv6 or pool.ipv6 is None or pool.ipv4 is None or guest.ipv4 is None:
            return None
        number = int(guest.ipv4) - int(pool.ipv4.network_address)
        prefix = guest_prefix(pool.ipv6, number)
        if prefix is None:
            count = len(guest_prefix_numbers(pool.ipv6))
            self.note(
                "ipv6",
                None,
                f"{guest.ipv4} has host number {number}, but {pool.ipv6} has {counted(count, '/64 prefix')}.",
                "Give the guest a /64 with ipv6, or 'ipv6: false' for none.",
            )
        return prefix

    def check_mode(self, ipv6: IPv6Network, pool: Pool) -> None:
        """Note an address where the guests of the pool have a /64 each, and a /64 where they share one."""
        if pool.shared_ipv6 and ipv6.prefixlen < ipv6.max_prefixlen:
            self.note(
                "ipv6",
                ipv6,
                f"The guests of the pool {pool.name} share {pool.ipv6}, and each has one address in it.",
                "Choose an address of it, or remove ipv6: then the address follows from the MAC.",
            )
        elif pool.shared_ipv6 and pool.ipv6 is not None and ipv6[0] == pool.ipv6[0]:
            self.note(
                "ipv6",
                brief(ipv6),
                f"{brief(ipv6)} is the subnet-router anycast address of {pool.ipv6} (RFC 4291).",
                "Choose another address, or remove ipv6: then the address follows from the MAC.",
            )
        elif not pool.shared_ipv6 and ipv6.prefixlen != GUEST_PREFIX_LENGTH:
            self.note(
                "ipv6",
                brief(ipv6),
                f"Each guest of the pool {pool.name} has a /64, not a single address.",
                "Choose a /64 of the pool, or give the pool ipv6_mode: address.",
            )

    def families_of_extras(self, main_prefix: IPv6Network | None) -> set[Family]:
        """Check the prefixes that are routed to the guest besides its main ones; return their families."""
        guest = self.guest
        seen: set[Network] = set()
        for key, prefixes in (
            ("addresses", guest.addresses),
            ("subnets", guest.subnets),
            ("anycast", guest.anycast),
            ("transparent", tuple(map(IPv4Network, guest.transparent))),
        ):
            for prefix in prefixes:
                if prefix in seen:
                    self.note(key, prefix, f"{brief(prefix)} is listed twice.", "Keep one of them.")
                seen.add(prefix)
                self.check_extra(prefix, key, main_prefix)
        return {family_of(prefix) for prefix in seen}

    def check_extra(self, prefix: Network, key: str, main_prefix: IPv6Network | None) -> None:
        pool = self.host.pool_around(self.domain, prefix)
        if pool is None:
            self.note_outside_pools(prefix, key)
            return
        if not self.is_usable(prefix, pool, key):
            return
        if prefix in pool.prefixes and prefix.prefixlen < longer_than(prefix):
            self.note(
                key,
                prefix,
                f"{prefix} is the whole pool {pool.name}, which no hypervisor may originate.",
                "Choose a part of it.",
            )
        elif prefix.version == 4:
            if self.guest.ipv4 is None:
                self.note(
                    key,
                    prefix,
                    f"{brief(prefix)} is routed to the guest's main IPv4 address, but the guest has none.",
                    "Give the guest ipv4, or remove this prefix.",
                )
        elif pool.shared_ipv6 and prefix.prefixlen < prefix.max_prefixlen:
            self.note(
                key,
                prefix,
                f"The guests of the pool {pool.name} share {pool.ipv6}, and have single addresses in it.",
                "Choose single addresses, or a prefix of another pool.",
            )
        elif GUEST_PREFIX_LENGTH < prefix.prefixlen < prefix.max_prefixlen:
            self.note(
                key,
                prefix,
                f"{prefix} is longer than 64 bits.",
                "Choose 64 bits or less, or single addresses: the fabric accepts no other prefixes.",
            )
        elif main_prefix is not None and is_inside(prefix, main_prefix):
            self.note(
                key,
                prefix,
                f"{brief(prefix)} is in the guest's own {brief(main_prefix)}.",
                "Remove it: the guest has it already.",
            )

    def check_link_local(self, has_ipv6: bool) -> None:
        if self.guest.link_local is not None and not has_ipv6:
            self.note(
                "link_local",
                self.guest.link_local,
                "No IPv6 prefix is routed to the guest.",
                "Remove link_local, or give the guest a /64 with ipv6.",
            )

    def check_on_link(self, main_prefix: IPv6Network | None) -> None:
        is_address = main_prefix is not None and main_prefix.prefixlen > GUEST_PREFIX_LENGTH
        if self.guest.ipv6_on_link and is_address:
            self.note(
                "ipv6_on_link",
                True,
                "The guest shares its /64 with others, and has a single address in it.",
                "Remove ipv6_on_link, or choose a pool without ipv6_mode: address.",
            )

    def mtu(self, pool: Pool, *, has_ipv6: bool) -> int:
        if pool.mtu is not None and pool.mtu > self.host.mtu:
            self.host.notes.add(
                "l3hv_mtu",
                self.host.mtu,
                f"The uplinks have an MTU of {self.host.mtu}, but the pool {pool.name} has {pool.mtu}.",
                f"Choose at least {pool.mtu}, or lower l3hv_pools.{pool.name}.mtu.",
            )
        found = self.host.guest_mtu if pool.mtu is None else pool.mtu
        # The other low MTUs are problems of the pool and of the host.
        if has_ipv6 and pool.ipv6 is None and pool.mtu is not None and found < LEAST_IPV6_MTU:
            self.note(
                "ipv6",
                self.guest.ipv6,
                f"IPv6 does not work with the MTU of {found} of the pool {pool.name}.",
                f"Give the pool at least {LEAST_IPV6_MTU}, or the guest 'ipv6: false' and no IPv6 prefixes.",
            )
        return found


def _check_holders(guests: Iterable[GuestIntent], notes: Notes) -> None:
    """Note anycast prefixes that too many guests of the host hold: each of these needs its own metric."""
    holders: dict[str, int] = {}
    for guest in guests:
        for prefix in guest.anycast:
            holders[prefix] = holders.get(prefix, 0) + 1
            if holders[prefix] == MOST_HOLDERS + 1:
                notes.add(
                    f"l3hv_guests[{guest.name}].anycast",
                    prefix,
                    f"More than {MOST_HOLDERS} guests of the hypervisor share {prefix}.",
                    "Move some of these guests to other hypervisors.",
                )

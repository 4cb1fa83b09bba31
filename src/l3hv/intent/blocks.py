"""The blocks of a hypervisor: parts of pools that it advertises as a whole (``l3hv_announce: blocks``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_network

from l3hv.intent.shape import Notes
from l3hv.model.addressing import HOST_LENGTH, Network, family_of, is_inside
from l3hv.model.intent import Common, Pool


def blocks_of(
    common: Common, domains: Collection[str], number: int, listed: tuple[Network, ...], notes: Notes
) -> tuple[str, ...]:
    """Return the blocks of the hypervisor with the id ``number``, in the order of the pools.

    These are the blocks that its intent ``listed``.  In a pool of which it lists none, the hypervisor has the
    block with its id, counted from 1; a pool with fewer blocks has none for it.  So a new hypervisor or guest
    changes the blocks of no other hypervisor.
    """
    if common.announce != "blocks":
        if listed:
            notes.add(
                "l3hv_blocks",
                [str(block) for block in listed],
                "Hypervisors advertise each guest by itself.",
                "Remove it, or set l3hv_announce: blocks for the fabric.",
            )
        return ()
    for block in listed:
        _check_block(common, domains, block, notes)
    return tuple(
        str(block)
        for pool in common.pools
        if pool.domain in domains
        for prefix in pool.prefixes
        for block in _blocks_in(pool, prefix, number, listed)
    )


def _blocks_in(pool: Pool, prefix: Network, number: int, listed: tuple[Network, ...]) -> Iterator[Network]:
    own = [block for block in listed if is_inside(block, prefix)]
    yield from own
    if not own:
        length = pool.block_lengths[family_of(prefix)]
        # A pool with blocks that are larger than itself has a problem of its own.
        if length >= prefix.prefixlen and number <= 1 << (length - prefix.prefixlen):
            size = 1 << (HOST_LENGTH[family_of(prefix)] - length)
            yield ip_network((int(prefix.network_address) + (number - 1) * size, length))


def _check_block(common: Common, domains: Collection[str], block: Network, notes: Notes) -> None:
    family = family_of(block)
    pool = next((pool for pool in common.pools for prefix in pool.prefixes if is_inside(block, prefix)), None)
    if pool is None:
        notes.add("l3hv_blocks", block, f"{block} is in no pool.", "Choose a block of a pool.")
    elif pool.domain not in domains:
        notes.add(
            "l3hv_blocks",
            block,
            f"{block} belongs to {pool.domain}, in which the hypervisor has no uplink.",
            f"Remove it, or give the hypervisor an uplink in {pool.domain}.",
        )
    elif block.prefixlen != pool.block_lengths[family]:
        notes.add(
            "l3hv_blocks",
            block,
            f"The blocks of pool {pool.name} have {pool.block_lengths[family]} bits.",
            f"Choose a prefix of this length, or set l3hv_pools.{pool.name}.block.{family}.",
        )

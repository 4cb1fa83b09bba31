"""The blocks of a hypervisor: parts of pools that it advertises as a whole (``l3hv_announce: blocks``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_network

from l3hv.intent.shape import Notes
from l3hv.model.addressing import HOST_LENGTH, Network, family_of, is_inside
from l3hv.model.intent import Common, Pool


def blocks_of(
    common: Common, domains: Collection[str], number: int, listed: tuple[Network, ...] | None, notes: Notes
) -> tuple[str, ...]:
    """Return the blocks of the hypervisor with the id ``number``, in the order of the pools.

    ``listed`` are the blocks in its intent, ``None`` if the intent says nothing about them.  Then it has the
    block with its id in each pool, counted from 1; a pool with fewer blocks has none for it.  So a new
    hypervisor or guest changes the blocks of no other hypervisor.
    """
    if common.announce != "blocks":
        if listed:
            notes.add(
                "l3hv_blocks",
                [str(block) for block in listed],
                "Hypervisors advertise each guest by itself, because l3hv_announce is guests.",
                "Remove it, or set l3hv_announce: blocks for the fabric.",
            )
        return ()
    if listed is not None:
        for block in listed:
            _check_block(common, domains, block, notes)
        return tuple(map(str, listed))
    return tuple(
        str(block)
        for pool in common.pools
        if pool.domain in domains
        for prefix in pool.prefixes
        for block in _numbered_block(pool, prefix, number)
    )


def _numbered_block(pool: Pool, prefix: Network, number: int) -> Iterator[Network]:
    """Yield the block of a pool's prefix with a number, if the prefix has as many."""
    length = pool.block_lengths.get(family_of(prefix))
    # l3hv.intent.fabric notes blocks that are larger than their pool.
    if length is not None and length >= prefix.prefixlen and number <= 1 << (length - prefix.prefixlen):
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
    elif (length := pool.block_lengths.get(family)) is None:
        notes.add(
            "l3hv_blocks",
            block,
            f"Pool {pool.name} is too small for blocks of the default length.",
            f"Remove it, or set l3hv_pools.{pool.name}.block.{family}.",
        )
    elif block.prefixlen != length:
        notes.add(
            "l3hv_blocks",
            block,
            f"The blocks of pool {pool.name} have {length} bits.",
            f"Choose a prefix of this length, or set l3hv_pools.{pool.name}.block.{family}.",
        )

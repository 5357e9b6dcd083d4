"""The shards held here, or the error that sends the caller elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TypeVar

from brainy.bucket.partition import shard_of
from brainy.errors import UnavailableError
from brainy_node.router.sessions import stale
from brainy_node.runtime.ports import NamespaceRuntime
from brainy_node.shard.shard import Shard

Item = TypeVar("Item")


def held(runtime: NamespaceRuntime, generation: int, shard: int) -> Shard:
    """Return a local replica.

    Raises:
        UnavailableError: STALE_ROUTING, the record in force has no such generation; SHARD_NOT_READY, no ready
            replica is here.
    """
    found = runtime.shard(generation, shard)
    if found is None:
        check_generation(runtime, generation)
        raise UnavailableError(
            "this node has no ready replica of the shard",
            reason="SHARD_NOT_READY",
            remedy="ask another replica, or retry",
            node=runtime.node_id,
            generation=generation,
            shard=shard,
        )
    return found


def check_generation(runtime: NamespaceRuntime, generation: int) -> None:
    """Refuse a generation the routing record in force here does not have (STALE_ROUTING)."""
    if generation not in runtime.routing.generations:
        raise stale(runtime.routing, generation, f"node {runtime.node_id}")


def by_shard(ids: Sequence[str], shard_count: int) -> dict[int, list[str]]:
    """Group ids, each once, by their shard."""
    groups: dict[int, list[str]] = {}
    for item_id in dict.fromkeys(ids):
        groups.setdefault(shard_of(item_id, shard_count), []).append(item_id)
    return groups


def chosen(groups: Mapping[int, Sequence[str]], shards: Sequence[int]) -> list[str]:
    """Return the ids of some shards."""
    return [item_id for shard in shards for item_id in groups.get(shard, ())]


async def paced(batches: Iterator[Sequence[Item]]) -> AsyncIterator[Sequence[Item]]:
    """Yield batches, letting other calls have their turn between two of them."""
    for batch in batches:
        if batch:
            yield batch
        await asyncio.sleep(0)


def sliced(items: Sequence[Item], size: int = 1000) -> Iterator[Sequence[Item]]:
    """Cut a sequence into pieces of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))

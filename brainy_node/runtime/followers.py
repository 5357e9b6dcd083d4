"""How much of a shard's log the generations that follow it still need."""

from __future__ import annotations

from brainy.bucket import layout
from brainy.bucket.records import Manifest, Routing
from brainy.store.base import ObjectStore
from brainy_node.runtime.assignment import followed_shards


async def held_by_followers(store: ObjectStore, routing: Routing, generation: int, shard: int) -> int | None:
    """Return the highest position that no follower of a shard needs any more; None where nobody follows.

    A target that restarts begins at its manifest and finds later cursors in its own log, so the cursor of the
    manifest is what it may need. A target without a manifest is still being filled: it may need everything.

    Raises:
        CorruptDataError: a manifest is damaged.
        UnavailableError: the store cannot be read now.
    """
    positions: list[int] = []
    for number, placement in routing.generations.items():
        if placement.follows != generation:
            continue
        for target in range(placement.shard_count):
            if shard not in followed_shards(routing, number, target):
                continue
            key = layout.manifest(number, target)
            found = await store.get(key)
            cursor = {} if found is None else Manifest.decode(found.body, key=key).source_cursor
            positions.append(cursor.get(shard, 0))
    return min(positions, default=None)

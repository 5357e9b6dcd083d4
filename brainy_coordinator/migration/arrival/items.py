"""The items of data elsewhere, read by the coordinator itself: for a digest to compare with, and for their texts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from brainy.backup.values import CheckedBackup
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.projection import Projection
from brainy.dataset.base import ItemBatch, Source
from brainy.embedding.projection import projected_hash
from brainy.embedding.text import stored_text
from brainy_coordinator.nodes import DigestSeen


async def digest_of_items(source: Source, projection: Projection | None) -> DigestSeen:
    """Read a source that nobody changes and sum its items up, as nodes do theirs; without positions.

    Args:
        source: all of its items are read.
        projection: what of them counts; None for all of it.

    Raises:
        BrainyError: the source could not be read.
    """
    total = MultisetDigest()
    nouns = verbs = 0
    # Sources are generators; the protocol promises an iterator.
    stream = source.stream(shards=(0,), shard_count=1)
    async with aclosing(stream) as batches:  # type: ignore[type-var]
        async for batch in batches:
            await asyncio.to_thread(_add, total, batch, projection)
            nouns, verbs = nouns + len(batch.nouns), verbs + len(batch.verbs)
    return DigestSeen(digest=total, nouns=nouns, verbs=verbs, positions={})


def _add(total: MultisetDigest, batch: ItemBatch, projection: Projection | None) -> None:
    hashes = [
        noun.digest() if projection is None else projected_hash(projection, noun, len(noun.vector))
        for noun in batch.nouns
    ]
    total.add_all([noun.id for noun in batch.nouns], hashes)
    total.add_all([verb.id for verb in batch.verbs], [verb.digest() for verb in batch.verbs])


def count_without_text(backup: CheckedBackup) -> int:
    """Return how many nouns of a backup have no text to embed. Blocks while it is read."""
    return sum(stored_text(noun.metadata) is None for batch in backup.items() for noun in batch.nouns)

"""A dataset as a stream of items, whatever it is stored as."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

from brainy.legacy.batch import Held, ItemBatch, Quarantined

__all__ = ["Held", "ItemBatch", "Quarantined", "Source"]


class Source(Protocol):
    """Where a shard is filled from."""

    @property
    def cursor(self) -> Mapping[int, int]:
        """Source shard -> log position that the stream includes; {} for a Brainy tree: 0 everywhere."""

    async def total(self) -> int:
        """Items to expect, for progress; may be approximate."""

    def stream(self, *, shards: Collection[int], shard_count: int) -> AsyncIterator[ItemBatch]:
        """Yield every item of ``shards`` out of ``shard_count`` exactly once, in bounded batches.

        What cannot be read is in ``quarantined``, never an exception and never left out. Closing the iterator
        cancels its requests.

        Raises:
            BrainyError: the store failed; what was yielded before stands.
        """

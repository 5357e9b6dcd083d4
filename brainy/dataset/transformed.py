"""A source whose items are changed on their way: the seam between what is read and what is built of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, aclosing

from brainy.dataset.base import ItemBatch, Source

#: Changes a batch without changing which items are in it. Blocks; called in a thread, one batch at a time.
Transform = Callable[[ItemBatch], ItemBatch]
#: Opens what a transform needs, for as long as one stream lasts. Entered in a thread.
Opening = Callable[[], AbstractContextManager[Transform]]


class TransformedSource:
    """Another source, each batch of which goes through a transform."""

    def __init__(self, source: Source, opening: Opening) -> None:
        """Remember both; nothing is read or opened yet."""
        self._source = source
        self._opening = opening

    @property
    def cursor(self) -> Mapping[int, int]:
        """That of the source."""
        return self._source.cursor

    async def total(self) -> int:
        """As the source says."""
        return await self._source.total()

    async def stream(self, *, shards: Collection[int], shard_count: int) -> AsyncGenerator[ItemBatch]:
        """Yield the source's batches, each transformed before the next is asked for.

        Raises:
            BrainyError: the source or the transform failed; what was yielded before stands.
        """
        with ExitStack() as opened:
            transform = await asyncio.to_thread(opened.enter_context, self._opening())
            stream = self._source.stream(shards=shards, shard_count=shard_count)
            async with aclosing(stream) as batches:  # type: ignore[type-var] # sources are generators
                async for batch in batches:
                    yield await asyncio.to_thread(transform, batch)

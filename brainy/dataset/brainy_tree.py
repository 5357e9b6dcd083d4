"""A bucket as Brainy left it, read in place."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing

from brainy.dataset.base import Held, ItemBatch
from brainy.legacy.pipeline import Calls
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.trees import open_trees
from brainy.store.base import ObjectStore


class BrainyTreeSource:
    """The ``Source`` over Brainy's trees; ``brainy.legacy.reading`` says what is an item and what is not.

    ``trees`` are the names a survey found. ``in_flight`` bounds concurrent GETs. ``look_for_strays`` makes the
    stream of a part of the shards also look at the first bytes of the objects outside them, once for each
    source, for items whose id inside belongs to the part. ``keep_doubles`` keeps the stored numbers in
    ``raw_vector`` wherever float32 does not carry them, as a backup wants them.

    Raises:
        PreconditionError: a tree that cannot be read (UNSUPPORTED_FORMAT).
    """

    def __init__(
        self,
        store: ObjectStore,
        trees: Iterable[str],
        *,
        in_flight: int = 256,
        look_for_strays: bool = True,
        keep_doubles: bool = False,
    ) -> None:
        self._reader = TreeReader(
            store,
            open_trees(trees),
            in_flight=in_flight,
            look_for_strays=look_for_strays,
            keep_doubles=keep_doubles,
        )

    @property
    def cursor(self) -> Mapping[int, int]:
        """Empty: a tree has no log of this product's own."""
        return {}

    @property
    def calls(self) -> Calls:
        """Store calls made so far."""
        return self._reader.calls

    @property
    def superseded(self) -> int:
        """Objects passed over so far because a newer tree has the item, or has it deleted."""
        return self._reader.superseded

    async def total(self) -> int:
        """Vector objects of nouns and verbs: one LIST for every 1,000 of them."""
        return await self._reader.count()

    async def stream(
        self, *, shards: Collection[int], shard_count: int, held: Held | None = None
    ) -> AsyncGenerator[ItemBatch]:
        """Yield the items of the shards; see ``Source.stream``. Those that are ``held`` are not fetched again."""
        wanted = Wanted(frozenset(shards) & frozenset(range(shard_count)), shard_count)
        if not wanted.shards:
            return
        async with aclosing(self._reader.stream(wanted, held=held or Held())) as batches:
            async for batch in batches:
                yield batch

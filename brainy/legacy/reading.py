"""Everything the trees of a bucket hold, as items in batches.

Each prefix of vector objects is listed once. An object's shard follows from the id in its key, so only what the
wanted shards need is fetched, and its companion (metadata) with it. Companions are listed only where that saves
requests or decides something: most items have one, so it is simply asked for. While a batch is parsed the next
ones are on the wire. Memory: the batches ahead, plus eight bytes for each id seen. Nothing depends on the order
of listings.

Deleted things stay deleted: a noun without vector object is gone whatever its metadata says; verb-metadata
without verb is never revived; an item deleted in a newer tree hides the one of an older tree; a zombie is
quarantined. Verbs come first, since nouns are compared with their ids.

The bucket may change meanwhile: an object that is gone when it is asked for is no item, one that was replaced is
read as it is now.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from brainy.legacy.assembly import Assembly, Stray
from brainy.legacy.batch import Held, ItemBatch
from brainy.legacy.keys import OLD_PERSONS, PERSONS, Kind, id_in
from brainy.legacy.passage import Passage, Wanted
from brainy.legacy.persons import Persons
from brainy.legacy.pipeline import Calls, Fetcher
from brainy.legacy.strays import Resolution
from brainy.legacy.tree import Tree
from brainy.store.base import ObjectStore

__all__ = ["TreeReader", "Wanted"]


class TreeReader:
    """Reads the trees of one bucket; ``trees`` strongest first (``brainy.legacy.trees.open_trees``).

    Strays: where the id inside differs from the one in the key, the one inside is believed, as Brainy does when
    it loads. Such an object may hide among the keys of any shard, and behind a newer tree's object of the same key,
    so with ``look_for_strays`` the first bytes of the objects outside the wanted shards and of those passed over
    are looked at, once for each reader. Without it a stray found in another shard's range is left to the reader of
    that id's own range of keys, which cannot see it: use it only where keys are known to be true.

    Doubles: vectors are float32. With ``keep_doubles`` the stored numbers are kept beside them, in ``raw_vector``,
    for every item of which float32 does not carry them exactly (nearly all). Backups want that, nothing else does.
    """

    def __init__(
        self,
        store: ObjectStore,
        trees: Sequence[Tree],
        *,
        in_flight: int = 256,
        look_for_strays: bool = True,
        keep_doubles: bool = False,
    ) -> None:
        self._trees = tuple(trees)
        self._fetcher = Fetcher(store, in_flight=in_flight)
        self._look_for_strays = look_for_strays
        self._keep_doubles = keep_doubles
        self._strays: dict[str, Stray] = {}
        self._knows_strays = False
        self._persons = Persons()
        self._superseded = 0

    @property
    def calls(self) -> Calls:
        """Store calls made so far."""
        return self._fetcher.calls

    @property
    def strays(self) -> Collection[Stray]:
        """Objects seen so far whose id inside differs from the one in the key."""
        return self._strays.values()

    @property
    def superseded(self) -> int:
        """Objects passed over so far because a newer tree has the item, or has it deleted."""
        return self._superseded

    async def count(self) -> int:
        """Vector objects of nouns and verbs in all trees: an upper bound of the items."""
        total = 0
        for tree in self._trees:
            for kind in tree.kinds:
                if kind is Kind.NOUN and tree.keys.nouns in (PERSONS, OLD_PERSONS):
                    continue  # lies below another prefix, which is listed too
                prefix = tree.keys.objects(kind)
                async with aclosing(self._fetcher.pages(prefix)) as pages:
                    async for page in pages:
                        total += sum(id_in(prefix, meta.key) is not None for meta in page)
        return total

    async def stream(self, wanted: Wanted, *, held: Held | None = None) -> AsyncGenerator[ItemBatch]:
        """Yield every wanted item exactly once, and every wanted unreadable object.

        Items that are ``held`` are left out, and their objects not fetched.

        Cancel safety: closing the iterator cancels all requests; nothing is written.

        Raises:
            BrainyError: the store failed. What was yielded before stands.
        """
        assembling = partial(Assembly, keep_doubles=self._keep_doubles)
        async with Passage(self._fetcher, self._trees, wanted, self._persons, assembling, held or Held()) as run:
            peek = self._look_for_strays and not self._knows_strays
            for kind in (Kind.VERB, Kind.NOUN):
                for tree in self._trees:
                    if kind not in tree.kinds:
                        continue
                    async with aclosing(run.items(tree, kind, self._strays, peek=peek)) as batches:
                        async for batch in batches:
                            yield batch
            self._knows_strays = self._knows_strays or peek or wanted.all
            strays = tuple(self._strays.values())
            resolution = Resolution(self._fetcher, self._trees, strays, run.deletions, keep_doubles=self._keep_doubles)
            resolved = [resolution.items(wanted.has)]
            if len(self._trees) > 1:
                resolved.append(resolution.uncovered(wanted.has))
            for part in resolved:
                async with aclosing(part) as batches:
                    async for batch in batches:
                        yield batch if held is None else _without(batch, held)
            self._superseded += run.superseded


def _without(batch: ItemBatch, held: Held) -> ItemBatch:
    return replace(
        batch,
        nouns=[noun for noun in batch.nouns if noun.id not in held.nouns],
        verbs=[verb for verb in batch.verbs if verb.id not in held.verbs],
    )

"""One point in a namespace's history: where every shard's log is cut, and what lies below.

``take_cut`` reads, in this order: the routing record, the manifests of the active generation, then the heads of all
its logs at once. What it promises (T0 and T1 are the moments it began and ended reading heads):

* Of each shard exactly the records up to its head are in the cut, and nothing above it.
* Every write acknowledged before T0 is in; no write begun after T1 is. Between the two each shard has its own
  moment, unless ``settled`` says that the heads were read twice and had not moved: then the cut is the state of the
  whole namespace at one instant.
* Reading it later gives the same items, whatever is written meanwhile: manifests are kept in the cut, segments
  never change, logs only grow. The log of a generation from 1 on is deleted an hour after a checkpoint includes it;
  who comes later than that gets ``LogCollectedError`` and takes another cut.

The trees that Brainy itself writes have no log. They are read in place, object by object, so what old processes write
to them while they are read may or may not be seen.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Final

from pydantic import Field

from brainy.bucket import invariants, layout
from brainy.bucket.records import Manifest, Record, Routing, Spec
from brainy.changelog.batch import Slot
from brainy.changelog.reading import read_log
from brainy.clock import Clock
from brainy.dataset.base import ItemBatch, Source
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.generation import GenerationSource, read_manifests, read_spec
from brainy.dataset.snapshot import Overlay
from brainy.errors import CorruptDataError, NotFoundError, PreconditionError
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore

#: How often the heads are read again in the hope that they have not moved.
_SETTLE_TRIES: Final = 3


class Cut(Record):
    """A cut as a value; can be stored and read by another process."""

    #: What the active generation is. Of a namespace that no cluster has served: generation 0 over Brainy's trees.
    spec: Spec
    #: Whether a cluster has served the namespace: only then are there logs.
    adopted: bool
    #: Of generations from 1 on, in shard order.
    manifests: tuple[Manifest, ...] = ()
    #: Shard -> first position of the last log object in the cut; shards without any are left out.
    heads: dict[int, int] = Field(default_factory=dict)
    #: Wall seconds at which the heads were read, for people.
    began: float
    ended: float
    #: The cut is the state of the whole namespace at one instant.
    settled: bool

    def floor(self, shard: int) -> int:
        """Position up to which the shard's base includes its log."""
        return self.manifests[shard].position if self.manifests else 0

    @property
    def in_place(self) -> bool:
        """Whether part of it is read from trees that Brainy may still be writing."""
        return self.spec.source == "brainy" and self.spec.generation == 0


async def take_cut(store: ObjectStore, clock: Clock, *, generation: int | None = None) -> Cut:
    """Cut a namespace now; its active generation unless another one is named.

    Raises:
        NotFoundError: there is nothing at all (UNKNOWN_NAMESPACE), or no such generation.
        PreconditionError: objects of which none is Brainy's (NOT_A_BRAINY_BUCKET).
        CorruptDataError: a record or a manifest is damaged.
        UnavailableError: the store cannot be read now.
    """
    found = await store.get(layout.ROUTING)
    if found is None:
        if generation:
            raise NotFoundError("no such generation", remedy="no cluster has served this", generation=generation)
        spec = await _unadopted(store)
        now = clock.wall()
        return Cut(spec=spec, adopted=False, began=now, ended=now, settled=False)
    routing = Routing.decode(found.body, key=layout.ROUTING)
    invariants.check_routing(routing)
    spec = await read_spec(store, routing.active if generation is None else generation)
    manifests = tuple(await read_manifests(store, spec)) if spec.generation > 0 else ()
    floors = [manifest.position for manifest in manifests] or [0] * spec.shard_count
    began = clock.wall()
    heads = await _heads(store, spec, floors)
    settled = False
    for _ in range(_SETTLE_TRIES):
        again = await _heads(store, spec, heads)
        settled = again == heads
        if settled:
            break
        heads = again
    return Cut(
        spec=spec,
        adopted=True,
        manifests=manifests,
        heads={shard: head for shard, head in enumerate(heads) if head > floors[shard]},
        began=began,
        ended=clock.wall(),
        settled=settled,
    )


async def _heads(store: ObjectStore, spec: Spec, known: Sequence[int]) -> list[int]:
    return list(await asyncio.gather(*(_head(store, spec, shard, known[shard]) for shard in range(spec.shard_count))))


async def _head(store: ObjectStore, spec: Spec, shard: int, known: int) -> int:
    """Return the first position of the last log object; ``known`` where none begins after it."""
    head = known
    start_after = layout.log_slot(spec.generation, shard, known)
    async for page in store.list(layout.log(spec.generation, shard), start_after=start_after):
        for meta in page:
            if (parsed := layout.parse_log_slot(meta.key)) is not None:
                head = max(head, parsed[2])
    return head


async def _unadopted(store: ObjectStore) -> Spec:
    seen = await survey(store)
    if seen.foreign_keys:
        raise PreconditionError(
            "the namespace holds objects, but none that Brainy or this product wrote",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check the bucket and the prefix",
        )
    if not seen.trees:
        # A mistyped prefix must not look like a namespace that is empty.
        raise NotFoundError("nothing is stored here", reason="UNKNOWN_NAMESPACE", remedy="check bucket and prefix")
    return Spec(
        generation=0, dimensions=seen.dimensions, shard_count=1, source="brainy", source_trees=tuple(seen.trees)
    )


class CutReader:
    """Reads the items of a cut: the logs shard by shard, and what they were replayed over."""

    def __init__(self, store: ObjectStore, cut: Cut, *, keep_doubles: bool = False) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: of the namespace.
            cut: taken before, maybe by another process.
            keep_doubles: of items read from Brainy's trees, keep the stored numbers in ``raw_vector`` wherever
                float32 rounds them.
        """
        self._store = store
        self.cut = cut
        self._source: Source | None = None
        spec = cut.spec
        if spec.generation > 0:
            self._source = GenerationSource.at(store, spec, cut.manifests)
        elif spec.source == "brainy":
            self._source = BrainyTreeSource(store, spec.source_trees, **doubles_option(keep_doubles))

    async def total(self) -> int:
        """Items below the logs, for progress."""
        return 0 if self._source is None else await self._source.total()

    async def overlay(self, shard: int, *, from_position: int | None = None, into: Overlay | None = None) -> Overlay:
        """Replay a shard's log up to the cut: the last word on each id it names. Memory: those items.

        ``from_position`` leaves out what lies below it; by default what the base includes. ``into`` takes it in
        instead of a new overlay.

        Raises:
            LogCollectedError: that part of the log is gone.
            CorruptDataError: the log is damaged, or ends before the cut.
        """
        overlay = Overlay() if into is None else into
        floor = self.cut.floor(shard)
        first = floor + 1 if from_position is None else from_position
        overlay.positions[shard] = max(first - 1, floor)
        #: First position of the last log object wanted.
        head = self.cut.heads.get(shard, floor)
        if head < first:
            return overlay
        reached = first - 1
        generation = self.cut.spec.generation
        async with aclosing(_slots(self._store, generation, shard, first)) as slots:
            async for slot in slots:
                if slot.first > head:
                    break
                for at, record in enumerate(slot.batch.records, slot.first):
                    if at >= first:
                        overlay.apply(record)
                reached = slot.last
                if slot.first == head:
                    break
        if reached < head:
            raise CorruptDataError(
                "a change log ends before a position it once had",
                remedy="find out who deletes under cluster/",
                data_safe=False,
                key=layout.log_slot(generation, shard, head),
                reached=reached,
            )
        overlay.positions[shard] = max(reached, floor)
        return overlay

    async def base(self, shards: Collection[int], shard_count: int) -> AsyncGenerator[ItemBatch]:
        """Yield what lies below the logs, of some shards, once, in bounded batches."""
        if self._source is None:
            return
        stream = self._source.stream(shards=shards, shard_count=shard_count)
        async for batch in stream:
            yield batch


async def _slots(store: ObjectStore, generation: int, shard: int, first: int) -> AsyncGenerator[Slot]:
    async for slot in read_log(store, generation, shard, from_position=first):
        yield slot


def doubles_option(keep: bool) -> dict[str, bool]:
    """Options of ``BrainyTreeSource`` that keep stored doubles, if it can."""
    known = "keep_doubles" in inspect.signature(BrainyTreeSource.__init__).parameters
    return {"keep_doubles": True} if keep and known else {}

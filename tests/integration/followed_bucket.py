"""A bucket that Brainy processes write, and owned shards in this process that follow it: no servers but the store's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Spec
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import Clock, SystemClock
from brainy.config.settings import NodeSettings
from brainy.dataset.base import ItemBatch
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy_node.following.follower import Follower
from brainy_node.runtime.slot_window import SlotWindow
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

TREES = ("flat", "entity")
EPOCHS = itertools.count(1)


def spec_of(shards: int = 2, *, dimensions: int = 8, generation: int = 0, source: str = "brainy") -> Spec:
    trees = TREES if source == "brainy" else ()
    return Spec(
        generation=generation,
        dimensions=dimensions,
        shard_count=shards,
        source=source,
        source_trees=trees,
        scalar_kind="f32",
    )


class OwnedHere:
    """One shard, owned and open for commits (``OwnedShard``)."""

    def __init__(self, store: ObjectStore, shard: Shard, epoch: int) -> None:
        self._store = store
        self.shard = shard
        self.epoch = epoch
        self.may_commit = True
        self.window = SlotWindow(store, shard.generation, shard.number, shard.applied)
        self.writer = LogWriter(
            store,
            generation=shard.generation,
            shard=shard.number,
            epoch=epoch,
            writer_node="here",
            incarnation="1",
            ids=Ids(),
            clock=SystemClock(),
            next_position=shard.applied + 1,
        )
        self.commits = GroupCommit(self.writer, known=shard.position_of, on_slot=self._apply, clock=SystemClock())
        self._task: asyncio.Task[object] | None = None

    @property
    def generation(self) -> int:
        return self.shard.generation

    @property
    def number(self) -> int:
        return self.shard.number

    @property
    def shard_count(self) -> int:
        return self.shard.spec.shard_count

    def slots(self, from_position: int) -> AsyncIterator[Slot]:
        return self.window.follow(from_position)

    async def fit(self, dimensions: int) -> None:
        if not self.shard.spec.dimensions:
            self.shard.use_spec(self.shard.spec.model_copy(update={"dimensions": dimensions}))

    def _apply(self, slot: Slot) -> None:
        self.shard.apply(slot.batch)
        self.window.append(slot)

    async def open(self) -> None:
        async for slot in read_log(self._store, self.generation, self.number, from_position=self.shard.applied + 1):
            self.shard.apply(slot.batch)
        for slot in await self.writer.fence():
            self._apply(slot)
        self._task = asyncio.create_task(self.commits.run())

    async def close(self) -> None:
        self.window.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class FollowedBucket:
    """All shards of a generation, owned here, with the follower that serves them."""

    def __init__(self, store: ObjectStore, spec: Spec, directory: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.store = store
        self.spec = spec
        self.directory = directory
        #: The generation this one was made from.
        self.earlier: Spec | None = None
        self._numbers = itertools.count()
        self.owned: list[OwnedHere] = []
        self.follower = self._follower()

    def _follower(self) -> Follower:
        async def read_spec(generation: int) -> Spec:
            if generation == self.spec.generation:
                return self.spec
            assert self.earlier is not None
            return self.earlier

        return Follower(
            self.store,
            lambda: self.owned,
            read_spec=read_spec,
            settings=NodeSettings(),
            clock=self._clock,
            ids=Ids(),
        )

    async def bases(self, made_of: Iterable[Base] | None = None) -> dict[int, Base]:
        """Read the tree as it is now, or other bases, into fresh bases."""
        place = self.directory / str(next(self._numbers))
        count = self.spec.shard_count
        writers = {number: BaseWriter(place / str(number), spec=self.spec, shard=number) for number in range(count)}
        nouns, verbs = [], []
        if made_of is None:
            _, found, related = await tree_digest(self.store)
            nouns, verbs = list(found.values()), list(related.values())
        for base in made_of or ():
            nouns += [base.noun(row) for row in range(base.rows)]
            verbs += [base.verb(row) for row in range(base.verb_rows)]
        for number, writer in writers.items():
            writer.add_nouns([noun for noun in nouns if shard_of(noun.id, count) == number])
            writer.add_verbs([verb for verb in verbs if shard_of(verb.id, count) == number])
            writer.finish(position=0, threads=1)
        return {number: Base.open(writer.directory) for number, writer in writers.items()}

    async def open(self, bases: dict[int, Base], epoch: int | None = None) -> None:
        """Own every shard, from these bases and the log."""
        epoch = next(EPOCHS) if epoch is None else epoch
        self.owned = []
        for number, base in sorted(bases.items()):
            shard = Shard.open(base, self.spec, threads=1)
            async for slot in read_log(self.store, self.spec.generation, number, from_position=shard.applied + 1):
                shard.apply(slot.batch)
            owned = OwnedHere(self.store, shard, epoch)
            await owned.open()
            self.owned.append(owned)

    async def close(self, *, save: bool = True) -> None:
        """Give everything up, as at a planned end; without ``save`` as in a crash."""
        await self.follower.let_go(save=save)
        for owned in self.owned:
            await owned.close()
        self.owned = []

    async def take_over(self, bases: dict[int, Base]) -> None:
        """Become another owner: a new follower that knows nothing but the bucket."""
        self.follower = self._follower()
        await self.open(bases)

    async def turn(self) -> None:
        """One turn of the follower that makes a pass."""
        await self.follower.pass_now()

    @property
    def applied(self) -> int:
        """Foreign changes committed."""
        figures = [self.follower.figures(owned.generation, owned.number) for owned in self.owned]
        return sum(found.applied for found in figures if found is not None)

    def digest(self) -> MultisetDigest:
        """Of everything served."""
        total = MultisetDigest()
        for owned in self.owned:
            total.merge(owned.shard.digest())
        return total

    async def replica_digest(self, bases: dict[int, Base]) -> MultisetDigest:
        """Of replicas made from bases and the log alone."""
        total = MultisetDigest()
        for number, base in bases.items():
            shard = Shard.open(base, self.spec, threads=1)
            async for slot in read_log(self.store, self.spec.generation, number, from_position=shard.applied + 1):
                shard.apply(slot.batch)
            total.merge(shard.digest())
        return total

    async def log_records(self) -> int:
        """Records in the logs, fences included."""
        count = 0
        for number in range(self.spec.shard_count):
            async for page in self.store.list(layout.log(self.spec.generation, number)):
                assert page
            async for slot in read_log(self.store, self.spec.generation, number, from_position=1):
                count += len(slot.batch.records)
        return count


async def tree_digest(store: ObjectStore) -> tuple[MultisetDigest, dict[str, Noun], dict[str, Verb]]:
    """What the tree holds by the reading that adoption, backups and migrations use."""
    digest, nouns, verbs = MultisetDigest(), {}, {}
    batches: AsyncIterator[ItemBatch] = BrainyTreeSource(store, TREES).stream(shards=(0,), shard_count=1)
    async for batch in batches:
        for noun in batch.nouns:
            digest.add(noun.id, noun.digest())
            nouns[noun.id] = noun
        for verb in batch.verbs:
            digest.add(verb.id, verb.digest())
            verbs[verb.id] = verb
    return digest, nouns, verbs

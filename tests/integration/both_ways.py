"""A followed and mirrored bucket in this process, with a clock that stands still: what both sides do, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import numpy as np
import orjson
from followed_bucket import FollowedBucket, OwnedHere, spec_of, tree_digest

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.follow import FollowChoice, MirrorDialect
from brainy.bucket.partition import shard_of
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import SPLIT
from brainy.legacy.dialect.rendering import Bounds, Rendered
from brainy.legacy.mirror import Mirror
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import ShardMirror, SourceLog
from brainy_node.shard.base import Base


class Surroundings:
    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.store, self.clock, self.ids = store, clock, Ids()


def said(item_id: str, number: float) -> log_pb2.LogRecord:
    vector = np.full(8, number, "<f4").tobytes()
    return log_pb2.LogRecord(
        request_id=f"c-{item_id}-{number}/0", upsert_noun=common_pb2.Noun(id=item_id, vector=vector)
    )


class BothWays:
    """A memory bucket with a settable clock: Brainy's objects on one side, owned shards on the other."""

    def __init__(self, directory: Path, shards: int = 1) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.bucket = FollowedBucket(self.store, spec_of(shards), directory, self.clock)
        self.bases: dict[int, Base] = {}
        self.dialect: MirrorDialect = "flat-split"

    async def open(self) -> None:
        """Own everything, follow it; the first pass is made and the book saved."""
        self.bases = await self.bucket.bases()
        await self.bucket.open(self.bases)
        self.choose()
        await self.bucket.turn()
        await self.clock.advance(10)

    def choose(self, mirror: MirrorDialect | None = None) -> None:
        """Follow, and mirror unless told otherwise."""
        self.bucket.follower.choice = FollowChoice(follow=True, mirror=self.dialect if mirror is None else mirror)

    async def put(self, item_id: str, number: float) -> None:
        """As a Brainy process does."""
        body = orjson.dumps({"id": item_id, "vector": [number] * 8, "connections": {}})
        await self.store.put(f"nouns/{item_id}.json", body)

    async def commit(self, *records: log_pb2.LogRecord, at: int = 0) -> None:
        for record in records:
            record.written_at.FromMilliseconds(int(1000 * self.clock.wall()))
        await self.bucket.owned[at].commits.commit(records)

    def served(self, item_id: str) -> float | None:
        found = [noun for owned in self.bucket.owned for noun in owned.shard.get_nouns([item_id])]
        return float(np.frombuffer(found[0].vector, "<f4")[0]) if found else None

    async def stored(self, item_id: str) -> float | None:
        _, nouns, _ = await tree_digest(self.store)
        return float(np.frombuffer(nouns[item_id].vector, "<f4")[0]) if item_id in nouns else None

    async def die(self) -> None:
        """The owner ends without a word; another takes over and follows."""
        await self.bucket.close(save=False)
        await self.bucket.take_over(self.bases)
        self.choose()

    async def written(self, rendered: Rendered, *, objects: int | None = None) -> None:
        """What a mirror writes and nobody is told, or the first few objects of it."""
        for write in rendered.writes[:objects]:
            if write.body is None:
                await self.store.delete(write.key)
            else:
                await self.store.put(write.key, write.body)

    async def resharded(self, copied: log_pb2.LogRecord, *, save: bool = True, of: int = 0) -> OwnedHere:
        """Cut over to three shards, into which a record was copied just now; return the shard that has it.

        Args:
            copied: of item a.
            save: whether the books of the source are saved when it ends.
            of: the shard of the source it was copied from.
        """
        before = self.bucket
        bucket = FollowedBucket(self.store, spec_of(3, generation=1, source="0"), before.directory / "next", self.clock)
        await before.close(save=save)
        bucket.earlier, self.bucket = before.spec, bucket
        self.bases = await bucket.bases(self.bases.values())
        await bucket.open(self.bases)
        self.choose()
        owned = bucket.owned[shard_of("a", 3)]
        await owned.commits.commit([copied], {of: 3})
        return owned

    async def tree(self) -> MultisetDigest:
        """Of everything the tree holds."""
        digest, _, _ = await tree_digest(self.store)
        return digest

    @asynccontextmanager
    async def mirrored(self, at: int = 0, sources: Sequence[SourceLog] = ()) -> AsyncIterator[None]:
        """While one shard's log is written back, after the logs it was made from."""
        owned: OwnedHere = self.bucket.owned[at]
        host = cast(Host, Surroundings(self.store, self.clock))
        watch = self.bucket.follower.watch(owned.generation, owned.number)

        def make(claim: MirrorClaim) -> Mirror:
            bounds = Bounds(dimensions=8)
            return Mirror(self.store, SPLIT, seen=watch, change_log=True, bounds=bounds, guard=claim.guard)

        claim = MirrorClaim(host, owned.generation, owned.number, epoch=owned.epoch, dialect=SPLIT.name)
        mirror = ShardMirror(
            host,
            claim,
            make,
            follow=owned.window.follow,
            sources=sources,
            seen=watch,
            applied=lambda: owned.shard.applied,
        )
        running = asyncio.create_task(mirror.run())
        # One that takes over waits for the one before.
        moving = asyncio.create_task(self._move())
        self.claim = claim
        try:
            yield
        finally:
            moving.cancel()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await moving
            with suppress(asyncio.CancelledError):
                await running

    async def _move(self) -> None:
        while True:
            await self.clock.wait_for_sleepers()
            await self.clock.advance(0.5)

    async def written_back(self, at: int = 0) -> None:
        """Until the mirror has passed everything committed so far."""
        until = self.bucket.owned[at].shard.applied
        async with asyncio.timeout(60):
            while self.claim.cursor.position < until:
                await asyncio.sleep(0.01)

"""The world of one shard's mirror: a log that grows, a tree in memory, a follower's book, a clock that leaps."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.changelog.batch import Slot
from brainy.clock import SystemClock
from brainy.errors import FencedError, UnavailableError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import SPLIT
from brainy.legacy.dialect.rendering import Bounds
from brainy.legacy.mirror import Mirror
from brainy.legacy.seen_objects import NothingSeen, SeenObjects
from brainy.store.base import ObjectStore, StoredObject
from brainy.store.memory import MemoryStore
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import ShardMirror, SourceLog

DIMENSIONS = 3


class Leaping(SystemClock):
    """The machine's clock, and a pause that can be had at once."""

    def __init__(self) -> None:
        self.leaped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.leaped

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.02))


class Log:
    """A shard's log that grows."""

    def __init__(self, *, generation: int = 0) -> None:
        self.slots: list[Slot] = []
        self.ended = False
        self._generation = generation
        self._grown = asyncio.Event()

    @property
    def last(self) -> int:
        return self.slots[-1].last if self.slots else 0

    def commit(self, *records: log_pb2.LogRecord, copied: bool = False) -> None:
        for record in records:
            record.written_at.FromMilliseconds(1_700_000_000_000 + self.last)
        batch = log_pb2.LogBatch(
            format_version=1,
            generation=self._generation,
            shard=0,
            epoch=1,
            first_position=self.last + 1,
            records=records,
            source_cursor={0: 1} if copied else {},
        )
        self.slots.append(Slot(batch=batch, body=b""))
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def follow(self, position: int) -> AsyncIterator[Slot]:
        at = 0
        while True:
            grown = self._grown
            for slot in self.slots[at:]:
                if slot.last >= position:
                    yield slot
            at = len(self.slots)
            if self.ended:
                return
            await grown.wait()


def noun(item_id: str, value: float, metadata: str | None = "{}", *, foreign: bool = False) -> log_pb2.LogRecord:
    item = common_pb2.Noun(
        id=item_id,
        vector=struct.pack("<3f", value, 1, 2),
        metadata=None if metadata is None else metadata.encode(),
    )
    return log_pb2.LogRecord(request_id="follow:1" if foreign else "", upsert_noun=item)


def gone(item_id: str) -> log_pb2.LogRecord:
    return log_pb2.LogRecord(delete_noun=item_id)


class World:
    """A bucket, a log, and owners of its one shard."""

    def __init__(self, memory: MemoryStore | None = None, *, generation: int = 0) -> None:
        self.clock = Leaping()
        self.memory = memory or MemoryStore(self.clock)
        self.generation = generation
        self.log = Log(generation=generation)

    def mirror(
        self,
        epoch: int = 1,
        *,
        store: ObjectStore | None = None,
        seen: SeenObjects | None = None,
        dialect: Any = SPLIT,
        sources: Sequence[SourceLog] = (),
    ) -> ShardMirror:
        used = store or self.memory
        host = cast(Host, Surroundings(used, self.clock))
        watcher = seen or NothingSeen()

        def make(claim: MirrorClaim) -> Mirror:
            return Mirror(
                used,
                dialect,
                seen=watcher,
                change_log=True,
                bounds=Bounds(dimensions=DIMENSIONS),
                guard=claim.guard,
            )

        return ShardMirror(
            host,
            MirrorClaim(host, self.generation, 0, epoch=epoch, dialect=dialect.name),
            make,
            follow=self.log.follow,
            sources=sources,
            seen=watcher,
            applied=lambda: self.log.last,
        )

    @asynccontextmanager
    async def running(self, mirror: ShardMirror) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(mirror.run())
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, FencedError, UnavailableError):
                await task

    async def cursor(self) -> MirrorCursor | None:
        key = layout.mirror_cursor(self.generation, 0)
        found = await self.memory.get(key)
        return None if found is None else MirrorCursor.decode(found.body, key=key)

    async def until(self, position: int) -> MirrorCursor:
        async with asyncio.timeout(60):
            while True:
                cursor = await self.cursor()
                if cursor is not None and cursor.position >= position:
                    return cursor
                await asyncio.sleep(0.01)

    async def keys(self, prefix: str = "") -> list[str]:
        return [meta.key async for page in self.memory.list(prefix) for meta in page if "cluster/" not in meta.key]

    async def first(self, item_id: str) -> Any:
        found = await self.memory.get(f"nouns/{item_id}.json")
        return None if found is None else json.loads(found.body)["vector"][0]


class Surroundings:
    """What a mirror uses of its node."""

    def __init__(self, store: ObjectStore, clock: SystemClock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids()


class Versions:
    """A follower's book: the ETags that were taken over last."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.held: list[str] = []
        self.position = 0

    @property
    def watches(self) -> bool:
        return True

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        return self.known.get(key) == (None if found is None else found.etag)

    def hold(self, key: str) -> None:
        self.held.append(key)

    def release(self, key: str) -> None:
        self.held.remove(key)

    def wrote(self, key: str, etag: str) -> None:
        self.known[key] = etag
        self.held.remove(key)

    def deleted(self, key: str) -> None:
        self.known.pop(key, None)
        self.held.remove(key)

    def reached(self, position: int) -> None:
        self.position = position

"""Fetching ahead: requests overlap, memory is bounded, and closing leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.legacy.presence import Presence, hashes_of
from brainy.store.base import StoredObject
from brainy.store.memory import MemoryStore


class Counting(MemoryStore):
    """Answers each GET after a turn of the loop, and counts how many are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0
        self.most = 0
        self.batches = 0
        self.asked = asyncio.Event()

    async def get(self, key: str) -> StoredObject | None:
        self.asked.set()
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().get(key)
        finally:
            self.open -= 1

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        gate = asyncio.Semaphore(concurrency)
        self.batches += 1

        async def one(key: str) -> StoredObject | None:
            async with gate:
                return await self.get(key)

        try:
            return await asyncio.gather(*(one(key) for key in keys))
        finally:
            self.batches -= 1


async def filled(count: int) -> Counting:
    store = Counting()
    for n in range(count):
        await store.put(f"nouns/{n:05}.json", b'{"id":"%05d","vector":[1],"connections":{}}' % n)
        await store.put(f"metadata/{n:05}.json", b"{}")
    return store


async def test_requests_overlap_within_the_budget() -> None:
    store = await filled(3000)
    source = BrainyTreeSource(store, ["flat"], in_flight=240)
    seen = 0
    async for batch in source.stream(shards=[0], shard_count=1):
        seen += len(batch.nouns)
        # Batches are fetched ahead of the consumer, but not without end.
        await asyncio.sleep(0)
        assert store.batches <= 3
    assert seen == 3000
    assert 64 <= store.most <= 240


async def test_closing_early_cancels_everything() -> None:
    store = await filled(3000)
    before = asyncio.all_tasks()
    stream = BrainyTreeSource(store, ["flat"]).stream(shards=[0], shard_count=1)
    async for _ in stream:
        break
    await stream.aclose()
    assert store.open == 0
    assert asyncio.all_tasks() == before


async def test_cancelling_the_consumer_cancels_everything() -> None:
    store = await filled(3000)
    before = asyncio.all_tasks()

    async def consume() -> None:
        stream = BrainyTreeSource(store, ["flat"]).stream(shards=[0], shard_count=1)
        async with aclosing(stream):
            async for _ in stream:
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await store.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.open == 0
    assert asyncio.all_tasks() == before


def test_presence() -> None:
    known = Presence()
    known.add(hashes_of(["a", "b", "a"]))
    assert not known.complete
    known.add(hashes_of([]))
    known.finish()
    known.finish()
    assert len(known) == 2
    assert known.contains(hashes_of(["b", "c", "a"])).tolist() == [True, False, True]
    none = Presence()
    with pytest.raises(ValueError, match="not complete"):
        none.contains(hashes_of(["a"]))
    none.finish()
    assert none.contains(hashes_of(["a"])).tolist() == [False]

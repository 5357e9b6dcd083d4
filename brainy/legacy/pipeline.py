"""Listing and fetching that overlap: while one batch is parsed the next are on the wire.

Memory is bounded by the number of batches ahead times the bytes of a batch; order is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from brainy.store.base import ObjectMeta, ObjectStore, StoredObject
from brainy.store.keys import MAX_KEY_BYTES

T = TypeVar("T")


@dataclass(slots=True)
class Calls:
    """Store calls made so far."""

    lists: int = 0
    gets: int = 0
    ranged_gets: int = 0
    bytes_read: int = 0


@dataclass(slots=True)
class _End:
    error: BaseException | None = None


def _too_long(key: str) -> bool:
    # At most four bytes a character: nearly every key is too short to be worth encoding.
    return len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES


class ReadAhead(Generic[T]):
    """Runs a source in a task of its own, at most ``depth`` elements ahead of its consumer.

    Cancel safety: closing the iterator cancels the task and closes the source.
    """

    def __init__(self, source: AsyncGenerator[T], depth: int) -> None:
        self._source = source
        self._queue: asyncio.Queue[T | _End] = asyncio.Queue(depth)

    async def _pump(self) -> None:
        try:
            async with aclosing(self._source):
                async for element in self._source:
                    await self._queue.put(element)
        except Exception as error:
            await self._queue.put(_End(error))
        else:
            await self._queue.put(_End())

    async def elements(self) -> AsyncGenerator[T]:
        """Yield what the source yields; raises what it raises."""
        task = asyncio.create_task(self._pump())
        try:
            while not isinstance(element := await self._queue.get(), _End):
                yield element
            if element.error is not None:
                raise element.error
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Fetcher:
    """Lists and gets on behalf of one reading, and counts both."""

    def __init__(self, store: ObjectStore, *, in_flight: int = 256, batches_ahead: int = 3) -> None:
        self.store = store
        self.calls = Calls()
        self._ahead = batches_ahead
        # The batches ahead share the budget; the last requests of one overlap the first of the next.
        self.concurrency = max(16, in_flight // batches_ahead)

    async def pages(self, prefix: str, *, start_after: str = "") -> AsyncGenerator[Sequence[ObjectMeta]]:
        """List a prefix, two pages ahead."""
        ahead = ReadAhead(self._listed(prefix, start_after), 2)
        async with aclosing(ahead.elements()) as pages:
            async for page in pages:
                yield page

    async def _listed(self, prefix: str, start_after: str) -> AsyncGenerator[Sequence[ObjectMeta]]:
        self.calls.lists += 1
        found = 0
        async for page in self.store.list(prefix, start_after=start_after):
            found += 1
            self.calls.lists += found > 1
            yield page

    async def get(self, key: str) -> StoredObject | None:
        """Read one object; a key too long for any store names none."""
        if _too_long(key):
            return None
        self.calls.gets += 1
        found = await self.store.get(key)
        self.calls.bytes_read += len(found.body) if found else 0
        return found

    async def get_all(self, keys: Sequence[str]) -> Sequence[StoredObject | None]:
        """Read many objects; a missing one is None, as is one whose key no store can hold (the id fills the key of
        its vector object, and the metadata's prefix is longer). Any other failure is raised.

        Raises:
            BrainyError: what the store said. It is never mistaken for an unreadable object.
        """
        if any(map(_too_long, keys)):
            short = [key for key in keys if not _too_long(key)]
            objects = iter(await self.get_all(short))
            return [None if _too_long(key) else next(objects) for key in keys]
        self.calls.gets += len(keys)
        found: list[StoredObject | None] = []
        for item in await self.store.get_many(keys, concurrency=self.concurrency):
            if isinstance(item, Exception):
                raise item
            self.calls.bytes_read += len(item.body) if item else 0
            found.append(item)
        return found

    async def heads(self, keys: Sequence[str], length: int) -> Sequence[bytes | None]:
        """Read the first ``length`` bytes of many objects."""
        self.calls.ranged_gets += len(keys)
        gate = asyncio.Semaphore(self.concurrency)

        async def head(key: str) -> bytes | None:
            async with gate:
                return await self.store.get_range(key, 0, length)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(head(key)) for key in keys]
        return [task.result() for task in tasks]

    async def fetched(
        self, batches: AsyncIterator[tuple[T, Sequence[str]]]
    ) -> AsyncGenerator[tuple[T, Sequence[StoredObject | None]]]:
        """Fetch the keys of batch after batch, several batches at once, in order."""
        on_the_wire: set[asyncio.Task[Sequence[StoredObject | None]]] = set()

        async def started() -> AsyncGenerator[tuple[T, asyncio.Task[Sequence[StoredObject | None]]]]:
            async for batch, keys in batches:
                task = asyncio.create_task(self.get_all(keys))
                on_the_wire.add(task)
                yield batch, task

        ahead = ReadAhead(started(), self._ahead - 1)
        try:
            async with aclosing(ahead.elements()) as fetches:
                async for batch, task in fetches:
                    objects = await task
                    on_the_wire.discard(task)
                    yield batch, objects
        finally:
            for task in on_the_wire:
                task.cancel()
            await asyncio.gather(*on_the_wire, return_exceptions=True)

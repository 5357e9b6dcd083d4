"""The newest slots of an owned log, kept in memory for those who follow it."""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import AsyncIterator

from brainy.changelog.batch import Slot
from brainy.changelog.reading import read_log
from brainy.errors import UnavailableError
from brainy.store.base import ObjectStore

_MAX_BYTES = 64 << 20


class SlotWindow:
    """Recent durable slots of one shard, in order, and the means to wait for the next.

    A follower that asks for older slots is served from the bucket first, so it needs nothing but this
    stream to follow a shard from any position.
    """

    def __init__(self, store: ObjectStore, generation: int, shard: int, last: int) -> None:
        self._store = store
        self._generation = generation
        self._shard = shard
        self._slots: deque[Slot] = deque()
        self._bytes = 0
        self._last = last
        self._closed = False
        self._grown = asyncio.Event()

    @property
    def last(self) -> int:
        """Highest durable position."""
        return self._last

    def append(self, slot: Slot) -> None:
        """Add a durable slot and wake the followers."""
        if slot.first <= self._last:
            return
        self._slots.append(slot)
        self._bytes += len(slot.body)
        self._last = slot.last
        while self._bytes > _MAX_BYTES and len(self._slots) > 1:
            self._bytes -= len(self._slots.popleft().body)
        self._wake()

    def close(self) -> None:
        """End every stream: the followers have to look for the new owner."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _recent(self, position: int) -> Slot | None:
        if not self._slots or position < self._slots[0].first:
            return None
        index = bisect.bisect_right(self._slots, position, key=lambda slot: slot.first) - 1
        return self._slots[index]

    async def follow(self, from_position: int) -> AsyncIterator[Slot]:
        """Yield every slot that holds ``from_position`` or later, for ever.

        Raises:
            UnavailableError: ownership ended (NOT_OWNER).
        """
        position = from_position
        while True:
            grown = self._grown
            while position <= self._last and not self._closed:
                slot = self._recent(position)
                if slot is not None:
                    yield slot
                    position = slot.last + 1
                    continue
                async for old in read_log(self._store, self._generation, self._shard, from_position=position):
                    yield old
                    position = old.last + 1
                    if self._recent(position) is not None:
                        break
            if self._closed:
                raise UnavailableError(
                    "this node no longer owns the shard",
                    reason="NOT_OWNER",
                    remedy="re-read the routing record and follow the new owner",
                    generation=self._generation,
                    shard=self._shard,
                )
            await grown.wait()

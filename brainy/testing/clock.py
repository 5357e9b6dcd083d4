"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """Monotonic and wall time that pass only when ``advance`` is called."""

    def __init__(self, *, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Seconds, as advanced."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since 1970, as advanced."""
        return self._wall

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced that far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    @property
    def sleepers(self) -> int:
        """How many tasks are waiting."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let time pass: wakes sleepers in order, and lets each run before the next one wakes."""
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._wall += max(0.0, due - self._monotonic)
            self._monotonic = max(self._monotonic, due)
            if not future.done():
                future.set_result(None)
            for _ in range(10):
                await asyncio.sleep(0)
        self._wall += end - self._monotonic
        self._monotonic = end
        for _ in range(10):
            await asyncio.sleep(0)

    def jump_wall(self, seconds: float) -> None:
        """Move only the wall clock, as an administrator or a bad time server would."""
        self._wall += seconds

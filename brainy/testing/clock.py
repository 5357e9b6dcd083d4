"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """Both kinds of time advance only through ``advance``; ``sleep`` waits for that.

    ``wall`` starts at 2023-11-14T22:13:20Z, ``monotonic`` at 1,000.
    """

    def __init__(self, *, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    def monotonic(self) -> float:
        """Seconds on the hand-moved clock."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since 1970 on the hand-moved clock."""
        return self._wall

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by ``seconds``; zero or less only yields."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        self._arrived.set()
        await future

    @property
    def sleepers(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return once at least ``count`` tasks sleep on this clock."""
        while self.sleepers < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def advance(self, seconds: float) -> None:
        """Move both times, waking every sleeper at its own instant and letting it run before the next one."""
        target = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            instant, _, future = heapq.heappop(self._sleepers)
            self._move(max(0.0, instant - self._monotonic))
            if not future.done():
                future.set_result(None)
                await _settle()
        self._move(target - self._monotonic)
        await _settle()

    def jump_wall(self, seconds: float) -> None:
        """Move only the wall clock, as an operator or NTP may."""
        self._wall += seconds

    def _move(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds


async def _settle() -> None:
    # Enough turns of the loop for woken tasks to reach their next wait on something other than the loop itself.
    for _ in range(20):
        await asyncio.sleep(0)

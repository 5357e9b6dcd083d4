"""Writers and readers that never stop, and the oracle of what was acknowledged to them."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
from dataclasses import dataclass, field

import numpy as np

from brainy.clock import SystemClock
from brainy.errors import BrainyError
from brainy.sdk.client import AsyncBrainy


@dataclass
class Oracle:
    """What the cluster acknowledged. ``None`` is an acknowledged delete."""

    acknowledged: dict[str, np.ndarray | None] = field(default_factory=dict)
    #: Items whose last operation was not acknowledged: either outcome is right.
    unsure: set[str] = field(default_factory=set)
    writes: int = 0
    #: The longest any write took, with all its retries.
    slowest_write_seconds: float = 0.0
    failed_writes: list[str] = field(default_factory=list)
    reads: int = 0
    failed_reads: list[str] = field(default_factory=list)

    async def assert_kept(self, client: AsyncBrainy) -> None:
        """No acknowledged write is missing or stale, no acknowledged delete is back."""
        known = [item for item in self.acknowledged if item not in self.unsure]
        found = await client.get_many(known)
        lost = [i for i in known if self.acknowledged[i] is not None and i not in found]
        resurrected = [i for i in known if self.acknowledged[i] is None and i in found]
        stale = [
            i
            for i in known
            if (expected := self.acknowledged[i]) is not None
            and i in found
            and not np.array_equal(found[i].vector, expected)
        ]
        assert (lost, resurrected, stale) == ([], [], []), f"{len(known)} items known"


class Traffic:
    """Concurrent writers and readers until ``stop``."""

    def __init__(self, client: AsyncBrainy, dimensions: int, *, seed: int, writers: int = 3, readers: int = 2) -> None:
        self.oracle = Oracle()
        self._client = client
        self._dimensions = dimensions
        self._seed = seed
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(writers)]
        self._tasks += [asyncio.create_task(self._read(n)) for n in range(readers)]

    async def stop(self) -> Oracle:
        """Let each one finish its operation; returns what was seen."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        return self.oracle

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _write(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/writer/{number}")
        vectors = np.random.default_rng(self._seed * 100 + number)
        mine: list[str] = []
        while not self._stopping.is_set():
            choice = rng.random()
            if mine and choice < 0.25:
                item, vector = mine.pop(rng.randrange(len(mine))), None
            elif mine and choice < 0.5:
                item, vector = rng.choice(mine), vectors.normal(size=self._dimensions).astype(np.float32)
            else:
                item = f"w{number}-{len(self.oracle.acknowledged)}-{rng.getrandbits(32):08x}"
                vector = vectors.normal(size=self._dimensions).astype(np.float32)
                mine.append(item)
            self.oracle.unsure.add(item)
            begun = self._clock.monotonic()
            try:
                if vector is None:
                    await self._client.delete(item)
                else:
                    await self._client.add(vector, {"by": number}, item)
            except BrainyError as error:
                self.oracle.failed_writes.append(f"{error.reason}: {error}")
                continue
            took = self._clock.monotonic() - begun
            self.oracle.slowest_write_seconds = max(took, self.oracle.slowest_write_seconds)
            self.oracle.writes += 1
            self.oracle.acknowledged[item] = vector
            self.oracle.unsure.discard(item)
            # Leave room on a small machine: the point is interleaving, not load.
            await self._pause(rng.uniform(0.0, 0.02))

    async def _read(self, number: int) -> None:
        vectors = np.random.default_rng(self._seed * 100 + 50 + number)
        while not self._stopping.is_set():
            try:
                hits = await self._client.search(vectors.normal(size=self._dimensions), 10)
                if len(hits) != 10:
                    self.oracle.failed_reads.append(f"{len(hits)} hits")
            except BrainyError as error:
                self.oracle.failed_reads.append(f"{error.reason}: {error}")
            self.oracle.reads += 1
            await self._pause(0.02)

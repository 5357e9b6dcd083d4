"""Load that is offered, not asked for: calls begin when their time has come, whatever became of the ones before.

A closed loop would write nothing while writes wait, and so see one slow write where users see a thousand. Latencies
count from the moment at which a call was due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainy.clock import SystemClock
from brainy.errors import BrainyError
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore

_PROBE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that was answered."""

    #: Monotonic seconds.
    due: float
    seconds: float


@dataclass(slots=True)
class Seen:
    """What clients saw."""

    writes: list[Call] = field(default_factory=list)
    reads: list[Call] = field(default_factory=list)
    puts: list[Call] = field(default_factory=list)
    failed_writes: list[str] = field(default_factory=list)
    failed_reads: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How much, of what."""

    #: Nouns a second, in calls of ``batch`` nouns.
    writes: int = 1000
    batch: int = 20
    #: Searches and reads by id a second, half and half.
    reads: int = 40
    #: Nouns that are written again and again; as many as a quarter of a minute of writes, at least.
    nouns: int = 20_000
    dimensions: int = 64
    clients: int = 4


class Offered:
    """Runs an offer until ``stop``."""

    def __init__(
        self, connect: Callable[[], AsyncBrainy], offer: Offer, *, store: ObjectStore, vectors: np.ndarray
    ) -> None:
        """Begin.

        Args:
            connect: makes a client.
            offer: what is offered.
            store: of the namespace: its own PUTs are timed beside the load, ten a second.
            vectors: as many as there are nouns; what is there before.
        """
        self.seen = Seen()
        #: Row -> the version that was acknowledged last; 0 for what was there before.
        self.versions = np.zeros(offer.nouns, np.int64)
        #: Rows whose last write was not acknowledged.
        self.unsure: set[int] = set()
        self._offer = offer
        self._store = store
        self._vectors = vectors
        self._clock = SystemClock()
        self._clients = [connect() for _ in range(offer.clients)]
        self._calls: set[asyncio.Task[None]] = set()
        self._next_row = 0
        self._version = 0
        self._reads = 0
        self._over = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._pace(offer.writes / offer.batch, self._write)),
            asyncio.create_task(self._pace(offer.reads, self._read)),
            asyncio.create_task(self._probe()),
        ]

    def vector(self, row: int, version: int) -> np.ndarray:
        """What a version of a row is."""
        return np.roll(self._vectors[row], version % self._offer.dimensions)

    async def stop(self) -> Seen:
        """Offer nothing more, and wait until everything was answered."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*self._calls)
        await asyncio.gather(*(client.close() for client in self._clients))
        return self.seen

    async def _pace(self, rate: float, begin: Callable[[float], Awaitable[None]]) -> None:
        due = self._clock.monotonic()
        while not self._over.is_set():
            due += 1.0 / rate
            wait = due - self._clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.ensure_future(begin(due))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _write(self, due: float) -> None:
        offer = self._offer
        rows = [(self._next_row + n) % offer.nouns for n in range(offer.batch)]
        self._next_row = (self._next_row + offer.batch) % offer.nouns
        self._version += 1
        version, client = self._version, self._clients[self._version % len(self._clients)]
        vectors = np.stack([self.vector(row, version) for row in rows])
        self.unsure.update(rows)
        try:
            await client.add_many(vectors, [{"version": version}] * len(rows), ids=[f"noun-{row}" for row in rows])
        except BrainyError as error:
            self.seen.failed_writes.append(f"{error.reason}: {error}")
            return
        self.seen.writes.append(Call(due=due, seconds=self._clock.monotonic() - due))
        self.versions[rows] = version
        self.unsure.difference_update(rows)

    async def _read(self, due: float) -> None:
        self._reads += 1
        client = self._clients[self._reads % len(self._clients)]
        row = (self._reads * 7919) % self._offer.nouns
        try:
            if self._reads % 2:
                found = len(await client.search(self._vectors[row], 10)) == 10
            else:
                found = len(await client.get_many([f"noun-{row}"])) == 1
        except BrainyError as error:
            self.seen.failed_reads.append(f"{error.reason}: {error}")
            return
        if not found:
            self.seen.failed_reads.append("an answer without what is there")
        self.seen.reads.append(Call(due=due, seconds=self._clock.monotonic() - due))

    async def _probe(self) -> None:
        number, body = 0, b"x" * (self._offer.batch * (4 * self._offer.dimensions + 100))
        while not self._over.is_set():
            began = self._clock.monotonic()
            await self._store.put_if_absent(f"probe/{began}/{number}", body)
            self.seen.puts.append(Call(due=began, seconds=self._clock.monotonic() - began))
            number += 1
            await asyncio.sleep(_PROBE_SECONDS)

    async def wrong(self, client: AsyncBrainy) -> list[str]:
        """Compare everything that is served with what was acknowledged; returns what is missing, stale or too much."""
        wrong: list[str] = []
        left = set(range(self._offer.nouns))
        async for noun in client.scan():
            row = int(noun.id.removeprefix("noun-"))
            left.discard(row)
            if row in self.unsure:
                continue
            version = int(self.versions[row])
            expected = self.vector(row, version)
            says = (noun.metadata or {}).get("version", 0) if isinstance(noun.metadata, dict) else 0
            if row >= self._offer.nouns or says != version or not np.array_equal(noun.vector, expected):
                wrong.append(f"{noun.id}: version {says} instead of {version}")
        return wrong + [f"noun-{row}: missing" for row in sorted(left)]


def quantile(calls: Sequence[Call] | Sequence[float], share: float) -> float:
    """A quantile of latencies, nearest rank; 0 of nothing."""
    seconds = sorted(each.seconds if isinstance(each, Call) else each for each in calls)
    return seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else 0.0

"""Concurrent writers and searchers that keep account of what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainy.bucket import items
from brainy.cli.demo.oracle import Oracle, Value, metadata_bytes
from brainy.clock import Clock
from brainy.errors import BrainyError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.values import Vector

_WRITE_PAUSE_SECONDS = 0.02
_SEARCH_PAUSE_SECONDS = 0.01
_K = 10


@dataclass(slots=True)
class Counters:
    """What the traffic has seen so far."""

    writes: int = 0
    deletes: int = 0
    verbs: int = 0
    searches: int = 0
    #: Calls that raised.
    failed: int = 0
    #: Searches that gave too few hits, or one whose deletion had been acknowledged before.
    wrong: int = 0
    #: Longest acknowledged write and search, seconds.
    slowest_write: float = 0.0
    slowest_search: float = 0.0
    #: The first failures, in words.
    examples: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """Operations that were confirmed."""
        return self.writes + self.deletes + self.verbs

    def blame(self, what: str) -> None:
        """Keep the first few failures for the report."""
        if len(self.examples) < 5:
            self.examples.append(what)


class Traffic:
    """Writers with ids of their own, and searchers, all through one client.

    One client means one session: a search sees every write acknowledged before it began, and a deleted noun in
    its answer is an error.
    """

    def __init__(
        self, brainy: AsyncBrainy, *, dimensions: int, seed: int, clock: Clock, nouns: Oracle, verbs: Oracle
    ) -> None:
        self.counters = Counters()
        self._brainy = brainy
        self._dimensions = dimensions
        self._seed = seed
        self._clock = clock
        self._nouns = nouns
        self._verbs = verbs
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, writers: int, searchers: int, sample: Sequence[Sequence[str]]) -> None:
        """Begin. ``sample`` gives each writer ids of the sample that it may replace and delete."""
        for number in range(writers):
            self._tasks.append(asyncio.create_task(self._write(number, list(sample[number]))))
        for number in range(searchers):
            self._tasks.append(asyncio.create_task(self._search(number)))

    async def stop(self) -> None:
        """End after the operations under way.

        Raises:
            Exception: a fault of the demonstration itself.
        """
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """End at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, number: int, mine: list[str]) -> None:
        rng = np.random.default_rng([self._seed, number])
        turn = 0
        while not self._stop.is_set():
            turn += 1
            choice = rng.random()
            if choice < 0.5 or not mine:
                noun_id = f"demo-{number}-{turn}"
                if await self._upsert(noun_id, rng, turn):
                    mine.append(noun_id)
            elif choice < 0.75:
                await self._upsert(mine[int(rng.integers(len(mine)))], rng, turn)
            elif choice < 0.9:
                noun_id = mine.pop(int(rng.integers(len(mine))))
                if await self._attempt(self._nouns, noun_id, None, self._brainy.delete(noun_id)):
                    self.counters.deletes += 1
            else:
                await self._relate(f"demo-verb-{number}-{turn}", mine, rng)
            await self._clock.sleep(_WRITE_PAUSE_SECONDS)

    async def _upsert(self, noun_id: str, rng: np.random.Generator, turn: int) -> bool:
        vector = _unit(rng, self._dimensions)
        metadata = {"noun": "Thing", "turn": turn, "text": "größer — 大"}
        value = items.Noun(id=noun_id, vector=vector.tobytes(), metadata=metadata_bytes(metadata)).digest()
        done = await self._attempt(self._nouns, noun_id, value, self._brainy.add(vector, metadata, noun_id))
        self.counters.writes += done
        return done

    async def _relate(self, verb_id: str, mine: list[str], rng: np.random.Generator) -> None:
        source, target = (mine[int(rng.integers(len(mine)))] for _ in range(2))
        metadata = {"since": int(rng.integers(1990, 2026))}
        weight = round(float(rng.random()), 4)
        value = items.Verb(
            id=verb_id,
            source_id=source,
            target_id=target,
            type="relatedTo",
            weight=weight,
            metadata=metadata_bytes(metadata),
        ).digest()
        call = self._brainy.add_verb(source, target, "relatedTo", metadata, weight=weight, id=verb_id)
        self.counters.verbs += await self._attempt(self._verbs, verb_id, value, call)

    async def _attempt(self, oracle: Oracle, item_id: str, value: Value, call: Awaitable[object]) -> bool:
        began = self._clock.monotonic()
        # Until it is acknowledged a search may see the old or the new state.
        oracle.unknown(item_id, value)
        try:
            await call
        except BrainyError as error:
            self.counters.failed += 1
            self.counters.blame(f"write of {item_id}: {error}")
            # Even where the last attempt was refused an earlier one may have landed: both stay possible.
            return False
        oracle.acknowledged(item_id, value)
        self.counters.slowest_write = max(self.counters.slowest_write, self._clock.monotonic() - began)
        return True

    async def _search(self, number: int) -> None:
        rng = np.random.default_rng([self._seed, 1000 + number])
        while not self._stop.is_set():
            gone = self._nouns.deleted()
            began = self._clock.monotonic()
            try:
                hits = await self._brainy.search(_unit(rng, self._dimensions), _K)
            except BrainyError as error:
                self.counters.failed += 1
                self.counters.blame(f"search: {error}")
            else:
                self.counters.searches += 1
                took = self._clock.monotonic() - began
                self.counters.slowest_search = max(self.counters.slowest_search, took)
                # A hit deleted before the search began and still so: nobody wrote it anew meanwhile.
                again = sorted({hit.id for hit in hits} & gone & self._nouns.deleted())
                if again or len(hits) < _K:
                    self.counters.wrong += 1
                    self.counters.blame(f"search gave {len(hits)} hits, deleted ones: {again}")
            await self._clock.sleep(_SEARCH_PAUSE_SECONDS)


def _unit(rng: np.random.Generator, dimensions: int) -> Vector:
    vector = rng.standard_normal(dimensions).astype("<f4")
    vector /= np.linalg.norm(vector)
    return vector

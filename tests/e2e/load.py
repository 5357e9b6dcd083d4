"""Writers and readers that go on while a namespace is migrated, each a client of its own, and what they were told."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from brainy.clock import SystemClock
from brainy.errors import BrainyError
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore
from tests.e2e.holding import Content, Holding, Verdict, noun_content, verb_content

_BULK = 5


@dataclass
class Ledger:
    """What was acknowledged, of nouns and of verbs. None is an acknowledged deletion."""

    nouns: dict[str, Content | None] = field(default_factory=dict)
    verbs: dict[str, Content | None] = field(default_factory=dict)
    #: Items whose last operation was not acknowledged.
    unsure: set[str] = field(default_factory=set)
    writes: int = 0
    reads: int = 0
    #: The longest any operation took, with all its retries, in seconds.
    slowest_write: float = 0.0
    slowest_read: float = 0.0
    failed_writes: list[str] = field(default_factory=list)
    failed_reads: list[str] = field(default_factory=list)
    #: Of reads while the load went on: a session that did not see its own writes.
    seen: Verdict = field(default_factory=Verdict)

    def __str__(self) -> str:
        return (
            f"writes={self.writes} reads={self.reads} failed={len(self.failed_writes)}+{len(self.failed_reads)} "
            f"slowest write={self.slowest_write:.2f} s read={self.slowest_read:.2f} s"
        )


class Load:
    """Writers and readers until ``stop``; each has a client, and so a session, of its own."""

    def __init__(
        self,
        connect: Callable[[], AsyncBrainy],
        dimensions: int,
        *,
        before: Holding,
        seed: int,
        writers: int = 2,
        readers: int = 2,
        pause_seconds: float = 0.03,
    ) -> None:
        self.ledger = Ledger()
        self._connect = connect
        self._dimensions = dimensions
        self._before = before
        self._seed = seed
        self._pause_seconds = pause_seconds
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._writing = 0
        self._tasks = [asyncio.create_task(self._run(self._write, n)) for n in range(writers)]
        self._tasks += [asyncio.create_task(self._run(self._read, n)) for n in range(readers)]

    async def stop(self) -> Ledger:
        """Let each one finish its operation; returns what was seen."""
        self._may_write.set()
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        return self.ledger

    async def hold_writers(self) -> None:
        """Return once no writer has an operation under way, and let none begin another."""
        self._may_write.clear()
        await self._until(lambda: self._writing == 0)

    def release_writers(self) -> None:
        """Let them go on."""
        self._may_write.set()

    async def wrote(self, more: int = 20) -> None:
        """Wait until some more writes are acknowledged."""
        goal = self.ledger.writes + more
        await self._until(lambda: self.ledger.writes >= goal)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(180):
            while not reached():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def judge(self, client: AsyncBrainy, store: ObjectStore | None = None) -> Verdict:
        """Hold what is served, and with ``store`` what is stored as well, against everything acknowledged."""
        verdict = Verdict()
        found = [await Holding.served(client)]
        if store is not None:
            found.append(await Holding.stored(store))
        for held in found:
            verdict.judge(held.nouns, {**self._before.nouns, **self.ledger.nouns}, self.ledger.unsure)
            verdict.judge(held.verbs, {**self._before.verbs, **self.ledger.verbs}, self.ledger.unsure)
        return verdict

    async def _run(self, work: Callable[[AsyncBrainy, int], Awaitable[None]], number: int) -> None:
        async with self._connect() as client:
            await work(client, number)

    async def _write(self, client: AsyncBrainy, number: int) -> None:
        writer = _Writer(client, self.ledger, self._dimensions, name=f"w{number}", seed=self._seed)
        rng = random.Random(f"{self._seed}/pauses/{number}")
        while not self._stopping.is_set():
            await self._may_write.wait()
            if self._stopping.is_set():
                break
            self._writing += 1
            began = self._clock.monotonic()
            try:
                await writer.write()
            finally:
                self._writing -= 1
            self.ledger.slowest_write = max(self.ledger.slowest_write, self._clock.monotonic() - began)
            await writer.read_own()
            # Room for the cluster on a small machine: the point is interleaving, not speed.
            await self._pause(rng.uniform(0, self._pause_seconds))

    async def _read(self, client: AsyncBrainy, number: int) -> None:
        vectors = np.random.default_rng(self._seed * 100 + 50 + number)
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                hits = await client.search(vectors.normal(size=self._dimensions), 10)
                if len(hits) != 10:
                    self.ledger.failed_reads.append(f"{len(hits)} hits")
            except BrainyError as error:
                self.ledger.failed_reads.append(f"{error.reason}: {error}")
            self.ledger.slowest_read = max(self.ledger.slowest_read, self._clock.monotonic() - began)
            self.ledger.reads += 1
            await self._pause(self._pause_seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


class _Writer:
    """One session: writes items of its own, one operation after the other, and reads them back."""

    def __init__(self, client: AsyncBrainy, ledger: Ledger, dimensions: int, *, name: str, seed: int) -> None:
        self._client = client
        self._ledger = ledger
        self._dimensions = dimensions
        self._name = name
        self._rng = random.Random(f"{seed}/{name}")
        self._vectors = np.random.default_rng([seed, *name.encode()])
        self._numbers = 0
        self._nouns: list[str] = []
        self._verbs: list[str] = []

    def _vector(self) -> np.ndarray:
        return self._vectors.normal(size=self._dimensions).astype(np.float32)

    def _fresh(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}-{self._name}-{self._numbers}"

    async def write(self) -> None:
        """One operation of those that clients have."""
        choice = self._rng.random()
        nouns, verbs = self._nouns, self._verbs
        if nouns and choice < 0.2:
            noun = nouns.pop(self._rng.randrange(len(nouns)))
            await self._noted({noun: None}, {}, lambda: self._client.delete(noun))
        elif nouns and choice < 0.4:
            await self._put_noun(self._rng.choice(nouns))
        elif len(nouns) > 1 and choice < 0.55:
            await self._put_verb(self._fresh("v"))
        elif verbs and choice < 0.65:
            verb = verbs.pop(self._rng.randrange(len(verbs)))
            await self._noted({}, {verb: None}, lambda: self._client.delete_verb(verb))
        elif choice < 0.8:
            await self._put_nouns([self._fresh("n") for _ in range(_BULK)])
        else:
            await self._put_noun(self._fresh("n"))

    async def _put_noun(self, noun: str) -> None:
        vector, metadata = self._vector(), {"by": self._name, "turn": self._rng.random()}
        expected = noun_content(vector, metadata)
        await self._noted({noun: expected}, {}, lambda: self._client.add(vector, metadata, noun))
        if noun not in self._nouns:
            self._nouns.append(noun)

    async def _put_nouns(self, nouns: list[str]) -> None:
        vectors = np.stack([self._vector() for _ in nouns])
        expected = {noun: noun_content(row, None) for noun, row in zip(nouns, vectors, strict=True)}
        await self._noted(dict(expected), {}, lambda: self._client.add_many(vectors, ids=nouns))
        self._nouns += nouns

    async def _put_verb(self, verb: str) -> None:
        source, target = self._rng.sample(self._nouns, 2)
        expected = verb_content(source, target, "relatedTo", 0.5, {"by": self._name})

        async def put() -> None:
            await self._client.add_verb(source, target, "relatedTo", {"by": self._name}, weight=0.5, id=verb)

        await self._noted({}, {verb: expected}, put)
        self._verbs.append(verb)

    async def _noted(
        self,
        nouns: dict[str, Content | None],
        verbs: dict[str, Content | None],
        operation: Callable[[], Awaitable[object]],
    ) -> None:
        ledger, touched = self._ledger, {*nouns, *verbs}
        ledger.unsure |= touched
        # Known from now on: something nobody began to write must not be found.
        for known, items in ((ledger.nouns, nouns), (ledger.verbs, verbs)):
            for item in items:
                known.setdefault(item, None)
        try:
            await operation()
        except BrainyError as error:
            ledger.failed_writes.append(f"{error.reason}: {error}")
            return
        ledger.nouns.update(nouns)
        ledger.verbs.update(verbs)
        ledger.unsure -= touched
        ledger.writes += 1

    async def read_own(self) -> None:
        """A session sees what was acknowledged to it, whichever node and generation answer."""
        known = [item for item in self._nouns[-20:] if item not in self._ledger.unsure]
        gone = [item for item, content in list(self._ledger.nouns.items())[-20:] if content is None]
        wanted = self._rng.sample(known, min(3, len(known))) + [i for i in gone if i.startswith(f"n-{self._name}-")]
        wanted = [item for item in wanted if item not in self._ledger.unsure]
        if not wanted:
            return
        expected = {item: self._ledger.nouns[item] for item in wanted}
        began = SystemClock().monotonic()
        try:
            found = await self._client.get_many(wanted)
        except BrainyError as error:
            self._ledger.failed_reads.append(f"{error.reason}: {error}")
            return
        finally:
            self._ledger.slowest_read = max(self._ledger.slowest_read, SystemClock().monotonic() - began)
        self._ledger.reads += 1
        contents = {item: noun_content(noun.vector, noun.metadata) for item, noun in found.items()}
        self._ledger.seen.judge(contents, expected, ())

"""A simulated bucket, and a process's way to it: latency, faults and lost answers, drawn from the seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from brainy.errors import UnavailableError
from brainy.store.base import ObjectMeta, PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore
from brainy.testing.loop import SimLoop
from brainy.testing.process import SimProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreWeather:
    """How the way to the store is. Rates are shares of calls."""

    latency: tuple[float, float] = (0.002, 0.03)
    #: Calls that take ``slow`` seconds instead.
    slow_rate: float = 0.0
    slow: tuple[float, float] = (0.5, 8.0)
    #: Reads, lists and plain writes that fail (5xx, reset); half of such writes have landed.
    failure: float = 0.0
    #: Conditional writes answered UNKNOWN that never arrive.
    vanishes: float = 0.0
    #: Conditional writes answered UNKNOWN that landed.
    landed_unknown: float = 0.0
    #: Conditional writes answered UNKNOWN that land later, up to ``late`` seconds.
    landed_late: float = 0.0
    late: tuple[float, float] = (0.05, 40.0)
    #: Conditional writes that landed and are answered LOST: a client library sent them twice.
    landed_lost: float = 0.0
    #: Conditional writes refused with 409: nothing was done, answered UNKNOWN.
    conflict: float = 0.0
    #: Conditional writes that raise instead of answering; half of them have landed.
    raises: float = 0.0
    #: Listings that show the bucket as it was up to ``stale`` seconds ago.
    stale_listing: float = 0.0
    stale: float = 3.0

    def scaled(self, factor: float) -> StoreWeather:
        """The same weather with every rate multiplied."""
        names = (
            "slow_rate", "failure", "vanishes", "landed_unknown", "landed_late", "landed_lost", "conflict", "raises",
            "stale_listing",
        )  # fmt: skip
        changed: dict[str, Any] = {name: min(0.9, getattr(self, name) * factor) for name in names}
        return replace(self, **changed)


CLEAR = StoreWeather()

#: kind, key, body (None: deleted), whether it took effect, who.
Observer = Callable[[str, str, bytes | None, bool, str], None]


class SimBucket:
    """The objects. Each operation happens at one instant; who watches sees all that took effect."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.objects = MemoryStore(_WorldClock(loop))
        self.observers: list[Observer] = []
        #: When each key was created, for stale listings.
        self.created: dict[str, float] = {}

    async def act(self, kind: str, key: str, args: tuple[Any, ...], who: str) -> Any:
        """Carry out one operation."""
        answer = await getattr(self.objects, kind)(key, *args)
        if kind in ("put", "put_if_absent", "put_if_match", "delete"):
            done = answer.won if isinstance(answer, PutOutcome) else True
            if done and kind != "delete":
                self.created.setdefault(key, self.loop.time())
            if kind == "delete":
                self.created.pop(key, None)
            for observe in self.observers:
                observe(kind, key, args[0] if args else None, done, who)
        return answer


class _WorldClock:
    """The store's own clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return 1_704_067_200.0 + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimStore:
    """``ObjectStore`` of one process over a ``SimBucket``.

    What a process has sent arrives although it is stopped or dead by then.
    """

    def __init__(self, bucket: SimBucket, process: SimProcess, weather: Callable[[], StoreWeather]) -> None:
        self._bucket = bucket
        self._process = process
        self._weather = weather
        self._loop = bucket.loop
        #: The way to the store is cut: calls fail, and what was sent does not arrive.
        self.cut = False

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        found: StoredObject | None = await self._plain("get", key)
        return found

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        found: bytes | None = await self._plain("get_range", key, start, length)
        return found

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects in one go; each may fail by itself."""
        weather, rng = self._weather(), self._loop.rng
        if not keys:
            return []
        await self._travel(weather)
        found: list[StoredObject | Exception | None] = []
        for key in keys:
            if self.cut or rng.random() < weather.failure:
                found.append(_unavailable("get_many", key))
            else:
                found.append(await self._bucket.objects.get(key))
        await self._travel(weather)
        return found

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        etag: str = await self._plain("put", key, body)
        return etag

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._plain("delete", key)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        return await self._conditional("put_if_absent", key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        return await self._conditional("put_if_match", key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order."""
        weather, rng = self._weather(), self._loop.rng
        await self._travel(weather)
        if self.cut or rng.random() < weather.failure:
            raise _unavailable("list", prefix)
        horizon = self._loop.time()
        if weather.stale_listing and rng.random() < weather.stale_listing:
            horizon -= rng.uniform(0, weather.stale)
        async for page in self._bucket.objects.list(prefix, start_after=start_after):
            shown = [meta for meta in page if self._bucket.created.get(meta.key, 0.0) <= horizon]
            if shown:
                yield shown
            await self._travel(weather)

    async def close(self) -> None:
        """Nothing to give back."""

    async def _travel(self, weather: StoreWeather) -> None:
        await asyncio.sleep(self._leg(weather))

    def _leg(self, weather: StoreWeather) -> float:
        rng = self._loop.rng
        if weather.slow_rate and rng.random() < weather.slow_rate:
            return rng.uniform(*weather.slow)
        return rng.uniform(*weather.latency) / 2

    async def _plain(self, kind: str, key: str, *args: Any) -> Any:
        weather, rng = self._weather(), self._loop.rng
        fails = self.cut or (weather.failure > 0 and rng.random() < weather.failure)
        if fails:
            if kind in ("put", "delete") and not self.cut and rng.random() < 0.5:
                await self._send(kind, key, args, self._leg(weather), answer=False)
            await self._travel(weather)
            raise _unavailable(kind, key)
        return await self._send(kind, key, args, self._leg(weather))

    async def _conditional(self, kind: str, key: str, *args: Any) -> PutOutcome:
        weather, rng = self._weather(), self._loop.rng
        leg = self._leg(weather)
        if self.cut:
            await self._travel(weather)
            return PutOutcome(state=PutState.UNKNOWN, detail="cut off")
        chance = rng.random()
        for fault in ("vanishes", "landed_unknown", "landed_late", "landed_lost", "conflict", "raises"):
            rate = getattr(weather, fault)
            if chance < rate:
                return await self._faulty(fault, kind, key, args, leg, weather)
            chance -= rate
        outcome: PutOutcome = await self._send(kind, key, args, leg)
        return outcome

    async def _faulty(
        self, fault: str, kind: str, key: str, args: tuple[Any, ...], leg: float, weather: StoreWeather
    ) -> PutOutcome:
        rng = self._loop.rng
        if fault == "landed_late":
            await self._send(kind, key, args, leg + rng.uniform(*weather.late), answer=False)
        elif fault in ("landed_unknown", "landed_lost") or (fault == "raises" and rng.random() < 0.5):
            await self._send(kind, key, args, leg)
            if fault == "landed_lost":
                return PutOutcome(state=PutState.LOST, detail="sent twice by the client library")
        await self._travel(weather)
        if fault == "raises":
            raise _unavailable(kind, key)
        return PutOutcome(state=PutState.UNKNOWN, detail=fault)

    async def _send(self, kind: str, key: str, args: tuple[Any, ...], leg: float, *, answer: bool = True) -> Any:
        """Have the world carry the operation out after one leg; wait for the answer after another."""
        future = self._loop.create_future()
        back = self._leg(self._weather()) if answer else 0.0

        def arrive() -> None:
            # The dictionary below never waits: this coroutine ends in one step.
            result = _finish(self._bucket.act(kind, key, args, self._process.incarnation))
            if answer:
                self._loop.after(back, reply, result)

        def reply(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        self._loop.after(leg, arrive)
        return await future if answer else None


def _finish(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("an operation on the dictionary waited")


def _unavailable(kind: str, key: str) -> UnavailableError:
    return UnavailableError("the store does not answer", reason="STORE_UNAVAILABLE", kind=kind, key=key)

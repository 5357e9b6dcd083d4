"""Contenders, crashes and a faulty store: tokens only rise, and leases of honest clocks never overlap."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded by Hypothesis

from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.bucket import layout
from brainy.errors import FencedError, LeaseHeldError, OutcomeUnknownError, UnavailableError
from brainy.ids import Ids
from brainy.locks.base import Grant
from brainy.locks.object_store import ObjectStoreLocks
from brainy.locks.record import LockRecord
from brainy.store.base import PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock

TTL = 6.0


class UnreliableStore(MemoryStore):
    """Conditional writes stay atomic; whether they arrive, when, and what is answered is left to chance."""

    def __init__(self, rng: random.Random, rate: float, clock: ManualClock) -> None:
        super().__init__(clock)
        self.rng = rng
        self.rate = rate
        self.clock = clock
        self.late: list[asyncio.Task[None]] = []
        #: Every version of the lock, in order.
        self.history: list[LockRecord] = []

    async def get(self, key: str) -> StoredObject | None:
        await self.travel()
        if self.rng.random() < self.rate / 2:
            raise UnavailableError("slow down")
        return await super().get(key)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        return await self.conditional(key, body, None)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        return await self.conditional(key, body, etag)

    async def conditional(self, key: str, body: bytes, etag: str | None) -> PutOutcome:
        await self.travel()
        if self.rng.random() >= self.rate:
            outcome = await self.land(key, body, etag)
            await self.travel()
            return outcome
        fault = self.rng.randrange(5)
        if fault == 0:
            return PutOutcome(state=PutState.UNKNOWN)
        if fault == 1:
            self.late.append(asyncio.create_task(self.land_late(key, body, etag)))
            return PutOutcome(state=PutState.UNKNOWN)
        await self.land(key, body, etag)
        await self.travel()
        if fault == 2:
            return PutOutcome(state=PutState.UNKNOWN)
        if fault == 3:
            return PutOutcome(state=PutState.LOST)
        raise UnavailableError("connection reset")

    async def travel(self) -> None:
        if self.rng.random() < 0.3:
            await self.clock.sleep(self.rng.uniform(0.01, 0.5))

    async def land_late(self, key: str, body: bytes, etag: str | None) -> None:
        await self.clock.sleep(self.rng.uniform(0.1, 20))
        await self.land(key, body, etag)

    async def land(self, key: str, body: bytes, etag: str | None) -> PutOutcome:
        if etag is None:
            outcome = await super().put_if_absent(key, body)
        else:
            outcome = await super().put_if_match(key, body, etag)
        if outcome.won:
            self.history.append(LockRecord.decode(body, key=key))
        return outcome


class Watchdog:
    """Sees every lease while its holder believes in it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.believing: dict[int, Grant] = {}
        self.tokens: list[int] = []

    def begins(self, grant: Grant) -> None:
        assert grant.token not in self.tokens, "a token was granted twice"
        self.tokens.append(grant.token)
        self.renewed(grant)

    def renewed(self, grant: Grant) -> None:
        now = self.clock.monotonic()
        others = [g for g in self.believing.values() if g.token != grant.token and now < g.deadline]
        assert now >= grant.deadline or others == [], "two leases overlap"
        self.believing[grant.token] = grant

    def ends(self, grant: Grant) -> None:
        self.believing.pop(grant.token, None)


async def contender(name: str, store: UnreliableStore, clock: ManualClock, watchdog: Watchdog, rounds: int) -> None:
    rng = store.rng
    locks = ObjectStoreLocks(store, clock, Ids(rng))
    for life in range(rounds):
        try:
            grant = await locks.acquire(
                "x", owner=name, incarnation=str(life), ttl_seconds=TTL, wait_until=clock.monotonic() + 500
            )
        except (LeaseHeldError, OutcomeUnknownError, UnavailableError):
            continue
        watchdog.begins(grant)
        try:
            for _ in range(rng.randrange(4)):
                await clock.sleep(rng.uniform(0, TTL / 2))
                grant = await locks.renew(grant)
                watchdog.renewed(grant)
            if rng.random() < 0.4:  # crash: nobody releases, and a new process knows nothing
                locks = ObjectStoreLocks(store, clock, Ids(rng))
                continue
            watchdog.ends(grant)
            await locks.release(grant)
        except (FencedError, OutcomeUnknownError, UnavailableError):
            watchdog.ends(grant)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), contenders=st.integers(2, 4), rate=st.sampled_from([0.0, 0.2, 0.4]))
def test_leases_exclude_and_tokens_rise(seed: int, contenders: int, rate: float) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        store = UnreliableStore(random.Random(seed), rate, clock)
        watchdog = Watchdog(clock)
        tasks = [
            asyncio.create_task(contender(f"c{number}", store, clock, watchdog, rounds=4))
            for number in range(contenders)
        ]
        while not all(task.done() for task in tasks):
            await clock.advance(20)
        for task in tasks:
            task.result()
        await clock.advance(30)
        await asyncio.gather(*store.late)
        if rate == 0.0:
            assert len(watchdog.tokens) == contenders * 4
        epochs = [record.epoch for record in store.history]
        assert epochs == sorted(epochs)
        assert set(watchdog.tokens) <= set(epochs)
        # A version is a new grant exactly when the epoch rises, and then by one.
        for before, after in zip(store.history, store.history[1:], strict=False):
            same = (after.owner, after.incarnation) == (before.owner, before.incarnation)
            assert after.epoch == before.epoch + 1 or (after.epoch == before.epoch and same)
        assert (await MemoryStore.get(store, layout.lock("x"))) is not None

    asyncio.run(scenario())

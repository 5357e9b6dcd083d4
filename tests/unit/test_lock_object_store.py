"""What only an object store can do wrong to a lock: lies about writes, records gone or unreadable."""

from __future__ import annotations

import asyncio

import pytest

from brainy.bucket import layout
from brainy.errors import (
    CorruptDataError,
    FencedError,
    LeaseHeldError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.locks.object_store import ObjectStoreLocks
from brainy.store.base import PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock


async def take(locks: LockProvider, owner: str, *, name: str = "index/shard-3", ttl: float = 10.0) -> Grant:
    return await locks.grant(name, owner=owner, incarnation=f"{owner}-1", ttl_seconds=ttl, purpose="test")


class LyingStore(MemoryStore):
    """Conditional PUTs whose answers go wrong as told: landed or not, and what is said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[bool, PutState | None]] = []
        self.reads_fail = 0
        self.puts = 0

    async def get(self, key: str) -> StoredObject | None:
        if self.reads_fail:
            self.reads_fail -= 1
            raise UnavailableError("away")
        return await super().get(key)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self.puts += 1
        landed, answer = self.script.pop(0) if self.script else (True, None)
        outcome = await super().put_if_absent(key, body) if landed else PutOutcome(state=PutState.LOST)
        return outcome if answer is None else PutOutcome(state=answer)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        self.puts += 1
        landed, answer = self.script.pop(0) if self.script else (True, None)
        outcome = await super().put_if_match(key, body, etag) if landed else PutOutcome(state=PutState.LOST)
        return outcome if answer is None else PutOutcome(state=answer)


LIES = [(True, PutState.UNKNOWN), (True, PutState.LOST)]


@pytest.mark.parametrize("lie", LIES)
async def test_a_landed_write_is_found_by_reading_back(lie: tuple[bool, PutState]) -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [lie]
    grant = await take(locks, "a")
    store.script = [lie]
    grant = await locks.renew(grant)
    store.script = [lie]
    await locks.release(grant)
    assert store.puts == 3
    assert (await take(locks, "b")).token == 2


async def test_a_write_that_did_not_arrive_is_sent_again_with_one_token() -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [(False, PutState.UNKNOWN)] * 3
    task = asyncio.create_task(take(locks, "a"))
    await clock.advance(5)
    grant = await task
    assert grant.token == 1
    # The lease counts from the first send, not from the one that landed.
    assert grant.deadline < clock.monotonic() + 5


async def test_an_outcome_that_stays_unknown_is_said() -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [(False, PutState.UNKNOWN)] * 1000
    task = asyncio.create_task(take(locks, "a"))
    await clock.advance(30)
    with pytest.raises(OutcomeUnknownError):
        await task


async def test_an_unreachable_store_grants_nothing() -> None:
    store, clock = LyingStore(), ManualClock()
    store.reads_fail = 1
    with pytest.raises(UnavailableError):
        await take(ObjectStoreLocks(store, clock, Ids()), "a")
    assert store.puts == 0


async def test_a_record_that_cannot_be_read_is_never_overwritten() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    await store.put(layout.lock("x"), b"{")
    with pytest.raises(CorruptDataError):
        await take(locks, "a", name="x")
    await store.put(layout.lock("x"), b'{"format_version": 2}')
    for force in (False, True):
        with pytest.raises(PreconditionError) as caught:
            await locks.grant("x", owner="a", incarnation="1", ttl_seconds=10, force=force)
        assert caught.value.reason == "UNSUPPORTED_FORMAT"


async def test_a_deleted_record_is_noticed_and_does_not_lower_the_token() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    grant = await take(locks, "a", name="x")
    await store.delete(layout.lock("x"))
    with pytest.raises(FencedError):
        await locks.renew(grant)
    assert (await take(locks, "b", name="x")).token == 2


async def test_every_write_changes_the_etag() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    etags = set()
    for _ in range(3):
        grant = await take(locks, "a", name="x")
        etags.add((await store.get(layout.lock("x"))).etag)  # type: ignore[union-attr]
        await locks.release(grant)
        etags.add((await store.get(layout.lock("x"))).etag)  # type: ignore[union-attr]
    assert len(etags) == 6


async def test_patience_counts_from_first_sight() -> None:
    store, clock = MemoryStore(), ManualClock()
    await take(ObjectStoreLocks(store, clock, Ids()), "a")
    await clock.advance(1000)
    newcomer = ObjectStoreLocks(store, clock, Ids())
    with pytest.raises(LeaseHeldError):
        await take(newcomer, "b")
    await clock.advance(11.1)
    assert (await take(newcomer, "b")).token == 2


async def test_a_release_that_landed_is_not_called_lost_because_another_came_next() -> None:
    store, clock = LyingStore(), ManualClock()
    locks, other = ObjectStoreLocks(store, clock, Ids()), ObjectStoreLocks(store, clock, Ids())
    grant = await take(locks, "a")

    class Next(LyingStore):
        """Lands the release, says nothing of it, and lets another take the lock before the read-back."""

        async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
            await store.put_if_match(key, body, etag)
            await take(other, "b")
            return PutOutcome(state=PutState.UNKNOWN)

        async def get(self, key: str) -> StoredObject | None:
            return await store.get(key)

    await ObjectStoreLocks(Next(), clock, Ids()).release(grant)
    state = await other.describe(grant.name)
    assert state is not None
    assert (state.owner, state.token, state.held) == ("b", 2, True)


async def test_reserved_tokens_lie_between_what_was_and_what_will_be_granted() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    grant = await take(locks, "a", name="x")
    with pytest.raises(LeaseHeldError):
        await ObjectStoreLocks(store, clock, Ids()).reserve("x", count=10, floor=0, owner="r", block="b1")
    await locks.release(grant)
    assert await locks.reserve("x", count=10, floor=0, owner="r", block="b1") == 11
    assert await locks.reserve("x", count=10, floor=50, owner="r", block="b2") == 60
    state = await locks.describe("x")
    assert state is not None
    assert (state.held, state.owner, state.incarnation) == (False, "r", "b2")
    assert (await take(locks, "a", name="x")).token == 61

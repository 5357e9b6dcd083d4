"""Brainy's own lock: respected, taken in its form, cleared only when provably stale."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from brainy.errors import FencedError, LeaseHeldError, UnavailableError
from brainy.ids import Ids
from brainy.legacy.inspection import inspect
from brainy.legacy.statistics_lock import KEY, LEASE_SECONDS, State, StatisticsLock
from brainy.samples import sample_objects
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy.testing.fixtures import load_fixture

#: What Brainy 0.27 and later leave behind.
HOLDER = b"1699999990000_0.4821_4711"


class Bucket:
    """A store with a clock of its own, and a process whose clocks may differ."""

    def __init__(self) -> None:
        self.store_clock = ManualClock()
        self.clock = ManualClock(wall=86_400.0)  # ours is fifty years behind
        self.memory = MemoryStore(self.store_clock)
        self.store = FaultyStore(self.memory)
        self.lock = StatisticsLock(self.store, clock=self.clock, ids=Ids())

    async def brainy_takes_it(self, *, ahead: float = 0.0, lease: float = LEASE_SECONDS) -> None:
        expires = round((self.store_clock.wall() + ahead + lease) * 1000)
        await self.memory.put(KEY, HOLDER, user_metadata={"expires-at": str(expires), "lock-value": HOLDER.decode()})

    async def run(self, seconds: float) -> None:
        await self.store_clock.advance(seconds)
        await self.clock.advance(seconds)

    async def keys(self) -> list[str]:
        return [meta.key async for page in self.memory.list("") for meta in page]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


async def test_nothing_there(bucket: Bucket) -> None:
    assert (await bucket.lock.observe()).state is State.ABSENT
    assert not await bucket.lock.clear()
    assert await bucket.keys() == []


@pytest.mark.parametrize("marks", [{}, {"expires-at": ""}, {"expires-at": "soon"}, {"expires-at": "9" * 16}])
async def test_a_lock_that_names_no_time_is_free(bucket: Bucket, marks: dict[str, str]) -> None:
    await bucket.memory.put(KEY, HOLDER, user_metadata=marks)
    assert (await bucket.lock.observe()).state is State.FREE
    assert not await bucket.lock.clear()


async def test_a_live_lock_is_respected(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()
    seen = await bucket.lock.observe()
    assert (seen.state, seen.holder) == (State.LIVE, HOLDER.decode())
    with pytest.raises(LeaseHeldError) as caught:
        async with bucket.lock.hold():
            pass
    assert caught.value.fields["holder"] == HOLDER.decode()
    assert not await bucket.lock.clear()
    found = await bucket.memory.get(KEY)
    assert found is not None
    assert found.body == HOLDER
    assert await bucket.keys() == [KEY]


@pytest.mark.parametrize("ahead", [0.0, 600.0, -600.0])
async def test_a_lock_is_given_its_time_whatever_the_clock_of_its_writer(bucket: Bucket, ahead: float) -> None:
    await bucket.brainy_takes_it(ahead=ahead)
    await bucket.run(LEASE_SECONDS)
    assert (await bucket.lock.observe()).state is State.LIVE
    await bucket.run(620)
    assert (await bucket.lock.observe()).state is State.OVER


async def test_our_own_wall_clock_plays_no_part(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()
    bucket.clock.jump_wall(1e9)
    assert (await bucket.lock.observe()).state is State.LIVE


async def test_a_stale_lock_is_cleared_after_a_second_look(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()
    await bucket.run(60)
    clearing = asyncio.create_task(bucket.lock.clear())
    await bucket.clock.wait_for_sleepers()
    assert (await bucket.lock.observe()).state is State.OVER
    await bucket.run(LEASE_SECONDS)
    assert await clearing
    # Brainy takes one without expires-at for free.
    found = await bucket.memory.get(KEY)
    assert found is not None
    assert "expires-at" not in found.user_metadata
    assert (await bucket.lock.observe()).state is State.FREE
    assert await bucket.keys() == [KEY]


async def _taken_while_waiting(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()


async def _stale_again_but_another(bucket: Bucket) -> None:
    await bucket.memory.put(KEY, b"other", user_metadata={"expires-at": "1"})
    await bucket.store_clock.advance(120)


@pytest.mark.parametrize("meanwhile", [_taken_while_waiting, _stale_again_but_another])
async def test_a_lock_that_changes_between_the_looks_stays(bucket: Bucket, meanwhile: Callable[..., object]) -> None:
    await bucket.brainy_takes_it()
    await bucket.run(60)
    clearing = asyncio.create_task(bucket.lock.clear())
    await bucket.clock.wait_for_sleepers()
    await meanwhile(bucket)  # type: ignore[misc]
    before = await bucket.memory.get(KEY)
    await bucket.clock.advance(LEASE_SECONDS)
    assert not await clearing
    assert await bucket.memory.get(KEY) == before


async def test_a_lock_taken_at_the_last_moment_stays(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()
    await bucket.run(60)
    gate = asyncio.Event()
    bucket.store.plan(kind="put_if_match", gate=gate)
    clearing = asyncio.create_task(bucket.lock.clear())
    await bucket.clock.wait_for_sleepers()
    await bucket.run(LEASE_SECONDS)
    await bucket.memory.put(KEY, b"brainy came back", user_metadata={"expires-at": "9999999999999"})
    gate.set()
    assert not await clearing
    found = await bucket.memory.get(KEY)
    assert found is not None
    assert found.body == b"brainy came back"


async def test_taken_in_brainys_form_and_removed_again(bucket: Bucket) -> None:
    async with bucket.lock.hold() as held:
        found = await bucket.memory.get(KEY)
        assert found is not None
        assert re.fullmatch(rb"\d{13}_0\.\d+(e-\d+)?_\d+", found.body)
        assert found.user_metadata["lock-value"] == found.body.decode()
        expires = int(found.user_metadata["expires-at"]) / 1000
        assert expires == pytest.approx(bucket.store_clock.wall() + LEASE_SECONDS, abs=0.01)
        await held.check()
        assert (await bucket.lock.observe()).state is State.LIVE
    assert await bucket.keys() == []


async def test_overwritten_by_brainy_it_is_neither_ours_nor_removed(bucket: Bucket) -> None:
    async with bucket.lock.hold() as held:
        await bucket.brainy_takes_it()
        with pytest.raises(FencedError):
            await held.check()
    found = await bucket.memory.get(KEY)
    assert found is not None
    assert found.body == HOLDER


async def test_held_too_long_it_is_left_for_brainy_to_overwrite(bucket: Bucket) -> None:
    async with bucket.lock.hold() as held:
        await bucket.run(LEASE_SECONDS - 1)
        with pytest.raises(FencedError):
            await held.check()
    assert await bucket.keys() == [KEY]


async def test_a_store_that_does_not_answer_clears_nothing(bucket: Bucket) -> None:
    await bucket.brainy_takes_it()
    await bucket.run(60)
    bucket.store.plan(fault=Fault.UNAVAILABLE, times=-1)
    with pytest.raises(UnavailableError):
        await bucket.lock.clear()
    bucket.store.heal()
    assert (await bucket.lock.observe()).state is State.OVER


async def test_the_lock_of_a_recorded_bucket(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, durable=False)
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    clock = ManualClock()
    lock = StatisticsLock(store, clock=clock, ids=Ids())
    recorded = [meta.key async for page in store.list("locks/") for meta in page]
    found = await inspect(store, clock=clock)
    assert [one.key for one in found.locks] == recorded
    seen = await lock.observe()
    if recorded:
        # Just copied, hence written a moment ago by the store's clock, though it expired when it was recorded.
        assert (seen.state, seen.holder) == (State.LIVE, found.locks[0].holder)
    else:
        assert seen.state is State.ABSENT


@pytest.fixture
def recorded(recorded_buckets: Path) -> list[Path]:
    return sorted(path.parent for path in recorded_buckets.glob("*/objects.jsonl.gz"))


async def test_locks_of_every_recorded_bucket_can_be_read(recorded: list[Path]) -> None:
    read = 0
    for place in recorded:
        store = MemoryStore(ManualClock())
        await load_fixture(store, place, key_prefix="locks/")
        seen = await StatisticsLock(store, clock=ManualClock(), ids=Ids()).observe()
        if seen.state is not State.ABSENT:
            assert seen.expires_at_ms is not None
            assert re.fullmatch(r"\d{13}_0\.\d+(e-\d+)?_\d+", seen.holder)
            read += 1
    assert read

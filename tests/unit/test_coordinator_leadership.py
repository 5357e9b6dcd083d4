"""One leads; it stops in time; the next one's epoch is higher."""

from __future__ import annotations

import asyncio

import pytest

from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.locks.object_store import ObjectStoreLocks
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy_coordinator.leadership import Leadership

LEASE = 9.0


class Candidate:
    def __init__(self, name: str, store: MemoryStore, clock: ManualClock) -> None:
        self.store = FaultyStore(store, clock=clock)
        self.leadership = Leadership(
            ObjectStoreLocks(self.store, clock, Ids()),
            coordinator_id=name,
            address=f"{name}:7070",
            lease_seconds=LEASE,
            clock=clock,
            ids=Ids(),
        )
        self.task = asyncio.create_task(self.leadership.run())

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def pass_time(clock: ManualClock, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        await clock.advance(0.25)


async def test_one_leads_and_the_others_name_it() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    one = Candidate("one", store, clock)
    await pass_time(clock, 0.5)
    two = Candidate("two", store, clock)
    await pass_time(clock, 3 * LEASE)
    assert one.leadership.is_leader
    assert not two.leadership.is_leader
    with pytest.raises(UnavailableError) as refused:
        two.leadership.epoch()
    assert refused.value.reason == "NOT_LEADER"
    assert refused.value.fields == {"leader": "one", "address": "one:7070"}
    assert two.leadership.leader_epoch == one.leadership.epoch()
    await one.die()
    await two.die()


async def test_a_dead_leader_is_followed_with_a_higher_epoch() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    one = Candidate("one", store, clock)
    await pass_time(clock, 0.5)
    first = one.leadership.epoch()
    two = Candidate("two", store, clock)
    await pass_time(clock, 1)
    await one.die()
    waiting = asyncio.create_task(two.leadership.until(True))
    await pass_time(clock, 2 * LEASE)
    await asyncio.wait_for(waiting, 1)
    assert two.leadership.epoch() > first
    # The dead one, were it to wake, knows by its own clock that it must not act.
    assert not one.leadership.is_leader
    with pytest.raises(UnavailableError):
        one.leadership.epoch()
    await two.die()


async def test_a_resigned_leader_is_followed_without_waiting_for_the_lease() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    one = Candidate("one", store, clock)
    await pass_time(clock, 0.5)
    two = Candidate("two", store, clock)
    await pass_time(clock, 0.5)
    await one.die()
    await one.leadership.resign()
    await one.leadership.resign()
    await pass_time(clock, 2.5)
    assert two.leadership.is_leader
    await two.die()


async def test_a_leader_cut_off_from_the_store_stops_before_another_can_start() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    one = Candidate("one", store, clock)
    await pass_time(clock, 0.5)
    two = Candidate("two", store, clock)
    await pass_time(clock, 0.5)
    one.store.plan(fault=Fault.UNAVAILABLE, times=-1)
    both = 0
    for _ in range(int(3 * LEASE * 4)):
        await clock.advance(0.25)
        both += one.leadership.is_leader and two.leadership.is_leader
    assert both == 0
    assert two.leadership.is_leader
    one.store.heal()
    await pass_time(clock, LEASE)
    assert not one.leadership.is_leader
    await one.die()
    await two.die()


async def test_surrender_stops_at_once() -> None:
    clock = ManualClock()
    one = Candidate("one", MemoryStore(clock), clock)
    await pass_time(clock, 0.5)
    lost = asyncio.create_task(one.leadership.until(False))
    one.leadership.surrender("fenced")
    await asyncio.wait_for(lost, 1)
    with pytest.raises(UnavailableError):
        one.leadership.epoch()
    await one.die()

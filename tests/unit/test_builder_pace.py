"""The pace of a builder's job: turns, and rates that change while somebody waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from brainy.clock import SystemClock
from brainy_node.builder.pace import Pace
from brainy_node.builder.rates import Rates


class Hands:
    """A clock whose sleepers move it."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


async def test_without_a_rate_nobody_waits():
    clock = Hands()
    pace = Pace(clock)
    for _ in range(100):
        await pace.turn(10_000)
    assert clock.now == 50.0
    assert pace.portion(2048) == 2048


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_turns_keep_to_the_rate_whatever_their_size(size):
    clock = Hands()
    pace = Pace(clock)
    pace.set(500.0)
    taken = 0
    while taken < 5000:
        await pace.turn(size)
        taken += size
    # The last portion is not paid for yet.
    assert clock.now - 50.0 == pytest.approx((taken - size) / 500.0, rel=0.01)


async def test_a_rate_that_is_raised_counts_for_who_waits_already():
    clock = Hands()
    pace = Pace(clock)
    pace.set(1.0)
    await pace.turn(1000)
    waiting = asyncio.create_task(pace.turn(1))
    await asyncio.sleep(0)
    pace.set(10_000.0)
    await waiting
    assert clock.now - 50.0 < 1.0


async def test_at_zero_everybody_stands_until_it_is_raised():
    clock = Hands()
    pace = Pace(clock)
    pace.set(0.0)
    waiting = asyncio.create_task(pace.turn(1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    pace.set(None)
    await waiting


def test_a_thread_that_stands_is_woken_by_a_new_rate():
    pace = Pace(SystemClock())
    pace.set(0.0)
    passed = threading.Event()

    def work() -> None:
        pace.turn_in_thread(10)
        passed.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert not passed.wait(0.05)
    pace.set(100.0)
    assert passed.wait(60.0)
    thread.join(60.0)


def test_portions_are_small_where_the_rate_is():
    pace = Pace(SystemClock())
    pace.set(10.0)
    assert pace.portion(2048) == 32
    assert pace.portion(5) == 5
    pace.set(8000.0)
    assert pace.portion(2048) == 800


async def test_a_reader_of_rates_sees_the_last_one():
    rates = Rates()
    changes = rates.changes()
    assert await anext(changes) is None
    rates.set(5.0)
    rates.set(7.0)
    assert await anext(changes) == 7.0
    again = asyncio.ensure_future(anext(changes))
    rates.set(7.0)
    await asyncio.sleep(0)
    assert not again.done()
    rates.set(None)
    assert await again is None

"""The loop itself: virtual time, one order, processes that stop and die."""

from __future__ import annotations

import asyncio

import pytest

from brainy.testing.loop import SimLoop, StuckError, simulate
from brainy.testing.process import SimProcess


def play(seed: int) -> tuple[list[str], float]:
    seen: list[str] = []

    async def scenario(loop: SimLoop) -> None:
        ready = asyncio.Condition()

        async def worker(name: str) -> None:
            for _ in range(5):
                await asyncio.sleep(1.0)
                await asyncio.to_thread(seen.append, name)
                async with ready:
                    ready.notify_all()

        async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(worker(f"w{number}"))
            async with ready:
                await ready.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await loop.create_future()
        seen.append(f"{loop.time():.6f}")

    simulate(seed, scenario)
    return seen, float(seen[-1])


def test_time_is_virtual_and_the_seed_decides() -> None:
    first, elapsed = play(7)
    assert elapsed > 86_400
    assert play(7)[0] == first
    assert play(8)[0] != first
    assert sorted(first[:-1]) == sorted(f"w{n}" for n in range(6) for _ in range(5))


def test_tasks_that_wait_for_each_other_are_reported() -> None:
    async def scenario(loop: SimLoop) -> None:
        await loop.create_future()

    with pytest.raises(StuckError):
        simulate(1, scenario)


async def count(into: list[float], loop: SimLoop) -> None:
    while True:
        into.append(loop.time())
        await asyncio.sleep(1)


def test_a_stopped_process_does_not_run_though_its_time_goes_on() -> None:
    async def scenario(loop: SimLoop) -> None:
        ticks: list[float] = []
        process = SimProcess(loop, "p")
        process.spawn(count(ticks, loop))
        await asyncio.sleep(2.5)
        before = process.clock.monotonic()
        process.stop()
        await asyncio.sleep(60)
        assert len(ticks) == 3
        assert process.clock.monotonic() - before == pytest.approx(60, abs=0.1)
        process.go_on()
        await asyncio.sleep(0.1)
        assert len(ticks) == 4
        assert ticks[-1] == pytest.approx(62.5, abs=0.01)

    simulate(1, scenario)


def test_a_killed_process_runs_nothing_more_not_even_what_clears_up() -> None:
    cleared: list[str] = []

    async def scenario(loop: SimLoop) -> None:
        async def work() -> None:
            try:
                await asyncio.sleep(5)
                cleared.append("worked")
            finally:
                if loop.time() < 100:
                    cleared.append("cleared")

        process = SimProcess(loop, "p")
        process.spawn(work())
        await asyncio.sleep(1)
        process.kill()
        process.go_on()
        await asyncio.sleep(100)
        assert cleared == []

    simulate(1, scenario)


def test_clocks_differ_in_rate_and_can_be_set() -> None:
    async def scenario(loop: SimLoop) -> None:
        fast, slow = SimProcess(loop, "fast", rate=1.04), SimProcess(loop, "slow", rate=0.96)
        starts = [p.clock.monotonic() for p in (fast, slow)]
        wall = fast.clock.wall()
        fast.clock.jump_wall(-3600)
        await fast.clock.sleep(104)
        assert loop.time() == pytest.approx(100, abs=0.01)
        assert fast.clock.monotonic() - starts[0] == pytest.approx(104, abs=0.01)
        assert slow.clock.monotonic() - starts[1] == pytest.approx(96, abs=0.01)
        assert fast.clock.wall() == pytest.approx(wall - 3600 + 104, abs=0.01)
        assert fast.clock.at(starts[0] + 52) == pytest.approx(50, abs=0.01)

    simulate(1, scenario)

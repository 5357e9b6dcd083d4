"""Whose word a node's copies follow: a pause, a rate that was set, or what its searches and the store bear."""

from __future__ import annotations

import asyncio

from brainy.api.node.v1 import copy_pb2
from brainy.rpc.metrics import RpcMetrics
from brainy_node.builder.job import Progress
from brainy_node.runtime.copy_throttle import CopyCounts, CopyThrottle
from brainy_node.runtime.foreground import SEARCHES, Foreground


class Steps:
    """A clock that moves when it is told to, and wakes those who sleep."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            await asyncio.sleep(0)

    async def forward(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            for _ in range(10):
                await asyncio.sleep(0)


class Store:
    repeats = 0


def order(generation: int, **more: object) -> copy_pb2.CopyOrder:
    return copy_pb2.CopyOrder(namespace="n", generation=generation, **more)  # type: ignore[arg-type]


def setting() -> tuple[Steps, Foreground, Store, CopyThrottle]:
    clock, store = Steps(), Store()
    foreground = Foreground(clock)
    throttle = CopyThrottle(foreground=foreground, store_repeats=lambda: store.repeats, floor=100.0, clock=clock)
    return clock, foreground, store, throttle


async def test_orders_come_before_what_the_node_would_do_by_itself() -> None:
    clock, _, _, throttle = setting()
    throttle.order([order(3, items_per_second=70.0)])
    async with throttle.job(3) as rates, throttle.job(4) as other:
        assert (rates.current, throttle.message(3).reason) == (70.0, "set")
        assert (other.current, throttle.message(4).reason) == (None, "")
        assert not throttle.message(4).HasField("limit")
        throttle.order([order(3, items_per_second=70.0, paused=True)])
        assert (rates.current, throttle.message(3).reason) == (0.0, "paused")
        await clock.forward(30)
        assert rates.current == 0.0
        throttle.order([])
        assert rates.current is None
    assert throttle.message(3) == copy_pb2.Copying()


async def test_searches_of_the_node_hold_its_copy_back() -> None:
    clock, foreground, store, throttle = setting()
    metrics = RpcMetrics()
    foreground.listen(metrics)

    async def seconds(count: int, latency: float) -> None:
        for _ in range(count):
            for _ in range(50):
                metrics.of(SEARCHES[0]).observe(latency)
            await clock.forward(1)

    await seconds(10, 0.004)
    async with throttle.job(3) as rates:
        counts = CopyCounts(throttle, 3)
        assert throttle.message(3).reason == "starting"
        done = 0
        for _ in range(3):
            done += int(rates.current or 0)
            counts.note(Progress(shard=0, stage="reading", done=done, total=0, resumed=0))
            await seconds(1, 0.004)
        before = rates.current
        assert before is not None
        assert before > 1000.0
        await seconds(4, 0.02)
        assert throttle.message(3).reason == "latency"
        assert rates.current is not None
        assert rates.current < before
        cut = rates.current
        await seconds(2, 0.004)
        store.repeats += 5
        await seconds(2, 0.004)
        assert throttle.message(3).reason == "store"
        assert 100.0 <= rates.current <= cut
        assert counts.message().stages[0].done == done
    # Another copy looks at its own minute.
    async with throttle.job(4) as rates:
        assert throttle.message(4).reason == "starting"


async def test_the_foreground_tells_whole_seconds_and_forgets() -> None:
    clock = Steps()
    foreground = Foreground(clock)
    for _ in range(3):
        foreground.observe(0.001)
    await clock.forward(1)
    foreground.observe(0.1)
    assert foreground.during(100.0, 101.0).total() == 3
    assert foreground.during(100.0, 102.0).total() == 4
    assert foreground.during(101.5, 102.2).total() == 1
    for _ in range(130):
        await clock.forward(1)
        foreground.observe(0.001)
    assert foreground.during(100.0, 102.0).total() == 0


def test_what_was_resumed_was_not_handled_by_this_copy() -> None:
    _, _, _, throttle = setting()
    counts = CopyCounts(throttle, 9)
    counts.note(Progress(shard=0, stage="reading", done=900, total=1000, resumed=700))
    message = counts.message()
    assert (message.resumed, message.stages[0].done, message.stages[0].total) == (700, 900, 1000)

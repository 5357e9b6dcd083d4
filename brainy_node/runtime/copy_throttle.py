"""Holding a node's copies to a rate: the coordinator's order, or what its searches and the store can bear.

An order comes with a heartbeat and counts until the next one says otherwise; a node that hears nothing goes on as told
last. ``paused`` stands still whatever else is said; a rate that somebody set is kept to, searches or no searches;
without either the ``copy_governor`` decides, once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from brainy.api.node.v1 import copy_pb2
from brainy.clock import Clock
from brainy.telemetry.logs import get_logger
from brainy_node.builder.job import Progress
from brainy_node.builder.rates import Rates
from brainy_node.runtime.copy_governor import Governor
from brainy_node.runtime.foreground import Foreground

_log = get_logger(__name__)
_SAMPLE_SECONDS: Final = 1.0
#: Before the copy: the searches of so long say what is usual.
_BEFORE_SECONDS: Final = 60.0


class _Job:
    def __init__(self, governor: Governor) -> None:
        self.governor = governor
        self.rates = Rates()
        self.reason = ""
        self.handled = 0
        self.holders = 0
        self.watch: asyncio.Task[None] | None = None


class CopyThrottle:
    """The copies of one namespace on one node."""

    def __init__(self, *, foreground: Foreground, store_repeats: Callable[[], int], floor: float, clock: Clock) -> None:
        self._foreground = foreground
        self._store_repeats = store_repeats
        self._floor = floor
        self._clock = clock
        self._orders: Mapping[int, copy_pb2.CopyOrder] = {}
        self._jobs: dict[int, _Job] = {}

    def order(self, orders: Iterable[copy_pb2.CopyOrder]) -> None:
        """Take the coordinator's orders for this namespace; what is not named may go as it can."""
        self._orders = {order.generation: order for order in orders}
        for generation in self._jobs:
            self._apply(generation)

    @asynccontextmanager
    async def job(self, generation: int) -> AsyncIterator[Rates]:
        """Hold a job to a rate for the length of the block; yields the rate.

        Jobs of one generation share it: only one of them runs at a time.
        """
        job = self._jobs.get(generation)
        if job is None:
            job = self._jobs[generation] = _Job(Governor(self._floor))
            now = self._clock.monotonic()
            job.governor.begin(now, self._foreground.during(now - _BEFORE_SECONDS, now))
            self._apply(generation)
            job.watch = asyncio.create_task(self._watch(generation, job))
        job.holders += 1
        try:
            yield job.rates
        finally:
            job.holders -= 1
            if not job.holders and job.watch is not None:
                job.watch.cancel()
                del self._jobs[generation]

    def handled(self, generation: int, items: int) -> None:
        """Count items that the copy into a generation has read or indexed."""
        if (job := self._jobs.get(generation)) is not None:
            job.handled += items

    def message(self, generation: int) -> copy_pb2.Copying:
        """Return how fast the copy into a generation may be, and why."""
        message = copy_pb2.Copying()
        if (job := self._jobs.get(generation)) is not None:
            message.reason = job.reason
            message.store_repeats = job.rates.store_repeats
            if job.rates.current is not None:
                message.limit = job.rates.current
        return message

    def _apply(self, generation: int) -> None:
        job, order = self._jobs[generation], self._orders.get(generation)
        rate, reason = job.governor.rate, job.governor.reason
        if order is not None and order.paused:
            rate, reason = 0.0, "paused"
        elif order is not None and order.HasField("items_per_second"):
            rate, reason = order.items_per_second, "set"
        if reason != job.reason:
            _log.info("copy_rate", generation=generation, items_per_second=rate, reason=reason)
        job.reason = reason
        job.rates.set(rate)

    async def _watch(self, generation: int, job: _Job) -> None:
        sampled = self._clock.monotonic()
        handled, repeats = job.handled, job.rates.store_repeats + self._store_repeats()
        while True:
            await self._clock.sleep(_SAMPLE_SECONDS)
            now = self._clock.monotonic()
            seen = job.rates.store_repeats + self._store_repeats()
            if job.reason in ("paused", "set"):
                job.governor.rest(now)
            else:
                job.governor.sample(
                    now,
                    searches=self._foreground.during(sampled, now),
                    handled=job.handled - handled,
                    store_repeats=seen - repeats,
                )
            sampled, handled, repeats = now, job.handled, seen
            self._apply(generation)


class CopyCounts:
    """Exact counts of the copy into one shard, by stage."""

    def __init__(self, throttle: CopyThrottle, generation: int) -> None:
        self._throttle = throttle
        self._generation = generation
        self._stages: dict[str, tuple[int, int]] = {}
        self._resumed = 0

    def note(self, progress: Progress) -> None:
        """Take what a builder says."""
        done, _ = self._stages.get(progress.stage, (progress.resumed, 0))
        self._throttle.handled(self._generation, max(0, progress.done - done))
        self._stages[progress.stage] = (progress.done, progress.total)
        self._resumed = max(self._resumed, progress.resumed)

    def message(self) -> copy_pb2.Copying:
        """Return counts and rate as heartbeats carry them."""
        message = self._throttle.message(self._generation)
        message.resumed = self._resumed
        for stage, (done, total) in self._stages.items():
            message.stages.add(stage=stage, done=done, total=total)
        return message

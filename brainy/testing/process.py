"""A simulated process: tasks that live, stop and die together, with a clock and chances of their own."""

from __future__ import annotations

import asyncio
import contextvars
import random  # noqa: TID251 - seeded from the simulation's own
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from brainy.ids import Ids
from brainy.testing.loop import PROCESS, SimLoop

_EPOCH_2024 = 1_704_067_200.0


class SimClock:
    """A process's clock: its rate is a little off, its wall time far off, and it can be set."""

    def __init__(self, loop: SimLoop, *, rate: float = 1.0, offset: float = 0.0, wall: float = _EPOCH_2024) -> None:
        self._loop = loop
        self._offset = offset
        self._wall = wall
        #: Seconds of this clock per virtual second.
        self.rate = rate

    def monotonic(self) -> float:
        """Seconds on this process's own clock; goes on while the process is stopped."""
        return self._offset + self._loop.time() * self.rate

    def wall(self) -> float:
        """What this process believes the time to be."""
        return self._wall + self._loop.time() * self.rate

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""
        await asyncio.sleep(seconds / self.rate)

    def at(self, monotonic: float) -> float:
        """Virtual instant at which this clock shows ``monotonic``."""
        return (monotonic - self._offset) / self.rate

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock, as an operator or NTP may."""
        self._wall += seconds


class SimProcess:
    """One life of one process.

    ``stop`` is SIGSTOP: nothing of it runs, time goes on, what was sent still arrives. ``kill`` is SIGKILL: it never
    runs again; not even ``finally`` blocks do.
    """

    def __init__(
        self, loop: SimLoop, name: str, *, incarnation: int = 1, rate: float = 1.0, wall_offset: float = 0.0
    ) -> None:
        self.loop = loop
        self.name = name
        self.incarnation = f"{name}.{incarnation}"
        self.rng = random.Random(f"{loop.seed}/{self.incarnation}")
        self.clock = SimClock(loop, rate=rate, offset=self.rng.uniform(0, 1e6), wall=_EPOCH_2024 + wall_offset)
        self.ids = Ids(self.rng)
        self.alive = True
        self.stopped = False
        self.stalled: deque[Any] = deque()
        #: Called when it dies, in the world's context.
        self.on_death: list[Callable[[], None]] = []
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of this process."""
        task = self.loop.create_task(coroutine, context=self._context.copy())
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None), context=self.loop.world)
        return task

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a plain function as this process."""
        return self._context.copy().run(function, *args)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        if self.alive and self.stopped:
            self.stopped = False
            stalled, self.stalled = self.stalled, deque()
            self.loop.goes_on(stalled)

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.alive = False
            self.stopped = True
            for callback in self.on_death:
                callback()

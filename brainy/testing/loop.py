"""An asyncio event loop in which time is a number and everything that happens is decided by one seed.

Real asyncio code (tasks, groups, timeouts, conditions, queues) runs on it unmodified:

* **Virtual time.** When nothing is ready, time jumps to the next timer. Nothing ever sleeps; if nothing is ready
  and no timer is set either, the simulation is stuck and ``StuckError`` says so.
* **Deterministic order.** Ready callbacks run in the order they became ready. Timers of the same instant run in
  an order drawn from the seed. Tasks and futures hash by the order of their creation, so that sets of them are
  walked in the same order in every run.
* **No threads.** ``run_in_executor`` and ``asyncio.to_thread`` run their function inline at a random later instant.
* **Processes.** A callback belongs to the process in whose context it was scheduled (``SimProcess``). A stopped
  process's callbacks wait until it goes on; a killed one's wait for ever, so a crash can hit at any await.

    def scenario(loop): ...            # a coroutine function
    result = simulate(seed, scenario)
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random  # noqa: TID251 - seeded; the one source of chance of a simulation
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Stoppable(Protocol):
    """What the loop needs to know of a process."""

    stopped: bool
    stalled: deque[Any]


#: The process whose code runs; None for the world itself (network, store, referee).
PROCESS: contextvars.ContextVar[Stoppable | None] = contextvars.ContextVar("simulated_process", default=None)

_TIE = 1e-6
_THREAD_SECONDS = (0.0005, 0.01)


class StuckError(Exception):
    """Nothing is ready and nothing ever will be: tasks wait for each other."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes by the order of creation."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], *, number: int, process: Stoppable | None, **rest: Any
    ) -> None:
        self._number = number
        #: The process it belongs to.
        self.process = process
        super().__init__(coroutine, **rest)

    def __hash__(self) -> int:
        return self._number


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by the order of creation."""

    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimLoop(base_events.BaseEventLoop):
    """See the module. ``rng`` is the world's source of chance; processes derive theirs from it."""

    _ready: deque[Any]
    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.rng = random.Random(seed)
        self._ties = random.Random(seed ^ 0x5EED)
        self._now = 0.0
        self._numbers = 0
        #: Tuples compare faster than handles do.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        #: Callbacks run so far.
        self.steps = 0
        #: The world's own context: what is scheduled in it belongs to no process.
        self.world = contextvars.Context()
        #: Errors of tasks that nobody looked at.
        self.unhandled: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def create_future(self) -> SimFuture:
        """Return a future that hashes by the order of creation."""
        self._numbers += 1
        return SimFuture(number=self._numbers, loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> SimTask:
        """Return a task that hashes by the order of creation."""
        self._numbers += 1
        process = PROCESS.get() if context is None else context.get(PROCESS)
        return SimTask(coro, number=self._numbers, process=process, loop=self, name=name, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Schedule; timers of one instant are put in an order drawn from the seed."""
        timer = events.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        heapq.heappush(self._timers, (when + self._ties.random() * _TIE, self._numbers, timer))
        return timer

    def after(self, seconds: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Let the world do something later, whatever becomes of the process that asked for it."""
        return self.call_at(self._now + seconds, callback, *args, context=self.world)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """There are no threads."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run the function inline, a little later."""
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except BaseException as error:
                future.set_exception(error)

        self.call_later(self.rng.uniform(*_THREAD_SECONDS), run)
        return future

    def goes_on(self, handles: Iterable[Any]) -> None:
        """Let the callbacks of a process that was stopped run now."""
        self._ready.extend(handles)

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready
        if not ready and not self._stopping:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise StuckError(f"nothing is ready and no timer is set at {self._now:.3f}")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle: Any = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and process.stopped:
                process.stalled.append(handle)
                continue
            self.steps += 1
            handle._run()

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""


def simulate(seed: int, scenario: Callable[[SimLoop], Coroutine[Any, Any, T]], *, clean_up: bool = True) -> T:
    """Run a scenario to its end on a loop of its own and bury what it leaves.

    The collector of cycles is off meanwhile: when it runs depends on more than the seed.

    Args:
        seed: decides everything.
        scenario: called with the loop; its coroutine runs as the world.
        clean_up: collect cycles afterwards; who runs many in a row does it now and then.
    """
    loop = SimLoop(seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(scenario(loop))
        finally:
            _bury(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        if collecting:
            gc.enable()
        if clean_up:
            gc.collect()


def _bury(loop: SimLoop) -> None:
    # Whatever was stopped or killed is cancelled like everything else, so that no coroutine is left half run.
    for task in asyncio.all_tasks(loop):
        if isinstance(task, SimTask):
            _revive(loop, task.process)
    for _, _, handle in loop._timers:
        context: Any = getattr(handle, "_context", None)
        _revive(loop, context.get(PROCESS) if context is not None else None)

    async def gather() -> None:
        for _ in range(8):
            rest = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
            if not rest:
                return
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=3600)

    loop.run_until_complete(gather())
    loop.run_until_complete(loop.shutdown_asyncgens())


def _revive(loop: SimLoop, process: Stoppable | None) -> None:
    if process is not None and process.stopped:
        process.stopped = False
        loop.goes_on(process.stalled)
        process.stalled = deque()

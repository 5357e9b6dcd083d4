"""How a builder process gives way to the process that serves on the same machine.

It takes only what nobody else wants (SCHED_IDLE): a thread that answers a search then takes the core at once, where
it would otherwise wait for the end of the builder's slice. The price is that a builder starves where the machine is
never idle. So whoever started it looks on (``Vigil``), and lifts one that starves to SCHED_BATCH at nice 10, which is
about a tenth of the share of a process at 0, for a while.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from brainy.clock import Clock
from brainy.telemetry.logs import get_logger

#: About a tenth of the share of a process at 0.
_NICE = 10
#: A builder makes items by the thousand and hardly ever a cycle: collecting 70 times less often saves processor time.
_COLLECT_EVERY = 50_000

_log = get_logger(__name__)


def give_way() -> None:
    """Lower the priority of this process and of every thread it starts from here on. Call it once, at the start."""
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(_COLLECT_EVERY)


def index_threads(asked: int) -> int:
    """Return how many threads may build an index: as many as asked for, else all cores but one."""
    if asked:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


@dataclass(slots=True)
class Appetite:
    """Decides from samples whether a builder has to be lifted. Pure: it is told of every sample.

    It starves when, for two samples in a row, it got less than a tenth of a core while the machine had nothing left
    to give. Lifted, it stays so for ``LIFTED_SAMPLES``; then it is looked at afresh.
    """

    starving: int = 0
    lifted: int = 0

    STARVED_SHARE = 0.1
    FULL = 0.95
    STARVING_SAMPLES = 2
    LIFTED_SAMPLES = 30

    def lift(self, own: float, machine: float) -> bool:
        """Return whether it has to be lifted now; ``own`` in cores, ``machine`` as the share that is busy."""
        if self.lifted:
            self.lifted -= 1
            return self.lifted > 0
        starved = own < self.STARVED_SHARE and machine >= self.FULL
        self.starving = self.starving + 1 if starved else 0
        if self.starving >= self.STARVING_SAMPLES:
            self.starving, self.lifted = 0, self.LIFTED_SAMPLES
        return self.lifted > 0


async def keep_fed(
    pid: int, clock: Clock, *, every_seconds: float = 1.0, stands: Callable[[], bool] = lambda: False
) -> None:
    """Lift a builder when it starves and lower it again, until it has ended. Where that is refused, say so once.

    One that ``stands`` because it was told to takes nothing and starves of nothing.

    Going up from SCHED_IDLE takes the right to a nice value of 10 (``LimitNICE=10`` or ``CAP_SYS_NICE``).
    """
    try:
        process = psutil.Process(pid)
        process.cpu_percent()
        psutil.cpu_percent()
        appetite, lifted = Appetite(), False
        while True:
            await clock.sleep(every_seconds)
            wanted = appetite.lift(process.cpu_percent() / 100, psutil.cpu_percent() / 100) and not stands()
            if wanted == lifted:
                continue
            lifted = wanted
            _log.info("builder_lifted" if lifted else "builder_lowered", pid=pid)
            if not _schedule((thread.id for thread in process.threads()), idle=not lifted):
                _log.warning("builder_starves", pid=pid, remedy="allow nice 10 (LimitNICE=10), or give it idle time")
                return
    except psutil.Error:
        return


def _schedule(threads: Iterable[int], *, idle: bool) -> bool:
    policy = os.SCHED_IDLE if idle else os.SCHED_BATCH
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(0))
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except (OSError, AttributeError):
            return False
    return True

"""How a builder process gives way to the process that serves on the same machine."""

from __future__ import annotations

import gc
import os
from contextlib import suppress

#: About a tenth of the share of a process at 0. Lower would starve an upgrade on a machine that is always busy.
_NICE = 10
#: A builder makes items by the thousand and hardly ever a cycle: collecting 70 times less often saves processor time.
_COLLECT_EVERY = 50_000


def give_way(*, can_wait: bool = False) -> None:
    """Lower the priority of this process and of every thread it starts from here on. Call it once, at the start.

    SCHED_BATCH keeps a thread that wakes up from pushing a serving one off its core. A job that ``can_wait`` (a
    fold: nobody waits for it, and the tail is searched meanwhile) takes only what nobody else wants: SCHED_IDLE.
    """
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE if can_wait else os.SCHED_BATCH, os.sched_param(0))
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(_COLLECT_EVERY)


def index_threads(asked: int) -> int:
    """Return how many threads may build an index: as many as asked for, else all cores but one."""
    if asked:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)

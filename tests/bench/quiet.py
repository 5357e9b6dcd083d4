"""Other work on the machine: waited for before a run, and told apart from our own during it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from brainy.clock import SystemClock

_IDLE_SHARE = 0.25
#: When others take more of the machine, a measurement says nothing about us.
FOREIGN_BAR = 0.10

_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextmanager
def priorities_across_sessions() -> Iterator[bool]:
    """Let priorities count between processes of different sessions for the block; yields whether they do.

    Where Linux groups the processes of a session (autogroup: machines without control groups, such as desktops),
    a builder that gives way does so only to its own node, not to a client or a server started elsewhere. Services
    and containers run in control groups, where this plays no part. Turning it off takes root.
    """
    try:
        before = _AUTOGROUP.read_text().strip()
        if before != "0":
            _AUTOGROUP.write_text("0")
    except OSError:
        yield not _AUTOGROUP.exists()
        return
    try:
        yield True
    finally:
        _AUTOGROUP.write_text(before)


@dataclass(slots=True)
class Foreign:
    """Share of the machine's cores that processes other than ours and our children took; set at the end."""

    share: float = 0.0


async def wait_until_quiet(patience_seconds: float) -> None:
    """Wait until the machine has little to do, but not for ever."""
    clock = SystemClock()
    deadline = clock.monotonic() + patience_seconds
    while clock.monotonic() < deadline:
        psutil.cpu_percent()
        await asyncio.sleep(1.0)
        if psutil.cpu_percent() / 100 < _IDLE_SHARE:
            return


@asynccontextmanager
async def watched() -> AsyncIterator[Foreign]:
    """Measure the share of foreign work during the block."""
    clock, seen = SystemClock(), Foreign()
    before, began = _busy_elsewhere(), clock.monotonic()
    yield seen
    seconds = clock.monotonic() - began
    seen.share = max(0.0, _busy_elsewhere() - before) / (seconds * (psutil.cpu_count() or 1))


def _busy_elsewhere() -> float:
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return float(busy - _ours())


def _ours() -> float:
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        # Children that ended and were waited for are in their parent's sum.
        total += used.user + used.system + used.children_user + used.children_system
    return total

"""Time, handed in.

Nothing in this product reads a clock by itself: it is given a ``Clock``. Two kinds of time exist and are never
mixed: *monotonic* seconds for durations and deadlines, *wall* seconds for people to read. No wall time of one
machine is ever compared with another's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time and of waiting."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back and, where the system has one, counts suspension."""

    def wall(self) -> float:
        """Seconds since 1970, for display only."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own clock. Only composition roots create one."""

    def monotonic(self) -> float:
        """Seconds on CLOCK_BOOTTIME, which counts the time a machine was suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()  # noqa: TID251 - the one place that may

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


def iso(wall_seconds: float) -> str:
    """Render wall seconds as ISO 8601 in UTC with milliseconds."""
    stamp = datetime.fromtimestamp(wall_seconds, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Deadline:
    """An absolute point on a monotonic clock, so that nested calls share one budget."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(clock, clock.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining() <= 0.0

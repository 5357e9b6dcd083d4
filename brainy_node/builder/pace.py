"""How fast a job may be: items a second of whatever stage it is in, changed while it runs.

A job asks for a turn before each portion of items. What it was granted is a debt that melts at the rate, and the next
turn waits until there is none left: a long portion is followed by a long wait, and a rate that is changed meanwhile
counts at once. Without a rate nobody waits; at rate 0 everybody does.
"""

from __future__ import annotations

import threading
from typing import Final

from brainy.clock import Clock

#: Longest sleep of a waiting coroutine: a new rate is noticed within it. Threads are woken.
_LOOK_SECONDS: Final = 0.1
#: A portion is at most what the rate allows in this time, so that the work is spread and not done in bursts.
_PORTION_SECONDS: Final = 0.1
_SMALLEST_PORTION: Final = 32
#: Items that rounding may leave of a debt that is paid.
_PAID: Final = 1e-3


class Pace:
    """The pace of one job. Its methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._rate: float | None = None
        self._debt = 0.0
        self._at = clock.monotonic()

    def set(self, items_per_second: float | None) -> None:
        """Change the rate: None for as fast as it goes, 0 to stand still."""
        with self._changed:
            self._settle()
            self._rate = items_per_second
            self._changed.notify_all()

    async def turn(self, items: int) -> None:
        """Wait for the turn to handle so many items; for coroutines."""
        while (wait := self._take(items)) > 0.0:
            await self._clock.sleep(min(wait, _LOOK_SECONDS))

    def turn_in_thread(self, items: int) -> None:
        """Wait for the turn to handle so many items; for threads, which it blocks."""
        with self._changed:
            while (wait := self._take(items)) > 0.0:
                self._changed.wait(wait)

    def portion(self, most: int) -> int:
        """Return how many items to handle at a turn, at most ``most``."""
        rate = self._rate
        if rate is None:
            return most
        return max(1, min(most, max(_SMALLEST_PORTION, int(rate * _PORTION_SECONDS))))

    def _take(self, items: int) -> float:
        """Take the items and return 0, or return the seconds until they may be taken."""
        with self._changed:
            self._settle()
            if self._rate == 0.0:
                return 3600.0
            if self._rate is None or self._debt <= _PAID:
                self._debt = 0.0 if self._rate is None else float(items)
                return 0.0
            return self._debt / self._rate

    def _settle(self) -> None:
        now = self._clock.monotonic()
        if self._rate is None:
            self._debt = 0.0
        else:
            self._debt = max(0.0, self._debt - self._rate * (now - self._at))
        self._at = now

"""The rate a running job is held to, from the process that serves: set there, read by whoever feeds the job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Rates:
    """One rate, and its changes; of one event loop."""

    def __init__(self, items_per_second: float | None = None) -> None:
        #: Items a second; None for as fast as it goes, 0 to stand still.
        self.current = items_per_second
        self._changed = asyncio.Event()
        #: Calls of the store that the jobs had to repeat, added up.
        self.store_repeats = 0

    def set(self, items_per_second: float | None) -> None:
        """Change the rate."""
        if items_per_second == self.current:
            return
        self.current = items_per_second
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[float | None]:
        """Yield the rate, and again whenever it has changed; a reader that is slow sees the last one only."""
        while True:
            changed, current = self._changed, self.current
            yield current
            await changed.wait()

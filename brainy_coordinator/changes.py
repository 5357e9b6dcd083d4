"""Tells waiting readers that something has changed."""

from __future__ import annotations

import asyncio


class ChangeSignal:
    """A counter that can be waited for. Nothing is missed: a reader names the count it has seen."""

    def __init__(self) -> None:
        self._count = 0
        self._event = asyncio.Event()

    @property
    def count(self) -> int:
        """How many changes there were."""
        return self._count

    def bump(self) -> None:
        """Say that something has changed."""
        self._count += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def after(self, count: int) -> int:
        """Wait until there were more changes than ``count``; returns how many."""
        while self._count <= count:
            await self._event.wait()
        return self._count

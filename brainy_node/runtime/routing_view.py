"""A node's view of one namespace's routing record.

The record in force only ever moves to a higher epoch. It is re-read from the bucket, so a node needs no
coordinator to keep serving, and a node that lived in the past finds out at its next read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.errors import UnavailableError
from brainy.store.base import ObjectStore


class RoutingView:
    """The newest routing record this node has read, and a way to wait for a newer one."""

    def __init__(self, store: ObjectStore, on_change: Callable[[Routing], None]) -> None:
        self._store = store
        self._on_change = on_change
        self._current: Routing | None = None
        self._changed = asyncio.Condition()
        self._reading = asyncio.Lock()

    @property
    def known(self) -> Routing | None:
        """The record in force, or None before the first one was read."""
        return self._current

    @property
    def current(self) -> Routing:
        """The record in force.

        Raises:
            UnavailableError: the namespace has no routing record yet (no coordinator has adopted it).
        """
        if self._current is None:
            raise UnavailableError(
                "the namespace is not placed on nodes yet",
                reason="SHARD_NOT_READY",
                remedy="wait for the coordinator to adopt it, then retry",
            )
        return self._current

    async def refresh(self, at_least: int = 0) -> None:
        """Read the record; put it in force if it is newer. Skipped when ``at_least`` is in force already."""
        async with self._reading:
            if at_least and self._current is not None and self._current.epoch >= at_least:
                return
            found = await self._store.get(layout.ROUTING)
            if found is None:
                return
            routing = Routing.decode(found.body, key=layout.ROUTING)
            if self._current is not None and routing.epoch <= self._current.epoch:
                return
            self._current = routing
            self._on_change(routing)
        async with self._changed:
            self._changed.notify_all()

    async def wait_newer(self, than: int, timeout_seconds: float) -> bool:
        """Wait until the epoch in force is above ``than``; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(lambda: self._current is not None and self._current.epoch > than)
        except TimeoutError:
            return False
        return True

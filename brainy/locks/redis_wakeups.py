"""Waking those who wait for a lock in Redis: one subscription a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger

_CONFIRM_SECONDS: Final = 1.0
_LISTEN_SECONDS: Final = 60.0

_log = get_logger(__name__)


class Wakeups:
    """One subscription of this process; hands messages to the waiters they name."""

    def __init__(
        self, client: Any, instance: str, guarded: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        """Prepare; ``guarded`` turns what the client raises into errors of this product."""
        self._client = client
        self._guarded = guarded
        self._instance = instance
        self._events: dict[str, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def waiter(self, nonce: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
        """Yield (id of a waiter, event that is set when it is woken)."""
        waiter = f"{self._instance}:{nonce}"
        event = self._events[waiter] = asyncio.Event()
        try:
            await self._listen()
            yield waiter, event
        finally:
            del self._events[waiter]

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            while not self._listening.done():
                self._listening.cancel()
                await asyncio.wait([self._listening], timeout=0.1)
            self._listening = None

    async def _listen(self) -> None:
        async with self._starting:
            if self._listening is not None and not self._listening.done():
                return
            pubsub = self._client.pubsub()
            try:
                with self._guarded():
                    await pubsub.subscribe(f"brainy:wake:{self._instance}")
                    # Only once the server has confirmed can no message be missed.
                    await pubsub.get_message(timeout=_CONFIRM_SECONDS)
            except BaseException:
                await pubsub.aclose()
                raise
            self._listening = asyncio.create_task(self._deliver(pubsub))

    async def _deliver(self, pubsub: Any) -> None:
        try:
            with self._guarded():
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=_LISTEN_SECONDS)
                    event = self._events.get(message["data"]) if message else None
                    if event is not None:
                        event.set()
        except BrainyError as error:
            # Waiters go on asking once a second; the next one subscribes again.
            _log.warning("lock_wakeups_lost", detail=str(error)[:200])
        finally:
            await pubsub.aclose()

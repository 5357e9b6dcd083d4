"""The one background thread in which blocking clients run their event loop."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from brainy.errors import InvalidRequestError

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread, shared by every blocking client of the process.

    It starts with the first call. At interpreter exit the callbacks registered with ``at_exit`` run first,
    newest first, while the loop still turns; then the loop is stopped and the thread joined, so that nothing of
    gRPC is torn down under a running thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        #: Set once the interpreter is going; nothing may start any more.
        self.stopped = False
        self._closers: dict[int, Callable[[], None]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it. An interrupt (Ctrl-C) cancels it.

        Raises:
            InvalidRequestError: called from the loop's own thread, where waiting would never end.
        """
        loop = self._running()
        if threading.current_thread() is self._thread:
            work.close()
            raise InvalidRequestError(
                "a blocking call inside the client's own event loop", remedy="use AsyncBrainy in coroutines"
            )
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future], timeout=5.0)
            raise

    def at_exit(self, key: object, close: Callable[[], None]) -> None:
        """Call ``close`` at interpreter exit, unless ``forget`` comes first."""
        with self._lock:
            self._closers[id(key)] = close

    def forget(self, key: object) -> None:
        """Drop what ``at_exit`` registered."""
        with self._lock:
            self._closers.pop(id(key), None)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._turn, args=(self._loop,), name="brainy-loop", daemon=True)
                self._thread.start()
                atexit.register(self._stop)
            return self._loop

    @staticmethod
    def _turn(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _stop(self) -> None:
        with self._lock:
            closers = list(self._closers.values())
            self._closers.clear()
        for close in reversed(closers):
            close()
        with self._lock:
            self.stopped = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5.0)


#: The process's own.
LOOP = LoopThread()

"""Repeating of calls that may be repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from brainy.clock import Clock
from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, StoredObject
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)
_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 5.0
R = TypeVar("R")


class RetryingStore:
    """Repeats reads, lists, unconditional writes and deletes that end in ``UnavailableError``.

    At most ``max_retries`` times; the wait doubles from 50 ms to 5 s, of which a random half to whole is taken.
    Conditional writes are handed through once: whether to repeat them is for their protocol to decide, after
    reading back.

    A repeated unconditional write may land after a later write of somebody else. It is meant for keys with one
    writer, or whose body never differs.
    """

    def __init__(self, inner: ObjectStore, *, max_retries: int, clock: Clock, ids: Ids) -> None:
        self._inner = inner
        self._max_retries = max_retries
        self._clock = clock
        self._ids = ids
        #: Repeats so far.
        self.retries = 0

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        return await self._repeat("get", key, lambda: self._inner.get(key))

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        return await self._repeat("get_range", key, lambda: self._inner.get_range(key, start, length))

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects; only those that failed are asked for again."""
        found = list(await self._inner.get_many(keys, concurrency=concurrency))
        for attempt in range(self._max_retries):
            open_places = [place for place, item in enumerate(found) if isinstance(item, UnavailableError)]
            if not open_places:
                break
            self._note("get_many", keys[open_places[0]], attempt, found[open_places[0]])
            await self._clock.sleep(self._wait(attempt))
            again = await self._inner.get_many([keys[place] for place in open_places], concurrency=concurrency)
            for place, item in zip(open_places, again, strict=True):
                found[place] = item
        return found

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        return await self._repeat("put", key, lambda: self._inner.put(key, body, user_metadata=user_metadata))

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists. Never repeated here."""
        return await self._inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``. Never repeated here."""
        return await self._inner.put_if_match(key, body, etag)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._repeat("delete", key, lambda: self._inner.delete(key))

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order; goes on behind the last key seen when a page fails."""
        reached = start_after
        failures = 0
        while True:
            try:
                async for page in self._inner.list(prefix, start_after=reached):
                    failures = 0
                    yield page
                    reached = page[-1].key
                return
            except UnavailableError as error:
                if failures >= self._max_retries:
                    raise
                self._note("list", prefix, failures, error)
                await self._clock.sleep(self._wait(failures))
                failures += 1

    async def close(self) -> None:
        """Close the store below."""
        await self._inner.close()

    async def _repeat(self, kind: str, key: str, call: Callable[[], Awaitable[R]]) -> R:
        try:  # tenacity itself costs a third of a request; most calls succeed at once
            return await call()
        except UnavailableError as error:
            if self._max_retries <= 0:
                raise
            self._note(kind, key, 0, error)
        await self._clock.sleep(self._wait(0))

        def before_sleep(state: RetryCallState) -> None:
            outcome = state.outcome
            self._note(kind, key, state.attempt_number, outcome.exception() if outcome else None)

        retrying = AsyncRetrying(
            sleep=self._clock.sleep,
            stop=stop_after_attempt(self._max_retries),
            wait=lambda state: self._wait(state.attempt_number),
            retry=retry_if_exception_type(UnavailableError),
            before_sleep=before_sleep,
            reraise=True,
        )

        async def attempt() -> R:
            return await call()

        return await retrying(attempt)

    def _wait(self, attempt: int) -> float:
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**attempt)
        return self._ids.jitter(longest / 2, longest)

    def _note(self, kind: str, key: str, attempt: int, error: object) -> None:
        self.retries += 1
        _log.warning("store_call_repeated", kind=kind, key=key, attempt=attempt + 1, error=str(error)[:200])

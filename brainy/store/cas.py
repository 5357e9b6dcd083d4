"""One object that is only ever replaced by compare-and-swap: routing, leases, manifests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from brainy.clock import Clock
from brainy.errors import OutcomeUnknownError
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome, PutState
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)
_ATTEMPTS = 8
_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0
T = TypeVar("T")


class CasRegister(Generic[T]):
    """A value under one key.

    **Before.** ``encode`` puts a fresh nonce into every body, so that equal bytes mean the same write. Without
    one, two parties that write the same value would both believe they won, and an ETag could come back (ABA).

    **Steps** of ``exchange(new, expected_etag)``:

    1. Encode once. PUT if the ETag is ``expected_etag`` (None: if the key is absent).
    2. WON: done.
    3. LOST or UNKNOWN: read the key back.
       a. The body is ours: won. (An attempt landed whose answer was lost, or that a client library repeated.)
       b. The ETag is no longer the expected one: lost.
       c. It still is, and the outcome was LOST: lost. (The caller refreshes and tries again.)
       d. It still is, and the outcome was UNKNOWN: wait, then step 1 with the same bytes. An earlier attempt
          that is still under way can only land once, and lands as ours.

    **After.** An ETag: the value is in place under it. None: the value is not what is stored now. It may have
    been for a moment, when an attempt of unknown outcome landed and another party replaced it before the
    read-back; whoever must know reads the successor, which was written by a party that saw ours.

    **Crash** before step 1: nothing. After it: the value may be stored; the next process loads and decides.

    **Cancellation** is a crash at the step it hits: the write may land after ``exchange`` was cancelled.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._encode = encode
        self._decode = decode
        self._clock = clock
        self._ids = ids
        self.key = key

    async def load(self) -> tuple[T, str] | None:
        """Return the value and its ETag, or None when the key is absent. ``decode`` errors pass through."""
        found = await self._store.get(self.key)
        return None if found is None else (self._decode(found.body), found.etag)

    async def swap(self, new: T, expected_etag: str | None) -> bool:
        """Return whether ``new`` replaced the value with ``expected_etag`` (None: created the key).

        Raises:
            OutcomeUnknownError: the store never gave a definite answer; ``load`` before anything else.
        """
        return await self.exchange(new, expected_etag) is not None

    async def exchange(self, new: T, expected_etag: str | None) -> str | None:
        """Like ``swap``, but return the ETag of the new value, or None when lost."""
        body = self._encode(new)
        for attempt in range(_ATTEMPTS):
            outcome = await self._put(body, expected_etag)
            if outcome.won:
                return outcome.etag
            found = await self._store.get(self.key)
            if found is not None and found.body == body:
                return found.etag
            current = None if found is None else found.etag
            if outcome.state is PutState.LOST or current != expected_etag:
                return None
            _log.warning("cas_outcome_unknown", key=self.key, attempt=attempt + 1, detail=outcome.detail)
            longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**attempt)
            await self._clock.sleep(self._ids.jitter(longest / 2, longest))
        raise OutcomeUnknownError(
            "the store gave no definite answer to a conditional write",
            remedy="check the store; read the object before trying again",
            data_safe=True,
            key=self.key,
            attempts=_ATTEMPTS,
        )

    async def _put(self, body: bytes, expected_etag: str | None) -> PutOutcome:
        if expected_etag is None:
            return await self._store.put_if_absent(self.key, body)
        return await self._store.put_if_match(self.key, body, expected_etag)

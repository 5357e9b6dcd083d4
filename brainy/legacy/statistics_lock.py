"""Brainy's own lock, ``locks/statistics-flush``: read it, respect it, take it, clear it when it is provably stale.

What Brainy does (docs/format.md): it looks whether ``expires-at`` (user metadata, milliseconds since 1970, by the
*writer's* clock) lies in the future; if so it gives up; otherwise it overwrites without a condition. It deletes the
object when its own timer fires, which a process that ends first never sees: a stale lock is the rule. So the lock
keeps nobody out who looks at the same moment; taken by us it keeps out Brainy processes that look later.

Time. A lock is *over* when ``expires-at`` and a whole Brainy lease after the object was written have passed by the
**store's** clock: the time the store stamps on an object written just now. Our own wall clock plays no part. A
writer whose clock runs ahead makes its lock look alive for longer; that costs patience only.

Clear
-----
*Before.* The lock is over.
*Steps.* 1. Observe it. 2. Wait a Brainy lease on our monotonic clock. 3. Observe again: unchanged, and still over.
4. Replace it, if its ETag is still that one, by one without ``expires-at``, which Brainy takes for free. It is not
deleted: a delete has no condition and could hit the lock of a Brainy process that came in between.
*Crash* at any step: the lock is as it was, or cleared.

Hold
----
*Steps.* 1. Observe: alive → LEASE_HELD. 2. PUT in Brainy's form. 3. Read back: another's → LEASE_HELD.
*After.* Brainy processes that look from now on give up, for ``LEASE_SECONDS``. One that looked before step 2 may
still write after step 3: ``HeldStatisticsLock.check`` before each guarded write makes the gap small; nothing closes it.
*Release.* Read; ours and with time to spare → DELETE, as Brainy does. Otherwise leave it: it is over soon.
*Crash* while holding: the lock is over after ``LEASE_SECONDS``.
"""

from __future__ import annotations

import enum
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from brainy.clock import Clock
from brainy.errors import BrainyError, FencedError, LeaseHeldError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore, StoredObject
from brainy.telemetry.logs import get_logger

KEY = "locks/statistics-flush"
#: How long Brainy takes it for.
LEASE_SECONDS = 15.0
#: The longest any of Brainy's locks lives by default, for a lock that was written by a clock running behind.
LONGEST_SECONDS = 30.0
#: Stores stamp objects to the second.
_STAMP_SECONDS = 1.0
#: A lock with less time left is not deleted: another may take it at that moment.
_SPARE_SECONDS = 2.0
_PROBE = "cluster/probe/clock-"

_log = get_logger(__name__)


class State(enum.Enum):
    """What the lock says."""

    ABSENT = "absent"
    #: No readable ``expires-at``: Brainy overwrites it at once.
    FREE = "free"
    LIVE = "live"
    #: Over by the store's clock.
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The lock as it was found."""

    state: State
    #: As Brainy wrote it: ``<ms>_<random>_<pid>``.
    holder: str = ""
    expires_at_ms: int | None = None
    etag: str = ""
    #: Seconds until it is over by the store's clock; 0 unless live.
    left_seconds: float = 0.0


def expires_at_ms(found: StoredObject) -> int | None:
    """Return the end of a lock's life by its writer's clock, or None where it does not say."""
    text = found.user_metadata.get("expires-at", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


class StatisticsLock:
    """Brainy's lock in one namespace."""

    def __init__(self, store: ObjectStore, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def observe(self) -> Observed:
        """Read the lock. Where it names a time, this writes and removes a small object, to learn the store's.

        Raises:
            UnavailableError, PermissionDeniedError: the store could not be asked.
        """
        found = await self._store.get(KEY)
        if found is None:
            return Observed(state=State.ABSENT)
        holder = found.body[:200].decode("utf-8", "replace")
        expires = expires_at_ms(found)
        if expires is None:
            return Observed(state=State.FREE, holder=holder, etag=found.etag)
        now = await self._store_now()
        # Both, so that a writer whose clock runs behind is given its time as well.
        over_at = max(expires / 1000, found.last_modified + LONGEST_SECONDS) + _STAMP_SECONDS
        left = max(0.0, over_at - now)
        return Observed(
            state=State.LIVE if left > 0 else State.OVER,
            holder=holder,
            expires_at_ms=expires,
            etag=found.etag,
            left_seconds=left,
        )

    async def clear(self) -> bool:
        """Clear the lock if it is provably stale; takes a Brainy lease of time. Says whether it was cleared."""
        first = await self.observe()
        if first.state is not State.OVER:
            return False
        await self._clock.sleep(LEASE_SECONDS)
        second = await self.observe()
        if second.state is not State.OVER or second.etag != first.etag:
            return False
        body = f"cleared_{self._ids.nonce().hex()}_{second.holder}".encode()
        cleared = (await self._store.put_if_match(KEY, body, second.etag)).won
        if cleared:
            _log.info("statistics_lock_cleared", holder=second.holder, expires_at_ms=second.expires_at_ms)
        return cleared

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[HeldStatisticsLock]:
        """Take the lock in Brainy's form for the length of the block, at most ``LEASE_SECONDS``.

        Raises:
            LeaseHeldError: it is alive, or a Brainy process took it at the same moment.
        """
        seen = await self.observe()
        if seen.state is State.LIVE:
            raise _held(seen.holder, seen.left_seconds)
        begun = self._clock.monotonic()
        now_ms = round(await self._store_now() * 1000)
        value = f"{now_ms}_{self._ids.jitter(0.0, 1.0)}_{os.getpid()}"
        marks = {"expires-at": str(now_ms + round(LEASE_SECONDS * 1000)), "lock-value": value}
        await self._store.put(KEY, value.encode(), user_metadata=marks)
        held = HeldStatisticsLock(self._store, self._clock, value=value, until=begun + LEASE_SECONDS)
        if not await held.ours():
            raise _held("another", LEASE_SECONDS)
        try:
            yield held
        finally:
            # Left behind it is over soon; that is how Brainy leaves it nearly always.
            with suppress(BrainyError):
                await held.release()

    async def _store_now(self) -> float:
        """The store's clock, in seconds since 1970, as it was at some moment during this call."""
        key = f"{_PROBE}{self._ids.short(12)}"
        await self._store.put(key, self._ids.nonce())
        try:
            found = await self._store.get(key)
        finally:
            with suppress(BrainyError):
                await self._store.delete(key)
        if found is None or found.last_modified <= 0:
            raise UnavailableError("the store does not say what time it is", reason="STORE_UNAVAILABLE", key=key)
        return found.last_modified


class HeldStatisticsLock:
    """Brainy's lock in our hands."""

    def __init__(self, store: ObjectStore, clock: Clock, *, value: str, until: float) -> None:
        self._store = store
        self._clock = clock
        self._until = until
        #: The object's body.
        self.value = value

    async def ours(self) -> bool:
        """Whether the object is still the one we wrote."""
        found = await self._store.get(KEY)
        return found is not None and found.body == self.value.encode()

    async def check(self) -> None:
        """Do nothing while the lock is ours and has time to spare: to be called before each guarded write.

        Raises:
            FencedError: it is over, or a Brainy process has overwritten it.
        """
        if self._clock.monotonic() >= self._until - _SPARE_SECONDS or not await self.ours():
            raise FencedError("Brainy's statistics lock is no longer ours", remedy="take it anew", lock=KEY)

    async def release(self) -> None:
        """Delete it, if it is still ours and nobody may be overwriting it."""
        if self._clock.monotonic() < self._until - _SPARE_SECONDS and await self.ours():
            await self._store.delete(KEY)


def _held(holder: str, left: float) -> LeaseHeldError:
    return LeaseHeldError(
        "a Brainy process holds its statistics lock",
        remedy="try again later",
        lock=KEY,
        holder=holder,
        token=0,
        retry_after=f"{left:.3f}",
    )

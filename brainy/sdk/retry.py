"""When and how often a call is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.clock import Clock
from brainy.errors import (
    BrainyError,
    ConflictError,
    FencedError,
    LeaseHeldError,
    OutcomeUnknownError,
    UnavailableError,
)
from brainy.ids import Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a call may take."""

    #: For the call with all its attempts, seconds.
    deadline_seconds: float
    #: For one attempt; a silent node costs this much, then another is asked.
    attempt_seconds: float
    #: Whether the call changes anything, so that running out of time leaves its outcome open.
    changes: bool = False
    #: Whether FENCED ends the call: for leases it does, while a write to a fenced shard only has to find its new owner.
    fenced_is_final: bool = False


READ = Limits(deadline_seconds=10.0, attempt_seconds=4.0)
#: A node holds writes for up to ten seconds while a migration cuts over, so an attempt may take longer.
WRITE = Limits(deadline_seconds=30.0, attempt_seconds=12.0, changes=True)
#: A stream may pause while a node gathers its shards' answers.
SCAN = Limits(deadline_seconds=30.0, attempt_seconds=10.0)
#: A migration that does not move says nothing; the stream is then begun anew, which shows its present state.
WATCH = Limits(deadline_seconds=120.0, attempt_seconds=5.0)
#: Asking what is there: longer than a leadership takes to move, short enough for somebody who waits.
GLANCE = Limits(deadline_seconds=15.0, attempt_seconds=5.0)
#: Planning looks at the bucket.
CONTROL = Limits(deadline_seconds=60.0, attempt_seconds=30.0)
CONTROL_CHANGE = Limits(deadline_seconds=60.0, attempt_seconds=30.0, changes=True)
#: Replaying queries scans both generations; a node ends it before its own limit of a minute.
REPLAY = Limits(deadline_seconds=60.0, attempt_seconds=59.0)
LEASE_CHANGE = Limits(deadline_seconds=30.0, attempt_seconds=5.0, changes=True, fenced_is_final=True)


def worth_retrying(error: BrainyError) -> bool:
    """Say whether the same call, with the same request id, may succeed elsewhere or later.

    ``FencedError`` is final for the writer that was fenced; for a client it means that the shard has moved.
    ``OutcomeUnknownError`` is safe to repeat because the request id gives the write one effect.
    """
    if isinstance(error, LeaseHeldError):
        return False
    return isinstance(error, UnavailableError | ConflictError | FencedError | OutcomeUnknownError)


class Backoff:
    """Exponential pauses with jitter: up to 50 ms, then 100, ... up to 2 s."""

    def __init__(self, ids: Ids, *, first: float = 0.05, limit: float = 2.0) -> None:
        self._ids = ids
        self._next = first
        self._limit = limit

    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = self._ids.jitter(self._next / 4, self._next)
        self._next = min(self._next * 2, self._limit)
        return pause


class RetryBudget:
    """Bounds the load that retries add, whatever the number of concurrent calls.

    A bucket of tokens, one a retry, refilled at a steady rate and a little by each success. An empty bucket
    delays retries instead of failing calls: a cluster that is cutting over refuses everybody for a moment.
    """

    def __init__(self, clock: Clock, *, capacity: float = 100.0, per_second: float = 20.0) -> None:
        self._clock = clock
        self._capacity = capacity
        self._rate = per_second
        self._tokens = capacity
        self._at = clock.monotonic()

    def take(self) -> float:
        """Take a token; returns the seconds to wait until it is there."""
        now = self._clock.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self._rate)

    def succeeded(self) -> None:
        """Give back a tenth of a token."""
        self._tokens = min(self._capacity, self._tokens + 0.1)

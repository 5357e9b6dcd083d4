"""A switch that is put off: for how long still, and the countdown that survives the leader.

*Before.* ``POSTPONE_REQUESTED`` is in the history, with the seconds that were asked for. Whoever says until when does
so by the clock of the machine that asks: only the seconds travel.

*Steps.* The leader counts them down on its own monotonic clock, from when it first sees the event, and writes what is
left to ``migrations/<id>/countdown.json`` now and then.

*After.* The switch may begin.

*If the leader dies* the next one goes on from what was written down last; with nothing written down it begins anew. So
a switch is never begun earlier than asked, and at most one step of the countdown later for each change of leader.
No two clocks are compared, and no point in time is stored.

*Cancel safety.* As a crash.
"""

from __future__ import annotations

from collections.abc import Callable

from brainy.bucket import layout
from brainy.bucket.records import Record
from brainy.clock import Clock
from brainy.errors import FencedError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy_coordinator.countdown import step_seconds
from brainy_coordinator.migration.record import MigrationRecord


class Countdown(Record):
    """``migrations/<id>/countdown.json``; only the leader writes it, with If-Match."""

    nonce: str
    leader_epoch: int
    #: Sequence of the event that it counts for.
    sequence: int
    remaining_seconds: float


class SwitchCountdown:
    """One leader's count of one migration's postponements."""

    def __init__(
        self, store: ObjectStore, migration_id: str, *, leader_epoch: Callable[[], int], clock: Clock, ids: Ids
    ) -> None:
        key = layout.switch_countdown(migration_id)
        self._register = CasRegister(
            store,
            key,
            encode=Countdown.encode,
            decode=lambda body: Countdown.decode(body, key=key),
            clock=clock,
            ids=ids,
        )
        self._leader_epoch = leader_epoch
        self._clock = clock
        self._ids = ids
        self._sequence = 0
        self._left = 0.0
        self._counted_at = 0.0
        self._written = 0.0

    async def left(self, record: MigrationRecord) -> float | None:
        """Count, and return what is left; None where it is not postponed.

        Raises:
            FencedError: a later leader counts.
            BrainyError: the store failed.
        """
        wanted = record.postponed
        if wanted is None:
            return None
        now = self._clock.monotonic()
        if self._sequence != wanted.sequence:
            held = await self._register.load()
            known = held is not None and held[0].sequence == wanted.sequence
            self._left = held[0].remaining_seconds if held is not None and known else wanted.seconds
            # Anything not written down yet is written at the first step.
            self._written = self._left
            self._sequence, self._counted_at = wanted.sequence, now
        elapsed, self._counted_at = now - self._counted_at, now
        self._left = max(0.0, self._left - elapsed)
        if self._written > 0.0 and (not self._left or self._written - self._left >= step_seconds(wanted.seconds)):
            await self._write(wanted.sequence)
        return self._left

    async def _write(self, sequence: int) -> None:
        epoch = self._leader_epoch()
        held = await self._register.load()
        if held is not None and held[0].leader_epoch > epoch:
            raise FencedError("a later leader counts", leader_epoch=epoch, newer_epoch=held[0].leader_epoch)
        after = Countdown(nonce=self._ids.uuid(), leader_epoch=epoch, sequence=sequence, remaining_seconds=self._left)
        # Lost to nobody but a later leader, which is fenced off above the next time.
        if await self._register.swap(after, held[1] if held is not None else None):
            self._written = self._left

"""The parts the simulation runs, and known bugs to put in their places, to see whether it finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from brainy.bucket import layout
from brainy.changelog.batch import Draft, Slot, encode_record
from brainy.changelog.writing import LogWriter
from brainy.clock import Clock
from brainy.ids import Ids
from brainy.locks import record as lease
from brainy.locks.base import Grant
from brainy.locks.object_store import ObjectStoreLocks
from brainy.store.base import ObjectStore, PutState


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What an owner is made of."""

    locks: Callable[[ObjectStore, Clock, Ids], ObjectStoreLocks] = ObjectStoreLocks
    writer: type[LogWriter] = LogWriter


REAL = Kit()


class WallClockLocks(ObjectStoreLocks):
    """BUG: a lease is over when *my* wall clock says that the time *its* writer's wall clock named has come."""

    def _watch(self, name: str, seen: Any, asked_at: float) -> float:
        super()._watch(name, seen, asked_at)
        written_at = float(seen.record.purpose or 0.0)
        return max(0.0, written_at + seen.record.lease_ms / 1000 - self._clock.wall())

    async def _swap(self, name: str, wanted: Any, current: Any, until: float) -> bool:
        stamped = wanted.model_copy(update={"purpose": repr(self._clock.wall())})
        return await super()._swap(name, stamped, current, until)


class TrustingWriter(LogWriter):
    """BUG: an answer that never came is taken for yes; a refusal is taken at its word. Nothing is read back."""

    async def _place(self, draft: Draft) -> tuple[Slot, bool]:
        key = layout.log_slot(self._generation, self._shard, draft.first)
        outcome = await self._send(key, draft.body, definite=True)
        if outcome.won or outcome.state is PutState.UNKNOWN:
            return self._mine(draft), True
        found = await self._read_back(key)
        if found is None or found.batch.writer.nonce == draft.nonce:
            self._next += 1
            batch = draft.slot().batch
            encoded = [encode_record(record) for record in batch.records]
            return await self._place(self._draft(encoded, dict(batch.source_cursor)))
        return found, False


class DeletingLocks(ObjectStoreLocks):
    """BUG: a released lock's record is deleted, and its token forgotten."""

    async def release(self, grant: Grant) -> None:
        await super().release(grant)
        await self._store.delete(layout.lock(grant.name))
        self._highest.pop(grant.name, None)

    async def _read(self, name: str) -> Any:
        # A process that never saw the lock before has no floor; this one forgets on purpose.
        self._highest.pop(name, None)
        return await super()._read(name)


class SameNonces(Ids):
    """BUG: nonces that are not fresh, so that equal contents have equal ETags."""

    def nonce(self) -> bytes:
        return bytes(16)


PLANTED: dict[str, Kit] = {
    "wall-clocks": replace(REAL, locks=WallClockLocks),
    "no-read-back": replace(REAL, writer=TrustingWriter),
    "deleted-lock": replace(REAL, locks=DeletingLocks),
}

assert lease.DRIFT == 0.1  # the clocks of the simulation differ by less

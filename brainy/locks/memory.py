"""Leases in the memory of one process: for tests, simulations and embedded clusters without a bucket.

Several ``MemoryLocks`` over one ``LockTable`` are what several processes over one backend are. The table's own
clock says when a lease ends, as a lock server's does; a holder's deadline is on the holder's clock. Tokens rise
for as long as the table lives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from brainy.clock import Clock
from brainy.errors import FencedError, LeaseHeldError, NotFoundError
from brainy.ids import Ids
from brainy.locks import record as lease
from brainy.locks.base import Grant, LockState
from brainy.locks.record import LockRecord
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    record: LockRecord | None = None
    #: When the record was written, on the table's clock.
    since: float = 0.0
    waiters: deque[asyncio.Event] = field(default_factory=deque)


class LockTable:
    """What the providers of one backend share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: dict[str, _Entry] = {}

    def entry(self, name: str) -> _Entry:
        """Return what is known of a name, creating it empty."""
        return self.entries.setdefault(name, _Entry())

    def left(self, entry: _Entry) -> float:
        """Seconds until a held lock may be another's; 0 when it may now."""
        if entry.record is None or entry.record.state == "free":
            return 0.0
        return max(0.0, entry.since + lease.patience(entry.record) - self.clock.monotonic())

    def write(self, entry: _Entry, record: LockRecord) -> None:
        """Replace a record; a lock that became free wakes the first waiter."""
        entry.record = record
        entry.since = self.clock.monotonic()
        if record.state == "free" and entry.waiters:
            entry.waiters[0].set()


class MemoryLocks:
    """``LockProvider`` over a ``LockTable``; waiters are served in the order of their arrival."""

    def __init__(self, table: LockTable, clock: Clock, ids: Ids) -> None:
        self._table = table
        self._clock = clock
        self._ids = ids

    async def grant(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        purpose: str = "",
        force: bool = False,
    ) -> Grant:
        """Take the lock if it is free or its lease ran out; see ``LockProvider``."""
        lease.check_name(name)
        lease.check_ttl(ttl_seconds)
        return self._take(name, owner, incarnation, ttl_seconds, purpose, force=force, waiter=None)

    async def acquire(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        wait_until: float,
        purpose: str = "",
    ) -> Grant:
        """Wait for the lock, in the order of arrival, until ``wait_until``; see ``LockProvider``."""
        lease.check_name(name)
        lease.check_ttl(ttl_seconds)
        entry = self._table.entry(name)
        woken = asyncio.Event()
        entry.waiters.append(woken)
        try:
            while True:
                woken.clear()
                try:
                    return self._take(name, owner, incarnation, ttl_seconds, purpose, force=False, waiter=woken)
                except LeaseHeldError:
                    patience = wait_until - self._clock.monotonic()
                    if patience <= 0:
                        raise
                if entry.waiters[0] is woken:
                    patience = min(patience, self._table.left(entry))
                await self._pause(woken, patience)
        finally:
            entry.waiters.remove(woken)
            if entry.waiters:  # the one that is first now takes it, or watches for the end of the lease
                entry.waiters[0].set()

    async def renew(self, grant: Grant) -> Grant:
        """Begin the lease anew, with the same token; see ``LockProvider``."""
        sent_at = self._clock.monotonic()
        entry = self._table.entry(grant.name)
        record = self._held(grant, entry)
        if record is None or sent_at >= grant.deadline:
            raise _lost(grant, entry.record)
        wanted = lease.renewed(record, nonce=self._ids.nonce().hex())
        self._table.write(entry, wanted)
        return _grant(grant.name, wanted, lease.deadline(sent_at, grant.ttl_seconds))

    async def release(self, grant: Grant) -> None:
        """Give the lock back; see ``LockProvider``."""
        entry = self._table.entry(grant.name)
        record = self._held(grant, entry)
        if record is not None:
            self._table.write(entry, lease.freed(record, nonce=self._ids.nonce().hex()))
            _log.info("lock_released", lock=grant.name, owner=grant.owner, token=grant.token)
        elif entry.record is None or not lease.belongs(
            entry.record, token=grant.token, owner=grant.owner, incarnation=grant.incarnation
        ):
            raise _lost(grant, entry.record)

    async def force_release(self, name: str, *, by: str, reason: str) -> LockState:
        """Take the lock from its holder and leave it free; see ``LockProvider``."""
        lease.check_name(name)
        lease.check_breaker(by)
        entry = self._table.entry(name)
        before = entry.record
        if before is None:
            raise NotFoundError("nobody ever held this lock", remedy="check the name", lock=name)
        wanted = lease.broken(before, by=by, reason=reason, nonce=self._ids.nonce().hex())
        self._table.write(entry, wanted)
        holder = before.owner if before.state == "held" else ""
        _log.warning("lock_broken", lock=name, by=by, reason=reason, from_owner=holder, token=wanted.epoch)
        return self._state(name, entry, wanted)

    async def describe(self, name: str) -> LockState | None:
        """Return a lock's state; see ``LockProvider``."""
        lease.check_name(name)
        entry = self._table.entries.get(name)
        return None if entry is None or entry.record is None else self._state(name, entry, entry.record)

    async def list(self, prefix: str = "") -> Sequence[LockState]:
        """Return the state of every lock whose name starts with ``prefix``; see ``LockProvider``."""
        lease.check_prefix(prefix)
        return [
            self._state(name, entry, entry.record)
            for name, entry in sorted(self._table.entries.items())
            if name.startswith(prefix) and entry.record is not None
        ]

    async def close(self) -> None:
        """Nothing to give back."""

    def _take(
        self,
        name: str,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        purpose: str,
        *,
        force: bool,
        waiter: asyncio.Event | None,
    ) -> Grant:
        # No await between look and write: this is the atomic step.
        entry = self._table.entry(name)
        left = self._table.left(entry)
        before = entry.record
        if not force and (left > 0 or (entry.waiters and entry.waiters[0] is not waiter)):
            raise LeaseHeldError(
                "another holder has this lock",
                remedy="wait and retry",
                lock=name,
                holder=before.owner if before else "",
                token=before.epoch if before else 0,
                retry_after=f"{left:.3f}",
            )
        if force and left > 0 and before is not None:
            _log.warning("lock_forced", lock=name, by=owner, from_owner=before.owner, token=before.epoch)
        wanted = lease.granted(
            before,
            owner=owner,
            incarnation=incarnation,
            ttl_seconds=ttl_seconds,
            purpose=purpose,
            nonce=self._ids.nonce().hex(),
        )
        self._table.write(entry, wanted)
        _log.info("lock_granted", lock=name, owner=owner, token=wanted.epoch)
        return _grant(name, wanted, lease.deadline(self._clock.monotonic(), ttl_seconds))

    def _held(self, grant: Grant, entry: _Entry) -> LockRecord | None:
        """Return the record if this grant is the one in force."""
        record = entry.record
        if record is None or not lease.holds(
            record, token=grant.token, owner=grant.owner, incarnation=grant.incarnation
        ):
            return None
        return record

    def _state(self, name: str, entry: _Entry, record: LockRecord) -> LockState:
        return LockState(
            name=name,
            token=record.epoch,
            held=self._table.left(entry) > 0,
            owner=record.owner,
            incarnation=record.incarnation,
            ttl_seconds=record.lease_ms / 1000,
            renewals=record.renew_seq,
            purpose=record.purpose,
            unchanged_seconds=max(0.0, self._table.clock.monotonic() - entry.since),
        )

    async def _pause(self, woken: asyncio.Event, seconds: float) -> None:
        waits = {asyncio.ensure_future(woken.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _grant(name: str, record: LockRecord, deadline: float) -> Grant:
    return Grant(
        name=name,
        owner=record.owner,
        incarnation=record.incarnation,
        token=record.epoch,
        nonce=record.nonce,
        ttl_seconds=record.lease_ms / 1000,
        deadline=deadline,
    )


def _lost(grant: Grant, record: LockRecord | None) -> FencedError:
    return FencedError(
        "the lease is no longer this holder's",
        remedy="stop the guarded work; ask for a new grant",
        lock=grant.name,
        token=grant.token,
        current_token=record.epoch if record else "none",
        holder=record.owner if record and record.state == "held" else "",
    )

"""Leases in the object store: one small object per lock, conditional writes, no clock in common.

Protocol (docs/protocols/lease.md)
----------------------------------
*Before.* ``cluster/locks/<name>.json`` is absent, free or held. It is never deleted. Every write carries a
fresh nonce, so no two versions share an ETag (an ETag may be a checksum of the content).

*Grant.*

1. GET the record (ETag E).
2. Absent → PUT-if-absent with epoch 1. Free → PUT-if-match E with epoch + 1.
3. Held → remember (E, my monotonic now). Only when the same E is still there after the lease's length and a
   tenth, all measured on *my* clock, PUT-if-match E with epoch + 1. Until then LEASE_HELD. ``force`` skips the
   wait and leaves a log event.

*Renew.* PUT-if-match with the same epoch and a new nonce; the deadline counts from before the PUT was sent.
*Release.* The same, with state free. *Break* (``force_release``): state free with epoch + 1. *Reserve*: state free
with epoch + n, for a backend that hands out those n tokens itself (``brainy.locks.redis``).

*Every PUT:* won → done. Lost or unknown → read back: my nonce → won. Another's → lost. Unchanged ETag → send
the same bytes again, with back-off, until definite or until the lease would be over.

*After a grant.* The token is above all earlier ones of the name, for each grant swaps the version it read. Two
holders can believe they hold the lock at once only if their clocks' *rates* differ by more than a tenth or one
was stopped; then the older one's token is the lower one, and the guarded resource refuses it.

*If the holder crashes* at any step: either the record is as before, or held by a holder that never renews;
after the lease and a tenth another takes it.

*Cancel safety.* A cancelled call may or may not have written. A lease nobody knows of ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from brainy.bucket import layout
from brainy.clock import Clock
from brainy.errors import FencedError, LeaseHeldError, NotFoundError, OutcomeUnknownError, UnavailableError
from brainy.ids import Ids
from brainy.locks import record as lease
from brainy.locks.base import Grant, LockState
from brainy.locks.record import LockRecord
from brainy.store.base import ObjectStore, PutOutcome, PutState, StoredObject
from brainy.telemetry.logs import get_logger

#: Races a grant loses before it says LEASE_HELD.
_MAX_RACES: Final = 8
_POLL_MIN: Final = 0.1
_POLL_MAX: Final = 0.4
_BACKOFF_FIRST: Final = 0.05
_BACKOFF_MAX: Final = 2.0
#: How long a write that is not a lease is sent again before its outcome is given up as unknown.
_SETTLE_SECONDS: Final = 30.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """A record as it was read or written."""

    record: LockRecord
    etag: str


@dataclass(slots=True)
class _Watch:
    """Since when, on our clock, an ETag has been seen."""

    etag: str
    since: float


class ObjectStoreLocks:
    """``LockProvider`` over an ``ObjectStore``; see the module for the protocol.

    Keeps, per name, what it saw last: to measure how long a record stays unchanged, and to renew with one
    request. Losing that memory costs patience, never safety.
    """

    def __init__(self, store: ObjectStore, clock: Clock, ids: Ids) -> None:
        """Prepare; nothing is read or written."""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._watches: dict[str, _Watch] = {}
        self._own: dict[str, _Version] = {}
        #: Highest token seen, per name: a floor in case a third party deletes the record.
        self._highest: dict[str, int] = {}

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
        for _ in range(_MAX_RACES):
            asked_at = self._clock.monotonic()
            current = await self._read(name)
            if current is not None and current.record.state == "held":
                left = self._watch(name, current, asked_at)
                if left > 0 and not force:
                    raise _held(name, current.record, left)
                if force:
                    _log.warning(
                        "lock_forced",
                        lock=name,
                        by=owner,
                        from_owner=current.record.owner,
                        token=current.record.epoch,
                    )
            wanted = lease.granted(
                current.record if current else None,
                owner=owner,
                incarnation=incarnation,
                ttl_seconds=ttl_seconds,
                purpose=purpose,
                nonce=self._ids.nonce().hex(),
                floor=self._highest.get(name, 0),
            )
            sent_at = self._clock.monotonic()
            until = lease.deadline(sent_at, ttl_seconds)
            if await self._swap(name, wanted, current, until):
                _log.info("lock_granted", lock=name, owner=owner, token=wanted.epoch)
                return _grant(name, wanted, until)
        found = await self._read(name)
        if found is None or found.record.state == "free":
            raise LeaseHeldError("too many others want this lock", remedy="retry", lock=name, retry_after=0)
        raise _held(name, found.record, self._watch(name, found, self._clock.monotonic()))

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
        """Wait for the lock until the monotonic time ``wait_until``; see ``LockProvider``."""
        pause = _POLL_MIN
        while True:
            try:
                return await self.grant(
                    name, owner=owner, incarnation=incarnation, ttl_seconds=ttl_seconds, purpose=purpose
                )
            except LeaseHeldError as held:
                left = wait_until - self._clock.monotonic()
                if left <= 0:
                    raise
                # Not later than the moment at which the lease has run out for certain.
                patience = float(held.fields["retry_after"]) or pause
                await self._clock.sleep(min(left, patience, self._ids.jitter(pause / 2, pause)))
                pause = min(_POLL_MAX, pause * 2)

    async def renew(self, grant: Grant) -> Grant:
        """Begin the lease anew, with the same token; see ``LockProvider``."""
        while True:
            sent_at = self._clock.monotonic()
            if sent_at >= grant.deadline:
                raise FencedError(
                    "the lease ended before it was renewed",
                    remedy="stop the guarded work; ask for a new grant",
                    lock=grant.name,
                    token=grant.token,
                )
            current = await self._own_version(grant)
            wanted = lease.renewed(current.record, nonce=self._ids.nonce().hex())
            if await self._swap(grant.name, wanted, current, grant.deadline):
                return _grant(grant.name, wanted, lease.deadline(sent_at, grant.ttl_seconds))
            # Another call of this holder may have renewed meanwhile: look again, the token decides.
            self._own.pop(grant.name, None)

    async def release(self, grant: Grant) -> None:
        """Give the lock back; see ``LockProvider``."""
        until = self._clock.monotonic() + grant.ttl_seconds
        sent = False
        while True:
            try:
                current = await self._own_version(grant, released=True)
            except FencedError:
                if sent:  # a successor of what we sent to replace: ours may have landed, and it matters no more
                    return
                raise
            if current.record.state == "free":
                return
            sent = True
            wanted = lease.freed(current.record, nonce=self._ids.nonce().hex())
            if await self._swap(grant.name, wanted, current, until):
                self._own.pop(grant.name, None)
                _log.info("lock_released", lock=grant.name, owner=grant.owner, token=grant.token)
                return
            self._own.pop(grant.name, None)

    async def force_release(self, name: str, *, by: str, reason: str) -> LockState:
        """Take the lock from its holder and leave it free; see ``LockProvider``."""
        lease.check_name(name)
        lease.check_breaker(by)
        for _ in range(_MAX_RACES):
            current = await self._read(name)
            if current is None:
                raise NotFoundError("nobody ever held this lock", remedy="check the name", lock=name)
            floor = self._highest.get(name, 0)
            wanted = lease.broken(current.record, by=by, reason=reason, nonce=self._ids.nonce().hex(), floor=floor)
            if await self._swap(name, wanted, current, self._clock.monotonic() + _SETTLE_SECONDS):
                _log.warning(
                    "lock_broken",
                    lock=name,
                    by=by,
                    reason=reason,
                    from_owner=current.record.owner if current.record.state == "held" else "",
                    token=wanted.epoch,
                )
                return self._state(name, self._own.pop(name), self._clock.monotonic())
        raise LeaseHeldError("too many others want this lock", remedy="retry", lock=name, retry_after=0)

    async def reserve(self, name: str, *, count: int, floor: int, owner: str, block: str) -> int | None:
        """Set tokens aside for another backend that hands them out itself; one GET and one PUT.

        Returns:
            The last of ``count`` tokens, all above every token of the record and above ``floor``; every later
            grant from the record lies above them. None when another party wrote the record meanwhile.

        Raises:
            LeaseHeldError: somebody holds this lock in the store; as in ``grant``.
            OutcomeUnknownError: the store did not say; the tokens may be lost, which is harmless.
        """
        lease.check_name(name)
        asked_at = self._clock.monotonic()
        current = await self._read(name)
        if current is not None and current.record.state == "held":
            left = self._watch(name, current, asked_at)
            if left > 0:
                raise _held(name, current.record, left)
        wanted = lease.reserved(
            current.record if current else None,
            floor=max(floor, self._highest.get(name, 0)),
            count=count,
            owner=owner,
            block=block,
            nonce=self._ids.nonce().hex(),
        )
        if not await self._swap(name, wanted, current, self._clock.monotonic() + _SETTLE_SECONDS):
            return None
        self._own.pop(name, None)
        _log.info("lock_tokens_reserved", lock=name, by=owner, up_to=wanted.epoch)
        return wanted.epoch

    async def describe(self, name: str) -> LockState | None:
        """Return a lock's state; see ``LockProvider``."""
        lease.check_name(name)
        asked_at = self._clock.monotonic()
        found = await self._read(name)
        return None if found is None else self._state(name, found, asked_at)

    async def list(self, prefix: str = "") -> Sequence[LockState]:
        """Return the state of every lock whose name starts with ``prefix``; see ``LockProvider``."""
        lease.check_prefix(prefix)
        suffix = len(".json")
        names = [
            meta.key[len(layout.LOCKS) : -suffix]
            async for page in self._store.list(layout.LOCKS + prefix)
            for meta in page
            if meta.key.endswith(".json")
        ]
        asked_at = self._clock.monotonic()
        states = []
        for name, found in zip(names, await self._store.get_many([layout.lock(name) for name in names]), strict=True):
            if isinstance(found, Exception):
                raise found
            if found is not None:
                states.append(self._state(name, self._version(name, found), asked_at))
        return sorted(states, key=lambda state: state.name)

    async def close(self) -> None:
        """Nothing to give back: the store is the caller's."""

    async def _read(self, name: str) -> _Version | None:
        found = await self._store.get(layout.lock(name))
        if found is None:
            if name in self._highest:
                _log.error("lock_record_deleted", lock=name, highest_token=self._highest[name])
            return None
        return self._version(name, found)

    def _version(self, name: str, found: StoredObject) -> _Version:
        record = LockRecord.decode(found.body, key=found.key)
        self._highest[name] = max(record.epoch, self._highest.get(name, 0))
        return _Version(record=record, etag=found.etag)

    def _watch(self, name: str, seen: _Version, asked_at: float) -> float:
        """Note a held record; return the seconds it must still stay unchanged (0: may be taken)."""
        watch = self._watches.get(name)
        if watch is None or watch.etag != seen.etag:
            # Seen at some moment up to now: counting from now can only wait too long.
            self._watches[name] = _Watch(seen.etag, self._clock.monotonic())
            return lease.patience(seen.record)
        # Still there at some moment after the question was sent: counting up to that can only wait too long.
        return max(0.0, lease.patience(seen.record) - (asked_at - watch.since))

    def _state(self, name: str, found: _Version, asked_at: float) -> LockState:
        record = found.record
        self._watch(name, found, asked_at)
        return LockState(
            name=name,
            token=record.epoch,
            held=record.state == "held",
            owner=record.owner,
            incarnation=record.incarnation,
            ttl_seconds=record.lease_ms / 1000,
            renewals=record.renew_seq,
            purpose=record.purpose,
            unchanged_seconds=max(0.0, asked_at - self._watches[name].since),
        )

    async def _own_version(self, grant: Grant, *, released: bool = False) -> _Version:
        """Return the record of a grant as it lies in the bucket; FENCED if another's does.

        With ``released`` also the record of a grant that was given back is one of its own.
        """
        known = self._own.get(grant.name)
        if known is not None and _is(grant, known.record):
            return known
        found = await self._read(grant.name)
        if found is not None and released and _was(grant, found.record):
            return found
        if found is None or not _is(grant, found.record):
            fields = {"lock": grant.name, "token": grant.token}
            if found is not None:
                fields |= {"current_token": found.record.epoch, "holder": found.record.owner}
            _log.warning("lock_lost", **fields)
            raise FencedError(
                "the lease is no longer this holder's",
                remedy="stop the guarded work; ask for a new grant",
                lock=grant.name,
                token=grant.token,
                current_token=found.record.epoch if found else "none",
                holder=found.record.owner if found and found.record.state == "held" else "",
            )
        return found

    async def _swap(self, name: str, wanted: LockRecord, current: _Version | None, until: float) -> bool:
        """Replace ``current`` by ``wanted``; say whether that was won. Says only what is certain.

        Raises:
            OutcomeUnknownError: nothing certain was learnt by the monotonic time ``until``.
        """
        key = layout.lock(name)
        body = wanted.encode()
        before = current.etag if current else None
        pause = _BACKOFF_FIRST
        while True:
            outcome = await self._put(key, body, before)
            if outcome.won:
                return self._won(name, wanted, outcome.etag)
            try:
                found = await self._read(name)
            except UnavailableError:
                pass  # nothing learnt
            else:
                if found is not None and found.record.nonce == wanted.nonce:
                    return self._won(name, wanted, found.etag)
                # The version we meant to replace is gone. Had our write landed, a successor of it is there,
                # and a successor means that somebody else decides by now: lost either way.
                if (found.etag if found else None) != before:
                    return False
            if self._clock.monotonic() >= until:
                raise OutcomeUnknownError(
                    "the store did not say whether the lock was written",
                    remedy="wait for the lease to end, or ask again",
                    lock=name,
                    token=wanted.epoch,
                )
            await self._clock.sleep(self._ids.jitter(pause / 2, pause))
            pause = min(_BACKOFF_MAX, pause * 2)

    async def _put(self, key: str, body: bytes, etag: str | None) -> PutOutcome:
        try:
            if etag is None:
                return await self._store.put_if_absent(key, body)
            return await self._store.put_if_match(key, body, etag)
        except (UnavailableError, OutcomeUnknownError) as error:
            return PutOutcome(state=PutState.UNKNOWN, detail=str(error))

    def _won(self, name: str, wanted: LockRecord, etag: str) -> bool:
        self._own[name] = _Version(record=wanted, etag=etag)
        self._highest[name] = max(wanted.epoch, self._highest.get(name, 0))
        return True


def _is(grant: Grant, record: LockRecord) -> bool:
    return lease.holds(record, token=grant.token, owner=grant.owner, incarnation=grant.incarnation)


def _was(grant: Grant, record: LockRecord) -> bool:
    return lease.belongs(record, token=grant.token, owner=grant.owner, incarnation=grant.incarnation)


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


def _held(name: str, record: LockRecord, left: float) -> LeaseHeldError:
    return LeaseHeldError(
        "another holder has this lock",
        remedy="wait and retry",
        lock=name,
        holder=record.owner,
        token=record.epoch,
        retry_after=f"{left:.3f}",
    )

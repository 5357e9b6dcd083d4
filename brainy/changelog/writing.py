"""The one who may append to a shard's change log.

Protocol (docs/protocols/change-log.md)
---------------------------------------
*Before.* Routing names this node owner of the shard at ``epoch``; the owner has replayed the log and hands in
``next_position``, one past its end. No clock takes part in any of this but in *Proof*, where it only saves a read.

*Fence* (``fence``), the owner's first act:

1. Read the object before ``next_position``. Its epoch is above ours → FENCED. It does not end right before
   ``next_position`` → the caller's replay was wrong; stop. Where the log is collected up to there, the manifest's
   epoch stands for it; where it is collected further, the caller's base is too old: LOG_COLLECTED.
2. PUT-if-absent a batch holding one Fence record, our epoch and a fresh nonce, at ``next_position``.
3. Won → this is the owner. Taken by another at our epoch or below → that batch is part of the log: hand it to
   the caller to apply, step past it, go to 2 (at most ``MAX_FENCE_LOSSES`` times). Above ours → FENCED.

*Commit* (``commit``): PUT-if-absent the batch (our epoch, a fresh nonce) at ``next_position``.

======== ============================== ==================================================================
outcome  what the key holds             what that means
======== ============================== ==================================================================
WON      —                              durable; ``next_position`` moves past it
LOST     our nonce                      an earlier send of ours landed: won
LOST     other's, epoch ≥ ours          a newer owner fenced us: FENCED, for good
LOST     other's, epoch < ours          impossible after our fence: stop, CORRUPT_DATA
UNKNOWN  as above, when there is one    as above
either   nothing                        send the *same bytes* again, with back-off, until definite
======== ============================== ==================================================================

An equal epoch from another writer means the same owner opened the shard a second time; the later fence wins.

*Proof* (``_prove``). A log may be collected (``brainy.changelog.collection``), and create-if-absent forgets what
was deleted. So a PUT that was won shows ownership only if its key was never given up. It was not, if less than
``proof_seconds`` (half the retention) lie between the moment *before* the last proven PUT was sent and the answer to
this one, on a clock that counts suspension: a slot of another owner in this place would have been written after
that moment, and kept for the retention. Otherwise, and for every fence, the position given up is read after the
win: below this batch → proven; at or above it → the key had been another's and was deleted: FENCED, nothing is
acknowledged, and what was written lies where nobody reads.

*After.* At most one batch per position, positions without holes, epochs that never fall: after a fence at epoch
e was won, no batch below e can ever appear behind it, because an older owner's next PUT aims at or before the
fence, finds the key taken, and reads the higher epoch.

*If it crashes* before the PUT: nothing happened. While the PUT is under way: it landed or not; the next owner
finds it by replay or takes the key first. After it landed and before anyone was told: the records are durable
and unacknowledged; the caller's retry carries the same request id and gets the first position.

*Cancel safety.* A cancelled ``fence`` or ``commit`` may have left a PUT under way, so the writer closes itself;
replay and open a new one. (``GroupCommit`` never lets a caller's cancellation reach this far.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.records import Manifest
from brainy.changelog.batch import FORMAT_VERSION, Draft, Slot, decode_slot, encode_record
from brainy.changelog.collection import RETENTION_SECONDS, collected_error, collected_position
from brainy.changelog.reading import slot_holding
from brainy.clock import Clock
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome, PutState
from brainy.telemetry.logs import get_logger

#: Slots of others a fence steps past before it gives up (SlateDB bounds the same race).
MAX_FENCE_LOSSES: Final = 64

_BACKOFF_FIRST = 0.05
_BACKOFF_MAX = 5.0

_log = get_logger(__name__)


class LogWriter:
    """Appends to one shard's change log under one epoch; see the module for the protocol.

    Not concurrent: one call at a time. After an error other than a refusal of the very first send it is
    closed, and every further call raises that error again.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        generation: int,
        shard: int,
        epoch: int,
        writer_node: str,
        incarnation: str,
        ids: Ids,
        clock: Clock,
        next_position: int,
        proof_seconds: float = RETENTION_SECONDS / 2,
    ) -> None:
        """Prepare; nothing is read or written before ``fence``."""
        self._store = store
        self._generation = generation
        self._shard = shard
        self._epoch = epoch
        self._log_prefix = layout.log(generation, shard)
        self._writer_node = writer_node
        #: Of the next batch, but for its nonce and its first position.
        self._header = log_pb2.LogBatch(
            format_version=FORMAT_VERSION,
            generation=generation,
            shard=shard,
            epoch=epoch,
            writer=log_pb2.Writer(node_id=writer_node, incarnation=incarnation),
        )
        self._ids = ids
        self._clock = clock
        self._next = next_position
        self._fenced_in = False
        self._proof_seconds = proof_seconds
        #: Before the last proven PUT was sent.
        self._proved_at = float("-inf")
        self._closed: BrainyError | None = None

    @property
    def epoch(self) -> int:
        """Epoch of this ownership."""
        return self._epoch

    @property
    def next_position(self) -> int:
        """Position the next record gets; everything below it is durable."""
        return self._next

    @property
    def closed(self) -> BrainyError | None:
        """Why this writer can no longer be used, or None."""
        return self._closed

    async def fence(self) -> list[Slot]:
        """Become the writer: commit a Fence record.

        Returns:
            The slots found on the way that the caller has not applied, in order, then the own fence.

        Raises:
            FencedError: the log already holds a higher epoch.
            LogCollectedError: the log was collected past ``next_position``; replay from the newest checkpoint.
            UnavailableError: too many slots were in the way (replay and try again), or the store is away.
            CorruptDataError: ``next_position`` is not the end of the log.
        """
        self._check_open()
        try:
            await self._check_end_of_log()
            passed: list[Slot] = []
            while len(passed) < MAX_FENCE_LOSSES:
                record = log_pb2.LogRecord(
                    written_at=Timestamp(seconds=int(self._clock.wall())),
                    fence=log_pb2.Fence(owner=self._writer_node),
                )
                sent_at = self._clock.monotonic()
                slot, ours = await self._place(self._draft([encode_record(record)], None))
                passed.append(slot)
                if ours:
                    if (collected := await self._collected()) >= slot.first:
                        raise self._given_up(slot.first, collected)
                    self._fenced_in, self._proved_at = True, sent_at
                    _log.info("log_fenced", log=self._log_prefix, epoch=self._epoch, passed=len(passed) - 1)
                    return passed
                if slot.epoch > self._epoch:
                    raise self._fenced(slot)
                self._next = slot.last + 1
        except BaseException as error:
            self._close(error)
            raise
        raise self._close(
            UnavailableError(
                "another writer kept extending the log while it was being fenced",
                reason="SHARD_NOT_READY",
                remedy="replay the log and fence again",
                log=self._log_prefix,
                epoch=self._epoch,
            )
        )

    async def commit(
        self,
        records: Sequence[log_pb2.LogRecord],
        source_cursor: Mapping[int, int] | None = None,
        source_generation: int | None = None,
    ) -> Slot:
        """Append records as one object. Durable when this returns.

        Args:
            records: in order; they get consecutive positions from ``next_position`` on. May be empty when a
                cursor is given: an Advance record then carries it.
            source_cursor: source shard -> position included once this batch is applied.
            source_generation: the generation of these positions.

        Raises:
            FencedError: a newer owner exists; terminal.
            InvalidRequestError: no records and no cursor, or too many records; nothing was written.
            PermissionDeniedError: the store refuses; nothing was written.
            CorruptDataError: the log holds what cannot be there; terminal.
        """
        return await self.commit_encoded(
            [encode_record(record) for record in records], source_cursor, source_generation
        )

    async def commit_encoded(
        self,
        encoded: Sequence[bytes],
        source_cursor: Mapping[int, int] | None = None,
        source_generation: int | None = None,
    ) -> Slot:
        """As ``commit``, of records that ``encode_record`` encoded."""
        self._check_open()
        if not self._fenced_in:
            raise PreconditionError("fence the log before the first commit", log=self._log_prefix, epoch=self._epoch)
        if not encoded:
            if not source_cursor:
                raise InvalidRequestError("a batch needs records or a cursor", log=self._log_prefix, epoch=self._epoch)
            stamp = Timestamp(seconds=int(self._clock.wall()))
            encoded = [encode_record(log_pb2.LogRecord(written_at=stamp, advance=log_pb2.Advance()))]
        draft = self._draft(encoded, source_cursor, source_generation)
        try:
            sent_at = self._clock.monotonic()
            slot, ours = await self._place(draft)
            if ours:
                await self._prove(slot, sent_at)
                return slot
            if slot.epoch >= self._epoch or await self._collected() >= slot.first:
                raise self._fenced(slot)
            raise CorruptDataError(
                "a batch of an older epoch lies behind this owner's fence",
                remedy="stop every writer of the shard and scrub its log",
                data_safe=False,
                log=self._log_prefix,
                epoch=self._epoch,
                found_epoch=slot.epoch,
            )
        except (InvalidRequestError, PermissionDeniedError):
            raise  # refused before anything was sent, or on the only send: nothing is in doubt
        except BaseException as error:
            self._close(error)
            raise

    def _draft(
        self,
        encoded: Sequence[bytes],
        source_cursor: Mapping[int, int] | None,
        source_generation: int | None = None,
    ) -> Draft:
        self._header.writer.nonce = self._ids.nonce()
        self._header.first_position = self._next
        return Draft(self._header, encoded, source_cursor, source_generation)

    async def _place(self, draft: Draft) -> tuple[Slot, bool]:
        """Put a batch at its key; return what the key holds for certain, and whether that is ours."""
        key = layout.log_slot(self._generation, self._shard, draft.first)
        # Runs while the PUT is under way, so that it is not between the answer and the next PUT.
        asyncio.get_running_loop().call_soon(draft.slot)
        pause = _BACKOFF_FIRST
        sends = 0
        while True:
            outcome = await self._send(key, draft.body, definite=sends == 0)
            sends += 1
            if outcome.won:
                return self._mine(draft), True
            found = await self._read_back(key)
            if found is not None:
                if found.batch.writer.nonce == draft.nonce:
                    return self._mine(draft), True
                return found, False
            # Nobody knows, and nothing is there (yet): only the same bytes may follow, never new ones, because
            # the first send may still land.
            _log.warning(
                "log_put_unresolved",
                log=self._log_prefix,
                epoch=self._epoch,
                position=self._next,
                sends=sends,
                detail=outcome.detail,
            )
            await self._clock.sleep(self._ids.jitter(pause / 2, pause))
            pause = min(_BACKOFF_MAX, pause * 2)

    async def _send(self, key: str, body: bytes, *, definite: bool) -> PutOutcome:
        try:
            return await self._store.put_if_absent(key, body)
        except (UnavailableError, OutcomeUnknownError) as error:
            return PutOutcome(state=PutState.UNKNOWN, detail=str(error))
        except PermissionDeniedError as error:
            if definite:
                raise
            # An earlier send may have landed: the refusal says nothing of it.
            raise OutcomeUnknownError(
                "the store began to refuse while a write was unresolved",
                remedy="restore the permission and open the shard again; replay tells whether it landed",
                log=self._log_prefix,
                epoch=self._epoch,
            ) from error

    async def _read_back(self, key: str) -> Slot | None:
        try:
            found = await self._store.get(key)
        except (UnavailableError, OutcomeUnknownError):
            return None
        return None if found is None else decode_slot(found.body, key=key)

    def _mine(self, draft: Draft) -> Slot:
        slot = draft.slot()
        self._next = slot.last + 1
        return slot

    async def _prove(self, slot: Slot, sent_at: float) -> None:
        if self._clock.monotonic() - self._proved_at >= self._proof_seconds:
            collected = await self._collected()
            if collected >= slot.first:
                _log.warning("log_stray_left", log=self._log_prefix, epoch=self._epoch, position=slot.first)
                raise FencedError(
                    "this shard's log went on without this owner while it stood still",
                    remedy="stop writing; ask routing who owns the shard",
                    log=self._log_prefix,
                    epoch=self._epoch,
                    position=slot.first,
                    collected=collected,
                )
        self._proved_at = sent_at

    async def _collected(self) -> int:
        # After a won PUT there is no other way to an answer: wait for the store.
        pause = _BACKOFF_FIRST
        while True:
            try:
                return await collected_position(self._store, self._generation, self._shard)
            except (UnavailableError, OutcomeUnknownError) as error:
                _log.warning("log_proof_unread", log=self._log_prefix, epoch=self._epoch, cause=str(error))
            await self._clock.sleep(self._ids.jitter(pause / 2, pause))
            pause = min(_BACKOFF_MAX, pause * 2)

    def _given_up(self, position: int, collected: int) -> UnavailableError:
        return collected_error(self._generation, self._shard, position=position, collected=collected)

    async def _check_end_of_log(self) -> None:
        # A stale owner whose replay started above the newer owner's fence (its base already includes it) would
        # not have seen that epoch; the last object tells.
        if self._next <= 1:
            return
        before = await slot_holding(self._store, self._generation, self._shard, self._next - 1)
        # Read after the slot: a slot above it was never deleted, so it is what its owner wrote.
        collected = await collected_position(self._store, self._generation, self._shard)
        if collected >= self._next:
            raise self._given_up(self._next, collected)
        if collected == self._next - 1:
            await self._check_manifest_epoch()
            return
        if before is None or before.last != self._next - 1:
            raise CorruptDataError(
                "the position to write at is not the end of a change-log object",
                remedy="replay the log from the base's position and open the shard again",
                log=self._log_prefix,
                epoch=self._epoch,
                next_position=self._next,
            )
        if before.epoch > self._epoch:
            raise self._fenced(before)

    async def _check_manifest_epoch(self) -> None:
        # Whoever published a manifest at this position had applied everything below, so its epoch is no lower.
        key = layout.manifest(self._generation, self._shard)
        found = await self._store.get(key)
        if found is None:
            raise CorruptDataError(
                "a log was collected, and no manifest covers it",
                remedy="restore the manifest from a copy",
                data_safe=False,
                key=key,
            )
        epoch = Manifest.decode(found.body, key=key).epoch
        if epoch > self._epoch:
            raise FencedError(
                "a newer owner has published this shard",
                remedy="stop writing; ask routing who owns the shard",
                log=self._log_prefix,
                epoch=self._epoch,
                current_epoch=epoch,
            )

    def _fenced(self, found: Slot) -> FencedError:
        return FencedError(
            "a newer owner writes this shard",
            remedy="stop writing; ask routing who owns the shard",
            log=self._log_prefix,
            epoch=self._epoch,
            current_epoch=found.epoch,
            current_owner=found.batch.writer.node_id,
        )

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _close(self, error: BaseException) -> BrainyError:
        if isinstance(error, BrainyError):
            self._closed = error
        else:
            self._closed = OutcomeUnknownError(
                "a write was interrupted before its outcome was known",
                remedy="replay the log and open the shard again",
                log=self._log_prefix,
                epoch=self._epoch,
            )
        _log.warning("log_writer_closed", log=self._log_prefix, epoch=self._epoch, reason=self._closed.reason)
        return self._closed

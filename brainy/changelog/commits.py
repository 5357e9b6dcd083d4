"""Group commit: many concurrent writers, few PUTs.

Protocol
--------
*Before.* The ``LogWriter`` has fenced the log. The owner runs ``run()`` in one task; any number of tasks call
``commit``.

*Steps* of ``run``, over and over:

1. Wait until a request waits and no pause is in force.
2. Take requests in order of arrival until the batch is full. A request is never split: its records get
   consecutive positions in one object, so they become visible together.
3. One PUT (``LogWriter.commit``). While it is under way new requests gather; they are the next batch. Under
   load the batch size thus follows the latency of the store, without any artificial delay.
4. ``on_slot(slot)``: the owner applies the slot to its shard.
5. Answer the callers with the position of their last record.

*After.* A caller that got a position finds its records durable in the bucket and applied at the owner. All
records of a slot are applied in one step, so any position of the slot names all of it.

*Repeats.* Each record carries its own ``request_id``; a record is committed once. While it waits or is in flight, a
repeat waits for the same answer; afterwards ``known(request_id)`` says the position it had. Of a request that is
repeated in another grouping (the shard count changed meanwhile) only the records that are new are committed. Batches
that carry a source cursor are copies of another generation's records and are never taken for repeats.

*Conditions.* A record with ``expected`` set is left out of its batch unless the item in place then has that digest
(empty: unless there is none); "then" is after every earlier record, those of the same batch included. What is left out
is answered like the rest. The condition itself is never stored.

*If it crashes* before step 3's PUT lands: nothing was written, nobody was answered. After it: the records are
in the log, the next owner applies them by replay, and a retry is recognised by its request id.

*Cancel safety.* A cancelled caller stops waiting and nothing else: its records may or may not be committed, as
with a lost answer. Cancelling ``run`` closes this object: every waiting caller gets UNAVAILABLE, those in
flight OUTCOME_UNKNOWN.

*Ends.* FENCED, corruption or a failure of ``on_slot`` fail every waiting caller and close it for good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import noun_from_proto, verb_from_proto
from brainy.changelog.batch import MAX_SLOT_RECORDS, Slot
from brainy.changelog.writing import LogWriter
from brainy.clock import Clock
from brainy.errors import (
    BrainyError,
    InvalidRequestError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnavailableError,
)
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """Bounds of a batch and of what may wait."""

    #: A batch takes no further request once it has so many records or bytes.
    batch_records: int = 4_096
    batch_bytes: int = 8 << 20
    #: More bytes than this waiting: BUFFER_FULL.
    waiting_bytes: int = 256 << 20
    #: Wait this long after the first request of a batch; 0 sends at once.
    linger_seconds: float = 0.0


_DEFAULT_LIMITS: Final = GroupLimits()


@dataclass(slots=True, kw_only=True)
class _Request:
    records: Sequence[log_pb2.LogRecord]
    source_cursor: Mapping[int, int]
    size: int
    #: Those of ``records`` whose condition held, once a batch has taken the request.
    kept: Sequence[log_pb2.LogRecord] = ()
    future: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """The queue in front of one shard's ``LogWriter``; see the module for the protocol."""

    def __init__(
        self,
        writer: LogWriter,
        *,
        known: Callable[[str], int | None],
        on_slot: Callable[[Slot], None],
        clock: Clock,
        limits: GroupLimits = _DEFAULT_LIMITS,
        in_place: Callable[[log_pb2.LogRecord], bytes] | None = None,
    ) -> None:
        """Prepare.

        Args:
            writer: has fenced the log; from now on only this object calls it.
            known: position of a request id that was committed before, or None.
            on_slot: applies a durable slot; must not block. Called in order, before the callers are answered.
            clock: for ``linger_seconds``.
            limits: bounds of batches and of the queue.
            in_place: digest of the item that an upsert would replace, b"" for none; None refuses conditions.
        """
        self._writer = writer
        self._known = known
        self._on_slot = on_slot
        self._clock = clock
        self._limits = limits
        self._in_place = in_place
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        #: Requests that wait or are in flight, by request id.
        self._pending: dict[str, _Request] = {}
        self._in_flight: Sequence[_Request] = ()
        self._paused = False
        #: Something changed that ``run`` waits for.
        self._work = asyncio.Event()
        #: Set while no PUT is under way.
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: BrainyError | None = None

    @property
    def failure(self) -> BrainyError | None:
        """Why it is closed, or None while it is open."""
        return self._failure

    @property
    def durable_position(self) -> int:
        """Last position known to be durable."""
        return self._writer.next_position - 1

    @property
    def waiting(self) -> int:
        """Requests that no PUT has taken yet."""
        return len(self._waiting)

    def unsettled(self) -> Iterator[log_pb2.LogRecord]:
        """Yield the records that wait or are in flight: those that get the next positions, in that order."""
        for request in (*self._in_flight, *self._waiting):
            yield from request.records

    async def commit(
        self,
        records: Sequence[log_pb2.LogRecord],
        source_cursor: Mapping[int, int] | None = None,
    ) -> int:
        """Commit records together; returns the position of the last one, durable and applied.

        Raises:
            FencedError: a newer owner exists; terminal.
            UnavailableError: closed, stopped while waiting, or BUFFER_FULL; nothing was written.
            OutcomeUnknownError: stopped while the PUT was under way.
            InvalidRequestError: no records, or more than one object can hold.
        """
        if self._failure is not None:
            raise self._failure
        if self._in_place is None and any(record.HasField("expected") for record in records):
            raise InvalidRequestError("this log takes no conditions", remedy="send the records without conditions")
        if not (records or source_cursor) or len(records) > MAX_SLOT_RECORDS:
            raise InvalidRequestError(
                "a commit needs at least one record and fits into one change-log object",
                reason="BATCH_TOO_LARGE" if records else "INVALID_ARGUMENT",
                remedy="split the request; nothing was written",
                records=len(records),
                maximum=MAX_SLOT_RECORDS,
            )
        position = 0
        shared: list[_Request] = []
        fresh = list(records) if source_cursor else []
        for record in () if source_cursor else records:
            earlier = self._known(record.request_id) if record.request_id else None
            pending = self._pending.get(record.request_id) if record.request_id else None
            if earlier is not None:
                position = max(position, earlier)
            elif pending is None:
                fresh.append(record)
            elif not shared or shared[-1] is not pending:
                shared.append(pending)
        if fresh or source_cursor:
            shared.append(self._enqueue(fresh, source_cursor or {}))
        for request in shared:
            # Shielded: the caller may go away, the request and its future stay.
            position = max(position, await asyncio.shield(request.future))
        return position

    async def drain(self) -> int:
        """Commit everything that waits, then pause; returns the last durable position.

        The caller keeps new requests away meanwhile.

        Raises:
            BrainyError: it is closed; the error that closed it.
        """
        while self._waiting and self._failure is None:
            await asyncio.wait([self._waiting[-1].future])
        return await self.pause()

    async def pause(self) -> int:
        """Send nothing more; wait until nothing is in flight; return the last durable position.

        Requests that wait stay in the queue, until ``resume`` or ``close``. Pausing twice is harmless.

        Raises:
            BrainyError: it is closed; the error that closed it.
        """
        self._paused = True
        await self._idle.wait()
        if self._failure is not None:
            raise self._failure
        return self.durable_position

    def resume(self) -> None:
        """Send again."""
        self._paused = False
        self._work.set()

    def close(self, error: BrainyError) -> None:
        """Fail every waiting request with ``error`` and accept no more; what is in flight is finished first.

        The first close decides: later ones change nothing.
        """
        if self._failure is None:
            self._failure = error
        self._fail(self._drain(), self._failure)
        self._work.set()

    async def run(self) -> BrainyError:
        """Commit until closed; returns why. Run it once, in a task of its own."""
        try:
            while self._failure is None:
                if not self._waiting or self._paused:
                    self._work.clear()
                    await self._work.wait()
                    continue
                if self._limits.linger_seconds > 0:
                    await self._clock.sleep(self._limits.linger_seconds)
                if self._waiting and not self._paused:
                    await self._commit_batch(self._take())
            return self._failure
        finally:
            # Only a cancellation gets here with the object still open.
            self.close(
                UnavailableError("this shard's writer was stopped", reason="NOT_OWNER", remedy="retry elsewhere")
            )

    def _enqueue(self, records: Sequence[log_pb2.LogRecord], source_cursor: Mapping[int, int]) -> _Request:
        size = sum(record.ByteSize() for record in records)
        if self._waiting and self._waiting_bytes + size > self._limits.waiting_bytes:
            raise UnavailableError(
                "too many writes wait for the object store",
                reason="BUFFER_FULL",
                remedy="retry after a pause; nothing was written",
                waiting_bytes=self._waiting_bytes,
            )
        request = _Request(records=records, source_cursor=source_cursor, size=size)
        # Nobody may be left to collect a failure: the caller can have been cancelled.
        request.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append(request)
        self._waiting_bytes += size
        if not source_cursor:
            self._pending.update((record.request_id, request) for record in records if record.request_id)
        self._work.set()
        return request

    def _take(self) -> list[_Request]:
        limits = self._limits
        batch: list[_Request] = []
        records = size = 0
        while self._waiting:
            head = self._waiting[0]
            over = records + len(head.records) > limits.batch_records or size + head.size > limits.batch_bytes
            if batch and over:
                break
            batch.append(self._waiting.popleft())
            self._waiting_bytes -= head.size
            records += len(head.records)
            size += head.size
        return batch

    async def _commit_batch(self, batch: list[_Request]) -> None:
        records = self._fit(batch)
        cursor: dict[int, int] = {}
        for request in batch:
            for shard, position in request.source_cursor.items():
                cursor[shard] = max(position, cursor.get(shard, 0))
        if not (records or cursor):
            for request in batch:
                self._answer(request, self.durable_position)
            return
        self._idle.clear()
        self._in_flight = batch
        try:
            slot = await self._writer.commit(records, cursor)
            self._on_slot(slot)
            position = slot.first - 1
            for request in batch:
                position += len(request.kept)
                # A cursor without records is carried by the batch as a whole.
                self._answer(request, position if request.kept else slot.last)
        except (PermissionDeniedError, InvalidRequestError) as error:
            self._fail(batch, error)  # refused for certain, nothing written: the writer is still good
        except BrainyError as error:
            self._stop(batch, error)
        except asyncio.CancelledError:
            unknown = OutcomeUnknownError(
                "the writer was stopped while this write was under way",
                remedy="retry with the same request id",
            )
            self._fail(batch, unknown)
            raise
        except Exception as error:
            # The slot is durable, but the shard in memory no longer follows its log.
            _log.exception("slot_not_applied", position=self.durable_position)
            self._stop(
                batch,
                UnavailableError(
                    "a durable write could not be applied; the shard must be opened again",
                    reason="SHARD_NOT_READY",
                    remedy="retry with the same request id",
                    cause=repr(error),
                ),
            )
        finally:
            self._in_flight = ()
            self._idle.set()

    def _fit(self, batch: Sequence[_Request]) -> list[log_pb2.LogRecord]:
        """Return the records of a batch whose conditions hold."""
        if not any(record.HasField("expected") for request in batch for record in request.records):
            for request in batch:
                request.kept = request.records
            return [record for request in batch for record in request.records]
        fit: list[log_pb2.LogRecord] = []
        latest: dict[tuple[str, str], bytes] = {}
        for request in batch:
            kept: list[log_pb2.LogRecord] = []
            for record in request.records:
                name = item_of(record)
                if record.HasField("expected"):
                    held = latest.get(name)
                    if held is None and self._in_place is not None:
                        held = self._in_place(record)
                    if held != record.expected:
                        continue
                    kept.append(_unconditional(record))
                else:
                    kept.append(record)
                latest[name] = digest_of(record)
            request.kept = kept
            fit += kept
        return fit

    def _stop(self, batch: list[_Request], error: BrainyError) -> None:
        if self._failure is None:
            self._failure = error
        self._fail(batch, error)
        self.close(error)

    def _drain(self) -> list[_Request]:
        drained = list(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        return drained

    def _answer(self, request: _Request, position: int) -> None:
        self._forget(request)
        if not request.future.done():
            request.future.set_result(position)

    def _fail(self, requests: Sequence[_Request], error: BrainyError) -> None:
        for request in requests:
            self._forget(request)
            if not request.future.done():
                request.future.set_exception(error)

    def _forget(self, request: _Request) -> None:
        for record in request.records:
            if self._pending.get(record.request_id) is request:
                del self._pending[record.request_id]


def _unconditional(record: log_pb2.LogRecord) -> log_pb2.LogRecord:
    # A copy: whoever sent the record may have to send it again.
    copy = log_pb2.LogRecord()
    copy.CopyFrom(record)
    copy.ClearField("expected")
    return copy


def item_of(record: log_pb2.LogRecord) -> tuple[str, str]:
    """Return the space and the id of the item that a record changes; ("", "") for none."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return "noun", record.upsert_noun.id
        case "delete_noun":
            return "noun", record.delete_noun
        case "upsert_verb":
            return "verb", record.upsert_verb.id
        case "delete_verb":
            return "verb", record.delete_verb
        case _:
            return "", ""


def digest_of(record: log_pb2.LogRecord) -> bytes:
    """Return the digest of the item that a record leaves in place; b"" for none."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return noun_from_proto(record.upsert_noun).digest()
        case "upsert_verb":
            return verb_from_proto(record.upsert_verb).digest()
        case _:
            return b""

"""Group commit: many concurrent writers, few PUTs.

Protocol
--------
*Before.* The ``LogWriter`` has fenced the log. The owner runs ``run()`` in one task; any number of tasks call
``commit``.

*Steps* of ``run``, over and over:

1. Wait until a request waits and no pause is in force.
2. Take the oldest batch: requests in order of arrival, up to its bounds. A request is never split: its records
   get consecutive positions in one object, so they become visible together.
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

*Cancel safety.* Each caller waits for a future of its own. A cancelled caller stops waiting and nothing else: its
records may or may not be committed, as with a lost answer, and a repeat that waits for them is answered. Cancelling
``run`` closes this object: every waiting caller gets UNAVAILABLE, those in flight OUTCOME_UNKNOWN.

*Cost.* What the owner does between the answer to one PUT and the next PUT is waited for by every writer. So a record
is encoded when it arrives (mostly while a PUT is under way) and goes straight into the batch that is open
(``OpenBatch``), which is dropped whole once it is answered; a full one waits its turn behind those before it. A slot is
read from its bytes while its PUT is under way. A record must not be changed once ``commit`` was called with it.

*Ends.* FENCED, corruption or a failure of ``on_slot`` fail every waiting caller and close it for good.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import noun_from_proto, verb_from_proto
from brainy.changelog.batch import MAX_SLOT_RECORDS, Slot, encode_record
from brainy.changelog.open_batch import WHOLE, OpenBatch
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
    #: More encoded bytes than this waiting, beside the callers' own records: BUFFER_FULL.
    waiting_bytes: int = 256 << 20
    #: Wait this long after the first request of a batch; 0 sends at once.
    linger_seconds: float = 0.0


_DEFAULT_LIMITS: Final = GroupLimits()


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
        """Prepare, where the event loop of ``run`` and of all callers runs.

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
        self._future: Callable[[], asyncio.Future[int]] = asyncio.get_running_loop().create_future
        self._limits = limits
        self._in_place = in_place
        #: Takes what arrives, up to so many bytes.
        self._open = OpenBatch()
        self._room = 0
        self._most = limits.batch_records
        #: Those that take nothing more, in order: the one in flight, if any, then full ones that no PUT has taken.
        self._ahead: deque[OpenBatch] = deque()
        self._in_flight: OpenBatch | None = None
        self._open_anew()
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
        """Records that no PUT has taken yet."""
        return sum(len(batch.records) for batch in self._untaken())

    def unsettled(self) -> Iterator[log_pb2.LogRecord]:
        """Yield the records that wait or are in flight: those that get the next positions, in that order."""
        for batch in (*self._ahead, self._open):
            yield from batch.records

    def commit(
        self,
        records: Sequence[log_pb2.LogRecord],
        source_cursor: Mapping[int, int] | None = None,
    ) -> Awaitable[int]:
        """Commit records together; awaited at once, it says the position of the last one, durable and applied.

        Not a coroutine: a frame of its own for every write is one more thing that all other writers wait for.

        Raises:
            FencedError: a newer owner exists; terminal.
            UnavailableError: closed, stopped while waiting, or BUFFER_FULL; nothing was written.
            OutcomeUnknownError: stopped while the PUT was under way.
            InvalidRequestError: no records, or more than one object can hold.
        """
        if self._failure is not None:
            raise self._failure
        if len(records) == 1 and not source_cursor:
            # The most frequent call by far, and all other writers wait for it: ``OpenBatch.add`` and ``wait`` in place.
            record, batch = records[0], self._open
            request_id = record.request_id
            if (
                request_id
                and not record.HasField("expected")
                and request_id not in batch.ids
                and self._known(request_id) is None
                and not (self._ahead and self._pending(request_id))
            ):
                encoded = encode_record(record)
                size = batch.size + len(encoded)
                if not batch.records or size > self._room or len(batch.records) >= self._most:
                    batch = self._admit(1, len(encoded))
                    size = batch.size + len(encoded)
                batch.size = size
                batch.records.append(record)
                batch.encoded.append(encoded)
                batch.ids[request_id] = end = len(batch.records)
                batch.ends.append(end)
                waiter = self._future()
                batch.waiters.append(waiter)
                return waiter
        return self._commit(records, source_cursor)

    async def _commit(self, records: Sequence[log_pb2.LogRecord], source_cursor: Mapping[int, int] | None) -> int:
        if self._failure is not None:
            raise self._failure
        if not (records or source_cursor) or len(records) > MAX_SLOT_RECORDS:
            raise InvalidRequestError(
                "a commit needs at least one record and fits into one change-log object",
                reason="BATCH_TOO_LARGE" if records else "INVALID_ARGUMENT",
                remedy="split the request; nothing was written",
                records=len(records),
                maximum=MAX_SLOT_RECORDS,
            )
        position = 0
        shared: list[tuple[OpenBatch, int]] = []
        fresh: list[log_pb2.LogRecord] = []
        bodies: list[bytes] = []
        ids: list[str] = []
        conditional = False
        size = 0
        for record in records:
            if record.HasField("expected"):
                conditional = True
            if not source_cursor and (request_id := record.request_id):
                if (earlier := self._known(request_id)) is not None:
                    position = max(position, earlier)
                    continue
                if (pending := self._pending(request_id)) is not None:
                    if not shared or shared[-1] != pending:
                        shared.append(pending)
                    continue
                ids.append(request_id)
            fresh.append(record)
            bodies.append(body := encode_record(record))
            size += len(body)
        if conditional and self._in_place is None:
            raise InvalidRequestError("this log takes no conditions", remedy="send the records without conditions")
        if fresh or source_cursor:
            own = self._admit(len(fresh), size)
            shared.append((own, own.add(fresh, bodies, size, ids, source_cursor, conditional)))
        for batch, end in shared:
            position = max(position, await batch.wait(end))
        return position

    async def drain(self) -> int:
        """Commit everything that waits, then pause; returns the last durable position.

        The caller keeps new requests away meanwhile.

        Raises:
            BrainyError: it is closed; the error that closed it.
        """
        while self._failure is None and (waiting := self._untaken()):
            with contextlib.suppress(BrainyError):  # told to whoever sent it
                await waiting[-1].wait(WHOLE)
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
        waiting = self._untaken()
        self._ahead = deque(() if self._in_flight is None else (self._in_flight,))
        self._open_anew()
        for batch in waiting:
            batch.fail(self._failure)
        self._work.set()

    async def run(self) -> BrainyError:
        """Commit until closed; returns why. Run it once, in a task of its own."""
        try:
            while self._failure is None:
                if self._paused or not (self._ahead or self._open):
                    self._work.clear()
                    await self._work.wait()
                    continue
                if self._limits.linger_seconds > 0:
                    await self._clock.sleep(self._limits.linger_seconds)
                if (self._ahead or self._open) and not self._paused:
                    await self._commit_batch(self._take())
            return self._failure
        finally:
            # Only a cancellation gets here with the object still open.
            self.close(
                UnavailableError("this shard's writer was stopped", reason="NOT_OWNER", remedy="retry elsewhere")
            )

    def _pending(self, request_id: str) -> tuple[OpenBatch, int] | None:
        """Return the request that waits or is in flight with this id: its batch and its end."""
        for batch in (self._open, *self._ahead):
            if (end := batch.ids.get(request_id)) is not None:
                return batch, end
        return None

    def _untaken(self) -> list[OpenBatch]:
        """Batches that no PUT has taken yet."""
        full = [batch for batch in self._ahead if batch is not self._in_flight]
        return [*full, self._open] if self._open else full

    def _admit(self, records: int, size: int) -> OpenBatch:
        """Return the batch that takes a request of so many records and encoded bytes."""
        batch, limits = self._open, self._limits
        if batch.size + size > self._room or len(batch.records) + records > self._most:
            waiting = self._untaken()
            waiting_bytes = sum(batch.size for batch in waiting)
            if waiting and waiting_bytes + size > limits.waiting_bytes:
                raise UnavailableError(
                    "too many writes wait for the object store",
                    reason="BUFFER_FULL",
                    remedy="retry after a pause; nothing was written",
                    waiting_bytes=waiting_bytes,
                )
            if batch:
                self._ahead.append(batch)
                batch = self._open_anew()
        if not batch:
            self._work.set()
        return batch

    def _open_anew(self) -> OpenBatch:
        self._open = OpenBatch()
        self._make_room()
        return self._open

    def _make_room(self) -> None:
        full = sum(batch.size for batch in self._ahead if batch is not self._in_flight)
        self._room = min(self._limits.batch_bytes, self._limits.waiting_bytes - full)

    def _take(self) -> OpenBatch:
        if not self._ahead:
            self._ahead.append(self._open)
            self._open = OpenBatch()
        self._in_flight = self._ahead[0]
        self._make_room()
        return self._in_flight

    async def _commit_batch(self, batch: OpenBatch) -> None:
        encoded = self._fit(batch)
        if not (encoded or batch.cursor):
            self._forget(batch)
            batch.answer(self.durable_position, self.durable_position)
            return
        self._idle.clear()
        # Once they are in the object that is under way: giving back memory takes time too.
        asyncio.get_running_loop().call_soon(batch.encoded.clear)
        try:
            slot = await self._writer.commit_encoded(encoded, batch.cursor)
            self._on_slot(slot)
            self._forget(batch)
            batch.answer(slot.first, slot.last)
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
            self._idle.set()

    def _fit(self, batch: OpenBatch) -> Sequence[bytes]:
        """Return the records of a batch whose conditions hold, encoded."""
        if not batch.conditional:
            return batch.encoded
        fit: list[bytes] = []
        kept: list[bool] = []
        latest: dict[tuple[str, str], bytes] = {}
        for record, encoded in zip(batch.records, batch.encoded, strict=True):
            name = item_of(record)
            holds = True
            if record.HasField("expected"):
                held = latest.get(name)
                if held is None and self._in_place is not None:
                    held = self._in_place(record)
                if holds := held == record.expected:
                    fit.append(encode_record(_unconditional(record)))
            else:
                fit.append(encoded)
            if holds:
                latest[name] = digest_of(record)
            kept.append(holds)
        batch.keep(kept)
        return fit

    def _stop(self, batch: OpenBatch, error: BrainyError) -> None:
        if self._failure is None:
            self._failure = error
        self._fail(batch, error)
        self.close(error)

    def _fail(self, batch: OpenBatch, error: BrainyError) -> None:
        self._forget(batch)
        batch.fail(error)

    def _forget(self, batch: OpenBatch) -> None:
        # With it go its request ids: from now on they are known, or new again.
        assert self._ahead[0] is batch
        self._ahead.popleft()
        self._in_flight = None


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

"""One shard's log being written back into Brainy's tree; docs/protocols/mirror.md is the whole protocol.

*Before.* This node owns the shard, or the shard's generation has ended and its log with it.

*Steps.* 1. Take the cursor record (``mirror_claim``). 2. Read what the log has after it, up to ``_MAX_RECORDS``; keep
the last state of each id; a record that a Brainy process caused is not written back and takes away what was ours
before it. 3. Prepare the batch (``brainy.legacy.mirror``). 4. Where the tree is watched, hear the log out to what the
shard had applied after step 3: what a foreign record there has overtaken is dropped. 5. Write. 6. Swap the cursor to
the end of the batch, or to before the first change that is still undecided. Then 2.

*After.* Everything at or below the cursor is in the tree, or among its counted limits.

*If it crashes* at any step: the next owner takes the cursor and repeats from 2: the same bytes under the same keys.
*A failing store* repeats the batch with back-off; the cursor stays and says why.
*Cancel safety.* As a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_from_proto, verb_from_proto
from brainy.bucket.mirroring import LimitMet, MirrorCursor
from brainy.changelog.batch import Slot
from brainy.changelog.collection import collected_position
from brainy.errors import BrainyError, FencedError, UnavailableError
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.limits import Limit, LimitKind
from brainy.legacy.keys import Kind
from brainy.legacy.mirror import Change, Mirror, Name, Written
from brainy.legacy.seen_objects import SeenObjects
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim

_log = get_logger(__name__)
_MAX_RECORDS = 2000
_QUEUED_SLOTS = 64
_LONGEST_WAIT_SECONDS = 15.0
#: Undecided changes are looked at again this often.
_UNDECIDED_SECONDS = 0.5
_SHOWN_LIMITS = 20

Follow = Callable[[int], AsyncIterator[Slot]]


class ShardMirror:
    """Mirrors one shard under one ownership."""

    def __init__(
        self,
        host: Host,
        claim: MirrorClaim,
        make: Callable[[MirrorClaim], Mirror],
        *,
        follow: Follow,
        seen: SeenObjects,
        applied: Callable[[], int] | None,
        skip_copied: bool,
    ) -> None:
        """Prepare.

        Args:
            host: the surroundings.
            claim: not taken yet.
            make: makes the writer, which asks the claim before each write.
            follow: streams the log from a position; ends only if the log has ended.
            seen: who watches the tree.
            applied: position the shard has applied; None where the log has ended.
            skip_copied: whether records that came with a source cursor were mirrored from the source's log.
        """
        self._host = host
        self._claim = claim
        self._mirror = make(claim)
        self._follow = follow
        self._seen = seen
        self._applied = applied
        self._skip_copied = skip_copied
        self._slots: asyncio.Queue[Slot | None] = asyncio.Queue(_QUEUED_SLOTS)
        #: Position and milliseconds at the end of what was read.
        self._read_to = (0, 0)
        self._undecided: dict[Name, Change] = {}
        #: Names that a record of Brainy's own is about -> its position; and how far that was listened for.
        self._foreign: dict[Name, int] = {}
        self._heard = 0
        self._listened = asyncio.Event()

    async def run(self, *, over: bool = False) -> None:
        """Mirror until the log ends, or for ever.

        Raises:
            FencedError: another mirrors the shard now.
            BrainyError: the log cannot be read (ownership ended, damage).
        """
        cursor = await self._claim.take(over=over)
        cursor = await self._skip_collected(cursor)
        self._read_to, self._heard = (cursor.position, cursor.milliseconds), cursor.position
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._read(cursor.position + 1))]
        if self._seen.watches and self._applied is not None:
            tasks.append(asyncio.ensure_future(self._listen(cursor.position + 1)))
        tasks.append(asyncio.ensure_future(self._write_back(tasks[1:])))
        try:
            # Each of them ends by itself only with an error, or all with the end of the log.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _skip_collected(self, cursor: MirrorCursor) -> MirrorCursor:
        gone = await collected_position(self._host.store, cursor.generation, cursor.shard)
        if cursor.position >= gone:
            return cursor
        missed = gone - cursor.position
        limit = Limit(
            kind=LimitKind.LOG_COLLECTED, item="log", id=str(cursor.shard), detail=f"{missed} records", withheld=True
        )
        await self._claim.advance(position=gone, **self._limits([limit], weight=missed))
        return self._claim.cursor

    # --- reading --------------------------------------------------------------------------------

    async def _read(self, position: int) -> None:
        async for slot in self._follow(position):
            await self._slots.put(slot)
        await self._slots.put(None)

    async def _listen(self, position: int) -> None:
        async for slot in self._follow(position):
            for place, record in enumerate(slot.batch.records, slot.first):
                if is_foreign(record) and (name := name_of(record)) is not None:
                    self._foreign[name] = place
            self._heard = slot.last
            listened, self._listened = self._listened, asyncio.Event()
            listened.set()

    async def _hear_out(self, listeners: Sequence[asyncio.Future[Any]]) -> None:
        if self._applied is None or not listeners:
            return
        until = self._applied()
        while self._heard < until:
            if listeners[0].done():
                raise UnavailableError("this node owns the shard no more", reason="NOT_OWNER")
            waiting: asyncio.Future[Any] = asyncio.ensure_future(self._listened.wait())
            try:
                await asyncio.wait({waiting, listeners[0]}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    async def _next_slots(self) -> tuple[list[Slot], bool]:
        """Return what the log has next, and whether it ends there; nothing if undecided changes are due."""
        slots: list[Slot] = []
        records = 0
        while records < _MAX_RECORDS:
            try:
                if slots:
                    slot = self._slots.get_nowait()
                elif self._undecided:
                    async with asyncio.timeout(_UNDECIDED_SECONDS):
                        slot = await self._slots.get()
                else:
                    slot = await self._slots.get()
            except (asyncio.QueueEmpty, TimeoutError):
                break
            if slot is None:
                return slots, True
            slots.append(slot)
            records += len(slot.batch.records)
        return slots, False

    # --- writing --------------------------------------------------------------------------------

    async def _write_back(self, listeners: Sequence[asyncio.Future[Any]]) -> None:
        ended = False
        while not (ended and not self._undecided):
            slots: list[Slot] = []
            if ended:
                await self._host.clock.sleep(_UNDECIDED_SECONDS)
            else:
                slots, ended = await self._next_slots()
            changes, foreign = self._gather(slots)
            written = await self._persistently(changes, listeners)
            fresh = [change for change in written.undecided if change.name not in self._undecided]
            for change in fresh:
                _log.info("mirror_undecided", shard=self._claim.cursor.shard, kind=change.kind, id=change.id)
            self._undecided = {change.name: change for change in written.undecided}
            position, milliseconds = min([self._read_to, *(change.before for change in written.undecided)])
            final = ended and not self._undecided and self._applied is None
            cursor = self._claim.cursor
            if position == cursor.position and not (written.written or foreign or fresh or final):
                continue
            await self._claim_persistently(
                position=position,
                milliseconds=milliseconds,
                final=final,
                counts=cursor.counts.plus(written.counts),
                written=cursor.written + written.written,
                foreign=cursor.foreign + foreign,
                conflicts=cursor.conflicts + len(fresh),
                problem="",
                **self._limits(written.limits),
            )
            self._foreign = {name: at for name, at in self._foreign.items() if at > position}

    def _gather(self, slots: Sequence[Slot]) -> tuple[list[Change], int]:
        """Return the last own state of each id, undecided ones included, and how many records were foreign."""
        changes = dict(self._undecided)
        foreign = 0
        for slot in slots:
            before = self._read_to
            # Strictly above the slot before: a deletion and a later return never share a millisecond.
            milliseconds = before[1] + 1
            copied = self._skip_copied and bool(slot.batch.source_cursor)
            for position, record in enumerate(slot.batch.records, slot.first):
                milliseconds = max(milliseconds, record.written_at.ToMilliseconds())
                name = name_of(record)
                if name is None or copied:
                    continue
                changes.pop(name, None)
                if is_foreign(record):
                    foreign += 1
                    continue
                place = Place(shard=slot.batch.shard, position=position, milliseconds=milliseconds)
                changes[name] = Change(kind=name[0], id=name[1], item=item_of(record), place=place, before=before)
            self._read_to = (slot.last, milliseconds)
        return list(changes.values()), foreign

    async def _persistently(self, changes: Sequence[Change], listeners: Sequence[asyncio.Future[Any]]) -> Written:
        wait = 0.2
        while True:
            try:
                await self._claim.guard()
                if not changes:
                    return Written()
                batch = await self._mirror.prepare(changes)
                await self._hear_out(listeners)
                overtaken = {c.name for c in changes if self._foreign.get(c.name, 0) > c.place.position}
                return await self._mirror.write(batch, without=overtaken)
            except FencedError:
                raise
            except BrainyError as error:
                await self._complain(error)
                await self._host.clock.sleep(self._host.ids.jitter(wait / 2, wait))
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    async def _claim_persistently(self, **changes: Any) -> None:
        wait = 0.2
        while True:
            try:
                return await self._claim.advance(**changes)
            except FencedError:
                raise
            except BrainyError as error:
                _log.warning("mirror_cursor_unwritten", cause=str(error))
                await self._host.clock.sleep(self._host.ids.jitter(wait / 2, wait))
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    async def _complain(self, error: BrainyError) -> None:
        cursor = self._claim.cursor
        problem = f"{error.reason}: {error}"[:500]
        if cursor.problem == problem:
            return
        _log.warning("mirror_stalled", generation=cursor.generation, shard=cursor.shard, cause=str(error))
        try:
            await self._claim.advance(problem=problem)
        except FencedError:
            raise
        except BrainyError as failure:
            _log.warning("mirror_cursor_unwritten", cause=str(failure))

    def _limits(self, limits: Sequence[Limit], *, weight: int = 1) -> dict[str, Any]:
        if not limits:
            return {}
        cursor = self._claim.cursor
        counts = dict(cursor.limits)
        for limit in limits:
            counts[limit.kind] = counts.get(limit.kind, 0) + weight
        met = [
            LimitMet(kind=limit.kind, item=limit.item, id=limit.id, detail=limit.detail, withheld=limit.withheld)
            for limit in limits
        ]
        return {"limits": counts, "newest_limits": (*cursor.newest_limits, *met)[-_SHOWN_LIMITS:]}


def is_foreign(record: log_pb2.LogRecord) -> bool:
    """Whether a record takes over what a Brainy process wrote into the tree."""
    return record.request_id.startswith("follow:") or bool(getattr(record, "foreign_version", ""))


def name_of(record: log_pb2.LogRecord) -> Name | None:
    """Kind and id of the item a record is about, None for a fence or an advance."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return Kind.NOUN, record.upsert_noun.id
        case "delete_noun":
            return Kind.NOUN, record.delete_noun
        case "upsert_verb":
            return Kind.VERB, record.upsert_verb.id
        case "delete_verb":
            return Kind.VERB, record.delete_verb
        case _:
            return None


def item_of(record: log_pb2.LogRecord) -> Noun | Verb | None:
    """The item a record sets, None for a deletion."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return noun_from_proto(record.upsert_noun)
        case "upsert_verb":
            return verb_from_proto(record.upsert_verb)
        case _:
            return None

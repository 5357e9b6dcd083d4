"""One shard's log being written back into Brainy's tree; docs/protocols/mirror.md is the whole protocol.

*Before.* This node owns the shard, and its generation takes writes.

*Steps.* 1. Take the cursor record (``mirror_claim``); if another had it, wait until that one has noticed. 2. Read what
the logs have after it, up to ``_MAX_RECORDS``: first those of the generations this one was made from, as far as their
mirrors did not get, and of those the ids that are this shard's; then our own, without what was copied from them. Keep
the last state of each id; a record that a Brainy process caused is not written back and takes away what was ours before
it. 3. Prepare the batch (``brainy.legacy.mirror``). 4. Where the tree is watched, hear the logs out to what the shard
had applied after step 3: what a foreign record there has overtaken is dropped. 5. Write. 6. Swap the cursor to the end
of the batch, or to before the first change that is still undecided. Then 2.

*After.* Everything at or below the cursor is in the tree, or among its counted limits.

*If it crashes* at any step: the next owner takes the cursor and repeats from 2: the same bytes under the same keys.
*A failing store* repeats the batch with back-off; the cursor stays and says why.
*Cancel safety.* As a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_from_proto, verb_from_proto
from brainy.bucket.mirroring import LimitMet, MirrorCursor
from brainy.changelog.batch import Slot, is_copy
from brainy.changelog.collection import collected_position
from brainy.errors import BrainyError, FencedError, UnavailableError
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.limits import Limit, LimitKind
from brainy.legacy.keys import Kind
from brainy.legacy.mirror import Change, Mark, Mirror, Name, Written
from brainy.legacy.seen_objects import SeenObjects
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import SETTLE_SECONDS, MirrorClaim

_log = get_logger(__name__)
_MAX_RECORDS = 2000
_QUEUED_SLOTS = 64
_LONGEST_WAIT_SECONDS = 15.0
#: Undecided changes are looked at again this often.
_UNDECIDED_SECONDS = 0.5
_SHOWN_LIMITS = 20
_NEVER = (-1, 0)

Follow = Callable[[int], AsyncIterator[Slot]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLog:
    """A log that has ended, of a generation this one was made from. Some of it may not be mirrored yet."""

    generation: int
    shard: int
    #: Streams it from a position to its end.
    follow: Follow
    #: Whether what it says of an id at a position is for this shard to mirror.
    wanted: Callable[[str, int], bool]

    @property
    def key(self) -> str:
        """How the cursor names it."""
        return f"{self.generation}/{self.shard}"


class ShardMirror:
    """Mirrors one shard under one ownership."""

    def __init__(
        self,
        host: Host,
        claim: MirrorClaim,
        make: Callable[[MirrorClaim], Mirror],
        *,
        follow: Follow,
        sources: Sequence[SourceLog] = (),
        seen: SeenObjects,
        applied: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            host: the surroundings.
            claim: not taken yet.
            make: makes the writer, which asks the claim before each write.
            follow: streams the shard's log from a position on, for ever.
            sources: logs to finish first, oldest generation first. With any, records that came with a source cursor are
                passed over: they are in those.
            seen: who watches the tree.
            applied: position the shard has applied.
        """
        self._host = host
        self._claim = claim
        self._mirror = make(claim)
        self._follow = follow
        self._sources = sources
        self._seen = seen
        self._applied = applied
        #: (number of the log, slot): sources in their order, then our own.
        self._slots: asyncio.Queue[tuple[int, Slot]] = asyncio.Queue(_QUEUED_SLOTS)
        #: Where reading is.
        self._mark = Mark()
        self._undecided: dict[Name, Change] = {}
        #: Names that a record of Brainy's own is about -> its place; and how far our own log was listened to.
        self._foreign: dict[Name, tuple[int, int]] = {}
        self._heard = -1
        self._listened = asyncio.Event()

    async def run(self, fresh: MirrorCursor | None = None) -> None:
        """Mirror for ever; ``fresh`` is the cursor to begin with where there is none.

        Raises:
            FencedError: another mirrors the shard now.
            BrainyError: a log cannot be read (ownership ended, damage).
        """
        cursor = await self._claim.take(fresh)
        if self._claim.took_over:
            # Whoever had it looks again before this is over.
            await self._host.clock.sleep(SETTLE_SECONDS)
        cursor = await self._skip_collected(cursor)
        self._mark = Mark(position=cursor.position, milliseconds=cursor.milliseconds, source=cursor.source)
        self._seen.reached(cursor.position)
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._read(cursor))]
        if self._seen.watches:
            tasks.append(asyncio.ensure_future(self._listen(cursor)))
        tasks.append(asyncio.ensure_future(self._write_back(tasks[1:])))
        try:
            # None of them ends by itself but with an error.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _skip_collected(self, cursor: MirrorCursor) -> MirrorCursor:
        missed = max(0, await self._gone(cursor.generation, cursor.shard) - cursor.position)
        position, source = cursor.position + missed, dict(cursor.source)
        for log in self._sources:
            lost = max(0, await self._gone(log.generation, log.shard) - source.get(log.key, 0))
            source[log.key] = source.get(log.key, 0) + lost
            missed += lost
        if missed:
            limit = Limit(
                kind=LimitKind.LOG_COLLECTED,
                item="log",
                id=str(cursor.shard),
                detail=f"{missed} records",
                withheld=True,
            )
            await self._claim.advance(position=position, source=source, **self._limits([limit], weight=missed))
        return self._claim.cursor

    async def _gone(self, generation: int, shard: int) -> int:
        return await collected_position(self._host.store, generation, shard)

    # --- reading --------------------------------------------------------------------------------

    async def _logs(self, cursor: MirrorCursor) -> AsyncIterator[tuple[int, Slot]]:
        for number, log in enumerate(self._sources):
            async for slot in log.follow(cursor.source.get(log.key, 0) + 1):
                yield number, slot
        async for slot in self._follow(cursor.position + 1):
            yield len(self._sources), slot

    async def _read(self, cursor: MirrorCursor) -> None:
        async for found in self._logs(cursor):
            await self._slots.put(found)

    async def _listen(self, cursor: MirrorCursor) -> None:
        if not self._sources:
            self._heard = cursor.position
        async for number, slot in self._logs(cursor):
            own = number == len(self._sources)
            if not (own and self._is_copy(slot)):
                for position, record in enumerate(slot.batch.records, slot.first):
                    if is_foreign(record) and (name := name_of(record)) is not None:
                        self._foreign[name] = (number, position)
            if own:
                self._heard = slot.last
            listened, self._listened = self._listened, asyncio.Event()
            listened.set()

    def _is_copy(self, slot: Slot) -> bool:
        return bool(self._sources) and is_copy(slot.batch)

    async def _hear_out(self, listeners: Sequence[asyncio.Future[Any]]) -> None:
        if not listeners:
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

    async def _next_slots(self) -> list[tuple[int, Slot]]:
        """Return what the logs have next; nothing if undecided changes are due first."""
        slots: list[tuple[int, Slot]] = []
        records = 0
        while records < _MAX_RECORDS:
            try:
                if slots:
                    found = self._slots.get_nowait()
                elif self._undecided:
                    async with asyncio.timeout(_UNDECIDED_SECONDS):
                        found = await self._slots.get()
                else:
                    found = await self._slots.get()
            except (asyncio.QueueEmpty, TimeoutError):
                break
            slots.append(found)
            records += len(found[1].batch.records)
        return slots

    # --- writing --------------------------------------------------------------------------------

    async def _write_back(self, listeners: Sequence[asyncio.Future[Any]]) -> None:
        while True:
            changes, foreign = self._gather(await self._next_slots())
            written = await self._persistently(changes, listeners)
            fresh = [change for change in written.undecided if change.name not in self._undecided]
            for change in fresh:
                _log.info("mirror_undecided", shard=self._claim.cursor.shard, kind=change.kind, id=change.id)
            self._undecided = {change.name: change for change in written.undecided}
            mark = min([self._mark, *(change.before for change in written.undecided)])
            cursor = self._claim.cursor
            stands = mark.position == cursor.position and mark.source == cursor.source
            if stands and not (written.written or foreign or fresh):
                continue
            await self._claim_persistently(
                position=mark.position,
                milliseconds=mark.milliseconds,
                source=dict(mark.source),
                counts=cursor.counts.plus(written.counts),
                written=cursor.written + written.written,
                foreign=cursor.foreign + foreign,
                conflicts=cursor.conflicts + len(fresh),
                problem="",
                **self._limits(written.limits),
            )
            self._seen.reached(mark.position)
            reached = (len(self._sources), mark.position)
            self._foreign = {name: place for name, place in self._foreign.items() if place > reached}

    def _gather(self, slots: Sequence[tuple[int, Slot]]) -> tuple[list[Change], int]:
        """Return the last own state of each id, undecided ones included, and how many records were foreign."""
        changes = dict(self._undecided)
        foreign = 0
        for number, slot in slots:
            before = self._mark
            own = number == len(self._sources)
            # Strictly above the slot before: a deletion and a later return never share a millisecond.
            milliseconds = before.milliseconds + 1
            copied = own and self._is_copy(slot)
            for position, record in enumerate(slot.batch.records, slot.first):
                milliseconds = max(milliseconds, record.written_at.ToMilliseconds())
                name = name_of(record)
                if name is None or copied or not (own or self._sources[number].wanted(name[1], position)):
                    continue
                changes.pop(name, None)
                if is_foreign(record):
                    foreign += 1
                    continue
                changes[name] = Change(
                    kind=name[0],
                    id=name[1],
                    item=item_of(record),
                    place=Place(shard=slot.batch.shard, position=position, milliseconds=milliseconds),
                    order=(number, position),
                    before=before,
                )
            self._mark = Mark(
                number=before.number + 1,
                position=slot.last if own else before.position,
                milliseconds=milliseconds,
                source=before.source if own else {**before.source, self._sources[number].key: slot.last},
            )
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
                overtaken = {c.name for c in changes if self._foreign.get(c.name, _NEVER) > c.order}
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

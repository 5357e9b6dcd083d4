"""Following another generation: how the target of a migration keeps up with writes, and its source after the switch.

"Source" and "target" mean the one that is followed and the one that follows, whichever way that is.

Before: the target shard holds the state of its source at the cursor (``assignment.start_cursor``), and this node owns
it (its fence is in the target's log).

Steps, repeated:
  0. Once, if the shard's log does not say so yet: commit an ``Advance`` with the cursor to begin from, so that replicas
     and reports speak of this source.
  1. One reader a followed source shard streams its slots, in order, from the owner of that shard (of another
     namespace: from its bucket, ``slots_elsewhere``), starting right after the cursor.
  2. The committer takes what has arrived, keeps the records whose id belongs to the target shard
     (fences and cursor advances of the source mean nothing here), gives their nouns the vectors of the target's own
     model where that is another one (``reembedding``), and commits them to the target's own
     log in one batch that also names the source positions reached. If nothing is relevant, an ``Advance``
     record carries the cursor.
  3. The batch is applied, so ``shard.source_cursor`` is the watermark: everything at or below it is durable
     in the target.

After: when the routing record says that the generation follows no more, the readers stop at a batch
boundary. The coordinator has then seen the cursor reach the source's final positions, so nothing is left behind.

Crash at 1 or before the PUT of 2 lands: the next owner replays the target's log and starts from the cursor
found there. Crash after it landed: the same. A batch is therefore applied exactly once, because cursor and
records are one object. Cancel safety: a cancelled committer may leave a batch landed but not applied; the
shard must be replayed before it is used again, which is what a new duty does first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.origin import ELSEWHERE
from brainy.bucket.partition import shard_of
from brainy.changelog.batch import Slot
from brainy.errors import BrainyError, UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.assignment import Assignment, followed_shards, source_shards, start_cursor
from brainy_node.runtime.host import Host
from brainy_node.runtime.slots_elsewhere import slots_elsewhere
from brainy_node.shard.shard import Shard

_log = get_logger(__name__)
_QUEUED_SLOTS = 256
_MAX_RECORDS = 5000

#: The slots of a followed shard from a position on, for ever.
Slots = Callable[[int, int], AsyncIterator[Slot]]
Commit = Callable[[Sequence[log_pb2.LogRecord], Mapping[int, int]], Awaitable[None]]
#: Records of the source -> the same records as the target takes them.
Transform = Callable[[Sequence[log_pb2.LogRecord]], Awaitable[Sequence[log_pb2.LogRecord]]]


class SourceFollower:
    """Streams source shards into one target shard."""

    def __init__(
        self,
        host: Host,
        *,
        source_generation: int,
        source_shards: Sequence[int],
        target_shard: int,
        target_shard_count: int,
        cursor: Mapping[int, int],
        announced: bool = True,
        commit: Commit,
        transform: Transform | None = None,
        slots: Slots | None = None,
    ) -> None:
        self._host = host
        self._source_generation = source_generation
        self._slots = slots or (lambda shard, position: host.follow_owner(source_generation, shard, position))
        self._source_shards = source_shards
        self._target_shard = target_shard
        self._target_shard_count = target_shard_count
        self._cursor = {shard: cursor.get(shard, 0) for shard in source_shards}
        self._announced = announced
        self._commit = commit
        self._transform = transform
        self._arrived: asyncio.Queue[tuple[int, Slot]] = asyncio.Queue(_QUEUED_SLOTS)

    @classmethod
    def of(
        cls, host: Host, duty: Assignment, shard: Shard, commit: Commit, transform: Transform | None = None
    ) -> SourceFollower:
        """Follow what a duty says, from where its shard and the routing record say.

        Args:
            host: the node.
            duty: of an owner that is to follow.
            shard: its replica.
            commit: commits records with the cursor they reach to the shard's own log, and applies them.
            transform: changes records on their way; ids and order stay.

        Raises:
            UnavailableError: the routing record has moved on; the duty is about to change (STALE_ROUTING).
        """
        assert duty.follows is not None
        routing, reached, reached_in = host.routing, shard.source_cursor, shard.source_generation
        placement = routing.generations.get(duty.generation)
        if placement is None or placement.follows != duty.follows:
            raise UnavailableError(
                "the routing record has moved on",
                reason="STALE_ROUTING",
                remedy="nothing; the replica gets another duty, or ends",
                generation=duty.generation,
            )
        origin = placement.origin
        if origin is not None and (followed := origin.generation) is not None:
            shards = source_shards(duty.shard, placement.shard_count, origin.shard_count)
            known = reached if reached_in == ELSEWHERE else {}
            return cls(
                host,
                source_generation=ELSEWHERE,
                source_shards=shards,
                target_shard=duty.shard,
                target_shard_count=placement.shard_count,
                cursor=known,
                announced=reached_in == ELSEWHERE,
                commit=commit,
                slots=lambda shard, position: slots_elsewhere(host, origin.namespace, followed, shard, position),
            )
        cursor = start_cursor(routing, duty.generation, duty.shard, reached=reached, reached_in=reached_in)
        return cls(
            host,
            source_generation=duty.follows,
            source_shards=followed_shards(routing, duty.generation, duty.shard),
            target_shard=duty.shard,
            target_shard_count=placement.shard_count,
            cursor=cursor,
            announced=reached_in == duty.follows and all(reached.get(n, 0) == at for n, at in cursor.items()),
            commit=commit,
            transform=transform,
        )

    @property
    def cursors_of(self) -> int:
        """The generation whose positions the cursor names."""
        return self._source_generation

    async def run(self, until: asyncio.Event) -> None:
        """Follow until the event is set.

        Raises:
            ExceptionGroup: holding the BrainyError that a commit to the target ended with.
        """
        async with asyncio.TaskGroup() as group:
            if not self._announced:
                await self._commit([log_pb2.LogRecord(advance=log_pb2.Advance())], dict(self._cursor))
            readers = [group.create_task(self._read(shard)) for shard in self._source_shards]
            # The committer is never cancelled inside a PUT by a regular end: it looks at `until` between batches.
            await self._commit_arrivals(until)
            for reader in readers:
                reader.cancel()

    async def _read(self, shard: int) -> None:
        position = self._cursor[shard]
        while True:
            try:
                async for slot in self._slots(shard, position + 1):
                    if slot.last > position:
                        await self._arrived.put((shard, slot))
                        position = slot.last
            except BrainyError as error:
                _log.info("source_stream_ended", shard=shard, position=position, cause=str(error))
                await self._host.clock.sleep(self._host.ids.jitter(0.1, 0.3))
                await _refresh(self._host)

    async def _next_arrival(self, until: asyncio.Event) -> tuple[int, Slot] | None:
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        arrival = asyncio.ensure_future(self._arrived.get())
        ended = asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait({arrival, ended}, return_when=asyncio.FIRST_COMPLETED)
            return arrival.result() if arrival.done() else None
        finally:
            arrival.cancel()
            ended.cancel()

    async def _commit_arrivals(self, until: asyncio.Event) -> None:
        while (arrival := await self._next_arrival(until)) is not None:
            arrivals = [arrival]
            count = len(arrivals[0][1].batch.records)
            while not self._arrived.empty() and count < _MAX_RECORDS:
                arrivals.append(self._arrived.get_nowait())
                count += len(arrivals[-1][1].batch.records)
            records: Sequence[log_pb2.LogRecord] = [
                record for _, slot in arrivals for record in slot.batch.records if self._belongs(record)
            ]
            if records and self._transform is not None:
                records = await self._transform(records)
            for shard, slot in arrivals:
                self._cursor[shard] = slot.last
            await self._commit(records or [log_pb2.LogRecord(advance=log_pb2.Advance())], dict(self._cursor))

    def _belongs(self, record: log_pb2.LogRecord) -> bool:
        item_id = record_id(record)
        return item_id is not None and shard_of(item_id, self._target_shard_count) == self._target_shard


def record_id(record: log_pb2.LogRecord) -> str | None:
    """Id of the item a record is about, or None for a fence or an advance."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return record.upsert_noun.id
        case "delete_noun":
            return record.delete_noun
        case "upsert_verb":
            return record.upsert_verb.id
        case "delete_verb":
            return record.delete_verb
        case _:
            return None


async def _refresh(host: Host) -> None:
    try:
        await host.view.refresh()
    except BrainyError as error:
        _log.info("routing_unreadable", cause=str(error))

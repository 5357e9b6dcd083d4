"""How a namespace's mirror is doing, read from the bucket alone."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from brainy.bucket import layout
from brainy.bucket.mirroring import LimitMet, MirrorCursor
from brainy.bucket.records import Routing
from brainy.changelog.batch import decode_slot
from brainy.clock import Clock
from brainy.legacy.mirror_choice import chosen_dialect
from brainy.store.base import ObjectStore


class ShardMirrorReport(BaseModel):
    """One shard's mirror."""

    model_config = ConfigDict(frozen=True)

    generation: int
    shard: int
    #: The cursor, and the last position of the log.
    position: int
    log_end: int
    #: Records not mirrored yet, and since when the oldest of them waits, by the clocks of owner and caller.
    lag_items: int
    lag_seconds: float
    written: int
    foreign: int
    conflicts: int
    limits: dict[str, int]
    problem: str


class MirrorReport(BaseModel):
    """The whole mirror."""

    model_config = ConfigDict(frozen=True)

    #: "" where nothing is mirrored.
    dialect: str
    standing_limits: tuple[str, ...]
    lag_items: int
    lag_seconds: float
    written: int
    foreign: int
    conflicts: int
    limits: dict[str, int]
    #: The last few of each shard.
    newest_limits: tuple[LimitMet, ...]
    shards: tuple[ShardMirrorReport, ...]


async def mirror_report(store: ObjectStore, *, clock: Clock) -> MirrorReport:
    """Look at choice, cursors and ends of the logs: a few calls for each shard, however long the logs are.

    Raises:
        CorruptDataError: a record is damaged.
        BrainyError: the store failed.
    """
    dialect = await chosen_dialect(store)
    cursors: dict[tuple[int, int], MirrorCursor] = {}
    async for page in store.list(layout.MIRROR):
        for meta in page:
            where = layout.parse_mirror_cursor(meta.key)
            found = await store.get(meta.key) if where is not None else None
            if where is not None and found is not None:
                cursors[where] = MirrorCursor.decode(found.body, key=meta.key)
    wanted = {where for where, cursor in cursors.items() if not cursor.final}
    routing = await store.get(layout.ROUTING)
    if routing is not None:
        record = Routing.decode(routing.body, key=layout.ROUTING)
        wanted |= {(record.write, shard) for shard in range(record.generations[record.write].shard_count)}
    shards = [await _shard(store, *where, cursors.get(where), now=clock.wall()) for where in sorted(wanted)]
    limits: dict[str, int] = {}
    for cursor in cursors.values():
        for kind, count in cursor.limits.items():
            limits[kind] = limits.get(kind, 0) + count
    return MirrorReport(
        dialect=dialect.name if dialect is not None else "",
        standing_limits=dialect.standing_limits if dialect is not None else (),
        lag_items=sum(shard.lag_items for shard in shards),
        lag_seconds=max((shard.lag_seconds for shard in shards), default=0.0),
        written=sum(cursor.written for cursor in cursors.values()),
        foreign=sum(cursor.foreign for cursor in cursors.values()),
        conflicts=sum(cursor.conflicts for cursor in cursors.values()),
        limits=limits,
        newest_limits=tuple(limit for _, cursor in sorted(cursors.items()) for limit in cursor.newest_limits),
        shards=tuple(shards),
    )


async def _shard(
    store: ObjectStore, generation: int, shard: int, cursor: MirrorCursor | None, *, now: float
) -> ShardMirrorReport:
    position = cursor.position if cursor is not None else 0
    first = last = ""
    start_after = layout.log_slot(generation, shard, position)
    async for page in store.list(layout.log(generation, shard), start_after=start_after):
        names = [meta.key for meta in page if layout.parse_log_slot(meta.key) is not None]
        first, last = first or min(names, default=""), max(names, default=last)
    end, waits_since = position, now
    if first and (newest := await store.get(last)) is not None:
        end = decode_slot(newest.body, key=last).last
        oldest = newest if first == last else await store.get(first)
        if oldest is not None:
            records = decode_slot(oldest.body, key=first).batch.records
            waits_since = max(record.written_at.ToMilliseconds() for record in records) / 1000 or now
    return ShardMirrorReport(
        generation=generation,
        shard=shard,
        position=position,
        log_end=end,
        lag_items=end - position,
        lag_seconds=round(max(0.0, now - waits_since), 3),
        written=cursor.written if cursor is not None else 0,
        foreign=cursor.foreign if cursor is not None else 0,
        conflicts=cursor.conflicts if cursor is not None else 0,
        limits=cursor.limits if cursor is not None else {},
        problem=cursor.problem if cursor is not None else "",
    )

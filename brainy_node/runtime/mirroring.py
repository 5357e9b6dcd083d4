"""Writing this cluster's commits back into Brainy's tree, where a namespace asks for it.

Which shards: those of the write generation that this node owns and that take writes. A generation that was migrated to
takes over from its source: the source's cursors are frozen where they are, so that its mirrors stop, and each shard of
the new one first finishes what the source's logs hold for its own ids (they have an end, the cut-over saw to it), then
goes on with its own log. So each id's changes reach the tree in the order of the logs, through one mirror at a time.

Brainy's statistics are brought up to date by the owner of shard 0, at most every ``mirror_statistics_seconds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from brainy.api.node.v1 import control_pb2
from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCounts, MirrorCursor
from brainy.bucket.namespace import Namespace
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Spec
from brainy.changelog.batch import Slot
from brainy.changelog.reading import read_log
from brainy.errors import BrainyError, FencedError
from brainy.legacy.dialect.dialects import Dialect
from brainy.legacy.dialect.rendering import Bounds
from brainy.legacy.living import keeps_change_log
from brainy.legacy.mirror import Mirror
from brainy.legacy.mirror_choice import chosen_dialect
from brainy.legacy.seen_objects import NothingSeen, SeenObjects
from brainy.legacy.statistics_update import StatisticsUpdate
from brainy.store.keys import MAX_KEY_BYTES
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.host import Host
from brainy_node.runtime.hosted_shard import HostedShard
from brainy_node.runtime.mirror_claim import SETTLE_SECONDS, MirrorClaim
from brainy_node.runtime.shard_mirror import ShardMirror, SourceLog

_log = get_logger(__name__)
_RETRY_SECONDS = 2.0
_READY = control_pb2.ShardState.SHARD_STATE_READY

#: (generation, shard, epoch, dialect, whether somebody watches the tree): one mirror.
_Task = tuple[int, int, int, str, bool]
SeenOf = Callable[[int, int], SeenObjects]
Chosen = Callable[[], Awaitable[Dialect | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A generation that was, and how far its mirrors got: one frozen cursor a shard."""

    generation: int
    cursors: Sequence[MirrorCursor]


class Mirroring:
    """The mirrors of one namespace on this node."""

    def __init__(self, host: Host, *, seen: SeenOf | None = None, chosen: Chosen | None = None) -> None:
        """Prepare.

        Args:
            host: the surroundings.
            seen: who watches the tree for a shard of a generation; nobody by default.
            chosen: the dialect to mirror in, None for not; read from the bucket by default.
        """
        self._host = host
        self._chosen = chosen or (lambda: chosen_dialect(host.store))
        self._seen = seen or (lambda generation, shard: NothingSeen())
        self._tasks: dict[_Task, asyncio.Task[None]] = {}
        prefix = Namespace.parse(host.namespace).prefix
        self._key_bytes = MAX_KEY_BYTES - (len(prefix.encode()) + 1 if prefix else 0)

    async def run(self, shards: Callable[[], Collection[HostedShard]]) -> None:
        """Keep the mirrors in line with the choice and the ownership, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._supervise(shards))
                group.create_task(self._count())
        finally:
            await self._end(list(self._tasks))

    async def _supervise(self, shards: Callable[[], Collection[HostedShard]]) -> None:
        dialect: Dialect | None = None
        while True:
            try:
                dialect = await self._chosen()
            except BrainyError as error:
                # Going on as before is right for an unreachable store and harmless for a damaged record.
                _log.warning("mirror_choice_unreadable", cause=str(error))
            wanted: dict[_Task, HostedShard] = {}
            known = self._host.view.known
            if dialect is not None and known is not None:
                for hosted in shards():
                    duty = hosted.assignment
                    if duty.generation == known.write and duty.is_owner and duty.follows is None:
                        watched = self._seen(duty.generation, duty.shard).watches
                        wanted[duty.generation, duty.shard, duty.epoch, dialect.name, watched] = hosted
            await self._end([task for task in self._tasks if task not in wanted])
            for key, hosted in wanted.items():
                if key not in self._tasks and hosted.state == _READY and dialect is not None:
                    self._tasks[key] = asyncio.create_task(self._mirror(hosted, dialect, key[2]))
            await self._host.clock.sleep(self._host.settings.routing_poll_seconds)

    async def _end(self, keys: Collection[_Task]) -> None:
        tasks = [self._tasks.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one shard ------------------------------------------------------------------------------

    async def _mirror(self, hosted: HostedShard, dialect: Dialect, epoch: int) -> None:
        duty = hosted.assignment
        while True:
            try:
                spec = await self._host.spec(duty.generation)
                claim = MirrorClaim(self._host, duty.generation, duty.shard, epoch=epoch, dialect=dialect.name)
                before = await self.earlier(spec, dialect)
                fresh = None
                if before and await claim.load() is None:
                    # Whoever mirrored those, and whoever froze them a moment ago, has noticed after this.
                    await self._host.clock.sleep(SETTLE_SECONDS)
                    fresh = begin(claim.cursor, before)
                seen = self._seen(duty.generation, duty.shard)
                mirror = ShardMirror(
                    self._host,
                    claim,
                    await self._maker(dialect, spec, seen),
                    follow=hosted.follow,
                    sources=[
                        self._source_log(log, before, spec, duty.shard) for log in logs_of(before, spec, duty.shard)
                    ],
                    seen=seen,
                    applied=lambda: hosted.shard.applied if hosted.shard is not None else 0,
                )
                await mirror.run(fresh)
            except FencedError as error:
                _log.info("mirror_fenced", generation=duty.generation, shard=duty.shard, cause=str(error))
            except BrainyError as error:
                _log.warning("mirror_stopped", generation=duty.generation, shard=duty.shard, cause=str(error))
            except Exception:
                # A bug must not take the node's other duties with it.
                _log.exception("mirror_crashed", generation=duty.generation, shard=duty.shard)
            await self._host.clock.sleep(self._host.ids.jitter(_RETRY_SECONDS / 2, _RETRY_SECONDS))

    async def _maker(self, dialect: Dialect, spec: Spec, seen: SeenObjects) -> Callable[[MirrorClaim], Mirror]:
        change_log = await keeps_change_log(self._host.store, dialect)
        bounds = Bounds(dimensions=spec.dimensions, key_bytes=self._key_bytes)
        return lambda claim: Mirror(
            self._host.store, dialect, seen=seen, change_log=change_log, bounds=bounds, guard=claim.guard
        )

    # --- the generations before -----------------------------------------------------------------

    async def earlier(self, spec: Spec, dialect: Dialect) -> list[Earlier]:
        """Freeze the cursors of the generations this one was made from; return them, oldest first.

        Raises:
            BrainyError: the store failed; nothing is lost by trying again.
        """
        found = []
        while spec.source.isdigit():
            spec = await self._host.spec(int(spec.source))
            claims = [
                MirrorClaim(self._host, spec.generation, number, epoch=0, dialect=dialect.name)
                for number in range(spec.shard_count)
            ]
            found.append(Earlier(generation=spec.generation, cursors=[await claim.freeze() for claim in claims]))
        return found[::-1]

    def _source_log(self, log: tuple[int, int], before: Sequence[Earlier], target: Spec, shard: int) -> SourceLog:
        generation, number = log

        def follow(position: int) -> AsyncIterator[Slot]:
            return read_log(self._host.store, generation, number, from_position=position)

        def wanted(item_id: str, position: int) -> bool:
            mine = shard_of(item_id, target.shard_count) == shard
            return mine and position > mirrored_to(before, generation, number, item_id)

        return SourceLog(generation=generation, shard=number, follow=follow, wanted=wanted)

    # --- statistics -----------------------------------------------------------------------------

    async def _count(self) -> None:
        while True:
            await self._host.clock.sleep(self._host.settings.mirror_statistics_seconds)
            if not any(shard == 0 for _, shard, *_ in self._tasks):
                continue
            try:
                dialect = await self._chosen()
                if dialect is not None:
                    update = StatisticsUpdate(self._host.store, dialect, clock=self._host.clock, ids=self._host.ids)
                    await update.count_in(await self._total())
            except BrainyError as error:
                # Held by a Brainy process, or the store is away: the next time will do.
                _log.info("mirror_statistics_postponed", cause=str(error))

    async def _total(self) -> MirrorCounts:
        total = MirrorCounts()
        keys: list[str] = []
        async for page in self._host.store.list(layout.MIRROR):
            keys += [meta.key for meta in page if layout.parse_mirror_cursor(meta.key) is not None]
        for found in await self._host.store.get_many(keys):
            if isinstance(found, Exception):
                raise found
            if found is not None:
                total = total.plus(MirrorCursor.decode(found.body, key=found.key).counts)
        return total


def logs_of(before: Sequence[Earlier], target: Spec, shard: int) -> list[tuple[int, int]]:
    """Return (generation, shard) of the logs that may hold ids of a target shard, oldest generation first."""
    same = all(len(each.cursors) == target.shard_count for each in before)
    return [
        (each.generation, number)
        for each in before
        for number in range(len(each.cursors))
        if not same or number == shard
    ]


def mirrored_to(before: Sequence[Earlier], generation: int, shard: int, item_id: str) -> int:
    """Position in an earlier log up to which what it says of an id is in the tree.

    The log's own mirror got as far as its cursor says; the shard that had the id in each later generation may have got
    further.
    """
    key = f"{generation}/{shard}"
    reached = 0
    for each in before:
        if each.generation == generation:
            reached = each.cursors[shard].position
        else:
            cursor = each.cursors[shard_of(item_id, len(each.cursors))]
            reached = max(reached, cursor.source.get(key, 0))
    return reached


def begin(cursor: MirrorCursor, before: Sequence[Earlier]) -> MirrorCursor:
    """Return the cursor of a shard whose generation was made from others: where to begin reading their logs."""
    source: dict[str, int] = {}
    milliseconds = 0
    for at, each in enumerate(before):
        for number, found in enumerate(each.cursors):
            key = f"{each.generation}/{number}"
            # Of some id the slowest of each later generation may not have got further.
            later = [min(newer.source.get(key, 0) for newer in generation.cursors) for generation in before[at + 1 :]]
            source[key] = max([found.position, *later])
            milliseconds = max(milliseconds, found.milliseconds)
    return cursor.model_copy(update={"source": source, "milliseconds": milliseconds})

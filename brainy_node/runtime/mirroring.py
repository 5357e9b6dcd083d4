"""Writing this cluster's commits back into Brainy's tree, where a namespace asks for it.

Which shards: those of the write generation that this node owns and that take writes. A generation that was migrated to
takes over from its source: first what the source's logs still hold is mirrored to their end (they have one, the
cut-over saw to it), each by the owner of the shard of that number modulo the new count; only when all are final does
anybody begin with the new logs, and there with what was committed since. So each id's changes reach the tree in the
order of the logs.

Brainy's statistics are brought up to date by the owner of shard 0, at most every ``mirror_statistics_seconds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from brainy.api.node.v1 import control_pb2
from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCounts, MirrorCursor
from brainy.bucket.namespace import Namespace
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
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import ShardMirror

_log = get_logger(__name__)
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 2.0
_READY = control_pb2.ShardState.SHARD_STATE_READY

#: (generation, shard, epoch, dialect, whether somebody watches the tree): one mirror.
_Task = tuple[int, int, int, str, bool]
SeenOf = Callable[[int, int], SeenObjects]
Chosen = Callable[[], Awaitable[Dialect | None]]


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
                await self._finish_source(spec, duty.shard, dialect, epoch)
                claim = MirrorClaim(self._host, duty.generation, duty.shard, epoch=epoch, dialect=dialect.name)
                seen = self._seen(duty.generation, duty.shard)
                mirror = ShardMirror(
                    self._host,
                    claim,
                    await self._maker(dialect, spec, seen),
                    follow=hosted.follow,
                    seen=seen,
                    applied=lambda: hosted.shard.applied if hosted.shard is not None else 0,
                    skip_copied=spec.source.isdigit(),
                )
                await mirror.run()
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

    # --- the generation before ------------------------------------------------------------------

    async def _finish_source(self, spec: Spec, shard: int, dialect: Dialect, epoch: int) -> None:
        """Return once everything of the generation that this one was made from is mirrored; do our part of it.

        Raises:
            BrainyError: a log cannot be read now.
        """
        if not spec.source.isdigit():
            return
        source = await self._host.spec(int(spec.source))
        while open_shards := await self._not_final(source, dialect):
            await self._finish_source(source, shard, dialect, epoch)
            for number in open_shards:
                if number % spec.shard_count == shard:
                    await self._drain(source, number, dialect, epoch)
                    break
            else:
                await self._host.clock.sleep(_LOOK_SECONDS)

    async def _not_final(self, spec: Spec, dialect: Dialect) -> list[int]:
        keys = [layout.mirror_cursor(spec.generation, number) for number in range(spec.shard_count)]
        unfinished = []
        for number, found in enumerate(await self._host.store.get_many(keys)):
            if isinstance(found, Exception):
                raise found
            cursor = None if found is None else MirrorCursor.decode(found.body, key=found.key)
            if cursor is None or not cursor.final or cursor.dialect != dialect.name:
                unfinished.append(number)
        return unfinished

    async def _drain(self, spec: Spec, number: int, dialect: Dialect, epoch: int) -> None:
        def follow(position: int) -> AsyncIterator[Slot]:
            return read_log(self._host.store, spec.generation, number, from_position=position)

        seen = NothingSeen()
        mirror = ShardMirror(
            self._host,
            MirrorClaim(self._host, spec.generation, number, epoch=epoch, dialect=dialect.name),
            await self._maker(dialect, spec, seen),
            follow=follow,
            seen=seen,
            applied=None,
            skip_copied=spec.source.isdigit(),
        )
        await mirror.run(over=True)

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

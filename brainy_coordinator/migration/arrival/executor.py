"""The executor of a migration whose data are elsewhere (docs/protocols/move.md).

The record here is the one that decides. Two rules keep two namespaces from taking writes at once: the other one is
fenced for one epoch of this record, and this record goes past that epoch *before* the fence is taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from brainy.bucket.origin import ELSEWHERE, Arrival, Moving, Origin
from brainy.bucket.projection import Projection
from brainy.bucket.records import Routing, Spec
from brainy.errors import BrainyError, PreconditionError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.migration.arrival.origins import Origins, OriginSeen
from brainy_coordinator.migration.arrival.source_cluster import SourceCluster
from brainy_coordinator.migration.cluster_executor import ClusterExecutor
from brainy_coordinator.migration.observation import Observation, ReplicaSeen, ReplicaState, followed_shards
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import projections
from brainy_coordinator.migration.state import State
from brainy_coordinator.nodes import DigestSeen

_log = get_logger(__name__)

_RETRY_SECONDS = 0.05
#: How long one turn waits for the source to be read; it is read on meanwhile.
_MEASURE_SLICE_SECONDS = 0.5
#: States in which the side that is left is looked at each time.
_WATCHED = (State.CATCHING_UP, State.READY, State.ABORTING)


class ArrivalExecutor(ClusterExecutor):
    """Hands and eyes of one migration from elsewhere."""

    #: Digest of data that nobody changes, once they were read, and the task that reads them.
    _measured: DigestSeen | None = None
    _measuring: asyncio.Task[DigestSeen] | None = None
    _cluster: SourceCluster | None = None
    #: The other record as it was fenced for the attempt under way.
    _fenced: Routing | None = None
    _looked = False

    @property
    def _origins(self) -> Origins:
        return self._preflight.origins

    async def observe(self, record: MigrationRecord) -> Observation:
        """See ``Executor``; of a source that is followed its nodes are seen in place of our own empty generation."""
        seen = await super().observe(record)
        cluster = await self._source_cluster(record)
        if cluster is None or record.state.is_committed or (self._looked and record.state not in _WATCHED):
            return seen
        try:
            routing = await cluster.routing()
            moving = routing.moving
            fenced = moving is not None and moving.migration == record.id and not moving.done
            self.facts = replace(self.facts, fenced_elsewhere=fenced)
            self._looked = True
            if record.state is State.ABORTING:
                return replace(seen, facts=self.facts)
            answers = await cluster.states(routing)
        except BrainyError as error:
            if record.state is State.ABORTING:
                raise
            self.facts = replace(self.facts, elsewhere=error.message)
            return replace(seen, facts=self.facts)
        self.facts = replace(self.facts, elsewhere=cluster.problem(routing, answers, ours=record.id))
        return overlaid(replace(seen, facts=self.facts), record, routing, cluster.ends(routing, answers))

    # --- filling --------------------------------------------------------------------------------

    async def _describe_target(self, source: Spec, record: MigrationRecord) -> Spec:
        seen = await self._look(record)
        spec = await super()._describe_target(seen.spec, record)
        return spec.model_copy(update={"origin": seen.origin})

    async def _look(self, record: MigrationRecord) -> OriginSeen:
        own = await self._generations.latest(record.source)
        wish = record.request.source
        if own is None or wish is None:
            raise PreconditionError("the namespace is not described", migration=record.id)
        return await self._origins.look(wish, own)

    async def _origin(self, record: MigrationRecord) -> Origin | None:
        """What the target is filled from; None before it is described."""
        spec = await self._generations.spec(record.target)
        return None if spec is None else spec.origin

    async def _source_cluster(self, record: MigrationRecord) -> SourceCluster | None:
        if self._cluster is None:
            origin = await self._origin(record)
            if origin is not None and origin.is_followed:
                self._cluster = self._origins.cluster(origin)
        return self._cluster

    async def _measure_source(self, record: MigrationRecord) -> None:
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure(record))
        done, _ = await asyncio.wait({self._measuring}, timeout=_MEASURE_SLICE_SECONDS)
        if not done:
            return
        task, self._measuring = self._measuring, None
        self._measured = task.result()
        self.facts = replace(self.facts, measured=True)
        _log.info("source_measured", migration=record.id, nouns=self._measured.nouns, verbs=self._measured.verbs)

    async def _measure(self, record: MigrationRecord) -> DigestSeen:
        seen = await self._look(record)
        return await self._origins.digest(seen.origin, seen, projections(record)[0])

    # --- the switch -----------------------------------------------------------------------------

    async def _take_positions(self, record: MigrationRecord) -> None:
        attempt, cluster = self._attempt(), await self._source_cluster(record)
        if cluster is None:
            await super()._take_positions(record)
            return
        # Our own nodes first pass the barrier of this attempt: nobody has a write in flight that began before them.
        await super()._take_positions(record)
        ours = self.facts.cut_over
        if ours is None or ours.positions is None:
            return
        self.facts = replace(self.facts, cut_over=replace(ours, positions=None))
        moving = Moving(to=self._view.namespace, migration=record.id, epoch=attempt.epoch)
        self.facts = replace(self.facts, fenced_elsewhere=True)
        fenced = await cluster.fence(moving)
        positions = await cluster.positions(fenced, timeout=self._remaining(record, attempt))
        if positions is None:
            await self._clock.sleep(min(_RETRY_SECONDS, self._remaining(record, attempt)))
            return
        self._fenced = fenced
        self.facts = replace(self.facts, cut_over=replace(attempt, positions=positions))
        _log.info("source_drained", migration=record.id, namespace=moving.to, positions=positions)

    def _has_reached(self, record: MigrationRecord, seen: Observation, positions: Mapping[int, int]) -> bool:
        if self._cluster is None:
            return super()._has_reached(record, seen, positions)
        placed = seen.generation(record.following)
        count = self._cluster.origin.shard_count
        owners = seen.owners(record.following)
        return placed is not None and all(
            (owner := owners.get(shard)) is not None
            and owner.source_generation == ELSEWHERE
            and owner.source_cursor.get(followed, 0) >= positions[followed]
            for shard in placed.shards
            for followed in followed_shards(shard, source_count=count, target_count=placed.shard_count)
        )

    async def _digest_of_leading(
        self, record: MigrationRecord, routing: Routing, timeout: float, projection: Projection | None
    ) -> DigestSeen | None:
        # What was measured was so under the same projection; whatever is here, and should not be, counts in any.
        own = await self._digest(routing, record.leading, timeout, None)
        if own is None:
            return None
        if own.nouns or own.verbs:
            # Written before the front doors knew that nothing may be: with these the two sides cannot be equal.
            _log.error("target_not_empty", migration=record.id, nouns=own.nouns, verbs=own.verbs)
            return own
        if self._cluster is None:
            assert self._measured is not None
            return replace(self._measured, positions=own.positions)
        if self._fenced is None:
            return None
        found = await self._cluster.digest(self._fenced, timeout=timeout)
        if found is None:
            return None
        positions = {(record.leading, shard): position for (_, shard), position in found.positions.items()}
        return replace(found, positions=positions)

    def _arrival(self, record: MigrationRecord) -> Arrival | None:
        wish = record.request.source
        return Arrival(source=wish.name if wish else "", migration=record.id)

    async def _commit(self, record: MigrationRecord) -> None:
        await super()._commit(record)
        if self._cluster is not None:
            # Its writers wait to be told. If they cannot be now, completing the migration does it.
            with suppress(BrainyError):
                await self._cluster.leave(record.id)

    async def _retire_source(self, record: MigrationRecord) -> None:
        cluster = await self._source_cluster(record)
        if cluster is not None:
            await cluster.leave(record.id)
        await super()._retire_source(record)

    # --- giving up ------------------------------------------------------------------------------

    async def _undrain(self, record: MigrationRecord, generation: int) -> None:
        await super()._undrain(record, generation)
        await self._unfence(record)

    async def _undo(self, record: MigrationRecord) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
        await super()._undo(record)
        await self._unfence(record)

    async def _unfence(self, record: MigrationRecord) -> None:
        """Let writes over there go on; this record is past the attempt, or it is active here and nothing is done."""
        cluster = await self._source_cluster(record)
        self._fenced = None
        if cluster is None:
            return
        routing = await self._routing()
        if routing.active == record.target:
            return
        await cluster.unfence(record.id)
        self.facts = replace(self.facts, fenced_elsewhere=False)


def overlaid(seen: Observation, record: MigrationRecord, theirs: Routing, ends: Mapping[int, int]) -> Observation:
    """Put the namespace that is left in the place of our own empty generation, so that a lag is one behind it. Pure.

    Args:
        seen: what is so here.
        record: the migration.
        theirs: the other routing record.
        ends: its shards' ends, as far as their owners answer.
    """
    own, other = seen.generation(record.source), theirs.generations.get(theirs.active)
    if own is None or other is None:
        return seen
    # Its nodes may have the names of ours.
    shards = {
        shard: where.model_copy(update={"owner": f"{theirs.namespace}/{where.owner}", "replicas": ()})
        for shard, where in other.shards.items()
    }
    place = own.model_copy(update={"shard_count": other.shard_count, "shards": shards})
    leaders = tuple(
        ReplicaSeen(
            node_id=shards[shard].owner,
            generation=record.source,
            shard=shard,
            state=ReplicaState.READY,
            applied=position,
        )
        for shard, position in ends.items()
    )
    ours = tuple(
        replace(found, source_generation=record.source) if found.source_generation == ELSEWHERE else found
        for found in seen.replicas
        if found.generation != record.source
    )
    return Observation(
        routing=seen.routing.model_copy(update={"generations": {**seen.routing.generations, record.source: place}}),
        reachable=seen.reachable | {leader.node_id for leader in leaders},
        replicas=(*ours, *leaders),
        facts=seen.facts,
    )

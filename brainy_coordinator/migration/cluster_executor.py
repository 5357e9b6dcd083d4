"""The executor that acts on the cluster: routing swaps, barriers, digests (docs/protocols/switch.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from brainy.api.node.v1 import control_pb2
from brainy.bucket.origin import Arrival
from brainy.bucket.projection import Projection
from brainy.bucket.records import Routing, Spec
from brainy.clock import Clock, iso
from brainy.errors import PreconditionError, UnavailableError
from brainy.locks.base import LockProvider
from brainy.telemetry.logs import get_logger
from brainy_coordinator.announcer import Announcer
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.migration.cut_over import LAG_EXCEEDED_LIMIT, behind
from brainy_coordinator.migration.observation import (
    CutOver,
    Facts,
    Observation,
    ReplicaSeen,
    Still,
    followed_shards,
)
from brainy_coordinator.migration.preflight.checks import target_spec
from brainy_coordinator.migration.preflight.preflight import Preflight, require
from brainy_coordinator.migration.quality_probe import QualityProbe
from brainy_coordinator.migration.quarantine import QuarantineCount
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import projections
from brainy_coordinator.migration.service_seen import ServiceSeen
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.strategies.coordinated import QUIET_SECONDS
from brainy_coordinator.migration.switch_countdown import SwitchCountdown
from brainy_coordinator.migration.trial import try_reads
from brainy_coordinator.migration.waves import look_at_bake
from brainy_coordinator.nodes import DigestSeen
from brainy_coordinator.ownership import with_epochs
from brainy_coordinator.placement import Assignment, place
from brainy_coordinator.pools import eligible
from brainy_coordinator.retirement.retirements import Retirements
from brainy_coordinator.routing import RoutingRegister
from brainy_coordinator.view import NamespaceView

_log = get_logger(__name__)

#: How long to wait before the target's progress is asked for again while writes wait.
_POLL_SECONDS = 0.01
#: How long to wait before a barrier that not everybody passed is tried again.
_RETRY_SECONDS = 0.05
_CALL_SECONDS = 2.0
#: Longest an action waits while writes do, before others get a turn: a dead owner must be replaced meanwhile.
_SLICE_SECONDS = 0.5
#: States in which writes are stopped by an attempt.
_DRAINED = (State.CUTTING_OVER, State.VERIFYING, State.ROLLING_BACK)


def _is_asked(record: MigrationRecord) -> bool:
    """Whether heartbeats are too old to judge by, so that nodes are asked: right before the sides may change."""
    if record.paused:
        return False
    if record.state is State.OBSERVING:
        return record.wants_rollback
    waits = record.held or record.postponed is not None
    return record.state is State.CATCHING_UP or (record.state is State.READY and not waits)


class ClusterExecutor:
    """One running migration's hands and eyes. Made anew by each leader, for each migration."""

    def __init__(
        self,
        *,
        register: RoutingRegister,
        view: NamespaceView,
        barrier: Barrier,
        announcer: Announcer,
        locks: LockProvider,
        generations: Generations,
        preflight: Preflight,
        quarantine: QuarantineCount,
        quality: QualityProbe,
        others: Collection[str],
        retirements: Retirements,
        switch_countdown: SwitchCountdown,
        clock: Clock,
    ) -> None:
        self._register = register
        self._view = view
        self._barrier = barrier
        self._announcer = announcer
        self._locks = locks
        self._generations = generations
        self._preflight = preflight
        self._quarantine = quarantine
        self._quality = quality
        self._others = others
        self._retirements = retirements
        self._clock = clock
        self._switch_countdown = switch_countdown
        self._service = ServiceSeen(view, barrier, clock=clock)
        self.facts = Facts()

    async def observe(self, record: MigrationRecord) -> Observation:
        """See ``Executor``."""
        routing = await self._routing()
        self._note(record, routing)
        left = await self._switch_countdown.left(record)
        self.facts = replace(self.facts, postponed_left=left, served=await self._service.look(record))
        reachable = self._view.reachable()
        fresh = await self._barrier.shard_states(reachable, timeout=_CALL_SECONDS) if _is_asked(record) else None
        seen = self._seen(routing, reachable, fresh)
        rests = fresh is None and record.state is State.READY and not record.paused
        if rests and behind(record, seen, LAG_EXCEEDED_LIMIT):
            # READY was reached by asking. Heartbeats may be of before that: what they say against it is asked again.
            fresh = await self._barrier.shard_states(reachable, timeout=_CALL_SECONDS)
            seen = self._seen(routing, reachable, fresh)
        return seen

    def _seen(
        self,
        routing: Routing,
        reachable: Collection[str],
        fresh: Mapping[str, Sequence[control_pb2.ShardReplica]] | None,
    ) -> Observation:
        return Observation(
            routing=routing,
            reachable=frozenset(reachable),
            replicas=self._view.replicas(fresh),
            facts=self.facts,
        )

    async def perform(self, action: act.Action, record: MigrationRecord) -> None:
        """See ``Executor``."""
        match action:
            case act.RunPreflight():
                await self._run_preflight(record)
            case act.CreateTarget():
                await self._create_target(record)
            case act.PlaceTarget():
                await self._place_target(record)
            case act.CountQuarantine():
                await self._count_quarantine(record)
            case act.MeasureSource():
                await self._measure_source(record)
            case act.AdoptNode(node_id=node_id):
                await self._adopt(record, node_id)
            case act.AdoptWave(nodes=nodes):
                await self._adopt_all(record, nodes)
            case act.AwaitBake(nodes=nodes):
                seen, now = await self.observe(record), self._clock.monotonic()
                self.facts = replace(self.facts, bake=look_at_bake(record, seen, nodes, now))
            case act.AdoptAll():
                await self._adopt_all(record, tuple(self._view.reachable()))
            case act.AwaitQuiet():
                await self._await_quiet(record)
            case act.MeasureQuality(source=source, target=target):
                await self._measure_quality(record, source, target)
            case act.ShadowReads(share=share):
                routing = await self._routing()
                await self._swap(routing, try_reads(routing, record, weight=0.0, shadow=share))
            case act.Drain():
                await self._drain(record)
            case act.TakePositions():
                await self._take_positions(record)
            case act.AwaitCatchUp():
                await self._await_catch_up(record)
            case act.PrepareComparison():
                await self._prepare_comparison(record)
            case act.CompareDigests():
                await self._compare_digests(record)
            case act.Commit():
                await self._commit(record)
            case act.Release():
                await self._release()
            case act.RetireSource():
                await self._retire_source(record)
            case act.Undrain(generation=generation):
                await self._undrain(record, generation)
            case act.Undo():
                await self._undo(record)

    async def _routing(self) -> Routing:
        routing = await self._register.current()
        if routing is None:
            raise PreconditionError(
                "the namespace has no routing record",
                remedy="wait until the coordinator has adopted it",
                namespace=self._view.namespace,
            )
        return routing

    async def _leaving(self, record: MigrationRecord, generation: int) -> Routing:
        """Put on record what is to become of a generation before it leaves the routing record."""
        if generation in (await self._routing()).generations:
            await self._retirements.begin(generation, migration=record.id)
        return await self._routing()

    async def _swap(self, before: Routing, after: Routing, *, tell: bool = True) -> Routing:
        """Swap unless nothing would change, and tell the nodes."""
        if after is before:
            return before
        swapped = await self._register.swap(before, after)
        if tell:
            self._announcer.tell(swapped, self._view.reachable())
        return swapped

    async def _run_preflight(self, record: MigrationRecord) -> None:
        checks = await self._preflight.run(record.request, await self._routing(), others=self._others)
        self.facts = replace(self.facts, checks=checks)

    async def _count_quarantine(self, record: MigrationRecord) -> None:
        routing = await self._routing()
        states = await self._barrier.shard_states(self._owner_addresses(routing, record.target), timeout=_CALL_SECONDS)
        check = await self._quarantine.check(
            routing, record.target, self._view.replicas(states), limit=record.request.quarantine_limit
        )
        self.facts = replace(self.facts, quarantine=check)

    async def _measure_source(self, record: MigrationRecord) -> None:
        raise PreconditionError("only data that come from elsewhere are measured", migration=record.id)

    async def _retire_source(self, record: MigrationRecord) -> None:
        routing = await self._leaving(record, record.source)
        await self._swap(routing, edits.retire_source(routing, record.id, source=record.source))

    async def _undo(self, record: MigrationRecord) -> None:
        routing = await self._leaving(record, record.target)
        await self._swap(routing, edits.undo(routing, record.id, target=record.target))

    async def _create_target(self, record: MigrationRecord) -> None:
        # Not a remembered one: its embedding may have been decided since.
        source = await self._generations.latest(record.source)
        if source is None:
            raise PreconditionError(
                "the source generation has no description",
                remedy="restore its spec.json from a copy",
                generation=record.source,
            )
        await self._generations.create(await self._describe_target(source, record))

    async def _describe_target(self, source: Spec, record: MigrationRecord) -> Spec:
        return target_spec(source, record.request, created_at=iso(self._clock.wall()))

    async def _place_target(self, record: MigrationRecord) -> None:
        routing = await self._routing()
        if record.target in routing.generations:
            return
        spec = await self._generations.spec(record.target)
        source = routing.generations[record.source]
        pool = record.request.target.pool or source.pool
        labels = self._view.labels()
        # The source reserves its pool only against a target that has none; then both have none.
        usable = eligible(pool, labels)
        if spec is None or not usable:
            raise UnavailableError(
                "no node can take the target", remedy="start a node", generation=record.target, pool=pool
            )
        # With as many shards as before, each shard's target is built where the shard is.
        similar = spec.shard_count == source.shard_count and pool == source.pool
        assignments = place(
            nodes=usable,
            current={s: Assignment.of(p) for s, p in source.shards.items()} if similar else {},
            shard_count=spec.shard_count,
            replication=spec.replication,
            ready={},
        )
        shards = await with_epochs(
            self._locks, generation=record.target, assignments=assignments, current={}, nodes=routing.nodes
        )
        addresses = self._view.addresses()
        joined = {node: addresses[node] for node in labels if node in addresses}
        known = routing.model_copy(update={"nodes": {**routing.nodes, **joined}})
        placed = edits.place_target(
            known, record.id, target=record.target, shards=shards, pool=pool, origin=spec.origin
        )
        await self._swap(routing, placed)

    async def _adopt(self, record: MigrationRecord, node_id: str) -> None:
        routing = await self._routing()
        adopted = edits.adopt(routing, record.id, node_id=node_id, target=record.target)
        routing = await self._swap(routing, adopted, tell=False)
        address = self._view.reachable().get(node_id)
        where = {node_id: address} if address else {}
        if await self._barrier.pass_epoch(where, epoch=routing.epoch, timeout=_CALL_SECONDS):
            self.facts = replace(self.facts, adopted_in_force=self.facts.adopted_in_force | {node_id})
        else:
            await self._clock.sleep(_RETRY_SECONDS)

    async def _adopt_all(self, record: MigrationRecord, nodes: Collection[str]) -> None:
        routing = await self._routing()
        reachable = {node: where for node, where in self._view.reachable().items() if node in nodes}
        adopted = edits.adopt_all(routing, record.id, nodes=reachable, target=record.target)
        routing = await self._swap(routing, adopted, tell=False)
        acks = await self._barrier.pass_epoch(reachable, epoch=routing.epoch, timeout=_CALL_SECONDS)
        self.facts = replace(self.facts, adopted_in_force=self.facts.adopted_in_force | acks.keys())
        if len(acks) < len(reachable):
            await self._clock.sleep(_RETRY_SECONDS)

    async def _await_quiet(self, record: MigrationRecord) -> None:
        seen, now = await self.observe(record), self._clock.monotonic()
        ends, before = seen.ends(record.source), self.facts.still
        if before is None:
            still = Still(positions=ends, since=now)
        elif before.positions != ends:
            moved = sorted(shard for shard, end in ends.items() if before.positions.get(shard) != end)
            text = ", ".join(f"shard {s} went from {before.positions.get(s, '?')} to {ends[s]}" for s in moved)
            still = Still(positions=ends, since=now, moved=text or before.moved)
        else:
            known = seen.generation(record.source)
            whole = known is not None and ends.keys() == known.shards.keys()
            still = replace(before, quiet=whole and now - before.since >= QUIET_SECONDS)
        self.facts = replace(self.facts, still=still)

    async def _measure_quality(self, record: MigrationRecord, source: int, target: int) -> None:
        wish = record.request.quality
        if wish is not None:
            measured = await self._quality.turn(
                self.facts.quality, wish, self._view.reachable(), source=source, target=target
            )
            self.facts = replace(self.facts, quality=measured)

    async def _drain(self, record: MigrationRecord) -> None:
        if record.request.keep_way_back:
            # Somebody may have turned following or mirroring of the tree on since preflight.
            require((await self._preflight.way_back(),))
        if record.state is State.ROLLING_BACK:
            await self._generations.carry_embedding(record.leading, record.following)
        started_at = self._clock.monotonic()
        routing = await self._routing()
        drained = await self._swap(routing, edits.drain(routing, record.id), tell=False)
        attempt = CutOver(epoch=drained.epoch, started_at=started_at, leading=record.leading)
        self.facts = replace(self.facts, cut_over=attempt)

    def _remaining(self, record: MigrationRecord, attempt: CutOver) -> float:
        """Seconds to wait for at most: a slice, or what is left of the pause cap."""
        left = attempt.started_at + record.request.pause_cap_seconds - self._clock.monotonic()
        return min(_SLICE_SECONDS, max(0.0, left))

    async def _take_positions(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        leading = record.leading
        source = routing.generations[leading]
        # Silent nodes that own nothing are left out; an owner is waited for, whatever is thought of it.
        required = self._owner_addresses(routing, leading) | self._view.reachable()
        acks = await self._barrier.pass_epoch(required, epoch=attempt.epoch, timeout=self._remaining(record, attempt))
        positions = {
            shard: acks[where.owner].positions[leading, shard]
            for shard, where in source.shards.items()
            if where.owner in acks and (leading, shard) in acks[where.owner].positions
        }
        in_force = len(acks) == len(required) and all(ack.epoch == attempt.epoch for ack in acks.values())
        if in_force and positions.keys() == source.shards.keys():
            self.facts = replace(self.facts, cut_over=replace(attempt, positions=positions))
            _log.info("cut_over_drained", migration=record.id, positions=positions)
        elif any(ack.epoch > attempt.epoch for ack in acks.values()):
            self._register.forget()
        else:
            await self._clock.sleep(min(_RETRY_SECONDS, self._remaining(record, attempt)))

    async def _await_catch_up(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        owners = self._owner_addresses(routing, record.following)
        until = self._clock.monotonic() + self._remaining(record, attempt)
        while (remaining := until - self._clock.monotonic()) > 0:
            answers = await self._barrier.shard_states(owners, timeout=remaining)
            replicas = tuple(ReplicaSeen.of(node, r) for node, reports in answers.items() for r in reports)
            seen = Observation(routing=routing, reachable=frozenset(answers), replicas=replicas)
            if self._has_reached(record, seen, attempt.positions or {}):
                self.facts = replace(self.facts, cut_over=replace(attempt, caught_up=True))
                return
            await self._clock.sleep(min(_POLL_SECONDS, remaining))

    async def _digests(
        self, record: MigrationRecord, routing: Routing, *, timeout: float
    ) -> tuple[DigestSeen | None, DigestSeen | None]:
        of_leading, of_following = projections(record)
        leading, following = await asyncio.gather(
            self._digest_of_leading(record, routing, timeout, of_leading),
            self._digest(routing, record.following, timeout, of_following),
        )
        return leading, following

    async def _prepare_comparison(self, record: MigrationRecord) -> None:
        # Asked until both are counted: the nodes go on with it though the call has given up.
        sides = await self._digests(record, await self._routing(), timeout=_CALL_SECONDS)
        if None in sides:
            await self._clock.sleep(_RETRY_SECONDS)
        else:
            self.facts = replace(self.facts, comparable=record.leading)

    def _has_reached(self, record: MigrationRecord, seen: Observation, positions: Mapping[int, int]) -> bool:
        """Whether the side that follows includes the final positions."""
        return _includes(seen, record.leading, record.following, positions)

    async def _digest(
        self, routing: Routing, number: int, timeout: float, projection: Projection | None
    ) -> DigestSeen | None:
        """Sum a generation's digest over the owners of its shards; None when one does not answer."""
        owners = self._owner_addresses(routing, number)
        placement = routing.generations[number]
        return await self._barrier.digest(placement, number, owners, timeout=timeout, projection=projection)

    async def _digest_of_leading(
        self, record: MigrationRecord, routing: Routing, timeout: float, projection: Projection | None
    ) -> DigestSeen | None:
        """Return the digest that the other side must have, with positions of the generation that leads."""
        return await self._digest(routing, record.leading, timeout, projection)

    async def _compare_digests(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        timeout = self._remaining(record, attempt)
        source, target = await self._digests(record, routing, timeout=timeout)
        if source is None or target is None:
            await self._clock.sleep(min(_POLL_SECONDS, self._remaining(record, attempt)))
            return
        final = {(record.leading, shard): position for shard, position in (attempt.positions or {}).items()}
        if any(source.positions.get(key, position) != position for key, position in final.items()):
            # Somebody wrote after the barrier: what was compared is not what would be switched.
            _log.error("write_after_barrier", migration=record.id, final=final, seen=source.positions)
            self.facts = replace(self.facts, cut_over=None)
            return
        equal = source.digest == target.digest
        if not equal:
            _log.error(
                "digests_differ",
                migration=record.id,
                buckets=source.digest.differing(target.digest)[:16],
                source_items=(source.nouns, source.verbs),
                target_items=(target.nouns, target.verbs),
            )
        # Both were equal with the other side at these positions, and nobody but the followers writes there.
        follow_from = {shard: position for (_, shard), position in target.positions.items()}
        self.facts = replace(self.facts, cut_over=replace(attempt, digest_equal=equal, follow_from=follow_from))

    async def _commit(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        committed = edits.commit(
            routing,
            record.id,
            leading=record.leading,
            following=record.following,
            epoch=attempt.epoch,
            follow_from=attempt.follow_from if record.request.keep_way_back else None,
            back=record.state is State.ROLLING_BACK,
            arrived=self._arrival(record),
        )
        await self._swap(routing, committed)
        self._turned(attempt)

    def _arrival(self, record: MigrationRecord) -> Arrival | None:
        """Return what the commit notes of where the data came from; nothing where that is this namespace."""
        return None

    def _turned(self, attempt: CutOver) -> None:
        """The sides have changed: everything that was learnt of the nodes is of before."""
        self.facts = replace(
            self.facts,
            cut_over=None,
            gave_up_at=None,
            waiting_since=attempt.started_at,
            write_pause_seconds=self._clock.monotonic() - attempt.started_at,
            adopted_in_force=frozenset(),
            still=None,
            bake=None,
            quality=None,
            comparable=None,
            released=frozenset(),
        )

    def _note(self, record: MigrationRecord, routing: Routing) -> None:
        """Learn from the routing record what this leader did without seeing the end of it."""
        attempt, since = self.facts.cut_over, self.facts.observing_since
        if attempt is not None and routing.active != attempt.leading:
            self._turned(attempt)
        elif attempt is not None and record.state not in _DRAINED:
            self.facts = replace(self.facts, cut_over=None)
        if record.state is not State.READY and self.facts.bake is not None:
            # Something of the target was not ready: what had baked begins anew.
            self.facts = replace(self.facts, bake=None)
        observed = record.state is State.OBSERVING
        if observed != (since is not None) and record.state is not State.ROLLING_BACK:
            self.facts = replace(
                self.facts,
                observing_since=self._clock.monotonic() if observed else None,
                observed_before=record.observed_seconds if observed else 0.0,
            )
            self._service.begin(record.target)

    async def _release(self) -> None:
        routing = await self._routing()
        waiting = {n: a for n, a in self._view.reachable().items() if n not in self.facts.released}
        acks = await self._barrier.pass_epoch(waiting, epoch=routing.epoch, timeout=_CALL_SECONDS)
        self.facts = replace(self.facts, released=self.facts.released | acks.keys())
        if len(acks) < len(waiting):
            await self._clock.sleep(_RETRY_SECONDS)
        elif self.facts.waiting_since is not None:
            pause = self._clock.monotonic() - self.facts.waiting_since
            self.facts = replace(self.facts, write_pause_seconds=pause, waiting_since=None)

    async def _undrain(self, record: MigrationRecord, generation: int) -> None:
        # Whatever was thought before, look again: the swap that ends the draining must not be missed.
        self._register.forget()
        routing = await self._routing()
        if routing.active != generation:
            return
        self.facts = replace(self.facts, cut_over=None, comparable=None, gave_up_at=self._clock.monotonic())
        await self._swap(routing, edits.undrain(routing, record.id))

    def _attempt(self) -> CutOver:
        if self.facts.cut_over is None:
            raise PreconditionError("no attempt to cut over is under way")
        return self.facts.cut_over

    def _owner_addresses(self, routing: Routing, generation: int) -> dict[str, str]:
        reachable = self._view.reachable()
        owners = {where.owner for where in routing.generations[generation].shards.values()}
        return {owner: reachable.get(owner) or routing.nodes[owner].address for owner in owners}


def _includes(seen: Observation, leading: int, following: int, positions: Mapping[int, int]) -> bool:
    """Whether every shard that follows includes the final positions of the shards it follows."""
    source, target = seen.generation(leading), seen.generation(following)
    if source is None or target is None:
        return False
    owners = seen.owners(following)
    return all(
        (owner := owners.get(shard)) is not None and owner.reached(leading, followed) >= positions[followed]
        for shard in target.shards
        for followed in followed_shards(shard, source_count=source.shard_count, target_count=target.shard_count)
    )

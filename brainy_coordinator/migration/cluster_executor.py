"""The executor that acts on the cluster: what the leader sees of it, and what it does before and after the switch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from brainy.api.node.v1 import control_pb2
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
    Observation,
    Still,
)
from brainy_coordinator.migration.preflight.checks import target_spec
from brainy_coordinator.migration.preflight.preflight import Preflight
from brainy_coordinator.migration.quality_probe import QualityProbe
from brainy_coordinator.migration.quarantine import QuarantineCount
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.service_seen import ServiceSeen
from brainy_coordinator.migration.side_switch import CALL_SECONDS, RETRY_SECONDS, SideSwitch
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.strategies.coordinated import QUIET_SECONDS
from brainy_coordinator.migration.switch_countdown import SwitchCountdown
from brainy_coordinator.migration.trial import try_reads
from brainy_coordinator.migration.waves import look_at_bake
from brainy_coordinator.ownership import with_epochs
from brainy_coordinator.placement import Assignment, place
from brainy_coordinator.pools import eligible
from brainy_coordinator.retirement.retirements import Retirements
from brainy_coordinator.routing import RoutingRegister
from brainy_coordinator.view import NamespaceView

_log = get_logger(__name__)

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


class ClusterExecutor(SideSwitch):
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
        super().__init__(
            register=register,
            announcer=announcer,
            view=view,
            barrier=barrier,
            generations=generations,
            preflight=preflight,
            retirements=retirements,
            clock=clock,
        )
        self._locks = locks
        self._quarantine = quarantine
        self._quality = quality
        self._others = others
        self._switch_countdown = switch_countdown
        self._service = ServiceSeen(view, barrier, clock=clock)

    async def observe(self, record: MigrationRecord) -> Observation:
        """See ``Executor``."""
        routing = await self._routing()
        self._note(record, routing)
        left = await self._switch_countdown.left(record)
        self.facts = replace(self.facts, postponed_left=left, served=await self._service.look(record))
        reachable = self._view.reachable()
        fresh = await self._barrier.shard_states(reachable, timeout=CALL_SECONDS) if _is_asked(record) else None
        seen = self._seen(routing, reachable, fresh)
        rests = fresh is None and record.state is State.READY and not record.paused
        if rests and behind(record, seen, LAG_EXCEEDED_LIMIT):
            # READY was reached by asking. Heartbeats may be of before that: what they say against it is asked again.
            fresh = await self._barrier.shard_states(reachable, timeout=CALL_SECONDS)
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

    async def _run_preflight(self, record: MigrationRecord) -> None:
        checks = await self._preflight.run(record.request, await self._routing(), others=self._others)
        self.facts = replace(self.facts, checks=checks)

    async def _count_quarantine(self, record: MigrationRecord) -> None:
        routing = await self._routing()
        states = await self._barrier.shard_states(self._owner_addresses(routing, record.target), timeout=CALL_SECONDS)
        check = await self._quarantine.check(
            routing, record.target, self._view.replicas(states), limit=record.request.quarantine_limit
        )
        self.facts = replace(self.facts, quarantine=check)

    async def _measure_source(self, record: MigrationRecord) -> None:
        raise PreconditionError("only data that come from elsewhere are measured", migration=record.id)

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
        if await self._barrier.pass_epoch(where, epoch=routing.epoch, timeout=CALL_SECONDS):
            self.facts = replace(self.facts, adopted_in_force=self.facts.adopted_in_force | {node_id})
        else:
            await self._clock.sleep(RETRY_SECONDS)

    async def _adopt_all(self, record: MigrationRecord, nodes: Collection[str]) -> None:
        routing = await self._routing()
        reachable = {node: where for node, where in self._view.reachable().items() if node in nodes}
        adopted = edits.adopt_all(routing, record.id, nodes=reachable, target=record.target)
        routing = await self._swap(routing, adopted, tell=False)
        acks = await self._barrier.pass_epoch(reachable, epoch=routing.epoch, timeout=CALL_SECONDS)
        self.facts = replace(self.facts, adopted_in_force=self.facts.adopted_in_force | acks.keys())
        if len(acks) < len(reachable):
            await self._clock.sleep(RETRY_SECONDS)

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

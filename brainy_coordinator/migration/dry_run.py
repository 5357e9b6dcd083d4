"""The executor that changes nothing: it plays a migration against an ideal cluster and writes down each step.

It runs the same ``decide`` as the real one and makes the same edits, to a routing record that is never
stored, so that a plan cannot say anything else than what would be done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from brainy.bucket.records import NodeAddress, Routing, ShardPlacement
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.decision import LAG_LIMIT, Decision, decide
from brainy_coordinator.migration.observation import (
    Bake,
    Check,
    CutOver,
    Facts,
    Observation,
    ReplicaSeen,
    ReplicaState,
    Still,
)
from brainy_coordinator.migration.quality import Measured, QualityWish
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, fold
from brainy_coordinator.migration.stages import STAGES
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.strategies.coordinated import QUIET_SECONDS
from brainy_coordinator.migration.transitions import next_state
from brainy_coordinator.migration.trial import try_reads
from brainy_coordinator.placement import Assignment, place

#: More decisions than any migration needs; a guard against a loop.
_MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One line of a plan."""

    action: str
    detail: str


class DryRunExecutor:
    """Executor Protocol over an ideal world."""

    def __init__(
        self,
        routing: Routing,
        *,
        reachable: frozenset[str],
        shard_count: int,
        replication: int,
        checks: tuple[Check, ...],
        pool: str = "",
        holders: frozenset[str] | None = None,
        followed: bool = False,
    ) -> None:
        """Play on a record.

        Args:
            routing: the record in force; never changed.
            reachable: nodes that can be called.
            shard_count: of the target.
            replication: of the target.
            checks: what preflight found.
            pool: the target's, or "".
            holders: nodes that may hold the target; ``reachable`` if left out.
            followed: of data that come from elsewhere: whether they are followed.
        """
        nodes = {node: NodeAddress(address="", incarnation="") for node in reachable}
        self._routing = routing.model_copy(update={"nodes": {**nodes, **routing.nodes}})
        self._reachable = reachable
        self._pool = pool
        self._holders = reachable if holders is None else holders
        self._shard_count = shard_count
        self._replication = replication
        self._checks = checks
        self._followed = followed
        self._facts = Facts()
        self.steps: list[PlanStep] = []
        #: The history it would have, played.
        self.story: list[Event] = []

    async def observe(self, record: MigrationRecord) -> Observation:
        """Every replica that should exist is ready and has caught up."""
        source = self._routing.generations.get(record.source)
        source_count = source.shard_count if source else 0
        replicas = tuple(
            ReplicaSeen(
                node_id=node,
                generation=number,
                shard=shard,
                state=ReplicaState.READY,
                source_cursor=dict.fromkeys(range(source_count), 0),
            )
            for number, placed in self._routing.generations.items()
            for shard, where in placed.shards.items()
            for node in (where.owner, *where.replicas)
        )
        return Observation(routing=self._routing, reachable=self._reachable, replicas=replicas, facts=self._facts)

    async def perform(self, action: act.Action, record: MigrationRecord) -> None:
        """Write the step down and make its edit."""
        self.steps.append(PlanStep(type(action).__name__, self._describe(action, record)))
        routing, facts = self._routing, self._facts
        match action:
            case act.RunPreflight():
                facts = replace(facts, checks=tuple(replace(check, passed=True) for check in self._checks))
            case act.PlaceTarget():
                shards = {s: ShardPlacement(owner=a.owner, epoch=1, replicas=a.replicas) for s, a in self._placed()}
                routing = edits.place_target(routing, record.id, target=record.target, shards=shards, pool=self._pool)
            case act.AdoptNode(node_id=node_id):
                routing = edits.adopt(routing, record.id, node_id=node_id, target=record.target)
                facts = replace(facts, adopted_in_force=facts.adopted_in_force | {node_id})
            case act.AdoptWave(nodes=nodes):
                routing = edits.adopt_all(routing, record.id, nodes=nodes, target=record.target)
                facts = replace(facts, adopted_in_force=facts.adopted_in_force | set(nodes))
            case act.AwaitBake(nodes=nodes):
                facts = replace(facts, bake=Bake(nodes=frozenset(nodes), looked_at=0.0, done=True))
            case act.AdoptAll():
                routing = edits.adopt_all(routing, record.id, nodes=self._reachable, target=record.target)
                facts = replace(facts, adopted_in_force=self._reachable)
            case act.AwaitQuiet():
                ends = (await self.observe(record)).ends(record.source)
                facts = replace(facts, still=Still(positions=ends, since=0.0, quiet=True))
            case act.MeasureQuality():
                facts = replace(facts, quality=Measured(since=0.0, empty=True))
            case act.ShadowReads(share=share):
                routing = try_reads(routing, record, weight=0.0, shadow=share)
            case act.MeasureSource():
                facts = replace(facts, measured=True)
            case act.Drain():
                routing = edits.drain(routing, record.id)
                facts = replace(facts, cut_over=CutOver(epoch=routing.epoch, started_at=0.0))
            case act.TakePositions():
                facts = replace(facts, cut_over=replace(self._attempt(), positions={}))
            case act.AwaitCatchUp():
                facts = replace(facts, cut_over=replace(self._attempt(), caught_up=True))
            case act.PrepareComparison(leading=leading):
                facts = replace(facts, comparable=leading)
            case act.CompareDigests():
                facts = replace(facts, cut_over=replace(self._attempt(), digest_equal=True))
            case act.Commit():
                placed = routing.generations[record.following].shards
                routing = edits.commit(
                    routing,
                    record.id,
                    leading=record.leading,
                    following=record.following,
                    epoch=routing.epoch,
                    follow_from=dict.fromkeys(placed, 0) if record.request.keep_way_back else None,
                )
            case act.Release():
                facts = replace(facts, released=self._reachable, cut_over=None, comparable=None)
            case act.RetireSource():
                routing = edits.retire_source(routing, record.id, source=record.source)
            case act.CreateTarget() | act.CountQuarantine() | act.Undrain() | act.Undo():
                pass
        self._routing, self._facts = routing, facts

    def _attempt(self) -> CutOver:
        assert self._facts.cut_over is not None
        return self._facts.cut_over

    def _placed(self) -> list[tuple[int, Assignment]]:
        assignments = place(
            nodes=self._holders,
            current={},
            shard_count=self._shard_count,
            replication=self._replication,
            ready={},
        )
        return list(assignments.items())

    def _describe(self, action: act.Action, record: MigrationRecord) -> str:
        cap = record.request.pause_cap_seconds
        match action:
            case act.RunPreflight():
                return "; ".join(f"{c.name} {'passes' if c.passed else 'FAILS'} ({c.detail})" for c in self._checks)
            case act.CreateTarget(generation=number):
                return f"describe generation {number}; an object that exists is never changed"
            case act.PlaceTarget(generation=number, follows=source):
                wish = record.request.source
                whence = f"filled from generation {source} and following it within {LAG_LIMIT} records"
                if wish is not None:
                    whence = f"filled from {wish.name}" + (
                        f" and following it within {LAG_LIMIT} records" if self._followed else ""
                    )
                return (
                    f"{self._shard_count} shards of generation {number} on {len(self._holders)} nodes"
                    f"{f' of pool {self._pool}' if self._pool else ''}, {whence}"
                )
            case act.MeasureSource():
                wish = record.request.source
                return f"the digest of {wish.name if wish else 'the source'} is computed by reading it once more"
            case act.AdoptNode(node_id=node_id, generation=number):
                return f"{node_id} answers reads from generation {number}"
            case act.AdoptWave(nodes=nodes, generation=number):
                return f"{', '.join(nodes)} answer reads from generation {number}, in one swap and one barrier"
            case act.AwaitBake(nodes=nodes):
                return (
                    f"{', '.join(nodes)} answer healthily for {record.request.bake_seconds:g} s: every replica ready, "
                    "or it waits"
                )
            case act.AdoptAll(generation=number):
                return f"every node answers reads from generation {number}, in one swap and one barrier"
            case act.AwaitQuiet(generation=number):
                return f"no shard of generation {number} takes a record for {QUIET_SECONDS:g} s, or it waits"
            case act.MeasureQuality(source=source, target=target):
                return _quality_steps(record, source, target)
            case act.ShadowReads(generation=number, share=share):
                return f"{share:.0%} of the reads are asked of generation {number} besides, and compared"
            case act.Drain() if record.request.source is not None:
                if not self._followed:
                    return "nobody writes: the record of this namespace says that the switch has begun"
                return (
                    f"writes to {record.request.source.name} wait at its nodes, {cap:g} s at most, and are tried again"
                )
            case act.Drain():
                return f"writes wait at the nodes, {cap:g} s at most; past that they go on, and it is tried again"
            case act.TakePositions():
                return "every node confirms that no write is in flight"
            case act.AwaitCatchUp(generation=number):
                return f"generation {number} includes every final position"
            case act.PrepareComparison(leading=leading, following=following):
                return f"generations {leading} and {following} count their items without vectors, writes flowing"
            case act.CompareDigests(following=following) if record.request.source is not None:
                whence = record.request.source.name
                return f"the digests of {whence} and generation {following} are equal, or it is aborted"
            case act.CompareDigests(leading=leading, following=following):
                if record.request.target.embedding is not None:
                    return f"generations {leading} and {following} hold the same items, vectors aside, or it is aborted"
                return f"the digests of generations {leading} and {following} are equal, or it is aborted"
            case act.Commit(following=following) if record.request.source is not None:
                gone = f"; {record.request.source.name} answers that it has moved here" if self._followed else ""
                return f"point of no return: one swap makes generation {following} active{gone}"
            case act.Commit(leading=leading, following=following):
                if record.request.keep_way_back:
                    return f"one swap makes generation {following} active; generation {leading} follows it from there"
                return f"point of no return: one swap makes generation {following} active; writes go on there"
            case act.Release():
                return "every node confirms the new record"
            case act.RetireSource(generation=number):
                return f"generation {number} leaves the routing record; it is deleted when its retention is over"
            case act.CountQuarantine() | act.Undrain() | act.Undo():
                return ""


def _quality_steps(record: MigrationRecord, source: int, target: int) -> str:
    wish = record.request.quality or QualityWish()
    wanted = [
        f"overlap at least {wish.min_overlap:.0%}" if wish.min_overlap else "",
        f"recall at least {wish.min_recall:.0%}" if wish.min_recall else "",
        f"median latency at most {wish.max_latency_ratio:g} times the source's" if wish.max_latency_ratio else "",
    ]
    asked = f"generations {source} and {target} are asked {wish.queries} queries, by index and by scan"
    return f"{asked}: {', '.join(filter(None, wanted)) or 'nothing is asked of the figures'}, or it waits for somebody"


def _asked(record: MigrationRecord) -> tuple[Trigger, tuple[str, str]] | None:
    """What somebody has to ask for before an otherwise ideal migration goes on."""
    if record.state is State.READY and record.held:
        return Trigger.PROMOTE_REQUESTED, ("Hold", "nothing moves before it is promoted (brainy migrate promote)")
    if record.state is State.OBSERVING:
        after = record.request.observe_seconds
        when = f"after {after:g} s, or earlier when asked" if after else "when asked (brainy migrate complete)"
        limits = record.request.rollback_if
        itself = f", and is by itself if {' or '.join(limits.texts)}" if limits is not None else ""
        return Trigger.COMPLETE_REQUESTED, ("Observe", f"until then it can be rolled back{itself}; it completes {when}")
    return None


async def plan(executor: DryRunExecutor, migration_id: str, request: Request) -> tuple[PlanStep, ...]:
    """Return the steps a migration would take, its stages as headings."""
    purposes = {stage.state: stage.purpose for stage in STAGES}

    def event(record: MigrationRecord | None, trigger: Trigger, decision: Decision | None = None) -> Event:
        state = record.state if record else None
        return Event(
            sequence=record.sequence + 1 if record else 1,
            nonce="",
            at=0.0,
            trigger=trigger,
            from_state=state,
            to_state=next_state(state, trigger),
            by="plan",
            leader_epoch=0,
            request=None if record else request,
            nodes=decision.nodes if decision else (),
            quality=decision.quality if decision else None,
        )

    record = fold(migration_id, [event(None, Trigger.REQUESTED)])
    executor.story.extend(record.story)
    for _ in range(_MOST_STEPS):
        if record.state.is_terminal:
            break
        decision = decide(record, await executor.observe(record), 0.0)
        if decision.trigger is not None:
            before = record.state
            record = record.apply(event(record, decision.trigger, decision))
            executor.story.append(record.story[-1])
            if record.state in purposes and record.state is not before:
                executor.steps.append(PlanStep(record.state.name, purposes[record.state]))
        for action in decision.actions:
            await executor.perform(action, record)
        if decision.waits:
            asked = _asked(record)
            if asked is None:
                break
            executor.steps.append(PlanStep(*asked[1]))
            record = record.apply(event(record, asked[0]))
            executor.story.append(record.story[-1])
    return tuple(executor.steps)

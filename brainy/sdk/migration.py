"""Migrations as the client sees them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from brainy.api.coordinator.v1 import migration_pb2
from brainy.clock import iso
from brainy.errors import InvalidRequestError
from brainy.sdk.copies import CopyProgress, copy_from_proto
from brainy.sdk.generations import Generation, ObjectCount, generation_from_proto
from brainy.sdk.plans import PlanOutcome, outcome_from_proto, state_name
from brainy.sdk.quality import QualityFound, QualityThresholds, found_from_proto, thresholds_from_proto
from brainy.sdk.reembedding import Reembedding, reembedding_to_proto
from brainy.sdk.sources import SourceSpec, source_from_proto
from brainy.traffic.limits import limits_from_proto
from brainy.traffic.serving import ServingFigures, figures_from_proto


class Strategy(enum.Enum):
    """How traffic and nodes are moved."""

    #: Build the next generation beside the one in service, switch once.
    IN_PLACE_UPGRADE = "in-place-upgrade"
    #: The same, adopted by the nodes one after the other, readers first, the writer last.
    ROLLING = "rolling"
    #: As in-place upgrade, with the next generation on nodes of its own.
    BLUE_GREEN = "blue-green"
    #: In a window without writers: the reads of all nodes move together, the writes last.
    COORDINATED = "coordinated"
    #: Out of a backup, into a namespace that is empty.
    BACKUP_RESTORE = "backup-restore"
    #: Out of a backup or another namespace without its vectors: the texts are embedded.
    SPARSE_IMPORT = "sparse-import"
    #: Another namespace moves into this one, which is empty.
    DEDICATED_NAMESPACE = "dedicated-namespace"

    @classmethod
    def of(cls, value: Strategy | str) -> Strategy:
        """Accept the enum or its value, with '-' or '_'.

        Raises:
            InvalidRequestError: another name.
        """
        if isinstance(value, Strategy):
            return value
        try:
            return cls(value.lower().replace("_", "-"))
        except ValueError:
            raise InvalidRequestError(
                "unknown migration strategy",
                remedy="use one of: " + ", ".join(strategy.value for strategy in cls),
                strategy=value,
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What the target generation shall look like; 0 and "" mean as now, or the default."""

    shard_count: int = 0
    #: cos, l2sq or ip.
    metric: str = ""
    #: f32, f16, bf16 or i8: how the index holds vectors. The stored vectors stay float32.
    scalar_kind: str = ""
    #: Edges of a node of the HNSW graph.
    connectivity: int = 0
    #: Label of the nodes that shall hold it; those that may hold the source if left out. BLUE_GREEN needs one.
    pool: str = ""
    #: Candidates kept while the index is built, and while it is searched.
    expansion_add: int = 0
    expansion_search: int = 0
    #: How items are spread over shards: hash.
    partitioning: str = ""
    #: Length of the vectors; another one than now is refused but for that of ``embedding``.
    dimensions: int = 0
    #: Another model, which makes every vector anew out of the nouns' texts.
    embedding: Reembedding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationEvent:
    """One entry of a migration's story."""

    sequence: int
    #: ISO 8601 in UTC, by the clock of the coordinator that wrote it; for people.
    at: str
    from_state: str
    to_state: str
    trigger: str
    by: str
    leader_epoch: int
    detail: str
    #: Only where the search quality was measured.
    quality: QualityFound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Nodes whose reads move together in a rolling migration."""

    nodes: tuple[str, ...]
    #: waiting, baking (moved, and watched) or done.
    state: str
    #: While it bakes: for how long it has answered healthily.
    baked_seconds: float
    #: While it bakes: what is not healthy; "" for nothing.
    complaint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """A switch that waits because somebody put it off."""

    #: As the leader counts.
    remaining_seconds: float
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A migration at one moment."""

    id: str
    namespace: str
    strategy: str
    #: Upper-case name of the life-cycle: PENDING ... SUCCEEDED, ABORTING, ABORTED.
    state: str
    source_generation: int
    target_generation: int
    items_copied: int
    items_total: int
    #: Log records the target is behind the source.
    lag: int
    #: Nodes whose reads come from the target already.
    adopted_nodes: tuple[str, ...]
    #: How long writes waited at the cut-over.
    write_pause_seconds: float
    digest_equal: bool
    message: str
    #: After the switch the source follows the target, until the migration is completed.
    keep_way_back: bool = False
    #: It does not switch before it is promoted.
    held: bool = False
    #: Why it is paused; empty while it is not.
    paused: tuple[str, ...] = ()
    #: What it waits for, each with what to do about it.
    waits_for: tuple[str, ...] = ()
    #: Seconds after the switch after which it completes by itself; 0 for only when asked.
    observe_seconds: float = 0.0
    #: When it rolls back by itself; () for never.
    rollback_if: tuple[str, ...] = ()
    #: How its target has served lately since the switch, while a way back is kept; None before, and after it.
    served: ServingFigures | None = None
    #: How its source served until the switch; None where nothing is held against it.
    served_before: ServingFigures | None = None
    #: Seconds since the switch that were watched, by all leaders together.
    observed_seconds: float = 0.0
    #: How far the copy is, or the catching up after it; None where neither is under way.
    copy: CopyProgress | None = None
    story: tuple[MigrationEvent, ...] = field(default=(), repr=False)
    #: The plan it executes; "" for one that was started before plans were kept.
    plan_id: str = ""
    #: Rolling: the nodes in the order in which their reads move.
    waves: tuple[Wave, ...] = ()
    #: None while the switch is not postponed.
    postponed: Postponed | None = None
    #: What becomes of the generation it left behind; only from ``get_migration``, once it has ended.
    left_behind: Generation | None = field(default=None, repr=False)
    #: What is wanted of the target's search quality before anything moves; None where it is not looked at.
    quality_wanted: QualityThresholds | None = None
    #: What was measured last since the sides changed, and whether somebody accepted it below the thresholds.
    quality: QualityFound | None = None
    quality_accepted: bool = False
    #: Where the data come from; None for this namespace itself.
    source: SourceSpec | None = None
    #: What was planned against what happened so far; only from ``get_migration``.
    outcome: PlanOutcome | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("SUCCEEDED", "ABORTED")

    @property
    def succeeded(self) -> bool:
        """Whether the target is in service and the source retired."""
        return self.state == "SUCCEEDED"

    @property
    def rests(self) -> bool:
        """Whether it has ended, or takes no step before somebody asks: held, or switched with a way back kept."""
        if self.state == "OBSERVING":
            turns = [event.trigger for event in self.story if event.trigger in _TURNS]
            return not turns or turns[-1] != _ROLLBACK_REQUESTED
        return self.ended or (self.state == "READY" and self.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What giving up a way back comes to."""

    migration: Migration
    #: Prefixes of objects that are not served any more.
    retired: tuple[str, ...]
    #: What lies there now and will be deleted, by kind.
    deletes: tuple[ObjectCount, ...] = ()
    #: For how many seconds it is kept before that; None for good.
    retain_seconds: float | None = None


_ROLLBACK_REQUESTED = "rollback_requested"
_TURNS = ("switched", _ROLLBACK_REQUESTED, "rollback_unequal", "rolled_back")

_STRATEGIES = {
    Strategy.IN_PLACE_UPGRADE: migration_pb2.STRATEGY_IN_PLACE_UPGRADE,
    Strategy.ROLLING: migration_pb2.STRATEGY_ROLLING,
    Strategy.BLUE_GREEN: migration_pb2.STRATEGY_BLUE_GREEN,
    Strategy.COORDINATED: migration_pb2.STRATEGY_COORDINATED,
    Strategy.BACKUP_RESTORE: migration_pb2.STRATEGY_BACKUP_RESTORE,
    Strategy.SPARSE_IMPORT: migration_pb2.STRATEGY_SPARSE_IMPORT,
    Strategy.DEDICATED_NAMESPACE: migration_pb2.STRATEGY_DEDICATED_NAMESPACE,
}


def strategy_to_proto(strategy: Strategy | str | None) -> migration_pb2.Strategy.ValueType:
    """Convert for the wire; None leaves it to the coordinator."""
    if strategy is None:
        return migration_pb2.STRATEGY_UNSPECIFIED
    return _STRATEGIES[Strategy.of(strategy)]


def target_to_proto(target: TargetSpec | None) -> migration_pb2.TargetSpec:
    """Convert for the wire."""
    wanted = target or TargetSpec()
    return migration_pb2.TargetSpec(
        shard_count=wanted.shard_count,
        metric=wanted.metric,
        scalar_kind=wanted.scalar_kind,
        connectivity=wanted.connectivity,
        pool=wanted.pool,
        expansion_add=wanted.expansion_add,
        expansion_search=wanted.expansion_search,
        partitioning=wanted.partitioning,
        dimensions=wanted.dimensions,
        embedding=None if wanted.embedding is None else reembedding_to_proto(wanted.embedding),
    )


def migration_from_proto(
    message: migration_pb2.Migration, outcome: migration_pb2.PlanOutcome | None = None
) -> Migration:
    """Convert from the wire."""
    strategy = migration_pb2.Strategy.Name(message.strategy).removeprefix("STRATEGY_")
    return Migration(
        id=message.id,
        namespace=message.namespace,
        strategy=strategy.lower().replace("_", "-"),
        state=state_name(message.state),
        source_generation=message.source_generation,
        target_generation=message.target_generation,
        items_copied=message.items_copied,
        items_total=message.items_total,
        lag=message.lag,
        adopted_nodes=tuple(message.adopted_nodes),
        write_pause_seconds=message.write_pause.ToNanoseconds() / 1e9,
        digest_equal=message.digest_equal,
        message=message.message,
        keep_way_back=message.keep_way_back,
        held=message.held,
        paused=tuple(message.paused),
        waits_for=tuple(message.waits_for),
        observe_seconds=message.observe.ToNanoseconds() / 1e9,
        rollback_if=limits_from_proto(message.rollback_if).texts if message.HasField("rollback_if") else (),
        served=figures_from_proto(message.served) if message.HasField("served") else None,
        served_before=figures_from_proto(message.served_before) if message.HasField("served_before") else None,
        observed_seconds=message.observed.ToNanoseconds() / 1e9,
        copy=copy_from_proto(message.copy) if message.HasField("copy") else None,
        story=tuple(
            MigrationEvent(
                sequence=event.sequence,
                at=iso(event.at.ToNanoseconds() / 1e9),
                from_state=state_name(getattr(event, "from")),
                to_state=state_name(event.to),
                trigger=event.trigger,
                by=event.by,
                leader_epoch=event.leader_epoch,
                detail=event.detail,
                quality=found_from_proto(event.quality) if event.HasField("quality") else None,
            )
            for event in message.story
        ),
        plan_id=message.plan_id,
        waves=tuple(
            Wave(
                nodes=tuple(wave.nodes),
                state=migration_pb2.MigrationWave.State.Name(wave.state).removeprefix("STATE_").lower(),
                baked_seconds=wave.baked.ToNanoseconds() / 1e9,
                complaint=wave.complaint,
            )
            for wave in message.waves
        ),
        postponed=Postponed(
            remaining_seconds=message.postponed.remaining.ToNanoseconds() / 1e9,
            reason=message.postponed.reason,
            by=message.postponed.by,
        )
        if message.HasField("postponed")
        else None,
        left_behind=generation_from_proto(message.left_behind) if message.HasField("left_behind") else None,
        quality_wanted=thresholds_from_proto(message.quality_wanted) if message.HasField("quality_wanted") else None,
        quality=found_from_proto(message.quality) if message.HasField("quality") else None,
        quality_accepted=message.quality_accepted,
        source=source_from_proto(message),
        outcome=outcome_from_proto(outcome) if outcome is not None else None,
    )

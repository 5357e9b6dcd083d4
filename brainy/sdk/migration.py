"""Migrations as the client sees them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from brainy.api.coordinator.v1 import migration_pb2
from brainy.clock import iso
from brainy.errors import InvalidRequestError
from brainy.sdk.plans import PlanOutcome, outcome_from_proto, state_name
from brainy.sdk.sources import SourceSpec, source_from_proto


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
    story: tuple[MigrationEvent, ...] = field(default=(), repr=False)
    #: The plan it executes; "" for one that was started before plans were kept.
    plan_id: str = ""
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
    #: Prefixes of objects that are not served any more; they stay where they are.
    retired: tuple[str, ...]


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
            )
            for event in message.story
        ),
        plan_id=message.plan_id,
        source=source_from_proto(message),
        outcome=outcome_from_proto(outcome) if outcome is not None else None,
    )

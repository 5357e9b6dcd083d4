"""Plans of migrations as the client sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket.embedding import embedding_from_proto
from brainy.clock import iso
from brainy.sdk.quality import QualityThresholds, thresholds_from_proto
from brainy.sdk.sources import SourceSpec, source_from_proto
from brainy.traffic.limits import limits_from_proto

#: Longer than anybody waits; stands for "as long as it takes" on the wire, which has no infinity.
_LONGEST_SECONDS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step of a plan, in the order of execution."""

    action: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCrossing:
    """A branch of the decision graph that was taken."""

    question: str
    answer: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReason:
    """Why this strategy."""

    #: In a sentence.
    text: str = ""
    path: tuple[PlanCrossing, ...] = ()
    #: Where the guide's own questions lead, and what is advised of all strategies; "" where nothing is.
    guide: str = ""
    advised: str = ""
    #: What speaks for the planned one, and against it.
    why: tuple[str, ...] = ()
    why_not: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBasis:
    """What a plan rests on: it is refused once this has changed."""

    source_generation: int = 0
    spec_digest: str = ""
    trees: tuple[str, ...] = ()
    dimensions: int = 0
    nouns: int = 0
    verbs: int = 0
    items_at_least: int = 0
    items_at_most: int = 0
    #: Node -> version of its software.
    nodes: dict[str, str] = field(default_factory=dict)
    quarantined: int = 0
    following: bool = False
    mirror: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTransition:
    """An event that the migration's history is expected to have."""

    trigger: str
    from_state: str
    to_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFigures:
    """Figures of a migration, predicted or measured; of what was not measured 0 or nothing."""

    duration_seconds: float = 0.0
    write_pause_seconds: float = 0.0
    #: After which it gives up and lets writes go on.
    write_pause_cap_seconds: float = 0.0
    #: In the bucket, beside what is there, as long as both are kept.
    bucket_bytes: int = 0
    #: Of local disk, replicas included, all nodes together.
    disk_bytes: int = 0
    #: Of the store, by kind: list, get, get_range, put.
    calls: dict[str, int] = field(default_factory=dict)
    #: US dollars: once for the calls, and a month for the storage.
    request_cost: float = 0.0
    storage_cost_per_month: float = 0.0
    #: Where another model embeds everything anew: texts, and how many a second the nodes managed when asked.
    texts: int = 0
    texts_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRisk:
    """What can go wrong."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfirmation:
    """Something only a person can know or answer for; ``execute_plan`` takes its name."""

    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCheck:
    """A preflight check as it was when the plan was made."""

    name: str
    passed: bool
    detail: str
    remedy: str
    #: False in a dry run for a check that writes to find out.
    tried: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """What a migration would do, and why."""

    #: "" where it was not stored.
    id: str
    #: The migration that executes it; "" where it was not stored.
    migration_id: str
    namespace: str
    #: ISO 8601 in UTC; from ``expires_at`` on it is not executed any more.
    created_at: str
    expires_at: str
    created_by: str
    strategy: str
    source_generation: int
    target_generation: int
    reason: PlanReason
    basis: PlanBasis
    steps: tuple[PlanStep, ...]
    transitions: tuple[PlanTransition, ...]
    figures: PlanFigures
    risks: tuple[PlanRisk, ...]
    confirmations: tuple[PlanConfirmation, ...]
    checks: tuple[PlanCheck, ...]
    #: What was asked for the target, 0 and "" as now: shard_count, metric, scalar_kind, connectivity, pool; and only
    #: where something was: expansion_add, expansion_search, embedding (the model), without_text_limit.
    target: dict[str, int | str]
    quarantine_limit: int
    writers_stopped: bool
    require_backup: str
    #: As asked for: the source is kept as a way back, it is held before it switches, and for how long it is observed.
    keep_way_back: bool
    hold_before_switch: bool
    observe_seconds: float
    #: Rolling: nodes moved together (0 for one), and how long each wave is watched.
    max_unavailable: int
    bake_seconds: float
    #: What the target's search quality must keep to before anything moves; None where it is not looked at.
    quality: QualityThresholds | None
    #: When it rolls back by itself; () for never.
    rollback_if: tuple[str, ...]
    way_back: str
    #: Page of the documentation.
    runbook: str
    #: Where the data come from; None for this namespace itself.
    source: SourceSpec | None = None

    @property
    def passes(self) -> bool:
        """Whether no check stood in its way when it was made."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOutcome:
    """A plan held against what happened, as far as the migration has come."""

    plan_id: str
    as_planned: bool
    #: What the plan does not have: take-overs, attempts given up, an abort; one line an event.
    disturbances: tuple[str, ...]
    #: Planned transitions that have not happened (yet).
    remaining: int
    predicted: PlanFigures
    measured: PlanFigures
    #: False where a node or the leader began anew meanwhile, so that some calls are missing.
    calls_complete: bool


def answers_to_proto(
    *, shared: bool | None, downtime_seconds: float | None, old_writers: bool | None, rollback: bool | None
) -> migration_pb2.PlanAnswers:
    """Convert for the wire; None is left out."""
    downtime = None
    if downtime_seconds is not None:
        downtime = duration_pb2.Duration()
        downtime.FromNanoseconds(round(min(downtime_seconds, _LONGEST_SECONDS) * 1e9))
    return migration_pb2.PlanAnswers(shared=shared, downtime=downtime, old_writers=old_writers, rollback=rollback)


def plan_from_proto(message: migration_pb2.MigrationPlan) -> MigrationPlan:
    """Convert from the wire."""
    strategy = migration_pb2.Strategy.Name(message.strategy).removeprefix("STRATEGY_")
    basis, reason = message.basis, message.reason
    return MigrationPlan(
        id=message.id,
        migration_id=message.migration_id,
        namespace=message.namespace,
        created_at=iso(message.created_at.ToNanoseconds() / 1e9),
        expires_at=iso(message.expires_at.ToNanoseconds() / 1e9),
        created_by=message.created_by,
        strategy=strategy.lower().replace("_", "-"),
        source_generation=message.source_generation,
        target_generation=message.target_generation,
        reason=PlanReason(
            text=reason.text,
            path=tuple(PlanCrossing(question=each.question, answer=each.answer, why=each.why) for each in reason.path),
            guide=reason.guide,
            advised=reason.advised,
            why=tuple(reason.why),
            why_not=tuple(reason.why_not),
        ),
        basis=PlanBasis(
            source_generation=basis.source_generation,
            spec_digest=basis.spec_digest,
            trees=tuple(basis.trees),
            dimensions=basis.dimensions,
            nouns=basis.nouns,
            verbs=basis.verbs,
            items_at_least=basis.items_at_least,
            items_at_most=basis.items_at_most,
            nodes=dict(basis.nodes),
            quarantined=basis.quarantined,
            following=basis.following,
            mirror=basis.mirror,
        ),
        steps=tuple(PlanStep(action=step.action, detail=step.detail) for step in message.steps),
        transitions=tuple(
            PlanTransition(
                trigger=each.trigger, from_state=state_name(getattr(each, "from")), to_state=state_name(each.to)
            )
            for each in message.transitions
        ),
        figures=_figures(message.figures),
        risks=tuple(PlanRisk(code=risk.code, message=risk.message) for risk in message.risks),
        confirmations=tuple(PlanConfirmation(name=each.name, message=each.message) for each in message.confirmations),
        checks=tuple(
            PlanCheck(name=check.name, passed=check.passed, detail=check.detail, remedy=check.remedy, tried=check.tried)
            for check in message.checks
        ),
        target={
            "shard_count": message.target.shard_count,
            "metric": message.target.metric,
            "scalar_kind": message.target.scalar_kind,
            "connectivity": message.target.connectivity,
            "pool": message.target.pool,
            **_further(message.target),
        },
        quarantine_limit=message.quarantine_limit,
        writers_stopped=message.writers_stopped,
        require_backup=message.require_backup,
        keep_way_back=message.keep_way_back,
        hold_before_switch=message.hold_before_switch,
        observe_seconds=message.observe.ToNanoseconds() / 1e9,
        max_unavailable=message.max_unavailable,
        bake_seconds=message.bake.ToNanoseconds() / 1e9,
        quality=thresholds_from_proto(message.quality) if message.HasField("quality") else None,
        rollback_if=limits_from_proto(message.rollback_if).texts if message.HasField("rollback_if") else (),
        way_back=message.way_back,
        runbook=message.runbook,
        source=source_from_proto(message),
    )


def _further(target: migration_pb2.TargetSpec) -> dict[str, int | str]:
    wished: dict[str, int | str] = {
        "expansion_add": target.expansion_add,
        "expansion_search": target.expansion_search,
        "dimensions": target.dimensions,
    }
    if target.HasField("embedding"):
        wished["embedding"] = str(embedding_from_proto(target.embedding.identity))
        wished["endpoint"] = target.embedding.endpoint
        wished["without_text_limit"] = target.embedding.without_text_limit
    return {name: value for name, value in wished.items() if value}


def outcome_from_proto(message: migration_pb2.PlanOutcome) -> PlanOutcome:
    """Convert from the wire."""
    return PlanOutcome(
        plan_id=message.plan_id,
        as_planned=message.as_planned,
        disturbances=tuple(message.disturbances),
        remaining=message.remaining,
        predicted=_figures(message.predicted),
        measured=_figures(message.measured),
        calls_complete=message.calls_complete,
    )


def state_name(value: migration_pb2.MigrationState.ValueType) -> str:
    """Return a state as clients name it."""
    return migration_pb2.MigrationState.Name(value).removeprefix("MIGRATION_STATE_")


def _figures(message: migration_pb2.PlanFigures) -> PlanFigures:
    return PlanFigures(
        duration_seconds=message.duration.ToNanoseconds() / 1e9,
        write_pause_seconds=message.write_pause.ToNanoseconds() / 1e9,
        write_pause_cap_seconds=message.write_pause_cap.ToNanoseconds() / 1e9,
        bucket_bytes=message.bucket_bytes,
        disk_bytes=message.disk_bytes,
        calls=dict(message.calls),
        request_cost=message.request_cost,
        storage_cost_per_month=message.storage_cost_per_month,
        texts=message.texts,
        texts_per_second=message.texts_per_second,
    )

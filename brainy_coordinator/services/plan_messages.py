"""Plans on the wire: between the values of this package and the protos."""

from __future__ import annotations

import math

from google.protobuf import timestamp_pb2

from brainy.advice.values import Answers
from brainy.api.coordinator.v1 import migration_pb2
from brainy.traffic.limits import limits_to_proto
from brainy_coordinator.migration.planning.outcome import Outcome
from brainy_coordinator.migration.planning.plan import Plan, Prediction
from brainy_coordinator.services.membership import duration
from brainy_coordinator.services.migration_messages import STRATEGY_NUMBERS, state_number
from brainy_coordinator.services.quality_messages import wish_message
from brainy_coordinator.services.source_messages import source_message
from brainy_coordinator.services.target_messages import target_message

#: As long as it takes: the wire has no infinity.
_FOREVER_SECONDS = 1e9


def answers_value(message: migration_pb2.PlanAnswers) -> Answers:
    """Return what the operator says."""
    return Answers(
        shared=message.shared if message.HasField("shared") else None,
        downtime_seconds=_downtime(message),
        old_writers=message.old_writers if message.HasField("old_writers") else None,
        rollback=message.rollback if message.HasField("rollback") else None,
    )


def steps_of(plan: Plan) -> list[migration_pb2.PlanStep]:
    """Return a plan's steps."""
    return [migration_pb2.PlanStep(action=step.action, detail=step.detail) for step in plan.steps]


def plan_message(plan: Plan, *, stored: bool = True) -> migration_pb2.MigrationPlan:
    """Return a plan as the protos carry it; one that was not stored has no id."""
    wish = plan.request
    return migration_pb2.MigrationPlan(
        id=plan.id if stored else "",
        migration_id=plan.migration_id if stored else "",
        namespace=wish.namespace,
        created_at=_stamp(plan.created_at),
        expires_at=_stamp(plan.expires_at),
        created_by=plan.created_by,
        strategy=STRATEGY_NUMBERS[wish.strategy],
        source_generation=wish.source_generation,
        target_generation=wish.target_generation,
        target=target_message(wish.target),
        pause_cap=duration(wish.pause_cap_seconds),
        quarantine_limit=wish.quarantine_limit,
        require_backup=wish.require_backup,
        writers_stopped=wish.writers_stopped,
        quality=wish_message(wish.quality),
        keep_way_back=wish.keep_way_back,
        hold_before_switch=wish.hold_before_switch,
        observe=duration(wish.observe_seconds) if wish.observe_seconds else None,
        max_unavailable=wish.max_unavailable,
        bake=duration(wish.bake_seconds) if wish.bake_seconds else None,
        rollback_if=limits_to_proto(wish.rollback_if),
        source=source_message(wish.source),
        reason=migration_pb2.PlanReason(
            text=plan.why.text,
            path=[
                migration_pb2.PlanCrossing(question=each.question, answer=each.answer, why=each.why)
                for each in plan.why.path
            ],
            guide=plan.why.guide,
            advised=plan.why.advised,
            why=plan.why.why,
            why_not=plan.why.why_not,
        ),
        basis=migration_pb2.PlanBasis(
            source_generation=plan.basis.source_generation,
            spec_digest=plan.basis.spec_digest,
            trees=plan.basis.trees,
            dimensions=plan.basis.dimensions,
            nouns=plan.basis.nouns,
            verbs=plan.basis.verbs,
            items_at_least=plan.basis.items_at_least,
            items_at_most=plan.basis.items_at_most,
            nodes=plan.basis.nodes,
            quarantined=plan.basis.quarantined,
            following=plan.basis.following,
            mirror=plan.basis.mirror,
        ),
        steps=steps_of(plan),
        transitions=[_transition(plan, place) for place in range(len(plan.transitions))],
        figures=figures_message(plan.prediction),
        risks=[migration_pb2.PlanRisk(code=risk.code, message=risk.message) for risk in plan.risks],
        confirmations=[
            migration_pb2.PlanConfirmation(name=each.name, message=each.message) for each in plan.confirmations
        ],
        checks=[
            migration_pb2.PlanCheck(
                name=check.name, passed=check.passed, detail=check.detail, remedy=check.remedy, tried=check.tried
            )
            for check in plan.checks
        ],
        way_back=plan.way_back,
        runbook=plan.runbook,
    )


def figures_message(found: Prediction) -> migration_pb2.PlanFigures:
    """Return predicted figures."""
    return migration_pb2.PlanFigures(
        duration=duration(found.duration_seconds),
        write_pause=duration(found.write_pause_seconds),
        write_pause_cap=duration(found.write_pause_cap_seconds),
        bucket_bytes=found.bucket_bytes,
        disk_bytes=found.disk_bytes,
        calls=found.calls,
        request_cost=found.request_cost,
        storage_cost_per_month=found.storage_cost_per_month,
        texts=found.texts,
        texts_per_second=found.texts_per_second,
    )


def outcome_message(found: Outcome) -> migration_pb2.PlanOutcome:
    """Return a plan held against its migration."""
    return migration_pb2.PlanOutcome(
        plan_id=found.plan.id,
        as_planned=found.as_planned,
        disturbances=found.disturbances,
        remaining=found.remaining,
        predicted=figures_message(found.plan.prediction),
        measured=migration_pb2.PlanFigures(
            duration=duration(found.duration_seconds),
            write_pause=duration(found.write_pause_seconds),
            write_pause_cap=duration(found.plan.request.pause_cap_seconds),
            calls=found.calls,
        ),
        calls_complete=found.calls_complete,
    )


def _downtime(message: migration_pb2.PlanAnswers) -> float | None:
    if not message.HasField("downtime"):
        return None
    seconds = message.downtime.ToNanoseconds() / 1e9
    return math.inf if seconds >= _FOREVER_SECONDS else seconds


def _transition(plan: Plan, place: int) -> migration_pb2.PlanTransition:
    planned = plan.transitions[place]
    message = migration_pb2.PlanTransition(trigger=planned.trigger.value, to=state_number(planned.to_state))
    # "from" is a word of Python, so the field cannot be named in the call.
    setattr(message, "from", state_number(planned.from_state))
    return message


def _stamp(wall_seconds: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(int(wall_seconds * 1e9))
    return stamp

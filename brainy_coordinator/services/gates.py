"""When a migration may switch, and what was planned: parts of ``MigrationService``."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import timestamp_pb2

from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.errors import InvalidRequestError
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.obstacles import switch_obstacles
from brainy_coordinator.migration.planning.basis import differences
from brainy_coordinator.migration.planning.plan import Plan
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.services.migration_messages import STRATEGY_NUMBERS, migration_message, state_number

_LONGEST_POSTPONEMENT_SECONDS = 366 * 24 * 3600.0


async def postpone(
    control: NamespaceControl, request: migration_pb2.PostponeMigrationRequest
) -> migration_pb2.PostponeMigrationResponse:
    """Put the switch off.

    Raises:
        InvalidRequestError: not a time that can be waited for.
        PreconditionError: as ``interventions.postpone``.
    """
    seconds = request.duration.ToNanoseconds() / 1e9
    if not 0.0 <= seconds <= _LONGEST_POSTPONEMENT_SECONDS:
        raise InvalidRequestError(
            "a switch cannot be postponed for so long", remedy="0 s to 366 days; abort it instead", seconds=seconds
        )
    record = await control.migrations.intervene(
        request.id,
        interventions.postpone(seconds),
        by=request.requested_by,
        detail=request.reason,
        request_id=request.request_id,
        seconds=seconds,
    )
    progress = control.migrations.progress(record.id)
    return migration_pb2.PostponeMigrationResponse(migration=migration_message(record, progress))


async def can_switch(
    control: NamespaceControl, migration_id: str, clock: Clock
) -> migration_pb2.CanSwitchMigrationResponse:
    """Say whether a migration could switch now, were it not held. Changes nothing.

    Raises:
        NotFoundError: there is none of that id.
    """
    looked: list[tuple[MigrationRecord, Observation]] = []

    def look(record: MigrationRecord, seen: Observation) -> Trigger | None:
        looked.append((record, seen))
        return None

    record = control.migrations.get(migration_id)
    if not record.state.is_terminal:
        record = await control.migrations.intervene(migration_id, look, by="", validate_only=True)
    found = switch_obstacles(record, looked[-1][1] if looked else None, clock.monotonic())
    return migration_pb2.CanSwitchMigrationResponse(
        can_switch=not found,
        obstacles=[migration_pb2.SwitchObstacle(reason=each.reason, remedy=each.remedy) for each in found],
        migration=migration_message(record, control.migrations.progress(record.id)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSeen:
    """A stored plan, and what became of it."""

    plan: Plan
    migration: MigrationRecord | None
    outdated: tuple[str, ...]


async def list_plans(
    control: NamespaceControl, routing: Routing, *, next_generation: int, now: float
) -> list[PlanSeen]:
    """Return the plans of a namespace, the latest first; ``now`` is in wall seconds, as plans expire.

    Raises:
        BrainyError: the store failed.
    """
    plans = sorted(await control.plans.list(), key=lambda plan: (-plan.created_at, plan.id))
    found = []
    for plan in plans:
        migration = next((each for each in control.migrations.all() if each.id == plan.migration_id), None)
        outdated: tuple[str, ...] = ()
        if migration is None:
            if plan.request.source_generation != routing.active:
                outdated = ("source_generation",)
            else:
                basis = await control.planner.basis(plan.request, routing, target_generation=next_generation)
                outdated = tuple(dict.fromkeys(each.name for each in differences(plan.basis, basis)))
            if now >= plan.expires_at:
                outdated = ("age", *outdated)
        found.append(PlanSeen(plan=plan, migration=migration, outdated=outdated))
    return found


def summary_message(seen: PlanSeen) -> migration_pb2.MigrationPlanSummary:
    """Return a plan in a line."""
    plan, migration = seen.plan, seen.migration
    return migration_pb2.MigrationPlanSummary(
        id=plan.id,
        created_at=_stamp(plan.created_at),
        expires_at=_stamp(plan.expires_at),
        created_by=plan.created_by,
        strategy=STRATEGY_NUMBERS[plan.request.strategy],
        source_generation=plan.request.source_generation,
        target_generation=plan.request.target_generation,
        migration_id=migration.id if migration is not None else "",
        migration_state=state_number(migration.state if migration is not None else None),
        outdated=seen.outdated,
        failed_checks=[check.name for check in plan.checks if not check.passed],
    )


def has_left_something(record: MigrationRecord) -> bool:
    """Whether a migration has ended, so that a generation is left behind."""
    return record.state in (State.SUCCEEDED, State.ABORTED)


def left_behind(record: MigrationRecord) -> int:
    """Return which one: the source, or the target where it was aborted."""
    return record.source if record.state is State.SUCCEEDED else record.target


def _stamp(wall_seconds: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(int(wall_seconds * 1e9))
    return stamp

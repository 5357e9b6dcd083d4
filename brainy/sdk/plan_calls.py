"""Calls to the coordinator about plans: make one, look at it, execute it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import migration_pb2
from brainy.sdk.connection import Connection
from brainy.sdk.generations import duration_of
from brainy.sdk.migration import (
    Migration,
    Strategy,
    TargetSpec,
    migration_from_proto,
    strategy_to_proto,
    target_to_proto,
)
from brainy.sdk.plans import MigrationPlan, answers_to_proto, plan_from_proto
from brainy.sdk.quality import QualityThresholds, thresholds_to_proto
from brainy.sdk.retry import CONTROL, CONTROL_CHANGE
from brainy.sdk.sources import SourceSpec, source_to_proto
from brainy.traffic.limits import RollbackLimits, limits_of, limits_to_proto


class PlanCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def plan_migration(
        self,
        strategy: Strategy | str | None = None,
        target: TargetSpec | None = None,
        *,
        quarantine_limit: int = 0,
        pause_cap_seconds: float = 0.0,
        writers_stopped: bool = False,
        require_backup: str = "",
        keep_way_back: bool = False,
        hold_before_switch: bool = False,
        observe_seconds: float = 0.0,
        max_unavailable: int = 0,
        bake_seconds: float = 0.0,
        quality: QualityThresholds | None = None,
        rollback_if: RollbackLimits | Sequence[str] = (),
        item_tolerance: float = 0.0,
        dry_run: bool = False,
        requested_by: str = "",
        shared: bool | None = None,
        downtime_seconds: float | None = None,
        old_writers: bool | None = None,
        rollback: bool | None = None,
        source: SourceSpec | None = None,
    ) -> MigrationPlan:
        """Say what a migration would do and why, and store that as a plan. Nothing else is changed.

        Args:
            strategy: None for the one that the decision graph prefers.
            target: what the target generation shall look like; as now if left out.
            quarantine_limit: how many unreadable source objects are accepted.
            pause_cap_seconds: how long writes may wait at the switch before it is tried later; 0 for 3 s.
            writers_stopped: for COORDINATED: every writer is stopped, and stays so until the migration has ended.
            require_backup: path, as the coordinator sees it, of a backup that must be whole.
            keep_way_back: let the source follow the target after the switch, until it is completed.
            hold_before_switch: do not switch before ``promote_migration``.
            observe_seconds: with ``keep_way_back``, complete by itself after so long; 0 for only when asked.
            max_unavailable: for ROLLING: how many nodes' reads move together, in one wave; 0 for one.
            bake_seconds: for ROLLING: how long a wave must answer healthily before the next one, or the switch.
            quality: what the target's search quality must keep to before anything moves; None: it is not looked at.
            rollback_if: with a way back, roll back by itself when the target serves worse than this after the switch:
                ``["error-rate>0.01", "p99>2x", "p99>250ms", "write-p99>3x", "overlap<0.9"]``, or ``["worse"]`` for
                what suits most (``brainy.traffic.limits``).
            item_tolerance: share by which the number of items may change before the plan no longer holds; 0 for a
                tenth. A hundred items may come or go in any case.
            dry_run: write nothing at the store, so that the plan has no id.
            requested_by: who asks and why, for the plan.
            shared: whether other processes use the bucket; as the next three, None leaves it to what is seen there.
            downtime_seconds: how long nobody may be able to write.
            old_writers: whether Brainy processes go on writing meanwhile.
            rollback: whether there must be a way back after the switch.
            source: where the data come from, for a namespace that is empty; this namespace itself if left out.

        Raises:
            InvalidRequestError: there can be no such target.
            PreconditionError: the client is read-only and it is no dry run.
        """
        pause, observe = duration_pb2.Duration(), duration_pb2.Duration()
        pause.FromNanoseconds(round(pause_cap_seconds * 1e9))
        observe.FromNanoseconds(round(observe_seconds * 1e9))
        request = migration_pb2.PlanMigrationRequest(
            namespace=self.namespace,
            strategy=strategy_to_proto(strategy),
            target=target_to_proto(target),
            quarantine_limit=quarantine_limit,
            request_id="" if dry_run else self._changing(),
            requested_by=requested_by,
            dry_run=dry_run,
            pause_cap=pause if pause_cap_seconds else None,
            item_tolerance=item_tolerance,
            writers_stopped=writers_stopped,
            require_backup=require_backup,
            keep_way_back=keep_way_back,
            hold_before_switch=hold_before_switch,
            observe=observe if observe_seconds else None,
            max_unavailable=max_unavailable,
            bake=duration_of(bake_seconds) if bake_seconds else None,
            quality=thresholds_to_proto(quality),
            rollback_if=limits_to_proto(limits_of(rollback_if)),
            source=source_to_proto(source),
            answers=answers_to_proto(
                shared=shared, downtime_seconds=downtime_seconds, old_writers=old_writers, rollback=rollback
            ),
        )
        answer = await self._coordinators.unary(lambda leader: leader.migrations.PlanMigration, request, CONTROL_CHANGE)
        return plan_from_proto(answer.plan)

    async def get_plan(self, id: str) -> MigrationPlan:  # noqa: A002 - as the field is called
        """Read a stored plan.

        Raises:
            NotFoundError: there is no such plan.
        """
        request = migration_pb2.GetMigrationPlanRequest(id=id, namespace=self.namespace)
        answer = await self._coordinators.unary(lambda leader: leader.migrations.GetMigrationPlan, request, CONTROL)
        return plan_from_proto(answer.plan)

    async def execute_plan(
        self,
        id: str,  # noqa: A002 - as the field is called
        *,
        confirm: Collection[str] = (),
        validate_only: bool = False,
        requested_by: str = "",
    ) -> Migration:
        """Start exactly the migration that was planned. A plan that was executed answers with its migration.

        Args:
            id: of the plan.
            confirm: names of what the plan asks to be confirmed.
            validate_only: fail where the real call would, and write nothing.
            requested_by: who asks and why, for the history.

        Raises:
            NotFoundError: there is no such plan.
            PreconditionError: PLAN_OUTDATED (what it rests on has changed, or it is too old),
                CONFIRMATION_MISSING, or a check did not pass; nothing was changed.
        """
        request = migration_pb2.StartMigrationRequest(
            namespace=self.namespace,
            plan_id=id,
            confirm=confirm,
            request_id=self._changing(),
            validate_only=validate_only,
            requested_by=requested_by,
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.StartMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

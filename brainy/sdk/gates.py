"""When a migration switches, and what was planned: waves, postponing, what is in the way, stored plans."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.api.coordinator.v1 import migration_pb2
from brainy.clock import iso
from brainy.sdk.connection import Connection
from brainy.sdk.generations import duration_of
from brainy.sdk.migration import Migration, migration_from_proto
from brainy.sdk.plans import state_name
from brainy.sdk.retry import CONTROL, CONTROL_CHANGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing in the way of a switch."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CanSwitch:
    """Whether a migration could switch now, were it not held."""

    can_switch: bool
    obstacles: tuple[Obstacle, ...]
    migration: Migration


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """A stored plan in a line."""

    id: str
    #: ISO 8601 in UTC.
    created_at: str
    expires_at: str
    created_by: str
    strategy: str
    source_generation: int
    target_generation: int
    #: The migration that executed it, and its state; "" where none has.
    migration_id: str
    migration_state: str
    #: Why it would be refused now: names as in PLAN_OUTDATED, or "age"; empty if it would not.
    outdated: tuple[str, ...]
    #: Checks that did not pass when it was made.
    failed_checks: tuple[str, ...]


class GateCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def postpone_migration(
        self,
        id: str,  # noqa: A002 - as the field is called
        seconds: float,
        *,
        reason: str = "",
        requested_by: str = "",
    ) -> Migration:
        """Do not let a migration switch for so long from now; 0 for not any longer. ``promote_migration`` overrides it.

        The leader counts, and the count survives it: the switch may come later than asked, never earlier.

        Raises:
            NotFoundError: there is no such migration.
            InvalidRequestError: negative, or more than a year.
            PreconditionError: the switch is under way, or it was aborted (WRONG_PHASE).
            PastPointOfNoReturnError: it has switched.
        """
        request = migration_pb2.PostponeMigrationRequest(
            id=id,
            namespace=self.namespace,
            request_id=self._changing(),
            requested_by=requested_by,
            reason=reason,
            duration=duration_of(seconds),
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.PostponeMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def can_switch(self, id: str) -> CanSwitch:  # noqa: A002 - likewise
        """Say whether a migration could switch now, and what is in the way: neither a hold nor a postponement is.

        Raises:
            NotFoundError: there is no such migration.
        """
        request = migration_pb2.CanSwitchMigrationRequest(id=id, namespace=self.namespace)
        answer = await self._coordinators.unary(lambda leader: leader.migrations.CanSwitchMigration, request, CONTROL)
        return CanSwitch(
            can_switch=answer.can_switch,
            obstacles=tuple(Obstacle(reason=each.reason, remedy=each.remedy) for each in answer.obstacles),
            migration=migration_from_proto(answer.migration),
        )

    async def list_plans(self) -> list[PlanSummary]:
        """List the stored plans of the namespace, the latest first, each with what became of it."""
        request = migration_pb2.ListMigrationPlansRequest(namespace=self.namespace)
        answer = await self._coordinators.unary(lambda leader: leader.migrations.ListMigrationPlans, request, CONTROL)
        return [_summary(each) for each in answer.plans]


def _summary(message: migration_pb2.MigrationPlanSummary) -> PlanSummary:
    strategy = migration_pb2.Strategy.Name(message.strategy).removeprefix("STRATEGY_")
    return PlanSummary(
        id=message.id,
        created_at=iso(message.created_at.ToNanoseconds() / 1e9),
        expires_at=iso(message.expires_at.ToNanoseconds() / 1e9),
        created_by=message.created_by,
        strategy=strategy.lower().replace("_", "-"),
        source_generation=message.source_generation,
        target_generation=message.target_generation,
        migration_id=message.migration_id,
        migration_state=state_name(message.migration_state) if message.migration_id else "",
        outdated=tuple(message.outdated),
        failed_checks=tuple(message.failed_checks),
    )

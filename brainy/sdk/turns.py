"""Calls that turn a running migration: promote, pause, resume, slow down, roll back, complete."""

from __future__ import annotations

from contextlib import aclosing

from brainy.api.coordinator.v1 import copy_rate_pb2, migration_pb2
from brainy.errors import UnavailableError
from brainy.sdk.control import ControlCalls
from brainy.sdk.generations import counts_from_proto, duration_of
from brainy.sdk.migration import Completed, Migration, migration_from_proto
from brainy.sdk.retry import CONTROL_CHANGE


class TurnCalls(ControlCalls):
    """Each answers as soon as what is asked for is in the migration's history; ``wait_until_migration_rests`` waits."""

    async def promote_migration(self, id: str, *, requested_by: str = "") -> Migration:  # noqa: A002 - as the field is called
        """Let a migration that is held switch.

        Raises:
            NotFoundError: there is no such migration.
            PreconditionError: it is not ready to; the remedy names what is missing.
        """
        request = migration_pb2.PromoteMigrationRequest(
            id=id, namespace=self.namespace, request_id=self._changing(), requested_by=requested_by
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.PromoteMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def pause_migration(self, id: str, *, reason: str = "", requested_by: str = "") -> Migration:  # noqa: A002 - likewise
        """Let a migration take no further step. Writes go on, what is followed too; a copy stands still.

        Raises:
            NotFoundError: there is no such migration.
            PreconditionError: it has ended.
        """
        request = migration_pb2.PauseMigrationRequest(
            id=id, namespace=self.namespace, request_id=self._changing(), requested_by=requested_by, reason=reason
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.PauseMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def resume_migration(self, id: str, *, requested_by: str = "") -> Migration:  # noqa: A002 - likewise
        """Let a paused migration go on, whatever it was paused for.

        Raises:
            NotFoundError: there is no such migration.
        """
        request = migration_pb2.ResumeMigrationRequest(
            id=id, namespace=self.namespace, request_id=self._changing(), requested_by=requested_by
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.ResumeMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def set_copy_rate(
        self,
        id: str,  # noqa: A002 - likewise
        items_per_second: float | None,
        *,
        requested_by: str = "",
    ) -> Migration:
        """Say how fast the copy of a running migration may be; each node hears of it within a heartbeat.

        Args:
            id: of the migration.
            items_per_second: items that each node may read, and may index, in a second, 1 to 10,000,000; None leaves
                it to the nodes, which slow down by the latency of their own searches.
            requested_by: who asks and why, for the history.

        Raises:
            NotFoundError: there is no such migration.
            PreconditionError: nothing is left to copy.
            InvalidRequestError: out of bounds.
        """
        request = copy_rate_pb2.SetCopyRateRequest(
            id=id,
            namespace=self.namespace,
            request_id=self._changing(),
            requested_by=requested_by,
            items_per_second=items_per_second,
        )
        answer = await self._coordinators.unary(lambda leader: leader.copies.SetCopyRate, request, CONTROL_CHANGE)
        return migration_from_proto(answer.migration)

    async def rollback_migration(self, id: str, *, reason: str = "", requested_by: str = "") -> Migration:  # noqa: A002 - likewise
        """Make the source of a migration active again, with every write since the switch.

        The migration is then held: promote it to go forward once more, without another copy, or abort it.

        Raises:
            NotFoundError: there is no such migration.
            PastPointOfNoReturnError: no way back is kept, or not any more.
            PreconditionError: it has not switched, or Brainy's own tree is followed or mirrored to by now.
        """
        request = migration_pb2.RollbackMigrationRequest(
            id=id, namespace=self.namespace, request_id=self._changing(), requested_by=requested_by, reason=reason
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.RollbackMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def complete_migration(
        self,
        id: str,  # noqa: A002 - likewise
        *,
        validate_only: bool = False,
        retain_seconds: float | None = None,
        requested_by: str = "",
    ) -> Completed:
        """Give up the way back: the source leaves the routing record. It is deleted after its retention.

        Args:
            id: of the migration.
            validate_only: say what would be retired and deleted, or why it cannot be, and change nothing.
            retain_seconds: how long to keep the source before that; None as the coordinator is set, negative for good.
                No less than change logs are kept. ``keep_generation`` keeps it later on.
            requested_by: who asks and why, for the history.

        Raises:
            NotFoundError: there is no such migration.
            PreconditionError: it has not switched, or is being rolled back.
        """
        request = migration_pb2.CompleteMigrationRequest(
            id=id,
            namespace=self.namespace,
            request_id=self._changing(),
            requested_by=requested_by,
            validate_only=validate_only,
            retain=None if retain_seconds is None else duration_of(retain_seconds),
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.CompleteMigration, request, CONTROL_CHANGE
        )
        return Completed(
            migration=migration_from_proto(answer.migration),
            retired=tuple(answer.retired),
            deletes=counts_from_proto(answer.deletes),
            retain_seconds=answer.retain.ToNanoseconds() / 1e9 if answer.HasField("retain") else None,
        )

    async def wait_until_migration_rests(self, id: str) -> Migration:  # noqa: A002 - likewise
        """Return a migration once it has ended, or does nothing more before somebody asks (``Migration.rests``).

        Raises:
            NotFoundError: there is no such migration.
            UnavailableError: as ``watch_migration``.
        """
        async with aclosing(self.watch_migration(id)) as changes:
            async for seen in changes:
                if seen.rests:
                    return seen
        raise UnavailableError(
            "the coordinator said nothing about the migration", remedy="ask for the migration again", migration=id
        )

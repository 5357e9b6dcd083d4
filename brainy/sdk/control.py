"""Calls to the coordinator: what the cluster is, and migrations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import cluster_pb2, membership_pb2, migration_pb2
from brainy.api.node.v1 import control_pb2
from brainy.clock import Deadline
from brainy.errors import UnavailableError
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
from brainy.sdk.quality import QualityThresholds, thresholds_to_proto
from brainy.sdk.retry import CONTROL, CONTROL_CHANGE, GLANCE, WATCH
from brainy.sdk.sources import SourceSpec, source_to_proto
from brainy.sdk.values import Drained, Following, NamespaceInfo, NodeInfo, Problem, ShardReplica
from brainy.traffic.limits import RollbackLimits, limits_of, limits_to_proto

_PAGE = 100
_DRAIN_POLL_SECONDS = 0.2


class ControlCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def nodes(self) -> list[NodeInfo]:
        """List the nodes and what they hold."""
        answer = await self._coordinators.unary(
            lambda leader: leader.membership.ListNodes, membership_pb2.ListNodesRequest(), GLANCE
        )
        if self._led_elsewhere(answer.leader_address):
            answer = await self._coordinators.unary(
                lambda leader: leader.membership.ListNodes, membership_pb2.ListNodesRequest(), GLANCE
            )
        return [
            NodeInfo(
                node_id=node.node_id,
                address=node.address,
                state=membership_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_").lower(),
                silent_seconds=node.silent_for.ToNanoseconds() / 1e9,
                memory_bytes=node.memory_bytes,
                replicas=tuple(_replica(replica) for replica in node.replicas),
                pool=node.pool,
                version=node.version,
                disk_free_bytes=node.disk_free_bytes if node.HasField("disk_free_bytes") else None,
            )
            for node in answer.nodes
        ]

    async def namespaces(self) -> list[NamespaceInfo]:
        """List the namespaces the cluster serves."""
        answer = await self._coordinators.unary(
            lambda leader: leader.cluster.ListNamespaces, cluster_pb2.ListNamespacesRequest(), GLANCE
        )
        if self._led_elsewhere(answer.leader_address):
            answer = await self._coordinators.unary(
                lambda leader: leader.cluster.ListNamespaces, cluster_pb2.ListNamespacesRequest(), GLANCE
            )
        return [
            NamespaceInfo(
                namespace=info.namespace,
                active_generation=info.active_generation,
                write_generation=info.write_generation,
                routing_epoch=info.routing_epoch,
                phase=info.phase,
                migration_id=info.migration_id,
                replicas_ready=info.replicas_ready,
                replicas_wanted=info.replicas_wanted,
                problem=_problem(info.problem) if info.HasField("problem") else None,
            )
            for info in answer.namespaces
        ]

    def _led_elsewhere(self, leader_address: str) -> bool:
        """Say whether a better answer is to be had; the leader is then asked first."""
        if not leader_address or self._coordinator_pool.preferred == leader_address:
            return False
        self._coordinator_pool.prefer(leader_address)
        return len(self._coordinator_pool.addresses) > 1

    async def drain_node(self, node_id: str) -> Drained:
        """Take a node out of service: its shards move to others, then it is told to exit.

        Answers at once; repeat it until ``gone``, as ``wait_until_drained`` does.

        Raises:
            NotFoundError: there is no such node.
            PreconditionError: no other node could serve.
        """
        self._changing()
        answer = await self._coordinators.unary(
            lambda leader: leader.membership.DrainNode,
            membership_pb2.DrainNodeRequest(node_id=node_id),
            CONTROL_CHANGE,
        )
        return Drained(
            state=membership_pb2.NodeState.Name(answer.state).removeprefix("NODE_STATE_").lower(),
            shards_owned=answer.shards_owned,
            shards_held=answer.shards_held,
        )

    async def wait_until_drained(self, node_id: str, *, timeout_seconds: float = 120.0) -> None:
        """Take a node out of service and return once it has said good-bye.

        Raises:
            NotFoundError: there is no such node.
            PreconditionError: no other node could serve.
            UnavailableError: it was not gone in time; it is still being drained.
        """
        deadline = Deadline.after(self._clock, timeout_seconds)
        while not (seen := await self.drain_node(node_id)).gone:
            if deadline.passed:
                raise UnavailableError(
                    "the node still holds shards",
                    reason="DRAINING",
                    remedy="ask again, and see with brainy status what its shards wait for",
                    node=node_id,
                    shards_owned=seen.shards_owned,
                    shards_held=seen.shards_held,
                )
            await self._clock.sleep(_DRAIN_POLL_SECONDS)

    async def start_migration(
        self,
        strategy: Strategy | str | None = None,
        target: TargetSpec | None = None,
        *,
        validate_only: bool = False,
        requested_by: str = "",
        pause_cap_seconds: float = 0.0,
        quarantine_limit: int = 0,
        writers_stopped: bool = False,
        require_backup: str = "",
        keep_way_back: bool = False,
        hold_before_switch: bool = False,
        observe_seconds: float = 0.0,
        max_unavailable: int = 0,
        bake_seconds: float = 0.0,
        quality: QualityThresholds | None = None,
        rollback_if: RollbackLimits | Sequence[str] = (),
        source: SourceSpec | None = None,
    ) -> Migration:
        """Start a migration to the next generation. Reads and writes go on while it runs.

        A plan is made, stored and executed; what it asks to be confirmed counts as confirmed.

        Args:
            strategy: how nodes are moved; None for rolling, or for the one that brings what ``source`` names.
            target: what the next generation shall look like; as now if left out.
            validate_only: fail exactly where the real call would, and write nothing.
            requested_by: who asks and why, for the history.
            pause_cap_seconds: longest time writes may wait at the cut-over; 0 for the default of 3 s.
            quarantine_limit: how many unreadable source objects are accepted; those that were replayed do not
                count. Their bytes are kept in the target. Past it the migration is refused, or, if the target finds
                more than the source reported, aborted before anything has moved.
            writers_stopped: for COORDINATED, which is refused without it: every writer is stopped, and stays so until
                the migration has ended.
            keep_way_back: after the switch the source follows the target, so that ``rollback_migration`` loses nothing,
                until ``complete_migration``.
            hold_before_switch: do not switch before ``promote_migration``.
            observe_seconds: with a way back, complete by itself after so long; 0 for only when asked.
            max_unavailable: for ROLLING: how many nodes' reads move together, in one wave; 0 for one.
            bake_seconds: for ROLLING: how long a wave must answer healthily before the next one, or the switch.
            quality: what the target's search quality must keep to before anything moves; None: it is not looked at.
            rollback_if: with a way back, roll back by itself when the target serves worse than this after the switch:
                ``["error-rate>0.01", "p99>2x", "p99>250ms", "write-p99>3x", "overlap<0.9"]``, or ``["worse"]`` for
                what suits most (``brainy.traffic.limits``).
            source: where the data come from, for a namespace that is empty; this namespace itself if left out.

        Raises:
            InvalidRequestError: there can be no such target, or no such limit.
            PreconditionError: MIGRATION_RUNNING, STORE_UNFIT or QUARANTINE_LIMIT; nothing was changed.
        """
        pause = duration_pb2.Duration()
        pause.FromNanoseconds(round(pause_cap_seconds * 1e9))
        observe = duration_pb2.Duration()
        observe.FromNanoseconds(round(observe_seconds * 1e9))
        request = migration_pb2.StartMigrationRequest(
            namespace=self.namespace,
            strategy=strategy_to_proto(strategy or (Strategy.ROLLING if source is None else None)),
            target=target_to_proto(target),
            request_id=self._changing(),
            validate_only=validate_only,
            requested_by=requested_by,
            pause_cap=pause if pause_cap_seconds else None,
            quarantine_limit=quarantine_limit,
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
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.StartMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)

    async def get_migration(self, id: str) -> Migration:  # noqa: A002 - as the field is called
        """Read a migration with its story, held against its plan.

        Raises:
            NotFoundError: there is no such migration.
        """
        request = migration_pb2.GetMigrationRequest(id=id, namespace=self.namespace)
        answer = await self._coordinators.unary(lambda leader: leader.migrations.GetMigration, request, CONTROL)
        return migration_from_proto(answer.migration, answer.outcome if answer.HasField("outcome") else None)

    async def list_migrations(self) -> list[Migration]:
        """List every migration of the namespace."""
        found: list[Migration] = []
        token = ""
        while True:
            request = migration_pb2.ListMigrationsRequest(namespace=self.namespace, page_size=_PAGE, page_token=token)
            answer = await self._coordinators.unary(lambda leader: leader.migrations.ListMigrations, request, CONTROL)
            found.extend(map(migration_from_proto, answer.migrations))
            token = answer.next_page_token
            if not token:
                return found

    async def watch_migration(self, id: str) -> AsyncGenerator[Migration, None]:  # noqa: A002 - as the field is called
        """Yield a migration now and each time it changes, until it has ended.

        Survives the coordinator: the stream is taken up again with whichever leads next.

        Raises:
            NotFoundError: there is no such migration.
            UnavailableError: no coordinator answered for two minutes.
        """
        request = migration_pb2.WatchMigrationRequest(id=id, namespace=self.namespace)
        last: Migration | None = None
        while last is None or not last.ended:
            quiet = True
            async for answer in self._coordinators.stream(
                lambda leader: leader.migrations.WatchMigration, request, WATCH
            ):
                seen = migration_from_proto(answer.migration)
                if seen == last:
                    continue
                last, quiet = seen, False
                yield seen
                if seen.ended:
                    return
            if quiet and (last is None or not last.ended):
                # A server that is going away ends the stream cleanly; ask the next one, without haste.
                await self._clock.sleep(self._ids.jitter(0.2, 0.5))

    async def wait_for_migration(self, id: str) -> Migration:  # noqa: A002 - as the field is called
        """Return a migration once it has ended.

        One that keeps a way back ends only when it is completed; ``wait_until_migration_rests`` does not wait for that.

        Raises:
            NotFoundError: there is no such migration.
            UnavailableError: as ``watch_migration``.
        """
        last: Migration | None = None
        async for seen in self.watch_migration(id):
            last = seen
        if last is None:
            raise UnavailableError(
                "the coordinator said nothing about the migration", remedy="ask for the migration again", migration=id
            )
        return last

    async def abort_migration(self, id: str, *, requested_by: str = "") -> Migration:  # noqa: A002 - as the field is called
        """Undo a migration that has not cut over yet.

        Raises:
            NotFoundError: there is no such migration.
            PastPointOfNoReturnError: it has cut over; the target is in service and stays.
        """
        request = migration_pb2.AbortMigrationRequest(
            id=id, namespace=self.namespace, request_id=self._changing(), requested_by=requested_by
        )
        answer = await self._coordinators.unary(
            lambda leader: leader.migrations.AbortMigration, request, CONTROL_CHANGE
        )
        return migration_from_proto(answer.migration)


def _problem(message: cluster_pb2.Problem) -> Problem:
    return Problem(reason=message.reason, message=message.message, remedy=message.remedy, fields=dict(message.fields))


def _replica(message: control_pb2.ShardReplica) -> ShardReplica:
    return ShardReplica(
        namespace=message.namespace,
        generation=message.generation,
        shard=message.shard,
        role=control_pb2.ShardRole.Name(message.role).removeprefix("SHARD_ROLE_").lower(),
        state=control_pb2.ShardState.Name(message.state).removeprefix("SHARD_STATE_").lower(),
        applied=message.applied,
        copied=message.copied,
        total=message.total,
        noun_count=message.noun_count,
        verb_count=message.verb_count,
        quarantined=message.quarantined,
        reason=message.reason,
        message=message.message,
        following=_following(message.following) if message.HasField("following") else None,
    )


def _following(message: control_pb2.Following) -> Following:
    return Following(
        stage=message.stage,
        lag_seconds=message.lag.ToNanoseconds() / 1e9 if message.HasField("lag") else None,
        open_items=message.open_items,
        passes=message.passes,
        applied=message.applied,
        conflicts=message.conflicts,
        unreadable=message.unreadable,
        last_error=message.last_error,
    )
